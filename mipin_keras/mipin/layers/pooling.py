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
from .unpooling import MaxSwitches, MaxUnpooling


@register_inverse(*windows.MAX_POOLINGS)
class MaxPoolInverse(Inverse):
    """Unpooling: each window's signal goes to the element that was its maximum (Eq. 8).

    Of equal maxima the first is taken. Where windows overlap and several
    chose the same element, it gets the mean of their signals: each of them
    reconstructs that one element.

    Attributes:
        switches: The Keras layer that records them.
        unpooling: The Keras layer that puts the signal back to them.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        pool, strides = (tuple(keras.tree.flatten(sizes)) for sizes in (self.layer.pool_size, self.layer.strides))
        self.switches = MaxSwitches(pool, strides, self.layer.padding)
        self.unpooling = MaxUnpooling(self.input_shape[:-1], pool, strides, self.layer.padding)

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        # Without __call__, which would ask for the masks of sequences that Keras tensors carry.
        return (self.switches.call(x),)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.unpooling(signal, record[0])

    def keras_layer(self, name: str) -> keras.layers.Layer:
        """A :class:`MaxUnpooling` of its own, called as ``layer(signal, switches)``."""
        return MaxUnpooling.from_config(self.unpooling.get_config() | {"name": name})


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
    """Every element gets the signal of its mean, the pseudo-inverse; padded ones, which are no part of it, none."""

    takes_mask = True

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        shape = tf.concat([tf.shape(signal)[:1], self.input_shape], 0)
        found = tf.broadcast_to(self.spread(signal), shape)
        return tf.where(record[0][..., None], found, tf.zeros((), found.dtype)) if record else found


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
