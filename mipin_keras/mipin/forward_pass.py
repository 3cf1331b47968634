"""The forward pass that an inverse network needs: records, targets and masks, traced in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..data.distribute import per_device
from ..graph.model_graph import ModelGraph
from ..saving.held_weights import HeldWeights
from .inverse import Record
from .inverse_graph import Node


class ForwardPass(NamedTuple):
    """What a forward pass leaves for the inverse.

    Attributes:
        logits: Shape ``(n, neurons)``.
        records: What each node's inverse needs, by the node's index.
        targets: What the learned nodes that were asked for are to reconstruct,
            by the node's index.
        weights: The model's weights in this pass, where they were asked for.
    """

    logits: tf.Tensor
    records: dict[int, Record]
    targets: dict[int, tf.Tensor]
    weights: Sequence[tf.Tensor] = ()

    def rows(self, chosen: np.ndarray) -> ForwardPass:
        """The same for some samples only, by their indices within the batch."""
        if len(chosen) == self.logits.shape[0]:
            return self
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), self._replace(weights=()))


def mask_of(tensor_id: int) -> int:
    """The index among the records of the mask [X != 0] of tensor ``tensor_id``; nodes' indices are not negative."""
    return -1 - tensor_id


class ForwardPasses:
    """Runs a model and keeps what its inverses need.

    Args:
        graph: The model's steps.

    Attributes:
        piece: How many steps are traced together in a fit. It runs every
            learned layer in turn, each time another part of the model; of its
            pieces only the last one differs from one layer to the next.
    """

    piece = 16

    def __init__(self, graph: ModelGraph):
        self.graph = graph
        self._traced: dict[Any, Callable] = {}

    def run(
        self,
        x: Any,
        nodes: Sequence[Node],
        targets: tuple[Node, ...],
        masks: Iterable[int],
        weights: HeldWeights | None,
        whole: bool,
        logits: bool = True,
    ) -> ForwardPass:
        """Run the model on a batch.

        Args:
            x: The model's input ``(n, ...)``, or a tuple of its inputs.
            nodes: Those whose records to keep.
            targets: Learned nodes whose targets to keep.
            masks: Ids of the tensors whose masks [X != 0] to keep.
            weights: Weights to read in the same pass.
            whole: Whether the pass is traced as a whole, not in pieces.
            logits: Whether to go up to the output. Without, the pass ends
                with the last step that ``nodes`` and ``targets`` need, and
                there are no logits.

        Raises:
            ValueError: If the model's output is not finite.
        """
        given = x if isinstance(x, tuple) else (x,)
        live = dict(zip(self.graph.inputs, map(tf.convert_to_tensor, given), strict=True))
        forward_pass = ForwardPass(tf.zeros(()), {}, {})
        stop = len(self.graph.steps) if logits else self._last(nodes, targets)
        for low, high in self._pieces(whole, stop):
            own = weights if low == 0 else None
            live, found, reached, mask, read = self._piece(low, high, stop, live, nodes, targets, masks, own)(live)
            forward_pass.records.update(found | mask)
            forward_pass.targets.update(reached)
            if own is not None:
                forward_pass = forward_pass._replace(weights=read)
        if not logits:
            return forward_pass
        forward_pass = forward_pass._replace(logits=live[self.graph.output])
        if not np.isfinite(forward_pass.logits.numpy()).all():
            raise ValueError(
                "expected a finite output of the model, received NaN or infinity on this input; look at its weights "
                "first"
            )
        return forward_pass

    def _last(self, nodes: Sequence[Node], targets: tuple[Node, ...]) -> int:
        """How many steps make all that some nodes' records and targets need."""
        needed = {node.output for node in nodes if node.step is not None}
        needed |= {tensor_id for node in targets for tensor_id in node.needs}
        return 1 + max((step.index for step in self.graph.steps if step.output in needed), default=0)

    def _pieces(self, whole: bool, count: int) -> Iterator[tuple[int, int]]:
        size = count if whole else self.piece
        return ((low, min(low + size, count)) for low in range(0, count, size))

    def _piece(
        self,
        low: int,
        high: int,
        stop: int,
        live: Any,
        nodes: Sequence[Node],
        targets: tuple[Node, ...],
        masked: Iterable[int],
        weights: HeldWeights | None,
    ) -> Callable:
        """The traced forward pass of steps ``low`` to ``high``.

        It goes from the tensors that are alive in front of the piece to those
        alive behind it, of a pass that ends before step ``stop``, and gives
        records, targets, masks and weights too.
        """
        steps = self.graph.steps[low:high]
        made = {step.output for step in steps} | (set(self.graph.inputs) if low == 0 else set())
        recorded = [node for node in nodes if node.step is not None and node.step.output in made]
        # A target is complete once the last of its tensors is made.
        reached = [node for node in targets if max(node.needs) in made]
        masks = sorted(made.intersection(masked))
        # All that something behind this piece still reads.
        later = {tensor_id for step in self.graph.steps[high:stop] for tensor_id in step.needs}
        later |= {self.graph.output} if stop == len(self.graph.steps) else set()
        later |= {node.step.mask for node in nodes if node.step is not None and node.step.mask is not None}
        later |= {tensor_id for node in targets if max(node.needs) > max(made) for tensor_id in node.needs}
        alive = sorted(later.intersection(made | live.keys()))
        read = weights is not None
        key = (low, high, tuple(n.index for n in recorded), tuple(n.index for n in reached), *masks, read, *alive)

        def trace() -> Callable:
            # Without AutoGraph, which Keras does without too: it takes longer than all the rest of the tracing.
            @tf.function(input_signature=[self._specs(live)], autograph=False)
            def forward(live: dict[int, tf.Tensor]) -> tuple:
                tensors = dict(live)
                for step in steps:
                    tensors[step.output] = step(tensors)
                return (
                    {tensor_id: tensors[tensor_id] for tensor_id in alive},
                    {node.index: node.record(tensors) for node in recorded},
                    {node.index: node.target(tensors) for node in reached},
                    {mask_of(tensor_id): (tensors[tensor_id] != 0,) for tensor_id in masks},
                    [] if weights is None else weights.read(),
                )

            # Traced here and now: TensorFlow warns of retracing where many functions come from one line.
            return forward.get_concrete_function()

        return per_device(self._traced, key, trace)

    def _specs(self, live: dict[int, tf.Tensor]) -> dict[int, tf.TensorSpec]:
        return {n: tf.TensorSpec((None, *self.graph.shapes[n]), tensor.dtype) for n, tensor in live.items()}
