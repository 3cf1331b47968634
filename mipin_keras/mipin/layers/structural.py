"""Inverses of steps that only move, drop or mask values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...graph import activations
from ...graph.model_graph import Step
from ..inverse import Inverse, Record, Weights, inverts_operations, register_inverse

_L = keras.layers


def touches_batch(step: Step) -> str:
    """The message for an operation that mixes samples, or moves the axis that they lie on."""
    return (
        f"expected layer {step} to leave the batch axis, the first, as it is, received one that mixes samples, or that "
        "would for some size of the batch; name the axes of one sample, or put -1 first in a new shape"
    )


@register_inverse(_L.Activation, _L.ReLU, _L.LeakyReLU, _L.ELU, _L.PReLU, _L.Softmax)
class ActivationInverse(Inverse):
    """Forward ReLU: the signal stays where the activation is not 0 (Eq. 9)."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        name = activations.activation_name(self.layer)
        if name not in activations.ELEMENTWISE and name != "sigmoid":
            shown = name or repr(getattr(self.layer, "activation", self.layer))
            raise ValueError(
                f"expected an elementwise function of keras.activations, received the activation {shown} of layer "
                f"{step}, which MIP-IN knows no inverse for; put your own function into a layer and register an "
                "inverse for it with @mipin_keras.register_inverse"
            )

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return (y != 0,) if self.forward_relu else ()

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.where(record[0], signal, tf.zeros((), signal.dtype)) if self.forward_relu else signal


@register_inverse(
    _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D,
    _L.AlphaDropout, _L.GaussianDropout, _L.GaussianNoise, _L.ActivityRegularization, _L.Identity,
)  # fmt: skip
class IdentityInverse(Inverse):
    """As it is: the layer does nothing at inference."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return signal


@register_inverse(_L.Flatten, _L.Reshape)
@inverts_operations("Reshape", "Squeeze", "ExpandDims")
class ReshapeInverse(Inverse):
    """The signal in the shape of the input."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        axes = getattr(self.layer, "axis", ())  # of squeeze and expand_dims; None squeezes a batch of one too
        axes = None if axes is None else keras.tree.flatten(axes)
        rank = 1 + max(len(self.input_shape), len(self.output_shape))
        if axes is None or 0 in [a % rank for a in axes] or np.prod(self.input_shape) != np.prod(self.output_shape):
            raise ValueError(touches_batch(step))

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.reshape(signal, [-1, *self.input_shape])


@register_inverse(_L.Permute)
@inverts_operations("Transpose")
class PermuteInverse(Inverse):
    """The axes back in their order."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        rank = len(self.input_shape) + 1
        axes = (0, *self.layer.dims) if isinstance(self.layer, _L.Permute) else self.layer.axes
        axes = [a % rank for a in (range(rank)[::-1] if axes is None else axes)]
        if axes[0] != 0:
            raise ValueError(touches_batch(step))
        self.order = np.argsort(axes).tolist()

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.transpose(signal, self.order)


@register_inverse(_L.RepeatVector)
class RepeatVectorInverse(Inverse):
    """The mean over the copies, the pseudo-inverse."""

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.reduce_mean(signal, axis=1)


def _pairs(amounts: Any) -> list[tuple[int, int]]:
    """Amounts before and after each spatial axis, however the layer keeps them."""
    amounts = [amounts] if np.ndim(amounts) == 0 else list(amounts)
    if all(np.ndim(amount) == 0 for amount in amounts):  # the 1D layers: (before, after)
        return [(amounts[0], amounts[-1])]
    return [tuple(pair) for pair in amounts]


@register_inverse(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D)
class ZeroPaddingInverse(Inverse):
    """The padding cut off."""

    def before(self) -> list[int]:
        """How much was added before each axis, the batch's too."""
        return [0, *(low for low, _ in _pairs(self.layer.padding)), 0]

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.slice(signal, self.before(), [-1, *self.input_shape])


@inverts_operations("Pad")
class PadInverse(ZeroPaddingInverse):
    """The padding cut off, of ``keras.ops.pad`` with a constant on any axis but the batch's."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        if self.layer.mode != "constant":
            raise ValueError(
                f"expected layer {step} to pad with a constant, received mode={self.layer.mode!r}, which copies; pad "
                "with zeros, or put it into a layer of your own and register an inverse with "
                "@mipin_keras.register_inverse"
            )
        if any(self._widths()[0]):
            raise ValueError(touches_batch(step))

    def _widths(self) -> list[tuple[int, int]]:
        widths = list(self.layer.pad_width)  # one pair may stand for all axes
        return widths * (len(self.input_shape) + 1) if len(widths) == 1 else widths

    def before(self) -> list[int]:
        return [low for low, _ in self._widths()]


@register_inverse(_L.Cropping1D, _L.Cropping2D, _L.Cropping3D)
class CroppingInverse(Inverse):
    """Zeros where the layer cut off: the output knows nothing of it."""

    def cut(self) -> list[tuple[int, int]]:
        """How much was cut off before and after each spatial axis."""
        return _pairs(self.layer.cropping)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.pad(signal, [[0, 0], *self.cut(), [0, 0]])


@register_inverse(_L.CenterCrop)
class CenterCropInverse(CroppingInverse):
    """Zeros around the centre, where the layer cut off."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        if any(low < 0 or high < 0 for low, high in self.cut()):
            raise ValueError(
                f"expected layer {step} to cut its input off, received one of {self.input_shape}, which it resizes; "
                "use keras.layers.Resizing"
            )

    def cut(self) -> list[tuple[int, int]]:
        sizes = zip(self.input_shape, (self.layer.height, self.layer.width), strict=False)
        return [((n - kept) // 2, n - kept - (n - kept) // 2) for n, kept in sizes]


@register_inverse(_L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D, _L.Resizing)
class InterpolationInverse(Inverse):
    """The least-squares inverse of an interpolation, axis by axis.

    For nearest-neighbour upsampling this is the mean over each block.
    """

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
            if getattr(self.layer, name, False):
                raise ValueError(f"expected layer {step} to resize alone, received {name}=True; crop or pad before it")
        if not keras.backend.is_float_dtype(self.layer.compute_dtype):
            raise ValueError(
                f"expected layer {step} to resize in floating point, received dtype {self.layer.compute_dtype}, which "
                "rounds; make it with dtype='float32'"
            )
        spatial = len(self.input_shape) - 1
        self._inverses = [np.linalg.pinv(self._matrix(axis, spatial)) for axis in range(spatial)]

    def _matrix(self, axis: int, spatial: int) -> np.ndarray:
        """What the layer does along one spatial axis, ``(before, after)`` in float64.

        Interpolation is separable and keeps constants: unit steps along this
        axis, a few at a time, show it where the others have one element.
        """
        size = self.input_shape[axis]
        units = np.eye(size, dtype=np.float32).reshape(size, *(size if a == axis else 1 for a in range(spatial)), 1)
        found = [np.asarray(self.layer(units[i : i + 16])) for i in range(0, size, 16)]
        first = (slice(None), *(slice(None) if a == axis else 0 for a in range(spatial)), 0)
        return np.concatenate([part[first] for part in found]).astype(np.float64)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        for axis, matrix in enumerate(self._inverses):
            signal = tf.tensordot(signal, tf.constant(matrix, signal.dtype), axes=[[axis + 1], [0]])
            order = list(range(signal.shape.rank - 1))
            order.insert(axis + 1, signal.shape.rank - 1)
            signal = tf.transpose(signal, order)
        return signal


@register_inverse(_L.Masking)
class MaskingInverse(Inverse):
    """The signal stays where the step is not left out, as behind a ReLU (Eq. 9)."""

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        return (tf.reduce_any(y != 0, axis=-1, keepdims=True),) if self.forward_relu else ()

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return tf.where(record[0], signal, tf.zeros((), signal.dtype)) if self.forward_relu else signal
