"""Propagation: forward over a graph's steps keeping every tensor, and back over them with one rule a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from . import linear
from .model_graph import ModelGraph, Step

Rule = Callable[[Step, Any, tf.Tensor], "tf.Tensor | tuple[tf.Tensor, ...]"]
#: A batch of a model's inputs: a tensor ``(n, ...)``, or a tuple of one for each input.
Given: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]


def given_tensors(graph: ModelGraph, x: Given) -> dict[int, tf.Tensor]:
    """A batch of inputs, by the tensors' ids."""
    return dict(zip(graph.inputs, x if isinstance(x, tuple) else (x,), strict=True))


def forward(graph: ModelGraph, x: Given) -> dict[int, tf.Tensor]:
    """Every tensor of the graph for a batch of inputs.

    Args:
        graph: The model's steps.
        x: The model's input ``(n, ...)``, or a tuple of its inputs.

    Returns:
        Tensors by id; ``graph.output``'s are the logits.
    """
    tensors = given_tensors(graph, x)
    for step in graph.steps:
        tensors[step.output] = step(tensors)
    return tensors


def model_outputs(graph: ModelGraph, x: Given) -> list[tf.Tensor]:
    """The model's own outputs by its steps, no tensor held longer than it is read."""
    tensors = given_tensors(graph, x)
    needed, steps = set(graph.model_outputs), []
    for step in reversed(graph.all_steps):
        if step.output in needed:
            needed.update(step.needs)
            steps.append(step)
    last = {tensor_id: i for i, step in enumerate(reversed(steps)) for tensor_id in step.needs}
    for i, step in enumerate(reversed(steps)):
        tensors[step.output] = step(tensors)
        for tensor_id in step.needs:
            if last[tensor_id] == i and tensor_id not in graph.model_outputs:
                del tensors[tensor_id]
    return [tensors[tensor_id] for tensor_id in graph.model_outputs]


class StepTrace(NamedTuple):
    """What a step's rule can know of the forward pass.

    Attributes:
        inputs: The step's inputs that a signal can arrive at, one for each
            different tensor.
        output: Its output.
        vjp: The step's vector-Jacobian product: carries a signal at the
            output to each of the inputs.
    """

    inputs: tuple[tf.Tensor, ...]
    output: tf.Tensor
    vjp: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def forward_with_traces(
    graph: ModelGraph, x: Given, steps: Iterable[Step], replaced: Mapping[int, tf.Tensor] | None = None
) -> tuple[dict[int, tf.Tensor], dict[int, StepTrace]]:
    """As :func:`forward`, with the :class:`StepTrace` of each of ``steps`` too, by the step's index.

    Args:
        graph, x: As for :func:`forward`.
        steps: Those whose trace is wanted.
        replaced: Values that stand for those of tensors, by the tensors' ids.
    """
    traced, replaced = {step.index for step in steps}, replaced or {}
    tensors, traces = given_tensors(graph, x) | dict(replaced), {}
    for step in graph.steps:
        if step.output in replaced:
            continue
        if step.index in traced:
            traces[step.index] = _trace(step, tensors)
            tensors[step.output] = traces[step.index].output
        else:
            tensors[step.output] = step(tensors)
    return tensors, traces


def _trace(step: Step, tensors: Mapping[int, tf.Tensor]) -> StepTrace:
    ids = step.signal_inputs
    if not ids:  # it reads tokens or masks alone
        return StepTrace((), step(tensors), lambda signal: ())
    inputs = tuple(tensors[tensor_id] for tensor_id in ids)
    if step.type_name == "Cast":  # to float16 and from it: the signal is not rounded with it
        output = step(tensors)
        return StepTrace(inputs, output, lambda signal: (wide(signal, inputs[0]),))
    if getattr(step.layer, "compute_dtype", "") == "float32":  # so that its gradient is not rounded to float16 below it
        inputs = tuple(wide(tensor, tensor) for tensor in inputs)
    if linear.normalizes_plainly(step.layer):
        output, factor = linear.normalized(step.layer, inputs[0])
        return StepTrace(inputs, output, lambda signal: (wide(signal, output) * wide(factor, output),))
    if not step.linear:
        # A tensor of its own for each id: what does nothing at inference, such as Dropout, hands its input on, and
        # two inputs that are one tensor to the tape would each get the signals of both.
        inputs = tuple(tf.identity(tensor) for tensor in inputs)
    # A tape of its own for each step, and nothing else. Persistent, as a rule may carry several signals; under
    # tf.function that costs nothing.
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        # The bias has no part in it, and is added outside: a gradient through a sum that broadcasts is long to trace.
        by_id = dict(tensors) | dict(zip(ids, inputs, strict=True))
        made = linear.without_bias(step.layer, inputs[0]) if step.linear else step(by_id)

    def pulled(signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        zero = tf.UnconnectedGradients.ZERO
        return tuple(tape.gradient(made, list(inputs), tf.cast(signal, made.dtype), unconnected_gradients=zero))

    vjp = _in_range(pulled) if made.dtype == tf.float16 else pulled
    return StepTrace(inputs, linear.with_bias(step.layer, made) if step.linear else made, vjp)


def wide_dtype(tensor: tf.Tensor) -> tf.DType:
    """A tensor's dtype, or float32 where that is of half precision: signals are as wide as that at least."""
    return tf.float32 if tensor.dtype.size < 4 else tensor.dtype


def wide(tensor: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A tensor in the :func:`wide_dtype` of ``like``."""
    return tf.cast(tensor, wide_dtype(like))


def _in_range(pulled: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """A vector-Jacobian product through float16 whose signals are float32.

    Signals become small on their way down, and float16 holds nothing below
    6e-8. A step is linear in its signal, so each sample's is brought to about
    1 for it, by a power of 2, and back behind it.
    """

    def vjp(signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        signal = tf.cast(signal, tf.float32)
        peak = tf.reduce_max(tf.abs(tf.reshape(signal, (tf.shape(signal)[0], -1))), axis=1)
        exponent = tf.math.ceil(tf.math.log(tf.maximum(peak, 1e-37)) / tf.math.log(2.0))
        scale = tf.where(peak > 0, tf.pow(2.0, exponent), tf.ones_like(peak))

        def shaped(tensor: tf.Tensor) -> tf.Tensor:
            return tf.reshape(scale, tf.concat([tf.shape(scale), tf.ones(tf.rank(tensor) - 1, tf.int32)], 0))

        return tuple(tf.cast(part, tf.float32) * shaped(part) for part in pulled(signal / shaped(signal)))

    return vjp


def backward(
    graph: ModelGraph,
    steps: Iterable[Step],
    traces: Mapping[int, Any],
    signal: tf.Tensor | Mapping[int, tf.Tensor],
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
        signal: What starts at ``graph.output``, or at several tensors, by
            their ids.
        rule: ``rule(step, traces[step.index], signal_at_output)`` gives the
            signal at the step's input, or a tuple with one for each
            different input in ``signal_inputs``. What arrives at a tensor from several consumers
            is summed.
        keep: Ids of tensors whose signals are returned too.

    Returns:
        The signals, by the tensor's id: at the tensors where the pass ended,
        those that none of ``steps`` makes, and at those in ``keep`` that it
        came by.
    """
    kept = set(keep)
    signals = dict(signal) if isinstance(signal, Mapping) else {graph.output: signal}
    for step in reversed(list(steps)):
        if step.output not in signals:
            continue
        at_output = signals[step.output] if step.output in kept else signals.pop(step.output)
        arrived = rule(step, traces.get(step.index), at_output)
        parts = arrived if isinstance(arrived, tuple) else (arrived,)
        for tensor_id, part in zip(step.signal_inputs, parts, strict=True):
            before = signals.get(tensor_id)
            signals[tensor_id] = part if before is None else before + tf.cast(part, before.dtype)
    return signals


def gradients(graph: ModelGraph, x: tuple[tf.Tensor, ...], weights: Mapping[int, tf.Tensor]) -> dict[int, tf.Tensor]:
    """The gradient of a weighted sum of a model's own outputs at its inputs, by its steps.

    Args:
        graph: The model's steps.
        x: Its inputs.
        weights: For each output its elements' weights, by the tensor's id.

    Returns:
        By the inputs' ids; none where no signal arrives.
    """
    tensors, traces = given_tensors(graph, x), {}
    for step in graph.all_steps:
        traces[step.index] = _trace(step, tensors)
        tensors[step.output] = traces[step.index].output
    found = backward(graph, graph.all_steps, traces, weights, lambda step, trace, signal: trace.vjp(signal))
    return {tensor_id: found[tensor_id] for tensor_id in graph.inputs if tensor_id in found}
