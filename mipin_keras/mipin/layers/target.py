"""The inverse of a target: from one number back to the outputs that it is made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from ...graph.explained import TargetValue
from ...graph.model_graph import Step
from ..inverse import _INVERSES, LearnedInverse, Record, Weights
from ..ridge import Regression, Ridge


class TargetInverse(LearnedInverse):
    """``y_i = w_i t + b_i``: a ridge regression from a target's value to each output that it depends on (Eq. 6).

    Which outputs these are, its gradient tells for each sample, as the mask
    of a ReLU tells for an activation (Eq. 9): the others get 0, and so are
    they in what is reconstructed.
    """

    merges = True

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.shapes = [step.input_shapes[step.inputs.index(tensor_id)] for tensor_id in step.signal_inputs]
        self._sizes = [math.prod(shape) for shape in self.shapes]
        total = sum(self._sizes)
        self.weight_shapes = ((1, total), (total,))

    def regression(self) -> Regression:
        return Ridge(1, self.weight_shapes[0][1])

    def _depends(self, x: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        by_id = dict(zip(self.step.signal_inputs, map(tf.identity, x), strict=True))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(by_id)
            value = self.step(by_id)
        gradients = tape.gradient(value, list(by_id.values()), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tuple(gradient != 0 for gradient in gradients)

    def record(self, x: Any, y: tf.Tensor) -> Record:
        return self._depends(x)

    def _flat(self, parts: Any) -> tf.Tensor:
        return tf.concat([tf.reshape(p, (-1, size)) for p, size in zip(parts, self._sizes, strict=True)], axis=1)

    def target(self, x: Any) -> tf.Tensor:
        pairs = zip(x, self._depends(x), strict=True)
        return self._flat([tf.where(mask, part, tf.zeros((), part.dtype)) for part, mask in pairs])

    def reconstruction(self, source: Any) -> tf.Tensor:
        return self._flat(source)

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        return tf.reshape(signal, (1, -1, 1)), tf.reshape(x, (1, -1, self.weight_shapes[0][1]))

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[0], bias[0]

    def _placed(self, found: tf.Tensor, record: Record) -> tuple[tf.Tensor, ...]:
        parts = zip(tf.split(found, self._sizes, axis=1), self.shapes, record, strict=True)
        return tuple(tf.where(mask, tf.reshape(p, (-1, *shape)), tf.zeros((), p.dtype)) for p, shape, mask in parts)

    def attribution(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._placed(signal * weights[0], record)

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._placed(signal * weights[0] + weights[1], record)


# Not by register_inverse: what a target's step calls is no Keras layer.
_INVERSES[TargetValue] = TargetInverse
