"""The moments of a regression, and the weights that solve it (Eq. 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .arithmetic import on_host, view

# A solution is found for so many targets at a time: of a layer with 25,088 of
# them, a copy of everything would be many times 800 MB.
SOLVE_COLUMNS = 4096
# What the rounding of the weights that are kept can add to the error is left out where it is surely below this share.
_NEGLIGIBLE = 1e-10
_EPSILON = np.finfo(np.float64).eps


class UndeterminedError(Exception):
    """The features do not determine the weights."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a regression found.

    Attributes:
        kernel: Shape ``(groups, features, targets)``.
        bias: Shape ``(groups, targets)``.
        rows: How many rows went in.
        mse: The mean squared error of these weights on them, in squared units
            of the targets.
        variance: Of the targets (mean over groups and targets), likewise.
    """

    kernel: np.ndarray
    bias: np.ndarray
    rows: int
    mse: float
    variance: float


@dataclasses.dataclass
class Moments:
    """Sums over rows around their means, for ``groups`` regressions side by side, in float64.

    Attributes:
        rows: How many rows.
        features, targets: The means, ``(groups, features)`` and ``(groups, targets)``.
        gram: ``FᵀF`` of the centred features, ``(groups, features, features)``.
        cross: ``FᵀT``, ``(groups, features, targets)``.
        squares: The centred targets' sums of squares, ``(groups, targets)``.
    """

    rows: int
    features: Any
    targets: Any
    gram: Any
    cross: Any
    squares: Any

    @classmethod
    def merged(cls, parts: list[tuple[Moments, np.ndarray]], features: int) -> Moments:
        """The moments of several sets of rows, each with some columns of the features; the others are 0 in its rows.

        Args:
            parts: The moments, and which columns their features are.
            features: How many columns there are.
        """
        first = parts[0][0]
        groups, targets = np.shape(first.targets)
        rows = sum(part.rows for part, _ in parts)
        count = max(rows, 1)
        wide = [(view(part.features), np.ix_(np.arange(groups), columns)) for part, columns in parts]
        means = np.zeros((groups, features)), np.zeros((groups, targets))
        for (part, _), (own, at) in zip(parts, wide, strict=True):
            means[0][at] += part.rows * own / count
            means[1][:] += part.rows * view(part.targets) / count
        gram, cross = np.zeros((groups, features, features)), np.zeros((groups, features, targets))
        squares = np.zeros((groups, targets))
        for (part, columns), (own, at) in zip(parts, wide, strict=True):
            off = -means[0]
            off[at] += own
            beside = view(part.targets) - means[1]
            gram[np.ix_(np.arange(groups), columns, columns)] += view(part.gram)
            gram += part.rows * off[:, :, None] * off[:, None, :]
            cross[np.ix_(np.arange(groups), columns, np.arange(targets))] += view(part.cross)
            cross += part.rows * off[:, :, None] * beside[:, None, :]
            squares += view(part.squares) + part.rows * beside**2
        return cls(rows, *means, gram, cross, squares)

    def exchanged(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Moments:
        """Those of the rows of all processes, each of which calls this.

        Args:
            total: Sums arrays over all processes.
        """
        own = [np.array(view(each)) for each in (self.features, self.targets)]
        f, t, rows = total([self.rows * own[0], self.rows * own[1], np.array([float(self.rows)])])
        count = max(rows[0], 1.0)
        f, t = f / count, t / count
        off, beside = own[0] - f, own[1] - t
        gram = view(self.gram) + self.rows * off[:, :, None] * off[:, None, :]
        cross = view(self.cross) + self.rows * off[:, :, None] * beside[:, None, :]
        squares = view(self.squares) + self.rows * beside**2
        return Moments(int(rows[0]), f, t, *total([gram, cross, squares]))


def solve(moments: Moments, ridge: float, dtype: Any) -> Solution:
    """``W = (FᵀF + ridge)⁻¹ FᵀT`` by one Cholesky factorisation, some targets at a time.

    Args:
        moments: Of the rows. Their ``gram`` is used up.
        ridge: λ.
        dtype: Of the weights; the error is measured of what this keeps.

    Raises:
        UndeterminedError: If the features do not determine the weights.
    """
    gram = tf.convert_to_tensor(moments.gram)
    diagonal = tf.linalg.diag_part(gram)
    factor = factorized(tf.linalg.set_diag(gram, diagonal + ridge) if ridge else gram)
    if not ridge:
        _check(view(factor), view(diagonal), view(moments.features), moments.rows)
    kernel = np.empty((*diagonal.shape, moments.cross.shape[-1]), dtype)
    squares = view(moments.squares)
    error, sizes = float(squares.sum()), tf.sqrt(tf.maximum(diagonal, 0.0))[:, :, None]
    for part in parts_of(kernel.shape[-1]):
        cross = tf.convert_to_tensor(moments.cross[:, :, part])
        exact = tf.linalg.cholesky_solve(factor, cross)
        off = keep(kernel, part, exact)
        # Of the exact weights T - F W leaves squares - W·(cross + ridge W); `off` is what rounding adds to W.
        error -= float(tf.reduce_sum(exact * (cross + ridge * (exact + 2.0 * off))))
        most = float(tf.reduce_sum(tf.square(tf.reduce_sum(tf.abs(off) * sizes, axis=1))))
        if most > _NEGLIGIBLE * max(error, 0.0):
            error += float(tf.reduce_sum(off * _times(gram, off)))
    return solution(kernel, (view(moments.features), view(moments.targets)), moments.rows, squares, error)


def factorized(matrix: tf.Tensor) -> tf.Tensor:
    """The Cholesky factor.

    Raises:
        UndeterminedError: If there is none.
    """
    try:
        factor = tf.linalg.cholesky(matrix)
    except tf.errors.InvalidArgumentError as problem:
        raise UndeterminedError from problem
    if not bool(tf.reduce_all(tf.math.is_finite(tf.linalg.diag_part(factor)))):  # a GPU raises nothing
        raise UndeterminedError
    return factor


def _check(factor: np.ndarray, diagonal: np.ndarray, means: np.ndarray, rows: int) -> None:
    """Raise unless the features determine the weights: without a ridge a solution would be rounding errors."""
    pivots = np.square(np.einsum("gff->gf", factor))
    # Rounding can also make a pivot of 0 positive: what is left of a feature beside the others must stand out from it.
    noise = 10 * factor.shape[1] * _EPSILON * diagonal + rows * (_EPSILON * means) ** 2
    if (pivots <= noise).any():
        raise UndeterminedError


def _times(matrix: tf.Tensor, other: tf.Tensor) -> Any:
    return tf.constant(view(matrix) @ view(other)) if on_host() else matrix @ other


def parts_of(columns: int) -> list[slice]:
    """Slices of a few thousand columns each."""
    return [slice(low, low + SOLVE_COLUMNS) for low in range(0, columns, SOLVE_COLUMNS)]


def keep(kernel: np.ndarray, part: slice, exact: tf.Tensor) -> tf.Tensor:
    """Keep weights in the dtype of ``kernel``; what that adds to them."""
    kernel[:, :, part] = view(exact)
    return tf.constant(kernel[:, :, part], tf.float64) - exact


def solution(
    kernel: np.ndarray, means: tuple[np.ndarray, np.ndarray], rows: int, squares: np.ndarray, error: float
) -> Solution:
    """A kernel with its bias, and the error of the weights as they are kept."""
    offset = means[1] - np.einsum("gf,gft->gt", means[0], kernel, dtype=np.float64)
    bias = offset.astype(kernel.dtype)
    error += rows * float(np.square(offset - bias).sum())
    count = rows * squares.size
    return Solution(kernel, bias, rows, max(error, 0.0) / count, float(squares.sum()) / count)
