"""Deep Taylor decomposition, for any input and for input between bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import one_of
from ..graph import step_types
from ..graph.model_graph import Step
from ..graph.propagation import StepTrace
from .backward import ReLUAnalyzer
from .lrp.input_bounds import BoundedInput, InputBounds
from .lrp.nonlinear_rules import Gated, Standardized
from .lrp.rules import AlphaBeta, Z
from .tables import Entry, PerGate, PerStep, Rule, in_equal_parts, pass_through, vjp


class DeepTaylor(ReLUAnalyzer):
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
    lets_in = "keep relevance at"
    _held_at_once = 1.3

    def __init__(
        self,
        model: keras.Model,
        *,
        merge: str = "copy",
        relu: str | None = None,
        **options: Any,
    ):
        super().__init__(model, **options)
        merge = one_of("merge", merge, ("copy", "share"))
        relu = one_of("relu", relu, (None, "keep", "drop"))
        self.merge, self.relu = merge, relu
        self.options |= {"merge": merge, "relu": relu}
        self._not_negative = step_types.not_negative(self.graph)
        self._prepare()

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(logits) * shares

    def of_target(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The outputs above 0 that raise the target, times its gradient: the decomposition is of positive values."""
        gradients = trace.vjp(tf.ones_like(trace.output))
        pairs = zip(trace.inputs, gradients, strict=True)
        return tuple(tf.nn.relu(x) * tf.nn.relu(tf.cast(part, x.dtype)) for x, part in pairs)

    @property
    def table(self) -> Mapping[str, Entry]:
        return {
            step_types.KERNEL: PerStep(self._kernel_rule),
            step_types.RECTIFIER: PerStep(self._rectifier_rule),
            step_types.ACTIVATION: pass_through,
            step_types.IDENTITY: pass_through,
            step_types.AFFINE: pass_through,
            step_types.STANDARDIZATION: Standardized(shares=False),
            step_types.GATE: PerGate(Gated),
            step_types.SUM: in_equal_parts,
            step_types.ADD: Z() if self.merge == "share" else vjp,
            step_types.STRUCTURE: vjp,
            step_types.MAX: vjp,
            step_types.AVERAGE: vjp,
            step_types.CONCATENATE: vjp,
            step_types.NORMALIZATION: vjp,
        }

    def _kernel_rule(self, step: Step) -> Rule:
        return AlphaBeta(bias=False, nonnegative=step.inputs[0] in self._not_negative)

    def _rectifier_rule(self, step: Step) -> Rule:
        keeps = step.built_in if self.relu is None else self.relu == "keep"
        return pass_through if keeps else _where_active


def _where_active(step: Step, trace: StepTrace, signal: tf.Tensor) -> tf.Tensor:
    """The gradient of a ReLU, and relevance kept where a cap makes it 0."""
    return tf.where(trace.output > 0, signal, tf.zeros((), signal.dtype))


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
        super().__init__(model, input_layer=None, **options)
        self.bounds = InputBounds(self.graph, low, high)
        self._first = {step.index for step in step_types.first_kernel_steps(self.graph, self.graph.steps)}
        if not self._first:
            raise ValueError(
                f"{self.name!r} expected layers with weights at the input, received a model without; take 'deep_taylor'"
            )
        self.options |= {"low": np.asarray(low).tolist(), "high": np.asarray(high).tolist()}
        self._prepare()

    def _kernel_rule(self, step: Step) -> Rule:
        if self.bounds is not None and step.index in self._first:
            return BoundedInput(self.bounds)
        return super()._kernel_rule(step)
