"""Checks of options, arrays and models. An error says what was expected, what was received, and what to do."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


class NotFittedError(RuntimeError):
    """The analyzer, or the class to explain, has not been fitted; or the model has changed since."""


def not_fitted(name: str) -> NotFittedError:
    """The error for an analyzer of this name that has no fit yet."""
    return NotFittedError(
        f"expected a fitted analyzer, received this {name!r} analyzer, which is not fitted; call fit(X), or load() a "
        "file"
    )


def keyword_options(cls: type) -> set[str]:
    """The names of the options that a class and its bases take: the keyword-only parameters of their ``__init__``."""
    known: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            known.update(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    return known


def check_options(name: str, options: Iterable[str], known: list[str]) -> None:
    """Raise TypeError unless all of the options given to the analyzer ``name`` are known ones."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"expected options of {name!r}, {known}, received {', '.join(map(repr, unknown))}, which it has no option "
            "for; leave it out"
        )


def one_of(name: str, value: Any, known: tuple) -> Any:
    """The one of ``known`` that ``value`` is, of the same type too; NumPy's scalars count as Python's.

    Raises:
        ValueError: If it is none of them.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    for entry in known:
        if type(plain) is type(entry) and plain == entry:
            return entry
    raise ValueError(f"expected {name} to be one of {known}, received {value!r}")


def integer(name: str, value: Any, least: int) -> int:
    """``value``, Python's integer or NumPy's, as Python's.

    Raises:
        ValueError: Unless it is an integer of at least ``least``.
    """
    if not is_integer(value) or value < least:
        raise ValueError(f"expected {name} to be an integer of at least {least}, received {value!r}")
    return int(value)


def index(name: str, value: Any, size: int) -> int:
    """``value``, Python's integer or NumPy's, as Python's.

    Raises:
        ValueError: Unless it is an integer from 0 to ``size - 1``.
    """
    if not is_integer(value) or not 0 <= value < size:
        raise ValueError(f"expected {name} to be an int from 0 to {size - 1}, received {value!r}; give one of these")
    return int(value)


def is_integer(value: Any) -> bool:
    """Whether ``value`` is an integer, Python's or NumPy's; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def number(name: str, value: Any, least: float, *, above: bool = False) -> float:
    """``value``, Python's number or NumPy's, as a float.

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
            f"expected {name} to be a number or an array that broadcasts to one sample {shape}, received {received}; "
            "give one number for all, or leave out the batch axis"
        ) from None
    if not np.isfinite(array).all():
        raise ValueError(f"expected {name} to be finite, received {value!r}")
    return array


def batch_shape(shape: tuple[int | None, ...]) -> str:
    """The shape of a batch of samples of ``shape``, as messages write it: ``(batch, 28, 28, 1)``."""
    return f"(batch, {', '.join(map(str, shape))})"


def real_array(name: str, values: Any) -> np.ndarray:
    """``values`` as an array of its own dtype, not copied.

    Args:
        name: What the message calls the array.
        values: Array-like of any shape.

    Raises:
        ValueError: Unless it is one array of real numbers: floats, integers
            or booleans.
    """
    try:
        array = np.asarray(values)
    except ValueError as problem:  # lists of unequal lengths
        raise ValueError(
            f"expected {name} to be one array of real numbers, received a {type(values).__name__} of parts of "
            f"different shapes; give parts of one shape ({problem})"
        ) from problem
    if array.dtype.kind not in "fiub":
        raise ValueError(f"expected {name} to be real numbers, received dtype {array.dtype}; convert the array first")
    return array


def check_finite(name: str, array: Any, entries: str, advice: str, *, offset: int | None = None) -> None:
    """Raise ValueError if an array of numbers holds NaN or infinity; the message counts the entries that do.

    Args:
        name: What the message calls the array.
        array: Shape ``(n, ...)``.
        entries: What the message calls the ``n`` entries, in the plural.
        advice: What to do about it: the end of the message.
        offset: For an array that is one batch of the data: the index of its
            first entry in the data.
    """
    finite = np.isfinite(array)
    if finite.all():
        return
    bad = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
    of_batch, of_data = ("", "") if offset is None else (" of a batch", " of the data")
    raise ValueError(
        f"expected {name} to be finite, received NaN or infinity in {len(bad)} of {len(array)} {entries}{of_batch}, "
        f"the first at index {(offset or 0) + bad[0]}{of_data}; {advice}"
    )


def has_graph(model: Any) -> bool:
    """Whether the calls of a model can be read from its graph: a Sequential or functional one with Keras' own call."""
    if not isinstance(model, keras.Sequential | keras.Function):
        return False
    return getattr(type(model), "call", None).__module__.startswith("keras.")


def check_graph(model: Any, what: str) -> None:
    """Raise unless the calls of ``model`` can be read from its graph."""
    if not has_graph(model):
        raise ValueError(
            f"expected a Sequential or functional model, received {what} of type {type(model).__name__}, whose own "
            "call() hides its layers; build it as keras.Model(inputs, outputs), or take 'gradient', "
            "'input_t_gradient', 'integrated_gradients' or 'smoothgrad', which need no layers"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"expected a built model, received {what}, which is not built and has no graph yet; add "
            "keras.Input(shape) as its first layer, or call it once"
        )


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a Keras 3 model with a graph."""
    if not isinstance(model, keras.Model):
        raise not_keras(model)
    check_graph(model, "the model")


def not_keras(model: Any) -> TypeError:
    """The error for something that is no Keras 3 model."""
    return TypeError(
        f"expected a Keras 3 model (keras.Model), received {type(model).__module__}.{type(model).__name__}; build "
        "it with keras.Sequential or keras.Model"
    )
