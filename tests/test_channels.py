"""Maps reduced to one value a pixel, against NumPy and TensorFlow's resizing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import analyzer as analyzer_module
from mipin_keras import create_analyzer
from mipin_keras.channels import REDUCTIONS, check_axes, reduced
from tests.networks import close, cnn, mlp, residual, samples, with_weights

L = keras.layers
# By hand, for channels 3, -1, -4 and 0.
PIXEL = np.float32([3, -1, -4, 0])
BY_HAND = {"relu_mean": 0.75, "mean": -0.5, "abs_mean": 2.0, "sum": -2.0, "max_abs": 4.0}


@pytest.mark.parametrize("how", REDUCTIONS)
def test_channels_are_reduced_as_the_name_says(how, rng):
    maps = rng.normal(size=(3, 5, 4, 4)).astype("float32")
    maps[1, 2, 3] = PIXEL
    found = reduced(maps, how, (5, 4))
    assert found.dtype == np.float32 and found.shape == (3, 5, 4)
    assert found[1, 2, 3] == np.float32(BY_HAND[how])
    assert close(reduced(maps[:, :, 0], how, (5,)), found[:, :, 0], 1e-6)


@pytest.mark.parametrize("sizes", [(5, 4), (9, 11), (3, 2), (1, 7), (224, 1)])
def test_a_feature_map_is_resized_as_tensorflow_does(sizes, rng):
    maps = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    wanted = tf.image.resize(np.maximum(maps, 0).mean(-1, keepdims=True), sizes, "bilinear", antialias=False)
    found = reduced(maps, "relu_mean", sizes)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert close(found, np.asarray(wanted)[..., 0], 1e-5)


def test_volumes_and_series_are_resized_too(rng):
    ramp = np.linspace(-1, 1, 4)
    maps = np.float32(ramp[None, :, None, None, None] * np.ones((2, 4, 3, 5, 2)))
    wanted = np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), ramp)
    found = reduced(maps, "mean", (8, 3, 10))
    assert found.shape == (2, 8, 3, 10) and close(found, np.broadcast_to(wanted[:, None, None], found.shape), 1e-6)
    assert close(reduced(maps[:, :, 0, 0], "sum", (8,)), np.broadcast_to(2 * wanted, (2, 8)), 1e-6)


def test_the_relu_comes_before_the_mean():
    assert reduced(np.float32([[[1, -1], [2, -5]]]), "relu_mean", (2,)).tolist() == [[0.5, 1.0]]


def test_a_feature_map_of_an_analyzer():
    model = residual()
    x = samples((7, 6, 2), 9)
    analyzer = create_analyzer("input_t_gradient", model, input_layer="pool")
    found, maps = analyzer.analyze(x, reduce="relu_mean", batch_size=4), analyzer.analyze(x)
    assert maps.shape == (9, 3, 3, 3) and found.shape == (9, 7, 6)
    small = np.maximum(maps, 0).mean(-1, keepdims=True)
    assert close(found, np.asarray(tf.image.resize(small, (7, 6), "bilinear", antialias=False))[..., 0], 1e-5)


def test_batches_are_reduced_one_by_one(monkeypatch):
    analyzer = create_analyzer("gradient", cnn())
    x = samples((7, 6, 2), 11)
    sizes, explain = [], analyzer._analyze
    monkeypatch.setattr(analyzer, "_analyze", lambda *given: sizes.append(len(given[0])) or explain(*given))
    reduce, whole = analyzer_module.reduced, []

    def watched(maps, *rest):
        whole.append((*sizes, maps.shape))
        return reduce(maps, *rest)

    monkeypatch.setattr(analyzer_module, "reduced", watched)
    assert analyzer.analyze(x, batch_size=4, reduce="sum").shape == (11, 7, 6)
    # each batch before the next one is explained
    assert whole == [(4, (4, 7, 6, 2)), (4, 4, (4, 7, 6, 2)), (4, 4, 3, (3, 7, 6, 2))]


def test_a_model_of_open_axes_takes_the_sizes_of_the_image_at_hand():
    x = keras.Input((None, None, 2))
    y = L.MaxPooling2D(2, name="pool")(L.Conv2D(3, 3, activation="relu")(x))
    model = with_weights(keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y))))
    analyzer = create_analyzer("gradient", model, input_layer="pool")
    for shape in ((8, 9, 2), (12, 6, 2)):
        data = samples(shape, 3)
        assert close(analyzer.analyze(data, reduce="mean"), reduced(analyzer.analyze(data), "mean", shape[:2]), 1e-6)


# Refused


@pytest.mark.parametrize("how", ["best", "max", "", 1, True, ["mean"]])
def test_an_unknown_reduction_is_refused_before_work(how, monkeypatch):
    analyzer = create_analyzer("gradient", cnn())
    monkeypatch.setattr(analyzer, "_analyze", None)
    with pytest.raises(ValueError, match=r"expected reduce to be one of \(None, 'relu_mean', .*received"):
        analyzer.analyze(samples((7, 6, 2), 3), reduce=how)


def test_maps_without_the_axes_of_an_image_are_refused(monkeypatch):
    x = keras.Input((24,))
    y = L.Conv2D(3, 2, activation="relu", name="conv")(L.Reshape((4, 3, 2))(x))
    reshaped = with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(y))))
    for model, layer, shapes in (
        (mlp(), None, r"\(batch, 12\) and input of shape \(batch, 12\)"),
        (cnn(), "flatten", r"\(batch, 12\) and input of shape \(batch, 7, 6, 2\)"),
        (reshaped, "conv", r"\(batch, 3, 2, 3\) and input of shape \(batch, 24\)"),
    ):
        analyzer = create_analyzer("gradient", model, input_layer=layer)
        monkeypatch.setattr(analyzer, "_analyze", None)
        with pytest.raises(ValueError, match=f"reduce= expected maps .* received maps of shape {shapes}; leave"):
            analyzer.analyze(samples(model.input_shape[1:], 3), reduce="relu_mean")
    with pytest.raises(ValueError, match="reduce= expected"):
        check_axes((), (3,))


def test_a_grad_cam_without_channels_is_refused():
    with pytest.raises(ValueError, match="resize=False, whose maps have none"):
        create_analyzer("grad_cam", cnn(), resize=False).analyze(samples((7, 6, 2), 3), reduce="mean")
