"""Dense and per-channel inverses against the normal equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.mipin.layers.dense import ChannelInverse, DenseInverse
from tests.networks import close, fitted_weights, inverse_of
from tests.reference import ridge

L = keras.layers


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
@pytest.mark.parametrize("penalty", [1e-3, 5.0])
def test_dense_is_a_ridge_regression_over_the_last_axis(shape, penalty, rng):
    inverse = inverse_of(L.Dense(3), shape)
    assert isinstance(inverse, DenseInverse)
    assert (inverse.positions, inverse.weight_shapes) == (np.prod(shape) // 6, ((3, 6), (6,)))
    signal = rng.normal(2, 1, (50, *shape[:-1], 3))
    x = rng.normal(size=(50, *shape)) + signal @ rng.normal(size=(3, 6))
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), penalty)
    kernel, bias = ridge(signal.reshape(-1, 3), x.reshape(-1, 6), penalty)
    assert close(weights[0], kernel, 1e-6) and close(weights[1], bias, 1e-6)
    assert tuple(w.shape for w in weights) == inverse.weight_shapes
    assert close(inverse.source(tf.constant(signal), (), weights), signal @ kernel + bias, 1e-6)
    assert close(inverse.attribution(tf.constant(signal), (), weights), signal @ kernel, 1e-6)


def test_a_head_reads_one_logit(rng):
    inverse = inverse_of(L.Dense(3), (6,))
    inverse.read_from(1)
    signal, x = rng.normal(size=(50, 1)), rng.normal(size=(50, 6))
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 1e-3)
    kernel, bias = ridge(signal, x, 1e-3)
    assert close(weights[0], kernel, 1e-6) and close(weights[1], bias, 1e-6)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 2, 5)])
def test_batch_normalization_is_a_regression_a_channel(shape, rng):
    inverse = inverse_of(L.BatchNormalization(), shape)
    assert isinstance(inverse, ChannelInverse)
    signal = rng.normal(1, 1, (20, *shape))
    x = signal * np.arange(5) + rng.normal(3, 1, (20, *shape))
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 0.5)
    assert tuple(w.shape for w in weights) == inverse.weight_shapes == ((5,), (5,))
    for c in range(5):
        kernel, bias = ridge(signal[..., c].reshape(-1, 1), x[..., c].reshape(-1, 1), 0.5)
        assert weights[0][c] == pytest.approx(kernel[0, 0], rel=1e-6)
        assert weights[1][c] == pytest.approx(bias[0], rel=1e-6)
    assert close(inverse.source(tf.constant(signal), (), weights), signal * weights[0] + weights[1], 1e-12)
    assert close(inverse.attribution(tf.constant(signal), (), weights), signal * weights[0], 1e-12)


def test_batch_normalization_undoes_itself(rng):
    layer = L.BatchNormalization()
    inverse = inverse_of(layer, (4, 3))
    layer.set_weights([rng.uniform(0.5, 2, 3), rng.normal(size=3), rng.normal(size=3), rng.uniform(0.5, 2, 3)])
    x = rng.normal(size=(200, 4, 3)).astype("float32")
    y = layer(x)
    weights = fitted_weights(inverse, y, tf.constant(x), 1e-6)
    assert close(inverse.source(tf.cast(y, tf.float64), (), weights), x, 1e-5)


def test_batch_normalization_over_another_axis_is_refused():
    with pytest.raises(ValueError, match="'odd'.*last axis.*axis=1"):
        inverse_of(L.BatchNormalization(axis=1, name="odd"), (4, 3))
    inverse_of(L.BatchNormalization(axis=2), (4, 3))
