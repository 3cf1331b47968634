"""Inverses of Dense layers and of affine per-channel layers, by ridge regression in closed form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...graph.model_graph import Step
from ..inverse import LearnedInverse, Record, Weights, register_inverse
from ..ridge import ChannelRidge, Regression, Ridge


def multiplied(signal: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """``signal @ kernel`` over the last axis, ``(n, ..., channels)`` of known sizes but n; traced at once."""
    if signal.shape.rank == 2:
        return tf.matmul(signal, kernel)
    found = tf.matmul(tf.reshape(signal, [-1, signal.shape[-1]]), kernel)
    return tf.reshape(found, [-1, *signal.shape[1:-1], kernel.shape[-1]])


def rows_at(tensor: tf.Tensor, positions: np.ndarray | None, channels: int) -> tf.Tensor:
    """``(n, ..., channels)`` as rows ``(n r, channels)``: all positions, or some of each sample."""
    if positions is not None:
        flat = tf.reshape(tensor, (tensor.shape[0], -1, channels))
        tensor = tf.gather(flat, positions, axis=1, batch_dims=1)
    return tf.reshape(tensor, (-1, channels))


@register_inverse(keras.layers.Dense)
class DenseInverse(LearnedInverse):
    """``X = W S + b`` over the last axis (Eq. 6)."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.positions = int(np.prod(self.input_shape[:-1], dtype=int))
        self.read_from(self.output_shape[-1])

    def read_from(self, units: int) -> None:
        """Take a signal of ``units`` columns: 1 where it is just the explained logit."""
        self.weight_shapes = ((units, self.input_shape[-1]), (self.input_shape[-1],))

    def regression(self) -> Regression:
        features, targets = self.weight_shapes[0]
        return Ridge(features, targets)

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        features, targets = self.weight_shapes[0]
        return tf.reshape(signal, (1, -1, features)), tf.reshape(x, (1, -1, targets))

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[0], bias[0]

    def keras_layer(self, name: str) -> keras.layers.Layer:
        """A ``Dense`` for this inverse, not yet built: its weights are those of :attr:`weight_shapes`, in their order.

        Args:
            name: The layer's.
        """
        return keras.layers.Dense(self.weight_shapes[0][1], dtype="float32", name=name)

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return multiplied(signal, weights[0])

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal, record, weights) + weights[1]


class PerChannel(LearnedInverse):
    """``x_i = w_i s_i + b_i``, one ridge regression a channel.

    A subclass calls :meth:`over`, and may have the regression read something
    else than the signal itself (:meth:`features`).
    """

    sampled = True

    def over(self, shape: tuple[int, ...], axes: int = 1) -> None:
        """Take the last ``axes`` axes of tensors ``(n, *shape)`` for the channels."""
        self.positions = int(np.prod(shape[:-axes], dtype=int))
        self.weight_shapes = (shape[-axes:],) * 2
        self._channels = int(np.prod(shape[-axes:]))

    def regression(self) -> Regression:
        return ChannelRidge(1, self._channels)

    def features(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        """What the regression reads: the signal itself."""
        return signal

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        features, targets = (rows_at(each, positions, self._channels) for each in (self.features(signal, record), x))
        return [features], targets

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel.reshape(self.weight_shapes[0]), bias.reshape(self.weight_shapes[1])


@register_inverse(keras.layers.BatchNormalization)
class ChannelInverse(PerChannel):
    """``x_i = w_i s_i + b_i``, one ridge regression a channel.

    Where the layer works on several axes, the last ones, one for each of their elements.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        axis, rank = self.layer.axis, len(self.input_shape) + 1
        axes = sorted(a % rank for a in keras.tree.flatten(axis))
        if axes != list(range(axes[0], rank)):
            raise ValueError(f"expected layer {step} to work on the last axis, received axis={axis}; move the channels")
        self.over(self.input_shape, len(axes))

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal * weights[0]

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.features(signal, record) * weights[0] + weights[1]
