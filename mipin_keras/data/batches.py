"""Batches: one way to pass again and again over arrays, data sets, sequences and generators."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import integer

# Fewer samples than these say little of a network's layers.
FEW = 4
# After so many batches of a source of unknown length it is said that a pass has to end.
LONG = 1000


def checked(x: Any, shape: tuple[int | None, ...], dtype: str = "float32", *, first: int | None = None) -> np.ndarray:
    """``x`` as an array that a model can take.

    Args:
        x: Array-like of shape ``(n, *shape)``; integers, booleans and floats;
            also a data frame whose columns hold them.
        shape: Of one sample; None matches any size.
        dtype: What to return.
        first: Of a batch, the index of its first sample in the data, for
            messages.

    Returns:
        The array, not copied where it already has the dtype.

    Raises:
        TypeError: For other dtypes.
        ValueError: For another shape, no samples, NaN or infinity, masked
            values, and for numbers that an integer ``dtype`` cannot hold.
    """
    given = as_array(x)
    check_shape(given, shape)
    with np.errstate(invalid="ignore", over="ignore"):  # said below, and by sample
        array = given.astype(dtype, copy=False)
    whole = array.dtype.kind in "iu"
    finite = np.isfinite(given if whole else array)
    if not finite.all():
        bad = np.unique(np.argwhere(~finite)[:, 0])
        raise ValueError(
            f"expected finite input, received NaN or infinity in {len(bad)} of {len(array)} samples"
            f"{'' if first is None else ' of a batch'}, the first at index {(first or 0) + bad[0]}"
            f"{'' if first is None else ' of the data'}"
        )
    if whole and (array != given).any():
        raise ValueError(f"expected whole numbers that {dtype} holds, which the model takes, received others")
    return array


def as_array(x: Any) -> np.ndarray:
    """``x`` as NumPy has it; a data frame with boolean or nullable columns as numbers, what is missing as NaN.

    Raises:
        TypeError: For a data frame with columns that are no numbers.
        ValueError: For a masked array with values masked.
    """
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(
                f"expected an array without masked values, received {int(np.ma.count_masked(x))} of them, and a model "
                "takes no mask: fill them in, as with x.filled(0)"
            )
        return x.data
    if isinstance(x, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in x):
        return np.stack([as_array(part) for part in x])
    if hasattr(x, "dtypes") and hasattr(x, "to_numpy"):
        if any(getattr(dtype, "kind", "O") not in "biuf" for dtype in x.dtypes):
            raise TypeError(
                f"expected a data frame of numbers, received columns of types {sorted({str(t) for t in x.dtypes})}: "
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
    """Raise as :func:`checked` does, for all but NaN and infinity. Reads nothing of an array in a file."""
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"expected an array of numbers, received dtype {array.dtype}")
    if len(array.shape) != len(shape) + 1 or any(
        want not in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
    ):
        hint = "; add the batch axis: x[None]" if len(array.shape) == len(shape) else ""
        raise ValueError(f"expected input of shape {_batch_of(shape)}, received {tuple(array.shape)}{hint}")
    if len(array) == 0:
        raise ValueError(f"expected at least one sample of shape {_batch_of(shape)}, received none: {array.shape}")


def _batch_of(shape: tuple[int | None, ...]) -> str:
    return "(batch, " + ", ".join(str(size) for size in shape) + ")"


def _inputs(item: Any) -> Any:
    """What of an item, or of its specification, the model takes: the first entry of a tuple."""
    x = item[0] if isinstance(item, tuple | list) else item
    if isinstance(x, Mapping):
        raise TypeError(
            f"expected batches of inputs, or tuples that begin with them, received dicts of {list(x)}: which entry the "
            f"model takes is not known; pick it, as in dataset.map(lambda item: item[{next(iter(x), 'input')!r}])"
        )
    return x


_ENDLESS = "received a data set that never ends: give steps=, the batches a pass"

# What to do about a source that is another one on the next pass, by its kind.
_ADVICE = {
    "array": "leave the array, or its file, as it is until the work is done",
    "tf.data": "use shuffle(..., reshuffle_each_iteration=False) or none, and no random augmentation",
    "sequence": "let each item depend on its index alone",
    "function": "let the function return a fresh iterator each time, with random numbers that it seeds anew",
    "generator": "choose steps= so that each pass has as many samples",
}


def _iterator(made: Any) -> Iterable:
    if not hasattr(made, "__iter__"):
        raise TypeError(f"expected the function to return an iterator of batches, received {type(made).__name__}")
    return made


class Batches:
    """Passes over a source of inputs, batch by batch, each batch checked.

    Every pass must give the same batches: what is fitted in many passes would
    else belong to no data at all, and could not be resumed. So a checksum of
    every batch is compared with that of the pass before. An endless generator
    is let off: it is meant to go on.

    Args:
        source: One of the kinds below. Where an item is a tuple, its first
            entry is taken: labels are not used. Items that are dicts are
            refused.

            - "array": an array of shape ``(n, *shape)``, or a tuple that begins
              with one, as ``(x, y)``; also a data frame, a memmap, an
              h5py data set or another object with ``shape``, ``dtype`` and
              slices, of which only a batch at a time is read.
            - "tf.data": a batched ``tf.data.Dataset``.
            - "sequence": a ``keras.utils.PyDataset`` (``Sequence``), read by
              index in this thread, in order. ``on_epoch_end`` is not called,
              for it is there to shuffle.
            - "function": a callable that returns a fresh iterator of batches.
            - "generator": an endless one, together with ``steps``.
        shape: Of one sample, None for any size.
        batch_size: For arrays only: samples a batch.
        steps: Batches a pass. Needed for generators; otherwise all there are.
        dtype: Of the batches.

    Raises:
        TypeError: For a source of another kind, an array that is not of
            numbers, and a data set of dicts.
        ValueError: For an empty or wrongly shaped array, a data set that is
            not batched, a ``batch_size`` or ``steps`` below 1, more ``steps``
            than there are, a generator or an endless data set without
            ``steps``.

    Attributes:
        kind: See ``source``.
        samples: A pass; None until it is known.
        steps: Batches a pass; None until it is known.
        marks: Checksum of each batch of a pass, as far as they are known.
        resumed: Whether the marks are of an earlier fit, until a pass has
            ended.
        constant: Whether all samples seen so far are the same.
    """

    def __init__(
        self,
        source: Any,
        shape: tuple[int | None, ...],
        batch_size: int = 32,
        steps: int | None = None,
        dtype: str = "float32",
    ):
        batch_size = integer("batch_size", batch_size, 1)
        steps = None if steps is None else integer("steps", steps, 1)
        self.shape = shape
        self.steps = self._limit = steps
        self.dtype = dtype
        self.samples: int | None = None
        self.marks: list[int] = []
        self.resumed = False
        self.constant = True
        self._one: np.ndarray | None = None
        self._hinted = False
        self.kind, known, self._start = self._opened(source, batch_size)
        if steps is not None and known is not None and steps > known:
            raise ValueError(f"expected {steps} batches a pass, as steps= says, received data of {known}")
        if steps is None:
            self.steps = known

    def _opened(self, source: Any, batch_size: int) -> tuple[str, int | None, Callable[[], Iterable]]:
        """The source's kind, how many batches it has if that is known, and what starts a pass."""
        if isinstance(source, tf.data.Dataset):
            size = int(source.cardinality())
            if self.steps is None and size == tf.data.INFINITE_CARDINALITY:
                raise ValueError(_ENDLESS)
            self._check_spec(_inputs(source.element_spec))
            return "tf.data", size if size >= 0 else None, lambda: source
        if isinstance(source, keras.utils.PyDataset) or hasattr(source, "on_epoch_end"):  # tf-keras' Sequence too
            known = source.num_batches if isinstance(source, keras.utils.PyDataset) else len(source)
            steps = self.steps or known
            if steps is None:
                raise ValueError(_ENDLESS)
            return "sequence", known, lambda: (source[i] for i in range(steps))
        if callable(source) and not hasattr(source, "__array__"):
            return "function", None, lambda: _iterator(source())
        if hasattr(source, "__next__"):
            if self.steps is None:
                raise ValueError(
                    "a generator can be walked only once, and a fit passes over its data several times: give steps= "
                    "for one that never ends, or a function that returns a fresh generator"
                )
            return "generator", None, lambda: source
        if isinstance(source, tuple) and source and np.ndim(source[0]) == len(self.shape) + 1:  # (x, y)
            return self._opened(source[0], batch_size)
        if isinstance(source, np.ma.MaskedArray):
            source = as_array(source)
        sliced = isinstance(getattr(source, "dtype", None), np.dtype) and isinstance(source.shape, tuple)
        array = source if sliced else as_array(source)  # which would read all of a file
        check_shape(array, self.shape)  # said before any work; the values are checked as they are read
        self.samples = min(len(array), (self.steps or len(array)) * batch_size)
        starts = range(0, len(array), batch_size)
        return "array", len(starts), lambda: (array[i : i + batch_size] for i in starts)

    def _check_spec(self, spec: Any) -> None:
        """Refuse a data set of other shapes before it is read, where it says its shapes."""
        if isinstance(spec, tf.TensorSpec) and not spec.shape.is_compatible_with((None, *self.shape)):
            hint = "; batch the data set: dataset.batch(32)" if spec.shape.rank == len(self.shape) else ""
            raise ValueError(
                f"expected a data set of batches of shape {_batch_of(self.shape)}, received {spec.shape}{hint}"
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        """One pass: arrays of shape ``(b, *shape)``.

        Raises:
            TypeError: For items that are no inputs.
            ValueError: If the source gives nothing, ends before ``steps``, or
                gives other samples, or another number of them, than on the
                pass before.
        """
        samples = batches = 0
        for item in itertools.islice(self._start(), self._limit):
            x = checked(_inputs(item), self.shape, self.dtype, first=samples)
            samples += len(x)
            if self.samples is not None and samples > self.samples:
                raise self._changed(f"{self.samples} samples", f"{samples} or more")
            self._compare(batches, x)
            batches += 1
            if batches == LONG and self.steps is None:
                self._hint()
            yield x
        if self._limit is not None and batches < self._limit:
            ended = "; give a generator that never ends, or a function that returns a fresh one"
            raise ValueError(
                f"expected {self._limit} batches a pass, received {batches}: the data ended early"
                f"{ended if self.kind == 'generator' else ''}"
            )
        if self.samples is not None and samples != self.samples:
            raise self._changed(f"{self.samples} samples", samples)
        if samples == 0:
            raise ValueError("expected at least one sample, received no data")
        self.samples, self.steps, self.resumed = samples, batches, False

    def _compare(self, number: int, x: np.ndarray) -> None:
        """Raise ValueError unless batch ``number`` is what it was on the pass before."""
        if self.constant:
            self._one = x[:1].copy() if self._one is None else self._one
            self.constant = bool((x == self._one).all()) if x.shape[1:] == self._one.shape[1:] else False
        if self.kind == "generator" and number < len(self.marks):
            return
        content = np.ascontiguousarray(x).reshape(-1).view(np.uint8).data
        mark = zlib.crc32(content, zlib.crc32(repr(x.shape[1:]).encode()))
        if number == len(self.marks):
            self.marks.append(mark)
        elif mark != self.marks[number]:
            of = "" if self.steps is None else f" of {self.steps}"
            raise self._changed(f"batch {number + 1}{of} to hold the samples that it held", "others")

    def _changed(self, expected: str, received: Any) -> ValueError:
        if self.resumed:
            return ValueError(
                f"expected {expected}, as the checkpoint was learned from, received {received}: give the data of the "
                "fit that it belongs to, or another folder"
            )
        return ValueError(
            f"expected {expected}, as on the pass before, received {received}: the data must be the same on every "
            f"pass; {_ADVICE[self.kind]}"
        )

    @property
    def first(self) -> int | None:
        """Checksum of the first batch; None until it is read."""
        return self.marks[0] if self.marks else None

    def about(self) -> dict[str, Any]:
        """What tells this data from other data, for JSON: ``kind``, ``samples``, ``steps`` and ``first``.

        Reads the first batch if need be, except from a generator, which would
        lose it. Ask before the first pass: what is not known then is None.
        """
        if not self.marks and self.kind != "generator":
            next(iter(self))
        return {"kind": self.kind, "samples": self.samples, "steps": self.steps, "first": self.first}

    def count(self) -> int:
        """The number of samples a pass; takes a pass to find out where it is not known."""
        if self.samples is None:
            for _ in self:
                pass
        return int(self.samples or 0)

    def _hint(self) -> None:
        if not self._hinted:
            self._hinted = True
            warnings.warn(
                f"{LONG} batches read, and the data, of unknown length, go on: a pass has to end. If they never "
                "end, give steps=, the batches a pass",
                UserWarning,
                stacklevel=4,
            )

    def warn_of_little(self) -> None:
        """Warn, after a pass, of data that no layer can be learned from: fewer than 4 samples, or all the same."""
        if self.samples is not None and self.samples < FEW:
            what = f"{self.samples} sample{'s' if self.samples > 1 else ''}"
        elif self.samples is not None and self.constant:
            what = f"{self.samples} samples that are all the same"
        else:
            return
        warnings.warn(
            f"fitted to {what}: what is learned from so little is learned by heart and says nothing of other inputs; "
            "fit to some of the model's training data",
            UserWarning,
            stacklevel=3,
        )
