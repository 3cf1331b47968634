"""Arrays that grow batch by batch, in memory as long as they fit, and behind that in temporary files."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any, Self

import numpy as np


class Store:
    """What a pass over the data leaves, one row a sample.

    A context: the files go when it ends.

    Args:
        memory: Bytes that may be held; what comes behind them goes to files.
    """

    def __init__(self, memory: float):
        self._memory, self._held = memory, 0
        self._folder: tempfile.TemporaryDirectory | None = None
        self._parts: list[list[np.ndarray]] = []
        self._files: list[Any] = []
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        for file in self._files:
            file.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, arrays: tuple[np.ndarray, ...]) -> None:
        """Add a batch: arrays of one length, of the same row shapes and dtypes each time."""
        self._parts = self._parts or [[] for _ in arrays]
        for parts, array in zip(self._parts, arrays, strict=True):
            parts.append(array)
        self._held += sum(array.nbytes for array in arrays)
        self._rows += len(arrays[0])
        if self._held > self._memory:
            self._write()

    def _write(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mipin_keras-")
            self._files = [open(pathlib.Path(self._folder.name) / str(i), "wb") for i in range(len(self._parts))]
        for parts, file in zip(self._parts, self._files, strict=True):
            for array in parts:
                np.ascontiguousarray(array).tofile(file)
        self._held = 0
        self._parts = [[parts[-1][:0]] for parts in self._parts]  # for their shapes and dtypes

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All rows, as arrays in memory or of the files."""
        if self._folder is None:
            return tuple(np.concatenate(parts) for parts in self._parts)
        self._write()
        found = []
        for parts, file in zip(self._parts, self._files, strict=True):
            file.flush()
            found.append(np.memmap(file.name, parts[0].dtype, "r", shape=(self._rows, *parts[0].shape[1:])))
        return tuple(found)
