"""Arrays of samples as a model takes them: their dtype, shape and values checked."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import batch_shape, check_finite

#: Most bytes that a sparse matrix or tensor may take as an array.
DENSE = 2 << 30


def checked(
    x: Any, shape: tuple[int | None, ...], dtype: str = "float32", *, first: int | None = None, name: str = "input"
) -> np.ndarray:
    """``x`` as an array that a model can take.

    Args:
        x: Of shape ``(n, *shape)``; whatever :func:`as_array` takes.
        shape: Of one sample; None matches any size.
        dtype: Of the array to return.
        first: For one batch of the data: the index of its first sample in
            the data, for messages.
        name: What messages call it.

    Returns:
        The array, not copied where it already has the dtype.

    Raises:
        TypeError: For what holds no numbers.
        ValueError: For another shape, no samples, NaN or infinity (also a
            number too large for ``dtype``), masked values, and for numbers
            that an integer ``dtype`` cannot hold.
    """
    given = as_array(x, name)
    check_shape(given, shape, name)
    with np.errstate(invalid="ignore", over="ignore"):  # the checks below report it, by sample
        array = given.astype(dtype, copy=False)
    to_integers = array.dtype.kind in "iu"
    advice = f"leave these samples out, or fill them in with numbers that {dtype} holds"
    check_finite(name, given if to_integers else array, "samples", advice, offset=first)
    if to_integers and (array != given).any():
        raise ValueError(
            f"expected whole numbers that {dtype} holds, which the model takes{_of(name)}, received others, such as "
            f"{given[array != given][0]}; round or scale the input first"
        )
    return array


def as_array(x: Any, name: str = "input") -> np.ndarray:
    """``x`` as a NumPy array.

    Args:
        x: Integers, booleans and floats: an array, a list of samples, a
            tensor of TensorFlow, Keras or another library (by
            ``__array__``); a data frame or one of its columns, where boolean
            and nullable columns become numbers and missing values NaN; a
            ``tf.RaggedTensor`` whose rows are of one length; a sparse matrix
            or tensor, which is made dense if that takes at most ``DENSE``
            bytes (2 GiB).
        name: What messages call it.

    Raises:
        TypeError: For what holds no numbers: strings, Python objects, a
            symbolic tensor, a data frame with columns that are no numbers.
        ValueError: For a masked array with values masked, parts of different
            shapes, and a sparse array that is too large.
    """
    _refuse_symbolic(x, name)
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(
                f"expected an array without masked values{_of(name)}, received {int(np.ma.count_masked(x))} of them, "
                "and a model takes no mask; fill them in, as with x.filled(0)"
            )
        return x.data
    if isinstance(x, tf.RaggedTensor):
        return _uniform(x, name)
    if isinstance(x, tf.SparseTensor) or hasattr(x, "toarray"):
        return _dense(x, name)
    if isinstance(x, list | tuple) and x:
        if any(isinstance(part, np.ma.MaskedArray) for part in x):
            return np.stack([as_array(part, name) for part in x])
        _refuse_symbolic(x[0], name)
    if hasattr(x, "to_numpy") and (hasattr(x, "dtypes") or hasattr(x, "dtype")):
        columns = list(x.dtypes) if is_frame(x) else [x.dtype]
        if all(hasattr(dtype, "kind") for dtype in columns):  # pandas
            return _table(x, columns, name)
    try:
        return np.asarray(x)
    except ValueError as problem:  # lists of unequal lengths
        raise ValueError(
            f"expected an array{_of(name)}, received a {type(x).__name__} of parts of different shapes"
            f"{_shapes(x)}; labels are given as fit(x, y), and samples of different lengths are padded to one, as "
            "keras.utils.pad_sequences does"
        ) from problem


def is_frame(x: Any) -> bool:
    """Whether ``x`` is a table with named columns, as pandas' data frames are."""
    return all(hasattr(x, attribute) for attribute in ("columns", "dtypes", "shape", "to_numpy"))


def check_shape(array: Any, shape: tuple[int | None, ...], name: str = "input") -> None:
    """Check the dtype and the shape of an array of samples; its values are not read, as they may lie in a file.

    Raises:
        TypeError: For dtypes that hold no numbers.
        ValueError: For another shape than ``(n, *shape)``, and for no samples.
    """
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        what, advice = _no_numbers(array)
        raise TypeError(f"expected an array of numbers{_of(name)}, received {what}; {advice}")
    if len(array.shape) != len(shape) + 1 or any(
        want not in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
    ):
        hint = "; add the batch axis: x[None]" if len(array.shape) == len(shape) else "; reshape the input first"
        raise ValueError(f"expected {name} of shape {batch_shape(shape)}, received {tuple(array.shape)}{hint}")
    if array.shape[0] == 0:
        raise ValueError(
            f"expected at least one sample of shape {batch_shape(shape)}{_of(name)}, received none: {array.shape}; "
            "look at how the data were selected"
        )


def _of(name: str) -> str:
    """The name of one of several inputs, as messages add it; nothing where there is only one."""
    return "" if name == "input" else f" for {name}"


def _refuse_symbolic(x: Any, name: str) -> None:
    """Raise TypeError for a tensor that stands for values and has none."""
    if isinstance(x, keras.KerasTensor) or (isinstance(x, tf.Tensor) and tf.is_symbolic_tensor(x)):
        raise TypeError(
            f"expected numbers{_of(name)}, received a symbolic tensor of shape {tuple(x.shape)}, which stands for "
            "values and has none yet; give an array of samples, and call the analyzer outside of any tf.function"
        )


def _uniform(x: tf.RaggedTensor, name: str) -> np.ndarray:
    """A ragged tensor whose rows are of one length, as an array."""
    if int(tf.reduce_prod(x.bounding_shape())) != int(tf.size(x.flat_values)):
        lengths = x.row_lengths().numpy()
        of = (
            f", of {lengths.min()} to {lengths.max()} entries" if len(lengths) and lengths.min() < lengths.max() else ""
        )
        raise ValueError(
            f"expected samples of one shape{_of(name)}, received a tf.RaggedTensor of shape {x.shape} with rows of "
            f"different lengths{of}; pad them: x.to_tensor(), which fills in zeros, and give the model the mask or the "
            "padding that it was trained with"
        )
    return x.to_tensor().numpy()


def _dense(x: Any, name: str) -> np.ndarray:
    """A sparse tensor or matrix as an array."""
    dtype = x.dtype.as_numpy_dtype if isinstance(x, tf.SparseTensor) else x.dtype
    size = math.prod(map(int, x.shape)) * np.dtype(dtype).itemsize
    if size > DENSE:
        raise ValueError(
            f"expected a sparse array{_of(name)} of at most {DENSE / (1 << 30):g} GiB as a dense one, which the model "
            f"takes, received {type(x).__name__} of shape {tuple(x.shape)}, which takes {size / (1 << 30):.1f}; give "
            "fewer rows at a time"
        )
    return tf.sparse.to_dense(tf.sparse.reorder(x)).numpy() if isinstance(x, tf.SparseTensor) else x.toarray()


def _table(x: Any, dtypes: list[Any], name: str) -> np.ndarray:
    """A data frame or a series of pandas, as numbers."""
    if any(dtype.kind not in "biuf" for dtype in dtypes):
        frame = is_frame(x)
        columns = list(x.columns) if frame else [getattr(x, "name", None)]
        wrong = [repr(column) for column, dtype in zip(columns, dtypes, strict=True) if dtype.kind not in "biuf"]
        raise TypeError(
            f"expected a {'data frame' if frame else 'column'} of numbers{_of(name)}, received columns of types "
            f"{sorted({str(dtype) for dtype in dtypes})}, of which {', '.join(wrong)} hold no numbers; leave out or "
            "encode what is no number"
        )
    array = np.asarray(x)
    return x.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype == object else array


def _shapes(parts: Any) -> str:
    """The different shapes of a list's parts, as far as they are arrays: ``, (3,) and (5,)``."""
    found = dict.fromkeys(_shape(part) for part in parts) if isinstance(parts, list | tuple | np.ndarray) else {}
    shapes = [str(shape) for shape in found if shape is not None]
    return "" if len(shapes) < 2 else f", such as {shapes[0]} and {shapes[1]}"


def _shape(part: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(part))
    except ValueError:  # itself of unequal parts
        return None


def _no_numbers(array: Any) -> tuple[str, str]:
    """What an array holds that are no numbers, in words, and what to do about it."""
    entry = array.flat[0] if isinstance(array, np.ndarray) and array.size else None
    if array.dtype.kind in "UST" or isinstance(entry, str | bytes):
        example = "" if entry is None else f", such as {entry!r}"
        return f"strings{example}", "encode them as the model was trained, or convert numbers: x.astype('float32')"
    if array.dtype.kind != "O":
        return f"dtype {array.dtype}", "convert it to float32 first"
    if not isinstance(array, np.ndarray):
        return "Python objects or strings", "convert them to numbers first"
    if array.ndim == 0:
        what = "None" if entry is None else f"one object of type {type(entry).__name__}"
        return what, "give the samples as an array or a list of arrays"
    if isinstance(entry, np.ndarray | list | tuple):
        same = len({_shape(part) for part in array.flat}) == 1
        return (
            f"an array of {array.size} {type(entry).__name__} objects{' of one shape' if same else ''}"
            f"{_shapes(array.reshape(-1))}",
            "make one array of them: np.stack(list(x))"
            if same
            else "pad them to one shape, as keras.utils.pad_sequences does for sequences, and stack them",
        )
    return f"Python objects, such as {entry!r} of type {type(entry).__name__}", "convert them: x.astype('float32')"
