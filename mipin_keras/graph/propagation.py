"""Propagation: forward over a graph's steps keeping every tensor, and back over them with one rule a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from . import linear
from .model_graph import ModelGraph, Step

Rule = Callable[[Step, Any, tf.Tensor], "tf.Tensor | tuple[tf.Tensor, ...]"]


def forward(graph: ModelGraph, x: tf.Tensor) -> dict[int, tf.Tensor]:
    """Every tensor of the graph for a batch of inputs.

    Args:
        graph: The model's steps.
        x: Shape ``(n, ...)``, the model's input.

    Returns:
        Tensors by id; ``graph.output``'s are the logits.
    """
    tensors = {graph.input: x}
    for step in graph.steps:
        tensors[step.output] = step(tensors)
    return tensors


class StepTrace(NamedTuple):
    """What a step's rule can know of the forward pass.

    Attributes:
        inputs: The step's inputs, one for each different tensor.
        output: Its output.
        vjp: The step's vector-Jacobian product: carries a signal at the
            output to each of the inputs.
    """

    inputs: tuple[tf.Tensor, ...]
    output: tf.Tensor
    vjp: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def forward_with_traces(
    graph: ModelGraph, x: tf.Tensor, steps: Iterable[Step]
) -> tuple[dict[int, tf.Tensor], dict[int, StepTrace]]:
    """As :func:`forward`, with the :class:`StepTrace` of each of ``steps`` too, by the step's index."""
    traced = {step.index for step in steps}
    tensors, traces = {graph.input: x}, {}
    for step in graph.steps:
        if step.index in traced:
            ids = tuple(dict.fromkeys(step.inputs))
            traces[step.index] = _trace(step, ids, tuple(tensors[i] for i in ids))
            tensors[step.output] = traces[step.index].output
        else:
            tensors[step.output] = step(tensors)
    return tensors, traces


def _trace(step: Step, ids: tuple[int, ...], inputs: tuple[tf.Tensor, ...]) -> StepTrace:
    if linear.normalizes_plainly(step.layer):
        output, factor = linear.normalized(step.layer, inputs[0])
        return StepTrace(
            inputs, output, lambda signal: (tf.cast(tf.cast(signal, output.dtype) * factor, inputs[0].dtype),)
        )
    if not step.linear:
        # A tensor of its own for each id: what does nothing at inference, such as Dropout, hands its input on, and
        # two inputs that are one tensor to the tape would each get the signals of both.
        inputs = tuple(tf.identity(tensor) for tensor in inputs)
    # A tape of its own for each step, and nothing else. Persistent, as a rule may carry several signals; under
    # tf.function that costs nothing.
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        # The bias has no part in it, and is added outside: a gradient through a sum that broadcasts is long to trace.
        by_id = dict(zip(ids, inputs, strict=True))
        made = linear.without_bias(step.layer, inputs[0]) if step.linear else step(by_id)

    def vjp(signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        zero = tf.UnconnectedGradients.ZERO
        return tuple(tape.gradient(made, list(inputs), tf.cast(signal, made.dtype), unconnected_gradients=zero))

    return StepTrace(inputs, linear.with_bias(step.layer, made) if step.linear else made, vjp)


def backward(
    graph: ModelGraph,
    steps: Iterable[Step],
    traces: Mapping[int, Any],
    signal: tf.Tensor,
    rule: Rule,
    *,
    keep: Iterable[int] = (),
) -> dict[int, tf.Tensor]:
    """Carry a signal from the output back over ``steps``.

    Args:
        graph: The model's steps.
        steps: Those to go back over, in topological order.
        traces: What each step's rule needs to know of the forward pass, by
            the step's index.
        signal: What starts at ``graph.output``.
        rule: ``rule(step, traces[step.index], signal_at_output)`` gives the
            signal at the step's input, or a tuple with one for each
            different input. What arrives at a tensor from several consumers
            is summed.
        keep: Ids of tensors whose signals are returned too.

    Returns:
        The signals, by the tensor's id: at the tensors where the pass ended,
        those that none of ``steps`` makes, and at those in ``keep`` that it
        came by.
    """
    kept = set(keep)
    signals = {graph.output: signal}
    for step in reversed(list(steps)):
        if step.output not in signals:
            continue
        at_output = signals[step.output] if step.output in kept else signals.pop(step.output)
        arrived = rule(step, traces.get(step.index), at_output)
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        for tensor_id, part in zip(dict.fromkeys(step.inputs), parts, strict=True):
            before = signals.get(tensor_id)
            signals[tensor_id] = part if before is None else before + tf.cast(part, before.dtype)
    return signals
