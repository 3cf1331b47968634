"""The gradient, and the input times the gradient."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import keras
import tensorflow as tf

from ..analysis.batching import tensors_of
from ..checks import has_graph, one_of
from ..data.inputs import take
from ..graph.callable_graph import CallableGraph
from ..graph.model_graph import ModelGraph, Step
from .backward import BackwardAnalyzer
from .tables import Rule, vjp

POSTPROCESS = (None, "abs", "square")


class Gradient(BackwardAnalyzer):
    """The gradient of the explained output (Simonyan et al. 2014).

    It takes any differentiable model, a subclassed one and any function of
    the inputs too, of which no layers are known: then ``output_layer``,
    ``input_layer``, ``output``, and files are not there.

    Args:
        model, neuron_selection_mode, output_layer, input_layer, output,
            target: See :class:`~.backward.BackwardAnalyzer`. "all" gives the
            gradient of the sum of all outputs.
        postprocess: None, or ``"abs"`` or ``"square"`` of the gradient.

    Raises:
        ValueError: For a value that an option does not take; for a model with
            integer inputs.
    """

    name = "gradient"
    _held_at_once = 0.5

    def __init__(self, model: keras.Model, *, postprocess: str | None = None, **options: Any):
        super().__init__(model, **options)
        postprocess = one_of("postprocess", postprocess, POSTPROCESS)
        self.postprocess = postprocess
        self.options["postprocess"] = postprocess
        self._prepare()

    def _graph_of(self, model: Any, output_layer: str | None, output: Any, target: Any) -> ModelGraph:
        if has_graph(model):
            return super()._graph_of(model, output_layer, output, target)
        if output_layer is not None or output is not None:
            raise ValueError(
                "expected a Sequential or functional model, whose layers and outputs have names, received "
                f"output_layer={output_layer!r} and output={output!r} for {type(model).__name__}; give target=, a "
                "function of the outputs"
            )
        return CallableGraph(model, target)

    def _prepare(self) -> None:
        if isinstance(self.graph, CallableGraph):
            if self.options.get("input_layer") is not None:
                raise ValueError(
                    "expected a Sequential or functional model, whose layers have names, received "
                    f"input_layer={self.options['input_layer']!r} for {type(self.model).__name__}; leave it out"
                )
            if not self.graph.steps:
                return  # it waits for samples
        super()._prepare()

    def _meet(self, X: Any) -> None:
        graph = self.graph
        if isinstance(graph, CallableGraph) and graph.meet(X):
            self._sizes.clear()
            self._forget_traces()
            for name in ("inputs", "starts", "reached_starts", "gates", "varied", "references"):
                self.__dict__.pop(name, None)
            self._prepare()
            if graph.target is None:
                rows = self._input(X)
                first = take(rows, slice(0, 64))
                graph.warn_of_probabilities(self._logits(*tensors_of(first)).numpy())

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """See :meth:`mipin_keras.Analyzer.save`; not for a model without a graph, which no file tells from others."""
        if isinstance(self.graph, CallableGraph):
            raise ValueError(
                "expected a Sequential or functional model to save an analyzer of, received "
                f"{type(self.model).__name__}, which has no graph to know it by; create the analyzer anew"
            )
        return super().save(path)

    def rule(self, step: Step) -> Rule | None:
        return vjp

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """1 at the explained output."""
        return shares

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        if self.postprocess is None:
            return signal
        return tf.abs(signal) if self.postprocess == "abs" else tf.square(signal)


class InputTimesGradient(Gradient):
    """The input times the gradient (Shrikumar et al. 2016); at an ``input_layer``, its output times the gradient.

    Args, Raises: As :class:`Gradient`; ``postprocess`` acts on the gradient,
    before the product.
    """

    name = "input_t_gradient"

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return start * super().finish(signal, start)
