"""The head: the part of the inverse that reads the explained channel alone, as all others are 0 there.

Above a model's last learned layer all that happens to a logit happens to its
own channel: pooling, activations, reshaping. Of a signal that is 0 in all
channels but one, such steps make one that is 0 in all channels but one. So the
signal there has one channel, and the first learned inverse reads one: a kernel
of 1,000 channels would multiply 999 zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph.model_graph import ModelGraph, Step
from .forward_pass import mask_of
from .inverse import Inverse, Record, Weights, make_inverse
from .inverse_graph import Node
from .layers import pooling, structural
from .layers.conv import ConvInverse
from .layers.dense import DenseInverse

Records = dict[int, Record]


def _always(inverse: Any) -> bool:
    return True


def _keeps_last_axis(inverse: Any) -> bool:
    return inverse.step.input_shape[-1] == inverse.step.output_shape[-1]


# The inverses that keep channels apart and make 0 of 0, by their very type, and whether one of them does so with its
# settings. One of a user's own may do anything, and ends the head; so does a learned one but the last, as its bias
# fills channels that were 0.
_APART: dict[type, Callable[[Any], bool]] = {
    structural.ActivationInverse: _always,
    structural.IdentityInverse: _always,
    structural.ReshapeInverse: _keeps_last_axis,
    structural.PermuteInverse: lambda inverse: inverse.order[-1] == len(inverse.order) - 1,
    structural.RepeatVectorInverse: _always,
    structural.ZeroPaddingInverse: _always,
    structural.PadInverse: _keeps_last_axis,
    structural.CroppingInverse: _always,
    structural.CenterCropInverse: _always,
    structural.InterpolationInverse: _always,
    pooling.MaxPoolInverse: _always,
    pooling.AveragePoolInverse: _always,
    **dict.fromkeys(
        (pooling.MeanInverse, pooling.SumInverse, pooling.MaxInverse),
        lambda inverse: len(inverse.step.input_shape) not in inverse.gone,
    ),
}


class OneChannel(Inverse):
    """The inverse of a step that keeps channels apart, for the signal of one channel.

    What it records is all channels', as every class reads it of one forward
    pass; :meth:`narrow` takes a class' own.

    Args:
        wide: The step's inverse for all channels.
        narrowed: The same for one.
    """

    def __init__(self, wide: Inverse, narrowed: Inverse):
        super().__init__(wide.step, forward_relu=wide.forward_relu)
        self.wide, self.narrowed = wide, narrowed

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return self.wide.record(x, y)

    def narrow(self, record: Record, channel: int) -> Record:
        """What of :meth:`record` is of one channel: ``(n, ..., 1)`` of tensors ``(n, ..., channels)``."""
        own = tuple(_channel(part, channel) for part in record)
        if isinstance(self.wide, pooling.MaxPoolInverse):  # flat indices, which count the channels
            own = tuple(switches // self.wide.input_shape[-1] for switches in own)
        return own

    def keras_layer(self, name: str) -> keras.layers.Layer:
        return self.narrowed.keras_layer(name)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.narrowed.source(signal, record, weights)

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self.narrowed.attribution(signal, record, weights)


class Head:
    """The nodes from the output down to the first learned one that need the explained channel alone.

    Args:
        graph: The model's steps.
        nodes: Of the inverse network, from the output down.
        options: Of the inverses.

    Attributes:
        nodes: The same, those of the head with inverses for one channel.
        learned: The learned node that ends it and reads one channel; None
            without a head.
    """

    def __init__(self, graph: ModelGraph, nodes: list[Node], options: dict[str, Any]):
        self.graph, self.nodes = graph, nodes
        self.learned: Node | None = None
        self._apart: dict[int, OneChannel] = {}
        self._tensors: set[int] = set()
        self._length = 0
        length = _length(nodes, graph.neurons)
        if length is None:
            return
        above = [_narrowed(node, options) for node in nodes[:length]]
        last = _reading_one(nodes[length], options)
        self.nodes = [*above, last, *nodes[length + 1 :]]
        self.learned, self._length = last, length
        self._apart = {node.index: node.inverse for node in above if isinstance(node.inverse, OneChannel)}
        self._tensors = {node.output for node in nodes[: length + 1]}

    @property
    def narrow(self) -> bool:
        """Whether signals start in the explained channel alone."""
        return self.learned is not None

    def records(self, records: Records, neuron: int, position: int = 0) -> Records:
        """What a forward pass recorded, as the walk of one class reads it: in the head of its own channel.

        Args:
            records: Of the forward pass, which all classes share.
            neuron: The class.
            position: Of the node that comes next in the walk: below the head
                there is nothing to do.
        """
        if not self._length or position > self._length:
            return records
        found = dict(records)
        for index, inverse in self._apart.items():
            if index in found:
                found[index] = inverse.narrow(found[index], neuron)
        for mask in map(mask_of, self._tensors):
            if mask in found:
                found[mask] = tuple(_channel(part, neuron) for part in found[mask])
        return found

    def covers(self, tensor_id: int) -> bool:
        """Whether the signal at a tensor is of the explained channel alone."""
        return tensor_id in self._tensors

    def widen(self, tensor_id: int, signal: tf.Tensor, neuron: int) -> tf.Tensor:
        """A signal that the walk of class ``neuron`` kept at a tensor, in all channels: zeros beside its own."""
        if not self.covers(tensor_id):
            return signal
        return signal * tf.one_hot(neuron, self.graph.neurons, dtype=signal.dtype)

    def stored_shapes(self, node: Node, wide: bool) -> tuple[tuple[int, ...], ...]:
        """The shapes in which a file holds a learned node's weights.

        Args:
            node: A learned node.
            wide: Whether the file is of a version that read all channels
                below anything but a Dense layer.
        """
        shapes = node.inverse.weight_shapes  # type: ignore[attr-defined]
        axis = self._channel_axis(node) if wide else None
        if axis is None:
            return shapes
        kernel, *rest = shapes
        return (tuple(self.graph.neurons if i == axis else size for i, size in enumerate(kernel)), *rest)

    def of_channel(self, node: Node, weights: tuple[Any, ...], neuron: int, wide: bool) -> tuple[Any, ...]:
        """A file's weights as the node here has them: those of the other channels met zeros alone.

        Args:
            node, wide: As of :meth:`stored_shapes`.
            weights: Arrays of these shapes.
            neuron: The class whose weights they are.
        """
        axis = self._channel_axis(node) if wide else None
        if axis is None:
            return weights
        kernel, *rest = weights
        return (np.take(kernel, [neuron], axis), *rest)

    def _channel_axis(self, node: Node) -> int | None:
        """The axis of a kernel that has one channel here and had all before; None for the kernels of other nodes."""
        if not self._length or self.learned is None or node.index != self.learned.index:
            return None  # a Dense layer at the very top read one channel always
        kernel = node.inverse.weight_shapes[0]  # type: ignore[attr-defined]
        return 0 if isinstance(node.inverse, DenseInverse) else len(kernel) - 1


def _channel(tensor: tf.Tensor, channel: Any) -> tf.Tensor:
    """One channel, an int or an int variable, as an axis of one."""
    return tensor[..., channel][..., None]


def _length(nodes: list[Node], channels: int) -> int | None:
    """How many nodes stand above the learned one that ends the head; None without one."""
    for position, node in enumerate(nodes):
        inverse = node.inverse
        if node.step is None or node.step.output_shape[-1:] != (channels,):
            return None
        if isinstance(inverse, DenseInverse) or (type(inverse) is ConvInverse and inverse.groups == 1):
            return position
        apart = _APART.get(type(inverse))
        if apart is None or node.step.input_shape[-1:] != (channels,) or not apart(inverse):
            return None
    return None


def _one_channel(step: Step, inputs: bool) -> Step:
    """The step with one channel at its output, and at its input too."""
    shapes = tuple((*shape[:-1], 1) for shape in step.input_shapes) if inputs else step.input_shapes
    return dataclasses.replace(step, input_shapes=shapes, output_shape=(*step.output_shape[:-1], 1))


def _narrowed(node: Node, options: Mapping[str, Any]) -> Node:
    if node.step is None:
        raise TypeError(f"expected a node that inverts a step, received {node.name!r}, where signals meet")
    return dataclasses.replace(
        node, inverse=OneChannel(node.inverse, make_inverse(_one_channel(node.step, True), **options))
    )


def _reading_one(node: Node, options: Mapping[str, Any]) -> Node:
    if isinstance(node.inverse, DenseInverse):
        node.inverse.read_from(1)
        return node
    if node.step is None:
        raise TypeError(f"expected a node that inverts a step, received {node.name!r}, where signals meet")
    return dataclasses.replace(node, inverse=make_inverse(_one_channel(node.step, False), **options))
