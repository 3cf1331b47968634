"""A layer's linear part, its adjoint and its geometry: the numerics that all rules share.

A *kernel layer* is one whose work is ``activation(linear(x) + bias)``: Dense
and the convolutions, depthwise and transposed ones too. Everything here is
channels_last.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
MAX_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
AVERAGE_POOLINGS = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
KERNEL_LAYERS = (keras.layers.Dense, *CONVOLUTIONS, *DEPTHWISE, *TRANSPOSED)

# Elementwise functions of keras.activations, and PReLU: what comes out of one unit
# depends on what goes into that unit alone.
ELEMENTWISE = frozenset(
    {
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
        "leaky_relu", "linear", "log_sigmoid", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu",
        "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh",
        "tanh_shrink", "threshold",
    }
)  # fmt: skip
HEADS = frozenset({"softmax", "log_softmax", "sigmoid"})



def overrides_call(layer: Any, base: type) -> bool:
    """Whether ``layer``'s class computes something else than ``base``, in any method that Keras calls for it."""
    methods = ("__call__", "call", "convolution_op", "_merge_function", "transform_images")
    return any(getattr(type(layer), name, None) is not getattr(base, name, None) for name in methods)


def is_kernel_layer(layer: Any) -> bool:
    """Whether the layer's linear part is known here."""
    return any(isinstance(layer, base) and not overrides_call(layer, base) for base in KERNEL_LAYERS)


def activation_name(layer: Any) -> str | None:
    """The name in ``keras.activations`` of what an activation layer or operation computes.

    Returns:
        A name such as ``"relu"`` or ``"softmax"``, ``""`` for an activation
        layer around a function that is not Keras' own, and None for a layer
        that is no activation.
    """
    layers = keras.layers
    own = {
        layers.ReLU: "relu",
        layers.LeakyReLU: "leaky_relu",
        layers.ELU: "elu",
        layers.PReLU: "prelu",  # no function of keras.activations: its slopes are weights
        layers.Softmax: "softmax",
    }
    for base, name in own.items():
        if isinstance(layer, base):
            return "" if overrides_call(layer, base) else name
    if isinstance(layer, layers.Activation):
        return "" if overrides_call(layer, layers.Activation) else function_name(layer.activation)
    if not isinstance(layer, keras.layers.Layer) and type(layer).__module__.startswith("keras."):
        # keras.ops between layers: an Operation of Keras named in camel case.
        wanted = type(layer).__name__.lower()
        for name in ELEMENTWISE | HEADS:
            if name.replace("_", "") == wanted:
                return name
    return None


def function_name(function: Any) -> str:
    """The name of a function of ``keras.activations``, or ``""`` for any other."""
    if function is None:
        return "linear"
    name = getattr(function, "__name__", "")
    return name if name and getattr(keras.activations, name, None) is function else ""


def linear(layer: Any, x: tf.Tensor, kernel: tf.Tensor | None = None) -> tf.Tensor:
    """The layer's linear part without bias and activation, with its own kernel or another."""
    kernel = layer.kernel if kernel is None else kernel
    if isinstance(layer, keras.layers.Dense):
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
    return linear(layer, tf.cast(x, layer.compute_dtype), tf.cast(layer.kernel, layer.compute_dtype))


def with_bias(layer: Any, y: tf.Tensor) -> tf.Tensor:
    """What :func:`without_bias` gave, with the layer's bias: its output before its activation."""
    return y + tf.cast(layer.bias, y.dtype) if layer.use_bias else y


def linear_with_bias(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """The layer's output before its activation, in the layer's compute dtype."""
    return with_bias(layer, without_bias(layer, x))


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


class LinearPart(NamedTuple):
    """A linear step as ``apply(x, kernel) + bias``, for rules that put other kernels in its place.

    Attributes:
        apply: From ``(n, *input shape)`` and a kernel to ``(n, *output shape)``.
        kernel: In the layer's compute dtype; of any shape that ``apply`` takes.
        bias: Broadcasts to the output; zeros where the layer has none.
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    kernel: tf.Tensor
    bias: tf.Tensor


def linear_part(layer: Any) -> LinearPart:
    """The linear part of a kernel layer; of a batch normalisation, its diagonal one at inference.

    ``y = gamma (x - mean) / sqrt(variance + epsilon) + beta`` is the kernel
    ``gamma / sqrt(variance + epsilon)`` and the bias ``beta - kernel mean``.
    """
    dtype = layer.compute_dtype
    if not isinstance(layer, keras.layers.BatchNormalization):
        kernel = tf.cast(layer.kernel, dtype)
        bias = tf.cast(layer.bias, dtype) if layer.use_bias else tf.zeros((), dtype)
        return LinearPart(functools.partial(linear, layer), kernel, bias)
    shape = [-1] + [1] * (layer.input_spec.ndim - 1 - layer.axis if layer.axis >= 0 else -1 - layer.axis)
    mean, variance = (tf.cast(w, dtype) for w in (layer.moving_mean, layer.moving_variance))
    kernel = tf.math.rsqrt(variance + layer.epsilon)
    kernel = kernel * tf.cast(layer.gamma, dtype) if layer.scale else kernel
    bias = -mean * kernel
    bias = bias + tf.cast(layer.beta, dtype) if layer.center else bias
    return LinearPart(tf.multiply, tf.reshape(kernel, shape), tf.reshape(bias, shape))


def adjoint(layer: Any, signal: tf.Tensor, kernel: tf.Tensor, input_shape: tuple[int, ...]) -> tf.Tensor:
    """The transpose of :func:`linear` with ``kernel``, applied to ``signal``.

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
        y = linear(layer, x, kernel)
    return tape.gradient(y, x, output_gradients=signal)


@dataclasses.dataclass(frozen=True)
class Windows:
    """The geometry of a sliding window over 1, 2 or 3 spatial axes.

    Attributes:
        inputs, outputs: Spatial sizes before and after.
        sizes, strides, dilations: Per axis.
        lows: Padding before the first element, per axis.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    lows: tuple[int, ...]

    @property
    def overlap(self) -> bool:
        """Whether an input element can lie in more than one window."""
        return any(d * (k - 1) + 1 > s for k, s, d in zip(self.sizes, self.strides, self.dilations, strict=True))

    @property
    def highs(self) -> tuple[int, ...]:
        """Padding that the last window needs behind the last element, per axis."""
        return tuple(max((q - 1) * s + d * (k - 1) + 1 - n - low, 0) for n, q, k, s, d, low in self._axes())

    def elements(self) -> np.ndarray:
        """Which input elements each window holds.

        Returns:
            int32 of shape ``(prod(outputs), prod(sizes))``: flat spatial
            indices of the input; ``prod(inputs)`` stands for padding.
        """
        axes = []
        for n, q, k, s, d, low in self._axes():
            at = np.arange(q)[:, None] * s - low + np.arange(k)[None, :] * d
            axes.append(np.where((at >= 0) & (at < n), at, -1))
        return _combine(axes, self.inputs)

    def windows(self) -> np.ndarray:
        """Which windows each input element lies in, and where in them.

        Returns:
            int32 of shape ``(prod(inputs), prod(sizes))``: entry ``[p, k]`` is
            the flat spatial index of the output whose window has input
            element ``p`` as its element ``k``; ``prod(outputs)`` where there
            is none.
        """
        axes = []
        for n, q, k, s, d, low in self._axes():
            at = np.arange(n)[:, None] + low - np.arange(k)[None, :] * d
            axes.append(np.where((at % s == 0) & (at >= 0) & (at // s < q), at // s, -1))
        return _combine(axes, self.outputs)

    def _axes(self) -> Any:
        return zip(self.inputs, self.outputs, self.sizes, self.strides, self.dilations, self.lows, strict=True)


def _combine(axes: list[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Per-axis index tables as one table of flat indices; any -1 becomes ``prod(sizes)``."""
    flat, valid = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for table, size in zip(axes, sizes, strict=True):
        p, k = table.shape
        flat = (flat[:, None, :, None] * size + table[None, :, None, :]).reshape(flat.shape[0] * p, -1)
        valid = (valid[:, None, :, None] & (table >= 0)[None, :, None, :]).reshape(valid.shape[0] * p, -1)
    return np.where(valid, flat, math.prod(sizes)).astype(np.int32)


def windows_of(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Windows:
    """The window geometry of a convolution or pooling layer.

    Args:
        layer: A convolution, also a depthwise or transposed one, or a max or
            average pooling.
        input_shape, output_shape: The layer's, without the batch axis:
            spatial axes, then channels.

    Returns:
        The layer's windows; for a transposed convolution those of the
        convolution whose adjoint it is, from the layer's output to its input.
    """
    inputs, outputs = tuple(input_shape[:-1]), tuple(output_shape[:-1])
    if isinstance(layer, TRANSPOSED):
        inputs, outputs = outputs, inputs
    if hasattr(layer, "kernel_size"):
        sizes, dilations = tuple(layer.kernel_size), tuple(layer.dilation_rate)
    else:
        pool = layer.pool_size
        sizes = (pool,) if isinstance(pool, int) else tuple(pool)
        dilations = (1,) * len(sizes)
    strides = (layer.strides,) if isinstance(layer.strides, int) else tuple(layer.strides)
    spans = [d * (k - 1) + 1 for k, d in zip(sizes, dilations, strict=True)]
    if layer.padding == "same":
        # TensorFlow's SAME: what is needed, the smaller half of it before.
        lows = tuple(
            max((q - 1) * s + span - n, 0) // 2 for n, q, s, span in zip(inputs, outputs, strides, spans, strict=True)
        )
    elif layer.padding == "causal":
        lows = tuple(span - 1 for span in spans)
    else:
        lows = (0,) * len(sizes)
    return Windows(inputs, outputs, sizes, strides, dilations, lows)


def has_static_shape(shape: tuple[int | None, ...]) -> bool:
    """Whether every axis but the batch's has a known size."""
    return not any(size is None for size in itertools.islice(shape, 1, None))
