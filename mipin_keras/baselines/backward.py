"""BackwardAnalyzer: what every method has in common that carries a signal back over the model's steps."""

from __future__ import annotations

import functools
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


def pull(step: Step, seen: Pass, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The rule of the gradient: the step's vector-Jacobian product."""
    return seen.pull(signal)


def keep(step: Step, seen: Pass, signal: tf.Tensor) -> tf.Tensor:
    """The rule that leaves the signal as it is."""
    return signal


class BackwardAnalyzer(Analyzer):
    """A method that walks back from the explained output to the input, with one rule a step.

    A subclass says which :meth:`rule` a step gets, and, where it is not the
    output's value, where the walk starts (:meth:`head`) and what becomes of
    the signal that arrives (:meth:`finish`).

    Args:
        model, neuron_selection_mode, output_layer: See
            :class:`mipin_keras.Analyzer`.

    Raises:
        ValueError: For a model with integer inputs, and for one with steps
            that the method is not defined for, naming each.

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
    ):
        super().__init__(model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer)
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

    def finish(self, x: tf.Tensor, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        """The map, from the model's input, the signal that arrived, and the tensor that it arrived at."""
        return signal

    @property
    def start(self) -> int:
        """Number of the tensor that the walk ends at."""
        return self.graph.input

    def _prepare(self) -> None:
        """Find each step's rule; a subclass calls it when its options are set.

        Raises:
            ValueError: If steps have no rule, naming all of them.
        """
        steps = self.graph.between(self.start)
        rules = {step.index: self.rule(step) for step in steps}
        unknown = [step for step in steps if rules[step.index] is None]
        if unknown:
            # A method for any differentiable model always does, and LRP has a rule for every kind of step.
            known = all(kinds.kind_of(step) is not None for step in steps)
            others = "'lrp.z', 'lrp.epsilon', " if known else ""
            raise ValueError(
                f"{self.name!r} is not defined for layer {', '.join(map(_described, unknown))}; for this model take "
                f"{others}'gradient', 'input_t_gradient', 'integrated_gradients' or 'smoothgrad', or 'mipin' with an "
                "inverse registered for each layer that it does not know (@mipin_keras.register_inverse)"
            )
        self.steps = steps
        self.rules = {index: rule for index, rule in rules.items() if rule is not None}

    # Analyzing

    def _analyze(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        selection.check_superfluous(self.neuron_selection_mode, neuron_selection)
        if self.neuron_selection_mode == "max_activation":
            return self._checked(self._explain_largest(tf.convert_to_tensor(x)))
        return self._explain(x, self._shares(x, neuron_selection))

    def _explain(self, x: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The maps of ``x`` for given weights of the output neurons, ``(n, units)``."""
        return self._checked(self._explain_given(tf.convert_to_tensor(x), tf.convert_to_tensor(shares)))

    def _shares(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        """The weights of the output neurons in the explanation of ``x``, ``(n, units)``."""
        mode = self.neuron_selection_mode
        if isinstance(mode, str) and mode != "max_activation":
            return selection.fixed(mode, neuron_selection, len(x), self.graph.units)
        return self.select(self._logits(tf.convert_to_tensor(x)).numpy(), neuron_selection)

    @staticmethod
    def _checked(explained: tuple[tf.Tensor, tf.Tensor]) -> np.ndarray:
        found, finite = explained
        if not finite.numpy():
            raise ValueError(selection.NOT_FINITE)
        return found.numpy()

    @functools.cached_property
    def _explain_largest(self) -> Callable:
        @tf.function(input_signature=self._signature[:1], autograph=False)
        def explain(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._walk(x, None)

        return explain.get_concrete_function()

    @functools.cached_property
    def _explain_given(self) -> Callable:
        @tf.function(input_signature=self._signature, autograph=False)
        def explain(x: tf.Tensor, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._walk(x, shares)

        return explain.get_concrete_function()

    @property
    def _signature(self) -> list[tf.TensorSpec]:
        graph = self.graph
        return [
            tf.TensorSpec((None, *graph.shapes[graph.input]), graph.model.inputs[0].dtype),
            tf.TensorSpec((None, graph.units), tf.float32),
        ]

    def _walk(self, x: tf.Tensor, shares: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Forward and back, in one graph: the map, and whether the logits were finite."""
        tensors, seen = walk.passes(self.graph, x, self.steps)
        logits = tensors[self.graph.output]
        logits = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
        shares = selection.largest(logits) if shares is None else shares
        signal = self.head(logits, tf.cast(shares, logits.dtype))
        arrived = walk.backward(
            self.graph, self.steps, seen, signal, lambda step, *rest: self.rules[step.index](step, *rest)
        )
        found = self.finish(x, arrived[self.start], tensors[self.start])
        return tf.cast(found, tf.float32), tf.reduce_all(tf.math.is_finite(logits))


def _described(step: Step) -> str:
    kind = kinds.kind_of(step)
    activation = getattr(step.layer, "activation", None)
    name = getattr(activation, "__name__", None)
    return f"{step}" if kind is None or name is None else f"{step}, {name}"
