"""BackwardAnalyzer: what every method has in common that carries a signal back over the model's steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from .. import targets
from ..analysis.batching import tensors_of
from ..analyzer import Analyzer
from ..checks import one_of
from ..data.inputs import count
from ..graph import propagation, step_types
from ..graph.explained import TargetValue
from ..graph.model_graph import Step
from ..graph.propagation import StepTrace
from .tables import Entry, PerGate, PerStep, Rule

# What the option ``activations`` of the methods for ReLU networks may be.
ACTIVATIONS = ("relu", "any")


class BackwardAnalyzer(Analyzer):
    """A method that walks back from the explained output to the input, with one rule a step.

    A subclass says in its :attr:`table` which rule a step gets, and, where it
    is not the output's value, where the walk starts (:meth:`head`) and what
    becomes of the signal that arrives (:meth:`finish`).

    Args:
        model, neuron_selection_mode, output_layer, output, target: See
            :class:`mipin_keras.Analyzer`.
        input_layer: Name of the layer whose output the explanation goes down
            to, instead of the model's input; a map then has its shape. Steps
            that do not depend on it are not walked, and need no rule.

    Raises:
        ValueError: For a model without a floating-point tensor behind its
            input, for an ``input_layer`` that is unknown, not floating, or
            that the output does not depend on, and for steps that the method
            is not defined for, naming each.

    Attributes:
        steps: The steps walked, in topological order.
        rules: The rule of each, by its index.
    """

    steps: list[Step]
    rules: dict[int, Rule]
    #: Between what values the input must lie, an :class:`~.lrp.input_bounds.InputBounds`; None for any.
    bounds: Any = None

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        input_layer: str | None = None,
        output: str | int | None = None,
        target: Any = None,
    ):
        super().__init__(
            model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer, output=output, target=target
        )
        if "input_layer" not in self._fixed:
            self.options["input_layer"] = input_layer
        self._traces: dict[tuple, Callable] = {}

    # What a method is made of

    @property
    def table(self) -> Mapping[str, Entry]:
        """The rule of each step type (:mod:`mipin_keras.graph.step_types`) that the method is defined for."""
        return {}

    def rule(self, step: Step) -> Rule | None:
        """The rule of a step; None where the method is not defined for it."""
        if isinstance(step.layer, TargetValue):
            return self.of_target
        entry = self._table.get(step_types.of(step) or "")
        if isinstance(entry, PerStep):
            return entry.make(step)
        if isinstance(entry, PerGate):
            return entry.make(self.gates[step.index]) if step.index in self.gates else None
        return entry

    @functools.cached_property
    def _table(self) -> Mapping[str, Entry]:
        return self.table

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """Where the walk starts, ``(n, neurons)``: the output's value, as in iNNvestigate.

        Args:
            logits: Shape ``(n, neurons)``.
            shares: Likewise: the weight of each neuron.
        """
        return logits * shares

    def of_target(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The rule of the step that makes a target's value: where the walk starts, at the outputs it is made of.

        Each output times the target's gradient, for its value: for a weighted
        sum of outputs, its terms.
        """
        gradients = trace.vjp(tf.ones_like(trace.output))
        return tuple(x * tf.cast(part, x.dtype) for x, part in zip(trace.inputs, gradients, strict=True))

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        """The map, from the signal that arrived and the tensor that it arrived at."""
        return signal

    @functools.cached_property
    def gates(self) -> dict[int, int]:
        """Which input of a product gets no signal, by the step's index: where the method has a rule for gates."""
        has_rule = isinstance(self._table.get(step_types.GATE), PerGate)
        return step_types.gates(self.graph) if has_rule else {}

    def advice(self, unknown: list[Step]) -> str:
        """What else may be done about steps that have no rule."""
        return ""

    def _reached(self, steps: list[Step]) -> list[Step]:
        """Those of ``steps`` that a signal comes by: not those that lead to gates only.

        Raises:
            ValueError: If none comes to any of :attr:`starts`.
        """
        gates, reached, found = self.gates, {self.graph.output}, []
        for step in reversed(steps):
            if step.output in reached:
                reached.update(tensor_id for tensor_id in step.inputs if tensor_id != gates.get(step.index))
                found.append(step)
        if not reached.intersection(self.starts):
            raise ValueError(
                f"{self.name!r} expected an input_layer that reaches the output by another way than through gates, "
                "which it carries nothing through, received one that does not; name the layer that is gated"
            )
        return found[::-1]

    def _prepare(self) -> None:
        """Find each step's rule; a subclass calls it when its options are set.

        Raises:
            ValueError: If steps have no rule, naming all of them.
        """
        steps = self._reached(self.graph.between(*self.reached_starts))
        rules = {step.index: self.rule(step) for step in steps}
        unknown = [step for step in steps if rules[step.index] is None]
        if unknown:
            # A method for any differentiable model always does, and LRP has a rule for every step type.
            others = "" if step_types.unknown(self.graph, steps) else "'lrp.z', 'lrp.epsilon', "
            raise ValueError(
                f"{self.name!r} expected layers that it is defined for, received layer "
                f"{', '.join(map(_described, unknown))}; {self.advice(unknown)}"
                f"for this model take {others}'gradient', 'input_t_gradient', 'integrated_gradients' or 'smoothgrad', "
                "or 'mipin' with an inverse registered for each layer that it does not know "
                "(@mipin_keras.register_inverse)"
            )
        self.steps = steps
        self.rules = {index: rule for index, rule in rules.items() if rule is not None}
        self._say_where_it_ends()

    # Analyzing

    def _analyze(self, x: Any, neuron_selection: Any) -> Any:
        return alone(self._explain(x, neuron_selection, self.starts))

    def _analyze_layers(
        self, x: np.ndarray, neuron_selection: Any, tensor_ids: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        order = tuple(dict.fromkeys(tensor_ids.values()))
        found = dict(zip(order, self._explain(x, neuron_selection, order), strict=True))
        return {name: (found[tensor_id], None) for name, tensor_id in tensor_ids.items()}

    def _explain(self, x: Any, neuron_selection: Any, tensor_ids: tuple[int, ...]) -> list[np.ndarray]:
        """The maps of ``x`` at these tensors."""
        if self.bounds is not None:
            self.bounds.check(x)
        targets.check_superfluous(self.neuron_selection_mode, neuron_selection)
        given = list(tensors_of(x))
        if self.neuron_selection_mode != "max_activation":
            given.append(tf.convert_to_tensor(self._shares(x, neuron_selection)))
        return [found.numpy() for found in self._checked(*self._traced(len(given), tensor_ids)(*given))]

    def _shares(self, x: Any, neuron_selection: Any) -> np.ndarray:
        """The weights of the output neurons in the explanation of ``x``, ``(n, neurons)``."""
        mode = self.neuron_selection_mode
        if isinstance(mode, str) and mode != "max_activation":
            return targets.fixed(mode, neuron_selection, count(x), self.graph.neurons)
        return self.select(self._logits(*tensors_of(x)).numpy(), neuron_selection)

    def _checked(self, found: Any, finite: tf.Tensor, weights: list[tf.Tensor]) -> Any:
        """The maps, if the logits were finite and the weights those of the fit."""
        if self.identity is not None:
            self.identity.check(weights)
        if not finite.numpy():
            raise ValueError(targets.NOT_FINITE)
        return found

    def _forget_traces(self) -> None:
        super()._forget_traces()
        self._traces.clear()

    def _traced(self, given: int, tensor_ids: tuple[int, ...]) -> Callable:
        """The walk with maps at these tensors, from the inputs, and from shares of the neurons if one more is given."""
        if (given, tensor_ids) not in self._traces:

            @tf.function(input_signature=self._signature[:given], autograph=False)
            def explain(*given: tf.Tensor) -> tuple:
                x, shares = given[: len(self.graph.inputs)], given[len(self.graph.inputs) :]
                # The weights that this call reads go out with the maps: read for themselves they would cost more.
                weights = [] if self.identity is None else self.identity.weights.read()
                return (*self._walk(x, shares[0] if shares else None, tensor_ids), weights)

            self._traces[given, tensor_ids] = explain.get_concrete_function()
        return self._traces[given, tensor_ids]

    @property
    def _signature(self) -> list[tf.TensorSpec]:
        return [*self._input_specs, tf.TensorSpec((None, self.graph.neurons), tf.float32)]

    def _walk(
        self,
        x: tuple[tf.Tensor, ...],
        shares: tf.Tensor | None,
        tensor_ids: tuple[int, ...],
        replaced: Mapping[int, tf.Tensor] | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Forward and back, in one graph: the maps at tensors on the way, and whether the logits were finite.

        Args:
            x: The model's inputs.
            shares: The weight of each output neuron; None for the largest.
            tensor_ids: Of the tensors with a map.
            replaced: Values that stand for those of tensors.
        """
        tensors, trace = propagation.forward_with_traces(self.graph, x, self.steps, replaced)
        logits = tensors[self.graph.output]
        logits = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
        shares = targets.largest(logits) if shares is None else shares
        signal = self.head(logits, tf.cast(shares, logits.dtype))
        arrived = propagation.backward(
            self.graph,
            self.steps,
            trace,
            signal,
            lambda step, *rest: self.rules[step.index](step, *rest),
            keep=tensor_ids,
        )
        for tensor_id in tensor_ids:  # what leads to gates only has no share
            arrived.setdefault(tensor_id, tf.zeros_like(tensors[tensor_id]))
        found = []
        for tensor_id in tensor_ids:
            signal = arrived[tensor_id]
            found.append(tf.cast(self.finish(signal, tf.cast(tensors[tensor_id], signal.dtype)), tf.float32))
        return found, tf.reduce_all(tf.math.is_finite(logits))


class ReLUAnalyzer(BackwardAnalyzer):
    """A method that is defined for ReLU networks, and takes others only when it is told to.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`BackwardAnalyzer`.
        activations: ``"relu"`` refuses a model with other activations;
            ``"any"`` gives them the rule that the method's table has for them.

    Raises:
        ValueError: As :class:`BackwardAnalyzer`; for other ``activations``.
    """

    #: What ``activations="any"`` does with other activations than ReLU, for messages.
    lets_in: ClassVar[str] = "take the gradient of"

    def __init__(self, model: keras.Model, *, activations: str = "relu", **options: Any):
        super().__init__(model, **options)
        activations = one_of("activations", activations, ACTIVATIONS)
        self.activations = activations
        self.options["activations"] = activations

    def rule(self, step: Step) -> Rule | None:
        if step_types.of(step) == step_types.ACTIVATION and self.activations == "relu":
            return None
        return super().rule(step)

    def advice(self, unknown: list[Step]) -> str:
        if self.activations == "relu" and any(step_types.of(step) == step_types.ACTIVATION for step in unknown):
            return f"give activations='any' to {self.lets_in} other activations than ReLU; "
        return ""


def alone(maps: list[np.ndarray]) -> Any:
    """One map by itself, several as a tuple."""
    return maps[0] if len(maps) == 1 else tuple(maps)


def _described(step: Step) -> str:
    step_type = step_types.of(step)
    activation = getattr(step.layer, "activation", None)
    name = getattr(activation, "__name__", None)
    return f"{step}" if step_type is None or name is None else f"{step}, {name}"
