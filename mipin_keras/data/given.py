"""What can be told of data before they are read: their rank, shape and length, and which kind of thing they are."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: After this many batches of a source of unknown length, a pass warns that it has to end.
LONG = 1000


def rank(x: Any) -> int | None:
    """The number of axes of an array, a nested list or a tensor's specification; None if it is not known.

    Of a list only the first entries are looked at, as the arrays in it may be
    large.
    """
    shape = getattr(x, "shape", None)
    if isinstance(shape, tf.TensorShape):
        return shape.rank
    if isinstance(shape, tuple):
        return len(shape)
    if isinstance(x, list | tuple):
        inner = rank(x[0]) if x else 0
        return None if inner is None else 1 + inner
    return np.ndim(x)


def shape_as_given(given: tuple[int, ...], shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape of one sample, of ``shape`` for the model, as it is given: one number a sample with an axis or not."""
    if shape == (1,) and len(given) == 1:
        return ()
    return (1,) if shape == () and given[1:] == (1,) else shape


def is_sequence(x: Any) -> bool:
    """Whether ``x`` is a ``keras.utils.PyDataset``, or a ``Sequence`` of tf-keras."""
    return isinstance(x, keras.utils.PyDataset) or hasattr(x, "on_epoch_end")


def sequence_length(x: Any) -> int | None:
    """The number of batches of a sequence; None for one that never ends."""
    return x.num_batches if isinstance(x, keras.utils.PyDataset) else len(x)


def warn_of_length(advice: str, stacklevel: int) -> None:
    """Warn of data that go on and on, and of which it is not known whether they end."""
    warnings.warn(
        f"expected a pass that ends, received {LONG} batches so far of data of unknown length, which go on; if "
        f"they never end, {advice}",
        UserWarning,
        stacklevel=stacklevel,
    )


def described(x: Any) -> str:
    """The type of ``x``, and its shape if it has one, as messages say it."""
    shape = getattr(x, "shape", None)
    return f"a {type(x).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
