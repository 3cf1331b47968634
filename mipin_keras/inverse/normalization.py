"""Inverses of normalisations that divide each sample by a size of its own."""

from __future__ import annotations

import keras
import tensorflow as tf

from .dense import ChannelInverse
from .rules import Record, Weights, register_inverse

_L = keras.layers


class NormalizationInverse(ChannelInverse):
    """``x_i = w_i sigma (s_i - beta_i) + b_i``, one ridge regression a channel.

    The divisor sigma is the sample's own, and recorded as a mask is: without
    it the step is not linear in what one regression can know. The sample's
    mean, which the layer takes away, is not recorded: it is part of what is
    reconstructed. With ``forward_relu=False`` nothing is recorded, and the
    regression reads the signal alone.
    """

    def divisor(self, x: tf.Tensor) -> tf.Tensor:
        """What the layer divides each sample by, broadcasting to ``x`` (float32)."""
        raise NotImplementedError

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return (self.divisor(tf.cast(x, tf.float32)),) if self.forward_relu else ()

    def features(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        beta = getattr(self.layer, "beta", None)
        return self._scaled(signal if beta is None else signal - tf.cast(beta, signal.dtype), record)

    def _scaled(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        return signal * tf.cast(record[0], signal.dtype) if self.forward_relu else signal

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self._scaled(signal, record) * weights[0]


@register_inverse(_L.LayerNormalization)
class LayerNormalizationInverse(NormalizationInverse):
    """A ridge regression a channel on ``sigma (s - beta)``, the sigma recorded: that of a position or a sample."""

    def divisor(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.math.reduce_variance(x, self.layer.axis, keepdims=True) + self.layer.epsilon)


@register_inverse(_L.GroupNormalization)
class GroupNormalizationInverse(NormalizationInverse):
    """A ridge regression a channel on ``sigma (s - beta)``, the sigma recorded: that of a group of channels."""

    def divisor(self, x: tf.Tensor) -> tf.Tensor:
        channels, groups = self.input_shape[-1], self.layer.groups
        split = tf.reshape(x, [tf.shape(x)[0], -1, groups, channels // groups])
        sigma = tf.sqrt(tf.math.reduce_variance(split, [1, 3]) + self.layer.epsilon)
        ones = [1] * (len(self.input_shape) - 1)
        return tf.reshape(tf.repeat(sigma, channels // groups, axis=1), [-1, *ones, channels])


@register_inverse(_L.UnitNormalization)
class UnitNormalizationInverse(NormalizationInverse):
    """A ridge regression a channel on ``sigma s``, sigma the recorded length."""

    def divisor(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(tf.square(x), self.layer.axis, keepdims=True))


class RMSNormalizationInverse(NormalizationInverse):
    """A ridge regression a channel on ``sigma s``, sigma the recorded root of the mean square."""

    def divisor(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_mean(tf.square(x), self.layer.axis, keepdims=True) + self.layer.epsilon)


if hasattr(_L, "RMSNormalization"):  # newer than the oldest Keras that is supported
    register_inverse(_L.RMSNormalization)(RMSNormalizationInverse)
