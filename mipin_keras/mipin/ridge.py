"""Ridge regression from streamed sums (Eq. 6); all regressions of the package are done here."""

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

    Rows are kept as they are until there are as many as features: with fewer
    it is cheaper to solve for the rows than for sums (:meth:`_solve_rows`).
    From then on only sums are kept, in float64 around the mean of the first
    rows, so that nothing cancels when the features lie far from 0. Either way
    memory depends on the number of features and targets, and not on that of
    the rows. The products are NumPy's, as TensorFlow's took 3 times as long in
    float64 on CPUs.

    Args:
        features, targets: Columns of F and of T.
        groups: How many such regressions run side by side.
    """

    def __init__(self, features: int, targets: int, groups: int = 1):
        self._sizes = (groups, features, targets)
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._sums: _Sums | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Groups, features and targets."""
        return self._sizes

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        groups, features, targets = self._sizes
        return 8 * groups * (features * features + features * targets + targets)

    @property
    def _row_count(self) -> int:
        return sum(features.shape[1] for features, _ in self._rows)

    def update(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Add rows: arrays of shape ``(groups, rows, features)`` and ``(groups, rows, targets)``."""
        if not features.shape[1]:
            return
        self._rows.append((features, targets))
        if self._row_count >= (BLOCK_ROWS if self._sums else max(BLOCK_ROWS, self._sizes[1])):
            self._flush()

    def _flush(self) -> _Sums:
        """Add what waits to the sums, a block at a time."""
        while self._rows:
            block: list[tuple[np.ndarray, np.ndarray]] = []
            while self._rows and sum(part[0].shape[1] for part in block) < BLOCK_ROWS:
                block.append(self._rows.pop(0))
            rows = _joined(block, 0), _joined(block, 1)
            if self._sums is None:
                self._sums = _Sums(*self._sizes, (rows[0].mean(axis=1), rows[1].mean(axis=1)))
            self._sums.add(*rows)
        if self._sums is None:
            groups, *sizes = self._sizes
            self._sums = _Sums(*self._sizes, (np.zeros((groups, sizes[0])), np.zeros((groups, sizes[1]))))
        return self._sums

    def exchange(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        """Add up with the sums that other processes hold of other rows.

        Args:
            total: Sums arrays over all processes, each of which calls it.
        """
        self._flush().exchange(total)

    def solve(self, ridge: float, dtype: Any = np.float64) -> Solution:
        """The weights, with ``ridge`` added to the unnormalised centred Gram. Ends the regression.

        Args:
            ridge: λ.
            dtype: Of the weights; the error is measured of what this keeps.

        Raises:
            ValueError: If no rows came in, or if ``ridge`` is 0 and the
                features do not determine the weights.
        """
        rows = self._sums.rows if self._sums else self._row_count
        if not rows:
            raise ValueError("expected rows to fit an inverse from, received none; give more samples or larger rows=")
        try:
            if ridge and not self._sums and rows < self._sizes[1]:
                return self._solve_rows(ridge, dtype)
            return self._solve_sums(self._flush(), ridge, dtype)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"expected features that determine an inverse, received {self._sizes[1]} features over {rows} rows, "
                f"which do not determine it with ridge={ridge}; give a larger ridge (the paper's is 1e-3) or more "
                "samples"
            ) from None

    def _solve_rows(self, ridge: float, dtype: Any) -> Solution:
        """Of fewer rows than features: ``W = Fᵀ (F Fᵀ + ridge)⁻¹ T``, which is the same."""
        f, t = _joined(self._rows, 0), _joined(self._rows, 1)
        self._rows = []
        means = f.mean(axis=1), t.mean(axis=1)
        f -= means[0][:, None]
        t -= means[1][:, None]
        squares = np.einsum("grt,grt->gt", t, t)
        transposed = f.swapaxes(1, 2)
        inner = f @ transposed
        np.einsum("grr->gr", inner)[:] += ridge
        np.linalg.cholesky(inner)  # refuses what solve() would answer with rounding errors
        kernel, error = np.empty(self._sizes, dtype), 0.0
        for part in self._parts():
            kernel[:, :, part] = transposed @ np.linalg.solve(inner, t[:, :, part])
            kept = kernel[:, :, part].astype(np.float64, copy=False)
            error += float(np.square(t[:, :, part] - f @ kept).sum())
        return _solution(kernel, means, f.shape[1], squares, error)

    def _solve_sums(self, sums: _Sums, ridge: float, dtype: Any) -> Solution:
        """In place and some targets at a time, as the sums of a large layer leave no room for copies of them."""
        f, t = sums.features / sums.rows, sums.targets / sums.rows
        means = sums.shifts[0] + f, sums.shifts[1] + t
        squares = np.maximum(sums.squares - sums.rows * t * t, 0.0)
        gram = sums.gram
        gram -= sums.rows * f[:, :, None] * f[:, None, :]
        diagonal = np.einsum("gff->gf", gram)  # a view
        without = diagonal.copy()
        diagonal += ridge
        self._check(gram, ridge, means[0], sums.rows)
        kernel, error = np.empty(self._sizes, dtype), float(squares.sum())
        for part in self._parts():
            cross = sums.cross[:, :, part]
            cross -= sums.rows * f[:, :, None] * t[:, None, part]
            diagonal[:] = without + ridge
            kernel[:, :, part] = np.linalg.solve(gram, cross)
            diagonal[:] = without
            kept = kernel[:, :, part].astype(np.float64, copy=False)
            error += float(np.einsum("gft,gft->", kept, gram @ kept))
            error -= 2.0 * float(np.einsum("gft,gft->", kept, cross))
        return _solution(kernel, means, sums.rows, squares, error)

    def _parts(self) -> list[slice]:
        return [slice(low, low + SOLVE_COLUMNS) for low in range(0, self._sizes[2], SOLVE_COLUMNS)]

    def _check(self, gram: np.ndarray, ridge: float, means: np.ndarray, rows: int) -> None:
        """Raise unless the features determine the weights: solve() would answer with rounding errors."""
        pivots = np.square(np.einsum("gff->gf", np.linalg.cholesky(gram)))
        # Without a ridge rounding can also make a pivot of 0 positive: what is left of a feature beside the others
        # must stand out from it.
        noise = 10 * gram.shape[1] * _EPSILON * np.einsum("gff->gf", gram) + rows * (_EPSILON * means) ** 2
        if not ridge and (pivots <= noise).any():
            raise np.linalg.LinAlgError


class _Sums:
    """What a regression adds up over rows, around shifts near their means."""

    def __init__(self, groups: int, features: int, targets: int, shifts: tuple[np.ndarray, np.ndarray]):
        self.rows = 0
        self.shifts = shifts
        self.gram = np.zeros((groups, features, features))
        self.cross = np.zeros((groups, features, targets))
        self.squares = np.zeros((groups, targets))
        self.features, self.targets = np.zeros((groups, features)), np.zeros((groups, targets))

    def add(self, f: np.ndarray, t: np.ndarray) -> None:
        """Add rows, float64, in place."""
        f -= self.shifts[0][:, None]
        t -= self.shifts[1][:, None]
        transposed = f.swapaxes(1, 2)
        self.gram += transposed @ f
        self.cross += transposed @ t
        self.squares += np.einsum("grt,grt->gt", t, t)
        self.features += f.sum(axis=1)
        self.targets += t.sum(axis=1)
        self.rows += f.shape[1]

    def exchange(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        """See :meth:`Ridge.exchange`."""
        # All go over to one shift, the mean of theirs: (f - old) + (old - new) sums to what it would have been.
        held = float(self.rows > 0)
        f, t, hosts = total([held * self.shifts[0], held * self.shifts[1], np.array([held])])
        shifts = f / max(hosts[0], 1), t / max(hosts[0], 1)
        a, b = (held * (old - new) for old, new in zip(self.shifts, shifts, strict=True))
        self.gram += self.features[:, :, None] * a[:, None, :] + a[:, :, None] * self.features[:, None, :]
        self.gram += self.rows * a[:, :, None] * a[:, None, :]
        self.cross += self.features[:, :, None] * b[:, None, :] + a[:, :, None] * self.targets[:, None, :]
        self.cross += self.rows * a[:, :, None] * b[:, None, :]
        self.squares += 2 * self.targets * b + self.rows * b * b
        sums = self.features + self.rows * a, self.targets + self.rows * b
        found = total([self.gram, self.cross, self.squares, *sums, np.array([float(self.rows)])])
        self.gram, self.cross, self.squares, self.features, self.targets, rows = found
        self.shifts, self.rows = shifts, int(rows[0])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], which: int) -> np.ndarray:
    return np.concatenate([part[which] for part in parts], axis=1, dtype=np.float64)


def _solution(
    kernel: np.ndarray, means: tuple[np.ndarray, np.ndarray], rows: int, squares: np.ndarray, error: float
) -> Solution:
    """With the bias, and the error of the weights as they are kept."""
    offset = means[1] - np.einsum("gf,gft->gt", means[0], kernel, dtype=np.float64)
    bias = offset.astype(kernel.dtype)
    error += rows * float(np.square(offset - bias).sum())
    count = rows * squares.size
    return Solution(kernel, bias, rows, max(error, 0.0) / count, float(squares.sum()) / count)


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
