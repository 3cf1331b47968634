"""Step: one thing that a model does to its tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from . import linear


@dataclasses.dataclass(frozen=True)
class TensorId:
    """Stands for a tensor in the recorded arguments of a call."""

    tensor_id: int


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One thing that the model does to its tensors.

    A layer with a built-in activation makes two steps: its linear part, and a
    ``keras.layers.Activation``. A shared layer makes one step per call, and a
    layer with several outputs one for each of them.

    Attributes:
        index: Position in ``ModelGraph.steps``.
        name: Unique; the layer's name, with the path of nested models before
            it, ``#2`` for a second call, ``/relu`` for a built-in activation,
            ``:1`` for a second output.
        layer: The Keras layer or operation.
        linear: Whether this is the layer without its built-in activation.
        inputs: Ids of the tensors it reads.
        output: Id of the tensor it makes.
        input_shapes, output_shape: Without the batch axis.
        built_in: Whether this is the activation that a layer has built in.
        part: Which of the layer's outputs it is, counted as
            ``keras.tree.flatten`` does; None for a layer that returns a tensor.
        masks: Keras' padding masks of its inputs, ``{tensor id: mask's id}``.
        floating: Ids of those of its inputs that are floating; None for all.
    """

    index: int
    name: str
    layer: Any
    linear: bool
    inputs: tuple[int, ...]
    output: int
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    arguments: tuple[tuple, dict]
    built_in: bool = False
    part: int | None = None
    masks: dict[int, int] = dataclasses.field(default_factory=dict)
    floating: frozenset[int] | None = None

    @functools.cached_property
    def signal_inputs(self) -> tuple[int, ...]:
        """The different inputs that a signal can arrive at: not tokens or masks, but what is floating."""
        found = dict.fromkeys(self.inputs)
        return tuple(n for n in found if self.floating is None or n in self.floating)

    @property
    def constants(self) -> list[Any]:
        """What it is called with besides tensors, without None."""
        leaves = keras.tree.flatten(self.arguments)
        return [leaf for leaf in leaves if leaf is not None and not isinstance(leaf, TensorId)]

    @property
    def model_layer(self) -> Any:
        """The layer of the model that this step is of, also where it is a part or a sum of that layer."""
        return getattr(self.layer, "separable_layer", getattr(self.layer, "combined_layer", self.layer))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input, without the batch axis."""
        return self.input_shapes[0]

    @property
    def mask(self) -> int | None:
        """Id of the padding mask of its first input, however the layer gets it; None without one."""
        given = self.arguments[1].get("mask")
        return given.tensor_id if isinstance(given, TensorId) else self.masks.get(self.inputs[0])

    @property
    def needs(self) -> tuple[int, ...]:
        """Ids of the tensors that must be there before it: its inputs, each once, and their masks."""
        return tuple(dict.fromkeys((*self.inputs, *self.masks.values())))

    def __call__(self, tensors: Any) -> Any:
        """The step's output from ``tensors``, a mapping or list from tensor id to tensor."""
        if self.linear:
            return linear.before_activation(self.layer, tensors[self.inputs[0]])
        if linear.normalizes_plainly(self.layer):
            return linear.normalized(self.layer, tensors[self.inputs[0]])[0]
        masks = {n: tensors[mask] for n, mask in self.masks.items()}
        masked = {n: with_mask(tensors[n], mask) for n, mask in masks.items() if mask is not None}
        args, kwargs = keras.tree.map_structure(
            lambda leaf: masked.get(leaf.tensor_id, tensors[leaf.tensor_id]) if isinstance(leaf, TensorId) else leaf,
            self.arguments,
        )
        with kept_states(self.layer):
            made = self.layer(*args, **kwargs)
        return made if self.part is None else keras.tree.flatten(made)[self.part]

    @property
    def type_name(self) -> str:
        """The type of its layer, for messages and reports; of a weighted sum of a layer's neurons, that layer's."""
        return type(getattr(self.layer, "combined_layer", self.layer)).__name__

    def __str__(self) -> str:
        return f"{self.name!r} ({self.type_name})"


def with_mask(tensor: tf.Tensor, mask: Any) -> tf.Tensor:
    """A tensor with Keras' padding mask, which layers read from this attribute of their inputs."""
    masked = tf.identity(tensor)  # of its own: the attribute must not reach other readers of the tensor
    masked._keras_mask = mask
    return masked


def states_within(layer: Any) -> list[Any]:
    """The variables that a layer, and those within it, carry from one call to the next.

    Recurrent layers say so. A layer of the user's may change any variable of
    its own that was never to be trained, such as a counter.
    """
    layer = getattr(layer, "masked_layer", layer)
    flattened = layer._flatten_layers() if hasattr(layer, "_flatten_layers") else [layer]
    return [state for one in flattened for state in _states(one)]


def _states(layer: Any) -> list[Any]:
    own = not type(layer).__module__.startswith("keras.")
    if not (own or getattr(layer, "stateful", False)):
        return []
    # Keras does not count the states of a recurrent layer among its variables; and among the public ones that are not
    # trained it counts the weights of a frozen layer, which are no state and may be large.
    states = keras.tree.flatten(getattr(layer, "states", None) or [])
    seeds = [generator.state for generator in getattr(layer, "_seed_generators", ())]
    return [*states, *getattr(layer, "_non_trainable_variables", ()), *seeds]


@contextlib.contextmanager
def kept_states(layer: Any) -> Iterator[None]:
    """Put the state of a stateful layer back after a call: an explanation leaves the model as it was."""
    states = states_within(layer)
    before = [tf.identity(variable.value) for variable in states]
    try:
        yield
    finally:
        for variable, value in zip(states, before, strict=True):
            variable.assign(value)
