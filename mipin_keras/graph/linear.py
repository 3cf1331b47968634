"""What a layer computes, where that is linear or affine: its kernel, its bias, how they are applied, and the adjoint.

The one place that the rules, the inverses and the twin ask. There are

- *kernel layers*, whose work is ``activation(apply(x, kernel) + bias)``: Dense
  and the convolutions, depthwise and transposed ones too. The two convolutions
  of a separable one are kernel layers of their own (:mod:`~.separable`);
- batch normalisation, at inference one factor and one bias a channel;
- *affine* steps: one factor and one offset an element, the same for each
  sample: rescaling, normalisation, arithmetic with constants;
- *standardizations*, which divide each sample by a size of its own: layer,
  group, RMS and unit normalisation;
- sums, means and differences of several tensors.

All layers are channels_last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from .activations import overrides_call
from .windows import CONVOLUTIONS, DEPTHWISE, TRANSPOSED, windows_of

_L = keras.layers

KERNEL_LAYERS = (_L.Dense, *CONVOLUTIONS, *DEPTHWISE, *TRANSPOSED)
STANDARDIZATIONS: tuple[type, ...] = (_L.LayerNormalization, _L.GroupNormalization, _L.UnitNormalization)
if hasattr(_L, "RMSNormalization"):  # Keras 3.9
    STANDARDIZATIONS += (_L.RMSNormalization,)
# Layers that a standardization subtracts the mean in; the others only divide.
_CENTRED = (_L.LayerNormalization, _L.GroupNormalization)


class LinearPart(NamedTuple):
    """A linear step as ``apply(x, kernel) + bias``, for rules that put other kernels in its place.

    Attributes:
        apply: From an input ``(n, *input shape)``, or a tuple of them, and a
            kernel to ``(n, *output shape)``; linear in both.
        kernel: In the dtype that the layer computes in; of any shape that
            ``apply`` takes.
        bias: Broadcasts to the output; zeros where the layer has none.
    """

    apply: Callable[[Any, tf.Tensor], tf.Tensor]
    kernel: tf.Tensor
    bias: tf.Tensor

    def with_adjoint(self, x: Any, kernel: tf.Tensor | None = None) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        """``apply(x, kernel)``, and the adjoint of ``apply(., kernel)``: from a signal at the output to one like ``x``.

        Args:
            x: The input, or a tuple of them.
            kernel: The step's own, or another of its shape.
        """
        kernel = self.kernel if kernel is None else kernel
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y = self.apply(x, kernel)
        return y, lambda signal: tape.gradient(y, x, output_gradients=signal)


# Kernel layers


def is_kernel_layer(layer: Any) -> bool:
    """Whether the layer's linear part is known here."""
    return any(isinstance(layer, base) and not overrides_call(layer, base) for base in KERNEL_LAYERS)


def apply(layer: Any, x: tf.Tensor, kernel: tf.Tensor | None = None) -> tf.Tensor:
    """The layer's linear part without bias and activation, with its own kernel or another."""
    kernel = layer.kernel if kernel is None else kernel
    if isinstance(layer, _L.Dense):
        return tf.tensordot(x, kernel, axes=[[-1], [0]]) if x.shape.rank != 2 else tf.matmul(x, kernel)
    padding = layer.padding
    if padding == "causal":
        low = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x, padding = tf.pad(x, [[0, 0], [low, 0], [0, 0]]), "valid"
    settings = {"padding": padding, "dilation_rate": layer.dilation_rate, "data_format": "channels_last"}
    if isinstance(layer, DEPTHWISE):
        return keras.ops.depthwise_conv(x, kernel, strides=layer.strides, **settings)
    if isinstance(layer, TRANSPOSED):
        settings["output_padding"] = layer.output_padding
        return keras.ops.conv_transpose(x, kernel, strides=list(layer.strides), **settings)
    return keras.ops.conv(x, kernel, strides=list(layer.strides), **settings)


def without_bias(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """The layer's linear part of ``x`` without its bias, in the layer's compute dtype."""
    return apply(layer, tf.cast(x, layer.compute_dtype), tf.cast(layer.kernel, layer.compute_dtype))


def with_bias(layer: Any, y: tf.Tensor) -> tf.Tensor:
    """What :func:`without_bias` gave, with the layer's bias: its output before its activation."""
    return y + tf.cast(layer.bias, y.dtype) if layer.use_bias else y


def before_activation(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """The layer's output before its activation, in the layer's compute dtype."""
    return with_bias(layer, without_bias(layer, x))


def adjoint(layer: Any, signal: tf.Tensor, kernel: tf.Tensor, input_shape: tuple[int, ...]) -> tf.Tensor:
    """The transpose of :func:`apply` with ``kernel``, applied to ``signal``.

    Args:
        layer: A kernel layer, for its strides, padding, dilation and groups.
        signal: Shape of the layer's output, ``(n, ..., filters)``.
        kernel: Shape of the layer's kernel; dtype of ``signal``.
        input_shape: The layer's input shape without the batch axis.

    Returns:
        Shape ``(n, *input_shape)``: for every setting exactly the
        vector-Jacobian product of the layer's linear part.
    """
    if isinstance(layer, TRANSPOSED):
        # It is itself the adjoint of this convolution. Not as its gradient: in float64 on CPUs TensorFlow has none with
        # a dilation. Padded here: there it pads in 3D wrongly where a stride is larger than the kernel.
        windows = windows_of(layer, input_shape, layer.compute_output_shape((None, *input_shape))[1:])
        pads = [[low, high] for low, high in zip(windows.lows, windows.highs, strict=True)]
        signal = tf.pad(signal, [[0, 0], *pads, [0, 0]])
        return tf.nn.convolution(signal, kernel, windows.strides, "VALID", dilations=windows.dilations)
    if isinstance(layer, keras.layers.Conv2D) and layer.groups == 1 and set(layer.dilation_rate) == {1}:
        # What the gradient below comes to, as one operation: of a deep network's first call most is tracing.
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=input_shape[:-1],
            filter=kernel,
            out_backprop=signal,
            strides=[1, *layer.strides, 1],
            padding=layer.padding.upper(),
        )
    x = tf.zeros(tf.concat([tf.shape(signal)[:1], input_shape], 0), signal.dtype)
    x.set_shape((None, *input_shape))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = apply(layer, x, kernel)
    return tape.gradient(y, x, output_gradients=signal)


# Batch normalisation


def normalizes_plainly(layer: Any) -> bool:
    """Whether :func:`normalized` is what the layer computes at inference."""
    if not isinstance(layer, keras.layers.BatchNormalization) or overrides_call(layer, keras.layers.BatchNormalization):
        return False
    return layer.axis in (-1, layer.input_spec.ndim - 1) and layer.compute_dtype in ("float32", "float64")


def normalized(layer: Any, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch normalisation at inference, and the factor of each channel.

    As ``tf.nn.batch_normalization`` and so Keras compute it, to the bit;
    traced in a third of the time.
    """
    dtype = layer.compute_dtype
    mean, variance = (tf.cast(w, dtype) for w in (layer.moving_mean.value, layer.moving_variance.value))
    factor = tf.math.rsqrt(variance + layer.epsilon)
    factor = factor * tf.cast(layer.gamma.value, dtype) if layer.scale else factor
    offset = tf.cast(layer.beta.value, dtype) - mean * factor if layer.center else -mean * factor
    return tf.cast(x, dtype) * factor + offset, factor


def linear_part(layer: Any, wide: bool = False) -> LinearPart:
    """The linear part of a kernel layer; of a batch normalisation, its diagonal one at inference.

    ``y = gamma (x - mean) / sqrt(variance + epsilon) + beta`` is the kernel
    ``gamma / sqrt(variance + epsilon)`` and the bias ``beta - kernel mean``.

    Args:
        layer: The layer.
        wide: Whether it is in float32 for a layer that computes in less.
    """
    dtype = "float32" if wide and "16" in layer.compute_dtype else layer.compute_dtype
    if not isinstance(layer, _L.BatchNormalization):
        kernel = tf.cast(layer.kernel, dtype)
        bias = tf.cast(layer.bias, dtype) if layer.use_bias else tf.zeros((), dtype)
        return LinearPart(functools.partial(apply, layer), kernel, bias)
    shape = [-1] + [1] * (layer.input_spec.ndim - 1 - layer.axis if layer.axis >= 0 else -1 - layer.axis)
    mean, variance = (tf.cast(w, dtype) for w in (layer.moving_mean, layer.moving_variance))
    kernel = tf.math.rsqrt(variance + layer.epsilon)
    kernel = kernel * tf.cast(layer.gamma, dtype) if layer.scale else kernel
    bias = -mean * kernel
    bias = bias + tf.cast(layer.beta, dtype) if layer.center else bias
    return LinearPart(tf.multiply, tf.reshape(kernel, shape), tf.reshape(bias, shape))


# Affine steps


def affine(step: Any, dtype: Any = "float32") -> LinearPart:
    """The factor and the offset of a step that gives each element one of each, whatever the sample.

    Args:
        step: A step of the type :data:`~.step_types.AFFINE`.
        dtype: Of its input. In float64 the settings of Rescaling and
            Normalization count as they are, whatever the layer computes in.

    Returns:
        Kernel and bias of shape ``(1, *input_shape)`` or one that broadcasts
        to it, an unknown size being 1; ``apply`` is the product.
    """
    known = next((read for layer_type, read in _SETTINGS.items() if isinstance(step.layer, layer_type)), None)
    if known is not None and tf.as_dtype(dtype) == tf.float64:
        kernel, bias = (tf.constant(np.asarray(part, np.float64)) for part in known(step.layer))
        return LinearPart(tf.multiply, kernel, bias)
    x = tf.zeros([1, *(size or 1 for size in step.input_shape)], dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = step({step.inputs[0]: x})
    # Its gradient, as a difference of two outputs would lose digits to a large offset.
    kernel = tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return LinearPart(tf.multiply, tf.cast(kernel, y.dtype), y)


def _normalization(layer: Any) -> tuple[Any, Any]:
    mean = np.asarray(layer.mean, np.float64)
    # The layer's own guard against a variance of 0
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), keras.config.epsilon())
    return (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)


# The factor and the offset from a layer's settings.
_SETTINGS: dict[type, Callable[[Any], tuple[Any, Any]]] = {
    _L.Rescaling: lambda layer: (layer.scale, layer.offset),
    _L.Normalization: _normalization,
}


# Standardizations


def divisor(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """What a standardization divides each sample ``x`` ``(n, ...)`` by, of a shape that broadcasts to ``x``.

    The standard deviation, of RMS normalisation the root of the mean square,
    of unit normalisation the length.
    """
    squares, _ = _size_of(layer, x)
    found = tf.sqrt(squares)
    if not isinstance(layer, _L.GroupNormalization):
        return found
    # (n, ..., groups, 1, ...) with size 1 where it sums: one number for each channel of a group
    at = layer.axis % x.shape.rank
    return tf.repeat(tf.squeeze(found, at + 1), x.shape[at] // layer.groups, axis=at)


def _size_of(layer: Any, x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """The square of what divides, in the shape that the layer computes it in, and what subtracts the means."""
    view, axes = _view(layer, x)

    def minus_means(t: tf.Tensor) -> tf.Tensor:
        if not isinstance(layer, _CENTRED):
            return t
        parts = tf.reshape(t, view)
        return tf.reshape(parts - tf.reduce_mean(parts, axes, keepdims=True), tf.shape(x))

    squares = tf.reshape(tf.square(minus_means(x)), view)
    if isinstance(layer, _L.UnitNormalization):
        return tf.reduce_sum(squares, axes, keepdims=True), minus_means
    return tf.reduce_mean(squares, axes, keepdims=True) + layer.epsilon, minus_means


def _view(layer: Any, x: tf.Tensor) -> tuple[tf.Tensor, list[int]]:
    """The shape in which a standardization sums, and over which axes: the channels of a group are an axis there."""
    rank, size = x.shape.rank, tf.shape(x)
    along = [axis % rank for axis in keras.tree.flatten(layer.axis)]
    if not isinstance(layer, _L.GroupNormalization):
        return size, along
    at = along[0]
    view = tf.concat([size[:at], [layer.groups, size[at] // layer.groups], size[at + 1 :]], 0)
    return view, [axis for axis in range(1, rank + 1) if axis != at]


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
    rank = x.shape.rank
    along = [axis % rank for axis in keras.tree.flatten(layer.axis)]
    squares, minus_means = _size_of(layer, x)
    inverse = tf.math.rsqrt(squares)
    if isinstance(layer, _L.UnitNormalization):
        inverse = tf.minimum(inverse, tf.constant(1e12, x.dtype))
    kernel = tf.reshape(tf.broadcast_to(inverse, _view(layer, x)[0]), tf.shape(x))
    if not isinstance(layer, _CENTRED):  # RMS normalisation multiplies by its scale as it is, whatever the axes
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


# Sums of several tensors


def coefficients(step: Any) -> list[float]:
    """What a step of the type ADD or SUBTRACT multiplies each of its different inputs by, in their order."""
    subtracts = type(step.layer).__name__ == "Subtract"  # a layer or an operation of keras.ops
    share = len(step.inputs) if isinstance(step.layer, _L.Average) else 1
    found = dict.fromkeys(step.inputs, 0.0)
    for position, tensor_id in enumerate(step.inputs):
        found[tensor_id] += -1.0 if subtracts and position else 1.0
    return [factor / share for factor in found.values()]
