"""Batching: how an analyzer runs over its samples, in batches that its memory has room for."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import integer, number
from ..data.inputs import Inputs, InputSpec, count, take
from ..graph import comparison, propagation
from ..graph.model_graph import ModelGraph
from ..graph.steps import states_within
from ..targets import check_count

#: GiB that an analysis may take beside the model, unless told otherwise.
MEMORY = 2.0
#: Most samples at once that an analysis takes of itself.
MOST_SAMPLES = 128


class Batching:
    """The part of an analyzer that runs a function over samples.

    Args:
        graph: The model's steps.
    """

    #: What an analysis holds of one sample at its peak, in multiples of all that the network makes of it: measured by
    #: ``python -m benchmarks memory``, and rounded up by a third or more.
    _held_at_once: float = 1.8

    def __init__(self, graph: ModelGraph):
        self.graph = graph
        self._constants: list[Any] = []
        self._sizes: dict[tuple, int] = {}
        self._compared = False

    # What goes in

    @functools.cached_property
    def inputs(self) -> Inputs:
        """What the model takes: the names, shapes and dtypes of its inputs."""
        graph = self.graph
        names = graph.input_names
        return Inputs(
            [InputSpec(name, graph.shapes[n], graph.dtypes[n]) for name, n in zip(names, graph.inputs, strict=True)]
        )

    @property
    def _input_specs(self) -> list[tf.TensorSpec]:
        graph = self.graph
        # A fixed batch is part of a state's shape; other layers take any.
        batch = graph.batch if states_within(graph.model) else None
        return [tf.TensorSpec((batch, *graph.shapes[n]), graph.dtypes[n]) for n in graph.inputs]

    def _meet(self, X: Any) -> None:
        """Take what is to be known of the samples before any work, for a model that does not say it itself."""

    # How many samples at once

    def _batch_size(self, X: Any, batch_size: int | None, memory: float) -> int:
        """How many samples of ``X`` to take at once."""
        budget = number("memory", memory, 0) * (1 << 30)
        self._meet(X)
        if self.graph.batch is not None:
            if batch_size not in (None, self.graph.batch):
                raise ValueError(
                    f"expected batch_size={self.graph.batch}, which the model is built for, received {batch_size}; "
                    "leave it out"
                )
            return self.graph.batch
        if batch_size is not None:
            return integer("batch_size", batch_size, 1)
        return max(1, int(min(MOST_SAMPLES, budget / (self._held_at_once * self._sample_bytes(X)))))

    def _sample_bytes(self, X: Any) -> int:
        """Bytes of all that the network makes of one sample of ``X``."""
        shapes = tuple(self.graph.shapes[n] for n in self.graph.inputs)
        if len(shapes) == 1 and None in shapes[0]:
            # What is no array is not read for this.
            given = tuple(np.shape(X) if isinstance(X, list | tuple) else getattr(X, "shape", ()))[1:]
            if len(given) == len(shapes[0]) and all(w in (None, g) for w, g in zip(shapes[0], given, strict=True)):
                shapes = (given,)
        if shapes not in self._sizes:
            wide = any(getattr(step.layer, "compute_dtype", None) == "float64" for step in self.graph.steps)
            self._sizes[shapes] = (8 if wide else 4) * self._values_made(shapes)
        return self._sizes[shapes]

    def _values_made(self, of_inputs: tuple[tuple[int | None, ...], ...]) -> int:
        shapes = [*of_inputs, *(step.output_shape for step in self.graph.steps)]
        if any(None in one for one in shapes):
            # What is open in the model, or in one nested in it, is traced for a sample of this shape.
            specs = [
                tf.TensorSpec((self.graph.batch or 1, *(size or 64 for size in shape)), self.graph.dtypes[n])
                for n, shape in zip(self.graph.inputs, of_inputs, strict=True)
            ]
            made: list[tuple[int | None, ...]] = []

            @tf.function(input_signature=specs, autograph=False)
            def forward(*x: tf.Tensor) -> None:
                made.extend(tuple(tensor.shape[1:]) for tensor in propagation.forward(self.graph, x).values())

            forward.get_concrete_function()
            shapes = made
        return sum(math.prod(size or 64 for size in one) for one in shapes)

    # The traced logits

    @functools.cached_property
    def _logits(self) -> Callable:
        @tf.function(input_signature=self._input_specs, autograph=False)
        def logits(*x: tf.Tensor) -> tf.Tensor:
            return tf.cast(propagation.forward(self.graph, x)[self.graph.output], tf.float32)

        # Traced here and now: TensorFlow warns of retracing where many functions come from one line.
        return logits.get_concrete_function()

    def _refresh(self) -> None:
        """Let go of traced functions that hold a constant which its layer has made anew.

        A trace reads a model's variables each time it is called. What a layer
        computes once from its variables, as ``Normalization.adapt`` does its
        mean and variance, the trace keeps.
        """
        constants = [constant for layer in self._normalizations for constant in (layer.mean, layer.variance)]
        if any(map(operator.is_not, constants, self._constants)):
            self._forget_traces()
        self._constants = constants

    @functools.cached_property
    def _normalizations(self) -> list[Any]:
        return [step.layer for step in self.graph.steps if isinstance(step.layer, keras.layers.Normalization)]

    def _forget_traces(self) -> None:
        self.__dict__.pop("_logits", None)

    # The comparison with the model

    def _compare_once(self, x: Any) -> None:
        """Raise ValueError unless the steps give the model's own output for the first batch that comes by.

        What a layer does behind the back of Keras' graph would make a map of
        another network. It is found out here.
        """
        if not self._compared:
            if self.graph.batch is not None:
                x = take(x, np.arange(self.graph.batch) % count(x))
            difference, limit = comparison.compared(self.graph, tensors_of(x))
            if not difference <= limit:
                raise ValueError(
                    f"expected the model's own output from its layers one by one, received another: they differ by "
                    f"{difference:.2g} of the largest value, on the first samples; a layer does something that the "
                    "model's graph does not show, or draws at random at inference; replace that layer, or explain the "
                    "part of the model in front of it with output_layer="
                )
            self._compared = True

    # Running over the batches

    def _batched(self, function: Callable, X: Any, neuron_selection: Any, batch_size: int, maps: bool = True) -> Any:
        """What ``function`` makes of all samples: an array, or with ``maps`` the structure of X if it is one."""
        x, done = self._input(X), 0
        found: list[np.ndarray] = []
        n = count(x)
        for part in self._parts(function, x, neuron_selection, batch_size):
            parts = part if isinstance(part, tuple) else (part,)
            if not found:
                if len(parts[0]) == n:
                    found = list(parts)
                    break
                found = [np.empty((n, *one.shape[1:]), one.dtype) for one in parts]
            for whole, one in zip(found, parts, strict=True):
                whole[done : done + len(one)] = one
            done += len(parts[0])
        if not maps:
            return found[0]
        return self.inputs.pack(found, X) if len(found) == len(self.inputs) else found[0]

    def _input(self, X: Any) -> Any:
        arrays = self.inputs.arrays(X)
        return arrays if len(arrays) > 1 else arrays[0]

    def _parts(self, function: Callable, x: Any, neuron_selection: Any, batch_size: int) -> Iterator[Any]:
        """What ``function(x, neuron_selection)`` makes of each batch of x."""
        self._refresh()
        n = count(x)
        if neuron_selection is not None:
            check_count(np.size(neuron_selection), n)
        for i in range(0, n, batch_size):
            rows = np.arange(i, min(i + batch_size, n))
            own = len(rows)
            if self.graph.batch is not None:  # filled up with the last sample
                rows = np.minimum(np.arange(i, i + self.graph.batch), n - 1)
            chosen = neuron_selection
            if chosen is not None and np.size(chosen) > 1:
                chosen = np.asarray(chosen).reshape(-1)[rows]
            batch = take(x, slice(i, i + own) if len(rows) == own else rows)
            self._compare_once(batch)
            made = function(batch, chosen)
            yield made if len(rows) == own else _first(made, own)


def _first(made: Any, n: int) -> Any:
    """The first samples of arrays, in whatever they are held in."""
    return tf.nest.map_structure(lambda array: array[:n], made)


def tensors_of(x: Any) -> tuple[tf.Tensor, ...]:
    """A batch, an array or a tuple of arrays, as tensors."""
    return tuple(map(tf.convert_to_tensor, x if isinstance(x, tuple) else (x,)))
