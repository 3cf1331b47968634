"""What the experiments compute from a method's maps, whatever the images are."""

from __future__ import annotations

import numpy as np


def scaled(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its largest absolute value, in float64; a map of zeros stays."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    top = np.abs(flat).max(axis=1, keepdims=True)
    return (flat / np.where(top > 0, top, 1)).reshape(maps.shape)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine between the two maps of each image, float64 ``(n,)``; NaN where a map is all zero."""
    one, other = (m.reshape(len(m), -1).astype(np.float64) for m in (first, second))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.divide((one * other).sum(axis=1), lengths, out=np.full(len(one), np.nan), where=lengths > 0)


def defined_mean(values: np.ndarray) -> float | None:
    """The mean of the values that are not NaN; None if there is none."""
    defined = np.asarray(values)[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
