"""Ridge regression from streamed sums: the one place of the package that does regression."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

# Rows are gathered into blocks before they go into the sums: one large matrix
# product is many times faster than many thin ones.
BLOCK_ROWS = 1024
# A solution is found for so many targets at a time: of a layer with 25,088 of
# them, a copy of everything would be many times 800 MB.
SOLVE_COLUMNS = 4096
_EPSILON = np.finfo(np.float64).eps


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


class Ridge:
    """min ||T - (F W + b)||² + ridge ||W||² over rows that come in pieces (Eq. 6 of the paper).

    The sums are kept in float64 around the mean of the first rows, so that
    nothing cancels when the features sit far from 0; memory depends on the
    number of features and targets and never on the number of rows. NumPy's
    matrix product, not TensorFlow's: in float64 on CPUs it was 3 times faster.

    Args:
        features, targets: Columns of F and of T.
        groups: How many such regressions run side by side.
    """

    def __init__(self, features: int, targets: int, groups: int = 1):
        self.rows = 0
        self._sizes = (features, targets)
        self._gram = np.zeros((groups, features, features))
        self._cross = np.zeros((groups, features, targets))
        self._squares = np.zeros((groups, targets))
        self._sums = (np.zeros((groups, features)), np.zeros((groups, targets)))
        self._shifts: tuple[np.ndarray, np.ndarray] | None = None
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self._gram.nbytes + self._cross.nbytes + self._squares.nbytes

    def update(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Add rows: arrays of shape ``(groups, rows, features)`` and ``(groups, rows, targets)``."""
        if not features.shape[1]:
            return
        self._waiting.append((features, targets))
        if sum(waiting[0].shape[1] for waiting in self._waiting) >= BLOCK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        f, t = (np.concatenate([waiting[i] for waiting in self._waiting], axis=1, dtype=np.float64) for i in (0, 1))
        self._waiting = []
        if self._shifts is None:
            self._shifts = (f.mean(axis=1), t.mean(axis=1))
        f -= self._shifts[0][:, None]
        t -= self._shifts[1][:, None]
        transposed = f.swapaxes(1, 2)
        self._gram += transposed @ f
        self._cross += transposed @ t
        self._squares += np.einsum("grt,grt->gt", t, t)
        self._sums[0][:] += f.sum(axis=1)
        self._sums[1][:] += t.sum(axis=1)
        self.rows += f.shape[1]

    def exchange(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        """Add up with the sums that other processes hold of other rows.

        Args:
            total: Sums arrays over all processes, each of which calls it.
        """
        self._flush()
        before = self._shifts or (np.zeros_like(self._sums[0]), np.zeros_like(self._sums[1]))
        # All go over to one shift, the mean of theirs: (f - old) + (old - new) sums to what it would have been.
        held = float(self.rows > 0)
        f, t, hosts = total([held * before[0], held * before[1], np.array([held])])
        shifts = f / max(hosts[0], 1), t / max(hosts[0], 1)
        (a, b), (sum_f, sum_t) = (held * (old - new) for old, new in zip(before, shifts, strict=True)), self._sums
        self._gram += sum_f[:, :, None] * a[:, None, :] + a[:, :, None] * sum_f[:, None, :]
        self._gram += self.rows * a[:, :, None] * a[:, None, :]
        self._cross += sum_f[:, :, None] * b[:, None, :] + a[:, :, None] * sum_t[:, None, :]
        self._cross += self.rows * a[:, :, None] * b[:, None, :]
        self._squares += 2 * sum_t * b + self.rows * b * b
        sums = sum_f + self.rows * a, sum_t + self.rows * b
        arrays = [self._gram, self._cross, self._squares, *sums, np.array([float(self.rows)])]
        self._gram, self._cross, self._squares, sum_f, sum_t, rows = total(arrays)
        self._sums, self._shifts, self.rows = (sum_f, sum_t), shifts, int(rows[0])

    def solve(self, ridge: float, dtype: Any = np.float64) -> Solution:
        """The weights, with ``ridge`` added to the unnormalised centred Gram. Ends the sums.

        In place and a slice of the targets at a time, as the sums of a large
        layer leave no room for copies of them.

        Args:
            ridge: λ.
            dtype: Of the weights; the error is measured of what this keeps.

        Raises:
            ValueError: If no rows came in, or if ``ridge`` is 0 and the
                features do not determine the weights.
        """
        self._flush()
        if self._shifts is None or not self.rows:
            raise ValueError("expected rows to fit an inverse from, received none; give more samples or larger rows=")
        f, t = (total / self.rows for total in self._sums)
        means = self._shifts[0] + f, self._shifts[1] + t
        squares = np.maximum(self._squares - self.rows * t * t, 0.0)
        gram = self._gram
        gram -= self.rows * f[:, :, None] * f[:, None, :]
        diagonal = np.einsum("gff->gf", gram)  # a view
        without = diagonal.copy()
        diagonal += ridge
        self._check(gram, ridge, means[0])
        kernel, residual = np.empty(self._cross.shape, dtype), 0.0
        for low in range(0, kernel.shape[2], SOLVE_COLUMNS):
            part = slice(low, low + SOLVE_COLUMNS)
            cross = self._cross[:, :, part]
            cross -= self.rows * f[:, :, None] * t[:, None, part]
            diagonal[:] = without + ridge
            kernel[:, :, part] = np.linalg.solve(gram, cross)
            diagonal[:] = without
            kept = kernel[:, :, part].astype(np.float64, copy=False)
            residual += float(np.einsum("gft,gft->", kept, gram @ kept))
            residual -= 2.0 * float(np.einsum("gft,gft->", kept, cross))
        offset = means[1] - np.einsum("gf,gft->gt", means[0], kernel, dtype=np.float64)
        bias = offset.astype(dtype)
        error = squares.sum() + residual + self.rows * np.square(offset - bias).sum()
        count = self.rows * squares.size
        return Solution(kernel, bias, self.rows, float(max(error, 0.0) / count), float(squares.sum() / count))

    def _check(self, gram: np.ndarray, ridge: float, means: np.ndarray) -> None:
        """Raise unless the features determine the weights: solve() would answer with rounding errors."""
        try:
            pivots = np.square(np.einsum("gff->gf", np.linalg.cholesky(gram)))
        except np.linalg.LinAlgError:
            pivots = np.zeros_like(means)
        # Without a ridge rounding can also make a pivot of 0 positive: what is left of a feature beside the others
        # must stand out from it.
        noise: Any = 0.0
        if not ridge:
            noise = 10 * gram.shape[1] * _EPSILON * np.einsum("gff->gf", gram) + self.rows * (_EPSILON * means) ** 2
        if (pivots <= noise).any():
            raise ValueError(
                f"{self._sizes[0]} features over {self.rows} rows do not determine an inverse with ridge={ridge}; "
                "give a larger ridge (the paper's is 1e-3) or more samples"
            )


class Squares:
    """Streamed squared error of a reconstruction, beside the variance of what it reconstructs."""

    def __init__(self) -> None:
        self.samples = self.rows = 0
        self._error = 0.0
        self._shift: np.ndarray | None = None
        self._sums: np.ndarray
        self._squares: np.ndarray

    def update(self, x: np.ndarray, guess: np.ndarray) -> None:
        """Add a batch: both of shape ``(n, ..., columns)``."""
        self.samples += len(x)
        x, guess = (a.reshape(-1, x.shape[-1]).astype(np.float64) for a in (x, guess))
        self.rows += len(x)
        self._error += float(np.square(x - guess).sum())
        if self._shift is None:
            self._shift = x.mean(axis=0)
            self._sums, self._squares = np.zeros_like(self._shift), np.zeros_like(self._shift)
        x = x - self._shift
        self._sums += x.sum(axis=0)
        self._squares += np.square(x).sum(axis=0)

    def error(self) -> tuple[float, float]:
        """The mean squared error, and the variance of ``x`` (mean over columns); NaN without rows."""
        if not self.rows:
            return float("nan"), float("nan")
        variance = np.maximum(self._squares / self.rows - np.square(self._sums / self.rows), 0.0)
        return self._error / (self.rows * len(variance)), float(variance.mean())
