"""Damping: signals that grow beyond float32 are made smaller by powers of two, alike for all samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ...graph import propagation
from ...graph.model_graph import ModelGraph, Step
from ...graph.propagation import StepTrace
from ..tables import Rule

# The signals of a layer's neurons have much in common, and add up: a layer of VGG19 makes its signal 2^8 times as
# large, and all of its layers more than float32's 2^127. Signals whose exponent comes near that are damped.
LARGEST_EXPONENT = 100

#: By the id of a tensor, how many powers of two smaller its signal is than the rules make it.
Exponents = dict[int, int]


def damped(rule: Rule, exponents: Callable[[], Exponents]) -> Rule:
    """As ``rule``, with its result damped; what meets at a tensor has been damped alike, whichever way it came.

    Args:
        rule: Any rule.
        exponents: Gives those of now; empty for none.
    """

    @functools.wraps(rule)
    def damped_rule(step: Step, trace: StepTrace, signal: tf.Tensor) -> Any:
        arrived, known = rule(step, trace, signal), exponents()
        if not known:
            return arrived
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        differences = [known[step.output] - known[tensor_id] for tensor_id in step.signal_inputs]
        return tuple(part * 2.0**difference for part, difference in zip(parts, differences, strict=True))

    return damped_rule


def measured(
    graph: ModelGraph, steps: Iterable[Step], traces: dict[int, StepTrace], rules: dict[int, Rule], signal: tf.Tensor
) -> Exponents:
    """The exponents of each tensor's largest signal, if some come near the end of float32; else none.

    Args:
        graph: The model's steps.
        steps: Those to go back over.
        traces: What the forward pass left of them, by their indices.
        rules: Theirs, likewise.
        signal: What starts at the output, ``(n, neurons)``.
    """
    exponents = {graph.output: 0}

    def measure(step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrived = rules[step.index](step, trace, signal)
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        found = []
        for tensor_id, part in zip(step.signal_inputs, parts, strict=True):
            _, exponent = np.frexp(float(tf.reduce_max(tf.abs(part))))
            # What arrives first at a tensor sets the exponent of its signal.
            exponents.setdefault(tensor_id, exponents[step.output] + int(exponent))
            found.append(part * 2.0 ** (exponents[step.output] - exponents[tensor_id]))
        return tuple(found)

    propagation.backward(graph, steps, traces, signal, measure)
    return exponents if max(exponents.values()) > LARGEST_EXPONENT else {}


def from_json(found: dict[str, Any], graph: ModelGraph, steps: list[Step]) -> Exponents:
    """The exponents that a file holds.

    Raises:
        ValueError: If they are not those of the tensors on the way, or no
            signal could be damped by them.
    """
    exponents = {int(tensor_id): int(exponent) for tensor_id, exponent in found.items()}
    if exponents and exponents.keys() != {
        graph.output,
        *(tensor_id for step in steps for tensor_id in step.signal_inputs),
    }:
        raise ValueError("expected the exponents of each tensor on the way, received those of others; fit again")
    within = all(abs(exponent) <= 100_000 for exponent in exponents.values())
    if exponents and not (within and all(_in_range(exponents, step) for step in steps)):
        raise ValueError("expected exponents that float32 holds the steps of, received others; fit again")
    return exponents


def _in_range(exponents: Exponents, step: Step) -> bool:
    """Whether a signal can be damped from a step's output to its inputs."""
    return all(abs(exponents[step.output] - exponents[tensor_id]) < 1000 for tensor_id in step.signal_inputs)
