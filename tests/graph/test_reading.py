"""Reading models: layers with several outputs, nested models called by name, structures, states."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import with_weights

L, K = keras.layers, keras.ops


def checked(model, *x, output=None):
    """The graph of a model whose steps give the model's own outputs and the gradients of a tape."""
    graph = ModelGraph(model, output=output)
    given = tuple(map(tf.constant, x))
    structure = given[0] if len(given) == 1 else list(given)
    with tf.GradientTape() as tape:
        tape.watch(given)
        wanted = keras.tree.flatten(model(structure, training=False))
        total = tf.add_n([tf.reduce_sum(y * tf.cast(tf.range(1, y.shape[-1] + 1), y.dtype)) for y in wanted])
    for here, there in zip(propagation.model_outputs(graph, given), wanted, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)
    signals = {}
    for n, y in zip(graph.model_outputs, wanted, strict=True):
        signals[n] = tf.broadcast_to(tf.cast(tf.range(1, y.shape[-1] + 1), y.dtype), y.shape)
    found = propagation.gradients(graph, given, signals)
    for n, gradient in zip(graph.inputs, tape.gradient(total, given), strict=True):
        np.testing.assert_allclose(found[n], gradient, rtol=1e-4, atol=1e-5)
    return graph


def names(graph):
    return [step.name for step in graph.steps]


# Layers with several outputs


def states(x):
    y, h, c = L.LSTM(3, return_state=True, name="lstm")(x)
    return L.Concatenate()([y, L.Dense(2)(h), K.tanh(c)])


def scores(x):
    y, weights = L.MultiHeadAttention(2, 3, name="attend")(x, x, return_attention_scores=True)
    return L.Concatenate()([L.GlobalAveragePooling1D()(y), L.Flatten()(weights)])


def parts(x):
    a, b = K.split(x, [3], axis=1)
    return L.Concatenate()([L.Flatten()(b), L.GlobalAveragePooling1D()(a)])


def single_steps(x):
    first, *_, last = K.unstack(x, axis=1)
    return K.concatenate([last * 2.0, first], axis=-1)


def stacked(x):
    return L.Flatten()(K.stack([x[:, 0], x[:, -1], K.flip(x, axis=1)[:, 1]], axis=1))


SEVERAL = {
    "states": (states, {"lstm", "lstm:1", "lstm:2"}), "scores": (scores, {"attend", "attend:1"}),
    "split": (parts, {"split", "split:1"}), "unstack": (single_steps, {"unstack", "unstack:4"}),
    "stack": (stacked, set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEVERAL)
def test_each_output_of_a_layer_is_a_step(kind, rng):
    body, wanted = SEVERAL[kind]
    x = keras.Input((5, 2))
    model = with_weights(keras.Model(x, L.Dense(3, name="head")(body(x))))
    graph = checked(model, rng.normal(size=(3, 5, 2)).astype("float32"))
    # Operations have the names that Keras counts up.
    assert {name.replace("_1", "").replace("_2", "") for name in names(graph)} >= wanted
    of_one = [step for step in graph.steps if step.part is not None]
    assert all(step.part == (int(step.name.split(":")[1]) if ":" in step.name else 0) for step in of_one)


@pytest.mark.parametrize("kind", ["states", "scores"])
def test_a_second_output_has_a_name(kind):
    body, _ = SEVERAL[kind]
    x = keras.Input((5, 2))
    graph = ModelGraph(keras.Model(x, L.Dense(3)(body(x))))
    name = "lstm:1" if kind == "states" else "attend:1"
    assert graph.tensor_after(name) == next(step.output for step in graph.steps if step.name == name)


@pytest.mark.parametrize("structure", [lambda y: [y], lambda y: {"only": y}, lambda y: (y,)])
def test_a_layer_that_returns_one_tensor_in_a_structure(structure, rng):
    class Packed(L.Layer):
        def call(self, x):
            return structure(x * 2.0)

        def compute_output_spec(self, x):
            return structure(keras.KerasTensor(x.shape, x.dtype))

    x = keras.Input((4,))
    y = keras.tree.flatten(Packed(name="packed")(x))[0]
    model = with_weights(keras.Model(x, L.Dense(2)(y)))
    graph = checked(model, rng.normal(size=(3, 4)).astype("float32"))
    assert names(graph)[0] == "packed" and graph.steps[0].part == 0


# Nested models


def weighing():
    """An inner model of two inputs of one shape, with names in another order than the inputs."""
    a, b = keras.Input((3,), name="IS"), keras.Input((3,), name="IT")
    less = L.Subtract(name="less")([L.Dense(2, name="it")(b), L.Dense(2, name="is")(a)])
    return keras.Model([b, a], less, name="inner")


def goes_by_name():
    """Whether this Keras takes a dict for a model of a list by the inputs' names; old ones sort its keys."""
    inner = weighing()
    one, two = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    return np.array_equal(inner({"IT": one, "IS": two}), inner([one, two]))


CALLS = {
    "list": lambda inner, a, b: inner([a, b]),
    "keyword": lambda inner, a, b: inner(inputs=[a, b]),
    "dict": lambda inner, a, b: inner({"IT": a, "IS": b}),
    "dict in another order": lambda inner, a, b: inner({"IS": b, "IT": a}),
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_nested_model_gets_its_inputs_by_name(kind, rng):
    inner = weighing()
    x = keras.Input((4,))
    a, b = L.Dense(3, activation="tanh", name="a")(x), L.Dense(3, activation="relu", name="b")(x)
    model = with_weights(keras.Model(x, L.Dense(2)(CALLS[kind](inner, a, b))))
    given = rng.normal(size=(3, 4)).astype("float32")
    graph = checked(model, given)
    steps = {step.name: step for step in graph.steps}
    it, is_ = ("a", "b") if not kind.startswith("dict") or goes_by_name() else ("b", "a")
    assert steps["inner/it"].inputs == (graph.tensor_after(it),)
    assert steps["inner/is"].inputs == (graph.tensor_after(is_),)


def test_a_nested_model_of_a_dict_goes_by_its_keys(rng):
    a, b = keras.Input((3,), name="second"), keras.Input((3,), name="first")
    inner = keras.Model({"z": a, "y": b}, L.Subtract()([L.Dense(2)(a), b[:, :2]]), name="inner")
    x = keras.Input((4,))
    y = inner({"y": L.Dense(3)(x), "z": L.Dense(3, activation="relu")(x)})
    checked(with_weights(keras.Model(x, L.Dense(2)(y))), rng.normal(size=(3, 4)).astype("float32"))


def test_a_nested_model_with_two_outputs(rng):
    a = keras.Input((3,))
    inner = keras.Model(a, [L.Dense(2, activation="relu", name="one")(a), L.Dense(3, name="two")(a)], name="inner")
    x = keras.Input((4,))
    one, two = inner(L.Dense(3)(x))
    graph = checked(
        with_weights(keras.Model(x, L.Dense(2)(L.Concatenate()([two, one])))), rng.normal(size=(3, 4)).astype("float32")
    )
    assert "inner" not in graph.ends and {"inner/one", "inner/two"} <= graph.ends.keys()


def test_a_mask_goes_into_a_nested_model(rng):
    a = keras.Input((5, 2))
    inner = keras.Model(a, L.LSTM(3)(a), name="inner")
    x = keras.Input((5, 2))
    model = with_weights(keras.Model(x, L.Dense(2)(inner(L.Masking()(x)))))
    given = rng.normal(size=(3, 5, 2)).astype("float32")
    given[0, 2:] = 0
    checked(model, given)


# Several inputs and outputs


def family(structure):
    a, b = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    joint = L.Concatenate()([L.Dense(3, activation="relu")(a), b])
    return with_weights(keras.Model([a, b], structure(L.Dense(2, name="two")(joint), L.Dense(3, name="three")(a))))


@pytest.mark.parametrize("structure", [lambda p, q: [p, q], lambda p, q: {"b": p, "a": q}], ids=["list", "dict"])
def test_several_inputs_and_outputs(structure, rng):
    model = family(structure)
    x = [rng.normal(size=(4, n)).astype("float32") for n in (3, 4)]
    first = checked(model, *x, output=0)
    assert first.input_names == ["left", "right"] and len(first.inputs) == len(first.model_outputs) == 2
    by_name = {"b": 2, "a": 3} if isinstance(model.output, dict) else {"two": 2, "three": 3}
    for name, units in by_name.items():
        assert ModelGraph(model, output=name).neurons == units
    # counted as model.outputs counts
    assert [ModelGraph(model, output=i).neurons for i in (0, 1, -1)] == [model.outputs[i].shape[1] for i in (0, 1, -1)]


def test_an_output_must_be_chosen_and_be_there():
    model = family(lambda p, q: [p, q])
    with pytest.raises(ValueError, match=r"one output, received 2: \['two', 'three'\]; choose one by output="):
        ModelGraph(model)
    for wrong in (2, -3, "four", True, 1.0):
        with pytest.raises(ValueError, match="output"):
            ModelGraph(model, output=wrong)
    with pytest.raises(ValueError, match="expected one of output_layer and output"):
        ModelGraph(model, "two", output=0)


# States


def test_a_step_puts_a_state_back(rng):
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 2)), L.GRU(3, stateful=True, name="gru"), L.Dense(2)])
    x = tf.constant(rng.normal(size=(2, 3, 2)), tf.float32)
    model(x)
    layer = model.get_layer("gru")
    before = [np.array(state) for state in layer.states]
    graph = ModelGraph(model)
    first = propagation.forward(graph, x)[graph.output]
    np.testing.assert_array_equal(propagation.forward(graph, x)[graph.output], first)
    for old, state in zip(before, layer.states, strict=True):
        np.testing.assert_array_equal(state, old)
    np.testing.assert_allclose(model(x), first, rtol=1e-6)  # from where it stands
    assert np.abs(np.array(layer.states[0]) - before[0]).max() > 1e-3  # and the model itself goes on
    assert graph.batch == 2
