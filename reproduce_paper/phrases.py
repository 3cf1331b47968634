"""Phrases that the pages of several experiments share: numbers with intervals, lists of names, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; ``-`` where there is none, that is for None and NaN."""
    return "-" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def with_interval(value: float, interval: Sequence[float], form: str = ".3f") -> str:
    """``"0.412 [0.390, 0.435]"``; ``form`` says how each number is written."""
    return f"{value:{form}} {bracketed(interval, form)}"


def bracketed(interval: Sequence[float], form: str = ".3f") -> str:
    """``"[0.390, 0.435]"``."""
    low, high = interval
    return f"[{low:{form}}, {high:{form}}]"


def told_apart(difference: Sequence[float]) -> str:
    """Whether the interval of a difference excludes 0, as the end of a sentence."""
    low, high = difference
    return "does not tell the two apart" if low <= 0 <= high else "tells the two apart"


def and_list(names: Sequence[str]) -> str:
    """``"a, b and c"``; ``"none"`` if there is no name."""
    if not names:
        return "none"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def fitted_on(counts: Mapping[str, int]) -> str:
    """``"MIP-IN on 4,000, PatternAttribution on 1,500"``: images by the method that was fitted on them."""
    return ", ".join(f"{title} on {count:,}" for title, count in counts.items())
