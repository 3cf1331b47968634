"""Regressions from shifted maps, and from the rows that a stride lets through, against those of all gathered rows."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.mipin.layers.depthwise import ShiftedSums
from mipin_keras.mipin.ridge import Ridge
from tests.networks import close, inverse_of

L = keras.layers
PADDINGS = ("valid", "same")
GEOMETRIES = [
    *itertools.product(
        [(L.DepthwiseConv2D, (7, 6, 3), (3, 2))], PADDINGS, ({}, {"strides": 2}, {"strides": 4}, {"dilation_rate": 2})
    ),
    *itertools.product(
        [(L.DepthwiseConv1D, (9, 3), (3,))], PADDINGS, ({}, {"strides": 2}, {"strides": 5}, {"dilation_rate": 3})
    ),
    ((L.DepthwiseConv2D, (5, 5, 2), (7, 7)), "same", {}),  # a window wider than the map
    ((L.DepthwiseConv2D, (2, 3, 2), (5, 5)), "same", {}),
]


def gathered(inverse, signal, x):
    """The regression of all rows."""
    features, targets = inverse.design(tf.constant(signal), tf.constant(x), None)
    sums = Ridge(features.shape[2], targets.shape[2], groups=features.shape[0])
    sums.update(features, targets)
    return sums


@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize(("layer", "padding", "settings"), GEOMETRIES, ids=str)
@pytest.mark.few(9)
def test_shifted_maps_give_the_sums_of_gathered_rows(layer, padding, settings, mean, rng):
    kind, shape, size = layer
    inverse = inverse_of(kind(size, padding=padding, **settings), shape)
    signal = rng.normal(mean, 1, (60, *inverse.output_shape)).astype("float32")
    x = rng.normal(-mean, 1, (60, *shape)).astype("float32")
    sums = inverse.regression()
    assert isinstance(sums, ShiftedSums) and inverse.whole
    for part in np.array_split(np.arange(60), 4):
        inverse.add_rows(sums, tf.constant(signal[part]), tf.constant(x[part]), None)
    other = gathered(inverse, signal, x)
    assert sums.rows == other.rows and sums.sizes == other.sizes
    found, wanted = sums.moments(), other.moments()
    for name in ("features", "targets", "gram", "cross", "squares"):
        assert close(getattr(found, name), getattr(wanted, name), 1e-9), name
    one, two = (each.regression() for each in (inverse, inverse))
    inverse.add_rows(one, tf.constant(signal), tf.constant(x), None)
    inverse.add_rows(two, tf.constant(signal[:1]), tf.constant(x[:1]), None)
    a, b = one.solve(1e-3, np.float32), gathered(inverse, signal, x).solve(1e-3, np.float32)
    assert close(a.kernel, b.kernel, 1e-5) and close(a.bias, b.bias, 1e-5) and a.mse == pytest.approx(b.mse, rel=1e-6)
    assert a.rows == b.rows and two.rows == np.prod(shape[:-1])


@pytest.mark.parametrize("many", [None, 4])
@pytest.mark.parametrize("samples", [2, 40])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Conv2D(4, (3, 2), strides=2, padding="same"), (6, 7, 2)), (L.Conv2D(4, 1, strides=2), (5, 5, 2)),
        (L.Conv2D(4, 1), (5, 5, 2)), (L.Conv2D(4, 3, strides=(1, 3), groups=2), (6, 7, 2)),
        (L.Conv1D(4, 5, strides=3, padding="causal"), (11, 2)), (L.Conv3D(2, 2, strides=2), (4, 5, 4, 2)),
        (L.Conv1D(4, 3, padding="same", dilation_rate=2), (11, 2)), (L.Conv2DTranspose(3, 3, strides=2), (4, 3, 2)),
        (L.DepthwiseConv2D(3, strides=2, depth_multiplier=2), (6, 5, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)  # fmt: skip
def test_rows_by_stride_are_the_gathered_rows(layer, shape, samples, many, rng):
    inverse = inverse_of(layer, shape)
    signal = rng.normal(1, 1, (samples, *inverse.output_shape)).astype("float32")
    x = rng.normal(2, 1, (samples, *shape)).astype("float32")
    positions = None
    if many:
        positions = np.stack([rng.choice(inverse.positions, many, replace=False) for _ in range(samples)])
    sums = inverse.regression()
    inverse.add_rows(sums, tf.constant(signal), tf.constant(x), positions)
    features, targets = inverse.design(tf.constant(signal), tf.constant(x), positions)
    other = Ridge(features.shape[2], targets.shape[2], groups=features.shape[0])
    other.update(features, targets)
    assert sums.rows == other.rows == samples * (many or inverse.positions)
    assert sums.nbytes == other.nbytes
    a, b = sums.solve(1e-3), other.solve(1e-3)
    assert close(a.kernel, b.kernel, 1e-7) and close(a.bias, b.bias, 1e-7) and a.mse == pytest.approx(b.mse, rel=1e-6)


def test_a_position_is_of_one_phase_and_only_its_elements_reach_it():
    inverse = inverse_of(L.Conv2D(2, 3, strides=2, padding="same"), (6, 5, 1))
    assert sorted(len(elements) for elements, _ in inverse.phases) == [1, 2, 2, 4]
    assert sorted(np.concatenate([at for _, at in inverse.phases])) == list(range(30))
    table, outputs = inverse.windows.windows(), np.prod(inverse.windows.outputs)
    for elements, at in inverse.phases:
        others = np.setdiff1d(np.arange(9), elements)
        assert (table[at][:, others] == outputs).all()  # no window
