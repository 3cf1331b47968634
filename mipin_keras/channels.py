"""From a map with channels to one value a pixel: channels reduced, feature maps resized to the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: What becomes of the channels, the last axis of a map ``(n, ..., channels)``.
REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu_mean": lambda a: np.maximum(a, 0).mean(axis=-1),  # the paper's reading of a feature map
    "mean": lambda a: a.mean(axis=-1),
    "abs_mean": lambda a: np.abs(a).mean(axis=-1),
    "sum": lambda a: a.sum(axis=-1),
    "max_abs": lambda a: np.abs(a).max(axis=-1),
}


def check_axes(of_map: tuple[int | None, ...], of_input: tuple[int | None, ...]) -> None:
    """Raise ValueError unless maps of one shape can be reduced to the spatial axes of inputs of another.

    Args:
        of_map, of_input: Of one sample: spatial axes, then channels.
    """
    if len(of_map) < 2 or len(of_map) != len(of_input):
        raise ValueError(
            "reduce= expected maps with the spatial axes of the input and channels behind them, received maps of shape "
            f"{_shown(of_map)} and input of shape {_shown(of_input)}; leave reduce out, or end the explanation at a "
            "layer whose output has such axes"
        )


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"(batch, {', '.join(map(str, shape))})"


def reduced(maps: np.ndarray, how: str, sizes: tuple[int, ...]) -> np.ndarray:
    """One value a pixel.

    Args:
        maps: Shape ``(n, *spatial, channels)``.
        how: A name in :data:`REDUCTIONS`.
        sizes: The image's spatial axes; where they are not the maps', these
            are interpolated linearly, after their channels are reduced.

    Returns:
        float32 of shape ``(n, *sizes)``.
    """
    found = REDUCTIONS[how](maps)
    for axis, new in enumerate(sizes, 1):
        if found.shape[axis] != new:
            matrix = interpolation(found.shape[axis], new).astype(found.dtype)
            found = np.moveaxis(np.tensordot(found, matrix, (axis, 1)), -1, axis)
    return np.ascontiguousarray(found, np.float32)


def interpolation(old: int, new: int) -> np.ndarray:
    """The matrix ``(new, old)`` of linear interpolation between the centres of elements, constant beyond the last."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.minimum(at.astype(int), max(old - 2, 0))
    matrix = np.zeros((new, old))
    matrix[np.arange(new), below] = 1 - (at - below)
    if old > 1:
        matrix[np.arange(new), below + 1] = at - below
    return matrix
