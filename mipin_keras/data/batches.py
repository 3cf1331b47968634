"""Batches: repeated passes over arrays, data sets, sequences and generators, batch by batch and checked."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import batch_shape, integer
from .arrays import as_array, check_shape, checked

__all__ = ["FEW", "LONG", "Batches", "checked"]

#: With fewer samples than this, a fit warns: no layer can be learned from them.
FEW = 4
#: After this many batches of a source of unknown length, a pass warns that it has to end.
LONG = 1000


def _inputs(item: Any) -> Any:
    """The part of an item, or of its specification, that the model takes: the first entry of a tuple."""
    x = item[0] if isinstance(item, tuple | list) else item
    if isinstance(x, Mapping):
        raise TypeError(
            f"expected batches of inputs, or tuples that begin with them, received dicts of {list(x)}, and which "
            "entry the model takes is not known; pick it, as in dataset.map(lambda item: "
            f"item[{next(iter(x), 'input')!r}])"
        )
    return x


_ENDLESS = "expected a data set that ends, received one that never does; give steps=, the batches a pass"

# What to do about a source whose next pass differs, by the source's type.
_ADVICE = {
    "array": "leave the array, or its file, as it is until the work is done",
    "tf.data": "use shuffle(..., reshuffle_each_iteration=False) or none, and no random augmentation",
    "sequence": "let each item depend on its index alone",
    "function": "let the function return a fresh iterator each time, with random numbers that it seeds anew",
    "generator": "choose steps= so that each pass has as many samples",
}


def _iterator(made: Any) -> Iterable:
    if not hasattr(made, "__iter__"):
        raise TypeError(
            f"expected the function to return an iterator of batches, received {type(made).__name__}; "
            "return one, as iter([x1, x2]) or a generator does"
        )
    return made


class Batches:
    """Passes over a source of inputs, batch by batch, each batch checked.

    Every pass must give the same batches. Otherwise a fit of several passes
    would belong to no data at all, and could not be resumed. So each pass
    compares the checksum of every batch with that of the pass before. An
    endless generator is exempt: it is meant to go on.

    Args:
        source: Of one of the types below. Where an item is a tuple, its first
            entry is taken: labels are not used. Items that are dicts are
            refused.

            - "array": an array of shape ``(n, *shape)``, or a tuple that begins
              with one, as ``(x, y)``; also a data frame, a memmap, an
              h5py data set or another object with ``shape``, ``dtype`` and
              slices, of which only a batch at a time is read.
            - "tf.data": a batched ``tf.data.Dataset``.
            - "sequence": a ``keras.utils.PyDataset`` (``Sequence``), read by
              index in this thread, in order. ``on_epoch_end`` is not called,
              because it is there to shuffle.
            - "function": a callable that returns a fresh iterator of batches.
            - "generator": an endless one, together with ``steps``.
        shape: Of one sample, None for any size.
        batch_size: For arrays only: samples a batch.
        steps: Batches a pass. Needed for generators; otherwise all there are.
        dtype: Of the batches.

    Raises:
        TypeError: For a source of another type, an array that is not of
            numbers, and a data set of dicts.
        ValueError: For an empty or wrongly shaped array, a data set that is
            not batched, a ``batch_size`` or ``steps`` below 1, more ``steps``
            than there are, a generator or an endless data set without
            ``steps``.

    Attributes:
        source_type: The name of the source's type, as under ``source``.
        samples: Samples a pass; None until it is known.
        steps: Batches a pass; None until it is known.
        marks: The checksum of each batch of a pass, as far as they are known.
        resumed: Whether the checksums are of an earlier fit, until a pass has
            ended.
        constant: Whether all samples read so far are the same.
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
        self._first_sample: np.ndarray | None = None
        self._warned_of_length = False
        self.source_type, known, self._start = self._opened(source, batch_size)
        if steps is not None and known is not None and steps > known:
            raise ValueError(
                f"expected {steps} batches a pass, as steps= says, received data of {known}; give fewer steps, or "
                "leave steps out"
            )
        if steps is None:
            self.steps = known

    def _opened(self, source: Any, batch_size: int) -> tuple[str, int | None, Callable[[], Iterable]]:
        """The source's type, the number of its batches if that is known, and a function that starts a pass."""
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
                    "expected data that can be read several times, received a generator, which can be read only once; "
                    "a fit passes over its data several times: give steps= for one that never ends, or a function "
                    "that returns a fresh generator"
                )
            return "generator", None, lambda: source
        if isinstance(source, tuple) and source and np.ndim(source[0]) == len(self.shape) + 1:  # (x, y)
            return self._opened(source[0], batch_size)
        if isinstance(source, np.ma.MaskedArray):
            source = as_array(source)
        sliced = isinstance(getattr(source, "dtype", None), np.dtype) and isinstance(source.shape, tuple)
        array = source if sliced else as_array(source)  # which would read all of a file
        check_shape(array, self.shape)  # before any work; the values are checked as they are read
        self.samples = min(len(array), (self.steps or len(array)) * batch_size)
        starts = range(0, len(array), batch_size)
        return "array", len(starts), lambda: (array[i : i + batch_size] for i in starts)

    def _check_spec(self, spec: Any) -> None:
        """Refuse a data set of other shapes before it is read, where it says its shapes."""
        if isinstance(spec, tf.TensorSpec) and not spec.shape.is_compatible_with((None, *self.shape)):
            unbatched = spec.shape.rank == len(self.shape)
            hint = "batch the data set: dataset.batch(32)" if unbatched else "map its items to the model's input shape"
            raise ValueError(
                f"expected a data set of batches of shape {batch_shape(self.shape)}, received {spec.shape}; {hint}"
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
                self._warn_of_length()
            yield x
        if self._limit is not None and batches < self._limit:
            endless = "give a generator that never ends, or a function that returns a fresh one"
            advice = endless if self.source_type == "generator" else "give fewer steps, or more data"
            raise ValueError(
                f"expected {self._limit} batches a pass, received {batches}: the data ended early; {advice}"
            )
        if self.samples is not None and samples != self.samples:
            raise self._changed(f"{self.samples} samples", samples)
        if samples == 0:
            raise ValueError("expected at least one sample, received no data; look at what the source gives")
        self.samples, self.steps, self.resumed = samples, batches, False

    def _compare(self, index: int, x: np.ndarray) -> None:
        """Raise ValueError unless the batch at ``index`` is what it was on the pass before."""
        if self.constant:
            self._first_sample = x[:1].copy() if self._first_sample is None else self._first_sample
            alike = x.shape[1:] == self._first_sample.shape[1:]
            self.constant = alike and bool((x == self._first_sample).all())
        if self.source_type == "generator" and index < len(self.marks):
            return
        content = np.ascontiguousarray(x).reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(content, zlib.crc32(repr(x.shape[1:]).encode()))
        if index == len(self.marks):
            self.marks.append(checksum)
        elif checksum != self.marks[index]:
            of = "" if self.steps is None else f" of {self.steps}"
            raise self._changed(f"batch {index + 1}{of} to hold the samples that it held", "others")

    def _changed(self, expected: str, received: Any) -> ValueError:
        if self.resumed:
            return ValueError(
                f"expected {expected}, as the checkpoint was learned from, received {received}; give the data of the "
                "fit that it belongs to, or another folder"
            )
        return ValueError(
            f"expected {expected}, as on the pass before, received {received}: the data must be the same on every "
            f"pass; {_ADVICE[self.source_type]}"
        )

    @property
    def first(self) -> int | None:
        """The checksum of the first batch; None until it is read."""
        return self.marks[0] if self.marks else None

    def about(self) -> dict[str, Any]:
        """What tells this data from other data, for JSON.

        Reads the first batch if need be, except from a generator, which would
        lose it. Call it before the first pass, so that the same data always
        give the same answer.

        Returns:
            ``kind``, the source's type; ``samples`` and ``steps`` a pass, None
            where they are not known yet; ``first``, the checksum of the first
            batch.
        """
        if not self.marks and self.source_type != "generator":
            next(iter(self))
        return {"kind": self.source_type, "samples": self.samples, "steps": self.steps, "first": self.first}

    def count(self) -> int:
        """The number of samples a pass; where it is not known, a pass over the data counts them."""
        if self.samples is None:
            for _ in self:
                pass
        return int(self.samples or 0)

    def _warn_of_length(self) -> None:
        if not self._warned_of_length:
            self._warned_of_length = True
            warnings.warn(
                f"expected a pass that ends, received {LONG} batches so far of data of unknown length, which go on; if "
                "they never end, give steps=, the batches a pass",
                UserWarning,
                stacklevel=4,
            )

    def warn_of_little(self) -> None:
        """Warn, after a pass, of data that no layer can be learned from: few samples, or all the same."""
        if self.samples is not None and self.samples < FEW:
            what = f"{self.samples} sample{'s' if self.samples > 1 else ''}"
        elif self.samples is not None and self.constant:
            what = f"{self.samples} samples that are all the same"
        else:
            return
        warnings.warn(
            f"expected at least {FEW} samples that differ, received {what}: a fit to so few does not carry over to "
            "other inputs; fit to some of the model's training data",
            UserWarning,
            stacklevel=3,
        )
