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

from .checks import integer, number
from .data.batches import checked
from .graph import propagation
from .graph.model_graph import ModelGraph
from .targets import check_count

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

    # How many samples at once

    def _batch_size(self, X: Any, batch_size: int | None, memory: float) -> int:
        """How many samples of ``X`` to take at once."""
        budget = number("memory", memory, 0) * (1 << 30)
        if batch_size is not None:
            return integer("batch_size", batch_size, 1)
        return max(1, int(min(MOST_SAMPLES, budget / (self._held_at_once * self._sample_bytes(X)))))

    def _sample_bytes(self, X: Any) -> int:
        """Bytes of all that the network makes of one sample of ``X``."""
        shape = tuple(self.graph.shapes[self.graph.input])
        given = tuple(np.shape(X)[1:])
        if None in shape and len(given) == len(shape):
            shape = given
        if shape not in self._sizes:
            wide = any(getattr(step.layer, "compute_dtype", None) == "float64" for step in self.graph.steps)
            self._sizes[shape] = (8 if wide else 4) * self._values_made(shape)
        return self._sizes[shape]

    def _values_made(self, shape: tuple[int | None, ...]) -> int:
        shapes = [shape, *(step.output_shape for step in self.graph.steps)]
        if any(None in one for one in shapes):
            # What is open in the model, or in one nested in it, is traced for a sample of this shape.
            spec = tf.TensorSpec((1, *(size or 64 for size in shape)), self.graph.model.inputs[0].dtype)
            made: list[tuple[int | None, ...]] = []

            @tf.function(input_signature=[spec], autograph=False)
            def forward(x: tf.Tensor) -> None:
                made.extend(tuple(tensor.shape[1:]) for tensor in propagation.forward(self.graph, x).values())

            forward.get_concrete_function()
            shapes = made
        return sum(math.prod(size or 64 for size in one) for one in shapes)

    # The traced logits

    @functools.cached_property
    def _logits(self) -> Callable:
        spec = tf.TensorSpec((None, *self.graph.shapes[self.graph.input]), self.graph.model.inputs[0].dtype)

        @tf.function(input_signature=[spec], autograph=False)
        def logits(x: tf.Tensor) -> tf.Tensor:
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

    # Running over the batches

    def _batched(self, function: Callable, X: Any, neuron_selection: Any, batch_size: int) -> np.ndarray:
        x, found, done = self._input(X), None, 0
        for part in self._parts(function, x, neuron_selection, batch_size):
            if found is None:
                if len(part) == len(x):
                    return part
                found = np.empty((len(x), *part.shape[1:]), part.dtype)
            found[done : done + len(part)] = part
            done += len(part)
        return np.asarray(found)

    def _input(self, X: Any) -> np.ndarray:
        return checked(X, self.graph.shapes[self.graph.input], self.graph.model.inputs[0].dtype)

    def _parts(self, function: Callable, x: np.ndarray, neuron_selection: Any, batch_size: int) -> Iterator[Any]:
        """What ``function(x, neuron_selection)`` makes of each batch of x."""
        self._refresh()
        if neuron_selection is not None:
            check_count(np.size(neuron_selection), len(x))
        for i in range(0, len(x), batch_size):
            chosen = neuron_selection
            if chosen is not None and np.size(chosen) > 1:
                chosen = np.asarray(chosen).reshape(-1)[i : i + batch_size]
            yield function(x[i : i + batch_size], chosen)
