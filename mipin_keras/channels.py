"""From a map with channels to one value a pixel: channel reduction, and resizing of feature maps to the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .checks import batch_shape

#: The ways to reduce the channels, the last axis of a map ``(n, ..., channels)``, by name.
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
        of_map, of_input: The shapes of one sample: spatial axes, then channels.
    """
    if len(of_map) < 2 or len(of_map) != len(of_input):
        raise ValueError(
            "reduce= expected maps with the spatial axes of the input and channels behind them, received maps of shape "
            f"{batch_shape(of_map)} and input of shape {batch_shape(of_input)}; leave reduce out, or end the "
            "explanation at a layer whose output has such axes"
        )


def reduced(maps: np.ndarray, how: str, sizes: tuple[int, ...]) -> np.ndarray:
    """Reduce the channels of maps to one value a pixel, and resize the maps to the image.

    Args:
        maps: Shape ``(n, *spatial, channels)``, floats.
        how: A name in :data:`REDUCTIONS`.
        sizes: The sizes of the image's spatial axes.

    Returns:
        float32 of shape ``(n, *sizes)``, in the maps' unit.
    """
    return np.ascontiguousarray(resized(REDUCTIONS[how](maps), sizes), np.float32)


def resized(maps: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Resize maps by linear interpolation, axis by axis, where a size differs.

    Args:
        maps: Shape ``(n, *spatial)``, floats.
        sizes: The new sizes of the spatial axes.

    Returns:
        Of shape ``(n, *sizes)`` and the maps' dtype.
    """
    for axis, new in enumerate(sizes, 1):
        if maps.shape[axis] != new:
            matrix = interpolation(maps.shape[axis], new).astype(maps.dtype)
            maps = np.moveaxis(np.tensordot(maps, matrix, (axis, 1)), -1, axis)
    return maps


def interpolation(old: int, new: int) -> np.ndarray:
    """The matrix of linear interpolation along an axis.

    An element's value stands at its centre (half-pixel centres, as in
    ``tf.image.resize``); beyond the first and the last centre the value is
    constant.

    Args:
        old, new: The sizes of the axis, in elements.

    Returns:
        float64 of shape ``(new, old)``; each row sums to 1.
    """
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.minimum(at.astype(int), max(old - 2, 0))
    matrix = np.zeros((new, old))
    matrix[np.arange(new), below] = 1 - (at - below)
    if old > 1:
        matrix[np.arange(new), below + 1] = at - below
    return matrix
