"""Checks of options: what was expected, and what came."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def one_of(name: str, value: Any, known: tuple) -> None:
    """Raise ValueError unless ``value`` is one of ``known``, of the same type too."""
    if not any(type(value) is type(entry) and value == entry for entry in known):
        raise ValueError(f"expected {name} to be one of {known}, received {value!r}")


def whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} to be an integer of at least {least}, received {value!r}")


def number(name: str, value: Any, least: float, *, above: bool = False) -> float:
    """``value`` as a float.

    Raises:
        ValueError: Unless it is a finite number of at least ``least``, or
            greater than it if ``above``.
    """
    try:
        fits = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
        fits = fits and math.isfinite(value) and bool(value > least if above else value >= least)
    except OverflowError:  # an int that no float holds
        fits = False
    if not fits:
        bound = f"greater than {least:g}" if above else f"of at least {least:g}"
        raise ValueError(f"expected {name} to be a finite number {bound}, received {value!r}")
    return float(value)


def array_like(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """A number or array as one of ``shape``, float64; of size 1 along axes of unknown size, None.

    Raises:
        ValueError: If it does not broadcast to ``shape``, or is not finite.
    """
    try:
        array = np.broadcast_to(np.asarray(value, np.float64), [1 if size is None else size for size in shape])
    except (ValueError, TypeError, OverflowError):
        received = getattr(value, "shape", None) or repr(value)
        raise ValueError(
            f"expected {name} to be a number or an array that broadcasts to one sample {shape}, received {received}"
        ) from None
    if not np.isfinite(array).all():
        raise ValueError(f"expected {name} to be finite, received {value!r}")
    return array
