"""Ridge regression from streamed sums: the one place of the package that does regression."""

from __future__ import annotations

import dataclasses

import numpy as np

# Rows are gathered into blocks before they go into the sums: one large matrix
# product is many times faster than many thin ones.
BLOCK_ROWS = 1024
_EPSILON = np.finfo(np.float64).eps


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a regression found.

    Attributes:
        kernel: float64 of shape ``(groups, features, targets)``.
        bias: float64 of shape ``(groups, targets)``.
        rows: How many rows went in.
    """

    kernel: np.ndarray
    bias: np.ndarray
    rows: int


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

    def _centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centred Gram, cross and squares, and the means."""
        self._flush()
        if self._shifts is None:
            raise ValueError("expected rows to fit an inverse from, received none; give more samples or larger rows=")
        f, t = (total / self.rows for total in self._sums)
        gram = self._gram - self.rows * f[:, :, None] * f[:, None, :]
        cross = self._cross - self.rows * f[:, :, None] * t[:, None, :]
        squares = np.maximum(self._squares - self.rows * t * t, 0.0)
        return gram, cross, squares, self._shifts[0] + f, self._shifts[1] + t

    def solve(self, ridge: float) -> Solution:
        """The weights, with ``ridge`` added to the unnormalised centred Gram.

        Raises:
            ValueError: If no rows came in, or if ``ridge`` is 0 and the
                features do not determine the weights.
        """
        gram, cross, _, mean_f, mean_t = self._centred()
        kernel = np.empty_like(cross)
        for g, matrix in enumerate(gram):
            matrix.flat[:: len(matrix) + 1] += ridge
            try:
                # Refuses what solve() would answer with rounding errors. Without a ridge they can also make
                # a pivot of 0 positive: what is left of a feature beside the others must stand out from them.
                pivots = np.square(np.diagonal(np.linalg.cholesky(matrix)))
                noise = 10 * len(matrix) * _EPSILON * np.diagonal(matrix) + self.rows * (_EPSILON * mean_f[g]) ** 2
                if not ridge and (pivots <= noise).any():
                    raise np.linalg.LinAlgError
                kernel[g] = np.linalg.solve(matrix, cross[g])
            except np.linalg.LinAlgError:
                raise ValueError(
                    f"{self._sizes[0]} features over {self.rows} rows do not determine an inverse with ridge={ridge}; "
                    "give a larger ridge (the paper's is 1e-3) or more samples"
                ) from None
        bias = mean_t - np.einsum("gf,gft->gt", mean_f, kernel)
        return Solution(kernel, bias, self.rows)

    def error(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[float, float]:
        """The error of any weights on the rows that came in, from the sums.

        Args:
            kernel, bias: As in :class:`Solution`.

        Returns:
            The mean squared error, and the variance of the targets that it
            compares with (mean over groups and targets), in squared units of
            the targets.
        """
        gram, cross, squares, mean_f, mean_t = self._centred()
        kernel = kernel.astype(np.float64)
        residual = np.einsum("gft,gft->", kernel, gram @ kernel) - 2.0 * np.einsum("gft,gft->", kernel, cross)
        offset = mean_t - np.einsum("gf,gft->gt", mean_f, kernel) - bias
        total = squares.sum() + residual + self.rows * np.square(offset).sum()
        count = self.rows * squares.size
        return float(max(total, 0.0) / count), float(squares.sum() / count)


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
