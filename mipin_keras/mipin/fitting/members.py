"""Which samples fit which class: all of them, or those that the model takes for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...data.batches import FEW, Batches
from ...data.distribute import Replicas
from ..network import InverseNetwork


class Members:
    """Which samples of the data fit a class, and how many.

    Args:
        network: The inverse network, whose model takes samples for classes.
        batches: The data.
        samples: ``"all"`` or ``"class"``.
        replicas: The devices and hosts that share the data.
        passing: Starts a pass over the data, batches ``(n, ...)``.
        log: Says a line.

    Attributes:
        counts: How many samples the model takes for each class, ``(classes,)``
            of int; None until a pass has counted them.
    """

    def __init__(
        self,
        network: InverseNetwork,
        batches: Batches,
        samples: str,
        replicas: Replicas,
        passing: Callable[[], Iterator[np.ndarray]],
        log: Callable[[str], None],
    ):
        self.network, self.batches, self.replicas = network, batches, replicas
        self.all = samples == "all"
        self.counts: np.ndarray | None = None
        self._passing, self._log = passing, log

    def taken_for(self, logits: tf.Tensor) -> np.ndarray:
        """Which classes the model takes each sample for, bool ``(n, classes)``.

        The largest logit's; behind a sigmoid each whose logit is above 0.
        """
        found = logits.numpy()
        if self.network.graph.taken_by_sign:
            return found > 0
        return np.argmax(found, axis=1)[:, None] == np.arange(found.shape[1])

    def of(self, taken: np.ndarray, neuron: int) -> np.ndarray:
        """Which samples fit class ``neuron``, bool ``(n,)``, from what :meth:`taken_for` gave of them."""
        return np.ones(len(taken), bool) if self.all else taken[:, neuron]

    def of_each_class(self, taken: np.ndarray) -> np.ndarray:
        """How many samples the model takes for each class, ``(classes,)`` of int."""
        return taken.sum(axis=0)

    def none_of_any_class(self) -> np.ndarray:
        """Counts to add to, ``(classes,)`` of int."""
        return np.zeros(self.network.graph.neurons, int)

    def note(self, counts: np.ndarray) -> None:
        """Take the counts of this host's samples, all of which have come by."""
        self.counts = self.replicas.total([counts], "the samples of each class")[0].astype(int)

    def count(self, neuron: int) -> int:
        """How many samples fit class ``neuron``; a pass over the data finds out once."""
        if self.all:
            return self.batches.count()
        if self.counts is None:
            self._log("counting the samples of each class")
            counts, head = self.none_of_any_class(), self.network.nodes[0]

            def of_each(x: Any) -> np.ndarray:
                return self.of_each_class(self.taken_for(self.network.forward(x, head).logits))

            for i, x in enumerate(self._passing()):
                if self.replicas.mine(i):
                    counts += sum(self.replicas.run(of_each, x))
            self.note(counts)
        return 0 if self.counts is None else int(self.counts[neuron])

    def none(self, neuron: int) -> ValueError:
        """The error for a class without samples."""
        return ValueError(
            f"expected samples of class {neuron} to fit its inverse from, received none among {self.batches.count()} "
            "that the model takes for it; leave it out of classes=, or use samples='all'"
        )

    def warn_of_few(self, classes: list[int], stacklevel: int) -> None:
        """Warn of classes that were fitted from too few samples to learn anything from."""
        if self.all or self.counts is None or (self.batches.samples or 0) < FEW:
            return
        few = {c: int(self.counts[c]) for c in classes if self.counts[c] < FEW}
        if few:
            warnings.warn(
                f"classes fitted to fewer than {FEW} samples each (samples by class: {few}): what is learned from so "
                "few is learned by heart; give more samples of them, leave them out of classes=, or use samples='all'",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
