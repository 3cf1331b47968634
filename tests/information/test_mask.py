"""The mask module against two convolutions written out, and its width, axes and seeds."""

import keras
import numpy as np
import pytest

from mipin_keras.information.mask import MaskModule
from tests.networks import samples


def convolved(x, kernel, bias):
    """A 3x3 convolution with zeros around, in float64, from its definition."""
    n, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, height, width, kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
    return y


def test_two_convolutions_and_a_sigmoid():
    x = 3 + 2 * samples((5, 4, 3), 6)
    mask = MaskModule()
    mask.build((None, 5, 4, 3))
    mean, scale = x.mean(axis=(0, 1, 2)), 1 / x.std(axis=(0, 1, 2))
    mask.adapt(mean, scale)
    first, first_bias, second, second_bias = (keras.ops.convert_to_numpy(w) for w in mask.trainable_weights)
    inner = convolved((x - mean) * scale, first, first_bias)
    wanted = 1 / (1 + np.exp(-convolved(inner, second, second_bias)))
    found = keras.ops.convert_to_numpy(mask(x))
    assert found.shape == (6, 5, 4, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted.std() > 0.01


@pytest.mark.parametrize(("shape", "width"), [((7, 4), 4), ((3, 3, 100), 64), ((2, 3, 4, 2), 2)])
def test_axes_and_width(shape, width):
    mask = MaskModule()
    assert mask(samples(shape, 2)).shape == (2, *shape[:-1], 1)
    assert mask.trainable_weights[0].shape == (*[3] * (len(shape) - 1), shape[-1], width)
    # What is standardised by is no weight to train.
    assert [w.name for w in mask.non_trainable_weights] == ["mean", "scale"]


def test_the_seed_and_the_configuration():
    x = samples((5, 4, 3), 2)
    one, same, other = (MaskModule(width=2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one(x), same(x)) and not np.allclose(one(x), other(x))
    again = keras.layers.deserialize(keras.layers.serialize(one))
    assert (again.width, again.seed) == (2, 1) and np.array_equal(again(x), one(x))
