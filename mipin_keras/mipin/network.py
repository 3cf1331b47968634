"""InverseNetwork: the forward pass that an inverse needs, and the walk from a logit down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ..data.distribute import per_device
from ..graph.model_graph import ModelGraph
from ..saving.held_weights import HeldWeights
from .forward_pass import ForwardPass, ForwardPasses, mask_of
from .head import Head
from .inverse import Inverse, LearnedInverse, Record, Weights
from .inverse_graph import Node, inverse_graph

Signals = dict[int, list[tf.Tensor]]


@dataclasses.dataclass
class PartialWalk:
    """A walk down that has come part of the way.

    Attributes:
        position: Position of the node that comes next.
        signals: The signals that have arrived at tensors and wait there, by
            the tensor's id.
    """

    position: int = 0
    signals: Signals = dataclasses.field(default_factory=dict)


class InverseNetwork:
    """One inverse a step, and for every fitted class the weights of the learned ones.

    Args:
        graph: The model's steps.
        starts: Ids of the tensors that the explanation goes down to.
        forward_relu: Whether activations mask the signal (section 4.2).
        mask_input: Whether the mask acts on the tensors ``starts`` too.
        merge: How a tensor that several steps read is merged.

    Raises:
        ValueError: If steps have no inverse, naming all of them.

    Attributes:
        nodes: What inverts the model, from the logit down: one for each step,
            and one for each tensor at which several signals meet.
        starts: Ids of the tensors that the explanation goes down to, of those
            that a signal comes to.
        head: Those of them that need the explained channel alone.
        learned: Those of them that are fitted.
        weights: ``weights[c][index]``, the float32 weights of class c for the
            node of this index.
    """

    def __init__(
        self,
        graph: ModelGraph,
        starts: tuple[int, ...],
        *,
        forward_relu: bool = True,
        mask_input: bool = False,
        merge: str = "channel",
    ):
        self.graph = graph
        self.mask_input = mask_input
        options = {"forward_relu": forward_relu, "merge": merge}
        self.head = Head(graph, inverse_graph(graph, starts, options), options)
        self.nodes = self.head.nodes
        arrived = {tensor_id for node in self.nodes for tensor_id in node.inputs}
        self.starts = tuple(start for start in starts if start in arrived)
        self.learned = [node for node in self.nodes if node.inverse.learned]
        self.weights: dict[int, dict[int, Weights]] = {}
        self._order = {node.index: position for position, node in enumerate(self.nodes)}
        self._forward_passes = ForwardPasses(graph)
        self._traced: dict[Any, Callable] = {}

    @property
    def start(self) -> int:
        """Id of the first of :attr:`starts`."""
        return self.starts[0]

    @property
    def inverses(self) -> dict[int, Inverse]:
        """The inverse of each node, by its index."""
        return {node.index: node.inverse for node in self.nodes}

    def regression(self, node: Node) -> LearnedInverse:
        """The inverse of a learned node."""
        if not isinstance(node.inverse, LearnedInverse):
            raise TypeError(
                f"expected a node to learn, received {node.name!r}, which has nothing to learn; ask network.learned"
            )
        return node.inverse

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
            x: The model's input ``(n, ...)``, or a tuple of its inputs.
            upto: Keep the records of the nodes down to this one; None for all.
            targets: Learned nodes whose targets to keep.
            masks: Ids of the tensors at which the signal is to be masked. None
                is the tensor where the explanation ends, if it is masked, and
                only where ``upto`` is None.
            weights: Weights to read in the same pass.

        Raises:
            ValueError: If the model's output is not finite.
        """
        if masks is None:
            masks = list(self.starts) if upto is None and self.mask_input else []
        position = len(self.nodes) if upto is None else self._order[upto.index] + 1
        return self._forward_passes.run(x, self.nodes[:position], targets, masks, weights, whole=upto is None)

    def forward_between(
        self, x: Any, low: int, high: int, targets: tuple[Node, ...], *, logits: bool, whole: bool
    ) -> ForwardPass:
        """Run the model on a batch for a part of a fit, no further up than that needs.

        Args:
            x: The model's input ``(n, ...)``, or a tuple of its inputs.
            low, high: Keep the records of the nodes at these positions.
            targets: Learned nodes whose targets to keep.
            logits: Whether to go up to the output.
            whole: Whether the pass is traced as a whole, not in pieces.

        Raises:
            ValueError: If the model's output is not finite.
        """
        nodes = [node for node in self.nodes[low:high] if node.records]
        return self._forward_passes.run(x, nodes, targets, (), None, whole, logits)

    def position(self, node: Node) -> int:
        """A node's position in the order in which they are applied."""
        return self._order[node.index]

    # The walk down

    def signal(self, forward_pass: ForwardPass, neuron: int, dtype: Any = tf.float32) -> tf.Tensor:
        """Where class ``neuron``'s walk starts: ``(n, 1)``; without a head ``(n, neurons)``, zeros elsewhere."""
        logit = tf.cast(forward_pass.logits[:, neuron], dtype)[:, None]
        return logit if self.head.narrow else logit * tf.one_hot(neuron, self.graph.neurons, dtype=dtype)

    def invert_down_to(
        self,
        forward_pass: ForwardPass,
        neuron: int,
        upto: Node,
        weights: dict[int, Weights],
        partial: PartialWalk | None = None,
        dtype: Any = tf.float64,
    ) -> Any:
        """The source signal of a class at a node's output; a tuple of signals where several meet.

        In a fit the signal is float64, on the float32 weights that are kept:
        the rounding of float32 would be a direction of its own, which the next
        regression would divide by.

        Args:
            forward_pass: From :meth:`forward`.
            neuron: The class.
            upto: The node.
            weights: What is fitted of the class so far, by the node's index.
            partial: Where the walk goes on from; it is brought up to ``upto``.
                None begins at the logit.
            dtype: Of the signal.
        """
        # What is kept stops at each learned node, so that a fit that is taken up again stops at the same ones.
        piece = self._forward_passes.piece
        ends = range(piece, len(self.nodes), piece) if partial is None else [self._order[n.index] for n in self.learned]
        partial = PartialWalk() if partial is None else partial
        if not partial.signals:
            partial.signals = {self.graph.output: [self.signal(forward_pass, neuron, dtype)]}
        position = self._order[upto.index]
        records = self.head.records(forward_pass.records, neuron, partial.position)
        while partial.position < position:
            high = min(position, next((end for end in ends if end > partial.position), position))
            partial.signals = self._walk(partial.position, high, partial.signals, records, weights, linear=False)
            partial.position = high
        arrived = partial.signals[upto.output]
        return arrived[0] if upto.step is not None else tuple(arrived)

    def source(self, forward_pass: ForwardPass, neuron: int, keep: Iterable[int] = ()) -> dict[int, tf.Tensor]:
        """The source signals of class ``neuron`` at the starts and at the tensors in ``keep``, ``(n, ...)`` float32."""
        return self._down(forward_pass, neuron, self.signal(forward_pass, neuron), keep, linear=False)

    def attribution(
        self, forward_pass: ForwardPass, neuron: int, shares: np.ndarray, keep: Iterable[int] = ()
    ) -> dict[int, tf.Tensor]:
        """The attributions of class ``neuron`` at the starts and at the tensors in ``keep``, ``(n, ...)`` float32.

        Args:
            forward_pass: From :meth:`forward`.
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
        kept = tuple(sorted({*self.starts, *keep}))
        records = self.head.records(forward_pass.records, neuron)
        found = self._walk(0, len(self.nodes), signals, records, self.weights[neuron], linear, kept)
        return {tensor_id: self.head.widen(tensor_id, parts[0], neuron) for tensor_id, parts in found.items()}

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
        """Invert nodes ``low`` to ``high``.

        It goes from the signals that wait in front of them to those that wait
        behind, or to those at the tensors in ``keep``.
        """
        nodes = self.nodes[low:high]
        indices = [node.index for node in nodes]
        own = {index: records[index] for index in (*indices, *map(mask_of, keep)) if records.get(index)}
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
        kept |= {start: signals[start] for start in self.starts if start in signals}
        for tensor_id, parts in kept.items():
            if mask_of(tensor_id) in records:
                (mask,) = records[mask_of(tensor_id)]
                kept[tensor_id] = [tf.where(mask, part, tf.zeros((), part.dtype)) for part in parts]
        return kept


def _specs(structure: Any, whole: bool = False) -> Any:
    """The specs of tensors, open in the batch axis unless ``whole``, so that no batch size is traced twice."""

    def spec(tensor: Any) -> tf.TensorSpec:
        return tf.TensorSpec(tensor.shape if whole else (None, *tensor.shape[1:]), tensor.dtype)

    return tf.nest.map_structure(spec, structure)
