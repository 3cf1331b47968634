"""Padding masks as tensors of the graph: forward and gradients against the model itself, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import masks, propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import with_weights

L = keras.layers


@pytest.fixture(autouse=True)
def wide():
    """Layers that compute in float64."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def sequence(steps=5, channels=2):
    return keras.Input((steps, channels), dtype="float64", name="sequence")


def model_of(body):
    """Masking, then ``body``, then what makes two numbers of it."""
    x = sequence()
    y = body(L.Masking(name="masking")(x))
    y = L.Flatten()(y) if len(y.shape) > 2 else y
    return with_weights(keras.Model(x, L.Dense(2, name="head")(y)))


def block(x):
    """A transformer block."""
    x = L.Dense(4)(x)
    y = L.Add()([x, L.MultiHeadAttention(2, 3, name="attend")(x, x)])
    y = L.LayerNormalization()(y)
    return L.GlobalAveragePooling1D()(L.Add()([y, L.Dense(4)(L.Dense(5, activation="relu")(y))]))


BODIES = {
    "MultiHeadAttention": lambda x: L.MultiHeadAttention(2, 3)(x, x),
    "Dense between": lambda x: L.MultiHeadAttention(2, 3)(L.Dense(3)(x), L.Dense(3)(x)),
    "GroupQueryAttention": lambda x: L.GroupQueryAttention(3, 2, 1)(x, x),
    "Attention": lambda x: L.Attention()([x, x]),
    "AdditiveAttention": lambda x: L.AdditiveAttention()([x, x]),
    "transformer block": block,
    "stacked LSTMs": lambda x: L.LSTM(2)(L.LSTM(3, return_sequences=True)(x)),
    "LSTM and masked mean": lambda x: L.GlobalAveragePooling1D()(L.GRU(3, return_sequences=True)(x)),
    "TimeDistributed": lambda x: L.LSTM(2)(L.TimeDistributed(L.Dense(3, activation="relu"))(x)),
    "Bidirectional": lambda x: L.Bidirectional(L.LSTM(2))(x),
    "masked mean": lambda x: L.GlobalAveragePooling1D()(L.Dense(3, activation="tanh")(x)),
    "two readers of one mask": lambda x: L.Concatenate()([L.LSTM(2)(x), L.GlobalAveragePooling1D()(x)]),
}


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")  # by Keras: it is what is tested
@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.few(3)
def test_a_padded_sequence_is_walked_as_the_model_runs_it(kind, rng):
    try:
        model = model_of(BODIES[kind])
    except ValueError as problem:
        if "A KerasTensor cannot be used" not in str(problem):
            raise
        pytest.skip(f"Keras {keras.__version__} does not build this model")
    x = rng.normal(size=(2, 5, 2))
    x[0, 3:] = 0
    graph, given = ModelGraph(model), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        logits = model(given, training=False)
        total = tf.reduce_sum(logits * [1.0, -2.0])
    assert logits.dtype == tf.float64
    np.testing.assert_allclose(propagation.forward(graph, given)[graph.output], logits, rtol=1e-10, atol=1e-12)
    signal = {graph.output: tf.constant([[1.0, -2.0]] * 2, tf.float64)}
    found = propagation.gradients(graph, (given,), signal)[graph.input].numpy()
    wanted = tape.gradient(total, given).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max())
    # and the mask does something: without it the output is another
    x[0, 3:] = 1e-9
    assert np.abs(np.asarray(model(x))[0] - logits[0]).max() > 1e-3


@pytest.mark.parametrize("kind", ["stacked LSTMs", "transformer block"])
def test_a_mask_is_a_tensor_of_the_graph(kind, rng):
    graph = ModelGraph(model_of(BODIES[kind]))
    (made,) = [step for step in graph.steps if step.name == "masking/mask"]
    assert graph.dtypes[made.output] == "bool" and graph.shapes[made.output] == (5,)
    readers = [step for step in graph.steps if made.output in step.masks.values()]
    assert len(readers) >= 2 and not graph.floating(made.output)
    x = rng.normal(size=(3, 5, 2))
    x[1, 2:], x[2, 1:] = 0, 0
    tensors = propagation.forward(graph, tf.constant(x))
    for step in readers:  # by the one way of Keras or the other
        assert step.mask not in step.signal_inputs
        np.testing.assert_array_equal(tensors[step.mask], (x != 0).any(axis=-1))


def test_an_embeddings_mask_is_of_its_tokens():
    tokens = keras.Input((6,), dtype="int32")
    y = L.GlobalAveragePooling1D()(L.Embedding(9, 3, mask_zero=True, name="embedding")(tokens))
    model = with_weights(keras.Model(tokens, L.Dense(2)(y)))
    graph = ModelGraph(model)
    x = np.int32([[1, 2, 0, 0, 3, 0], [4, 4, 4, 4, 4, 4]])
    tensors = propagation.forward(graph, tf.constant(x))
    (made,) = [step for step in graph.steps if step.name == "embedding/mask"]
    np.testing.assert_array_equal(tensors[made.output], x != 0)
    table, kernel, bias = (w.astype(float) for w in model.get_weights())
    kept = (x != 0)[..., None]
    mean = (table[x] * kept).sum(axis=1) / kept.sum(axis=1)
    np.testing.assert_allclose(tensors[graph.output], mean @ kernel + bias, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_mask_stops_where_a_layer_takes_it_away():
    graph = ModelGraph(model_of(lambda x: L.Flatten(name="flat")(x)))
    flat = next(step for step in graph.steps if step.name == "flat")
    assert flat.masks  # it is called on a masked tensor,
    assert not graph.steps[-1].masks  # and hands on none


def test_a_mask_that_is_called_for_by_name(rng):
    x, keep = sequence(), keras.Input((5,), dtype="bool", name="keep")
    y = L.LSTM(3, name="lstm")(x, mask=keep)
    model = with_weights(keras.Model([x, keep], L.Dense(2)(y)))
    graph = ModelGraph(model)
    given = tf.constant(rng.normal(size=(2, 5, 2))), tf.constant(rng.random((2, 5)) > 0.4)
    np.testing.assert_allclose(propagation.forward(graph, given)[graph.output], model(given), rtol=1e-10)
    (lstm,) = [step for step in graph.steps if step.name == "lstm"]
    assert lstm.signal_inputs == (graph.inputs[0],)


# Which layers are asked


class Own(L.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "may"),
    [
        (lambda: L.Masking(), True), (lambda: L.Embedding(3, 2, mask_zero=True), True), (Own, True),
        (lambda: L.Embedding(3, 2), False), (lambda: L.Dense(2), False), (lambda: L.LSTM(2), False),
        (lambda: L.TimeDistributed(L.Dense(2)), False),
        (lambda: L.TimeDistributed(L.Masking()), True), (lambda: keras.ops.relu, False),
    ],
)  # fmt: skip
def test_what_may_make_a_mask(make, may):
    assert masks.may_make_mask(make()) is may


def found(layer, mask=None, shape=(5, 2)):
    """What a layer called on one tensor, id 7, makes of its mask, id 8."""
    layer.build((None, *shape))
    x = keras.KerasTensor((None, *shape), "float64")
    known = {} if mask is None else {7: (8, mask)}
    return masks.found(layer, (("x",), {}), {7: x}, known, lambda leaf: 7 if leaf == "x" else None)


def test_the_masks_of_a_layers_outputs():
    (made,) = found(L.Masking())
    assert made.passed is None and made.shape == (5,)
    (passed,) = found(L.Dropout(0.5), (5,))
    assert passed.passed == 7
    assert found(L.Dropout(0.5)) == [None]
    assert found(L.LSTM(3), (5,)) == [None]
    (passed,) = found(L.LSTM(3, return_sequences=True), (5,))
    assert passed.passed == 7
    first, *states = found(L.LSTM(3, return_sequences=True, return_state=True), (5,))
    assert first.passed == 7 and states == [None, None]


def test_a_layer_that_cannot_be_traced_has_no_masks_to_tell():
    class Broken(L.Layer):
        def call(self, x):
            raise RuntimeError("not outside of its model")

    assert found(Broken()) == []
