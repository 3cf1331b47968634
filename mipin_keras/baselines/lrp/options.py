"""LRP's options: rules by name and by type, as they are given and as a file holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ...graph.model_graph import Step
from .named_rules import as_json, find_rule
from .rules import Rule


def first_rule(option: str, rule: Any) -> Any:
    """A rule for the first layers, or bounds as a tuple."""
    if not isinstance(rule, tuple | list):
        return find_rule(option, rule)
    if len(rule) != 2:
        raise ValueError(
            f"expected {option} to be a rule or (low, high), received {rule!r}; give one bound for each side"
        )
    return tuple(rule)


def is_pairs(rules: Any) -> bool:
    """Whether these are rules as a file holds them."""
    return isinstance(rules, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in rules)


def pairs_of(rules: Any) -> list[list[Any]]:
    """Rules as a file holds them: pairs of a layer's name, or of a type's name in a list, and a rule."""
    pairs = rules.items() if isinstance(rules, Mapping) else rules
    return [[[key.__name__] if isinstance(key, type) else key, option_as_json(rule)] for key, rule in pairs]


def type_of(key: Any, steps: list[Step]) -> type | None:
    """A layer type from itself, or from what a file holds of it, its name in a list; None if no layer is of it.

    Raises:
        ValueError: For anything else.
    """
    if isinstance(key, list) and len(key) == 1:
        bases = (base for step in steps for base in type(step.model_layer).__mro__)
        return next((base for base in bases if base.__name__ == key[0]), None)
    if isinstance(key, type) and issubclass(key, keras.layers.Layer):
        return key
    raise ValueError(
        f"expected layer names or layer types as keys of rules, received {key!r}; such as keras.layers.Dense"
    )


def is_named(step: Step, name: str) -> bool:
    """Whether a step is of the layer of this name, with or without the path of nested models before it."""
    return name in (step.name, step.model_layer.name) or step.name.split("#")[0] == name


def ids_of(layers: list[Any]) -> set[int]:
    """The ids of layers, those inside nested models too."""
    found: set[int] = set()
    for layer in layers:
        found.add(id(layer))
        if isinstance(layer, keras.Model):
            found |= ids_of(layer.layers)
    return found


def option_as_json(value: Any) -> Any:
    """An option as a file holds it: rules and arrays as JSON, whatever else as it is."""
    if isinstance(value, Rule):
        return as_json(value) or value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {key: option_as_json(entry) for key, entry in value.items()}
    return [option_as_json(entry) for entry in value] if isinstance(value, tuple | list) else value
