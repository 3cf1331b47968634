"""Convolutions' closed form against a dense least squares over the explicit matrix of the transposed convolution."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import windows
from mipin_keras.mipin.layers.conv import ConvInverse
from tests.networks import close, fitted_weights, inverse_of
from tests.reference import conv_matrix, transposed_ridge

L = keras.layers

SETTINGS = [
    *(
        (L.Conv1D, (7, 2), (3,), {"padding": padding, "groups": groups, **setting})
        for padding, groups, setting in itertools.product(
            ("valid", "same", "causal"), (1, 2), ({}, {"strides": 2}, {"strides": 4}, {"dilation_rate": 2})
        )
    ),
    *(
        (L.Conv2D, (5, 6, 2), (2, 3), {"padding": padding, "groups": groups, **setting})
        for padding, groups, setting in itertools.product(
            ("valid", "same"), (1, 2), ({}, {"strides": (2, 1)}, {"strides": 4}, {"dilation_rate": (3, 2)})
        )
    ),
    *(
        (L.Conv3D, (3, 4, 3, 2), (2, 1, 2), {"padding": padding, "groups": groups, **setting})
        for padding, groups, setting in itertools.product(
            ("valid", "same"), (1, 2), ({}, {"strides": (1, 3, 2)}, {"dilation_rate": (1, 2, 2)})
        )
    ),
]


def described(value):
    if isinstance(value, type):
        return value.__name__
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""


def example(kind, shape, sizes, settings, rng, filters=4, samples=8):
    """An inverse, a signal at its output, and an input that has something to do with it."""
    layer = kind(filters, sizes, **settings)
    inverse = inverse_of(layer, shape)
    rank = len(sizes)
    strides, dilations = ((s,) * rank if isinstance(s, int) else s for s in (layer.strides, layer.dilation_rate))
    geometry = (shape[:-1], strides, dilations, settings["padding"], settings["groups"])
    signal = rng.normal(0.5, 1, (samples, *inverse.output_shape))
    matrix = conv_matrix(rng.normal(size=(*sizes, shape[-1] // settings["groups"], filters)), *geometry)
    x = (signal.reshape(samples, -1) @ matrix).reshape(samples, *shape) + rng.normal(1, 1, (samples, *shape))
    return inverse, signal, x, geometry


@pytest.mark.parametrize(("kind", "shape", "sizes", "settings"), SETTINGS, ids=described)
@pytest.mark.few(11)
def test_closed_form_is_the_least_squares_over_the_explicit_matrix(kind, shape, sizes, settings, rng):
    inverse, signal, x, geometry = example(kind, shape, sizes, settings, rng)
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 0.1)
    kernel, bias = transposed_ridge(signal, x, inverse.weight_shapes[0], 0.1, *geometry)
    assert tuple(w.shape for w in weights) == inverse.weight_shapes
    assert inverse.weight_shapes[0] == tuple(inverse.layer.kernel.shape)  # the shape of the layer's own adjoint
    assert close(weights[0], kernel, 1e-6) and close(weights[1], bias, 1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "sizes", "settings"),
    [
        (L.Conv1D, (7, 2), (3,), {"padding": "causal", "groups": 1, "strides": 2}),
        (L.Conv2D, (5, 6, 2), (2, 3), {"padding": "same", "groups": 1, "dilation_rate": (1, 2)}),
        (L.Conv2D, (5, 6, 2), (2, 3), {"padding": "same", "groups": 2, "strides": 4}),
        (L.Conv3D, (3, 4, 3, 2), (2, 1, 2), {"padding": "valid", "groups": 1}),
    ],
    ids=described,
)
def test_source_is_what_the_regression_predicts(kind, shape, sizes, settings, rng):
    inverse, signal, x, geometry = example(kind, shape, sizes, settings, rng)
    kernel, bias = weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 0.1)
    linear = (signal.reshape(len(x), -1) @ conv_matrix(kernel, *geometry)).reshape(x.shape)
    assert close(inverse.attribution(tf.constant(signal), (), weights), linear, 1e-10)
    assert close(inverse.source(tf.constant(signal), (), weights), linear + bias, 1e-10)
    # and what the sums say its error is
    sums = inverse.regression()
    inverse.add_rows(sums, tf.constant(signal), tf.constant(x), None)
    solution = sums.solve(0.1)
    mse, variance = solution.mse, solution.variance
    assert mse == pytest.approx(np.square(x - linear - bias).mean(), rel=1e-6)
    assert variance == pytest.approx(x.reshape(-1, shape[-1]).var(axis=0).mean(), rel=1e-6)


def test_no_other_kernel_is_better(rng):
    inverse, signal, x, _ = example(L.Conv2D, (5, 6, 2), (2, 3), {"padding": "same", "groups": 1}, rng)
    kernel, bias = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 1e-9)
    best = np.square(x - inverse.source(tf.constant(signal), (), (kernel, bias))).sum()
    for _ in range(5):
        other = kernel + 1e-3 * rng.normal(size=kernel.shape), bias + 1e-3 * rng.normal(size=bias.shape)
        assert np.square(x - inverse.source(tf.constant(signal), (), other)).sum() > best


def test_positions_are_rows_of_all(rng):
    inverse, signal, x, _ = example(L.Conv2D, (5, 6, 2), (2, 3), {"padding": "same", "groups": 2}, rng)
    signal, x = tf.constant(signal), tf.constant(x)
    features, targets = (np.reshape(a, (2, 8, 30, -1)) for a in inverse.design(signal, x, None))
    assert inverse.positions == 30 and features.shape[-1] == 6 * 4 // 2
    positions = np.argsort(rng.random((8, 30)), axis=1)[:, :7]
    some, of = inverse.design(signal, x, positions)
    rows = np.arange(8)[:, None]
    np.testing.assert_array_equal(np.reshape(some, (2, 8, 7, -1)), features[:, rows, positions])
    np.testing.assert_array_equal(np.reshape(of, (2, 8, 7, -1)), targets[:, rows, positions])


def test_sampled_rows_come_close_to_all_of_them(rng):
    inverse, signal, x, _ = example(L.Conv2D, (8, 8, 2), (3, 3), {"padding": "same", "groups": 1}, rng, samples=400)
    whole = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 1e-3)
    gaps = []
    for take in (4, 32):
        sums = inverse.regression()
        positions = np.argsort(rng.random((400, 64)), axis=1)[:, :take]
        inverse.add_rows(sums, tf.constant(signal), tf.constant(x), positions)
        solution = sums.solve(1e-3)
        kernel, _ = inverse.assemble(solution.kernel, solution.bias)
        gaps.append(np.linalg.norm(kernel - whole[0]) / np.linalg.norm(whole[0]))
    assert gaps[1] < gaps[0] < 0.1 and gaps[1] < 0.03


def test_every_convolution_has_it_and_is_sampled():
    for kind, rank in zip(windows.CONVOLUTIONS, (1, 2, 3), strict=True):
        inverse = inverse_of(kind(2, 2), (4,) * rank + (1,))
        assert type(inverse) is ConvInverse and inverse.sampled and inverse.positions == 4**rank
