"""Samples on their way through a fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ..inverse_graph import Node
from ..network import ForwardPass
from .frontier import Walk


@dataclasses.dataclass
class Unit:
    """Samples that go through the network together, on one replica, sorted by their draws.

    Attributes:
        order: The samples' positions in the block of data that they come in.
        samples: Their indices in the data, int ``(n,)``.
        draws: A uniform draw from [0, 1) for each, ascending: a node that
            uses a share of the samples takes those whose draw lies below it,
            so that a node's samples are among those of each larger share.
        bounds: Where in the block the batches of the data begin and end.
        taken_for: Which classes the model takes each for, bool ``(n, classes)``.
        held: Which of them the present forward pass is of.
        forward_pass: What it left; None between segments.
        walks: How far each class' signal has come.
    """

    order: np.ndarray
    samples: np.ndarray
    draws: np.ndarray
    bounds: np.ndarray
    taken_for: np.ndarray
    held: np.ndarray
    forward_pass: ForwardPass | None = None
    walks: dict[int, Walk] = dataclasses.field(default_factory=dict)

    @property
    def logits(self) -> tf.Tensor:
        """Of the samples of the present forward pass, the first one: ``(n, neurons)``."""
        return self.present.logits

    @property
    def present(self) -> ForwardPass:
        """The forward pass of the present segment."""
        if self.forward_pass is None:
            raise RuntimeError("expected a unit of the present segment, received one of another; load it first")
        return self.forward_pass

    def targets(self, node: Node) -> tf.Tensor:
        """What a learned node of the present segment is to reconstruct, in float32 at least."""
        target = self.present.targets[node.index]
        return target if target.dtype.size >= 4 else tf.cast(target, tf.float32)

    def done(self, node: Node) -> None:
        """Free what only a learned node needed."""
        if self.forward_pass is not None:
            self.forward_pass.targets.pop(node.index, None)

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Some of the samples batch by batch of the data, in its order: their positions among ``rows``."""
        order = self.order[rows]
        for low, high in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            chosen = np.flatnonzero((order >= low) & (order < high))
            if len(chosen):
                yield chosen[np.argsort(order[chosen])]
