"""How far down each class' signal has come, batch by batch: the frontier of a fit."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from ..arithmetic import view
from ..network import PartialWalk


@dataclasses.dataclass
class Walk:
    """One class' walk down, of some samples of a unit.

    Attributes:
        rows: Which samples of the unit, by their position in it, ascending.
        partial: Where the walk stands.
        file: Where its signals lie, if on disk.
        written: Of what the file is: the walk's position, and how many rows.
    """

    rows: np.ndarray
    partial: PartialWalk
    file: pathlib.Path | None = None
    written: tuple[int, int] | None = None


def taken(tensor: tf.Tensor, at: np.ndarray) -> tf.Tensor:
    """Some rows of a tensor, by their ascending indices; the first of them without a search."""
    if len(at) == tensor.shape[0]:
        return tensor
    if not len(at) or at[-1] == len(at) - 1:
        return tensor[: len(at)]
    return tf.gather(tensor, at)


class Frontier:
    """Where the walks of a fit wait between two learned nodes: in memory, or in a temporary folder.

    Args:
        spilled: Whether their signals go to files, which are mapped into
            memory when they are read.
    """

    def __init__(self, spilled: bool):
        self._folder = tempfile.TemporaryDirectory(prefix="mipin-") if spilled else None
        self._files = 0

    @property
    def spilled(self) -> bool:
        """Whether signals lie in files."""
        return self._folder is not None

    def close(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def at_hand(self, walk: Walk) -> None:
        """Bring a walk's signals into memory."""
        if walk.file is None:
            return
        read = np.load(walk.file, mmap_mode="r")
        start = 0
        for parts in walk.partial.signals.values():
            for i, spec in enumerate(parts):
                size = int(np.prod(spec.shape))
                parts[i] = tf.constant(np.reshape(read[start : start + size], spec.shape))
                start += size

    def put_away(self, walk: Walk) -> None:
        """Write a walk's signals, if they go to files."""
        if self._folder is None or not walk.partial.signals:
            return
        if walk.file is None:
            walk.file = pathlib.Path(self._folder.name) / f"{self._files}.npy"
            self._files += 1
        signals: Any = walk.partial.signals
        stands = walk.partial.position, len(walk.rows)
        if walk.written != stands:  # in every epoch of a training it stands where it stood
            flat = [view(part).reshape(-1) for parts in signals.values() for part in parts]
            np.save(walk.file, np.concatenate(flat))
            walk.written = stands
        for parts in signals.values():
            parts[:] = [tf.TensorSpec(part.shape, part.dtype) for part in parts]
