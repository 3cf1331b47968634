"""Layers with state, layers that return lists or dictionaries, inner models called by name, gates, bands."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import plot
from tests.networks import samples, with_weights
from tests.wild.common import (
    GRADIENTS,
    RULED,
    agree,
    by_tape,
    each,
    largest,
    made,
    maps,
)

L = keras.layers
SERIES = samples((5, 2), 4)
IMAGES = samples((6, 5, 2), 12)


def called(model):
    return lambda x: model(x, training=False)


# Grad-CAM's own layer


def weighted(model, layer, x):
    """Grad-CAM of a layer for the largest logit, in the feature map's shape, by a tape."""
    both = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
    chosen = np.asarray(model(x)).argmax(1)
    with tf.GradientTape() as recorded:
        feature, logits = both(x, training=False)
        top = tf.gather(logits, chosen, axis=1, batch_dims=1)
    weights = tf.reduce_mean(recorded.gradient(top, feature), (1, 2), keepdims=True)
    return np.asarray(tf.nn.relu(tf.reduce_sum(weights * feature, -1)))


def convolutional_head(x):
    """As MobileNet ends: the mean of the last feature map, kept as an image of one pixel, and a 1x1 convolution."""
    y = L.Conv2D(4, 3, activation="relu", name="last")(x)
    y = L.GlobalAveragePooling2D(keepdims=True)(y)
    return L.Flatten()(L.Conv2D(3, 1, name="conv_preds")(y))


def gated(x):
    """As squeeze and excitation writes it: a gate of 1x1 convolutions on the mean of the feature map."""
    y = L.Conv2D(4, 3, activation="relu", name="before")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(y)
    gate = L.Conv2D(4, 1, activation="sigmoid", name="gate")(L.Conv2D(2, 1, activation="relu")(gate))
    return L.Dense(3)(L.GlobalAveragePooling2D()(L.Multiply(name="last")([y, gate])))


@pytest.mark.parametrize("end", [convolutional_head, gated])
def test_grad_cam_takes_the_last_feature_map_and_no_gate_or_head(end):
    x = keras.Input((6, 5, 2))
    model = with_weights(keras.Model(x, end(x)), 7)
    wanted = weighted(model, "last", IMAGES)
    assert wanted.std() > 0
    agree(made("grad_cam", model, resize=False).analyze(IMAGES), wanted)


# Bands


def test_bands_of_a_satellite_are_chosen():
    images, maps_of = samples((6, 5, 13), 2), samples((6, 5, 13), 2, seed=1)
    figure = plot.grid({"map": maps_of}, images=images, bands=(3, 2, 1))
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]
    wanted = images[0][..., [3, 2, 1]]
    pictures = [one for one in shown if one.ndim == 3 and one.shape[-1] == 3]
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in pictures]
    assert any(np.abs(one - (wanted - wanted.min()) / (wanted.max() - wanted.min())).max() < 0.02 for one in scaled)
    with pytest.raises(ValueError, match="bands"):
        plot.grid({"map": maps_of}, images=images)


# Inner models


def inner_by_name(names):
    """An inner model with two inputs, built from a list, and called with a dictionary in the given order."""
    a, b = keras.Input((3,), name="IT"), keras.Input((3,), name="IS")
    inner = keras.Model([a, b], L.Concatenate()([L.Dense(2, name="of_it")(a), L.Dense(2, name="of_is")(b)]))
    x = keras.Input((6,))
    parts = {"IT": L.Dense(3, name="first")(x), "IS": L.Dense(3, activation="relu", name="second")(x)}
    y = inner({name: parts[name] for name in names})
    return with_weights(keras.Model(x, L.Dense(2, name="head")(y)), 3)


@pytest.mark.parametrize("names", [("IT", "IS"), ("IS", "IT")], ids=["in order", "swapped"])
@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
@pytest.mark.few(4)
def test_an_inner_model_called_by_name(name, names):
    x = samples((6,), 30)
    model = inner_by_name(names)
    # The same in one piece, on the same layers.
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    start = model.inputs[0]
    pieces = []
    for order in (("first", "second"), ("second", "first")):
        of_it, of_is = (model.get_layer(part)(start) for part in order)
        y = L.Concatenate()([inner.get_layer("of_it")(of_it), inner.get_layer("of_is")(of_is)])
        pieces.append(keras.Model(start, model.get_layer("head")(y)))
    # Keras 3.5 takes the tensors in the order of the dictionary's keys, and "IS" comes before "IT".
    by_names = np.allclose(pieces[0](x), model(x), rtol=1e-5, atol=1e-6)
    plain = pieces[0 if by_names else 1]
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made("gradient", model).logits(x), model(x), rtol=1e-5, atol=1e-5)
    agree(maps(name, model, x), maps(name, plain, x))
    if name in GRADIENTS:
        agree(maps(name, model, x), by_tape(name, largest(called(model), x), x))


# State


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.parametrize("layer", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.few(2)
def test_layers_with_state_are_left_as_they_were(name, layer):
    x = keras.Input(batch_shape=(2, 5, 2))
    recurrent = getattr(L, layer)(3, stateful=True)
    model = with_weights(keras.Model(x, L.Dense(2)(recurrent(x))))
    model(SERIES[2:])  # what the user last did
    state = [np.asarray(part) for part in recurrent.states]
    assert any(part.any() for part in state)

    def restored(points):
        for variable, value in zip(recurrent.states, state, strict=True):
            variable.assign(value)
        return model(points, training=False)

    wanted = by_tape(name, largest(restored, SERIES[:2]), SERIES[:2])
    restored(SERIES[:2])
    for variable, value in zip(recurrent.states, state, strict=True):
        variable.assign(value)
    analyzer = made(name, model)
    for _ in range(2):
        agree(analyzer.analyze(SERIES[:2]), wanted)
        for variable, value in zip(recurrent.states, state, strict=True):
            np.testing.assert_array_equal(variable, value)


def test_a_fixed_batch_size_is_kept():
    x = keras.Input(batch_shape=(2, 5, 2))
    model = with_weights(keras.Model(x, L.Dense(2)(L.LSTM(3, stateful=True)(x))))
    analyzer = made("gradient", model)
    pairs = [analyzer.analyze(SERIES[i : i + 2]) for i in (0, 2)]
    agree(analyzer.analyze(SERIES), np.concatenate(pairs))
    try:
        agree(analyzer.analyze(SERIES[:3])[:2], pairs[0])
    except ValueError as problem:
        assert "2" in str(problem) and "batch" in str(problem)


# Lists and dictionaries


@keras.saving.register_keras_serializable("tests.wild")
class Listed(L.Layer):
    """A layer that returns its one output in a list."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = L.Dense(3)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return [self.dense(x)]


@keras.saving.register_keras_serializable("tests.wild")
class Named(Listed):
    """A layer that returns a dictionary, of which one part is used."""

    def call(self, x):
        return {"logits": self.dense(x), "double": 2 * x}


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.parametrize("layer", [Listed, Named])
@pytest.mark.few(2)
def test_layers_that_return_lists_or_dictionaries(name, layer):
    x = keras.Input((6,))
    found = layer(name="own")(L.Dense(4, activation="relu")(x))
    y = found[0] if layer is Listed else found["logits"]
    model = with_weights(keras.Model(x, L.Activation("tanh")(y)))
    data = samples((6,), 8)
    agree(maps(name, model, data), by_tape(name, largest(called(model), data), data))
    for other in ("lrp.epsilon", "mipin"):
        with pytest.raises(ValueError, match="'own\\b"):
            made(other, model)


@pytest.mark.medium
def test_a_saved_model_as_a_layer(tmp_path):
    inner = with_weights(keras.Sequential([keras.Input((6,)), L.Dense(4, activation="tanh"), L.Dense(3)]))
    inner.export(tmp_path / "exported", verbose=False)
    layer = L.TFSMLayer(tmp_path / "exported", call_endpoint="serving_default", name="saved")
    x = keras.Input((6,))
    model = keras.Model(x, layer(x))  # one output, in a dictionary
    data = samples((6,), 8)
    agree(made("gradient", model).analyze(data), by_tape("gradient", largest(called(inner), data), data))
