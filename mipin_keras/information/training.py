"""The two trainings of a fit, each a Keras model's own: the mask module's, and then the critic's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .critic import Critic, against_the_batch, bounded, pointwise
from .estimate import shared
from .mask import MaskModule


class MaskTraining(keras.Model):
    """The mask module in front of the frozen rest of the network.

    The loss is the cross-entropy of the masked network's prediction, and
    ``weight`` times the mean of λ. The network's own weights are none of this
    model's.

    Args:
        mask: What is trained.
        rest: From a feature map and the tensors beside it to the logits.
        by_sign: Whether each logit is a decision by itself.
        weight: Of the mean of λ.
    """

    def __init__(self, mask: MaskModule, rest: Callable, by_sign: bool, weight: float, **options: Any):
        super().__init__(**options)
        self.mask = mask
        self._rest = [rest]  # in a list: a method is none of Keras' business
        self._by_sign, self._weight = by_sign, weight
        self._accuracy, self._coverage = keras.metrics.Mean(name="accuracy"), keras.metrics.Mean(name="coverage")

    def build(self, shapes: Any) -> None:
        self.built = True  # what it is made of is

    def call(self, given: Any) -> Any:
        mask = self.mask(given["feature"])
        masked = tf.cast(given["feature"], tf.float32) * mask
        beside = tuple(given[name] for name in sorted(given) if name.startswith("beside"))
        return {"mask": mask, "logits": self._rest[0](masked, beside)}

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The mean over the batch, in nats."""
        coverage = tf.reduce_mean(y_pred["mask"])
        self._accuracy.update_state(right(y_pred["logits"], y, self._by_sign))
        self._coverage.update_state(coverage)
        return shared(tf.reduce_mean(cross_entropy(y_pred["logits"], y, self._by_sign)) + self._weight * coverage)


class CriticTraining(keras.Model):
    """One critic for the local parts as they are and as the mask leaves them, each with the unmasked Z.

    The loss is minus the sum of the two bounded estimates.

    Args:
        critic: What is trained.
        mask: The fitted mask module, which stays as it is.
    """

    def __init__(self, critic: Critic, mask: MaskModule, **options: Any):
        super().__init__(**options)
        self.critic = critic
        self._frozen = [mask.call]
        self._total, self._decision = keras.metrics.Mean(name="total"), keras.metrics.Mean(name="decision")

    def build(self, shapes: Any) -> None:
        self.built = True  # what it is made of is

    def call(self, given: Any) -> Any:
        z = given["representation"]
        parts, masked = local_parts(given["feature"], tf.stop_gradient(self._frozen[0](given["feature"])))
        return {"total": self.critic(z, parts), "decision": self.critic(z, masked)}

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Minus the sum of the two bounded estimates, in nats."""
        loss: Any = 0.0
        for metric, scores in ((self._total, y_pred["total"]), (self._decision, y_pred["decision"])):
            parts = against_the_batch(scores)
            metric.update_state(pointwise(*parts))
            loss -= tf.reduce_mean(bounded(*parts))
        return shared(loss)


def local_parts(feature: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The vectors of a feature map, and what a mask leaves of them: float32 ``(n, positions, channels)``."""
    feature = tf.cast(feature, tf.float32)
    shape = (tf.shape(feature)[0], -1, feature.shape[-1])
    return tf.reshape(feature, shape), tf.reshape(feature * mask, shape)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, by_sign: bool) -> tf.Tensor:
    """In nats, ``(n,)``.

    Args:
        logits: Shape ``(n, neurons)``.
        labels: Classes ``(n,)``; 0 or 1 for each neuron, ``(n, neurons)``,
            where each is a decision by itself.
        by_sign: Whether it is.
    """
    if by_sign:
        each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits)
        return tf.reduce_mean(each, axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)


def right(logits: tf.Tensor, labels: tf.Tensor, by_sign: bool) -> tf.Tensor:
    """Whether a prediction is the label, 0 or 1, ``(n,)``; the share of the neurons where each is a decision."""
    if by_sign:
        same = tf.equal(logits > 0, tf.cast(labels, tf.float32) > 0.5)
        return tf.reduce_mean(tf.cast(same, tf.float32), axis=1)
    return tf.cast(tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), tf.cast(labels, tf.int32)), tf.float32)
