"""Batches: repeated passes over arrays, data sets, sequences and generators, batch by batch and checked."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..checks import integer
from .arrays import checked
from .given import LONG, warn_of_length
from .inputs import Batch, Inputs, InputSpec
from .sources import ADVICE, opened

__all__ = ["FEW", "LONG", "Batches", "checked"]

#: With fewer samples than this, a fit warns: no layer can be learned from them.
FEW = 4


class Batches:
    """Passes over a source of inputs, batch by batch, each batch checked.

    Every pass must give the same batches. Otherwise a fit of several passes
    would belong to no data at all, and could not be resumed. So each pass
    compares the checksum of every batch with that of the pass before. An
    endless generator is exempt: it is meant to go on.

    Args:
        source: Of one of the types below. Where an item is a tuple, as
            ``(x, y)`` or ``(x, y, sample_weight)``, its first entry is taken:
            labels are not used. The inputs themselves are an array, or, for a
            model of several, a tuple or list of as many arrays or a dict by
            the inputs' names; :meth:`mipin_keras.data.inputs.Inputs.of_item`
            says how ``(a, b)`` is told from ``(x, y)``.

            - "array": an array of shape ``(n, *shape)``, or such a structure
              of them, or a tuple that begins with either, as ``(x, y)``; also
              a data frame, a memmap, an h5py data set or another object with
              ``shape``, ``dtype`` and slices, of which only a batch at a time
              is read, and a sparse matrix, of which only a batch at a time is
              made dense.
            - "tf.data": a batched ``tf.data.Dataset``.
            - "sequence": a ``keras.utils.PyDataset`` (``Sequence``), read by
              index in this thread, in order. ``on_epoch_end`` is not called,
              because it is there to shuffle.
            - "function": a callable that returns a fresh iterator of batches.
            - "generator": an endless one, together with ``steps``.
        inputs: What the model takes; or, for one input, the shape of one
            sample, None for any size.
        batch_size: For arrays only: samples a batch.
        steps: Batches a pass. Needed for generators; otherwise all there are.
        dtype: Of the batches, where ``inputs`` is a shape.
        inspect: Called with the very first batch that is read, once, before
            the batch is handed on. What it raises ends the pass.

    Raises:
        TypeError: For a source of another type, and an array that is not of
            numbers.
        ValueError: For an empty or wrongly shaped array, another number of
            inputs or other names than the model's, inputs of different
            numbers of samples, a data set that is not batched, a
            ``batch_size`` or ``steps`` below 1, more ``steps`` than there
            are, a generator or an endless data set without ``steps``.

    Attributes:
        inputs: What the model takes.
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
        inputs: Inputs | tuple[int | None, ...],
        batch_size: int = 32,
        steps: int | None = None,
        dtype: str = "float32",
        inspect: Callable[[Batch], None] | None = None,
    ):
        batch_size = integer("batch_size", batch_size, 1)
        steps = None if steps is None else integer("steps", steps, 1)
        self.inputs = inputs if isinstance(inputs, Inputs) else Inputs([InputSpec("input", tuple(inputs), dtype)])
        self.marks: list[int] = []
        self.resumed = False
        self.constant = True
        self._limit = steps
        self._inspect = inspect
        self._first_sample: list[np.ndarray] | None = None
        self._warned_of_length = False
        found = opened(source, self.inputs, batch_size, steps)
        if steps is not None and found.steps is not None and steps > found.steps:
            raise ValueError(
                f"expected {steps} batches a pass, as steps= says, received data of {found.steps}; give fewer steps, "
                "or leave steps out"
            )
        self.source_type, self._start = found.type, found.start
        self.samples: int | None = found.samples
        self.steps: int | None = found.steps if steps is None else steps

    def __iter__(self) -> Iterator[Any]:
        """One pass: an array ``(b, *shape)`` a batch; for several inputs a tuple of arrays, in the model's order.

        Raises:
            TypeError: For items that are no inputs.
            ValueError: For items of another structure or shape; if the source gives nothing, ends before ``steps``, or
                gives other samples, or another number of them, than on the
                pass before.
        """
        samples = batches = 0
        for parts in itertools.islice(self._start(), self._limit):
            arrays = self.inputs.checked(parts, first=samples)
            samples += len(arrays[0])
            if self.samples is not None and samples > self.samples:
                raise self._changed(f"{self.samples} samples", f"{samples} or more")
            self._compare(batches, arrays)
            batches += 1
            if batches == LONG and self.steps is None and not self._warned_of_length:
                self._warned_of_length = True
                warn_of_length("give steps=, the batches a pass", stacklevel=4)
            batch = arrays if len(arrays) > 1 else arrays[0]
            if self._inspect is not None:
                self._inspect(batch)
                self._inspect = None
            yield batch
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

    def _compare(self, index: int, arrays: tuple[np.ndarray, ...]) -> None:
        """Raise ValueError unless the batch at ``index`` is what it was on the pass before."""
        if self.constant:
            self._first_sample = self._first_sample or [x[:1].copy() for x in arrays]
            self.constant = all(
                x.shape[1:] == one.shape[1:] and bool((x == one).all())
                for x, one in zip(arrays, self._first_sample, strict=True)
            )
        if self.source_type == "generator" and index < len(self.marks):
            return
        checksum = 0
        for x in arrays:  # of one input: the checksum that the checkpoints of earlier versions hold
            content = np.ascontiguousarray(x).reshape(-1).view(np.uint8).data
            checksum = zlib.crc32(content, zlib.crc32(repr(x.shape[1:]).encode(), checksum))
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
            f"pass; {ADVICE[self.source_type]}"
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
