"""LRP's rules for steps that are not linear: standardizations, and products with a gate.

References: Arras et al. 2017 (gates), Ali et al. 2022 (layer normalisation).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ...graph import linear, propagation
from ...graph.model_graph import Step
from ...graph.propagation import StepTrace
from .rules import Relevance, Rule, divided


@dataclasses.dataclass(frozen=True)
class Standardized(Rule):
    """For what standardizes each sample by itself: the divisor is taken for a constant (Ali et al. 2022).

    What is left is linear, ``z = gamma (x - mean) / sigma + beta``, and has
    the rule Z, in which the share of beta is lost as a bias's is: with
    ``beta=0`` and a mean, sums are kept, and without a mean, as in RMS
    normalisation, so is the relevance of every element.

    Attributes:
        shares: Whether relevance is shared by Z; else the signal is carried
            as the gradient with that constant carries it.
    """

    shares: bool = True

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        given = trace.inputs[0]
        part = linear.standardization(step.layer, given)
        x = tf.cast(given, part.kernel.dtype)
        _, back = part.with_adjoint(x)
        signal = tf.cast(signal, x.dtype)
        if not self.shares:
            return back(signal)
        return x * back(divided(signal, tf.cast(trace.output, x.dtype)))


@dataclasses.dataclass(frozen=True)
class Gated(Rule):
    """For a product of a signal and a gate: the signal takes all relevance (Arras et al. 2017).

    Attributes:
        gate: The id of the gate's tensor.
    """

    gate: int

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        return tuple(
            tf.zeros_like(x) if tensor_id == self.gate else propagation.wide(signal, x)
            for tensor_id, x in zip(step.signal_inputs, trace.inputs, strict=True)
        )
