"""Inverses of Dense layers and of affine per-channel layers, by ridge regression in closed form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import Step
from .ridge import Ridge
from .rules import LearnedInverse, Record, Weights, register_inverse


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

    def regression(self) -> Ridge:
        return Ridge(*self.weight_shapes[0])

    def design(
        self, signal: tf.Tensor, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        features, targets = self.weight_shapes[0]
        return signal.numpy().reshape(1, -1, features), x.numpy().reshape(1, -1, targets)

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[0], bias[0]

    def disassemble(self, weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        return weights[0][None], weights[1][None]

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        if signal.shape.rank == 2:
            return tf.matmul(signal, weights[0])
        return tf.tensordot(signal, weights[0], axes=[[-1], [0]])

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal, record, weights) + weights[1]


@register_inverse(keras.layers.BatchNormalization)
class ChannelInverse(LearnedInverse):
    """``x_i = w_i s_i + b_i``, one ridge regression a channel, for affine per-channel layers.

    Where the layer works on several axes, the last ones, one for each of their elements.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        axis, rank = self.layer.axis, len(self.input_shape) + 1
        axes = sorted(a % rank for a in ([axis] if isinstance(axis, int) else axis))
        if axes != list(range(axes[0], rank)):
            raise ValueError(f"expected layer {step} to work on the last axis, received axis={axis}; move the channels")
        self.positions = int(np.prod(self.input_shape[: axes[0] - 1], dtype=int))
        self.weight_shapes = (self.input_shape[axes[0] - 1 :],) * 2
        self._channels = int(np.prod(self.weight_shapes[0]))

    def regression(self) -> Ridge:
        return Ridge(1, 1, groups=self._channels)

    def features(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        """What the regression reads: the signal itself."""
        return signal

    def design(
        self, signal: tf.Tensor, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        both = (self.features(signal, record), x)
        features, targets = (np.ascontiguousarray(a.numpy().reshape(-1, self._channels).T)[..., None] for a in both)
        return features, targets

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel.reshape(self.weight_shapes[0]), bias.reshape(self.weight_shapes[1])

    def disassemble(self, weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        return weights[0].reshape(-1, 1, 1), weights[1].reshape(-1, 1)

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal * weights[0]

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.features(signal, record) * weights[0] + weights[1]
