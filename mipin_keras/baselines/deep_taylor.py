"""Deep Taylor decomposition, for any input and for input between bounds."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import kinds
from ..checks import one_of
from ..graph import Step
from ..walk import Pass
from . import backward
from .bounds import BoundedInput, InputBounds
from .rules import AlphaBeta, Gated, Standardized, Z


class DeepTaylor(backward.BackwardAnalyzer):
    """Deep Taylor decomposition of ReLU networks (Montavon et al. 2017).

    The explained output is rectified first: where it is negative, the map is
    0. Every layer with weights shares relevance by the rule z+, in which
    positive contributions count only, and no bias; on a plain chain of Dense
    layers and ReLUs the map of a sample sums to its rectified logit. Poolings
    and batch normalisation take the gradient, as in iNNvestigate; so does a
    layer normalisation, with its divisor held. A sum over axes shares in equal
    parts. A scaling by constants leaves relevance as it is, and of the product
    of a signal and a gate the signal takes all.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`.
        merge: How an Add treats relevance: ``"copy"`` gives all of it to each
            input, as iNNvestigate does, so that the sum grows with each;
            ``"share"`` gives each its share, which keeps the sum. An Average
            gives equal parts, or with ``"share"`` such shares.
        relu: What a ReLU does with relevance that reaches it where it is
            inactive, as it does behind an average pooling: ``"keep"`` passes
            it on to be shared, which keeps the sum; ``"drop"`` does not, as
            the gradient. None is iNNvestigate's: a ReLU that a Dense layer or
            convolution has built in keeps, one of its own drops.
        activations: ``"relu"`` refuses a network with other activations, as
            the method is for ReLUs; with ``"any"`` the others keep relevance,
            as in LRP.

    Raises:
        ValueError: For an unknown ``merge``, ``relu`` or ``activations``; for
            a network with activations other than ReLU, unless they are let
            in, or with layers that the method is not defined for, naming
            each.
    """

    name = "deep_taylor"
    _held_at_once = 1.3

    def __init__(
        self,
        model: keras.Model,
        *,
        merge: str = "copy",
        relu: str | None = None,
        activations: str = "relu",
        **options: Any,
    ):
        super().__init__(model, **options)
        one_of("merge", merge, ("copy", "share"))
        one_of("relu", relu, (None, "keep", "drop"))
        one_of("activations", activations, backward.ACTIVATIONS)
        self.merge, self.relu, self.activations = merge, relu, activations
        self.options |= {"merge": merge, "relu": relu, "activations": activations}
        self._not_negative = kinds.not_negative(self.graph)
        self._prepare()

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(logits) * shares

    @functools.cached_property
    def gates(self) -> dict[int, int]:
        return kinds.gates(self.graph)

    def advice(self, unknown: list[Step]) -> str:
        others = self.activations == "relu" and any(kinds.kind_of(step) == kinds.ACTIVATION for step in unknown)
        return "give activations='any' to keep relevance at other activations than ReLU; " if others else ""

    def rule(self, step: Step) -> backward.Rule | None:
        kind = kinds.kind_of(step)
        if kind == kinds.KERNEL:
            return AlphaBeta(bias=False, nonnegative=step.inputs[0] in self._not_negative)
        if kind == kinds.RECTIFIER:
            keeps = step.built_in if self.relu is None else self.relu == "keep"
            return backward.keep if keeps else _where_active
        if kind in (kinds.IDENTITY, kinds.SCALE) or (kind == kinds.ACTIVATION and self.activations == "any"):
            return backward.keep
        if kind == kinds.ADD and self.merge == "share":
            return Z()
        if kind == kinds.STANDARDIZATION:
            return Standardized(shares=False)
        if kind == kinds.GATE:
            return Gated(self.gates[step.index]) if step.index in self.gates else None
        if kind == kinds.AVERAGE and type(step.layer).__name__ == "Sum":
            return backward.in_equal_parts
        linear = (kinds.STRUCTURE, kinds.MAX, kinds.AVERAGE, kinds.CONCATENATE, kinds.NORMALIZATION, kinds.ADD)
        return backward.pull if kind in linear else None


def _where_active(step: Step, seen: Pass, signal: tf.Tensor) -> tf.Tensor:
    """The gradient of a ReLU, and relevance kept where a cap makes it 0."""
    return tf.where(seen.output > 0, tf.cast(signal, seen.output.dtype), tf.zeros((), seen.output.dtype))


class BoundedDeepTaylor(DeepTaylor):
    """Deep Taylor decomposition for inputs between bounds: the rule z^B at the first layers (Montavon et al. 2017).

    Args:
        model: And the options of :class:`DeepTaylor`, without ``input_layer``.
        low, high: The bounds of the input: numbers, or arrays that broadcast
            to one sample, such as one a channel.

    Raises:
        ValueError: As :class:`DeepTaylor`; for bounds that are missing, not
            finite or inverted; when analyzing, for input outside of them.
    """

    name = "deep_taylor.bounded"
    _fixed = frozenset({"input_layer"})

    def __init__(self, model: keras.Model, *, low: Any = None, high: Any = None, **options: Any):
        self.bounds: InputBounds | None = None
        super().__init__(model, input_layer=None, **options)
        self.bounds = InputBounds(self.graph, low, high)
        self._first = {step.index for step in kinds.first_kernels(self.graph, self.graph.steps)}
        if not self._first:
            raise ValueError(f"{self.name!r} finds no layer with weights at the input; take 'deep_taylor'")
        self.options |= {"low": np.asarray(low).tolist(), "high": np.asarray(high).tolist()}
        self._prepare()

    def rule(self, step: Step) -> backward.Rule | None:
        if self.bounds is not None and step.index in self._first:
            return BoundedInput(self.bounds)
        return super().rule(step)

    def _explain(self, x: np.ndarray, neuron_selection: Any, numbers: tuple[int, ...]) -> list[np.ndarray]:
        if self.bounds is not None:
            self.bounds.check(x)
        return super()._explain(x, neuron_selection, numbers)
