"""Max unpooling as Keras layers: one records the switches of a max pooling, one puts signals back to them."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...checks import integer, one_of
from ...graph.windows import MAX_POOLINGS, Windows, windows_of

_PACKAGE = "mipin_keras"


def _sizes(name: str, value: Any) -> int | tuple[int, ...]:
    """An int for every spatial axis, or a tuple of one for each."""
    if not isinstance(value, tuple | list):
        return integer(name, value, 1)
    if not 1 <= len(value) <= 3:
        raise ValueError(f"expected {name} of 1 to 3 spatial axes, received {value!r}; give one size for each of them")
    return tuple(integer(name, size, 1) for size in value)


class _OverMaxWindows(keras.layers.Layer):
    """What both layers share: the windows of a max pooling."""

    def __init__(self, pool_size: Any, strides: Any, padding: str, **kwargs: Any):
        # Without autocast: a signal keeps its dtype, whatever the layer's is.
        super().__init__(**{"autocast": False, **kwargs})
        self.pool_size = _sizes("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else _sizes("strides", strides)
        self.padding = one_of("padding", padding, ("valid", "same"))

    def get_config(self) -> dict[str, Any]:
        """The layer's settings, for ``from_config``."""
        own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return super().get_config() | own

    def _pooling(self, rank: int) -> Any:
        """The pooling layer over ``rank`` spatial axes."""
        for name, given in (("pool_size", self.pool_size), ("strides", self.strides)):
            if rank not in (1, 2, 3) or (not isinstance(given, int) and len(given) != rank):
                raise ValueError(
                    f"expected a tensor (batch, ..., channels) with an axis for each size in {name}={given} of layer "
                    f"{self.name!r}, received one with {rank} spatial axes; give a tensor of {name}'s axes, at most 3"
                )
        # A name of its own: an automatic one would be counted among those of the user's layers.
        return MAX_POOLINGS[rank - 1](self.pool_size, self.strides, self.padding, name=f"{self.name}_windows")

    def _pooled(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape behind the pooling of a shape in front of it, both with batch and channels."""
        pooling, spatial = self._pooling(len(shape) - 2), shape[1:-1]
        fits = all(n is None or n >= size for n, size in zip(spatial, pooling.pool_size, strict=True))
        if not fits and self.padding == "valid":
            raise ValueError(
                f"expected windows that fit into the spatial axes {spatial}, received pool_size={self.pool_size} of "
                f"layer {self.name!r}; give a smaller one, or padding='same'"
            )
        return tuple(pooling.compute_output_shape(shape))

    def _windows(self, spatial: tuple[int, ...]) -> Windows:
        outputs: Any = self._pooled((None, *spatial, 1))[1:]
        return windows_of(self._pooling(len(spatial)), (*spatial, 1), outputs)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaxSwitches(_OverMaxWindows):
    """Records where the maximum of each window of a max pooling is: the switches of :class:`MaxUnpooling`.

    Of equal maxima the first in row-major order is taken.

    Args:
        pool_size, strides, padding: As of ``keras.layers.MaxPooling1D``, 2D or
            3D: ints, or a tuple with one for each spatial axis; ``strides``
            None are ``pool_size``; ``"valid"`` or ``"same"``.
        **kwargs: Of ``keras.layers.Layer``.

    Input shape:
        The tensor that is pooled, channels last: ``(batch, *spatial,
        channels)`` with 1, 2 or 3 spatial axes of known sizes, of any float
        dtype, without NaN.

    Output shape:
        That of the pooled tensor, int32: the flat index of each window's
        maximum within its sample, ``(row * columns + column) * channels +
        channel``, as ``tf.nn.max_pool_with_argmax`` counts with
        ``include_batch_in_index=False``.

    Raises:
        ValueError: For a setting that is none, and for windows that do not fit.

    Source: Deng et al. (2021), section 4.1, the switches of Eq. 8.
    """

    def __init__(self, pool_size: Any = 2, strides: Any = None, padding: str = "valid", **kwargs: Any):
        super().__init__(pool_size, strides, padding, **kwargs)

    def call(self, inputs: Any) -> tf.Tensor:
        x = tf.convert_to_tensor(inputs)
        if x.dtype in (tf.float16, tf.bfloat16):
            x = tf.cast(x, tf.float32)  # exact, and every device has the operation for it
        shape = x.shape
        if shape.rank == 5:
            return _switches_of_table(x, self._windows(tuple(shape[1:-1])))
        pooling = self._pooling(shape.rank - 2)
        pool, strides = list(pooling.pool_size), [int(size) for size in keras.tree.flatten(pooling.strides)]
        if len(pool) == 1:  # TensorFlow has switches for two spatial axes
            x, pool, strides = x[:, :, None], [*pool, 1], [*strides, 1]
        _, found = tf.nn.max_pool_with_argmax(x, pool, strides, self.padding.upper())
        found = tf.cast(found, tf.int32)
        return found[:, :, 0] if shape.rank == 3 else found

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the switches: that of the pooled tensor."""
        return self._pooled(tuple(input_shape))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """The switches' shape and dtype, int32."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="int32")


def _switches_of_table(x: tf.Tensor, windows: Windows) -> tf.Tensor:
    """The switches over any number of axes, by the table of what each window holds."""
    elements = windows.elements()
    n, channels = tf.shape(x)[0], x.shape[-1]
    flat = tf.pad(tf.reshape(x, [n, -1, channels]), [[0, 0], [0, 1], [0, 0]], constant_values=x.dtype.min)
    within = tf.argmax(tf.gather(flat, elements, axis=1), axis=2, output_type=tf.int32)
    rows = tf.range(len(elements), dtype=tf.int32)[None, :, None] * elements.shape[1]
    found = tf.gather(elements.reshape(-1), rows + within) * channels + tf.range(channels, dtype=tf.int32)
    return tf.reshape(found, [n, *windows.outputs, channels])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaxUnpooling(_OverMaxWindows):
    """Puts each window's signal back to the element that was its maximum, and zeros elsewhere (Eq. 8).

    Where windows overlap and several chose the same element, it gets the mean
    of their signals: each of them reconstructs that one element.

    Example::

        switches = mipin_keras.MaxSwitches(3, 2)(x)              # x: (n, 24, 24, 64)
        y = keras.layers.MaxPooling2D(3, 2)(x)
        back = mipin_keras.MaxUnpooling((24, 24), 3, 2)(y, switches)  # the maxima where they were

    Args:
        spatial_shape: The spatial sizes in front of the pooling, such as
            ``(24, 24)``: those of the result.
        pool_size, strides, padding: Of the pooling, as of
            ``keras.layers.MaxPooling1D``, 2D or 3D: ints, or a tuple with one
            for each spatial axis; ``strides`` None are ``pool_size``;
            ``"valid"`` or ``"same"``.
        **kwargs: Of ``keras.layers.Layer``.

    Call arguments:
        signal: What goes back, in the shape of the pooled tensor.
        switches: Where to, in the same shape: int32 or int64, as
            :class:`MaxSwitches` or ``tf.nn.max_pool_with_argmax`` with
            ``include_batch_in_index=False`` give them.

    Input shape:
        ``(batch, *pooled, channels)`` with 1, 2 or 3 spatial axes, of any
        float dtype.

    Output shape:
        ``(batch, *spatial_shape, channels)``, of the signal's dtype.

    Raises:
        ValueError: For a setting that is none, for windows that do not fit
            into ``spatial_shape``, and for a signal or switches of another
            shape than the pooled one.

    Source: Deng et al. (2021), section 4.1, Eq. 8.
    """

    def __init__(
        self, spatial_shape: Any, pool_size: Any = 2, strides: Any = None, padding: str = "valid", **kwargs: Any
    ):
        super().__init__(pool_size, strides, padding, **kwargs)
        sizes = _sizes("spatial_shape", spatial_shape)
        self.spatial_shape = (sizes,) if isinstance(sizes, int) else sizes
        self._geometry = self._windows(self.spatial_shape)

    def get_config(self) -> dict[str, Any]:
        """The layer's settings, for ``from_config``."""
        return super().get_config() | {"spatial_shape": self.spatial_shape}

    def call(self, signal: Any, switches: Any) -> tf.Tensor:
        signal, switches = tf.convert_to_tensor(signal), tf.convert_to_tensor(switches)
        self.compute_output_shape(signal.shape, switches.shape)
        windows = self._geometry
        found: tf.Tensor
        if windows.sizes == windows.strides and len(windows.sizes) < 3:
            found = _tiled(signal, tf.cast(switches, tf.int32), windows)
        else:
            found = _scattered(signal, switches, windows)
        found.set_shape((signal.shape[0], *self.spatial_shape, signal.shape[-1]))
        return found

    def compute_output_shape(self, signal_shape: Any, switches_shape: Any = None) -> tuple[int | None, ...]:
        """The shape in front of the pooling."""
        for name, shape in (("signal", signal_shape), ("switches", switches_shape)):
            if shape is not None and tuple(shape)[1:-1] != self._geometry.outputs:
                raise ValueError(
                    f"expected {name} of shape (batch, *{self._geometry.outputs}, channels) for layer {self.name!r}, "
                    f"received {tuple(shape)}; give what a max pooling of {self.spatial_shape} has"
                )
        return (signal_shape[0], *self.spatial_shape, signal_shape[-1])

    def compute_output_spec(self, signal: Any, switches: Any) -> keras.KerasTensor:
        """The result's shape, and the signal's dtype."""
        shape = self.compute_output_shape(signal.shape, switches.shape)
        return keras.KerasTensor(shape, dtype=keras.backend.standardize_dtype(signal.dtype))


def _tiled(signal: tf.Tensor, switches: tf.Tensor, windows: Windows) -> tf.Tensor:
    """Unpooling of windows that tile one or two axes: every element asks whether its window chose it.

    Several times faster than a scatter: on one core 7 ms against 40 ms for a
    float32 signal (128, 12, 12, 64) and windows of 2 x 2.
    """
    channels = signal.shape[-1]
    if len(windows.sizes) == 1:  # as columns of one row
        row = Windows(*((fill, *sizes) for fill, sizes in zip((1, 1, 1, 1, 1, 0), _fields(windows), strict=True)))
        made = _tiled(signal[:, None], switches[:, None], row)
        return made[:, 0]
    (height, width), (rows, columns), (down, right) = windows.inputs, windows.outputs, windows.sizes
    low, left = windows.lows
    # From the flat index of the element to its place in the window, both times channels; the first element of a window
    # may lie in the padding.
    first = (np.arange(rows)[:, None] * down - low) * width + np.arange(columns)[None, :] * right - left
    first = first[:, :, None] * channels + np.arange(channels)
    within = tf.reshape(switches, [-1, first.size]) - tf.constant(first.reshape(-1), tf.int32)
    places = (np.arange(down)[:, None] * width + np.arange(right)[None, :]) * channels
    # At most 5 axes: TensorFlow does not broadcast both sides over more.
    chosen = tf.reshape(within, [-1, 1, columns, 1, channels]) == tf.constant(places[:, None, :, None], tf.int32)
    spread = tf.reshape(signal, [-1, 1, columns, 1, channels])
    tiles = tf.where(chosen, spread, tf.zeros((), signal.dtype))
    whole = tf.reshape(tiles, [-1, rows * down, columns * right, channels])
    sizes = min(height, rows * down - low), min(width, columns * right - left)
    if (low, left) != (0, 0) or sizes != (rows * down, columns * right):  # padding, cut off
        whole = whole[:, low : low + sizes[0], left : left + sizes[1]]
    if sizes != (height, width):  # a rest that no window holds
        whole = tf.pad(whole, [[0, 0], [0, height - sizes[0]], [0, width - sizes[1]], [0, 0]])
    return whole


def _fields(windows: Windows) -> tuple[tuple[int, ...], ...]:
    return windows.inputs, windows.outputs, windows.sizes, windows.strides, windows.dilations, windows.lows


def _scattered(signal: tf.Tensor, switches: tf.Tensor, windows: Windows) -> tf.Tensor:
    """Unpooling of any windows: the sum of the signals at each element, over how many there are."""
    size = int(np.prod(windows.inputs)) * signal.shape[-1]
    n = tf.shape(signal)[0]
    count = tf.cast(n, tf.int64) * size
    values = tf.reshape(signal, [-1])
    added = functools.partial(_added, values, switches, n, size, windows.overlap)
    # int32 takes half the time where it suffices; the elements of a batch of large feature maps pass 2**31.
    total = tf.cond(count < tf.int32.max, lambda: added(tf.int32), lambda: added(tf.int64))
    return tf.reshape(total, [n, *windows.inputs, signal.shape[-1]])


def _added(values: tf.Tensor, switches: tf.Tensor, n: tf.Tensor, size: int, overlap: bool, dtype: Any) -> tf.Tensor:
    """The means of what arrives at each of ``n * size`` elements, with indices of an integer dtype."""
    first = tf.range(tf.cast(n, dtype)) * tf.constant(size, dtype)
    places = tf.reshape(tf.reshape(tf.cast(switches, dtype), [n, -1]) + first[:, None], [-1])
    count = tf.cast(n, dtype) * tf.constant(size, dtype)
    total = tf.math.unsorted_segment_sum(values, places, count)
    if not overlap:
        return total
    return tf.math.divide_no_nan(total, tf.math.unsorted_segment_sum(tf.ones_like(values), places, count))
