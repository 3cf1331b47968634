"""InverseNetwork: the inverses of a model's steps, applied one after the other from a logit down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..data.distribute import per_device
from ..graph.model_graph import ModelGraph
from ..saving.held_weights import HeldWeights
from .inverse import Inverse, LearnedInverse, Record, Weights
from .inverse_graph import Node, make_plan
from .layers.dense import DenseInverse

# A fit looks at every learned layer in turn, and each time at another part of the model. What is traced for it is
# traced in pieces of so many steps, of which only the last differs from one layer to the next.
PIECE = 16

Signals = dict[int, list[tf.Tensor]]


class ForwardPass(NamedTuple):
    """What a forward pass leaves for the inverse.

    Attributes:
        logits: Shape ``(n, units)``.
        records: What each walked node's inverse needs, by the node's index.
        targets: What the learned nodes that were asked for reconstruct, likewise.
        weights: What the model's weights were in this pass, where that was asked for.
    """

    logits: tf.Tensor
    records: dict[int, Record]
    targets: dict[int, tf.Tensor]
    weights: Sequence[tf.Tensor] = ()

    def rows(self, chosen: np.ndarray) -> ForwardPass:
        """The same for some samples only."""
        if len(chosen) == self.logits.shape[0]:
            return self
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), self._replace(weights=()))


@dataclasses.dataclass
class PartialWalk:
    """A walk down on its way: before which node it stands, and the signals that wait there."""

    position: int = 0
    signals: Signals = dataclasses.field(default_factory=dict)


class InverseNetwork:
    """One inverse a step, and for every fitted class the weights of the learned ones.

    Args:
        graph: The model's steps.
        start: Id of the tensor that the explanation goes down to.
        forward_relu: Whether activations mask the signal (section 4.2).
        mask_input: Whether the mask acts on tensor ``start`` too.
        merge: How a tensor that several steps read is merged.

    Raises:
        ValueError: If steps have no inverse, naming all of them.

    Attributes:
        nodes: What is walked, from the top down: the steps, and the tensors
            at which several signals meet.
        learned: Those of them to fit.
        weights: ``weights[c][index]`` of class c.
    """

    def __init__(
        self,
        graph: ModelGraph,
        start: int,
        *,
        forward_relu: bool = True,
        mask_input: bool = False,
        merge: str = "channel",
    ):
        self.graph = graph
        self.start = start
        self.mask_input = mask_input
        self.nodes = make_plan(graph, start, {"forward_relu": forward_relu, "merge": merge})
        self.learned = [node for node in self.nodes if node.inverse.learned]
        self.weights: dict[int, dict[int, Weights]] = {}
        self._order = {node.index: position for position, node in enumerate(self.nodes)}
        self._recorded = {node.step.index: node for node in self.nodes if node.step is not None}
        # A Dense head reads nothing but the explained logit; anything else
        # gets it at its position among zeros.
        head = self.nodes[0].inverse
        self.scalar = isinstance(head, DenseInverse)
        if isinstance(head, DenseInverse):
            head.read_from(1)
        self._traced: dict[Any, Callable] = {}

    @property
    def inverses(self) -> dict[int, Inverse]:
        """The inverse of each node, by its index."""
        return {node.index: node.inverse for node in self.nodes}

    def regression(self, node: Node) -> LearnedInverse:
        """The inverse of a learned node."""
        if not isinstance(node.inverse, LearnedInverse):
            raise TypeError(f"{node.name!r} has nothing to learn")
        return node.inverse

    # Looking: the forward pass

    def forward(
        self,
        x: Any,
        upto: Node | None = None,
        targets: tuple[Node, ...] = (),
        masks: Iterable[int] | None = None,
        weights: HeldWeights | None = None,
    ) -> ForwardPass:
        """Run the model on a batch and keep what the inverses need.

        Args:
            x: Shape ``(n, ...)``, the model's input.
            upto: Keep records of the nodes before this one, and of it; None for all.
            targets: Learned nodes whose targets to keep.
            masks: Ids of tensors at which the signal is to be masked; None
                for that at the start, if it is, where ``upto`` is None.
            weights: Those to read in the same pass.

        Raises:
            ValueError: If the model's output is not finite.
        """
        position = len(self.nodes) if upto is None else self._order[upto.index] + 1
        records = frozenset(node.index for node in self.nodes[:position] if node.step is not None)
        live = {self.graph.input: tf.convert_to_tensor(x)}
        forward_pass = ForwardPass(tf.zeros(()), {}, {})
        masked = frozenset(masks if masks is not None else [self.start] if upto is None and self.mask_input else [])
        for low, high in self._forward_pieces(whole=upto is None):
            own = weights if low == 0 else None
            live, found, reached, mask, read = self._forward_piece(low, high, live, records, targets, masked, own)(live)
            forward_pass.records.update(found | mask)
            forward_pass.targets.update(reached)
            if own is not None:
                forward_pass = forward_pass._replace(weights=read)
        forward_pass = forward_pass._replace(logits=live[self.graph.output])
        if not np.isfinite(forward_pass.logits.numpy()).all():
            raise ValueError("the model's output is NaN or infinite on this input: look at its weights first")
        return forward_pass

    def _forward_pieces(self, whole: bool) -> list[tuple[int, int]]:
        count = len(self.graph.steps)
        size = count if whole else PIECE
        return [(low, min(low + size, count)) for low in range(0, count, size)]

    def _forward_piece(
        self,
        low: int,
        high: int,
        live: Any,
        records: frozenset[int],
        targets: Any,
        masked: frozenset[int],
        weights: HeldWeights | None,
    ) -> Callable:
        """Steps ``low`` to ``high``: from the tensors alive before to those behind, records, targets, mask, weights."""
        steps = self.graph.steps[low:high]
        made = {step.output for step in steps} | ({self.graph.input} if low == 0 else set())
        recorded = [self._recorded[s.index] for s in steps if s.index in self._recorded]
        recorded = [node for node in recorded if node.index in records]
        # A target is complete once the last of its tensors is made.
        reached = [node for node in targets if max(node.needs) in made]
        masks = sorted(masked & made)
        # All that something behind this piece still reads.
        later = {tensor_id for step in self.graph.steps[high:] for tensor_id in step.inputs} | {self.graph.output}
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

    # Walking: from the logit down

    def signal(self, forward_pass: ForwardPass, neuron: int, dtype: Any = tf.float32) -> tf.Tensor:
        """Where class ``neuron``'s walk starts: ``(n, 1)``, or ``(n, units)`` with zeros elsewhere."""
        logit = tf.cast(forward_pass.logits[:, neuron : neuron + 1], dtype)
        return logit if self.scalar else logit * tf.one_hot(neuron, self.graph.neurons, dtype=dtype)

    def invert_down_to(
        self,
        forward_pass: ForwardPass,
        neuron: int,
        upto: Node,
        weights: dict[int, Weights],
        partial: PartialWalk | None = None,
        dtype: Any = tf.float64,
    ) -> Any:
        """What ``upto`` takes: the source signal at its output, or a tuple of those that meet there.

        With ``partial`` it goes on from there, and leaves there how far it came.
        The walk of a fit runs in float64 on the float32 weights that are kept,
        so that rounding makes no directions of its own for the next
        regression to divide by.
        """
        # What is kept stops at each learned node, so that a fit that is taken up again stops at the same ones.
        ends = range(PIECE, len(self.nodes), PIECE) if partial is None else [self._order[n.index] for n in self.learned]
        partial = PartialWalk() if partial is None else partial
        if not partial.signals:
            partial.signals = {self.graph.output: [self.signal(forward_pass, neuron, dtype)]}
        position = self._order[upto.index]
        while partial.position < position:
            high = min(position, next((end for end in ends if end > partial.position), position))
            partial.signals = self._walk(
                partial.position, high, partial.signals, forward_pass.records, weights, linear=False
            )
            partial.position = high
        arrived = partial.signals[upto.output]
        return arrived[0] if upto.step is not None else tuple(arrived)

    def source(self, forward_pass: ForwardPass, neuron: int, keep: Iterable[int] = ()) -> dict[int, tf.Tensor]:
        """The source signals of class ``neuron`` at the start and at the tensors in ``keep``, ``(n, ...)`` float32."""
        return self._down(forward_pass, neuron, self.signal(forward_pass, neuron), keep, linear=False)

    def attribution(
        self, forward_pass: ForwardPass, neuron: int, shares: np.ndarray, keep: Iterable[int] = ()
    ) -> dict[int, tf.Tensor]:
        """The attributions of class ``neuron`` at the start and at the tensors in ``keep``, ``(n, ...)`` float32.

        Args:
            forward_pass: From :meth:`look`.
            neuron: A fitted class.
            shares: Shape ``(n,)``: the factor on each sample's logit.
            keep: Ids of tensors on the way.
        """
        signal = self.signal(forward_pass, neuron) * tf.cast(shares[:, None], tf.float32)
        return self._down(forward_pass, neuron, signal, keep, linear=True)

    def _down(
        self, forward_pass: ForwardPass, neuron: int, signal: tf.Tensor, keep: Iterable[int], linear: bool
    ) -> Any:
        signals: Signals = {self.graph.output: [signal]}
        kept = tuple(sorted({self.start, *keep}))
        found = self._walk(0, len(self.nodes), signals, forward_pass.records, self.weights[neuron], linear, kept)
        return {tensor_id: parts[0] for tensor_id, parts in found.items()}

    def _walk(
        self,
        low: int,
        high: int,
        signals: Signals,
        records: dict[int, Record],
        weights: dict[int, Weights],
        linear: bool,
        keep: tuple[int, ...] = (),
    ) -> Signals:
        """Nodes ``low`` to ``high``: from the signals that wait before to those that wait behind, or in ``keep``."""
        nodes = self.nodes[low:high]
        indices = [node.index for node in nodes]
        own = {index: records[index] for index in (*indices, *map(mask_of, keep)) if index in records}
        used = {index: weights[index] for index in indices if index in weights}
        dtype = next(iter(signals.values()))[0].dtype
        key = (low, high, dtype, linear, keep, *(index for index in own if index < 0))

        def trace() -> Callable:
            @tf.function(input_signature=[_specs(signals), _specs(own), _specs(used, whole=True)], autograph=False)
            def walk(signals: Signals, records: dict[int, Record], weights: dict[int, Weights]) -> Signals:
                return self._walked(nodes, signals, records, weights, linear, keep)

            return walk.get_concrete_function()

        return per_device(self._traced, key, trace)(signals, own, used)

    def _walked(
        self, nodes: list[Node], given: Signals, records: Any, weights: Any, linear: bool, keep: tuple[int, ...]
    ) -> Signals:
        signals = {tensor_id: list(parts) for tensor_id, parts in given.items()}
        kept: Signals = {}
        for node in nodes:
            arrived = signals.pop(node.output)
            if node.step is not None and node.output in keep:
                kept[node.output] = arrived
            apply = node.inverse.attribution if linear else node.inverse.source
            taken: Any = arrived[0] if node.step is not None else tuple(arrived)
            dtype = arrived[0].dtype
            own = tuple(w if w.dtype == dtype else tf.cast(w, dtype) for w in weights.get(node.index, ()))
            result: Any = apply(taken, records.get(node.index, ()), own)
            parts = result if node.inverse.merges else (result,)
            for tensor_id, part in zip(node.inputs, parts, strict=True):
                if tensor_id is not None:
                    signals.setdefault(tensor_id, []).append(part)
        if not keep:
            return signals
        kept[self.start] = signals[self.start]
        for tensor_id, parts in kept.items():
            if mask_of(tensor_id) in records:
                (mask,) = records[mask_of(tensor_id)]
                kept[tensor_id] = [tf.where(mask, part, tf.zeros((), part.dtype)) for part in parts]
        return kept

    def _specs(self, live: dict[int, tf.Tensor]) -> dict[int, tf.TensorSpec]:
        return {n: tf.TensorSpec((None, *self.graph.shapes[n]), tensor.dtype) for n, tensor in live.items()}


def mask_of(tensor_id: int) -> int:
    """The index among the records of the mask [X != 0] of tensor ``tensor_id``; nodes' indices are not negative."""
    return -1 - tensor_id


def _specs(structure: Any, whole: bool = False) -> Any:
    """The specs of tensors, open in the batch axis unless ``whole``, so that no batch size is traced twice."""

    def spec(tensor: Any) -> tf.TensorSpec:
        return tf.TensorSpec(tensor.shape if whole else (None, *tensor.shape[1:]), tensor.dtype)

    return tf.nest.map_structure(spec, structure)
