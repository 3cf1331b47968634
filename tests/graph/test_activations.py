"""Activations that are no objects of keras.activations: what they are recognised as, and what not."""

import functools
import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import activations, propagation, step_types
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import with_weights

L = keras.layers

KNOWN = {
    tf.nn.relu: "relu", tf.nn.relu6: "relu6", tf.nn.leaky_relu: "leaky_relu", tf.nn.elu: "elu", tf.nn.selu: "selu",
    tf.nn.gelu: "gelu", tf.nn.silu: "silu", tf.nn.sigmoid: "sigmoid", tf.math.sigmoid: "sigmoid",
    tf.nn.softmax: "softmax", tf.nn.log_softmax: "log_softmax", tf.nn.softplus: "softplus",
    tf.math.softplus: "softplus", tf.nn.softsign: "softsign", tf.tanh: "tanh", tf.nn.tanh: "tanh",
    tf.exp: "exponential", tf.identity: "linear",
    keras.ops.relu: "relu", keras.ops.nn.relu6: "relu6", keras.ops.softmax: "softmax",
    keras.ops.sigmoid: "sigmoid", keras.ops.tanh: "tanh", keras.ops.hard_sigmoid: "hard_sigmoid",
    keras.ops.leaky_relu: "leaky_relu", keras.ops.silu: "silu", keras.ops.elu: "elu", keras.ops.selu: "selu",
}  # fmt: skip
WRITTEN_OUT = {
    "relu": [
        lambda x: tf.maximum(x, 0.0), lambda x: x * tf.cast(x > 0, x.dtype), lambda x: (x + tf.abs(x)) / 2,
        lambda x: keras.ops.where(x > 0, x, 0.0), keras.ops.relu,
    ],
    "relu6": [lambda x: tf.clip_by_value(x, 0.0, 6.0), functools.partial(keras.activations.relu, max_value=6.0)],
    "leaky_relu": [lambda x: tf.maximum(0.2 * x, x)],
    "sigmoid": [lambda x: 1 / (1 + tf.exp(-x)), lambda x: 0.5 * tf.tanh(x / 2) + 0.5],
    "softmax": [
        lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True), lambda x: tf.exp(tf.nn.log_softmax(x)),
        tf.function(tf.nn.softmax),
    ],
    "softplus": [lambda x: tf.math.log(1 + tf.exp(x))],
    "silu": [lambda x: x * tf.sigmoid(x)],
    "mish": [lambda x: x * tf.tanh(tf.math.softplus(x))],
}  # fmt: skip
# A name, but not the function that keras.activations has by it.
WITH_SETTINGS = [
    ("leaky_relu", functools.partial(tf.nn.leaky_relu, alpha=0.1)),
    ("leaky_relu", lambda x: tf.nn.leaky_relu(x, 1e-4)),
    ("elu", functools.partial(keras.activations.elu, alpha=0.5)),
    ("celu", lambda x: tf.maximum(x, 0.0) + tf.minimum(0.0, 2 * tf.math.expm1(x / 2))),
    ("silu", functools.partial(tf.nn.silu, beta=1.7)),
    ("gelu", functools.partial(tf.nn.gelu, approximate=True)),
    ("rectifier", functools.partial(keras.activations.relu, max_value=5.0)),
    ("rectifier", functools.partial(keras.activations.relu, max_value=100.0)),
    ("rectifier", functools.partial(keras.activations.relu, threshold=1.0)),
    ("rectifier", lambda x: tf.nn.relu(x) * tf.cast(x > 1e-5, x.dtype)),
    ("rectifier", lambda x: tf.minimum(tf.nn.relu(x), 3e5)),
]


def fails(x):
    raise RuntimeError("never called like this")


NOT_KNOWN = {
    "crelu": tf.nn.crelu,
    "square": tf.square,
    "abs": tf.abs,
    "zeros": tf.zeros_like,
    "ones": tf.ones_like,
    "sin": tf.sin,
    "small offset": lambda x: tf.maximum(x, 1e-7),
    "sharp softplus": lambda x: tf.math.softplus(100 * x) / 100,
    "reflected": lambda x: tf.where(x < 0, -0.1 * x, x),
    "shifted": lambda x: tf.nn.relu(x + 0.01),
    "leaky above 1000": lambda x: tf.where(x > 1e3, 0.5 * x, tf.nn.relu(x)),
    "leaky below -1000": lambda x: tf.where(x < -1e3, 0.01 * x, tf.nn.relu(x)),
    "temperature": lambda x: tf.nn.softmax(x / 1.01),
    "scaled sigmoid": lambda x: tf.sigmoid(1.01 * x),
    "sigmoid over the row": lambda x: tf.sigmoid(x - tf.reduce_mean(x, -1, keepdims=True)),
    "relu of the row": lambda x: tf.nn.relu(x - tf.reduce_mean(x, -1, keepdims=True)),
    "softmax over the batch": lambda x: tf.nn.softmax(x, axis=0),
    "softmax of all": lambda x: tf.reshape(tf.nn.softmax(tf.reshape(x, [-1])), tf.shape(x)),
    "by the axes": lambda x: tf.nn.relu(x) if len(x.shape) == 2 else x,
    "another shape": lambda x: x[:, :2],
    "a list": lambda x: [x],
    "integers": lambda x: tf.cast(x, tf.int32),
    "fails": fails,
    "nan": lambda x: tf.sqrt(x),
}


@pytest.mark.parametrize("function", KNOWN, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_functions_of_tensorflow_and_keras_ops(function):
    assert activations.function_name(function) == activations.plain_name(function) == KNOWN[function]
    assert activations.activation_name(L.Activation(function)) == KNOWN[function]
    assert activations.activation_name(L.Lambda(function)) == KNOWN[function]
    assert activations.function_name(lambda x: function(x)) == KNOWN[function]


@pytest.mark.parametrize(("name", "function"), [(k, f) for k, each in WRITTEN_OUT.items() for f in each])
def test_functions_written_out(name, function):
    assert activations.function_name(function) == activations.plain_name(function) == name


@pytest.mark.parametrize(("name", "function"), WITH_SETTINGS)
def test_other_settings_have_the_name_but_are_not_keras_own(name, function):
    assert activations.function_name(function) == name and activations.plain_name(function) == ""
    layer = L.Activation(function)
    assert step_types.rectifies(layer) == (name == "rectifier")
    # what a step computes is the function's own
    x = np.array([[-3.0, -0.5, 0.0, 0.5, 2.0, 7.0]], np.float32)
    model = keras.Sequential([keras.Input((6,)), L.Identity(), layer])
    found = propagation.forward(graph := ModelGraph(model), tf.constant(x))[graph.output]
    np.testing.assert_allclose(found, function(tf.constant(x)), rtol=1e-6)


@pytest.mark.parametrize("kind", NOT_KNOWN)
def test_what_only_looks_alike_has_no_name(kind):
    assert activations.function_name(NOT_KNOWN[kind]) == activations.plain_name(NOT_KNOWN[kind]) == ""
    assert activations.activation_name(L.Activation(NOT_KNOWN[kind])) == ""
    assert activations.activation_name(L.Lambda(NOT_KNOWN[kind])) is None


# threshold() has no defaults.
OF_KERAS = {n for n in activations.ELEMENTWISE | activations.HEADS if hasattr(keras.activations, n)} - {"threshold"}


@pytest.mark.parametrize("name", sorted(OF_KERAS))
def test_every_known_function_is_told_from_the_others(name):
    function = getattr(keras.activations, name)
    wanted = "elu" if name == "celu" else name  # with its default they are one function
    assert activations.function_name(lambda x: function(x)) == wanted
    assert activations.function_name(function) == name


def test_a_function_is_called_on_few_arrays_and_once_only():
    calls = []

    def own(x):
        calls.append(x.shape)
        return tf.nn.relu(x)

    assert activations.function_name(own) == "relu"
    count = len(calls)
    assert 2 <= count <= 5 and len(set(calls)) > 1
    layer = L.Lambda(lambda x, low: tf.maximum(x, low), arguments={"low": 0.0})
    assert activations.function_name(own) == activations.activation_name(layer) == "relu" and len(calls) == count
    assert activations.function_of(layer) is activations.function_of(layer)
    kept = weakref.ref(own)
    del own
    gc.collect()
    assert kept() is None  # the memory of what it was holds no function


def test_functions_that_cannot_be_remembered():
    class Own:
        __hash__ = None
        __slots__ = ()

        def __call__(self, x):
            return tf.nn.relu(x)

    assert activations.function_name(Own()) == "relu"


def test_it_is_recognised_while_a_graph_is_traced():
    own, found = (lambda x: tf.maximum(x, 0.0)), []

    @tf.function
    def traced(x):
        found.append(activations.function_name(own))
        return x

    traced(tf.ones(2))
    with tf.Graph().as_default():
        activations.function_name(lambda x: tf.maximum(x, 0.0))  # nothing is computed there: not known, not an error
    assert found == ["relu"] and activations.function_name(own) == "relu"


def test_a_subclass_with_its_own_call_has_no_name():
    class Twice(L.Lambda):
        def call(self, x):
            return 2 * x

    assert activations.activation_name(Twice(tf.nn.relu)) is None
    assert activations.activation_name(L.Lambda(L.ReLU())) is None


# The steps of a model

SOFTMAX_HEADS = {
    "tf.nn": lambda y: L.Activation(tf.nn.softmax)(y),
    "keras.ops": lambda y: L.Activation(keras.ops.softmax)(y),
    "lambda": lambda y: L.Activation(lambda x: tf.nn.softmax(x))(y),
    "written out": lambda y: L.Activation(lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), 1, keepdims=True))(y),
    "axis 1": lambda y: L.Activation(lambda x: tf.nn.softmax(x, axis=1))(y),
    "Lambda": lambda y: L.Lambda(tf.nn.softmax)(y),
    "Lambda with arguments": lambda y: L.Lambda(tf.nn.softmax, arguments={"axis": -1})(y),
    "sigmoid": lambda y: L.Activation(tf.nn.sigmoid)(y),
    "sigmoid of keras.ops": lambda y: L.Lambda(lambda x: keras.ops.sigmoid(x))(y),
    "two": lambda y: L.Activation(tf.nn.sigmoid)(L.Activation("linear")(y)),
}


@pytest.mark.parametrize("kind", SOFTMAX_HEADS)
def test_heads_are_left_off_without_a_word(kind):
    x = keras.Input((6,))
    logits = L.Dense(3, name="logits")(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = ModelGraph(keras.Model(x, SOFTMAX_HEADS[kind](logits)))
    assert graph.stripped and [step.name for step in graph.steps if step.linear] == ["logits"]
    assert not set(activations.HEADS) & {activations.activation_name(step.layer) for step in graph.steps}


def test_the_steps_of_built_in_functions_carry_their_names():
    def odd(x):
        return tf.sin(x)

    functions = [tf.nn.relu, functools.partial(tf.nn.leaky_relu, alpha=0.1), odd, lambda x: tf.cos(x)]
    dense = [L.Dense(4, activation=function, name=f"d{i}") for i, function in enumerate(functions)]
    graph = ModelGraph(keras.Sequential([keras.Input((4,)), *dense, L.Dense(2, name="head")]))
    names = [step.name for step in graph.steps if step.built_in]
    assert names == ["d0/relu", "d1/leaky_relu", "d2/odd", "d3/activation"]
    types = [step_types.of(step) for step in graph.steps if step.built_in]
    assert types == [step_types.RECTIFIER, step_types.ACTIVATION, None, None]


def test_a_lambda_of_several_tensors_is_no_activation():
    x = keras.Input((4,))
    y = L.Lambda(lambda both: tf.nn.relu(both), output_shape=(None, 4))([x, x])
    step = ModelGraph(keras.Model(x, L.Dense(2)(L.Lambda(lambda z: z[0], output_shape=(4,))(y)))).steps[0]
    assert len(step.inputs) == 2 and step_types.of(step) is None


def test_softmax_over_another_axis_stays():
    x = keras.Input((4, 3))
    for function in (functools.partial(tf.nn.softmax, axis=1), functools.partial(keras.activations.softmax, axis=1)):
        layer = L.Activation(function)
        assert activations.softmax_axis(layer) == 1 and activations.plain_name(function) == ""
        with pytest.raises(ValueError, match=r"received \(batch, 4, 3\)"):
            ModelGraph(keras.Model(x, layer(x)))
    assert activations.softmax_axis(L.Softmax(axis=1)) == 1 and activations.softmax_axis(L.Activation("softmax")) == -1


class Scaled(L.Layer):
    """A head of one's own, with a temperature."""

    def call(self, x):
        return keras.ops.softmax(x / 3.0)


PROBABILITIES = {
    "temperature": lambda: L.Activation(lambda x: tf.nn.softmax(x / 2.0), name="last"),
    "Lambda": lambda: L.Lambda(lambda x: tf.nn.softmax(x / 2.0), name="last"),
    "scaled sigmoid": lambda: L.Activation(lambda x: tf.sigmoid(5.0 * x), name="last"),
    "normal distribution": lambda: L.Lambda(lambda x: 0.5 * (1 + tf.math.erf(x)), name="last"),
    "own layer": lambda: Scaled(name="last"),
    "einsum": lambda: L.EinsumDense("ab,bc->ac", 3, activation="softmax", name="last"),
    "built in": lambda: L.Dense(3, activation=lambda x: tf.nn.softmax(x / 2.0), name="last"),
}
NO_PROBABILITIES = {
    "linear": lambda: L.Dense(3, name="last"),
    "relu": lambda: L.Dense(3, activation=tf.nn.relu, name="last"),
    "sin": lambda: L.Activation(tf.sin, name="last"),
    "shrunk": lambda: L.Lambda(lambda x: 0.1 * x + 0.5, name="last"),
    "falling": lambda: L.Lambda(lambda x: tf.sigmoid(-x), name="last"),
    "fails": lambda: L.Lambda(lambda x: x if x.shape[0] is None else fails(x), output_shape=(3,), name="last"),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_that_stay_are_said_by_name(kind):
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, name="logits"), PROBABILITIES[kind]()])
    with pytest.warns(UserWarning, match="step 'last.*these probabilities are explained, not logits.*output_layer="):
        graph = ModelGraph(with_weights(model))
    assert graph.stripped is None and graph.steps[-1].name.startswith("last")
    with warnings.catch_warnings():  # and as a layer in the middle they are nobody's business
        warnings.simplefilter("error")
        assert ModelGraph(model, "logits").stripped is None


@pytest.mark.parametrize("kind", NO_PROBABILITIES)
def test_other_outputs_are_explained_without_a_word(kind):
    model = keras.Sequential([keras.Input((6,)), L.Dense(3), NO_PROBABILITIES[kind]()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ModelGraph(with_weights(model)).stripped is None
