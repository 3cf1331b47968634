"""InverseNetwork: the inverses of a model's steps, applied one after the other from a logit down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from .. import walk
from ..graph import ModelGraph, Step
from .dense import DenseInverse
from .rules import Inverse, LearnedInverse, Record, Weights, make_inverse


class Seen(NamedTuple):
    """What a forward pass leaves for the inverse.

    Attributes:
        logits: Shape ``(n, units)``.
        records: What each walked step's inverse needs, by the step's index.
        targets: Inputs of the learned steps that were asked for, likewise.
    """

    logits: tf.Tensor
    records: dict[int, Record]
    targets: dict[int, tf.Tensor]

    def rows(self, chosen: np.ndarray) -> Seen:
        """The same for some samples only."""
        if len(chosen) == self.logits.shape[0]:
            return self
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), self)


class InverseNetwork:
    """One inverse a step, and for every fitted class the weights of the learned ones.

    Args:
        graph: The model's steps.
        start: Number of the tensor that the explanation goes down to.
        forward_relu: Whether activations mask the signal (section 4.2).
        mask_input: Whether the mask acts on tensor ``start`` too.

    Raises:
        ValueError: If steps have no inverse, naming all of them.

    Attributes:
        steps: The steps walked, in topological order.
        inverses: By the step's index.
        learned: The steps to fit, from the top down.
        weights: ``weights[c][index]`` of class c.
    """

    def __init__(self, graph: ModelGraph, start: int, *, forward_relu: bool = True, mask_input: bool = False):
        self.graph = graph
        self.start = start
        self.mask_input = mask_input
        self.steps = graph.between(start)
        self.inverses = self._build(forward_relu)
        self._regressions = {i: inverse for i, inverse in self.inverses.items() if isinstance(inverse, LearnedInverse)}
        self.learned = [step for step in reversed(self.steps) if step.index in self._regressions]
        self.weights: dict[int, dict[int, Weights]] = {}
        # A Dense head reads nothing but the explained logit; anything else
        # gets it at its place among zeros.
        head = self.inverses[self.steps[-1].index]
        self.scalar = isinstance(head, DenseInverse)
        if isinstance(head, DenseInverse):
            head.read_from(1)
        self._records: dict[int, tuple[tf.TensorSpec, ...]] | None = None
        self._looks: dict[tuple, Any] = {}
        self._walks: dict[tuple, Callable] = {}

    def _build(self, forward_relu: bool) -> dict[int, Inverse]:
        problems, inverses = [], {}
        readers = self.graph.consumers()
        for step in self.steps:
            try:
                inverses[step.index] = make_inverse(step, forward_relu=forward_relu)
            except ValueError as problem:
                problems.append(str(problem))
        for number in (self.start, *(step.output for step in self.steps)):
            if len(readers.get(number, ())) > 1:
                names = ", ".join(map(str, readers[number]))
                problems.append(f"{names} read the same tensor, and MIP-IN cannot merge several consumers yet")
        if problems:
            advice = "input_layer= stops the explanation at a layer above what cannot be inverted"
            raise ValueError("; ".join([*dict.fromkeys(problems), advice]))
        return inverses

    def regression(self, step: Step) -> LearnedInverse:
        """The inverse of a learned step."""
        return self._regressions[step.index]

    # Looking: the forward pass

    def look(self, x: Any, upto: Step | None = None, targets: tuple[Step, ...] = ()) -> Seen:
        """Run the model on a batch and keep what the inverses need.

        Args:
            x: Shape ``(n, ...)``, the model's input.
            upto: Keep records of the steps behind this one only; None for all.
            targets: Learned steps whose inputs to keep.

        Raises:
            ValueError: If the model's output is not finite.
        """
        seen = Seen(*self._looker(upto, targets)(tf.convert_to_tensor(x)))
        if not np.isfinite(seen.logits.numpy()).all():
            raise ValueError("the model's output is NaN or infinite on this input: look at its weights first")
        return seen

    def _looker(self, upto: Step | None, targets: tuple[Step, ...]) -> Any:
        key = (upto, targets)
        if key not in self._looks:
            model_input = self.graph.model.inputs[0]
            spec = tf.TensorSpec((None, *self.graph.shapes[self.graph.input]), model_input.dtype)

            # Without AutoGraph, which Keras does without too: it takes longer than all the rest of the tracing.
            @tf.function(input_signature=[spec], autograph=False)
            def look(x: tf.Tensor) -> tuple:
                tensors = walk.forward(self.graph, x)
                records = {
                    step.index: self.inverses[step.index].record(tensors[step.inputs[0]], tensors[step.output])
                    for step in self._behind(upto)
                }
                if upto is None and self.mask_input:
                    records[-1] = (tensors[self.start] != 0,)
                inputs = {step.index: tensors[step.inputs[0]] for step in targets}
                return tensors[self.graph.output], records, inputs

            # Traced here and now: TensorFlow warns of retracing where many functions come from one line.
            self._looks[key] = look.get_concrete_function()
        return self._looks[key]

    def _behind(self, upto: Step | None) -> list[Step]:
        return [step for step in self.steps if upto is None or step.index > upto.index]

    # Walking: from the logit down

    def signal(self, seen: Seen, unit: int, dtype: Any = tf.float32) -> tf.Tensor:
        """Where class ``unit``'s walk starts: ``(n, 1)``, or ``(n, units)`` with zeros elsewhere."""
        logit = tf.cast(seen.logits[:, unit : unit + 1], dtype)
        return logit if self.scalar else logit * tf.one_hot(unit, self.graph.units, dtype=dtype)

    def descend(self, seen: Seen, unit: int, upto: Step, weights: dict[int, Weights]) -> tf.Tensor:
        """The source signal at the output of ``upto``, in the dtype of ``weights`` (float64 if there are none)."""
        dtype = next((w[0].dtype for w in weights.values()), tf.float64)
        used = {step.index: weights[step.index] for step in self.learned if step.index > upto.index}
        records = {index: record for index, record in seen.records.items() if index > upto.index}
        return self._walker(upto, dtype, linear=False)(self.signal(seen, unit, dtype), records, used)

    def source(self, seen: Seen, unit: int) -> tf.Tensor:
        """The source signal of class ``unit`` at the start, ``(n, ...)`` float32."""
        return self._walker(None, tf.float32, linear=False)(self.signal(seen, unit), seen.records, self.weights[unit])

    def attribution(self, seen: Seen, unit: int, shares: np.ndarray) -> tf.Tensor:
        """The attribution of class ``unit`` at the start, ``(n, ...)`` float32.

        Args:
            seen: From :meth:`look`.
            unit: A fitted class.
            shares: Shape ``(n,)``: the factor on each sample's logit.
        """
        signal = self.signal(seen, unit) * tf.cast(shares[:, None], tf.float32)
        return self._walker(None, tf.float32, linear=True)(signal, seen.records, self.weights[unit])

    def _walker(self, upto: Step | None, dtype: Any, linear: bool) -> Callable:
        key = (upto, dtype, linear)
        if key not in self._walks:
            steps = self._behind(upto)

            def rule(step: Step, seen: Any, signal: tf.Tensor) -> tf.Tensor:
                inverse = self.inverses[step.index]
                apply = inverse.attribution if linear else inverse.source
                return apply(signal, *seen)

            @tf.function(input_signature=self._signature(upto, dtype), autograph=False)
            def run(signal: tf.Tensor, records: dict[int, Record], weights: dict[int, Weights]) -> tf.Tensor:
                seen = {step.index: (records[step.index], weights.get(step.index, ())) for step in steps}
                (result,) = walk.backward(self.graph, steps, seen, signal, rule).values()
                return tf.where(records[-1][0], result, tf.zeros((), dtype)) if -1 in records else result

            self._walks[key] = run.get_concrete_function()
        return self._walks[key]

    def _signature(self, upto: Step | None, dtype: Any) -> list:
        """Open in the batch axis, so that no batch size is traced twice."""
        if self._records is None:
            _, records, _ = self._looker(None, ()).structured_outputs
            self._records = tf.nest.map_structure(lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), records)
        records = {i: specs for i, specs in self._records.items() if upto is None or i > upto.index}
        weights = {
            step.index: tuple(tf.TensorSpec(shape, dtype) for shape in self.regression(step).weight_shapes)
            for step in self.learned
            if upto is None or step.index > upto.index
        }
        return [tf.TensorSpec((None, 1 if self.scalar else self.graph.units), dtype), records, weights]
