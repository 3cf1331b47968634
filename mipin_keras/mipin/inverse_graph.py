"""The inverse graph: in which order steps are inverted, and where signals meet."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import tensorflow as tf

from ..graph import step_types
from ..graph.model_graph import ModelGraph, Step
from .inverse import Inverse, make_inverse
from .layers.indexing import DisjointInverse
from .layers.merge import FanOutInverse


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One inverse on the way down.

    Attributes:
        index: Unique, and the same for every inverse graph of a model: the
            step's index, or an index behind those of all steps where signals
            meet.
        name: The step's name, for messages and reports.
        type: Its layer's type, for messages and reports.
        inverse: What it does to the signal.
        step: The step that it inverts; None where signals meet.
        output: Id of the tensor whose signal it takes.
        inputs: Ids of the tensors that it gives a signal to; None for an
            input that gets none, or that the explanation does not go down to.
    """

    index: int
    name: str
    type: str
    inverse: Inverse
    step: Step | None
    output: int
    inputs: tuple[int | None, ...]

    def record(self, tensors: dict[int, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """What of the forward pass the inverse needs."""
        if self.step is None:
            return ()
        if self.inverse.takes_mask and self.step.mask is not None:
            return self.inverse.record_mask(tensors[self.step.mask])
        return self.inverse.record(self._of_step(tensors), tensors[self.output])

    @property
    def records(self) -> bool:
        """Whether the inverse needs something of the forward pass."""
        if self.step is None:
            return False
        masked = self.inverse.takes_mask and self.step.mask is not None
        return masked or type(self.inverse).record is not Inverse.record

    def target(self, tensors: dict[int, tf.Tensor]) -> tf.Tensor:
        """What a learned inverse reconstructs."""
        return tensors[self.output] if self.step is None else self.inverse.target(self._of_step(tensors))

    @property
    def needs(self) -> tuple[int, ...]:
        """Ids of the tensors that :meth:`target` reads."""
        return (self.output,) if self.step is None else self.step.signal_inputs

    def _of_step(self, tensors: dict[int, tf.Tensor]) -> Any:
        inputs = tuple(tensors[tensor_id] for tensor_id in self.needs)
        return inputs if self.inverse.merges else inputs[0]


def inverse_graph(graph: ModelGraph, starts: tuple[int, ...], options: dict[str, Any]) -> list[Node]:
    """The nodes from the output down to the tensors ``starts``, in the order in which they are applied.

    Args:
        graph: The model's steps.
        starts: Ids of the tensors that the explanation goes down to.
        options: Of the inverses.

    Raises:
        ValueError: If steps have no inverse, naming all of them; if no signal
            reaches any of ``starts``.
    """
    steps = graph.between(*starts)
    on_the_way = {*starts, *(step.output for step in steps)}
    gates = step_types.gates(graph)
    arrivals = Counter([graph.output])
    nodes: list[Node] = []
    problems: list[str] = []

    carried: dict[int, list[Inverse]] = {}

    def meet(tensor_id: int, name: str) -> None:
        if arrivals[tensor_id] > 1:
            try:
                inverse: Inverse = FanOutInverse(graph.shapes[tensor_id], arrivals[tensor_id], name, **options)
            except ValueError as problem:
                problems.append(str(problem))
                return
            if DisjointInverse.fits(carried.get(tensor_id, [])):
                inverse = DisjointInverse(graph.shapes[tensor_id])
            index = len(graph.steps) + tensor_id
            nodes.append(Node(index, f"{name}/merge", "fan-out", inverse, None, tensor_id, (tensor_id,)))

    for step in reversed(steps):
        if not arrivals[step.output]:
            continue  # it makes a gate, or something else that gets no signal
        meet(step.output, step.name)
        try:
            inverse = make_inverse(step, gate=gates.get(step.index), **options)
        except ValueError as problem:
            problems.append(str(problem))
            arrivals.update(on_the_way.intersection(step.signal_inputs))
            continue
        gets = inverse.carries(step.signal_inputs)
        inputs = tuple(tensor_id if tensor_id in on_the_way else None for tensor_id in gets)
        for tensor_id in inputs:
            if tensor_id is not None:
                arrivals[tensor_id] += 1
                carried.setdefault(tensor_id, []).append(inverse)
        nodes.append(Node(step.index, step.name, step.type_name, inverse, step, step.output, inputs))
    names = {step.output: step.name for step in graph.steps}
    for i, start in enumerate(starts):
        meet(start, names.get(start, "input" if len(starts) == 1 else f"input:{i}"))
    if problems:
        advice = "input_layer= stops the explanation at a layer above what cannot be inverted"
        raise ValueError("; ".join([*dict.fromkeys(problems), advice]))
    if not any(arrivals[start] for start in starts):
        raise ValueError(
            "expected an input layer that MIP-IN's signal reaches, received one that only makes the gate of a "
            "multiplication; name the layer that is gated"
        )
    return nodes
