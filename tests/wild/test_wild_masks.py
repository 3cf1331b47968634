"""Padding masks: a map is that of the model with its masks, whoever makes them and whoever reads them."""

import re

import keras
import numpy as np
import pytest

from tests.networks import samples, with_weights
from tests.wild.common import GRADIENTS, LEARNING, RULED, agree, by_tape, each, largest, made, maps

L = keras.layers
X = samples((5, 2), 4) + np.float32(0.1)
X[0, 3:] = 0  # padding behind three steps
X[1, 1] = 0  # and one left out in the middle


class Block(L.Layer):
    """A transformer's block as one layer, as the tutorials write it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True
        self.attention, self.dense = L.MultiHeadAttention(2, 3), L.Dense(4, activation="relu")
        self.first, self.second = L.LayerNormalization(), L.LayerNormalization()

    def build(self, shape):
        self.attention.build(shape, shape)
        for layer in (self.dense, self.first, self.second):
            layer.build(shape)

    def call(self, x, mask=None):
        pairs = None if mask is None else mask[:, None, :]
        x = self.first(x + self.attention(x, x, attention_mask=pairs))
        return self.second(x + self.dense(x))


def transformer(y):
    """The same with one layer a step."""
    y = L.Dense(4)(y)  # of two channels, a normalisation leaves signs only
    z = L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(2, 3)(y, y)]))
    return L.LayerNormalization()(L.Add()([z, L.Dense(4, activation="relu")(z)]))


READERS = {
    "multi-head attention": lambda y: L.MultiHeadAttention(2, 3)(y, y),
    "multi-head attention behind Dense": lambda y: (lambda z: L.MultiHeadAttention(2, 3)(z, z))(L.Dense(4)(y)),
    "grouped query attention": lambda y: L.GroupQueryAttention(3, 2, 1)(y, y),
    "attention": lambda y: L.Attention()([y, y]),
    "additive attention": lambda y: L.AdditiveAttention()([y, y]),
    "attention behind Dense": lambda y: (lambda z: L.Attention()([z, z]))(L.Dense(3)(y)),
    "query and value apart": lambda y: L.Attention()([L.Dense(3)(y), L.Dense(3)(y)]),
    "a transformer in steps": transformer,
    "a transformer as one layer": lambda y: Block()(L.Dense(4)(y)),
    "LSTM": lambda y: L.LSTM(3, return_sequences=True)(y),
    "stacked LSTMs": lambda y: L.LSTM(3, return_sequences=True)(L.LSTM(3, return_sequences=True)(y)),
    "LSTM behind dropout": lambda y: L.LSTM(3, return_sequences=True)(L.SpatialDropout1D(0.5)(y)),
    "GRUs both ways": lambda y: L.Bidirectional(L.GRU(3, return_sequences=True))(y),
    "TimeDistributed": lambda y: L.TimeDistributed(L.Dense(3))(y),
    "attention behind LSTM": lambda y: (lambda z: L.Attention()([z, z]))(L.LSTM(3, return_sequences=True)(y)),
}
SLOW = ("GRUs both ways", "LSTM behind dropout", "attention behind LSTM")
# ops.reshape makes no word of the mask that it drops, as Flatten does.
ENDS = {"mean": lambda y: L.GlobalAveragePooling1D()(y), "flat": lambda y: keras.ops.reshape(y, (-1, 5 * y.shape[-1]))}


def masked(reader, end, head=None):
    """A masked series, what reads it, and a head of three units."""
    x = keras.Input((5, 2))
    try:
        y = ENDS[end](READERS[reader](L.Masking(name="masking")(x)))
    except ValueError as problem:
        if "A KerasTensor cannot be used as input to a TensorFlow function" not in str(problem):
            raise
        pytest.skip("This Keras cannot build a masked Attention layer itself")
    return with_weights(keras.Model(x, L.Dense(3, activation=head, name="head")(y)))


@pytest.mark.parametrize("reader", each(READERS, [reader for reader in READERS if reader not in SLOW]))
@pytest.mark.few(3)
def test_the_gradient_with_masks(reader):
    model = masked(reader, "mean")
    logits = lambda x: model(x, training=False)  # noqa: E731
    analyzer = made("gradient", model)
    np.testing.assert_allclose(analyzer.logits(X), logits(X), rtol=1e-5, atol=1e-6)
    agree(analyzer.analyze(X), by_tape("gradient", largest(logits, X), X))
    # The mask matters here: without it, the gradient is another.
    x = keras.Input((5, 2))
    bare = keras.Model(x, L.Dense(3)(ENDS["mean"](READERS[reader](x))))
    bare.set_weights(model.get_weights())
    assert np.abs(np.asarray(bare(X)) - np.asarray(model(X)))[0].max() > 1e-3


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.parametrize("reader", ["multi-head attention behind Dense", "stacked LSTMs", "a transformer in steps"])
@pytest.mark.few(2)
def test_every_gradient_method_and_a_reader_that_flattens(name, reader):
    model = masked(reader, "flat")
    agree(maps(name, model, X), by_tape(name, largest(lambda x: model(x, training=False), X), X))


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.medium
def test_tokens_with_mask_zero_explained_at_their_embedding(name):
    tokens = np.array([[3, 1, 4, 0, 0], [2, 7, 0, 5, 1]], "int32")
    x = keras.Input((5,), dtype="int32")
    y = L.Embedding(8, 4, mask_zero=True, name="embedding")(x)
    y = L.GlobalAveragePooling1D()(L.LSTM(3, return_sequences=True)(L.MultiHeadAttention(2, 3)(y, y)))
    model = with_weights(keras.Model(x, L.Dense(3)(y)))
    # The layers above, called with the mask in hand.
    embedding, attention, lstm, mean, head = model.layers[1:]
    mask = tokens != 0

    def above(points):
        pairs = mask[:, None, :] & mask[:, :, None]
        z = lstm(attention(points, points, attention_mask=pairs), mask=mask)
        return head(mean(z, mask=mask))

    vectors = np.asarray(embedding(tokens))
    np.testing.assert_allclose(above(vectors), model(tokens), rtol=1e-4, atol=1e-6)
    found = made(name, model, input_layer="embedding").analyze(tokens)
    agree(found, by_tape(name, largest(above, vectors), vectors))


@pytest.mark.parametrize("name", each(["gradient", "input_t_gradient"], ["gradient"]))
@pytest.mark.medium
def test_a_text_padded_further_has_the_same_map(name):
    x = keras.Input((None,), dtype="int32")
    y = L.Embedding(8, 4, mask_zero=True, name="embedding")(x)
    y = L.LSTM(3)(L.Bidirectional(L.GRU(2, return_sequences=True))(y))
    model = with_weights(keras.Model(x, L.Dense(1, activation="sigmoid")(y)))
    text = np.array([[3, 1, 4]], "int32")
    analyzer = made(name, model, input_layer="embedding")
    short, padded = analyzer.analyze(text), analyzer.analyze(np.pad(text, ((0, 0), (0, 4))))
    agree(padded[:, :3], short, 1e-4)
    assert not padded[:, 3:].any()


# Not integrated gradients: its path starts at zeros, where everything is masked and the model itself gives 0 / 0.
@pytest.mark.parametrize("name", each([name for name in [*GRADIENTS, *RULED] if name != "integrated_gradients"]))
@pytest.mark.few(2)
def test_a_masked_mean_is_the_mean_of_what_is_left(name):
    # Dense layers on each step and a masked mean: of a series with two steps of padding, the model of the first three
    # steps.
    def built(steps, mask):
        x = keras.Input((steps, 2))
        y = L.Masking()(x) if mask else x
        y = L.GlobalAveragePooling1D()(L.Dense(4, activation="relu")(L.Dense(3, activation="relu")(y)))
        return with_weights(keras.Model(x, L.Dense(3)(y)), 4)

    data = samples((3, 2), 30) + np.float32(0.1)
    padded = np.pad(data, ((0, 0), (0, 2), (0, 0)))
    model, short = built(5, True), built(3, False)
    np.testing.assert_allclose(model(padded), short(data), rtol=1e-5, atol=1e-6)
    try:
        analyzer = made(name, model)
    except ValueError as problem:  # a method may have no rule for it, and then says so by name
        assert name not in GRADIENTS and re.search("'masking|input_layer_rule", str(problem))
        return
    found = (analyzer.fit(padded) if name not in GRADIENTS else analyzer).analyze(padded[:5])
    assert found[:, :3].any() and not found[:, 3:].any()
    if name not in LEARNING:  # what a fit counts of the padding is not said here
        agree(found[:, :3], maps(name, short, data[:5]), 1e-4)


@pytest.mark.parametrize("reader", ["multi-head attention", "LSTM"])
@pytest.mark.parametrize("name", ["lrp.epsilon", "deep_taylor", "pattern.net", "mipin"])
@pytest.mark.few(2)
def test_methods_without_a_rule_name_the_layer(name, reader):
    layer = {"multi-head attention": "multi_head_attention", "LSTM": "lstm"}[reader]
    with pytest.raises(ValueError, match=rf"'{layer}\w*' .*(take 'gradient'|input_layer)"):
        made(name, masked(reader, "mean"))


@pytest.mark.medium
def test_two_readers_of_one_mask_in_both_orders():
    # A mask that is read twice is no tensor with a signal: nothing is added up for it.
    x = keras.Input((5, 2))
    y = L.Masking()(x)
    first = L.LSTM(3, return_sequences=True)(y)
    both = L.Concatenate()([L.GlobalAveragePooling1D()(first), L.LSTM(2)(first), L.GlobalAveragePooling1D()(y)])
    model = with_weights(keras.Model(x, L.Dense(3)(both)))
    found = made("gradient", model).analyze(X)
    agree(found, by_tape("gradient", largest(lambda points: model(points, training=False), X), X))


@pytest.mark.medium
def test_a_mask_given_as_an_argument():
    # Some compute the mask themselves, from the input, and hand it over.
    x = keras.Input((5, 2))
    mask = keras.ops.any(keras.ops.not_equal(x, 0.0), axis=-1)
    y = L.GlobalAveragePooling1D()(L.LSTM(3, return_sequences=True)(x, mask=mask), mask=mask)
    model = with_weights(keras.Model(x, L.Dense(3)(y)))
    found = made("gradient", model).analyze(X)
    agree(found, by_tape("gradient", largest(lambda points: model(points, training=False), X), X))
