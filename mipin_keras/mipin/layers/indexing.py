"""Inverses of what takes parts of a tensor, or stacks tensors: indexing, splits, flips and stacks of ``keras.ops``."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...graph import step_types
from ...graph.model_graph import Step
from ..inverse import Inverse, Record, Weights, inverts_operations, register_merge
from .merge import ConcatenateInverse
from .structural import touches_batch


@inverts_operations("GetItem", "Split", "Unstack", "Flip")
class SelectionInverse(Inverse):
    """The signal goes back to the places that its elements were taken from, and the others get 0: the adjoint."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        if step_types.of(step) != step_types.STRUCTURE:
            raise ValueError(touches_batch(step))

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        nothing = tf.zeros(tf.concat([tf.shape(signal)[:1], self.input_shape], 0), signal.dtype)
        nothing = tf.ensure_shape(nothing, (None, *self.input_shape))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(nothing)
            found = self.step({self.step.inputs[0]: nothing})
        return tape.gradient(found, nothing, output_gradients=signal)


@register_merge(operations=("Stack",))
class StackInverse(ConcatenateInverse):
    """Each input takes its own part; one that stands there several times their mean."""

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        parts = tf.unstack(signal, len(self.step.inputs), axis=self.axis)
        own = [[p for p, n in zip(parts, self.step.inputs, strict=True) if n == one] for one in self.tensor_ids]
        return tuple(tf.add_n(copies) / len(copies) for copies in own)
