"""Inverses of standardizations, which divide each sample by a size of its own."""

from __future__ import annotations

import tensorflow as tf

from ...graph import linear
from ..inverse import Record, Weights, register_inverse
from .dense import ChannelInverse


@register_inverse(*linear.STANDARDIZATIONS)
class StandardizationInverse(ChannelInverse):
    """``x_i = w_i sigma (s_i - beta_i) + b_i``, one ridge regression a channel.

    The divisor sigma is the sample's own, and recorded as a mask is: without
    it the step is not linear in what one regression can know. It is the
    standard deviation of a position, a sample or a group of channels; of RMS
    normalisation the root of the mean square, of unit normalisation the
    length. The sample's mean, which layer and group normalisation take away,
    is not recorded: it is part of what is reconstructed. With
    ``forward_relu=False`` nothing is recorded, and the regression reads the
    signal alone.
    """

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return (linear.divisor(self.layer, tf.cast(x, tf.float32)),) if self.forward_relu else ()

    def features(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        beta = getattr(self.layer, "beta", None)
        return self._scaled(signal if beta is None else signal - tf.cast(beta, signal.dtype), record)

    def _scaled(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        return signal * tf.cast(record[0], signal.dtype) if self.forward_relu else signal

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return self._scaled(signal, record) * weights[0]
