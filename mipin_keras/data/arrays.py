"""Arrays of samples as a model takes them: their dtype, shape and values checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import batch_shape, check_finite


def checked(x: Any, shape: tuple[int | None, ...], dtype: str = "float32", *, first: int | None = None) -> np.ndarray:
    """``x`` as an array that a model can take.

    Args:
        x: Array-like of shape ``(n, *shape)``; integers, booleans and floats;
            also a data frame whose columns hold them.
        shape: Of one sample; None matches any size.
        dtype: Of the array to return.
        first: For one batch of the data: the index of its first sample in
            the data, for messages.

    Returns:
        The array, not copied where it already has the dtype.

    Raises:
        TypeError: For other dtypes.
        ValueError: For another shape, no samples, NaN or infinity (also a
            number too large for ``dtype``), masked values, and for numbers
            that an integer ``dtype`` cannot hold.
    """
    given = as_array(x)
    check_shape(given, shape)
    with np.errstate(invalid="ignore", over="ignore"):  # the checks below report it, by sample
        array = given.astype(dtype, copy=False)
    to_integers = array.dtype.kind in "iu"
    advice = f"leave these samples out, or fill them in with numbers that {dtype} holds"
    check_finite("input", given if to_integers else array, "samples", advice, offset=first)
    if to_integers and (array != given).any():
        raise ValueError(
            f"expected whole numbers that {dtype} holds, which the model takes, received others, such as "
            f"{given[array != given][0]}; round or scale the input first"
        )
    return array


def as_array(x: Any) -> np.ndarray:
    """``x`` as a NumPy array; a data frame with boolean or nullable columns as numbers, missing values as NaN.

    Raises:
        TypeError: For a data frame with columns that are no numbers.
        ValueError: For a masked array with values masked.
    """
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(
                f"expected an array without masked values, received {int(np.ma.count_masked(x))} of them, and a model "
                "takes no mask; fill them in, as with x.filled(0)"
            )
        return x.data
    if isinstance(x, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in x):
        return np.stack([as_array(part) for part in x])
    if hasattr(x, "dtypes") and hasattr(x, "to_numpy"):
        if any(getattr(dtype, "kind", "O") not in "biuf" for dtype in x.dtypes):
            raise TypeError(
                f"expected a data frame of numbers, received columns of types {sorted({str(t) for t in x.dtypes})}; "
                "leave out or encode what is no number"
            )
        array = np.asarray(x)
        return x.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype == object else array
    try:
        return np.asarray(x)
    except ValueError as problem:  # lists of unequal lengths
        raise ValueError(
            f"expected an array, received a {type(x).__name__} of parts of different shapes; labels are given as "
            f"fit(x, y) ({problem})"
        ) from problem


def check_shape(array: Any, shape: tuple[int | None, ...]) -> None:
    """Check the dtype and the shape of an array of samples; its values are not read, as they may lie in a file.

    Raises:
        TypeError: For dtypes that hold no numbers.
        ValueError: For another shape than ``(n, *shape)``, and for no samples.
    """
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"expected an array of numbers, received dtype {array.dtype}; convert it to float32 first")
    if len(array.shape) != len(shape) + 1 or any(
        want not in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
    ):
        hint = "; add the batch axis: x[None]" if len(array.shape) == len(shape) else "; reshape the input first"
        raise ValueError(f"expected input of shape {batch_shape(shape)}, received {tuple(array.shape)}{hint}")
    if len(array) == 0:
        raise ValueError(
            f"expected at least one sample of shape {batch_shape(shape)}, received none: {array.shape}; look at how "
            "the data were selected"
        )
