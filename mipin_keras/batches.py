"""Batches: one way to pass again and again over arrays, data sets, sequences and generators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def checked(x: Any, shape: tuple[int | None, ...], dtype: str = "float32") -> np.ndarray:
    """``x`` as an array that a model can take.

    Args:
        x: Array-like of shape ``(n, *shape)``; integers, booleans and floats.
        shape: Of one sample; None matches any size.
        dtype: What to return.

    Returns:
        The array, not copied where it already has the dtype.

    Raises:
        TypeError: For other dtypes.
        ValueError: For another shape, no samples, NaN or infinity, and for
            numbers that an integer ``dtype`` cannot hold.
    """
    given = np.asarray(x)
    check_shape(given, shape)
    with np.errstate(invalid="ignore", over="ignore"):  # said below, and by sample
        array = given.astype(dtype, copy=False)
    whole = array.dtype.kind in "iu"
    finite = np.isfinite(given if whole else array)
    if not finite.all():
        bad = np.unique(np.argwhere(~finite)[:, 0])
        raise ValueError(
            f"expected finite input, received NaN or infinity in {len(bad)} of {len(array)} samples, "
            f"the first at index {bad[0]}"
        )
    if whole and (array != given).any():
        raise ValueError(f"expected whole numbers that {dtype} holds, which the model takes, received others")
    return array


def check_shape(array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raise as :func:`checked` does, for all but NaN and infinity."""
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"expected an array of numbers, received dtype {array.dtype}")
    wanted = "(batch, " + ", ".join(str(size) for size in shape) + ")"
    if array.ndim != len(shape) + 1 or any(
        want not in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
    ):
        hint = "; add the batch axis: x[None]" if array.ndim == len(shape) else ""
        raise ValueError(f"expected input of shape {wanted}, received {array.shape}{hint}")
    if len(array) == 0:
        raise ValueError(f"expected at least one sample of shape {wanted}, received none: {array.shape}")


class Batches:
    """Passes over a source of inputs, batch by batch, each batch checked.

    Args:
        source: One of: an array or memmap of shape ``(n, *shape)``; a batched
            ``tf.data.Dataset``; a ``keras.utils.PyDataset`` (``Sequence``); a
            callable that returns a fresh iterator of batches; an endless
            generator, together with ``steps``. Where an item is a tuple, its
            first entry is taken: labels are not used.
        shape: Of one sample, None for any size.
        batch_size: For arrays only: samples a batch.
        steps: Batches a pass. Needed for generators; otherwise all there are.
        dtype: Of the batches.

    Raises:
        TypeError: For a source of another kind, or an array that is not of
            numbers.
        ValueError: For an empty or wrongly shaped array, a ``batch_size`` or
            ``steps`` below 1, a generator or an endless data set without
            ``steps``.
    """

    def __init__(
        self,
        source: Any,
        shape: tuple[int | None, ...],
        batch_size: int = 32,
        steps: int | None = None,
        dtype: str = "float32",
    ):
        for name, value in (("batch_size", batch_size), ("steps", steps)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"expected {name} to be an integer of at least 1, received {value!r}")
        self.shape = shape
        self.steps = steps
        self.dtype = dtype
        #: Samples a pass; None until it is known.
        self.samples: int | None = None
        self._end: Callable[[], None] = lambda: None
        self._start = self._starter(source, batch_size)
        self._limit = self.steps

    def _starter(self, source: Any, batch_size: int) -> Callable[[], Iterator]:
        endless = "received a data set that never ends: give steps=, the batches a pass"
        if isinstance(source, tf.data.Dataset):
            if self.steps is None and source.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise ValueError(endless)
            return lambda: iter(source)
        if isinstance(source, keras.utils.PyDataset):
            if self.steps is None:
                self.steps = source.num_batches
            if self.steps is None:
                raise ValueError(endless)
            steps, self._end = self.steps, source.on_epoch_end
            return lambda: (source[i] for i in range(steps))
        if callable(source) and not hasattr(source, "__array__"):
            return lambda: iter(source())
        if hasattr(source, "__next__"):
            if self.steps is None:
                raise ValueError(
                    "a generator can be walked only once, and a fit passes over its data several times: give steps= "
                    "for one that never ends, or a function that returns a fresh generator"
                )
            return lambda: source
        array = source if isinstance(source, np.ndarray) else np.asarray(source)
        check_shape(array, self.shape)  # said before any work; the values are checked as they are read
        if self.steps is None:
            self.samples = len(array)
            self.steps = -(-len(array) // batch_size)
        else:
            self.samples = min(len(array), self.steps * batch_size)
        return lambda: (array[i : i + batch_size] for i in range(0, len(array), batch_size))

    def __iter__(self) -> Iterator[np.ndarray]:
        """One pass: arrays of shape ``(b, *shape)``.

        Raises:
            ValueError: If the source gives nothing, ends before ``steps``, or
                gives another number of samples than on the pass before.
        """
        samples = batches = 0
        for item in itertools.islice(self._start(), self._limit):
            x = item[0] if isinstance(item, tuple | list) else item
            x = checked(x, self.shape, self.dtype)
            samples += len(x)
            batches += 1
            yield x
        if self._limit is not None and batches < self._limit:
            raise ValueError(f"expected {self._limit} batches a pass, received {batches}: the data ended early")
        if samples == 0:
            raise ValueError("expected at least one sample, received no data")
        if self.samples is not None and samples != self.samples:
            raise ValueError(
                f"expected {self.samples} samples, as on the pass before, received {samples}: the data must be the "
                "same on every pass"
            )
        self.samples, self.steps = samples, batches
        self._end()

    def count(self) -> int:
        """The number of samples a pass; takes a pass to find out where it is not known."""
        if self.samples is None:
            for _ in self:
                pass
        return int(self.samples or 0)
