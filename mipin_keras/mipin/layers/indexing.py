"""Inverses of what takes parts of a tensor, or stacks tensors: indexing, splits, flips and stacks of ``keras.ops``."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ...graph import step_types
from ...graph.model_graph import Step
from ..inverse import Inverse, Record, Weights, inverts_operations, register_merge
from .merge import ConcatenateInverse
from .structural import touches_batch


@inverts_operations("GetItem", "Split", "Unstack", "Flip")
class SelectionInverse(Inverse):
    """The signal goes back to the places that its elements were taken from, and the others get 0: the adjoint."""

    @property
    def places(self) -> np.ndarray:
        """Which elements of its input a sample's are taken from, bool ``input_shape``."""
        nothing = tf.zeros((1, *self.output_shape), tf.float32)
        return self.source(tf.ones_like(nothing), (), ())[0].numpy() != 0

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


class DisjointInverse(Inverse):
    """A tensor whose parts are read apart: what their inverses make of them, side by side.

    Args:
        shape: Of the tensor, without the batch axis.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.input_shape = self.output_shape = shape

    @staticmethod
    def fits(inverses: list[Inverse]) -> bool:
        """Whether these inverses, of all that reads a tensor, fill different places of it."""
        selections = [inverse for inverse in inverses if isinstance(inverse, SelectionInverse)]
        if len(selections) != len(inverses):
            return False
        return bool((np.sum([selection.places for selection in selections], axis=0) <= 1).all())

    def source(self, signal: Any, record: Record, weights: Weights) -> tf.Tensor:
        return tf.add_n(list(signal))


@register_merge(operations=("Stack",))
class StackInverse(ConcatenateInverse):
    """Each input takes its own part; one that stands there several times their mean."""

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        parts = tf.unstack(signal, len(self.step.inputs), axis=self.axis)
        own = [[p for p, n in zip(parts, self.step.inputs, strict=True) if n == one] for one in self.tensor_ids]
        return tuple(tf.add_n(copies) / len(copies) for copies in own)
