"""The picture of a sample: which panels, what they show."""

import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.cli.explain import draw
from mipin_keras.plotting.plot import COLORMAPS


def found(shape, signal=True):
    """What ``explain`` finds for a sample."""
    rng = np.random.default_rng(0)
    one = {"attribution": rng.standard_normal(shape), "neuron": 1, "logits": np.array([0.0, 4.0])}
    if signal:
        one |= {"source_signal": rng.random(shape), "source_logits": np.array([0.0, 3.5])}
    return one


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


@pytest.mark.parametrize("cmap", COLORMAPS)
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
def test_an_image(shape, cmap):
    x = np.random.default_rng(1).random(shape)
    attribution = "attribution of neuron 1" if COLORMAPS[cmap].signed else "|attribution of neuron 1|"
    wanted = ["input: logit 4.00", attribution, "overlay", "source signal: logit 3.50"]
    assert titles(draw(x, found(shape), cmap)) == wanted


def test_the_source_signal_has_the_blacks_and_whites_of_the_input():
    x = np.linspace(-2.0, 6.0, 30).reshape(6, 5)
    one = found((6, 5)) | {"source_signal": x / 2}
    figure = draw(x, one)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_allclose(shown[0], (x + 2) / 8)
    np.testing.assert_allclose(shown[3], (x / 2 + 2) / 8)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image(value):
    assert len(draw(np.full((6, 5), value, np.uint8), found((6, 5))).axes) == 4


def test_without_a_source_signal():
    assert len(draw(np.zeros((6, 5)), found((6, 5), signal=False)).axes) == 3


def test_a_feature_map_is_enlarged_over_its_image():
    one = found((3, 2, 4), signal=False)
    heatmap, overlay = (ax.images[-1].get_array() for ax in draw(np.zeros((12, 8, 3)), one).axes[1:])
    np.testing.assert_allclose(heatmap, one["attribution"].sum(axis=-1))
    assert overlay.shape[:2] == (12, 8)
    # The opacity of the overlay is the strength of the resized map: half-pixel centres, as TensorFlow resizes.
    large = np.abs(tf.image.resize(one["attribution"].sum(axis=-1)[..., None], (12, 8), "bilinear"))[..., 0]
    np.testing.assert_allclose(overlay[..., 3], 0.9 * large / large.max(), atol=1e-6)


def test_channels_that_are_no_colours():
    assert titles(draw(np.zeros((6, 5, 2)), found((6, 5, 2)))) == ["attribution of neuron 1"]


@pytest.mark.parametrize("bands", [(3, 2, 1), (4,)])
def test_channels_that_are_chosen(bands):
    x, one = np.random.default_rng(1).random((6, 5, 13)) * 9, found((6, 5, 13))
    figure = draw(x, one, "seismic", bands)
    assert titles(figure) == ["input: logit 4.00", "attribution of neuron 1", "overlay", "source signal: logit 3.50"]
    seen = x[..., bands]
    low, high = seen.min(), seen.max()
    shown = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_allclose(shown[0], np.squeeze((seen - low) / (high - low)))
    np.testing.assert_allclose(shown[1], one["attribution"].sum(axis=-1))
    signal = np.clip((one["source_signal"][..., bands] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(shown[3], np.squeeze(signal))


@pytest.mark.parametrize("cmap", ["seismic", "cividis"])
def test_features_in_a_row(cmap):
    one = found((9,))
    above, below = draw(np.zeros(9), one, cmap).axes
    bars = [bar.get_height() for bar in below.patches]
    np.testing.assert_allclose(bars, one["attribution"] if cmap == "seismic" else np.abs(one["attribution"]))
    assert len(above.lines) == 2
    red = [bar.get_facecolor()[0] > 0.5 for bar in below.patches]
    assert cmap != "seismic" or red == list(one["attribution"] > 0)


def test_what_is_neither():
    assert draw(np.zeros((3, 3, 3, 2)), found((3, 3, 3, 2))) is None
    assert draw(np.zeros((6, 5)), found((7,))) is None
