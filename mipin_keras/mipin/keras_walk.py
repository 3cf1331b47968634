"""The walk down as Keras layers: the explained model as one, then one for each node of the inverse graph."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import propagation
from .forward_pass import ForwardPass
from .inverse_graph import Node
from .inverse_layer import Masked, Widened
from .network import InverseNetwork

Arrays = dict[int, tuple[np.ndarray, ...]]


class ExplainedModel(keras.layers.Layer):
    """A model as one layer that gives its explained logit and what the inverses need of its forward pass.

    The model always runs as at inference, and is not trainable here. Its
    weights are the user's model's own, no copies; whether that one trains
    them is left as it is.

    Call arguments:
        x: The model's input, ``(n, ...)``; a list of its inputs.

    Output: A dict: ``"signal"``, where the walk down starts, float32 ``(n, 1)``
    or ``(n, neurons)``; ``"records"``, by the node's index as text, and
    ``"masks"``, by the tensor's id as text, those that there are; and
    ``"ends"``, the tensors where the explanation ends, float32, a list.

    Args:
        network: The inverse network.
        unit: The explained class; an int variable for one that changes.
        masks: Ids of the tensors whose masks [X != 0] to give.
        name: Of the layer.
    """

    supports_jit = False  # the models' own layers and inverses may hold what XLA does not know

    def __init__(self, network: InverseNetwork, unit: int | tf.Variable, masks: set[int], name: str):
        super().__init__(name=name, dtype="float32", autocast=False, trainable=False)
        self.supports_jit = False
        self.network = network
        self._unit = unit
        self._masks = sorted(masks)
        self.built = True

    @property
    def explained(self) -> keras.Model:
        """The user's model. Keras does not track it, so that nothing here changes it; it is found when saving."""
        return self.network.graph.model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Given here, it counts for all layers within, whatever the model around is called with.
        return super().__call__(*args, **(kwargs | {"training": False}))

    def call(self, x: Any, training: bool = False) -> dict[str, Any]:
        network, graph = self.network, self.network.graph
        tensors = propagation.forward(graph, tuple(x) if isinstance(x, list | tuple) else x)
        records = {node.index: node.record(tensors) for node in network.nodes}
        records = network.head.records(records, self._unit)
        forward_pass = ForwardPass(tensors[graph.output], records, {})
        found: dict[str, Any] = {
            "signal": network.signal(forward_pass, self._unit),
            "ends": [tf.cast(tensors[start], tf.float32) for start in network.starts],
        }
        held = {str(index): list(record) for index, record in forward_pass.records.items() if record}
        masks = {str(tensor_id): tensors[tensor_id] != 0 for tensor_id in self._masks}
        return found | ({"records": held} if held else {}) | ({"masks": masks} if masks else {})

    # What Keras shows and saves: the model's weights are there, and not to train.

    @property
    def variables(self) -> list[Any]:
        return self.explained.variables

    @property
    def weights(self) -> list[Any]:
        return self.explained.weights

    @property
    def trainable_variables(self) -> list[Any]:
        return []

    @property
    def trainable_weights(self) -> list[Any]:
        return []

    @property
    def non_trainable_variables(self) -> list[Any]:
        return self.variables

    @property
    def non_trainable_weights(self) -> list[Any]:
        return self.weights


class FrozenModel(keras.Model):
    """A functional model that never trains the weights of the explained model in it, whatever that says of them."""

    def _own(self, variables: list[Any]) -> list[Any]:
        layers = (layer for layer in self.layers if isinstance(layer, ExplainedModel))
        explained = {id(variable) for layer in layers for variable in layer.variables}
        return [variable for variable in variables if id(variable) not in explained]

    @property
    def trainable_variables(self) -> list[Any]:
        return self._own(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[Any]:
        return self._own(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[Any]:
        trained = {id(v) for v in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    @property
    def non_trainable_weights(self) -> list[Any]:
        trained = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trained]


class Walk:
    """The walk down as Keras layers.

    Args:
        network: The inverse network.
        unit: See :class:`ExplainedModel`.
        masks: Ids of the tensors at which the signal is masked once the walk is done.
        keep: Ids of tensors on the way whose signals to keep.

    Attributes:
        input: The Keras tensor that it starts from, or a list of them.
        ends: What the explanation is to reconstruct, by the tensor's id: the
            tensors where it ends.
        signals: The Keras tensors of the source signals, at the starts and at
            the tensors in ``keep``, by the tensor's id.
        layers: The Keras layer of each node, by the node's index.
    """

    def __init__(self, network: InverseNetwork, unit: int | tf.Variable, masks: set[int], keep: set[int]):
        self.network = network
        graph = network.graph
        names = {tensor_id: name for name, tensor_id in sorted(graph.ends.items(), reverse=True)}
        self._names: set[str] = set()
        self._made_by = {step.output: step for step in graph.steps}
        given = [
            keras.Input(graph.shapes[n], dtype=graph.dtypes[n], name=self._unique(safe(names.get(n, "input"))))
            for n in graph.inputs
        ]
        self.input = given if len(given) > 1 else given[0]
        explained = ExplainedModel(network, unit, masks, self._unique("explained"))(self.input)
        self.ends = dict(zip(network.starts, explained["ends"], strict=True))
        self.layers: dict[int, keras.layers.Layer] = {}
        records: dict[str, Any] = explained.get("records", {})
        waiting = {graph.output: [explained["signal"]]}
        self.signals: dict[int, Any] = {}
        for node in network.nodes:
            arrived = waiting.pop(node.output)
            if node.step is not None and node.output in keep:
                self.signals[node.output] = self._in_all_channels(node, unit, arrived[0])
            self.layers[node.index] = layer = node.inverse.keras_layer(
                self._unique(f"{safe(self._label(node))}_inverse")
            )
            taken = arrived[0] if node.step is not None else arrived
            found = layer(taken, *records.get(str(node.index), ()))
            self._check(node, layer)
            for tensor_id, part in self._parts(node, found):
                waiting.setdefault(tensor_id, []).append(part)
        self.signals |= {start: waiting[start][0] for start in network.starts}
        for tensor_id in sorted(masks.intersection(self.signals)):
            name = self._unique(f"{safe(names.get(tensor_id, 'input'))}_mask")
            self.signals[tensor_id] = Masked(name)(self.signals[tensor_id], explained["masks"][str(tensor_id)])

    def _in_all_channels(self, node: Node, unit: int | tf.Variable, signal: Any) -> Any:
        """A signal at a node's output; in the head, where it is of one channel, with zeros beside it."""
        if not self.network.head.covers(node.output):
            return signal
        return Widened(self.network.graph.neurons, unit, self._unique(f"{safe(self._label(node))}_wide"))(signal)

    def weights(self) -> Arrays:
        """The weights of the learned nodes, by the node's index."""
        convert = keras.ops.convert_to_numpy
        return {
            node.index: tuple(np.array(convert(w)) for w in self.layers[node.index].weights)
            for node in self.network.learned
        }

    def assign(self, weights: dict[int, Any]) -> None:
        """Set the weights of the learned nodes, by the node's index."""
        for node in self.network.learned:
            for variable, value in zip(self.layers[node.index].weights, weights[node.index], strict=True):
                variable.assign(value)

    def _label(self, node: Node) -> str:
        """The node's name; of an operation by its type, as its own name changes where Keras builds the model anew."""
        step = self._made_by.get(node.output)
        if step is None or isinstance(step.layer, keras.layers.Layer):
            return node.name
        path = step.name.rpartition("/")[0]
        parts = [path, type(step.layer).__name__.lower(), "" if node.step is not None else "merge"]
        return "/".join(filter(None, parts))

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique

    def _check(self, node: Node, layer: keras.layers.Layer) -> None:
        expected = self.network.regression(node).weight_shapes if node.inverse.learned else ()
        found = tuple(tuple(w.shape) for w in layer.weights)
        if found != tuple(map(tuple, expected)):
            raise ValueError(
                f"expected the Keras layer of {type(node.inverse).__name__} for {node.name!r} to hold weights of "
                f"shapes {tuple(expected)}, received {found}; let its keras_layer() return one that does"
            )

    def _parts(self, node: Node, found: Any) -> list[tuple[int, Any]]:
        """The signals that a node gives, with the id of the tensor that each arrives at."""
        if not node.inverse.merges or node.step is None:
            pairs = list(zip(node.inputs, [found], strict=True))
        else:
            carried = node.inverse.carries(node.step.signal_inputs)
            given = [n for n, tensor_id in zip(node.inputs, carried, strict=True) if tensor_id is not None]
            pairs = list(zip(given, found, strict=True))
        return [(tensor_id, part) for tensor_id, part in pairs if tensor_id is not None]


def safe(name: str) -> str:
    """A name that Keras and TensorFlow take for a layer: ``"inner/deep#2"`` is ``"inner_deep_2"``."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return plain if re.match(r"[A-Za-z0-9]", plain) else f"layer{plain}"
