"""Integer inputs: photographs as bytes and tokens, explained at the first tensor of floats behind them."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import samples, with_weights
from tests.wild.common import (
    BOUNDED,
    GRADIENTS,
    OURS,
    RULED,
    agree,
    by_tape,
    conserved,
    each,
    fitted,
    largest,
    made,
    maps,
    tape,
)

L = keras.layers
TABLE = samples((3,), 20, seed=1)


def photo_model(scale=True):
    x = keras.Input((6, 5, 2), dtype="uint8" if scale else "float32", name="photo")
    y = L.Rescaling(1 / 255, name="scale")(x) if scale else x
    y = L.MaxPooling2D(2)(L.Conv2D(3, 3, activation="relu", name="conv")(y))
    return with_weights(keras.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(y))), 3)


PHOTOS = np.random.default_rng(0).integers(1, 256, (20, 6, 5, 2), dtype="uint8")


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_are_those_of_an_input_of_floats(name):
    for model in (photo_model(), text_model()):
        with pytest.raises(ValueError, match="expected .*(one floating-point input|layers with weights at the input)"):
            made(name, model)


@pytest.mark.parametrize("name", each(OURS, without=BOUNDED))
@pytest.mark.few(2)
def test_photographs_as_bytes(name):
    scaled = PHOTOS.astype("float32") / 255
    wanted = maps(name, photo_model(scale=False), scaled)
    if name == "grad_cam":  # it does not go down to the input
        agree(maps(name, photo_model(), PHOTOS), wanted, 1e-4)
        return
    with pytest.warns(UserWarning, match="'scale'"):
        found = maps(name, photo_model(), PHOTOS)
    agree(found, wanted, 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        named = maps(name, photo_model(), PHOTOS, input_layer="scale")
    agree(named, wanted, 1e-4)


TOKENS = np.random.default_rng(1).integers(0, 9, (20, 5), dtype="int32")


def text_model(dtype="int32"):
    x = keras.Input((5,), dtype=dtype, name="tokens")
    y = L.Embedding(9, 3, name="embedding")(x)
    y = L.GlobalMaxPooling1D()(L.Conv1D(4, 2, activation="relu")(y))
    return with_weights(keras.Model(x, L.Dense(2, activation="softmax")(y)), 3)


def above_embedding(model):
    x = keras.Input((5, 3))
    y = x
    for layer in model.layers[2:]:
        y = layer(y)
    return keras.Model(x, y)


FIRST = "the first layers with weights are looked for behind the tokens, not behind where the explanation ends"


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED], without=BOUNDED))
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.few(4)
def test_tokens_are_explained_at_their_embedding(name, dtype):
    model, tokens = text_model(dtype), TOKENS.astype(dtype)
    vectors = np.asarray(model.get_layer("embedding")(tokens))
    wanted = maps(name, above_embedding(model), vectors)
    with pytest.warns(UserWarning, match="'embedding'"):
        analyzer = fitted(name, model, tokens)
    found = analyzer.analyze(tokens)
    assert found.shape == (20, 5, 3)
    agree(found, wanted)
    agree(analyzer.analyze(tokens, reduce="sum"), wanted.sum(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agree(maps(name, model, tokens, input_layer="embedding"), wanted)


def test_float_tokens_have_no_gradient_and_are_explained_at_the_embedding():
    # Keras' Input is of floats unless it is told, and an Embedding takes them: no method makes noise on token ids or
    # gives a map of zeros there.
    model = text_model("float32")
    for name in GRADIENTS:
        found = made(name, model, input_layer="embedding").analyze(TOKENS)
        vectors = np.asarray(model.get_layer("embedding")(TOKENS))
        agree(found, maps(name, above_embedding(model), vectors))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                default = made(name, model).analyze(TOKENS.astype("float32"))
            except ValueError as problem:
                assert "embedding" in str(problem)
                continue
        assert default.any() and any("'embedding'" in str(one.message) for one in said)


def test_integrated_gradients_start_at_the_embedding_of_zeros():
    model = text_model()
    above = above_embedding(model)
    above.layers[-1].activation = keras.activations.linear
    vectors = np.asarray(model.get_layer("embedding")(TOKENS))
    difference = np.asarray(above(vectors) - above(0 * vectors))
    chosen = np.asarray(above(vectors)).argmax(1)
    above.layers[-1].activation = keras.activations.softmax
    found = create_analyzer("integrated_gradients", model, input_layer="embedding", steps=300, riemann="middle")
    conserved(found.analyze(TOKENS), difference[np.arange(20), chosen], 2e-2)


def test_smoothgrad_draws_its_noise_at_the_embedding():
    model = text_model()
    vectors = np.asarray(model.get_layer("embedding")(TOKENS))
    found = create_analyzer("smoothgrad", model, input_layer="embedding", augment_by_n=5, noise=0.2).analyze(TOKENS)
    above, rng = above_embedding(model), np.random.default_rng(0)
    above.layers[-1].activation = keras.activations.linear
    spread = vectors.max((1, 2), keepdims=True) - vectors.min((1, 2), keepdims=True)
    noise = [rng.standard_normal((5, 3), np.float32) for _ in range(5)]
    top = largest(lambda points: above(points, training=False), vectors)
    agree(found, np.mean([tape(top, vectors + np.float32(0.2) * spread * one) for one in noise], axis=0))


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_tokens_beside_a_table(name):
    # One input of integers and one of floats: the first is explained at its embedding, the second as it is.
    tokens, table = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((3,), name="table")
    y = L.GlobalAveragePooling1D()(L.Embedding(9, 3, name="embedding")(tokens))
    model = with_weights(
        keras.Model([tokens, table], L.Dense(1)(L.Dense(4, activation="tanh")(L.Concatenate()([y, table]))))
    )
    with pytest.warns(UserWarning, match="'embedding'"):
        found = made(name, model).analyze([TOKENS, TABLE])
    embedding, _, _, _, hidden, head = (
        model.get_layer("embedding"), *model.layers[1:4], model.layers[-2], model.layers[-1],
    )  # fmt: skip

    def above(parts):
        return head(hidden(tf.concat([tf.reduce_mean(parts[0], 1), parts[1]], 1)))[:, 0]

    vectors = np.asarray(embedding(TOKENS))
    np.testing.assert_allclose(above([vectors, TABLE]), np.asarray(model([TOKENS, TABLE]))[:, 0], rtol=1e-5)
    agree(found, by_tape(name, above, [vectors, TABLE]))
