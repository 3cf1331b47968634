"""A model taken apart at a feature map: its local parts, the representation, and the rest of the network behind it."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from ..graph import propagation
from ..graph.model_graph import ModelGraph, Step


class Parts(NamedTuple):
    """What the estimates are made of, for a batch.

    Attributes:
        feature: The feature map whose vectors are the local parts, ``(n,
            *spatial, channels)``.
        representation: Z, float32 ``(n, size)``.
        logits: float32 ``(n, neurons)``.
        beside: The tensors that the network behind the feature map reads
            beside it, as across a shortcut.
    """

    feature: tf.Tensor
    representation: tf.Tensor
    logits: tf.Tensor
    beside: tuple[tf.Tensor, ...]


class Cut:
    """A model cut at a feature map.

    Args:
        graph: The model's steps.
        layer: Name of the layer whose output has the local parts; None for the
            last feature map that the representation is made of.
        representation: Name of the layer whose output is Z; None for what the
            last layer with weights reads. One with spatial axes is taken as
            its mean over them.

    Raises:
        ValueError: For an unknown layer; a feature map without several
            locations, of an open size, or with more than three spatial axes;
            one that the representation, or the explained output, does not
            depend on; a representation of an open size.

    Attributes:
        feature: Id of the feature map's tensor.
        representation: Id of Z's.
        shape: The feature map's, ``(*spatial, channels)``.
        size: Numbers in Z.
    """

    def __init__(self, graph: ModelGraph, layer: str | None, representation: str | None):
        self._graph = graph
        self.representation = _read_by_head(graph) if representation is None else graph.tensor_after(representation)
        self.feature = self._last_map() if layer is None else graph.tensor_after(layer)
        self.shape = self._checked(layer)
        self._behind = self._depending()
        self._check_dependence(layer, representation)
        made = {step.output for step in self._behind} | {self.feature}
        needed = {tensor_id for step in self._behind for tensor_id in step.needs}
        self._beside = tuple(sorted(needed - made))
        self.size = self._size(representation)

    # Which tensors

    def _last_map(self) -> int:
        """The last floating tensor with several locations that Z is made of."""
        graph, needed = self._graph, {self.representation}
        for step in reversed(graph.steps):
            if step.output in needed:
                if _is_map(graph, step.output):
                    return step.output
                needed.update(step.signal_inputs)
        found = next(
            (tensor_id for tensor_id in graph.inputs if tensor_id in needed and _is_map(graph, tensor_id)), None
        )
        if found is None:
            raise ValueError(
                "expected a model whose representation is made of a feature map with several locations, received one "
                "without; name a layer with an output (batch, *spatial axes, channels) as layer=, or explain the "
                "decision: 'gradient', 'lrp.epsilon' or 'mipin'"
            )
        return found

    def _checked(self, layer: str | None) -> tuple[int, ...]:
        graph = self._graph
        shape = graph.shapes[self.feature]
        text = f"(batch, {', '.join(map(str, shape))})"
        if not graph.floating(self.feature) or not 2 <= len(shape) <= 4:
            raise ValueError(
                f"expected layer to have a floating-point output (batch, *one to three spatial axes, channels), "
                f"received {layer!r}, whose output is {text} of dtype {graph.dtypes[self.feature]}; name another"
            )
        if None in shape:
            raise ValueError(
                f"expected a feature map of a fixed size, received {text}; build the model with an input of that size"
            )
        sizes = tuple(size or 0 for size in shape)
        if all(size == 1 for size in sizes[:-1]):
            raise ValueError(
                f"expected a feature map of several locations, received {layer!r}, whose output is {text}: one "
                "location has no others to differ from; name a layer in front of the pooling"
            )
        return sizes

    def _depending(self) -> list[Step]:
        """The steps behind the feature map that the output or Z needs, in topological order."""
        reached, steps = {self.feature}, []
        for step in self._graph.steps:
            if reached.intersection(step.needs) and step.output != self.feature:
                reached.add(step.output)
                steps.append(step)
        needed, found = {self._graph.output, self.representation}, []
        for step in reversed(steps):
            if step.output in needed:
                needed.update(step.needs)
                found.append(step)
        return found[::-1]

    def _check_dependence(self, layer: str | None, representation: str | None) -> None:
        made = {step.output for step in self._behind} | {self.feature}
        if self.representation not in made:
            raise ValueError(
                f"expected a representation that depends on the local parts, received {representation!r} and "
                f"{layer!r}, which does not lead to it; name a layer in front of it, or another representation"
            )
        if self._graph.output not in made or not self._behind:
            raise ValueError(
                f"expected an output that depends on the local parts, received {layer!r}, which does not lead to it; "
                "name another layer"
            )

    def _size(self, representation: str | None) -> int:
        shape = self._graph.shapes[self.representation]
        if not shape or shape[-1] is None or not self._graph.floating(self.representation):
            raise ValueError(
                f"expected a representation with floating-point output (batch, size), received {representation!r}, "
                f"whose output is (batch, {', '.join(map(str, shape))}) of dtype "
                f"{self._graph.dtypes[self.representation]}; name another"
            )
        return shape[-1]

    # What is computed

    def parts(self, x: tuple[tf.Tensor, ...]) -> Parts:
        """The parts of a batch of inputs."""
        tensors = propagation.forward(self._graph, x)
        z = tf.cast(tensors[self.representation], tf.float32)
        z = tf.reduce_mean(z, axis=list(range(1, z.shape.rank - 1))) if z.shape.rank > 2 else z
        beside = tuple(tensors[tensor_id] for tensor_id in self._beside)
        return Parts(tensors[self.feature], z, tf.cast(tensors[self._graph.output], tf.float32), beside)

    def logits(self, feature: tf.Tensor, beside: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """The rest of the network on another feature map: float32 ``(n, neurons)``.

        Args:
            feature: Like :attr:`Parts.feature`.
            beside: That of the same inputs.
        """
        tensors = dict(zip(self._beside, beside, strict=True))
        tensors[self.feature] = tf.cast(feature, self._graph.dtypes[self.feature])
        for step in self._behind:
            tensors[step.output] = step(tensors)
        return tf.cast(tensors[self._graph.output], tf.float32)


def _is_map(graph: ModelGraph, tensor_id: int) -> bool:
    """Whether a tensor has channels, and more than one location."""
    shape = graph.shapes[tensor_id]
    return graph.floating(tensor_id) and len(shape) > 1 and any(size is None or size > 1 for size in shape[:-1])


def _read_by_head(graph: ModelGraph) -> int:
    """What the last layer with weights on the way to the output reads."""
    needed = {graph.output}
    for step in reversed(graph.steps):
        if step.output in needed:
            if step.linear:
                return step.signal_inputs[0]
            needed.update(step.signal_inputs)
    raise ValueError(
        "expected a model with a layer with weights in front of its output, received one without; name the layer whose "
        "output is the representation as representation="
    )
