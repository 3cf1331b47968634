"""Exact inverses of fixed affine maps, element by element: rescaling, and arithmetic with constants."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import Step
from .rules import Inverse, Record, Weights, inverts_operations, register_inverse


class AffineInverse(Inverse):
    """``x = (s - offset) / factor`` for a step ``y = factor x + offset``.

    A regression of x on a signal that is calibrated at y would find just
    that; nothing is to be learned.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        shape = (1, *self.input_shape)
        try:
            parts = [np.asarray(part, np.float64) for part in self.affine()]
            self._factor, self._offset = parts
            kept = np.broadcast_shapes(shape, *(part.shape for part in parts)) == shape
        except ValueError:
            kept = False
        if not kept:
            raise ValueError(
                f"expected layer {step} to keep the shape {self.input_shape} of each sample, received constants that "
                "broaden it or reach over the batch axis; give them the shape of one sample"
            )
        if not (np.isfinite(self._offset).all() and np.isfinite(self._factor).all() and self._factor.all()):
            raise ValueError(
                f"layer {step} divides by its input or multiplies it by 0, NaN or infinity, which has no inverse; "
                "change its constants, or put what it does into a layer of your own and register an inverse for that "
                "with @mipin_keras.register_inverse"
            )

    def affine(self) -> tuple[Any, Any]:
        """The factor and the offset, broadcasting to ``(1, *input_shape)``."""
        raise NotImplementedError

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal / tf.constant(self._factor, signal.dtype)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal - tf.constant(self._offset, signal.dtype), record, weights)


@register_inverse(keras.layers.Rescaling)
class RescalingInverse(AffineInverse):
    """``x = (s - offset) / scale``."""

    def affine(self) -> tuple[Any, Any]:
        return self.layer.scale, self.layer.offset


@register_inverse(keras.layers.Normalization)
class FixedNormalizationInverse(AffineInverse):
    """``x = s sqrt(variance) + mean``, with those of the training data; with ``invert=True`` the other way round."""

    def affine(self) -> tuple[Any, Any]:
        mean = np.asarray(self.layer.mean, np.float64)
        # The layer's own guard against a variance of 0
        spread = np.maximum(np.sqrt(np.asarray(self.layer.variance, np.float64)), keras.config.epsilon())
        return (spread, mean) if self.layer.invert else (1 / spread, -mean / spread)


@inverts_operations("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")
class ArithmeticInverse(AffineInverse):
    """The arithmetic with a constant undone.

    What the operation makes of 0 and of 1, in float64, shows both numbers,
    whichever side the constant stands on.
    """

    def affine(self) -> tuple[Any, Any]:
        number = self.step.inputs[0]
        shape = (1, *self.input_shape)
        low, high = (self.step({number: tf.fill(shape, tf.constant(v, tf.float64))}) for v in (0.0, 1.0))
        return high - low, low
