"""A method's table from step type to rule: what its entries are, and the rules that several methods share."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ..graph.model_graph import Step
from ..graph.propagation import StepTrace

#: From a step, what the forward pass left of it and the signal at its output to the signal at its input, or a tuple
#: with one for each different input.
Rule = Callable[[Step, StepTrace, tf.Tensor], "tf.Tensor | tuple[tf.Tensor, ...]"]


def vjp(step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The rule of the gradient: the step's vector-Jacobian product."""
    return trace.vjp(signal)


def pass_through(step: Step, trace: StepTrace, signal: tf.Tensor) -> tf.Tensor:
    """The rule that leaves the signal as it is."""
    return signal


def in_equal_parts(step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The gradient of a mean, for a sum over axes: behind a scaling by one over the count they are the same."""
    count = tf.size(trace.inputs[0]) / tf.size(trace.output)
    return trace.vjp(signal / tf.cast(count, signal.dtype))


class PerStep:
    """An entry of a table whose rule depends on the step.

    Args:
        make: From a step to its rule, or None where there is none.
    """

    def __init__(self, make: Callable[[Step], Rule | None]):
        self.make = make


class PerGate:
    """The entry of a table for products of a signal and a gate.

    Args:
        make: From the id of the gate's tensor to the rule.
    """

    def __init__(self, make: Callable[[int], Rule]):
        self.make = make


#: What a method's table holds for a step type.
Entry = Rule | PerStep | PerGate


def past_gate(gate: int) -> Rule:
    """The rule of a product that carries the gradient to all but the tensor of the id ``gate``."""

    def rule(step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pulled = zip(step.signal_inputs, trace.vjp(signal), strict=True)
        return tuple(tf.zeros_like(part) if tensor_id == gate else part for tensor_id, part in pulled)

    return rule
