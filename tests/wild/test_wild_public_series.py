"""Series and text, of kinds that people ask about in public: recurrent layers, 1D convolutions, attention."""

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer
from tests.networks import samples, with_weights
from tests.wild.common import (
    FAMILIES,
    GRADIENTS,
    OURS,
    agree,
    by_tape,
    conserved,
    each,
    largest,
    made,
    maps,
    without_biases,
)

L = keras.layers
X = samples((9, 2), 12)


def called(model):
    return lambda x: model(x, training=False)


def classifier(body, head="softmax", shape=(9, 2), units=3):
    """A model whose head is off when it is called, and the same with its head."""
    x = keras.Input(shape)
    y = L.Dense(units, name="logits")(body(x))
    plain = with_weights(keras.Model(x, y), 5)
    return keras.Model(x, L.Activation(head)(y)), plain


def lifted(model):
    """``model`` with all its logits raised: deep Taylor has nothing to share out of a negative one."""
    model.layers[-1].bias.assign_add(5 * np.ones(model.layers[-1].units))
    return model


RECURRENT = {
    "two LSTMs": lambda x: L.LSTM(3)(L.LSTM(4, return_sequences=True)(x)),
    "GRU with dropout": lambda x: L.GRU(3, dropout=0.3, recurrent_dropout=0.2)(x),
    "both ways": lambda x: L.Bidirectional(L.LSTM(3))(x),
    "backwards": lambda x: L.SimpleRNN(3, go_backwards=True)(x),
    "unrolled": lambda x: L.LSTM(3, unroll=True)(x),
    "convolution, then LSTM": lambda x: L.LSTM(3)(L.MaxPooling1D(2)(L.Conv1D(4, 3, activation="relu")(x))),
    "LSTM with tanh's like": lambda x: L.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid")(x),
    "an encoder and a decoder": lambda x: L.LSTM(3)(L.RepeatVector(4)(L.LSTM(3)(x))),
}


# 14. Recurrent networks on series: whatever SHAP's explainers did not take.


@pytest.mark.parametrize("body", RECURRENT)
@pytest.mark.parametrize("name", each(GRADIENTS, ["gradient"]))
@pytest.mark.few(2)
def test_recurrent_networks(name, body):
    model, plain = classifier(RECURRENT[body])
    agree(maps(name, model, X[:4]), by_tape(name, largest(called(plain), X[:4]), X[:4]), 1e-4)


def test_a_recurrent_networks_map_is_complete():
    model, plain = classifier(RECURRENT["two LSTMs"])
    analyzer = create_analyzer("integrated_gradients", model, steps=200, riemann="middle")
    difference = np.asarray(plain(X) - plain(0 * X))
    conserved(analyzer.analyze(X), difference[np.arange(12), np.asarray(plain(X)).argmax(1)], 1e-2)


@pytest.mark.parametrize("name", ["lrp.epsilon", "deep_taylor", "guided_backprop", "pattern.net", "mipin"])
@pytest.mark.few(2)
def test_methods_without_a_rule_for_recurrence_name_it_and_go_on_above(name):
    x = keras.Input((9, 2))
    y = L.LSTM(4, name="recurrent")(x)
    model = lifted(with_weights(keras.Model(x, L.Dense(2)(L.Dense(8, activation="relu")(y))), 2))
    with pytest.raises(ValueError, match="'recurrent'"):
        made(name, model)
    # What the part above makes of the code is explained as by itself.
    above = keras.Sequential([keras.Input((4,)), *model.layers[2:]])
    codes = np.asarray(keras.Model(x, y)(X))
    agree(maps(name, model, X, input_layer="recurrent"), maps(name, above, codes))


# 15. 1D convolutions over sensors: LRP, Grad-CAM and MIP-IN of a series are those of an image of one row.


def sensors(image):
    """The same network on series, or on images of one row."""
    shape = (1, 9, 2) if image else (9, 2)
    conv = lambda n, k, **o: L.Conv2D(n, (1, k), **o) if image else L.Conv1D(n, k, **o)  # noqa: E731
    x = keras.Input(shape)
    y = L.BatchNormalization()(conv(4, 3, activation="relu", name="conv")(x))
    y = (L.MaxPooling2D((1, 2)) if image else L.MaxPooling1D(2))(y)
    y = conv(3, 2, activation="relu", name="conv2")(y)
    y = (L.GlobalAveragePooling2D() if image else L.GlobalAveragePooling1D())(y)
    model = keras.Model(x, L.Dense(3, activation="softmax", name="head")(y))
    rng = np.random.default_rng(0)
    weights = []
    for old, variable in zip(model.get_weights(), model.weights, strict=True):
        new = 0.6 * rng.standard_normal(old.size).reshape(old.shape)
        weights.append(1 + np.abs(new) if "variance" in variable.path else new)
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_a_series_is_an_image_of_one_row(name):
    wanted = maps(name, sensors(True), X[:, None])
    agree(maps(name, sensors(False), X), wanted[:, 0], 1e-3 if name.startswith("mipin") else 1e-4)


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "lrp.alpha_2_beta_1", "guided_backprop", "mipin"])
def test_a_causal_convolution_takes_nothing_from_later(name):
    # The head reads the fourth step only.
    body = lambda x: L.Flatten()(  # noqa: E731
        L.Cropping1D((3, 5))(
            L.Conv1D(3, 2, padding="causal", dilation_rate=2, activation="relu")(
                L.Conv1D(4, 2, padding="causal", activation="relu")(x)
            )
        )
    )
    model, _ = classifier(body)
    found = maps(name, model, X)
    assert found[:, :4].any() and not found[:, 4:].any()


# 16. Series of any length.


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "mipin"])
@pytest.mark.few(2)
def test_series_of_any_length(name):
    def built(length):
        x = keras.Input((length, 2))
        y = L.GlobalMaxPooling1D()(L.Conv1D(4, 3, activation="relu")(x))
        return lifted(with_weights(keras.Model(x, L.Dense(2, activation="softmax")(y)), 2))

    any_length = built(None)
    for n in (9, 5):
        agree(maps(name, any_length, X[:, :n]), maps(name, built(n), X[:, :n]))


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon"])
def test_series_of_any_length_and_another_number_of_channels(name):
    x = keras.Input((None, 2))
    y = L.GlobalMaxPooling1D()(L.Conv1D(4, 3, activation="relu")(x))
    with pytest.raises(ValueError, match=r"expected input of shape \(batch, None, 2\), received \(12, 9, 1\)"):
        made(name, keras.Model(x, L.Dense(2)(y))).analyze(X[..., :1])


def test_mipin_asks_for_a_length():
    x = keras.Input((None, 2))
    y = L.GlobalMaxPooling1D()(L.Conv1D(4, 3, activation="relu")(x))
    with pytest.raises(ValueError, match="None.*(fixed|size|shape)|(fixed|size|shape).*None|unknown"):
        made("mipin", keras.Model(x, L.Dense(2)(y)))


# 17. Text by convolutions and the largest of each filter: only the words in the windows of the maxima count.


def text_cnn():
    x = keras.Input((20, 4))  # word vectors
    parts = [L.GlobalMaxPooling1D()(L.Conv1D(3, k, activation="relu", name=f"words{k}")(x)) for k in (2, 3)]
    return without_biases(with_weights(keras.Model(x, L.Dense(2, activation="softmax")(L.Concatenate()(parts))), 3))


@pytest.mark.parametrize("name", ["gradient", "lrp.z", "lrp.epsilon", "deep_taylor", "guided_backprop"])
def test_only_the_words_of_the_maxima_count(name):
    model, words = text_cnn(), samples((20, 4), 6)
    read = np.zeros((6, 20), bool)
    for k in (2, 3):
        feature = np.asarray(keras.Model(model.inputs, model.get_layer(f"words{k}").output)(words))
        top = feature.max(1, keepdims=True)
        for n, place in zip(*np.nonzero((feature == top) & (top > 0))[:2], strict=True):
            read[n, place : place + k] = True
    assert not read.all()
    found = maps(name, model, words)
    assert found.any() and not found[~read].any()
    if name == "lrp.z":
        analyzer = made("lrp.z", model)
        conserved(found, analyzer.logits(words).max(1))


# 18. Attention: a network whose head reads a mean weighted by a softmax over the steps, in small operations.


@pytest.mark.parametrize("name", each(GRADIENTS, ["gradient"]))
@pytest.mark.parametrize("kind", ["by operations", "by layers", "transformer"])
def test_attention_over_the_steps(name, kind):
    def by_operations(x):
        scores = keras.ops.softmax(L.Dense(1)(keras.ops.tanh(L.Dense(3)(x))), axis=1)
        return keras.ops.sum(scores * x, axis=1)

    def by_layers(x):
        scores = L.Softmax(axis=1)(L.Dense(1)(x))
        return L.Flatten()(L.Dot(axes=1)([scores, L.LSTM(3, return_sequences=True)(x)]))

    def transformer(x):
        y = L.Dense(4)(x) + L.Embedding(9, 4)(keras.ops.arange(9))  # positions that are learned
        y = L.LayerNormalization(epsilon=1e-6)(y + L.MultiHeadAttention(2, 2, dropout=0.1)(y, y))
        y = L.LayerNormalization(epsilon=1e-6)(y + L.Dense(4)(L.Dropout(0.1)(L.Dense(5, activation="gelu")(y))))
        return L.GlobalAveragePooling1D()(y)

    bodies = {"by operations": by_operations, "by layers": by_layers, "transformer": transformer}
    model, plain = classifier(bodies[kind])
    agree(maps(name, model, X[:4]), by_tape(name, largest(called(plain), X[:4]), X[:4]), 1e-4)


# 19. Dropout of whole channels, noise and activity penalties do nothing when the model predicts.


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_what_only_trains_is_no_part_of_a_map(name):
    def built(training):
        x = keras.Input((9, 2))
        y = L.GaussianNoise(0.5)(x) if training else x
        y = L.Conv1D(4, 3, activation="relu", activity_regularizer="l2" if training else None, name="conv")(y)
        y = L.SpatialDropout1D(0.5)(y) if training else y
        y = L.AlphaDropout(0.3)(L.Flatten()(y)) if training else L.Flatten()(y)
        return with_weights(keras.Model(x, L.Dense(2)(y)), 2)

    found = maps(name, built(True), X)
    agree(found, maps(name, built(False), X), 1e-4)
    agree(maps(name, built(True), X), found, 1e-6)


# 20. A wrapper around a layer on each step is that layer.


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_layer_on_each_step(name):
    wrapped, _ = classifier(lambda x: L.Flatten()(L.TimeDistributed(L.Dense(3, activation="relu"))(x)))
    _, plain = classifier(lambda x: L.Flatten()(L.Dense(3, activation="relu")(x)))
    agree(maps(name, wrapped, X), by_tape(name, largest(called(plain), X), X))


# 21. A Lambda in the middle, loaded or not: gradients take it, the others name it and what to do.


def test_a_lambda_in_the_middle():
    model, plain = classifier(lambda x: L.Lambda(lambda y: keras.ops.mean(y * y, axis=1), name="energy")(x))
    for name in GRADIENTS:
        agree(maps(name, model, X), by_tape(name, largest(called(plain), X), X))
    for name in ("lrp.epsilon", "deep_taylor", "guided_backprop", "pattern.net", "mipin"):
        with pytest.raises(ValueError, match="'energy' .*(take 'gradient'|input_layer)"):
            made(name, model)
