"""The fingerprint of version 0.1: a hash that does not depend on some settings, and a test of whether it suffices."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from ..graph import activations, windows
from ..graph.model_graph import ModelGraph, Step

# The settings that change a layer's output and may change neither its weights nor its shapes.
_SETTINGS = (
    "strides", "padding", "dilation_rate", "groups", "pool_size", "dims", "size", "interpolation",
    "max_value", "negative_slope", "threshold", "alpha", "epsilon",
)  # fmt: skip
# Such settings of some layers only, so that the fingerprint of every other model stays as it was before.
_L = keras.layers
_OWN_SETTINGS: dict[tuple[type, ...], tuple[str, ...]] = {
    windows.DEPTHWISE: ("depth_multiplier",),
    windows.TRANSPOSED: ("output_padding",),
    (_L.Rescaling,): ("scale", "offset"),
    (_L.Normalization,): ("axis", "input_mean", "input_variance", "invert"),
    (_L.LayerNormalization, _L.GroupNormalization, _L.UnitNormalization): ("axis",),
    (_L.Resizing,): ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"),
}


# Layers whose every setting that can change an output stands in the hash, in their shapes or in their weights.
_KNOWN = (
    _L.Dense, *windows.CONVOLUTIONS, *windows.DEPTHWISE, *windows.TRANSPOSED, _L.SeparableConv1D, _L.SeparableConv2D,
    *windows.MAX_POOLINGS, *windows.AVERAGE_POOLINGS, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D,
    _L.GlobalMaxPooling3D, _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D, _L.Flatten,
    _L.Reshape, _L.Permute, _L.RepeatVector, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D, _L.UpSampling1D,
    _L.UpSampling2D, _L.UpSampling3D, _L.Rescaling, _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D,
    _L.SpatialDropout3D, _L.GaussianDropout, _L.GaussianNoise, _L.Identity, _L.Add, _L.Subtract, _L.Multiply,
    _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate,
)  # fmt: skip
_MERGES = (_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate)
# Functions without parameters, or with parameters that stand in the hash.
_FUNCTIONS = frozenset(
    {
        "elu", "exponential", "hard_sigmoid", "hard_silu", "leaky_relu", "linear", "mish", "prelu", "relu", "relu6",
        "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
    }
)  # fmt: skip


def suffices(graph: ModelGraph) -> bool:
    """Whether a model with this one's :func:`fingerprint` surely is this one.

    That is so where the hash holds every setting of every layer. It does not
    hold which steps share a layer, nor half precision.
    """
    layers = [id(step.layer) for step in graph.all_steps]
    return len(set(layers)) == len(layers) and all(_is_known(step) for step in graph.all_steps)


def _is_known(step: Step) -> bool:
    layer = step.model_layer
    args, kwargs = step.arguments
    if any(value is not None for key, value in kwargs.items() if key != "training") or step.constants:
        return False
    if getattr(layer, "compute_dtype", "float32") != "float32":
        return False
    name = activations.keras_name(layer)
    if name in ("softmax", "log_softmax"):  # of one axis only
        return len(step.output_shape) == 1
    if not isinstance(layer, _L.Layer):
        return False
    if name is not None:
        return name in _FUNCTIONS
    if not type(layer).__module__.startswith("keras."):
        return False
    if type(layer) is _L.BatchNormalization:
        return layer.center and layer.scale and layer.axis in (-1, layer.input_spec.ndim - 1)
    if type(layer) in _MERGES and len(keras.tree.flatten(args)) != len(step.inputs):
        return False
    own = getattr(layer, "activation", None)  # a step of its own, if it is another than linear
    return type(layer) in _KNOWN and (step.linear or own is None)


def fingerprint(graph: ModelGraph) -> str:
    """The hash of a model's steps and weights that version 0.1 wrote."""
    digest = hashlib.blake2b(digest_size=16)
    for step in graph.all_steps:
        # Not the names: Keras numbers them by what else the process has built.
        names = (type(step.layer).__name__, activations.keras_name(step.layer))
        digest.update(repr((names, step.inputs, step.output_shape, _settings(step))).encode())
    for variable in graph.model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _settings(step: Step) -> list[Any]:
    """The settings of a step as plain Python values, the same for every version of Keras."""
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
