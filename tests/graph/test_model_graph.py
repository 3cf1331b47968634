"""ModelGraph: every kind of model that has a graph, and those that are refused."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.saving.fingerprint import fingerprint
from tests.networks import cnn, mlp, with_weights

L = keras.layers


def sequential():
    return cnn()


def functional():
    a = keras.Input((6,))
    b = L.Dense(5, activation="relu", name="one")(a)
    c = L.Dense(5, name="two")(a)
    return keras.Model(a, L.Dense(3, name="head")(L.Add(name="sum")([b, c])))


def nested():
    inner = keras.Sequential([keras.Input((5,)), L.Dense(4, activation="relu", name="deep")], name="inner")
    a = keras.Input((6,))
    return keras.Model(a, L.Dense(3)(inner(L.Dense(5, name="first")(a))))


def nested_in_nested():
    inmost = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="tanh", name="deep")], name="inmost")
    b = keras.Input((5,))
    inner = keras.Model(b, inmost(L.Dense(4, name="middle")(b)), name="inner")
    return keras.Sequential([keras.Input((6,)), L.Dense(5), inner, L.Dense(3)])


def nested_twice():
    inner = keras.Sequential([keras.Input((5,)), L.Dense(5, activation="relu", name="deep")], name="inner")
    a = keras.Input((5,))
    return keras.Model(a, L.Dense(3)(inner(L.Dense(5)(inner(a)))))


def nested_with_two_inputs():
    b, c = keras.Input((5,)), keras.Input((4,))
    inner = keras.Model([b, c], L.Concatenate()([L.Dense(2)(c), b]), name="inner")
    a = keras.Input((6,))
    return keras.Model(a, L.Dense(3)(inner([L.Dense(5)(a), L.Dense(4)(a)])))


def shared():
    layer = L.Dense(5, activation="relu", name="same")
    a = keras.Input((5,))
    return keras.Model(a, L.Dense(3)(layer(layer(layer(a)))))


def operations():
    a = keras.Input((4, 3))
    b = keras.ops.relu(L.Dense(5)(a) * 2.0 + 1.0)
    b = keras.ops.concatenate([b, keras.ops.tanh(b)], axis=-1)
    b = keras.ops.reshape(b, (-1, 40)) - keras.ops.mean(b, axis=(1, 2), keepdims=False)[:, None]
    return keras.Model(a, L.Dense(3)(b))


def activation_as_layer():
    return keras.Sequential(
        [keras.Input((6,)), L.Dense(5, activation=L.LeakyReLU(negative_slope=0.3)), L.Dense(3, activation=L.ReLU(2.0))]
    )


def pass_through():
    """A nested model that returns its input, and a tensor that nobody reads."""
    b = keras.Input((5,))
    inner = keras.Model(b, b, name="nothing")
    a = keras.Input((6,))
    c = L.Dense(5)(a)
    return keras.Model(a, L.Dense(3)(inner(c)))


def many_layers():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)), L.ZeroPadding2D(1), L.Conv2D(4, 3, strides=2, padding="same", activation="elu"),
            L.BatchNormalization(), L.Dropout(0.5), L.GaussianNoise(1.0), L.UpSampling2D(2), L.Cropping2D(1),
            L.AveragePooling2D(2, padding="same"), L.Permute((2, 1, 3)), L.Conv2D(2, 2, groups=2, use_bias=False),
            L.GlobalAveragePooling2D(), L.Dense(3, activation="softplus"),
        ]
    )  # fmt: skip


def built_by_a_call():
    model = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(3)])
    model(np.zeros((1, 6), np.float32))
    return model


def depthwise_and_transposed():
    return keras.Sequential(
        [
            keras.Input((6, 5, 3)), L.DepthwiseConv2D(2, depth_multiplier=2, activation="relu"),
            L.SeparableConv2D(4, 3, padding="same", activation="tanh"), L.SeparableConv2D(3, 2, use_bias=False),
            L.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu"), L.Flatten(), L.Dense(3),
        ]
    )  # fmt: skip


MODELS = [sequential, depthwise_and_transposed, functional, nested, nested_in_nested, nested_twice,
          nested_with_two_inputs, shared, operations, activation_as_layer, pass_through, many_layers,
          built_by_a_call]  # fmt: skip
BY_NAME = {"ids": lambda value: getattr(value, "__name__", None)}


def nodes(model):
    """How often each layer was called in a graph, inside nested models too."""
    counts = []
    for operation in keras.Model(model.inputs, model.outputs).operations:
        counts.append((len(operation._inbound_nodes), len(operation._outbound_nodes)))
        if isinstance(operation, keras.Model):
            counts.append(nodes(operation))
    return counts


@pytest.mark.parametrize("make", MODELS, **BY_NAME)
@pytest.mark.few(4)
def test_the_walk_reproduces_predict_and_leaves_the_model_alone(make, rng):
    model = with_weights(make())
    if make is many_layers:  # variances above 0
        model.set_weights([np.abs(w) for w in model.get_weights()])
    before, weights, config = nodes(model), model.get_weights(), model.to_json()
    x = rng.normal(size=(5, *model.input_shape[1:])).astype("float32")
    graph = ModelGraph(model)
    fingerprint(graph)
    assert model.to_json() == config
    tensors = propagation.forward(graph, tf.constant(x))
    np.testing.assert_allclose(tensors[graph.output], model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)
    for number, tensor in tensors.items():
        assert tuple(tensor.shape[1:]) == graph.shapes[number]
    for i, step in enumerate(graph.steps):
        assert step.index == i and all(n in tensors for n in step.inputs)
        assert step.input_shape == graph.shapes[step.inputs[0]] and step.output_shape == graph.shapes[step.output]
        assert all(n < step.output for n in step.inputs)
    assert len({step.name for step in graph.steps}) == len(graph.steps)
    assert nodes(model) == before
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


def test_a_compiled_and_trained_model_stays_as_it_is(rng):
    model = mlp(head="softmax")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = rng.normal(size=(20, 12)).astype("float32"), np.arange(20) % 4
    model.fit(x, y, verbose=0)
    before, optimizer = nodes(model), model.optimizer
    ModelGraph(model)
    assert nodes(model) == before and model.optimizer is optimizer and model.compiled
    model.fit(x, y, verbose=0)


def names(graph):
    return [step.name for step in graph.steps]


def test_a_built_in_activation_is_a_step_of_its_own():
    graph = ModelGraph(cnn())
    assert names(graph) == ["conv", "conv/relu", "pool", "flatten", "head"]
    assert [step.linear for step in graph.steps] == [True, False, False, False, True]
    assert isinstance(graph.steps[1].layer, L.Activation) and str(graph.steps[0]) == "'conv' (Conv2D)"
    assert graph.neurons == 3 and graph.input == 0 and graph.shapes[0] == (7, 6, 2)


def test_an_activation_given_as_a_layer_is_that_layer():
    model = activation_as_layer()
    graph = ModelGraph(model)
    assert [type(step.layer).__name__ for step in graph.steps] == ["Dense", "LeakyReLU", "Dense", "ReLU"]
    assert graph.steps[1].layer is model.layers[0].activation


def test_a_linear_activation_makes_no_step():
    assert len(ModelGraph(mlp(hidden=(3,), activation="linear")).steps) == 2


def test_names_carry_the_path_and_the_call():
    assert "inner/deep/relu" in names(ModelGraph(nested()))
    assert "inner/inmost/deep/tanh" in names(ModelGraph(nested_in_nested()))
    assert names(ModelGraph(shared()))[:6] == ["same", "same/relu", "same#2", "same#2/relu", "same#3", "same#3/relu"]
    assert names(ModelGraph(nested_twice()))[0] == "inner/deep"
    assert "inner#2/deep" in names(ModelGraph(nested_twice()))


def test_a_shared_layer_is_a_step_a_call():
    graph = ModelGraph(shared())
    calls = [step for step in graph.steps if step.name.startswith("same") and step.linear]
    assert len(calls) == 3 and len({step.layer for step in calls}) == 1
    assert len({step.output for step in calls}) == 3 and len({step.inputs for step in calls}) == 3


def test_steps_that_the_output_does_not_need_are_left_out():
    model = mlp()
    graph = ModelGraph(model, "dense1")
    assert names(graph) == ["dense1", "dense1/relu"] and graph.neurons == 10
    x = np.ones((2, 12), np.float32)
    wanted = model.layers[0](x)
    np.testing.assert_allclose(propagation.forward(graph, tf.constant(x))[graph.output], wanted, rtol=1e-6)


def softmax_layer(x):
    return L.Softmax(name="last")(x)


def softmax_of_another_name(x):
    return L.Activation(keras.activations.softmax, name="last")(x)


HEADS = {
    "activation": lambda x: x,
    "layer": softmax_layer,
    "Activation": softmax_of_another_name,
    "operation": lambda x: keras.ops.softmax(x),
    "axis": lambda x: keras.ops.softmax(x, axis=1),
    "sigmoid": lambda x: L.Activation("sigmoid")(x),
    "sigmoid operation": lambda x: keras.ops.sigmoid(x),
    "log": lambda x: keras.ops.log_softmax(x),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_final_softmax_or_sigmoid_is_left_off(kind, rng):
    a = keras.Input((6,))
    logits = L.Dense(3, name="logits", activation="softmax" if kind == "activation" else None)
    model = with_weights(keras.Model(a, HEADS[kind](logits(a))))
    graph = ModelGraph(model)
    assert names(graph) == ["logits"] and graph.stripped is not None
    x = rng.normal(size=(4, 6)).astype("float32")
    found = propagation.forward(graph, tf.constant(x))[graph.output]
    kernel, bias = logits.get_weights()
    np.testing.assert_allclose(found, x @ kernel + bias, rtol=1e-5, atol=1e-6)
    assert logits.activation is keras.activations.get("softmax" if kind == "activation" else "linear")


def test_heads_are_left_off_as_far_as_they_are_last():
    a = keras.Input((6,))
    b = L.Activation("sigmoid", name="outer")(L.Dense(3, activation="softmax", name="inner")(a))
    graph = ModelGraph(keras.Model(a, b))
    assert names(graph) == ["inner"] and graph.stripped == "inner/softmax"
    # a head that is not the last step stays
    graph = ModelGraph(keras.Model(a, L.Dense(2, name="last")(b)))
    assert names(graph) == ["inner", "inner/softmax", "outer", "last"] and graph.stripped is None


def test_no_head_no_strip():
    assert ModelGraph(mlp()).stripped is None
    assert ModelGraph(mlp(head="relu")).stripped is None


def test_a_head_within_a_nested_model_is_left_off():
    inner = mlp(head="softmax")
    graph = ModelGraph(keras.Sequential([keras.Input((12,)), inner]))
    assert graph.stripped.endswith("head/softmax") and graph.steps[-1].name.endswith("head")


# Names


def test_tensor_after_a_layer():
    graph = ModelGraph(cnn())
    assert graph.tensor_after("conv") == graph.steps[1].output  # its activation included
    assert graph.tensor_after("flatten") == graph.steps[3].output
    graph = ModelGraph(nested())
    deep = graph.tensor_after("inner/deep")
    assert deep == graph.tensor_after("deep") == graph.tensor_after("inner")


@pytest.mark.parametrize(
    ("make", "name", "problem"),
    [(cnn, "conv2", "unknown"), (cnn, "conv/relu", "unknown"), (nested_twice, "deep", "ambiguous"),
     (cnn, "", "unknown")],
)  # fmt: skip
def test_unknown_and_ambiguous_names_are_refused_with_those_there_are(make, name, problem):
    graph = ModelGraph(make())
    with pytest.raises(ValueError, match=f"{problem} layer name {name!r}; expected one of") as refused:
        graph.tensor_after(name)
    assert ("conv" if make is cnn else "inner#2/deep") in str(refused.value)
    with pytest.raises(ValueError, match=problem):
        ModelGraph(make(), name)


def test_each_call_of_a_shared_layer_has_a_name():
    graph = ModelGraph(nested_twice())
    assert graph.tensor_after("inner/deep") != graph.tensor_after("inner#2/deep")
    graph = ModelGraph(shared())
    assert len({graph.tensor_after(name) for name in ("same", "same#2", "same#3")}) == 3


def test_between_and_consumers():
    graph = ModelGraph(functional())
    start = graph.tensor_after("one")
    assert [step.name for step in graph.between(start)] == ["sum", "head"]
    assert [step.name for step in graph.between(graph.input)] == names(graph)
    readers = {number: [step.name for step in steps] for number, steps in graph.consumers().items()}
    assert readers[graph.input] == ["one", "two"] and readers[graph.tensor_after("sum")] == ["head"]
    assert graph.output not in readers
    with pytest.raises(ValueError, match="input layer before the explained output"):
        graph.between(graph.output)
    with pytest.raises(ValueError, match="input layer before the explained output"):
        ModelGraph(functional(), "one").between(graph.tensor_after("two"))


# Refusals


def two_outputs():
    a = keras.Input((2,))
    return keras.Model(a, [L.Dense(2, name="left")(a), L.Dense(3, name="right")(a)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class OwnCall(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 2), np.float32))
    return model


def subclassed_inside():
    a = keras.Input((2,))
    return keras.Model(a, L.Dense(2)(Subclassed()(a)))


def channels_first():
    return keras.Sequential([keras.Input((2, 4, 4)), L.Conv2D(2, 2, data_format="channels_first", name="odd"),
                             L.Flatten(), L.Dense(2)])  # fmt: skip


def rank_three():
    return keras.Sequential([keras.Input((4, 3)), L.Dense(2)])


def training_call():
    a = keras.Input((2,))
    return keras.Model(a, L.Dense(2)(L.Dropout(0.5, name="always")(a, training=True)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_outputs, r"one output, received 2:"),
        (subclassed, r"the model of type Subclassed.*call\(\).*keras.Model\(inputs, outputs\)"),
        (subclassed_inside, r"nested model '.*' of type Subclassed"),
        (lambda: OwnCall([keras.Input((2,)), L.Dense(2)]), "type OwnCall"),
        (lambda: keras.Sequential([L.Dense(2)]), r"not built.*keras.Input\(shape\)"),
        (channels_first, r"expected channels_last, received layer 'odd' \(Conv2D\).*channels_first"),
        (rank_three, r"output of shape \(batch, units\).*received \(batch, 4, 2\).*output_layer"),
    ],
    **BY_NAME,
)
def test_models_without_a_readable_graph_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        ModelGraph(make())


def test_what_was_built_with_training_true_is_read_as_predict_runs_it():
    model, x = training_call(), np.ones((4, 2), np.float32)
    graph = ModelGraph(model)
    logits = propagation.forward(graph, tf.constant(x))[graph.output]
    np.testing.assert_allclose(logits, model.predict(x, verbose=0), rtol=1e-6)


def test_one_of_two_outputs_can_be_named():
    model = two_outputs()
    part = keras.Model(model.inputs, model.outputs[1])  # what the message says to build
    assert names(ModelGraph(part)) == ["right"]


def test_an_output_of_rank_one_can_be_named():
    model = keras.Sequential([keras.Input((4, 3)), L.Flatten(name="flat"), L.Dense(8), L.Reshape((4, 2))])
    with pytest.raises(ValueError, match="received .batch, 4, 2."):
        ModelGraph(model)
    assert ModelGraph(model, "flat").neurons == 12


@pytest.mark.parametrize("wrong", [None, 3, "model.keras", L.Dense(2), np.zeros(3), keras.Model])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(TypeError, match=r"expected a Keras 3 model \(keras.Model\), received"):
        ModelGraph(wrong)


def test_a_tf_keras_model_is_refused():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.InputLayer((2,)), tf_keras.layers.Dense(2)])
    with pytest.raises(TypeError, match=r"expected a Keras 3 model \(keras.Model\), received tf_keras"):
        ModelGraph(model)


def test_a_graph_keeps_nothing_alive():
    model = mlp()
    kept = weakref.ref(model)
    graph = ModelGraph(model)
    assert graph.model is model
    del model, graph
    gc.collect()
    assert kept() is None


def test_a_quantized_model_is_refused():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(9, name="hidden"), keras.layers.Dense(4)])
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"received layer 'hidden' quantized to 'int8'.*before quantize\(\)"):
        ModelGraph(model)


# Separable convolutions


@pytest.mark.parametrize(("kind", "shape"), [(L.SeparableConv1D, (9, 3)), (L.SeparableConv2D, (7, 6, 3))])
@pytest.mark.parametrize(
    "settings",
    [{}, {"strides": 2, "depth_multiplier": 2}, {"padding": "same", "dilation_rate": 2}, {"use_bias": False}],
)
def test_a_separable_convolution_is_two_linear_steps_with_its_weights(kind, shape, settings, rng):
    layer = kind(4, 3, activation="relu", name="both", **settings)
    model = with_weights(keras.Sequential([keras.Input(shape), layer, L.Flatten(), L.Dense(2)]))
    graph = ModelGraph(model)
    assert [step.name for step in graph.steps[:3]] == ["both/depthwise", "both/pointwise", "both/relu"]
    depthwise, pointwise = graph.steps[:2]
    assert depthwise.linear and pointwise.linear and not graph.steps[2].linear and graph.steps[2].built_in
    assert isinstance(depthwise.layer, (L.DepthwiseConv1D, L.DepthwiseConv2D))
    assert isinstance(pointwise.layer, (L.Conv1D, L.Conv2D))
    assert depthwise.layer.kernel is layer.depthwise_kernel and pointwise.layer.kernel is layer.pointwise_kernel
    assert depthwise.layer.bias is None and pointwise.layer.bias is layer.bias
    weights = [*depthwise.layer.get_weights(), *pointwise.layer.get_weights()]
    assert all((one == other).all() for one, other in zip(weights, layer.get_weights(), strict=True))
    assert graph.tensor_after("both") == graph.steps[2].output

    x = tf.constant(rng.normal(size=(3, *shape)), "float32")
    tensors = propagation.forward(graph, x)
    for step in graph.steps[:3]:
        assert tuple(tensors[step.output].shape[1:]) == step.output_shape
    np.testing.assert_allclose(tensors[graph.steps[2].output], layer(x), rtol=1e-5, atol=1e-6)
    layer.depthwise_kernel.assign(2 * layer.depthwise_kernel)  # trained further: the steps see it
    np.testing.assert_allclose(propagation.forward(graph, x)[graph.steps[2].output], layer(x), rtol=1e-5, atol=1e-6)


def test_a_shared_separable_convolution_has_one_set_of_parts():
    layer = L.SeparableConv2D(3, 2, padding="same", name="both")
    x = keras.Input((4, 4, 3))
    graph = ModelGraph(keras.Model(x, L.Dense(2)(L.Flatten()(layer(layer(x))))))
    names = ["both/depthwise", "both/pointwise", "both#2/depthwise", "both#2/pointwise"]
    assert [step.name for step in graph.steps[:4]] == names
    assert graph.steps[0].layer is graph.steps[2].layer and graph.steps[1].layer is graph.steps[3].layer


def test_a_separable_convolution_with_a_call_of_its_own_stays_whole():
    class Doubled(L.SeparableConv2D):
        def call(self, x):
            return 2 * super().call(x)

    model = keras.Sequential([keras.Input((4, 4, 3)), Doubled(3, 2, name="odd"), L.Flatten(), L.Dense(2)])
    assert [step.name for step in ModelGraph(model).steps][0] == "odd"


def test_augmentations_are_walked_as_predict_runs_them(rng):
    """Keras takes a call of theirs outside of a model for training."""
    layers = [L.RandomFlip(), L.RandomRotation(0.3), L.RandomZoom(0.3), L.RandomContrast(0.5)]
    model = with_weights(keras.Sequential([keras.Input((6, 6, 3)), *layers, L.Flatten(), L.Dense(2)]))
    x = rng.uniform(size=(4, 6, 6, 3)).astype("float32")
    graph = ModelGraph(model)
    logits = propagation.forward(graph, x)[graph.output]
    np.testing.assert_allclose(logits, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
