"""Interleaved timing: what is compared is run turn by turn, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of each call in each round, after ``warmup`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(warmup + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios round by round."""
    ratios = [a / b for a, b in zip(seconds, reference, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
