"""Inverses of pooling: back to the recorded switches, or over the window."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...graph import windows
from ...graph.model_graph import Step
from ..inverse import Inverse, Record, Weights, inverts_operations, register_inverse
from .structural import touches_batch


@register_inverse(*windows.MAX_POOLINGS)
class MaxPoolInverse(Inverse):
    """Unpooling: each window's signal goes to the element that was its maximum (Eq. 8).

    Of equal maxima the first is taken. Where windows overlap and several
    chose the same element, it gets the mean of their signals: each of them
    reconstructs that one element.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.windows = windows.windows_of(self.layer, self.input_shape, self.output_shape)
        # Windows that tile the input need no positions: Eq. 8 as it stands,
        # a product with a mask, which is several times faster.
        self.tiled = self.windows.sizes == self.windows.strides and len(self.windows.sizes) < 3

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        if not self.tiled:
            return (self._switches(x),)
        pool, padding = list(self.windows.sizes), self.layer.padding.upper()
        if len(pool) == 1:  # TensorFlow has switches for two spatial axes
            x, y, pool = x[:, :, None], y[:, :, None], [*pool, 1]
        size = [1, *pool, 1]
        switches = tf.raw_ops.MaxPoolGrad(
            orig_input=x, orig_output=y, grad=tf.ones_like(y), ksize=size, strides=size, padding=padding
        )
        return (tf.reshape(switches, tf.concat([tf.shape(x)[:1], self.input_shape], 0)) != 0,)

    def _switches(self, x: tf.Tensor) -> tf.Tensor:
        """Flat spatial index of each window's maximum, int32 ``(n, windows, channels)``."""
        elements = self.windows.elements()
        n, channels = tf.shape(x)[0], self.input_shape[-1]
        flat = tf.reshape(x, (n, -1, channels))
        flat = tf.pad(flat, [[0, 0], [0, 1], [0, 0]], constant_values=x.dtype.min)
        within = tf.argmax(tf.gather(flat, elements, axis=1), axis=2, output_type=tf.int32)
        rows = tf.range(len(elements), dtype=tf.int32)[None, :, None] * elements.shape[1]
        return tf.gather(elements.reshape(-1), rows + within)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self._tile(signal, record[0]) if self.tiled else self._scatter(signal, record[0])

    def _tile(self, signal: tf.Tensor, switches: tf.Tensor) -> tf.Tensor:
        n, shape = tf.shape(signal)[0], list(self.output_shape[:-1])
        channels = self.input_shape[-1]
        lows, pads, crops = [], [], []
        for size, count, pool, low in zip(
            self.input_shape[:-1], shape, self.windows.sizes, self.windows.lows, strict=True
        ):
            lows.append(low)
            crops.append(min(size, count * pool - low))
            pads.append([low, count * pool - low - crops[-1]])
        inside = tf.slice(switches, [0] * (len(shape) + 2), [-1, *crops, channels])
        inside = tf.pad(inside, [[0, 0], *pads, [0, 0]])
        split, spread = [n], signal
        for axis, (count, pool) in enumerate(zip(shape, self.windows.sizes, strict=True)):
            split += [count, pool]
            spread = tf.expand_dims(spread, 2 * axis + 2)
        tiles = tf.where(tf.reshape(inside, [*split, channels]), spread, tf.zeros((), signal.dtype))
        whole = tf.reshape(tiles, [n, *(c * p for c, p in zip(shape, self.windows.sizes, strict=True)), channels])
        whole = tf.slice(whole, [0, *lows, 0], [-1, *crops, channels])
        rest = [[0, size - crop] for size, crop in zip(self.input_shape[:-1], crops, strict=True)]
        whole = tf.pad(whole, [[0, 0], *rest, [0, 0]])
        whole.set_shape((None, *self.input_shape))
        return whole

    def _scatter(self, signal: tf.Tensor, switches: tf.Tensor) -> tf.Tensor:
        n, channels = tf.shape(signal)[0], self.input_shape[-1]
        size = int(np.prod(self.input_shape))
        flat = switches * channels + tf.range(channels, dtype=tf.int32)
        # int64: n * size passes 2**31 for large feature maps
        flat = tf.cast(flat, tf.int64) + tf.cast(tf.range(n)[:, None, None], tf.int64) * size
        flat, values = tf.reshape(flat, (-1,)), tf.reshape(signal, (-1,))
        count = tf.cast(n, tf.int64) * size
        total = tf.math.unsorted_segment_sum(values, flat, count)
        if self.windows.overlap:
            chosen = tf.math.unsorted_segment_sum(tf.ones_like(values), flat, count)
            total = tf.math.divide_no_nan(total, chosen)
        return tf.reshape(total, tf.concat([[n], self.input_shape], 0))


@register_inverse(*windows.AVERAGE_POOLINGS)
class AveragePoolInverse(Inverse):
    """Each element gets the signal of its window, the pseudo-inverse of the mean.

    Where windows overlap, the mean over the windows it lies in; an element in
    no window gets 0.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        geometry = windows.windows_of(self.layer, self.input_shape, self.output_shape)
        self._table = geometry.windows()
        held = (self._table < np.prod(geometry.outputs)).sum(axis=1)
        self._shares = (1.0 / np.maximum(held, 1))[None, :, None]

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        n, channels = tf.shape(signal)[0], self.input_shape[-1]
        flat = tf.pad(tf.reshape(signal, (n, -1, channels)), [[0, 0], [0, 1], [0, 0]])
        total = tf.add_n([tf.gather(flat, column, axis=1) for column in self._table.T])
        mean = total * tf.constant(self._shares, signal.dtype)
        return tf.reshape(mean, tf.concat([[n], self.input_shape], 0))


class ReductionInverse(Inverse):
    """What the global poolings and the reductions of ``keras.ops`` share: the axes that are gone."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        rank = len(self.input_shape) + 1
        axes = getattr(self.layer, "axis", tuple(range(1, rank - 1)))  # a global pooling: all but batch and channels
        if axes is None or 0 in (gone := sorted(a % rank for a in keras.tree.flatten(axes))):
            raise ValueError(touches_batch(step))
        self.gone = gone
        self._spread = [1 if axis + 1 in gone else size for axis, size in enumerate(self.input_shape)]
        self.count = int(np.prod([self.input_shape[axis - 1] for axis in gone]))

    def spread(self, signal: tf.Tensor) -> tf.Tensor:
        """The signal with the axes put back, as size 1."""
        return tf.reshape(signal, [-1, *self._spread])


@register_inverse(
    keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D
)
@inverts_operations("Mean")
class MeanInverse(ReductionInverse):
    """Every element gets the signal of its mean, the pseudo-inverse."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        shape = tf.concat([tf.shape(signal)[:1], self.input_shape], 0)
        return tf.broadcast_to(self.spread(signal), shape)


@inverts_operations("Sum")
class SumInverse(MeanInverse):
    """Every element gets an equal part of the signal of its sum, the pseudo-inverse."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return super().source(signal / self.count, record, weights)


@register_inverse(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D)
@inverts_operations("Max", "Amax")
class MaxInverse(ReductionInverse):
    """The signal goes to the maximum, the first of equal ones."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        if getattr(self.layer, "initial", None) is not None:
            raise ValueError(
                f"expected layer {step} to take the maximum of its input alone, received initial={self.layer.initial}; "
                "take keras.ops.max without it"
            )
        rank = len(self.input_shape) + 1
        self._order = [axis for axis in range(rank) if axis not in self.gone] + self.gone

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        kept = [self.input_shape[axis - 1] for axis in self._order[1 : -len(self.gone)]]
        flat = tf.reshape(tf.transpose(x, self._order), [-1, *kept, self.count])
        return (tf.argmax(flat, axis=-1, output_type=tf.int32),)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        chosen = tf.one_hot(record[0], self.count, on_value=True, off_value=False, dtype=tf.bool)
        switches = tf.reshape(chosen, [-1, *(self.input_shape[axis - 1] for axis in self._order[1:])])
        switches = tf.transpose(switches, np.argsort(self._order).tolist())
        return tf.where(switches, self.spread(signal), tf.zeros((), signal.dtype))
