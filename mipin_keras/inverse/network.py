"""InverseNetwork: the inverses of a model's steps, applied one after the other from a logit down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..graph import ModelGraph
from ..saving.held_weights import HeldWeights
from .dense import DenseInverse
from .plan import Node, make_plan
from .replicas import per_device
from .rules import Inverse, LearnedInverse, Record, Weights

# A fit looks at every learned layer in turn, and each time at another part of the model. What is traced for it is
# traced in pieces of so many steps, of which only the last differs from one layer to the next.
PIECE = 16

Signals = dict[int, list[tf.Tensor]]


class Seen(NamedTuple):
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

    def rows(self, chosen: np.ndarray) -> Seen:
        """The same for some samples only."""
        if len(chosen) == self.logits.shape[0]:
            return self
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), self._replace(weights=()))


@dataclasses.dataclass
class Begun:
    """A walk down on its way: before which node it stands, and the signals that wait there."""

    place: int = 0
    signals: Signals = dataclasses.field(default_factory=dict)


class InverseNetwork:
    """One inverse a step, and for every fitted class the weights of the learned ones.

    Args:
        graph: The model's steps.
        start: Number of the tensor that the explanation goes down to.
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
        self._places = {node.index: place for place, node in enumerate(self.nodes)}
        self._recorded = {node.step.index: node for node in self.nodes if node.step is not None}
        # A Dense head reads nothing but the explained logit; anything else
        # gets it at its place among zeros.
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

    def look(
        self,
        x: Any,
        upto: Node | None = None,
        targets: tuple[Node, ...] = (),
        masks: Iterable[int] | None = None,
        weights: HeldWeights | None = None,
    ) -> Seen:
        """Run the model on a batch and keep what the inverses need.

        Args:
            x: Shape ``(n, ...)``, the model's input.
            upto: Keep records of the nodes before this one, and of it; None for all.
            targets: Learned nodes whose targets to keep.
            masks: Numbers of tensors at which the signal is to be masked; None
                for that at the start, if it is, where ``upto`` is None.
            weights: Those to read in the same pass.

        Raises:
            ValueError: If the model's output is not finite.
        """
        place = len(self.nodes) if upto is None else self._places[upto.index] + 1
        records = frozenset(node.index for node in self.nodes[:place] if node.step is not None)
        live = {self.graph.input: tf.convert_to_tensor(x)}
        seen = Seen(tf.zeros(()), {}, {})
        masked = frozenset(masks if masks is not None else [self.start] if upto is None and self.mask_input else [])
        for low, high in self._forward_pieces(whole=upto is None):
            own = weights if low == 0 else None
            live, found, reached, mask, read = self._looker(low, high, live, records, targets, masked, own)(live)
            seen.records.update(found | mask)
            seen.targets.update(reached)
            if own is not None:
                seen = seen._replace(weights=read)
        seen = seen._replace(logits=live[self.graph.output])
        if not np.isfinite(seen.logits.numpy()).all():
            raise ValueError("the model's output is NaN or infinite on this input: look at its weights first")
        return seen

    def _forward_pieces(self, whole: bool) -> list[tuple[int, int]]:
        count = len(self.graph.steps)
        size = count if whole else PIECE
        return [(low, min(low + size, count)) for low in range(0, count, size)]

    def _looker(
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
        later = {number for step in self.graph.steps[high:] for number in step.inputs} | {self.graph.output}
        later |= {number for node in targets if max(node.needs) > max(made) for number in node.needs}
        alive = sorted(later.intersection(made | live.keys()))
        read = weights is not None
        key = (low, high, tuple(n.index for n in recorded), tuple(n.index for n in reached), *masks, read, *alive)

        def trace() -> Callable:
            # Without AutoGraph, which Keras does without too: it takes longer than all the rest of the tracing.
            @tf.function(input_signature=[self._specs(live)], autograph=False)
            def look(live: dict[int, tf.Tensor]) -> tuple:
                tensors = dict(live)
                for step in steps:
                    tensors[step.output] = step(tensors)
                return (
                    {number: tensors[number] for number in alive},
                    {node.index: node.record(tensors) for node in recorded},
                    {node.index: node.target(tensors) for node in reached},
                    {mask_of(number): (tensors[number] != 0,) for number in masks},
                    [] if weights is None else weights.read(),
                )

            # Traced here and now: TensorFlow warns of retracing where many functions come from one line.
            return look.get_concrete_function()

        return per_device(self._traced, key, trace)

    # Walking: from the logit down

    def signal(self, seen: Seen, unit: int, dtype: Any = tf.float32) -> tf.Tensor:
        """Where class ``unit``'s walk starts: ``(n, 1)``, or ``(n, units)`` with zeros elsewhere."""
        logit = tf.cast(seen.logits[:, unit : unit + 1], dtype)
        return logit if self.scalar else logit * tf.one_hot(unit, self.graph.units, dtype=dtype)

    def descend(
        self,
        seen: Seen,
        unit: int,
        upto: Node,
        weights: dict[int, Weights],
        begun: Begun | None = None,
        dtype: Any = tf.float64,
    ) -> Any:
        """What ``upto`` takes: the source signal at its output, or a tuple of those that meet there.

        With ``begun`` it goes on from there, and leaves there how far it came.
        The walk of a fit runs in float64 on the float32 weights that are kept,
        so that rounding makes no directions of its own for the next
        regression to divide by.
        """
        # What is kept stops at each learned node, so that a fit that is taken up again stops at the same ones.
        ends = range(PIECE, len(self.nodes), PIECE) if begun is None else [self._places[n.index] for n in self.learned]
        begun = Begun() if begun is None else begun
        if not begun.signals:
            begun.signals = {self.graph.output: [self.signal(seen, unit, dtype)]}
        place = self._places[upto.index]
        while begun.place < place:
            high = min(place, next((end for end in ends if end > begun.place), place))
            begun.signals = self._walk(begun.place, high, begun.signals, seen.records, weights, linear=False)
            begun.place = high
        arrived = begun.signals[upto.output]
        return arrived[0] if upto.step is not None else tuple(arrived)

    def source(self, seen: Seen, unit: int, keep: Iterable[int] = ()) -> dict[int, tf.Tensor]:
        """The source signals of class ``unit`` at the start and at the tensors in ``keep``, ``(n, ...)`` float32."""
        return self._down(seen, unit, self.signal(seen, unit), keep, linear=False)

    def attribution(self, seen: Seen, unit: int, shares: np.ndarray, keep: Iterable[int] = ()) -> dict[int, tf.Tensor]:
        """The attributions of class ``unit`` at the start and at the tensors in ``keep``, ``(n, ...)`` float32.

        Args:
            seen: From :meth:`look`.
            unit: A fitted class.
            shares: Shape ``(n,)``: the factor on each sample's logit.
            keep: Numbers of tensors on the way.
        """
        signal = self.signal(seen, unit) * tf.cast(shares[:, None], tf.float32)
        return self._down(seen, unit, signal, keep, linear=True)

    def _down(self, seen: Seen, unit: int, signal: tf.Tensor, keep: Iterable[int], linear: bool) -> Any:
        signals: Signals = {self.graph.output: [signal]}
        kept = tuple(sorted({self.start, *keep}))
        found = self._walk(0, len(self.nodes), signals, seen.records, self.weights[unit], linear, kept)
        return {number: parts[0] for number, parts in found.items()}

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
        signals = {number: list(parts) for number, parts in given.items()}
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
            for number, part in zip(node.inputs, parts, strict=True):
                if number is not None:
                    signals.setdefault(number, []).append(part)
        if not keep:
            return signals
        kept[self.start] = signals[self.start]
        for number, parts in kept.items():
            if mask_of(number) in records:
                (mask,) = records[mask_of(number)]
                kept[number] = [tf.where(mask, part, tf.zeros((), part.dtype)) for part in parts]
        return kept

    def _specs(self, live: dict[int, tf.Tensor]) -> dict[int, tf.TensorSpec]:
        return {n: tf.TensorSpec((None, *self.graph.shapes[n]), tensor.dtype) for n, tensor in live.items()}


def mask_of(number: int) -> int:
    """The index among the records of the mask [X != 0] of tensor ``number``; nodes' indices are not negative."""
    return -1 - number


def _specs(structure: Any, whole: bool = False) -> Any:
    """The specs of tensors, open in the batch axis unless ``whole``, so that no batch size is traced twice."""

    def spec(tensor: Any) -> tf.TensorSpec:
        return tf.TensorSpec(tensor.shape if whole else (None, *tensor.shape[1:]), tensor.dtype)

    return tf.nest.map_structure(spec, structure)
