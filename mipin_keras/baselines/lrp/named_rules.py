"""LRP's rules by name, as options and files name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .input_bounds import Bounded
from .rules import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z

#: The rules that options name, as iNNvestigate names them.
RULES: dict[str, Callable[[], Any]] = {
    "Z": Z,
    "Epsilon": Epsilon,
    "WSquare": WSquare,
    "Flat": Flat,
    "Gamma": Gamma,
    "Alpha1Beta0": AlphaBeta,
    "Alpha1Beta0IgnoreBias": lambda: AlphaBeta(bias=False),
    "Alpha2Beta1": lambda: AlphaBeta(2.0, 1.0),
    "Alpha2Beta1IgnoreBias": lambda: AlphaBeta(2.0, 1.0, bias=False),
    "AlphaBetaX2m100": AlphaBetaX,
    "ZPlus": lambda: AlphaBeta(bias=False),
    "ZPlusFast": lambda: AlphaBeta(bias=False, nonnegative=True),
}

# Those that a file can hold, by the names of their classes.
_OF_FILES: dict[str, type[Rule]] = {
    rule_type.__name__: rule_type for rule_type in (Z, Epsilon, WSquare, Flat, AlphaBeta, Gamma, AlphaBetaX)
}


def as_json(rule: Rule) -> dict[str, Any] | None:
    """A rule for a file, for :func:`from_json`; None for one that is not of this package."""
    rule_type = type(rule).__name__
    if _OF_FILES.get(rule_type) is not type(rule):
        return None
    return {"rule": rule_type} | {name: _plain(value) for name, value in vars(rule).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def from_json(found: dict[str, Any]) -> Rule:
    """The rule that :func:`as_json` wrote.

    Raises:
        ValueError: If it is none.
    """
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k != "rule"}
        return _OF_FILES[found["rule"]](**values)
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"expected a rule as an analyzer's file holds it, received {str(found)[:100]}; give a name or a Rule"
        ) from problem


def find_rule(option: str, rule: Any) -> Rule:
    """A rule from its name, from what a file holds of it, or as it is.

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(rule, Bounded):
        raise ValueError(
            f"expected {option} to be a rule for any layer, received one for bounded inputs; for bounds give "
            "input_layer_rule=(low, high)"
        )
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, dict) and "rule" in rule:
        return from_json(rule)
    if not (isinstance(rule, str) and rule in RULES):
        raise ValueError(
            f"expected {option} to be one of {sorted(RULES)}, or a Rule, received {rule!r}; such as 'Epsilon'"
        )
    return RULES[rule]()
