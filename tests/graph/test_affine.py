"""Scalings and standardizations as linear parts, against the layers' own outputs and known numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import linear, step_types
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import close

L, ops = keras.layers, keras.ops
IMAGE = (3, 4, 2)
BIG = np.array([1e6, -2e6], "float32")

SCALES = {
    "rescaling": (L.Rescaling(1 / 127.5, offset=-1.0), 1 / 127.5, -1.0),
    "rescaling a channel": (L.Rescaling([2.0, 3.0], offset=[1.0, -1.0]), [2.0, 3.0], [1.0, -1.0]),
    "normalization": (L.Normalization(mean=[1.0, 2.0], variance=[4.0, 0.25]), [0.5, 2.0], [-0.5, -4.0]),
    "inverted": (L.Normalization(mean=[1.0, 2.0], variance=[4.0, 0.25], invert=True), [2.0, 0.5], [1.0, 2.0]),
    "negative": (ops.negative, -1.0, 0.0),
    "plus": (lambda x: x + 2.0, 1.0, 2.0),
    "minus": (lambda x: 2.0 - x, -1.0, 2.0),
    "times": (lambda x: x * np.array([2.0, -3.0], "float32"), [2.0, -3.0], 0.0),
    "divided": (lambda x: x / 8.0, 0.125, 0.0),
    "nothing": (lambda x: x * 0.0, 0.0, 0.0),
    "a large offset": (lambda x: x + BIG, 1.0, BIG),  # a difference of outputs would be off by a tenth
}


def first(build):
    x = keras.Input(IMAGE)
    return ModelGraph(keras.Model(x, L.Dense(1)(L.Flatten()(build(x))))).steps[0]


@pytest.mark.parametrize("name", SCALES)
def test_the_factor_and_offset_of_a_scaling(name, rng):
    build, factor, offset = SCALES[name]
    step = first(build)
    assert step_types.of(step) == step_types.AFFINE
    part = linear.affine(step)
    assert part.kernel.shape == part.bias.shape == (1, *IMAGE)
    np.testing.assert_allclose(part.kernel[0], np.broadcast_to(np.float32(factor), IMAGE), rtol=1e-6)
    np.testing.assert_allclose(part.bias[0], np.broadcast_to(np.float32(offset), IMAGE), rtol=1e-6)
    x = tf.constant(rng.normal(size=(5, *IMAGE)), "float32")
    np.testing.assert_allclose(part.apply(x, part.kernel) + part.bias, step({0: x}), rtol=1e-5, atol=1e-5)


def test_an_unknown_size_has_one_factor():
    x = keras.Input((None, 2))
    step = ModelGraph(keras.Model(x, L.GlobalAveragePooling1D()(x * np.array([2.0, 3.0], "float32")))).steps[0]
    np.testing.assert_array_equal(linear.affine(step).kernel, [[[2.0, 3.0]]])


STANDARDIZATIONS = [
    L.LayerNormalization(), L.LayerNormalization(axis=[1, 2, 3], epsilon=0.1), L.LayerNormalization(axis=1),
    L.LayerNormalization(center=False, scale=False), L.GroupNormalization(2), L.GroupNormalization(1),
    L.GroupNormalization(3, axis=1), L.GroupNormalization(-1), L.UnitNormalization(), L.UnitNormalization(axis=[1, 2]),
    *([L.RMSNormalization(), L.RMSNormalization(axis=[2, 3])] if hasattr(L, "RMSNormalization") else []),
]  # fmt: skip


@pytest.mark.parametrize("layer", STANDARDIZATIONS, ids=lambda layer: type(layer).__name__)
def test_a_standardization_is_linear_with_its_divisor_held(layer, rng):
    step = first(layer)
    assert step_types.of(step) == step_types.STANDARDIZATION
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    x, other = (tf.constant(rng.normal(size=(5, *IMAGE)), "float32") for _ in range(2))
    part = linear.standardization(layer, x)
    assert close(part.apply(x, part.kernel) + part.bias, layer(x), 1e-5)
    together = part.apply(x, part.kernel) - 2 * part.apply(other, part.kernel)
    assert close(part.apply(x - 2 * other, part.kernel), together, 1e-5)


def test_a_standardization_of_zeros_is_finite():
    for layer in (L.LayerNormalization(), L.UnitNormalization()):
        layer.build((None, 3))
        x = tf.zeros((2, 3))
        part = linear.standardization(layer, x)
        np.testing.assert_array_equal(part.apply(x, part.kernel), np.zeros((2, 3)))


def test_half_precision_is_computed_in_float32(rng):
    layer = L.LayerNormalization(dtype="mixed_float16")
    layer.build((None, 6))
    x = tf.constant(100 + rng.normal(size=(4, 6)), "float16")
    part = linear.standardization(layer, x)
    assert part.kernel.dtype == tf.float32
    wanted = tf.cast(x, tf.float32)
    assert close(part.apply(wanted, part.kernel), layer(x), 1e-2)
