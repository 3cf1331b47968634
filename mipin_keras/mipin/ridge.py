"""Ridge regression from streamed sums (Eq. 6); all regressions of the package are done here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .arithmetic import einsum, float64, joined, mean, on_host, plus, product, total, view
from .moments import Moments, Solution, UndeterminedError, factorized, keep, parts_of, solution, solve

# Rows are gathered into blocks before they go into the sums: one large matrix
# product is many times faster than many thin ones. A block of wide rows holds
# fewer of them, and no more than so many bytes.
BLOCK_ROWS = 4096
BLOCK_BYTES = 64 << 20
_FEWEST_ROWS = 1024


def refused(features: int, rows: int, ridge: float) -> ValueError:
    """The error for rows that do not determine a regression."""
    if not rows:
        return ValueError("expected rows to fit an inverse from, received none; give more samples or larger rows=")
    return ValueError(
        f"expected features that determine an inverse, received {features} features over {rows} rows, which do not "
        f"determine it with ridge={ridge}; give a larger ridge (the paper's is 1e-3) or more samples"
    )


class Regression:
    """min ||T - (F W + b)||² + ridge ||W||² over rows that come in pieces (Eq. 6 of the paper).

    A subclass adds rows up as they come, and gives their :class:`Moments`.
    """

    #: Groups, features and targets.
    sizes: tuple[int, int, int]
    _exchanged: Moments | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        groups, features, targets = self.sizes
        return 8 * groups * (features * features + features * targets + targets)

    @property
    def rows(self) -> int:
        """How many rows came in."""
        raise NotImplementedError

    def moments(self) -> Moments:
        """Of all rows so far; ends the regression."""
        raise NotImplementedError

    def exchange(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        """Add up with the sums that other processes hold of other rows.

        Args:
            total: Sums arrays over all processes, each of which calls it.
        """
        self._exchanged = self.moments().exchanged(total)

    def solve(self, ridge: float, dtype: Any = np.float64) -> Solution:
        """The weights, with ``ridge`` added to the unnormalised centred Gram. Ends the regression.

        Args:
            ridge: λ.
            dtype: Of the weights; the error is measured of what this keeps.

        Raises:
            ValueError: If no rows came in, or if ``ridge`` is 0 and the
                features do not determine the weights.
        """
        rows = self._exchanged.rows if self._exchanged else self.rows
        if not rows:
            raise refused(self.sizes[1], rows, ridge)
        try:
            return self._solved(ridge, dtype)
        except UndeterminedError:
            raise refused(self.sizes[1], rows, ridge) from None

    def _solved(self, ridge: float, dtype: Any) -> Solution:
        return solve(self._exchanged or self.moments(), ridge, dtype)


class Ridge(Regression):
    """A regression of rows of features and targets.

    Rows are kept as they are until there are as many as features: with fewer
    it is cheaper to solve for the rows than for sums (:meth:`_solve_rows`).
    From then on only sums are kept, in float64 around the mean of the first
    rows, so that nothing cancels when the features lie far from 0. Either way
    memory depends on the number of features and targets, and not on that of
    the rows.

    Args:
        features, targets: Columns of F and of T.
        groups: How many such regressions run side by side.
        columns: Of which columns the rows of each phase come, the others being
            0 in them; int arrays. Rows of a phase have sums of their own, of
            these columns only. None: one phase, of all columns.
    """

    def __init__(self, features: int, targets: int, groups: int = 1, columns: Sequence[np.ndarray] | None = None):
        self.sizes = (groups, features, targets)
        self._columns = [np.arange(features)] if columns is None else list(columns)
        self._waiting: list[list[tuple[Any, Any]]] = [[] for _ in self._columns]
        self._sums: list[_Sums | None] = [None] * len(self._columns)

    @property
    def rows(self) -> int:
        return sum(sums.rows for sums in self._sums if sums) + sum(map(_count, self._waiting))

    def update(self, features: Any, targets: Any, phase: int = 0) -> None:
        """Add rows: arrays or tensors ``(groups, rows, columns of the phase)`` and ``(groups, rows, targets)``."""
        if not features.shape[1]:
            return
        self._waiting[phase].append((features, targets))
        block = self._block(phase)
        if not any(self._sums):
            # Rows wait as they are, for a solution of few rows.
            if self.rows < max(_FEWEST_ROWS, self.sizes[1]):
                return
            block = 1
        for each, waiting in enumerate(self._waiting):
            if _count(waiting) >= block:
                self._flush(each)

    def _block(self, phase: int) -> int:
        wide = 8 * self.sizes[0] * (len(self._columns[phase]) + self.sizes[2])
        return max(_FEWEST_ROWS, min(BLOCK_ROWS, BLOCK_BYTES // wide))

    def _flush(self, phase: int) -> None:
        """Add what waits to the sums, a block at a time."""
        waiting, block = self._waiting[phase], self._block(phase)
        while waiting:
            part = [waiting.pop(0)]
            while waiting and _count(part) < block:
                part.append(waiting.pop(0))
            rows = tuple(joined([each[i] for each in part], axis=1) for i in (0, 1))
            self._sums[phase] = sums = self._sums[phase] or _Sums((mean(rows[0], 1), mean(rows[1], 1)))
            sums.add(*rows)

    def moments(self) -> Moments:
        for phase in range(len(self._columns)):
            self._flush(phase)
        found = [(sums.moments(), columns) for sums, columns in zip(self._sums, self._columns, strict=True) if sums]
        self._sums = [None] * len(self._columns)
        groups, features, targets = self.sizes
        if not found:  # of a process without rows
            zeros = [np.zeros((groups, *shape)) for shape in
                     ((features,), (targets,), (features, features), (features, targets), (targets,))]  # fmt: skip
            return Moments(0, *zeros)
        if len(found) == 1 and len(found[0][1]) == features:
            return found[0][0]
        return Moments.merged(found, features)

    def _solved(self, ridge: float, dtype: Any) -> Solution:
        if ridge and not self._exchanged and not any(self._sums) and self.rows < self.sizes[1]:
            return self._solve_rows(ridge, dtype)
        return super()._solved(ridge, dtype)

    def _solve_rows(self, ridge: float, dtype: Any) -> Solution:
        """Of fewer rows than features: ``W = Fᵀ (F Fᵀ + ridge)⁻¹ T``, which is the same."""
        phases = [i for i, waiting in enumerate(self._waiting) if waiting]
        f = joined([self._widened(part[0], phase) for phase in phases for part in self._waiting[phase]], axis=1)
        t = joined([part[1] for phase in phases for part in self._waiting[phase]], axis=1)
        self._waiting = [[] for _ in self._columns]
        means = mean(f, 1), mean(t, 1)
        f -= means[0][:, None]
        t -= means[1][:, None]
        squares = view(einsum("grt,grt->gt", t, t))
        inner = f @ f.swapaxes(1, 2) if on_host() else tf.matmul(f, f, transpose_b=True)
        inner = tf.convert_to_tensor(inner)
        factor = factorized(tf.linalg.set_diag(inner, tf.linalg.diag_part(inner) + ridge))
        kernel, error = np.empty(self.sizes, dtype), 0.0
        for part in parts_of(self.sizes[2]):
            dual = tf.linalg.cholesky_solve(factor, tf.convert_to_tensor(t[:, :, part]))
            exact = tf.convert_to_tensor(product(f, view(dual) if on_host() else dual))
            off = keep(kernel, part, exact)
            beside = view(f) @ view(off) if on_host() else f @ off
            # T - F W is ridge times the dual solution
            error += float(np.square(ridge * view(dual) - view(beside)).sum())
        return solution(kernel, (view(means[0]), view(means[1])), t.shape[1], squares, error)

    def _widened(self, features: Any, phase: int) -> Any:
        columns = self._columns[phase]
        if len(columns) == self.sizes[1]:
            return features
        if not on_host():
            return tf.matmul(features, tf.one_hot(columns, self.sizes[1], dtype=features.dtype))
        known = view(features)
        wide = np.zeros((*known.shape[:2], self.sizes[1]), known.dtype)
        wide[:, :, columns] = known
        return wide


class _Sums:
    """What a regression adds up over rows, around shifts near their means."""

    def __init__(self, shifts: tuple[Any, Any]):
        self.rows = 0
        self.shifts = shifts
        self.gram = self.cross = self.squares = self.features = self.targets = None

    def add(self, f: Any, t: Any) -> None:
        """Add rows, float64; on a CPU they are changed in place."""
        f -= self.shifts[0][:, None]
        t -= self.shifts[1][:, None]
        self.gram = plus(self.gram, product(f, f))
        self.cross = plus(self.cross, product(f, t))
        self.squares = plus(self.squares, einsum("grt,grt->gt", t, t))
        self.features = plus(self.features, total(f, 1))
        self.targets = plus(self.targets, total(t, 1))
        self.rows += int(f.shape[1])

    def moments(self) -> Moments:
        return centred(self.rows, self.shifts, self.features, self.targets, self.gram, self.cross, self.squares)


def centred(rows: int, shifts: tuple[Any, Any], f: Any, t: Any, gram: Any, cross: Any, squares: Any) -> Moments:
    """Moments from sums around shifts; the sums are used up."""
    f, t = f / rows, t / rows
    gram -= rows * f[:, :, None] * f[:, None, :]
    for part in parts_of(int(cross.shape[-1])) if on_host() else ():
        cross[:, :, part] -= rows * f[:, :, None] * t[:, None, part]
    if not on_host():
        cross -= rows * f[:, :, None] * t[:, None, :]
    squares = np.maximum(view(squares - rows * t * t), 0.0)
    return Moments(rows, shifts[0] + f, shifts[1] + t, gram, cross, squares)


def _count(parts: list[tuple[Any, Any]]) -> int:
    return sum(int(features.shape[1]) for features, _ in parts)


class ChannelRidge(Regression):
    """One regression a channel, of a few features each and one target, with the channels last.

    Args:
        features: Columns of each channel's F.
        channels: How many channels.
    """

    def __init__(self, features: int, channels: int):
        self.sizes = (channels, features, 1)
        self._rows = 0
        self._shifts: tuple[Any, Any] | None = None
        # By features, or pairs of them.
        self._gram: dict[Any, Any] | None = None
        self._cross: dict[Any, Any] | None = None
        self._features: dict[Any, Any] | None = None
        self._squares: Any = None
        self._targets: Any = None

    @property
    def rows(self) -> int:
        return self._rows

    def update(self, features: Sequence[Any], targets: Any) -> None:
        """Add rows: an array or tensor ``(rows, channels)`` for each feature, and one of the targets."""
        if not targets.shape[0]:
            return
        parts, t = [float64(feature) for feature in features], float64(targets)
        if self._shifts is None:
            self._shifts = [mean(part, 0) for part in parts], mean(t, 0)
        parts = [part - shift for part, shift in zip(parts, self._shifts[0], strict=True)]
        t -= self._shifts[1]
        pairs = [(i, j) for i in range(len(parts)) for j in range(i, len(parts))]
        self._gram = _added(self._gram, {(i, j): einsum("rc,rc->c", parts[i], parts[j]) for i, j in pairs})
        self._cross = _added(self._cross, {i: einsum("rc,rc->c", part, t) for i, part in enumerate(parts)})
        self._features = _added(self._features, {i: total(part, 0) for i, part in enumerate(parts)})
        self._squares = plus(self._squares, einsum("rc,rc->c", t, t))
        self._targets = plus(self._targets, total(t, 0))
        self._rows += int(t.shape[0])

    def moments(self) -> Moments:
        channels, count, _ = self.sizes
        if self._shifts is None or self._gram is None or self._cross is None or self._features is None:
            zeros = [np.zeros((channels, *shape)) for shape in ((count,), (1,), (count, count), (count, 1), (1,))]
            return Moments(0, *zeros)
        gram = np.empty((channels, count, count))
        for (i, j), sums in self._gram.items():
            gram[:, i, j] = gram[:, j, i] = view(sums)
        cross, features, shifts = (
            np.stack([view(each[i]) for i in range(count)], axis=1)
            for each in (self._cross, self._features, self._shifts[0])
        )
        shift, targets, squares = (view(each)[:, None] for each in (self._shifts[1], self._targets, self._squares))
        return centred(self._rows, (shifts, shift), features, targets, gram, cross[:, :, None], squares)


def _added(sums: dict | None, parts: dict) -> dict:
    return parts if sums is None else {key: plus(sums[key], part) for key, part in parts.items()}


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
