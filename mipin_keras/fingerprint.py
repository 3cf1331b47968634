"""What tells one model from another: a hash of its architecture and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from . import kernels

if TYPE_CHECKING:
    from .graph import Step

# What changes a layer's output and may change neither its weights nor its shapes.
_SETTINGS = (
    "strides", "padding", "dilation_rate", "groups", "pool_size", "dims", "size", "interpolation",
    "max_value", "negative_slope", "threshold", "alpha", "epsilon",
)  # fmt: skip
# Likewise, of some layers: they leave the fingerprint of every other model what it was before.
_L = keras.layers
_OWN_SETTINGS: dict[tuple[type, ...], tuple[str, ...]] = {
    kernels.DEPTHWISE: ("depth_multiplier",),
    kernels.TRANSPOSED: ("output_padding",),
    (_L.Rescaling,): ("scale", "offset"),
    (_L.Normalization,): ("axis", "input_mean", "input_variance", "invert"),
    (_L.LayerNormalization, _L.GroupNormalization, _L.UnitNormalization): ("axis",),
    (_L.Resizing,): ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"),
}


def fingerprint(steps: Iterable[Step], weights: Iterable[Any]) -> str:
    """A hash of a model's steps and weights.

    Args:
        steps: All steps of the model, in topological order.
        weights: Its variables.
    """
    digest = hashlib.blake2b(digest_size=16)
    for step in steps:
        # Not the names: Keras numbers them by what else the process has built.
        kind = (type(step.layer).__name__, kernels.activation_name(step.layer))
        digest.update(repr((kind, step.inputs, step.output_shape, _settings(step))).encode())
    for variable in weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _settings(step: Step) -> list[Any]:
    """What sets a step: plain Python, whatever a version of Keras keeps it as."""
    names = [name for types, own in _OWN_SETTINGS.items() if isinstance(step.layer, types) for name in own]
    own = [_plain(getattr(step.layer, name, None)) for name in names]
    if not isinstance(step.layer, _L.Layer):  # a constant in an operation of keras.ops
        own += [value for value in map(_plain, step.constants) if value is not None]
    return [_plain(getattr(step.layer, name, None)) for name in _SETTINGS] + own


def _plain(setting: Any) -> Any:
    if isinstance(setting, list | tuple):
        return tuple(_plain(entry) for entry in setting)
    if isinstance(setting, int | float | np.number | np.ndarray):
        return np.asarray(setting, float).tolist()
    if hasattr(setting, "shape"):  # a tensor, as a constant of keras.ops
        return _plain(keras.ops.convert_to_numpy(setting))
    return setting if isinstance(setting, str) else None
