"""The walk: forward over a graph's steps keeping every tensor, and back over them with one rule a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from . import kernels
from .graph import ModelGraph, Step

Rule = Callable[[Step, Any, tf.Tensor], "tf.Tensor | tuple[tf.Tensor, ...]"]


def forward(graph: ModelGraph, x: tf.Tensor) -> dict[int, tf.Tensor]:
    """Every tensor of the graph for a batch of inputs.

    Args:
        graph: The model's steps.
        x: Shape ``(n, ...)``, the model's input.

    Returns:
        Tensors by number; ``graph.output``'s are the logits.
    """
    tensors = {graph.input: x}
    for step in graph.steps:
        tensors[step.output] = step(tensors)
    return tensors


class Pass(NamedTuple):
    """What a step's rule can see of the forward pass.

    Attributes:
        inputs: The step's inputs, one for each different tensor.
        output: Its output.
        pull: The step's vector-Jacobian product: carries a signal at the
            output to each of the inputs.
    """

    inputs: tuple[tf.Tensor, ...]
    output: tf.Tensor
    pull: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def passes(graph: ModelGraph, x: tf.Tensor, steps: Iterable[Step]) -> tuple[dict[int, tf.Tensor], dict[int, Pass]]:
    """As :func:`forward`, with a :class:`Pass` of each of ``steps`` too, by the step's index."""
    watched = {step.index for step in steps}
    tensors, seen = {graph.input: x}, {}
    for step in graph.steps:
        if step.index in watched:
            numbers = tuple(dict.fromkeys(step.inputs))
            seen[step.index] = _pass(step, numbers, tuple(tensors[number] for number in numbers))
            tensors[step.output] = seen[step.index].output
        else:
            tensors[step.output] = step(tensors)
    return tensors, seen


def _pass(step: Step, numbers: tuple[int, ...], inputs: tuple[tf.Tensor, ...]) -> Pass:
    if kernels.normalizes_plainly(step.layer):
        output, factor = kernels.normalized(step.layer, inputs[0])
        return Pass(inputs, output, lambda signal: (tf.cast(tf.cast(signal, output.dtype) * factor, inputs[0].dtype),))
    if not step.linear:
        # A tensor of its own for each number: what does nothing at inference, such as Dropout, hands its input on, and
        # two inputs that are one tensor to the tape would each get the signals of both.
        inputs = tuple(tf.identity(tensor) for tensor in inputs)
    # A tape of its own for each step, and nothing else. Persistent, as a rule may carry several signals; under
    # tf.function that costs nothing.
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        # The bias has no part in it, and is added outside: a gradient through a sum that broadcasts is long to trace.
        by_number = dict(zip(numbers, inputs, strict=True))
        made = kernels.without_bias(step.layer, inputs[0]) if step.linear else step(by_number)

    def pull(signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        zero = tf.UnconnectedGradients.ZERO
        return tuple(tape.gradient(made, list(inputs), tf.cast(signal, made.dtype), unconnected_gradients=zero))

    return Pass(inputs, kernels.with_bias(step.layer, made) if step.linear else made, pull)


def backward(
    graph: ModelGraph,
    steps: Iterable[Step],
    seen: Mapping[int, Any],
    signal: tf.Tensor,
    rule: Rule,
    *,
    keep: Iterable[int] = (),
) -> dict[int, tf.Tensor]:
    """Carry a signal from the output back over ``steps``.

    Args:
        graph: The model's steps.
        steps: Those to walk, in topological order.
        seen: What each step's rule needs to know of the forward pass, by the
            step's index.
        signal: What starts at ``graph.output``.
        rule: ``rule(step, seen[step.index], signal_at_output)`` gives the
            signal at the step's input, or a tuple with one for each
            different input.
            What arrives at a tensor from several consumers is summed.
        keep: Numbers of tensors whose signals are wanted too.

    Returns:
        The signals at the tensors where the walk ended, those that no walked
        step makes, and at those in ``keep`` that it came by.
    """
    kept = set(keep)
    signals = {graph.output: signal}
    for step in reversed(list(steps)):
        if step.output not in signals:
            continue
        at_output = signals[step.output] if step.output in kept else signals.pop(step.output)
        arrived = rule(step, seen.get(step.index), at_output)
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        for number, part in zip(dict.fromkeys(step.inputs), parts, strict=True):
            signals[number] = signals[number] + tf.cast(part, signals[number].dtype) if number in signals else part
    return signals
