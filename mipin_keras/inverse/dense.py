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
        self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        features, targets = self.weight_shapes[0]
        return signal.numpy().reshape(1, -1, features), x.numpy().reshape(1, -1, targets)

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[0], bias[0]

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        if signal.shape.rank == 2:
            return tf.matmul(signal, weights[0])
        return tf.tensordot(signal, weights[0], axes=[[-1], [0]])

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal, record, weights) + weights[1]


@register_inverse(keras.layers.BatchNormalization)
class ChannelInverse(LearnedInverse):
    """``x_i = w_i s_i + b_i``, one ridge regression a channel, for affine per-channel layers."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        axis = getattr(self.layer, "axis", -1)
        rank = len(self.input_shape) + 1
        if axis not in (-1, rank - 1):
            raise ValueError(f"expected layer {step} to work on the last axis, received axis={axis}; move the channels")
        self.positions = int(np.prod(self.input_shape[:-1], dtype=int))
        self.weight_shapes = ((self.input_shape[-1],),) * 2

    def regression(self) -> Ridge:
        return Ridge(1, 1, groups=self.input_shape[-1])

    def design(
        self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        channels = self.input_shape[-1]
        features, targets = (np.ascontiguousarray(a.numpy().reshape(-1, channels).T)[..., None] for a in (signal, x))
        return features, targets

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[:, 0, 0], bias[:, 0]

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal * weights[0]

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal * weights[0] + weights[1]
