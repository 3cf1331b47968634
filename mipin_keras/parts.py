"""What steps without a kernel do to their input, as ``apply(x, kernel) + bias``: scalings and standardizations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .graph import Step
from .kernels import LinearPart

_L = keras.layers
STANDARDIZATIONS: tuple[type, ...] = (_L.LayerNormalization, _L.GroupNormalization, _L.UnitNormalization)
if hasattr(_L, "RMSNormalization"):  # Keras 3.9
    STANDARDIZATIONS += (_L.RMSNormalization,)


def scale(step: Step, dtype: Any = "float32") -> LinearPart:
    """The factor and the offset that a scaling gives each element, whatever the sample.

    Args:
        step: Of the kind :data:`~.kinds.SCALE`.
        dtype: Of its input.

    Returns:
        Kernel and bias of shape ``(1, *input_shape)``, an unknown size being
        1; ``apply`` is the product.
    """
    x = tf.zeros([1, *(size or 1 for size in step.input_shape)], dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = step({step.inputs[0]: x})
    # Its gradient, as a difference of two outputs would lose digits to a large offset.
    kernel = tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return LinearPart(tf.multiply, tf.cast(kernel, y.dtype), y)


def standardization(layer: Any, x: tf.Tensor) -> LinearPart:
    """A standardization of each sample by itself, linear when its divisor is held.

    Layer and group normalisation are ``gamma (x - mean) / sigma + beta``, RMS
    and unit normalisation ``gamma x / sigma``.

    Args:
        layer: Of :data:`STANDARDIZATIONS`.
        x: Its input ``(n, ...)``.

    Returns:
        ``apply`` subtracts the means, where the layer does, and multiplies by
        the kernel; the kernel is ``gamma / sigma``, of the shape of ``x``, in
        float32 at least.
    """
    x = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    rank, size = x.shape.rank, tf.shape(x)
    along = [axis % rank for axis in keras.tree.flatten(layer.axis)]
    grouped = isinstance(layer, _L.GroupNormalization)
    if grouped:  # the axis of the channels becomes two: groups, and channels in each
        at = along[0]
        view = tf.concat([size[:at], [layer.groups, size[at] // layer.groups], size[at + 1 :]], 0)
        axes = [axis for axis in range(1, rank + 1) if axis != at]
    else:
        view, axes = size, along
    centred = isinstance(layer, _L.LayerNormalization | _L.GroupNormalization)

    def minus_means(t: tf.Tensor) -> tf.Tensor:
        if not centred:
            return t
        parts = tf.reshape(t, view)
        return tf.reshape(parts - tf.reduce_mean(parts, axes, keepdims=True), size)

    squares = tf.reshape(tf.square(minus_means(x)), view)
    if isinstance(layer, _L.UnitNormalization):
        divided = tf.minimum(tf.math.rsqrt(tf.reduce_sum(squares, axes, keepdims=True)), tf.constant(1e12, x.dtype))
    else:
        divided = tf.math.rsqrt(tf.reduce_mean(squares, axes, keepdims=True) + layer.epsilon)
    kernel = tf.reshape(tf.broadcast_to(divided, view), size)
    if not centred:  # RMS normalisation multiplies by its scale as it is, whatever the axes
        gamma = getattr(layer, "scale", None)
        kernel = kernel if gamma is None else kernel * tf.cast(gamma, x.dtype)
        return LinearPart(tf.multiply, kernel, tf.zeros((), x.dtype))
    shape = [x.shape[axis] if axis in along else 1 for axis in range(rank)]
    gamma, beta = (
        None if weights is None else tf.reshape(tf.cast(weights, x.dtype), shape)
        for weights in (layer.gamma, layer.beta)
    )
    kernel = kernel if gamma is None else kernel * gamma
    bias = tf.zeros((), x.dtype) if beta is None else beta
    return LinearPart(lambda t, factor: minus_means(t) * factor, kernel, bias)
