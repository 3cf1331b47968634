"""Keras layers with the geometry of a convolution's adjoint: Keras' own where it has one, and the package's."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import keras
import tensorflow as tf

from ...graph import linear, windows

_PLAIN = dict(zip(windows.CONVOLUTIONS, windows.TRANSPOSED, strict=True))


class _Adjoint(keras.layers.Layer):
    """What the adjoints share: the geometry of the convolution, a kernel as its own, and a bias a channel.

    The class attribute ``kinds`` has Keras' layers of one, two and three
    spatial axes that it is the adjoint of.
    """

    kinds: tuple[type, ...]

    def __init__(self, target_shape: Any, settings: dict[str, Any], kernel_initializer: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)
        self.rank = len(self.target_shape) - 1
        if not 1 <= self.rank <= len(self.kinds) or not all(isinstance(size, int) for size in self.target_shape):
            raise ValueError(
                f"expected target_shape to be 1 to {len(self.kinds)} spatial sizes and the channels, received "
                f"{target_shape!r}; leave out the batch axis"
            )
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        # Only its settings are read: it is never built, and holds no weights. Named, and with an initializer that needs
        # no seed, so that Keras' count of names and Python's random numbers stay as they are.
        initializer = "depthwise_initializer" if self.kinds is windows.DEPTHWISE else "kernel_initializer"
        own = {"use_bias": False, "data_format": "channels_last", "name": "geometry", initializer: "zeros"}
        layer = self.kinds[self.rank - 1](**settings, **own)
        names = ("kernel_size", "strides", "padding", "dilation_rate", "groups", "output_padding")
        self._settings = {name: getattr(layer, name) for name in names if name in settings}
        self.kernel_size = tuple(layer.kernel_size)
        self._spatial = tuple(layer.compute_output_shape((None, *self.target_shape)))[1:-1]
        # In a partial, so that Keras does not take the layer for a part of this one.
        self._adjoint = functools.partial(linear.adjoint, layer, input_shape=self.target_shape)

    def _kernel_tail(self, channels: int) -> tuple[int, int]:
        """The last two axes of the kernel, for a signal of so many channels."""
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        if tuple(input_shape[1:-1]) != self._spatial:
            raise ValueError(
                f"expected a signal of the spatial size {self._spatial}, which the convolution makes of "
                f"{self.target_shape}, received {tuple(input_shape)}; give the size that belongs to it"
            )
        shape = (*self.kernel_size, *self._kernel_tail(input_shape[-1]))
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=self.target_shape[-1:], initializer="zeros", name="bias")

    def call(self, signal: Any) -> Any:
        """The adjoint of ``signal``, and the bias."""
        return self._adjoint(signal, keras.ops.convert_to_tensor(self.kernel)) + keras.ops.convert_to_tensor(self.bias)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (input_shape[0], *self.target_shape)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"target_shape": self.target_shape, "kernel_initializer": initializer}
        return super().get_config() | own | dict(self._settings)


@keras.saving.register_keras_serializable("mipin_keras")
class ConvAdjoint(_Adjoint):
    """The adjoint of a ``Conv1D``, ``Conv2D`` or ``Conv3D`` of any setting, with a kernel and a bias of its own.

    What Keras has no transposed convolution for: groups, causal padding, and
    sizes that no ``output_padding`` reaches.

    Args:
        target_shape: Shape of the result without the batch axis: 1 to 3
            spatial sizes, and the channels.
        kernel_size, strides, padding, dilation_rate, groups: The
            convolution's; an int or one a spatial axis, ``padding`` one of
            ``"valid"``, ``"same"`` and, in 1D, ``"causal"``.
        kernel_initializer: Of the kernel; the bias begins at 0.
        **kwargs: As every Keras layer takes them.

    Input shape:
        ``(n, *spatial, channels)``, ``spatial`` being what the convolution
        makes of ``target_shape``.

    Output shape:
        ``(n, *target_shape)``.

    Weights:
        ``kernel`` ``(*kernel_size, target channels / groups, channels)``, as
        the convolution's own, and ``bias`` ``(target channels,)``.

    Raises:
        ValueError: If ``target_shape`` is no shape of 1 to 3 spatial sizes,
            the signal is of another size, or ``groups`` do not divide the
            channels.
    """

    kinds = windows.CONVOLUTIONS

    def __init__(
        self,
        target_shape: tuple[int, ...],
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, ...] = 1,
        groups: int = 1,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        settings = {"kernel_size": kernel_size, "strides": strides, "padding": padding, "dilation_rate": dilation_rate}
        settings |= {"groups": groups, "filters": groups}
        super().__init__(target_shape, settings, kernel_initializer, **kwargs)
        self.groups = groups

    def _kernel_tail(self, channels: int) -> tuple[int, int]:
        if channels % self.groups or self.target_shape[-1] % self.groups:
            raise ValueError(
                f"expected groups to divide the {channels} channels of the signal and the {self.target_shape[-1]} of "
                f"the result, received groups={self.groups}; take one that divides both"
            )
        return self.target_shape[-1] // self.groups, channels


@keras.saving.register_keras_serializable("mipin_keras")
class DepthwiseConvAdjoint(_Adjoint):
    """The adjoint of a ``DepthwiseConv1D`` or ``DepthwiseConv2D``, with a kernel and a bias of its own.

    Args:
        target_shape: Shape of the result without the batch axis: 1 or 2
            spatial sizes, and the channels.
        kernel_size, strides, padding, dilation_rate: The convolution's; an int
            or one a spatial axis.
        kernel_initializer: Of the kernel; the bias begins at 0.
        **kwargs: As every Keras layer takes them.

    Input shape:
        ``(n, *spatial, target channels * depth multiplier)``.

    Output shape:
        ``(n, *target_shape)``.

    Weights:
        ``kernel`` ``(*kernel_size, target channels, depth multiplier)``, as
        the convolution's own, and ``bias`` ``(target channels,)``.

    Raises:
        ValueError: If ``target_shape`` is no shape of 1 or 2 spatial sizes,
            the signal is of another size, or its channels are no multiple of
            the result's.
    """

    kinds = windows.DEPTHWISE

    def __init__(
        self,
        target_shape: tuple[int, ...],
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, ...] = 1,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        settings = {"kernel_size": kernel_size, "strides": strides, "padding": padding, "dilation_rate": dilation_rate}
        super().__init__(target_shape, settings, kernel_initializer, **kwargs)

    def _kernel_tail(self, channels: int) -> tuple[int, int]:
        if channels % self.target_shape[-1]:
            raise ValueError(
                f"expected the channels of the signal to be a multiple of the {self.target_shape[-1]} of the result, "
                f"received {channels}; give what a depthwise convolution of target_shape makes"
            )
        return self.target_shape[-1], channels // self.target_shape[-1]


@keras.saving.register_keras_serializable("mipin_keras")
class ConvTransposeAdjoint(_Adjoint):
    """The adjoint of a ``Conv1DTranspose``, ``Conv2DTranspose`` or ``Conv3DTranspose``: a plain convolution.

    Args:
        target_shape: Shape of the result without the batch axis: 1 to 3
            spatial sizes, and the channels.
        kernel_size, strides, padding, dilation_rate, output_padding: The
            transposed convolution's; an int or one a spatial axis.
        kernel_initializer: Of the kernel; the bias begins at 0.
        **kwargs: As every Keras layer takes them.

    Input shape:
        ``(n, *spatial, channels)``, ``spatial`` being what the transposed
        convolution makes of ``target_shape``.

    Output shape:
        ``(n, *target_shape)``.

    Weights:
        ``kernel`` ``(*kernel_size, channels, target channels)``, as the
        transposed convolution's own, and ``bias`` ``(target channels,)``.

    Raises:
        ValueError: If ``target_shape`` is no shape of 1 to 3 spatial sizes, or
            the signal is of another size.
    """

    kinds = windows.TRANSPOSED

    def __init__(
        self,
        target_shape: tuple[int, ...],
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, ...] = 1,
        output_padding: int | tuple[int, ...] | None = None,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        settings: dict[str, Any] = {
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": padding,
            "dilation_rate": dilation_rate,
        }
        settings |= {"output_padding": output_padding, "filters": 1}
        super().__init__(target_shape, settings, kernel_initializer, **kwargs)

    def _kernel_tail(self, channels: int) -> tuple[int, int]:
        return channels, self.target_shape[-1]


def adjoint_layer(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...], **options: Any
) -> keras.layers.Layer:
    """A Keras layer, not yet built, that computes the adjoint of a convolution, and adds a bias.

    Keras' own transposed convolution, where one reproduces the adjoint and
    has a kernel on this device; a layer of the package elsewhere.

    Args:
        layer: A convolution, also a depthwise or transposed one.
        input_shape, output_shape: The convolution's, without the batch axis.
        options: Of the Keras layer, such as its name.

    Returns:
        From ``(n, *output_shape)`` to ``(n, *input_shape)``, in float32. Its
        weights are a kernel, of the shape of the convolution's, and a bias.
    """
    settings: dict[str, Any] = {
        "kernel_size": layer.kernel_size, "strides": layer.strides, "padding": layer.padding,
        "dilation_rate": layer.dilation_rate, "dtype": "float32",
    }  # fmt: skip
    settings |= options
    if isinstance(layer, windows.DEPTHWISE):
        return DepthwiseConvAdjoint(input_shape, **settings)
    if isinstance(layer, windows.TRANSPOSED):
        return ConvTransposeAdjoint(input_shape, output_padding=layer.output_padding, **settings)
    if layer.groups == 1 and layer.padding != "causal":
        if set(layer.dilation_rate) == {1} or dilates(len(layer.kernel_size)):
            kind = next(_PLAIN[base] for base in type(layer).__mro__ if base in _PLAIN)
            for padding in (None, _output_padding(layer, input_shape, output_shape)):
                # Keras refuses some: one as large as the stride, older Keras one of 0.
                with contextlib.suppress(ValueError):
                    found = kind(input_shape[-1], output_padding=padding, data_format="channels_last", **settings)
                    reaches = tuple(found.compute_output_shape((None, *output_shape)))[1:] == tuple(input_shape)
                    # Keras 3.5 forgets it when it saves.
                    if reaches and (padding is None or "output_padding" in found.get_config()):
                        return found
    return ConvAdjoint(input_shape, groups=layer.groups, **settings)


def _output_padding(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The ``output_padding`` with which Keras' transposed convolution comes out at ``input_shape``."""
    axes = zip(input_shape[:-1], output_shape[:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    spans = [(n - (q - 1) * stride, dilation * (size - 1) + 1) for n, q, size, stride, dilation in axes]
    return tuple(rest - (span % 2 if layer.padding == "same" else span) for rest, span in spans)


def dilates(rank: int) -> bool:
    """Whether TensorFlow has transposed convolutions with a dilation on this device: on a CPU oneDNN alone has."""
    with tf.init_scope():
        return _dilates(rank, tf.zeros(()).device)


@functools.cache
def _dilates(rank: int, device: str) -> bool:
    signal, kernel = tf.zeros((1, *(1,) * rank, 1)), tf.zeros((*(2,) * rank, 1, 1))
    with tf.init_scope(), tf.device(device), tf.GradientTape() as tape:
        tape.watch(kernel)
        try:
            made = keras.ops.conv_transpose(signal, kernel, 1, dilation_rate=2, data_format="channels_last")
            tape.gradient(made, kernel)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True
