"""What the information analyzers find: of an input, and in a fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from .critic import Critic
from .mask import MaskModule


class Decomposition(NamedTuple):
    """What a representation shares with each local part of its input.

    All are float32 ``(n, *spatial)``, of the feature map's size, in the
    analyzer's unit; single locations may be below 0, and the decision-related
    information above the total.

    Attributes:
        total: I(Z, X_i).
        decision: I(Z, X'_i), where X' is what the mask leaves of X.
        redundant: Their difference.
        mask: λ, between 0 and 1.
    """

    total: np.ndarray
    decision: np.ndarray
    redundant: np.ndarray
    mask: np.ndarray

    @property
    def sums(self) -> dict[str, np.ndarray]:
        """The sum over all locations of each, ``(n,)``, by its name; of the mask its mean, the coverage."""
        axes = tuple(range(1, self.total.ndim))
        found = {name: getattr(self, name).sum(axis=axes) for name in ("total", "decision", "redundant")}
        return found | {"coverage": self.mask.mean(axis=axes)}


class InformationReport(NamedTuple):
    """What a fit of the information analyzers found, on held-out inputs where it does not say otherwise.

    Attributes:
        total, decision: The mean information at a location, in nats, with a
            held-out batch's other parts as negatives, of the best epoch.
        limit: log(number of negatives) there, in nats: an estimate near it
            says only that there is as much or more.
        coverage: The mean of λ.
        accuracy: The share of labels that the network gives.
        masked_accuracy: The share that it gives behind the mask.
        labels: ``"given"``, or ``"decisions"`` where the labels are the
            model's own; then ``accuracy`` is 1.
        samples: Inputs trained on, and held out.
        history: By training, ``"mask"`` and ``"critic"``, Keras' history: a
            list of numbers, one an epoch, by the name of the log.
    """

    total: float
    decision: float
    limit: float
    coverage: float
    accuracy: float
    masked_accuracy: float
    labels: str
    samples: tuple[int, int]
    history: dict[str, dict[str, list[float]]]


class Fitted(NamedTuple):
    """What a fit leaves.

    Attributes:
        mask: The mask module.
        critic: The critic.
        bank: An analysis' negatives: local parts of the fit as they are, and
            as the mask leaves them, float32 ``(negatives, channels)`` each.
        report: What was measured.
    """

    mask: MaskModule
    critic: Critic
    bank: tuple[tf.Tensor, tf.Tensor]
    report: InformationReport
