"""Inverses of steps that only move, drop or mask values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import kernels
from ..graph import Step
from .rules import Inverse, Record, Weights, register_inverse

_L = keras.layers


class ActivationInverse(Inverse):
    """Forward ReLU: the signal stays where the activation is not 0 (Eq. 9)."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        name = kernels.activation_name(self.layer)
        if name not in kernels.ELEMENTWISE and name != "sigmoid":
            shown = name or repr(getattr(self.layer, "activation", self.layer))
            raise ValueError(
                f"MIP-IN knows no inverse for the activation {shown} of layer {step}: it takes the elementwise "
                "functions of keras.activations; put your own function into a layer and register an inverse for it "
                "with @mipin_keras.register_inverse"
            )

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return (y != 0,) if self.forward_relu else ()

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.where(record[0], signal, tf.zeros((), signal.dtype)) if self.forward_relu else signal


register_inverse(_L.Activation, _L.ReLU, _L.LeakyReLU, _L.ELU, _L.Softmax)(ActivationInverse)


@register_inverse(
    _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D,
    _L.AlphaDropout, _L.GaussianDropout, _L.GaussianNoise, _L.ActivityRegularization, _L.Identity,
)  # fmt: skip
class IdentityInverse(Inverse):
    """For what does nothing at inference."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal


@register_inverse(_L.Flatten, _L.Reshape)
class ReshapeInverse(Inverse):
    """The signal in the shape of the input."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.reshape(signal, [-1, *self.input_shape])


@register_inverse(_L.Permute)
class PermuteInverse(Inverse):
    """The axes back in their order."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        order = np.argsort(self.layer.dims) + 1
        return tf.transpose(signal, [0, *order.tolist()])


def _pairs(amounts: Any) -> list[tuple[int, int]]:
    """Amounts before and after each spatial axis, however the layer keeps them."""
    amounts = [amounts] if isinstance(amounts, int) else list(amounts)
    if all(isinstance(amount, int) for amount in amounts):  # the 1D layers: (before, after)
        return [(amounts[0], amounts[-1])]
    return [tuple(pair) for pair in amounts]


@register_inverse(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D)
class ZeroPaddingInverse(Inverse):
    """The padding cut off."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        before = [low for low, _ in _pairs(self.layer.padding)]
        return tf.slice(signal, [0, *before, 0], [-1, *self.input_shape])


@register_inverse(_L.Cropping1D, _L.Cropping2D, _L.Cropping3D)
class CroppingInverse(Inverse):
    """Zeros where the layer cut off: the output knows nothing of it."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.pad(signal, [[0, 0], *_pairs(self.layer.cropping), [0, 0]])


@register_inverse(_L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D)
class UpSamplingInverse(Inverse):
    """The least-squares inverse of the interpolation, axis by axis.

    For nearest-neighbour upsampling this is the mean over each block.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self._inverses = []
        spatial = self.input_shape[:-1]
        for axis, size in enumerate(spatial):
            # Interpolation is separable and keeps constants: a unit step along
            # one axis shows that axis' matrix.
            steps = np.expand_dims(np.eye(size, dtype=np.float32), [1 + a for a in range(len(spatial)) if a != axis])
            seen = np.asarray(self.layer(np.broadcast_to(steps, (size, *spatial))[..., None]))[..., 0]
            for other in reversed([a for a in range(len(spatial)) if a != axis]):
                seen = seen.take(0, axis=1 + other)
            self._inverses.append(np.linalg.pinv(seen.astype(np.float64)))

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        for axis, matrix in enumerate(self._inverses):
            signal = tf.tensordot(signal, tf.constant(matrix, signal.dtype), axes=[[axis + 1], [0]])
            order = list(range(signal.shape.rank - 1))
            order.insert(axis + 1, signal.shape.rank - 1)
            signal = tf.transpose(signal, order)
        return signal
