"""How maps of photographs are made and read."""

import numpy as np
import pytest

from mipin_keras.channels import interpolation
from mipin_keras.metrics import bounding_box_accuracy
from reproduce_paper import methods
from tests.shelf import model, photographs


@pytest.fixture(scope="module")
def shown():
    return photographs(12, "test")


@pytest.fixture(scope="module")
def x(shown):
    return shown.pixels() / np.float32(255)


@pytest.fixture(scope="module")
def net():
    return model()


@pytest.mark.parametrize("reduce", ["relu_mean", "mean"])
@pytest.mark.parametrize("times_feature", [False, True])
def test_mipin_is_read_as_it_is_said(monkeypatch, net, x, shown, reduce, times_feature):
    monkeypatch.setattr(methods, "MIPIN", methods.Reading("class", reduce, times_feature))
    analyzer = methods.create("MIP-IN", net, "conv2")
    assert analyzer.options["samples"] == "class" and analyzer.options["input_layer"] == "conv2"
    analyzer.fit(x, verbose=0)
    maps = methods.saliency("MIP-IN", analyzer, x, shown.labels, batch_size=5)
    values = analyzer.analyze(x, shown.labels)
    if times_feature:
        values = values * methods.feature_maps(net, ["conv2"])(x)[0]
    flat = np.maximum(values, 0).mean(axis=-1) if reduce == "relu_mean" else values.mean(axis=-1)
    resize = interpolation(7, 16)
    expected = np.maximum(np.einsum("ah,nhw,bw->nab", resize, flat, resize), 0)
    assert maps.shape == (12, 16, 16) and maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=1e-6 * expected.max())
    assert maps.any()


def test_an_option_comes_before_the_reading(net):
    assert methods.create("MIP-IN", net, "conv2", samples="class").options["samples"] == "class"
    assert methods.create("MIP-IN", net).options["input_layer"] is None
    assert methods.create("MIP-IN", net, "conv2").options["rows"] == methods.ROWS
    assert methods.create("Grad-CAM", net, "conv1").options["layer"] is None


def test_the_other_methods_are_read_as_the_table_says(monkeypatch, net, x):
    analyzer = methods.create("Gradient", net)
    for how in ("max_abs", "relu_mean"):
        monkeypatch.setitem(methods.READINGS, "Gradient", how)
        np.testing.assert_array_equal(methods.saliency("Gradient", analyzer, x, 1), analyzer.analyze(x, 1, reduce=how))


def test_feature_maps(net, x):
    one, two = methods.feature_maps(net, ["conv1", "pool"])(x)
    assert one.shape == (12, 14, 14, 4) and two.shape == (12, 7, 7, 4)
    np.testing.assert_array_equal(one.reshape(12, 7, 2, 7, 2, 4).max(axis=(2, 4)), two)


def test_box_accuracies_are_of_all_photographs_in_order(shown, x):
    sums = methods.box_accuracies(
        shown,
        lambda p: p / 255,
        lambda p, labels: {"sum": p.sum(axis=-1), "label": p[..., 0] * labels[:, None, None]},
        5,
    )
    np.testing.assert_allclose(sums["sum"], bounding_box_accuracy(x.sum(axis=-1), shown.masks()).per_image, atol=0.04)
    whole = bounding_box_accuracy(x[..., 0] * shown.labels[:, None, None], shown.masks()).per_image
    np.testing.assert_allclose(sums["label"], whole, atol=0.04)
    assert sums["label"][0] == shown.shares()[0]  # a flat map, of label 0
