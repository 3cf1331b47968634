"""Checks of options and models: what was expected, and what came."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np


class NotFittedError(RuntimeError):
    """The analyzer, or the class to explain, has not been fitted; or the model has changed since."""


def one_of(name: str, value: Any, known: tuple) -> None:
    """Raise ValueError unless ``value`` is one of ``known``, of the same type too."""
    if not any(type(value) is type(entry) and value == entry for entry in known):
        raise ValueError(f"expected {name} to be one of {known}, received {value!r}")


def integer(name: str, value: Any, least: int) -> int:
    """``value``, Python's integer or NumPy's, as Python's.

    Raises:
        ValueError: Unless it is an integer of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"expected {name} to be an integer of at least {least}, received {value!r}")
    return int(value)


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


def check_graph(model: Any, what: str) -> None:
    """Raise unless the calls of ``model`` can be read from its graph."""
    own_call = not type(model).call.__module__.startswith("keras.")
    if own_call or not isinstance(model, keras.Sequential | keras.Function):
        raise ValueError(
            f"expected a Sequential or functional model, received {what} of type {type(model).__name__}, whose own "
            "call() hides its layers; build it as keras.Model(inputs, outputs)"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"{what} is not built, so it has no graph yet; add keras.Input(shape) as its first layer, or call it once"
        )


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a Keras 3 model with a graph, one input and one output."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"expected a Keras 3 model (keras.Model), received {type(model).__module__}.{type(model).__name__}"
        )
    check_graph(model, "the model")
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            names = [tensor.name for tensor in tensors]
            raise ValueError(
                f"expected a model with one {what}, received {len(tensors)}: {names}; "
                f"build keras.Model(input, output) for the part to explain"
            )
