"""Exact inverses of affine steps: rescaling, normalisation, and arithmetic with constants."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...graph import linear
from ...graph.model_graph import Step
from ..inverse import Inverse, Record, Weights, inverts_operations, register_inverse


@register_inverse(keras.layers.Rescaling, keras.layers.Normalization)
@inverts_operations("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")
class AffineInverse(Inverse):
    """``x = (s - offset) / factor`` for a step ``y = factor x + offset``.

    A regression of x on a signal that is calibrated at y would find just
    that; nothing is to be learned.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        shape = (1, *self.input_shape)
        part = linear.affine(step, "float64")
        self._factor, self._offset = np.asarray(part.kernel), np.asarray(part.bias)
        if not all(_broadcasts(each.shape, shape) for each in (self._factor, self._offset)):
            raise ValueError(
                f"expected layer {step} to keep the shape {self.input_shape} of each sample, received constants that "
                "broaden it or reach over the batch axis; give them the shape of one sample"
            )
        if not (np.isfinite(self._offset).all() and np.isfinite(self._factor).all() and self._factor.all()):
            raise ValueError(
                f"expected an affine layer with an inverse, received layer {step}, which divides by its input or "
                "multiplies it by 0, NaN or infinity; change its constants, or put what it does into a layer of your "
                "own and register an inverse for that with @mipin_keras.register_inverse"
            )

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal / tf.constant(self._factor, signal.dtype)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal - tf.constant(self._offset, signal.dtype), record, weights)


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False
