"""LRP: layer-wise relevance propagation with the rules of your choice, or those of a named preset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from ...checks import integer
from ...graph import step_types
from ...graph.model_graph import Step
from ..backward import BackwardAnalyzer
from ..tables import Entry, PerGate, PerStep, pass_through, vjp
from .input_bounds import BoundedInput, InputBounds
from .named_rules import RULES, find_rule
from .nonlinear_rules import Gated, Standardized
from .options import first_rule, ids_of, is_named, is_pairs, option_as_json, pairs_of, type_of
from .presets import PRESETS, Composite, Preset
from .rules import Rule, Z


class LRP(BackwardAnalyzer):
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
        rule: A name in :data:`mipin_keras.baselines.lrp.named_rules.RULES`, such as
            "Epsilon", or a :class:`~mipin_keras.baselines.lrp.rules.Rule`; or
            a dict from ``"dense"`` and ``"conv"`` to one.
        rules: Rules for single layers, over those of ``rule`` or of the
            preset: a dict from a layer's name, or a layer type such as
            ``keras.layers.Dense``, to a name or rule. A rule by name goes
            before all others, one by type before ``rule`` and after
            ``input_layer_rule`` and ``until_layer_rule``.
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
            finite; for layers that LRP is not defined for, naming each; for
            ``rules`` of a layer that is not there or has no weights.
    """

    name = "lrp"
    #: The preset of this method; None where ``rule`` says which rules.
    preset: ClassVar[Preset | None] = None

    def __init__(
        self,
        model: keras.Model,
        *,
        rule: Any = None,
        rules: Any = None,
        input_layer_rule: Any = None,
        bn_layer_rule: Any = None,
        until_layer_idx: int | None = None,
        until_layer_rule: Any = None,
        **options: Any,
    ):
        own = {key: options.pop(key) for key in list(options) if key in self._own_options()}
        super().__init__(model, **options)
        composite = self._composite(rule) if self.preset is None else self.preset.composite(**own)
        if bn_layer_rule is not None:
            composite = composite._replace(normalization=find_rule("bn_layer_rule", bn_layer_rule))
        if until_layer_rule is not None:
            composite = composite._replace(until=find_rule("until_layer_rule", until_layer_rule))
        if input_layer_rule is not None:
            composite = composite._replace(first=first_rule("input_layer_rule", input_layer_rule))
        settled_until = self.preset is not None and "until_layer_rule" in self.preset.settles
        if not settled_until and (until_layer_idx is None) != (until_layer_rule is None):
            raise ValueError(
                f"expected until_layer_idx and until_layer_rule, which need each other, received {until_layer_idx!r} "
                f"and {until_layer_rule!r}; give both or neither"
            )
        self.composite = composite
        self._until = self._layers_until(until_layer_idx)
        self._first = {step.index for step in step_types.first_kernel_steps(self.graph, self.graph.steps)}
        if composite.first is not None and not self._first:
            raise ValueError(
                "expected layers with weights at the input, which input_layer_rule is for, received a model without; "
                "leave it out"
            )
        if isinstance(composite.first, tuple):
            if self.starts != self.graph.inputs or len(self.starts) > 1:
                raise ValueError(
                    "expected an explanation down to the one floating-point input of a model, which low and high are "
                    "the bounds of, received input_layer or a model with other inputs; leave the bounds or it out"
                )
            self.bounds = InputBounds(self.graph, *composite.first)
        self._by_name, self._by_type = self._single_rules(rules)
        given = {
            "rule": option_as_json(rule),
            "rules": None if rules is None else pairs_of(rules),
            "input_layer_rule": option_as_json(input_layer_rule),
            "bn_layer_rule": option_as_json(bn_layer_rule),
            "until_layer_idx": None if until_layer_idx is None else int(until_layer_idx),
            "until_layer_rule": option_as_json(until_layer_rule),
        } | {key: option_as_json(value) for key, value in composite.options.items()}
        self.options |= {key: value for key, value in given.items() if key not in self._fixed}
        self._not_negative = step_types.not_negative(self.graph)
        self._prepare()
        # A share in the negative contributions is a second pass beside the first.
        if any(getattr(self.rules[step.index], "passes", 1) > 1 for step in self.steps if step.linear):
            self._held_at_once = 3.5

    @classmethod
    def _own_options(cls) -> list[str]:
        """The options that the preset adds to those of every LRP."""
        return [] if cls.preset is None else list(inspect.signature(cls.preset.composite).parameters)

    @classmethod
    def known_options(cls) -> list[str]:
        return sorted({*super().known_options(), *cls._own_options()})

    def completeness_residual(
        self, X: Any, maps: list[np.ndarray], neuron_selection: Any = None
    ) -> tuple[float, float | None, str]:
        """How far relevance is from being kept: the shares of biases are lost, so there is no limit."""
        sums = sum(one.reshape(len(one), -1).sum(axis=1, dtype=np.float64) for one in maps)
        values = self._explained(X, neuron_selection)
        residual = np.abs(sums - values) / np.maximum(np.abs(values), 1e-30)
        text = "|sum of the map - logit| / |logit|, median: what the biases, and rules that do not share it, have kept"
        return float(np.median(residual)), None, text

    # Which rules were asked for

    def _composite(self, rule: Any) -> Composite:
        """What ``rule=`` says."""
        if rule is None:
            raise ValueError(
                f"{self.name!r} needs rule=: expected one of {sorted(RULES)}, or a dict from 'dense' and 'conv' to "
                "them, received none"
            )
        named = rule if isinstance(rule, dict) and "rule" not in rule else {"dense": rule, "conv": rule}
        if named.keys() != {"dense", "conv"}:
            raise ValueError(
                f"expected rule to be a rule, or a dict of 'dense' and 'conv', received {rule!r}; give a rule for each"
            )
        dense, conv = (find_rule("rule", named[key]) for key in ("dense", "conv"))
        return Composite(dense, conv, Z())

    def _layers_until(self, index: Any) -> set[int]:
        """The ids of the layers up to ``until_layer_idx``."""
        if index is None:
            return set()
        layers = self.model.layers
        index = integer("until_layer_idx", index, 0)
        if index >= len(layers):
            raise ValueError(
                f"expected until_layer_idx below {len(layers)}, received {index}; it is an index in model.layers"
            )
        found = ids_of(layers[: index + 1])
        if not any(step.linear and id(step.model_layer) in found for step in self.graph.steps):
            raise ValueError(
                f"expected until_layer_idx of a layer with weights or behind one, received {index}: up to "
                f"{layers[index].name!r} there is none"
            )
        return found

    def _single_rules(self, rules: Any) -> tuple[dict[int, Rule], dict[type, Rule]]:
        """What ``rules=`` says: by the index of a step, and by the type of a layer."""
        by_name: dict[int, Rule] = {}
        by_type: dict[type, Rule] = {}
        if rules is None:
            return by_name, by_type
        if not (isinstance(rules, Mapping) or is_pairs(rules)) or not rules:
            raise ValueError(
                f"expected rules to be a dict from layer names or layer types to rules, received {rules!r}; such as "
                "rules={'conv1': 'Flat', keras.layers.Dense: 'Epsilon'}"
            )
        steps = [step for step in self.graph.between(*self.reached_starts) if step_types.of(step) in _RULED]
        for key, value in rules.items() if isinstance(rules, Mapping) else rules:
            rule = find_rule(f"rules[{getattr(key, '__name__', key)!r}]", value)
            if isinstance(key, str):
                self.graph.tensor_after(key)  # raises for a name that is not there
                named = [step for step in steps if is_named(step, key)]
                by_name |= {step.index: rule for step in named}
            else:
                layer_type = type_of(key, steps)
                named = (
                    [] if layer_type is None else [step for step in steps if isinstance(step.model_layer, layer_type)]
                )
                if layer_type is not None:
                    by_type[layer_type] = rule
            if not named:
                raise ValueError(
                    f"expected rules for Dense layers, convolutions or batch normalisations that relevance comes by, "
                    f"received one for {getattr(key, '__name__', key)!r}, which names none; they are "
                    f"{sorted({step.model_layer.name for step in steps})}"
                )
        return by_name, by_type

    # Which rule a step gets

    @property
    def table(self) -> Mapping[str, Entry]:
        """The rule of each step type."""
        return {
            step_types.KERNEL: PerStep(self._kernel_rule),
            step_types.NORMALIZATION: PerStep(self._normalization_rule),
            step_types.RECTIFIER: pass_through,
            step_types.ACTIVATION: pass_through,
            step_types.IDENTITY: pass_through,
            step_types.AFFINE: pass_through,
            step_types.STANDARDIZATION: Standardized(),
            step_types.GATE: PerGate(Gated),
            step_types.STRUCTURE: vjp,
            step_types.MAX: vjp,
            step_types.CONCATENATE: vjp,
            step_types.AVERAGE: Z(),
            step_types.SUM: Z(),
            step_types.ADD: Z(),
            step_types.SUBTRACT: Z(),
        }

    def _kernel_rule(self, step: Step) -> Rule:
        return self._for_input(step, self._named_rule(step) or self._early_rule(step) or self._typed_rule(step))

    def _normalization_rule(self, step: Step) -> Rule:
        return self._for_input(step, self._named_rule(step) or self._typed_rule(step))

    def _named_rule(self, step: Step) -> Rule | None:
        return self._by_name.get(step.index)

    def _early_rule(self, step: Step) -> Rule | None:
        """That of the layers at the input."""
        if step.index in self._first and self.composite.first is not None:
            return self.composite.first if self.bounds is None else BoundedInput(self.bounds)
        return self.composite.until if id(step.model_layer) in self._until else None

    def _typed_rule(self, step: Step) -> Rule:
        """That of the layer's nearest type in ``rules``, or else of the preset."""
        for base in type(step.model_layer).__mro__:
            if base in self._by_type:
                return self._by_type[base]
        if step_types.of(step) == step_types.NORMALIZATION:
            return self.composite.normalization
        return self.composite.dense if isinstance(step.layer, keras.layers.Dense) else self.composite.conv

    def _for_input(self, step: Step, rule: Rule) -> Rule:
        return rule.for_input(nonnegative=step.inputs[0] in self._not_negative)


# The step types that have the rules of ``rule``, ``rules`` and a preset.
_RULED = (step_types.KERNEL, step_types.NORMALIZATION)


def _named(name: str, preset: Preset) -> type[LRP]:
    """The analyzer of a preset."""
    settled = {"rule", *preset.settles}
    members = {"name": name, "preset": preset, "_fixed": frozenset(settled), "__doc__": preset.text}
    title = "".join(word.capitalize() for word in name.removeprefix("lrp.").split("_"))
    return type(f"LRP{title}", (LRP,), members | {"__module__": __name__})


#: LRP and its presets by name.
ANALYZERS: dict[str, type[LRP]] = {"lrp": LRP} | {name: _named(name, preset) for name, preset in PRESETS.items()}
