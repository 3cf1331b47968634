"""BackwardAnalyzer: what every method has in common that carries a signal back over the model's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import kinds, selection, walk
from ..analyzer import Analyzer
from ..graph import Step
from ..walk import Pass

Rule = Callable[[Step, Pass, tf.Tensor], "tf.Tensor | tuple[tf.Tensor, ...]"]

# What the option ``activations`` of the methods for ReLU networks may be.
ACTIVATIONS = ("relu", "any")


def pull(step: Step, seen: Pass, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The rule of the gradient: the step's vector-Jacobian product."""
    return seen.pull(signal)


def keep(step: Step, seen: Pass, signal: tf.Tensor) -> tf.Tensor:
    """The rule that leaves the signal as it is."""
    return signal


def in_equal_parts(step: Step, seen: Pass, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The gradient of a mean, for a sum over axes: behind a scaling by one over the count they are the same."""
    count = tf.size(seen.inputs[0]) / tf.size(seen.output)
    return seen.pull(signal / tf.cast(count, signal.dtype))


def past_gate(gate: int) -> Rule:
    """The rule of a product that carries the gradient to all but the tensor of the number ``gate``."""

    def rule(step: Step, seen: Pass, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pulled = zip(dict.fromkeys(step.inputs), seen.pull(signal), strict=True)
        return tuple(tf.zeros_like(part) if number == gate else part for number, part in pulled)

    return rule


class BackwardAnalyzer(Analyzer):
    """A method that walks back from the explained output to the input, with one rule a step.

    A subclass says which :meth:`rule` a step gets, and, where it is not the
    output's value, where the walk starts (:meth:`head`) and what becomes of
    the signal that arrives (:meth:`finish`).

    Args:
        model, neuron_selection_mode, output_layer: See
            :class:`mipin_keras.Analyzer`.
        input_layer: Name of the layer whose output the explanation goes down
            to, instead of the model's input; a map then has its shape. Steps
            that do not depend on it are not walked, and need no rule.

    Raises:
        ValueError: For a model with integer inputs, for an ``input_layer``
            that is unknown or that the output does not depend on, and for
            steps that the method is not defined for, naming each.

    Attributes:
        steps: The steps walked, in topological order.
        rules: The rule of each, by its index.
    """

    steps: list[Step]
    rules: dict[int, Rule]

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        input_layer: str | None = None,
    ):
        super().__init__(model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer)
        if "input_layer" not in self._fixed:
            self.options["input_layer"] = input_layer
        self._traces: dict[tuple, Callable] = {}
        dtype = tf.as_dtype(model.inputs[0].dtype)
        if not dtype.is_floating:
            raise ValueError(
                f"{self.name!r} needs a model with a floating-point input, received one of dtype {dtype.name}, which "
                "has no gradient; explain the part of the model behind its first layers"
            )

    # What a method is made of

    def rule(self, step: Step) -> Rule | None:
        """The rule of a step; None where the method is not defined for it."""
        raise NotImplementedError

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """Where the walk starts, ``(n, units)``: the output's value, as in iNNvestigate.

        Args:
            logits: Shape ``(n, units)``.
            shares: Likewise: the weight of each neuron.
        """
        return logits * shares

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        """The map, from the signal that arrived and the tensor that it arrived at."""
        return signal

    @property
    def gates(self) -> dict[int, int]:
        """Which input of a product gets no signal, by the step's index: where the method's rule is not the gradient."""
        return {}

    def advice(self, unknown: list[Step]) -> str:
        """What else may be done about steps that have no rule."""
        return ""

    def _reached(self, steps: list[Step]) -> list[Step]:
        """Those of ``steps`` that a signal comes by: not those that lead to gates only.

        Raises:
            ValueError: If none comes to :attr:`start`.
        """
        gates, reached, found = self.gates, {self.graph.output}, []
        for step in reversed(steps):
            if step.output in reached:
                reached.update(number for number in step.inputs if number != gates.get(step.index))
                found.append(step)
        if self.start not in reached:
            raise ValueError(
                f"{self.name!r} carries nothing through gates, and the layer given as input_layer reaches the output "
                "through gates only"
            )
        return found[::-1]

    def _prepare(self) -> None:
        """Find each step's rule; a subclass calls it when its options are set.

        Raises:
            ValueError: If steps have no rule, naming all of them.
        """
        steps = self._reached(self.graph.between(self.start))
        rules = {step.index: self.rule(step) for step in steps}
        unknown = [step for step in steps if rules[step.index] is None]
        if unknown:
            # A method for any differentiable model always does, and LRP has a rule for every kind of step.
            others = "" if kinds.unknown(self.graph, steps) else "'lrp.z', 'lrp.epsilon', "
            raise ValueError(
                f"{self.name!r} is not defined for layer {', '.join(map(_described, unknown))}; {self.advice(unknown)}"
                f"for this model take {others}'gradient', 'input_t_gradient', 'integrated_gradients' or 'smoothgrad', "
                "or 'mipin' with an inverse registered for each layer that it does not know "
                "(@mipin_keras.register_inverse)"
            )
        self.steps = steps
        self.rules = {index: rule for index, rule in rules.items() if rule is not None}

    # Analyzing

    def _analyze(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        return self._explain(x, neuron_selection, (self.start,))[0]

    def _analyze_layers(
        self, x: np.ndarray, neuron_selection: Any, numbers: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        order = tuple(dict.fromkeys(numbers.values()))
        found = dict(zip(order, self._explain(x, neuron_selection, order), strict=True))
        return {name: (found[number], None) for name, number in numbers.items()}

    def _explain(self, x: np.ndarray, neuron_selection: Any, numbers: tuple[int, ...]) -> list[np.ndarray]:
        """The maps of ``x`` at these tensors."""
        selection.check_superfluous(self.neuron_selection_mode, neuron_selection)
        given = [tf.convert_to_tensor(x)]
        if self.neuron_selection_mode != "max_activation":
            given.append(tf.convert_to_tensor(self._shares(x, neuron_selection)))
        return [found.numpy() for found in self._checked(*self._traced(len(given), numbers)(*given))]

    def _shares(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        """The weights of the output neurons in the explanation of ``x``, ``(n, units)``."""
        mode = self.neuron_selection_mode
        if isinstance(mode, str) and mode != "max_activation":
            return selection.fixed(mode, neuron_selection, len(x), self.graph.units)
        return self.select(self._logits(tf.convert_to_tensor(x)).numpy(), neuron_selection)

    def _checked(self, found: Any, finite: tf.Tensor, weights: list[tf.Tensor]) -> Any:
        """The maps, if the logits were finite and the weights those of the fit."""
        if self.identity is not None:
            self.identity.check(weights)
        if not finite.numpy():
            raise ValueError(selection.NOT_FINITE)
        return found

    def _forget_traces(self) -> None:
        super()._forget_traces()
        self._traces.clear()

    def _traced(self, given: int, numbers: tuple[int, ...]) -> Callable:
        """The walk with maps at these tensors, from the samples, and from shares of the neurons if ``given`` is 2."""
        if (given, numbers) not in self._traces:

            @tf.function(input_signature=self._signature[:given], autograph=False)
            def explain(x: tf.Tensor, shares: tf.Tensor | None = None) -> tuple:
                # The weights that this call reads go out with the maps: read for themselves they would cost more.
                weights = [] if self.identity is None else self.identity.weights.read()
                return (*self._walk(x, shares, numbers), weights)

            self._traces[given, numbers] = explain.get_concrete_function()
        return self._traces[given, numbers]

    @property
    def _signature(self) -> list[tf.TensorSpec]:
        graph = self.graph
        return [
            tf.TensorSpec((None, *graph.shapes[graph.input]), graph.model.inputs[0].dtype),
            tf.TensorSpec((None, graph.units), tf.float32),
        ]

    def _walk(
        self, x: tf.Tensor, shares: tf.Tensor | None, numbers: tuple[int, ...]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Forward and back, in one graph: the maps at tensors on the way, and whether the logits were finite."""
        tensors, seen = walk.passes(self.graph, x, self.steps)
        logits = tensors[self.graph.output]
        logits = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
        shares = selection.largest(logits) if shares is None else shares
        signal = self.head(logits, tf.cast(shares, logits.dtype))
        arrived = walk.backward(
            self.graph, self.steps, seen, signal, lambda step, *rest: self.rules[step.index](step, *rest), keep=numbers
        )
        for number in numbers:  # what leads to gates only has no share
            arrived.setdefault(number, tf.zeros_like(tensors[number]))
        found = [tf.cast(self.finish(arrived[number], tensors[number]), tf.float32) for number in numbers]
        return found, tf.reduce_all(tf.math.is_finite(logits))


def _described(step: Step) -> str:
    kind = kinds.kind_of(step)
    activation = getattr(step.layer, "activation", None)
    name = getattr(activation, "__name__", None)
    return f"{step}" if kind is None or name is None else f"{step}, {name}"
