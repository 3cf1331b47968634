"""Steps with several outputs, parts of tensors, preprocess_input inside a model, and float16."""

import keras
import numpy as np
import pytest

from tests.networks import balanced, samples, with_weights
from tests.wild.common import GRADIENTS, OURS, RULED, agree, by_tape, each, fitted, largest, maps

L = keras.layers
SERIES = samples((5, 2), 4)
IMAGES = samples((6, 5, 2), 12)


def called(model):
    return lambda x: model(x, training=False)


# Several outputs of a step, and parts of tensors


def with_state(x):
    sequence, hidden, cell = L.LSTM(3, return_sequences=True, return_state=True)(x)
    return L.Concatenate()([L.GlobalAveragePooling1D()(sequence), hidden, cell])


def with_scores(x):
    y, scores = L.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)
    return L.Concatenate()([L.Flatten()(y), L.Flatten()(scores)])


def both_ways(x):
    _, forward, backward = L.Bidirectional(L.GRU(2, return_state=True))(x)
    return forward * backward


def decoder(x):
    """An encoder's state starts a decoder."""
    _, hidden, cell = L.LSTM(3, return_state=True)(x)
    return L.LSTM(3)(L.Dense(2)(x), initial_state=[hidden, cell])


SEVERAL = {"return_state": with_state, "attention scores": with_scores, "both ways": both_ways, "a decoder": decoder}


@pytest.mark.parametrize("step", SEVERAL)
@pytest.mark.parametrize("name", each(GRADIENTS, ["gradient"]))
@pytest.mark.few(2)
def test_steps_with_several_outputs(name, step):
    x = keras.Input((5, 2))
    model = with_weights(keras.Model(x, L.Dense(3)(SEVERAL[step](x))))
    agree(maps(name, model, SERIES), by_tape(name, largest(called(model), SERIES), SERIES))


def image_net(begin, shape=(6, 5, 2)):
    x = keras.Input(shape)
    y = L.Conv2D(3, 2, activation="relu", name="conv")(begin(x))
    return with_weights(keras.Model(x, L.Dense(3, name="head")(L.Flatten()(y))), 5)


def halves(x):
    left, right = keras.ops.split(x, 2, axis=-1)
    return keras.ops.concatenate([left, right], axis=-1)


def rows(x):
    return keras.ops.stack(keras.ops.unstack(x, axis=1), axis=1)


# What takes a tensor apart, and what it is in one of Keras' own layers.
PARTS = {
    "rows": (lambda x: x[:, 1:5], lambda x: L.Cropping2D(((1, 1), (0, 0)))(x)),
    "rows and columns": (lambda x: x[:, 2:, :-1], lambda x: L.Cropping2D(((2, 0), (0, 1)))(x)),
    "everything": (lambda x: x[..., :], lambda x: L.Identity()(x)),
    "halves and back": (halves, lambda x: L.Identity()(x)),
    "rows apart and back": (rows, lambda x: L.Identity()(x)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
@pytest.mark.few(9)
def test_parts_of_a_tensor(name, part):
    wild, plain = (image_net(begin) for begin in PARTS[part])
    np.testing.assert_allclose(wild(IMAGES), plain(IMAGES), rtol=1e-5, atol=1e-6)
    found = maps(name, wild, IMAGES)
    if name in GRADIENTS:
        agree(found, by_tape(name, largest(called(plain), IMAGES), IMAGES))
    agree(found, maps(name, plain, IMAGES), 1e-4)


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
def test_channels_in_another_order_inside_the_model(name):
    # As preprocess_input begins in caffe's mode: RGB to BGR. The map is that of the model without it, turned back.
    wild, plain = image_net(lambda x: x[..., ::-1], (6, 5, 3)), image_net(lambda x: x, (6, 5, 3))
    x = samples((6, 5, 3), 12)
    agree(maps(name, wild, x), maps(name, plain, x[..., ::-1])[..., ::-1], 1e-4)


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_preprocess_input_of_caffe_inside_the_model(name):
    x = keras.Input((6, 5, 3))
    y = keras.applications.vgg16.preprocess_input(x)
    model = with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(L.Conv2D(3, 2, activation="relu")(y)))), 5)
    data = 255 * np.random.default_rng(0).random((4, 6, 5, 3), np.float32)
    agree(maps(name, model, data), by_tape(name, largest(called(model), data), data), 1e-4)


def test_preprocess_input_of_caffe_for_methods_with_rules():
    x = keras.Input((6, 5, 3))
    y = keras.applications.vgg16.preprocess_input(x)
    model = balanced(with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(L.Conv2D(3, 2, activation="relu")(y)))), 5))
    data = 255 * np.random.default_rng(0).random((12, 6, 5, 3), np.float32)
    start = next(step.input for step in model.layers if isinstance(step, L.Conv2D))
    before = np.asarray(keras.Model(model.inputs, start)(data))
    plain = image_net(lambda x: x, (6, 5, 3))
    plain.set_weights(model.get_weights())
    for name in ("lrp.epsilon", "lrp.z_plus", "deep_taylor", "guided_backprop"):  # they keep what arrives at a shift
        agree(maps(name, model, data), maps(name, plain, before)[..., ::-1], 1e-4)
    assert fitted("mipin", model, data).analyze(data).std() > 0


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
@pytest.mark.few(2)
def test_two_tensors_stacked(name):
    def built(stacked):
        x = keras.Input((6,))
        a, b = L.Dense(4, activation="relu", name="a")(x), L.Dense(4, activation="relu", name="b")(x)
        if stacked:
            y = keras.ops.stack([a, b], axis=1)
        else:
            y = L.Concatenate(axis=1)([L.Reshape((1, 4))(a), L.Reshape((1, 4))(b)])
        return with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(y))), 5)

    x = samples((6,), 30)
    agree(maps(name, built(True), x), maps(name, built(False), x), 1e-4)


# float16


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "gradient", "lrp.epsilon"])
def test_small_signals_under_mixed_precision(name):
    # The head is of float32, as Keras advises, and its weights are small: in float16 the signal below it would be zero.
    def built(policy):
        x = keras.Input((6,))
        y = L.Dense(5, activation="relu", dtype=policy)(x)
        y = L.Dense(4, activation="relu", dtype=policy)(y)
        model = with_weights(keras.Model(x, L.Dense(2, dtype="float32", name="head")(y)), 2)
        kernel, bias = model.get_layer("head").get_weights()
        model.get_layer("head").set_weights([1e-8 * kernel, 1e-8 * bias])
        return model

    data = samples((6,), 8)
    found = maps(name, built("mixed_float16"), data)
    assert found.dtype == np.float32
    wanted = maps(name, built("float32"), data)
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_mixed_precision_is_close_to_full_precision(name):
    def built(policy):
        x = keras.Input((6, 5, 2))
        y = L.Conv2D(3, 3, activation="relu", dtype=policy, name="conv")(x)
        y = L.Flatten(dtype=policy)(L.MaxPooling2D(2, dtype=policy)(y))
        return with_weights(keras.Model(x, L.Dense(3, dtype="float32", name="head")(y)), 2)

    wanted = maps(name, built("float32"), IMAGES, selection=1, neuron_selection_mode="index")
    found = maps(name, built("mixed_float16"), IMAGES, selection=1, neuron_selection_mode="index")
    assert found.dtype == np.float32
    # A maximum in a window may be another one where two are as good as equal: few numbers may differ by more.
    far = np.abs(found - wanted) > 0.03 * np.abs(wanted).max()
    assert far.mean() < 0.02
