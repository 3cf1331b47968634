"""What the measures ask of maps."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def maps_of(name: str, values: ArrayLike, shape: str = "(n, H, W)", rank: int | None = 3) -> NDArray[np.generic]:
    """A caller's maps as an array of their own dtype, not copied.

    Args:
        name: what an error calls them.
        values: real numbers; the first axis is of the images.
        shape: what an error says was expected.
        rank: how many axes; None for two or more.

    Raises:
        ValueError: they are no real numbers, have other axes, are empty, or hold NaN or infinity.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Expected {name} to be real numbers; received dtype {array.dtype}.")
    if (array.ndim < 2 if rank is None else array.ndim != rank) or array.size == 0:
        raise ValueError(f"Expected {name} of shape {shape}, at least one map; received shape {array.shape}.")
    bad = np.flatnonzero([not np.isfinite(one).all() for one in array])
    if len(bad):
        raise ValueError(
            f"Expected {name} to be finite; received NaN or infinity in {len(bad)} of {len(array)} maps, the first at "
            f"index {bad[0]}. Look for the cause in the model or the method: no average hides it."
        )
    return array
