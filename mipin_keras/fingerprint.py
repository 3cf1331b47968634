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
# Likewise, of layers that have them: they leave the fingerprint of every other model what it was before.
_OWN_SETTINGS = ("depth_multiplier", "output_padding")


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
        digest.update(repr((kind, step.inputs, step.output_shape, _settings(step.layer))).encode())
    for variable in weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _settings(layer: Any) -> list[Any]:
    """A layer's settings: plain Python, whatever a version of Keras keeps them as."""
    own = [(name, _plain(getattr(layer, name))) for name in _OWN_SETTINGS if getattr(layer, name, None) is not None]
    return [_plain(getattr(layer, name, None)) for name in _SETTINGS] + own


def _plain(setting: Any) -> Any:
    if isinstance(setting, list | tuple):
        return tuple(_plain(entry) for entry in setting)
    if isinstance(setting, int | float | np.number | np.ndarray):
        return np.asarray(setting, float).tolist()
    return setting if isinstance(setting, str) else None
