"""Checks of the arrays that the measures take."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_finite, real_array


def maps_of(name: str, values: ArrayLike, shape: str = "(n, H, W)", rank: int | None = 3) -> NDArray[np.generic]:
    """A caller's maps as an array of their own dtype, not copied.

    Args:
        name: What an error calls them.
        values: Real numbers; the first axis is of the images.
        shape: What an error says was expected.
        rank: How many axes; None for two or more.

    Raises:
        ValueError: They are no real numbers, have other axes, are empty, or hold NaN or infinity.
    """
    array = real_array(name, values)
    if (array.ndim < 2 if rank is None else array.ndim != rank) or array.size == 0:
        raise ValueError(
            f"expected {name} of shape {shape}, at least one map, received shape {array.shape}; give a map for each "
            "image, the images along the first axis"
        )
    check_finite(name, array, "maps", "look for the cause in the model or the method: no average hides it")
    return array


def pairs_of(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Two arrays of maps, to be compared pair by pair: each as :func:`maps_of` gives it, of one shape (n, ...).

    Raises:
        ValueError: As :func:`maps_of`, or the shapes differ.
    """
    one, other = (maps_of(name, maps, "(n, ...)", None) for name, maps in (("first", first), ("second", second)))
    if one.shape != other.shape:
        raise ValueError(
            f"expected maps in pairs, of one shape, received {one.shape} and {other.shape}; give two maps of each image"
        )
    return one, other


def vector_of(name: str, values: ArrayLike, advice: str) -> NDArray[Any]:
    """A caller's numbers, one a sample, as an array of their own dtype, not copied.

    Args:
        name: What an error calls them.
        values: Shape ``(n,)``, real numbers.
        advice: What to do about another shape.

    Raises:
        ValueError: They are no real numbers, have another shape, are none, or hold NaN or infinity.
    """
    array = real_array(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"expected {name} of shape (n,), one number for each of at least one sample, received shape {array.shape}; "
            f"{advice}"
        )
    check_finite(name, array, "samples", "look for the cause in the model or the fit: no average hides it")
    return array
