"""The regressions of all classes' heads at once: each reads its own logit, and all have the same targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arithmetic import einsum, float64, mean, plus, product, total, view
from .moments import Moments, Solution, solution
from .ridge import refused


class LogitRidge:
    """For each class min ||T - (y w + b)||² + ridge ||w||² with its logit y: one product serves all of them.

    Args:
        classes: How many classes.
        targets: Columns of T.
    """

    def __init__(self, classes: int, targets: int):
        self._sizes = (classes, targets)
        self.rows = 0
        self._shifts: tuple[Any, Any] | None = None
        self._moments: Moments | None = None
        self._gram: Any = None
        self._cross = self._squares = self._logits = self._targets = self._gram

    def update(self, logits: Any, targets: Any) -> None:
        """Add rows: arrays or tensors ``(rows, classes)`` and ``(rows, targets)``."""
        y, t = float64(logits), float64(targets)
        if self._shifts is None:
            self._shifts = mean(y, 0), mean(t, 0)
        y -= self._shifts[0]
        t -= self._shifts[1]
        self._cross = plus(self._cross, product(y, t))
        self._gram = plus(self._gram, einsum("rc,rc->c", y, y))
        self._squares = plus(self._squares, einsum("rt,rt->t", t, t))
        self._logits, self._targets = plus(self._logits, total(y, 0)), plus(self._targets, total(t, 0))
        self.rows += int(t.shape[0])

    def moments(self) -> Moments:
        """Of all rows so far, the classes being the groups; ``squares`` are the same for all of them."""
        if self._moments is not None:
            return self._moments
        classes, targets = self._sizes
        if self._shifts is None:
            shapes = ((classes, 1), (1, targets), (classes, 1, 1), (classes, 1, targets), (1, targets))
            return Moments(0, *map(np.zeros, shapes))
        y, t = view(self._logits) / self.rows, view(self._targets) / self.rows
        gram = view(self._gram) - self.rows * y * y
        cross = view(self._cross) - self.rows * y[:, None] * t
        squares = np.maximum(view(self._squares) - self.rows * t * t, 0.0)
        means = view(self._shifts[0]) + y, view(self._shifts[1]) + t
        return Moments(self.rows, means[0][:, None], means[1][None], gram[:, None, None], cross[:, None], squares[None])

    def exchange(self, total: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        """Add up with the sums of other processes; see :meth:`mipin_keras.mipin.ridge.Regression.exchange`."""
        self._moments = self.moments().exchanged(total)
        self.rows = self._moments.rows

    def solve(self, ridge: float, dtype: Any = np.float64) -> list[Solution]:
        """Each class' weights, of shapes ``(1, 1, targets)`` and ``(1, targets)``.

        Args, Raises: See :meth:`mipin_keras.mipin.ridge.Regression.solve`.
        """
        found = self.moments()
        gram, squares = np.maximum(view(found.gram)[:, 0, 0], 0.0), view(found.squares)
        # Of a constant logit rounding leaves no more than this.
        noise = 10 * found.rows * (np.finfo(np.float64).eps * view(found.features)[:, 0]) ** 2
        if not found.rows or (not ridge and (gram <= noise).any()):
            raise refused(1, found.rows, ridge)
        cross = view(found.cross)[:, 0]
        exact = cross / (gram + ridge)[:, None]
        kept = exact.astype(dtype)
        off = kept - exact
        errors = squares.sum() - np.einsum("ct,ct->c", exact, cross + ridge * (exact + 2.0 * off))
        errors += gram * np.einsum("ct,ct->c", off, off)
        means = view(found.features), view(found.targets)
        return [
            solution(kept[c][None, None], (means[0][c : c + 1], means[1]), found.rows, squares, float(errors[c]))
            for c in range(len(kept))
        ]
