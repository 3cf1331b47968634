"""Recognises activation functions by what they compute: those of ``tf.nn`` and ``keras.ops``, lambdas, a user's own.

A function is called once on a few fixed arrays of numbers, and what it returns
is compared with the functions of ``keras.activations``. What is found is a
name. A step goes on calling the function itself.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Recognised(NamedTuple):
    """What a function was recognised as.

    Attributes:
        name: The name in ``keras.activations``; ``"rectifier"`` for a ReLU
            with a threshold or a cap of its own; ``""`` for none.
        default: Whether it computes the same as that function of
            ``keras.activations`` with its default settings.
        axis: Of a softmax or its logarithm: -1 for the last axis; 1 where it
            is the first behind the batch's, which of ``(batch, units)`` is
            the last one too. None for all others.
    """

    name: str
    default: bool = True
    axis: int | None = None


NOTHING = Recognised("", False)

# Piecewise linear ones, which an equal function gives exactly: a rectifier's zeros are what masks are made of.
_EXACT = ("linear", "relu", "relu6", "leaky_relu")
_OVER_AXIS = ("softmax", "log_softmax")
# Between the kinks of the known functions, on both sides of each; up to 30, as a softmax or softplus that is written
# out overflows above 88.
_NUMBERS = (
    1e-12, 1e-6, 1e-4, 0.003, 0.05, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.9, 2.3, 2.9, 3.2, 4.4, 5.9, 6.1, 8.0, 13.0,
    30.0,
)  # fmt: skip
_LARGE = (60.0, 150.0, 1e3, 2e4, 1e6)


class _Probe(NamedTuple):
    """The arrays that functions are called on, float32.

    Attributes:
        plain: Two of ``(rows, units)``: numbers of all sizes and both signs.
        large: One more; a formula that overflows there is excused.
        deep: One of ``(rows, 3, units)``, for the axis of a softmax.
    """

    plain: tuple[np.ndarray, np.ndarray]
    large: np.ndarray
    deep: np.ndarray


@functools.lru_cache(maxsize=1)
def _probe() -> _Probe:
    rng = np.random.default_rng(0)
    every = np.array([0.0, *_NUMBERS, *(-value for value in _NUMBERS)], np.float32)
    rows = rng.permutation(every).reshape(9, 5)
    other = rng.normal(size=(5, 7)) * np.array([[0.01], [0.3], [1.0], [4.0], [9.0]])
    large = rng.permutation([*_LARGE, *(-value for value in _LARGE)]).reshape(2, 5)
    deep = 2 * rng.normal(size=(2, 3, 4))
    return _Probe((rows, other.astype(np.float32)), large.astype(np.float32), deep.astype(np.float32))


class _Values(NamedTuple):
    """What a function makes of a :class:`_Probe`; ``deep`` is None where it does not take three axes."""

    plain: tuple[np.ndarray, ...]
    large: np.ndarray
    deep: np.ndarray | None


def _values(function: Callable) -> _Values | None:
    """None where the function does not make an array of the same shape of each."""
    probe = _probe()
    try:
        plain = tuple(_called(function, x) for x in probe.plain)
        large = _called(function, probe.large)
    except Exception:  # a function of a user's may raise anything, on numbers that it was not made for
        return None
    try:
        deep = _called(function, probe.deep)
    except Exception:
        deep = None
    given = [*zip(probe.plain, plain, strict=True), (probe.large, large)]
    if any(x.shape != y.shape for x, y in given) or not all(np.isfinite(y).all() for y in plain):
        return None
    return _Values(plain, large, deep if deep is not None and deep.shape == probe.deep.shape else None)


def _called(function: Callable, x: np.ndarray) -> np.ndarray:
    found = np.asarray(keras.ops.convert_to_numpy(function(tf.constant(x))))
    if found.dtype.kind not in "fV":  # V: bfloat16
        raise TypeError(f"expected floats, received {found.dtype}")
    return found.astype(np.float64)


# What is known

_memo: weakref.WeakKeyDictionary[Any, Recognised] = weakref.WeakKeyDictionary()


def recognise(function: Any, names: Iterable[str]) -> Recognised:
    """What ``function`` computes, if it is one of the known activation functions.

    Args:
        function: From a tensor to one of the same shape. It is called at most
            once a few arrays as long as it lives.
        names: The functions of ``keras.activations`` to compare it with.

    Returns:
        :data:`NOTHING` for a function that is none of them, and for one that
        fails on the arrays.
    """
    try:
        if function in _memo:
            return _memo[function]
    except TypeError:  # not hashable, or without weak references: looked at anew each time
        return _recognise(function, tuple(names))
    with tf.init_scope():
        found = _recognise(function, tuple(names))
        if tf.executing_eagerly():  # else nothing was computed
            try:
                _memo[function] = found
            except TypeError:
                pass
    return found


def _recognise(function: Any, names: tuple[str, ...]) -> Recognised:
    if not callable(function):
        return NOTHING
    with tf.init_scope(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _values(function)
        if found is None:
            return NOTHING
        for name, variant, wanted in _references(names):
            if _same(found, wanted, name):
                return Recognised(name, not variant, _axis_of(name, found) if name in _OVER_AXIS else None)
    name = _family(found)
    return Recognised(name, False) if name else NOTHING


@functools.lru_cache(maxsize=4)
def _references(names: tuple[str, ...]) -> list[tuple[str, bool, _Values]]:
    """The known functions: name, whether with another setting than the default, and values."""
    first = [*_EXACT, "elu"]  # of two that are the same, as elu and celu, this one
    ordered = [*(name for name in first if name in names), *sorted(set(names) - set(first))]
    functions = [(name, False, getattr(keras.activations, name, None)) for name in ordered]
    functions.append(("gelu", True, functools.partial(keras.activations.gelu, approximate=True)))
    found = []
    for name, variant, function in functions:
        values = None if function is None else _values(function)  # threshold() has no defaults
        if values is not None:
            found.append((name, variant, values))
    return found


def _same(found: _Values, wanted: _Values, name: str) -> bool:
    pairs = list(zip(found.plain, wanted.plain, strict=True))
    finite = np.isfinite(found.large)
    pairs.append((found.large[finite], wanted.large[finite]))
    if name not in _OVER_AXIS:
        if found.deep is not None and wanted.deep is not None:
            pairs.append((found.deep, wanted.deep))
        if found.deep is None:
            return False
    relative, absolute = (1e-6, 0.0) if name in _EXACT else (2e-5, 1e-6)
    return all(_near(*pair, relative, absolute) for pair in pairs)


def _near(found: np.ndarray, wanted: np.ndarray, relative: float, absolute: float) -> bool:
    known = np.isfinite(wanted)
    return bool((np.abs(found - wanted) <= relative * np.abs(wanted) + absolute)[known].all())


def _axis_of(name: str, found: _Values) -> int:
    if found.deep is None:
        return 1  # it takes (batch, units) only
    wanted = getattr(keras.activations, name)(tf.constant(_probe().deep), axis=-1)
    return -1 if _near(found.deep, np.asarray(wanted, np.float64), 2e-5, 1e-6) else 1


# Functions with settings of their own

# A name, how its setting shows in the function's values, and the function with that setting.
_FAMILIES: tuple[tuple[str, Callable, Callable], ...] = (
    ("leaky_relu", lambda at: -at(-1.0), lambda x, slope: np.where(x < 0, slope * x, x)),
    ("elu", lambda at: -at(-30.0), lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)),
    ("celu", lambda at: -at(-1e6), lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)),
    ("silu", lambda at: np.log(at(1.0) / (1 - at(1.0))), lambda x, beta: x / (1 + np.exp(-beta * x))),
)


def _family(found: _Values) -> str:
    """The name of an elementwise function with a setting that is not the default; "" for others."""
    if found.deep is None:
        return ""
    probe = _probe()
    x = np.concatenate([part.ravel() for part in (*probe.plain, probe.large, probe.deep)]).astype(np.float64)
    y = np.concatenate([part.ravel() for part in (*found.plain, found.large, found.deep)])

    def at(number: float) -> np.float64:
        return y[x == np.float32(number)][0]

    if _is_rectifier(x, y, at):
        return "rectifier"
    with np.errstate(all="ignore"):
        for name, setting_of, function in _FAMILIES:
            setting = setting_of(at)
            if 0 < setting < np.inf and _near(y, function(x, setting), 2e-5, 1e-6 if name != "leaky_relu" else 0.0):
                return name
    return ""


def _is_rectifier(x: np.ndarray, y: np.ndarray, at: Callable[[float], np.float64]) -> bool:
    """Whether it is 0 up to a threshold of at least 0, and above it the input or a cap."""
    cap, threshold = at(1e6), float(x[y == 0].max(initial=0.0))
    return bool(threshold < cap) and _near(y, np.where(x <= threshold, 0.0, np.minimum(x, cap)), 1e-6, 0.0)


# Probabilities


def gives_probabilities(function: Callable, shape: tuple[int | None, ...]) -> bool:
    """Whether what a function returns looks like probabilities.

    Args:
        function: From an array ``(n, *shape)`` to another.
        shape: A size that is None is taken as 4.

    Returns:
        True where the last axis of its output sums to 1 with nothing below 0,
        as that of a softmax with a temperature; or where each element lies
        between 0 and 1 and grows with the element of the input, as that of a
        scaled sigmoid.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, *(4 if size is None else size for size in shape))).astype(np.float32)
    try:
        with tf.init_scope(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small, large = _called(function, x / 4), _called(function, 1e3 * x)
    except Exception:  # as in _values
        return False
    if small.ndim < 2 or not np.isfinite(small).all() or (small < 0).any():
        return False
    if small.shape[-1] > 1 and np.abs(small.sum(axis=-1) - 1).max() < 1e-3:
        return True
    if small.shape != x.shape or not (small < 1).all() or not (small > 0).all():
        return False
    order = np.argsort(x, axis=None)
    grows = (np.diff(small.ravel()[order]) >= 0).all() and np.ptp(small) > 0
    return bool(grows and (large >= 0).all() and (large <= 1).all())
