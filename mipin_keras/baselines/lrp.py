"""Layer-wise relevance propagation: a table from the kind of a step to a rule."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from .. import kinds
from ..checks import integer
from ..graph import Step
from . import backward, rules
from .bounds import BoundedInput, InputBounds
from .rules import RULES, Bounded, Z


class LRP(backward.BackwardAnalyzer):
    """Layer-wise relevance propagation with a rule of your choice (Bach et al. 2015).

    The explained output's value is shared among the inputs of each step in
    turn. Dense layers and convolutions have the rule; a batch normalisation
    has one of its own, as the diagonal linear step that it is; poolings that
    average, and sums, share in proportion (the rule Z); activations, and
    scalings by constants, pass relevance on as it is; max poolings give it to
    the maximum. A layer normalisation has the rule Z with its divisor held
    (Ali et al. 2022). Of the product of a signal and a gate, as in squeeze and
    excitation, the signal takes all (Arras et al. 2017).

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`.
        rule: A name in :data:`mipin_keras.baselines.rules.RULES`, such as
            "Epsilon", or a :class:`~mipin_keras.baselines.rules.Rule`; or a
            dict from ``"dense"`` and ``"conv"`` to one.
        input_layer_rule: Another rule for the first layers with weights: a
            name, a rule, or ``(low, high)``, the bounds of the input, for the
            rule z^B. A padding before the first convolution does not hide it.
        bn_layer_rule: The rule of batch normalisation; None is "Z" here, and
            in the named methods the rule of their Dense layers, unless they
            say otherwise.
        until_layer_idx: With ``until_layer_rule``, which the layers of
            ``model.layers`` up to this index have.
        until_layer_rule: A name or rule.

    Raises:
        ValueError: For an unknown rule, for bounds that are inverted or not
            finite; for layers that LRP is not defined for, naming each.
    """

    name = "lrp"

    def __init__(
        self,
        model: keras.Model,
        *,
        rule: Any = None,
        input_layer_rule: Any = None,
        bn_layer_rule: Any = None,
        until_layer_idx: int | None = None,
        until_layer_rule: Any = None,
        **options: Any,
    ):
        super().__init__(model, **options)
        if rule is None:
            raise ValueError(f"{self.name!r} needs rule=: one of {sorted(RULES)}, or a dict from 'dense' and 'conv'")
        named = rule if isinstance(rule, dict) else {"dense": rule, "conv": rule}
        if named.keys() != {"dense", "conv"}:
            raise ValueError(f"expected rule to be a rule, or a dict of 'dense' and 'conv', received {rule!r}")
        self.kernel_rules = {key: find_rule("rule", value) for key, value in named.items()}
        given = bn_layer_rule is not None
        self.bn_rule = find_rule("bn_layer_rule", bn_layer_rule) if given else self.default_bn_rule()
        if (until_layer_idx is None) != (until_layer_rule is None):
            raise ValueError("until_layer_idx and until_layer_rule need each other: give both or neither")
        if until_layer_idx is not None:
            until_layer_idx = integer("until_layer_idx", until_layer_idx, 0)
            if until_layer_idx >= len(model.layers):
                raise ValueError(f"expected until_layer_idx below {len(model.layers)}, received {until_layer_idx}")
            self.until_rule = find_rule("until_layer_rule", until_layer_rule)
        self._early = set() if until_layer_idx is None else _layers_in(model.layers[: until_layer_idx + 1])
        if until_layer_idx is not None and not any(s.linear and _is_in(s, self._early) for s in self.graph.steps):
            raise ValueError(
                f"expected until_layer_idx of a layer with weights or behind one, received {until_layer_idx}: up to "
                f"{model.layers[until_layer_idx].name!r} there is none"
            )
        self._first = {step.index for step in kinds.first_kernels(self.graph, self.graph.steps)}
        if input_layer_rule is not None and not self._first:
            raise ValueError("input_layer_rule is for the layers with weights at the input, and this model has none")
        self.bounds: InputBounds | None = None
        self.input_rule: rules.Rule | None = None
        if isinstance(input_layer_rule, tuple | list):
            if len(input_layer_rule) != 2:
                raise ValueError(
                    f"expected input_layer_rule to be a rule or (low, high), received {input_layer_rule!r}"
                )
            if self.start != self.graph.input:
                raise ValueError(
                    "input_layer_rule=(low, high) are bounds of the model's input, and with input_layer the "
                    "explanation does not go down to it: give one of the two"
                )
            self.bounds = InputBounds(self.graph, *input_layer_rule)
            input_layer_rule = [np.asarray(bound).tolist() for bound in input_layer_rule]
        elif input_layer_rule is not None:
            self.input_rule = find_rule("input_layer_rule", input_layer_rule)
        self._not_negative = kinds.not_negative(self.graph)
        self._keep_options(
            rule=rule,
            input_layer_rule=input_layer_rule,
            bn_layer_rule=bn_layer_rule,
            until_layer_idx=until_layer_idx,
            until_layer_rule=until_layer_rule,
        )
        self._prepare()
        # A share in the negative contributions is a second walk beside the first.
        if any(getattr(rule, "beta", 0) for rule in (*self.kernel_rules.values(), self.input_rule)):
            self._held_at_once = 3.5

    def _keep_options(self, **options: Any) -> None:
        """Add what it was made with to :attr:`options`, without what the method's name fixes."""
        self.options |= {key: value for key, value in options.items() if key not in self._fixed}

    def default_bn_rule(self) -> rules.Rule:
        """The rule of a batch normalisation where ``bn_layer_rule`` says none."""
        return Z()

    @functools.cached_property
    def gates(self) -> dict[int, int]:
        return kinds.gates(self.graph)

    def rule(self, step: Step) -> backward.Rule | None:
        kind = kinds.kind_of(step)
        if kind in (kinds.KERNEL, kinds.NORMALIZATION):
            return self._linear_rule(step, kind).known(nonnegative=step.inputs[0] in self._not_negative)
        if kind in (kinds.RECTIFIER, kinds.ACTIVATION, kinds.IDENTITY, kinds.SCALE):
            return backward.keep
        if kind == kinds.STANDARDIZATION:
            return rules.Standardized()
        if kind == kinds.GATE:
            return rules.Gated(self.gates[step.index]) if step.index in self.gates else None
        if kind in (kinds.STRUCTURE, kinds.MAX, kinds.CONCATENATE):
            return backward.pull
        return Z() if kind in (kinds.AVERAGE, kinds.ADD, kinds.SUBTRACT) else None

    def _linear_rule(self, step: Step, kind: str) -> rules.Rule:
        if kind == kinds.KERNEL:
            if step.index in self._first:
                if self.bounds is not None:
                    return BoundedInput(self.bounds)
                if self.input_rule is not None:
                    return self.input_rule
            if _is_in(step, self._early):
                return self.until_rule
            return self.kernel_rules["dense" if isinstance(step.layer, keras.layers.Dense) else "conv"]
        return self.bn_rule

    def _explain(self, x: np.ndarray, neuron_selection: Any, numbers: tuple[int, ...]) -> list[np.ndarray]:
        if self.bounds is not None:
            self.bounds.check(x)
        return super()._explain(x, neuron_selection, numbers)


def find_rule(option: str, rule: Any) -> rules.Rule:
    """A rule from its name, or as it is.

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(rule, Bounded):
        raise ValueError(f"expected {option} to be a rule for any layer; for bounds give input_layer_rule=(low, high)")
    if isinstance(rule, rules.Rule):
        return rule
    if not (isinstance(rule, str) and rule in RULES):
        raise ValueError(f"expected {option} to be one of {sorted(RULES)}, received {rule!r}")
    return RULES[rule]()


def _layers_in(layers: list[Any]) -> set[int]:
    """The ids of layers, those inside nested models too."""
    found: set[int] = set()
    for layer in layers:
        found.add(id(layer))
        if isinstance(layer, keras.Model):
            found |= _layers_in(layer.layers)
    return found


def _is_in(step: Step, layers: set[int]) -> bool:
    """Whether a step is of one of the layers with these ids, or of a part of one."""
    return id(getattr(step.layer, "whole", step.layer)) in layers
