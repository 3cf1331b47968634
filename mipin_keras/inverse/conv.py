"""Inverses of convolutions: a transposed convolution of the layer's own geometry, with a kernel of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .. import kernels
from ..graph import Step
from .ridge import Ridge
from .rules import LearnedInverse, Record, Weights, register_inverse


@register_inverse(*kernels.CONVOLUTIONS)
class ConvInverse(LearnedInverse):
    """``X = g * S + b`` with a transposed filter g, in closed form (Eq. 7).

    A transposed convolution is linear in its kernel: each element of X is a
    row of a regression, from the signal in the windows that the element lies
    in. Strides, padding, dilation and groups are those of the layer.
    """

    sampled = True

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.groups = self.layer.groups
        self.windows = kernels.windows_of(self.layer, self.input_shape, self.output_shape)
        self.positions = int(np.prod(self.windows.inputs))
        channels, filters = self.input_shape[-1], self.output_shape[-1]
        self.weight_shapes = ((*self.windows.sizes, channels // self.groups, filters), (channels,))
        self._table: np.ndarray | None = None

    def regression(self) -> Ridge:
        features = int(np.prod(self.windows.sizes)) * self.output_shape[-1] // self.groups
        return Ridge(features, self.input_shape[-1] // self.groups, self.groups)

    def design(
        self, signal: tf.Tensor, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._table is None:
            self._table = self.windows.windows()
        channels, filters, groups = self.input_shape[-1], self.output_shape[-1], self.groups
        n = int(signal.shape[0])
        # One more output position that is always 0 stands for "no window".
        flat = tf.pad(tf.reshape(signal, (n, -1, filters)), [[0, 0], [0, 1], [0, 0]])
        pixels = tf.reshape(x, (n, -1, channels))
        if positions is None:
            features = tf.gather(flat, self._table, axis=1)
        else:
            features = tf.gather(flat, self._table[positions], axis=1, batch_dims=1)
            pixels = tf.gather(pixels, positions, axis=1, batch_dims=1)
        size = self._table.shape[1]
        split = features.numpy().reshape(-1, size, groups, filters // groups).transpose(2, 0, 1, 3)
        targets = pixels.numpy().reshape(-1, groups, channels // groups).transpose(1, 0, 2)
        return split.reshape(groups, -1, size * filters // groups), targets

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        groups, filters = self.groups, self.output_shape[-1]
        split = kernel.reshape(groups, -1, filters // groups, self.input_shape[-1] // groups)
        return split.transpose(1, 3, 0, 2).reshape(self.weight_shapes[0]), bias.reshape(-1)

    def disassemble(self, weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        groups, filters, channels = self.groups, self.output_shape[-1], self.input_shape[-1]
        split = weights[0].reshape(-1, channels // groups, groups, filters // groups).transpose(2, 0, 3, 1)
        return split.reshape(groups, -1, channels // groups), weights[1].reshape(groups, -1)

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return kernels.adjoint(self.layer, signal, weights[0], self.input_shape)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal, record, weights) + weights[1]
