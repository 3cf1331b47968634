"""What kind of thing a step does, for the methods that change how a signal passes through it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from . import kernels
from .graph import ModelGraph, Step

_L = keras.layers

KERNEL = "kernel"  # Dense and the convolutions, without bias in mind and without activation
NORMALIZATION = "normalization"  # batch normalisation: one factor and one bias a channel
RECTIFIER = "rectifier"  # 0 below, the input above, perhaps capped: ReLU, relu6
ACTIVATION = "activation"  # any other elementwise function of keras.activations
IDENTITY = "identity"  # nothing at inference
STRUCTURE = "structure"  # moves, drops or copies elements
MAX = "max"  # each output is one of the inputs
AVERAGE = "average"  # each output is a mean over a window of one input
ADD = "add"  # sums and means of several inputs
SUBTRACT = "subtract"
CONCATENATE = "concatenate"
GATE = "gate"  # the product of two tensors, one of which may say how much of the other passes: see gates()

_KINDS: dict[str, tuple[type, ...]] = {
    NORMALIZATION: (_L.BatchNormalization,),
    IDENTITY: (
        _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.AlphaDropout,
        _L.GaussianDropout, _L.GaussianNoise, _L.ActivityRegularization, _L.Identity,
    ),
    STRUCTURE: (
        _L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D,
        _L.Cropping1D, _L.Cropping2D, _L.Cropping3D, _L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D,
    ),
    MAX: (
        *kernels.MAX_POOLINGS, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D,
        _L.Maximum, _L.Minimum,
    ),
    AVERAGE: (
        *kernels.AVERAGE_POOLINGS,
        _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D,
    ),
    ADD: (_L.Add, _L.Average),
    SUBTRACT: (_L.Subtract,),
    CONCATENATE: (_L.Concatenate,),
    GATE: (_L.Multiply,),
}  # fmt: skip
_MERGES = (_L.Add, _L.Average, _L.Subtract, _L.Concatenate, _L.Maximum, _L.Minimum, _L.Multiply)
# keras.ops between layers, by the name of their Operation.
_OPERATIONS = {
    "Add": ADD, "Subtract": SUBTRACT, "Concatenate": CONCATENATE, "Maximum": MAX, "Minimum": MAX, "Multiply": GATE,
}  # fmt: skip
# keras.ops of one tensor.
_STRUCTURAL_OPERATIONS = {"Reshape", "Transpose", "Squeeze", "ExpandDims"}
# Activations whose output says how much of something passes: between 0 and 1.
_GATING = frozenset({"sigmoid", "hard_sigmoid", "softmax"})
_NOT_NEGATIVE = frozenset({"sigmoid", "hard_sigmoid", "softplus", "exponential", "squareplus", "sparse_plus"})


def kind_of(step: Step) -> str | None:
    """The kind of a step; None for what no table here knows."""
    layer = step.layer
    if step.linear:
        return KERNEL
    name = kernels.activation_name(layer)
    if name is not None:
        if rectifies(layer):
            return RECTIFIER
        if name == "linear":
            return IDENTITY
        return ACTIVATION if name in kernels.ELEMENTWISE or name == "sigmoid" else None
    if isinstance(layer, _MERGES) or type(layer).__name__ in _OPERATIONS:
        # A constant among what is merged may be a rectifier, max(x, 0), or make negative what was not.
        given = len(keras.tree.flatten(step.arguments[0]))
        kind = _of_table(layer) if given == len(step.inputs) > 1 else None
        # A product of more tensors has no one gate, and a square is none.
        return None if kind == GATE and not given == len(set(step.inputs)) == 2 else kind
    return _of_table(layer)


def _of_table(layer: Any) -> str | None:
    for kind, types in _KINDS.items():
        for base in types:
            # On to the next: SpatialDropout is a Dropout with a call of its own.
            if isinstance(layer, base) and not kernels.overrides_call(layer, base):
                return kind
    name = type(layer).__name__
    if isinstance(layer, _L.Layer) or not type(layer).__module__.startswith("keras."):
        return None
    if name == "Cast":  # what older Keras puts between layers of mixed precision
        return IDENTITY if "float" in str(layer.dtype) else None
    return STRUCTURE if name in _STRUCTURAL_OPERATIONS else _OPERATIONS.get(name)


def rectifies(layer: Any) -> bool:
    """Whether an activation is 0 up to a threshold of at least 0, and above it its input or a cap."""
    if kernels.activation_name(layer) not in ("relu", "relu6"):
        return False
    # keras.activations.relu called on a tensor has settings as the layer has; keras.ops.relu has none.
    return float(getattr(layer, "negative_slope", 0)) == 0 and float(getattr(layer, "threshold", 0)) >= 0


def not_negative(graph: ModelGraph) -> frozenset[int]:
    """Numbers of the tensors that hold no negative value, whatever the input."""
    known: set[int] = set()
    for step in graph.steps:
        kind = kind_of(step)
        if kind == RECTIFIER or (kind == ACTIVATION and kernels.activation_name(step.layer) in _NOT_NEGATIVE):
            known.add(step.output)
        elif kind in (IDENTITY, STRUCTURE, MAX, AVERAGE, ADD, CONCATENATE) and known.issuperset(step.inputs):
            if not _overshoots(step):
                known.add(step.output)
    return frozenset(known)


def gates(graph: ModelGraph) -> dict[int, int]:
    """Which input of each product of two tensors is its gate, as in squeeze and excitation.

    It is the one that broadcasts to the other's shape, such as one number a
    channel; of two of one shape the one made by a sigmoid, hard sigmoid or
    softmax, perhaps moved since.

    Returns:
        The number of the gate's tensor by the step's index, without the steps
        where neither or both could be it.
    """
    gating: set[int] = set()
    found = {}
    for step in graph.steps:
        kind = kind_of(step)
        if kernels.activation_name(step.layer) in _GATING or (
            kind in (IDENTITY, STRUCTURE) and gating.issuperset(step.inputs)
        ):
            gating.add(step.output)
        if kind == GATE:
            smaller = [n for n in step.inputs if graph.shapes[n] != step.output_shape]
            candidates = smaller or [n for n in step.inputs if n in gating]
            if len(candidates) == 1:
                found[step.index] = candidates[0]
    return found


def first_kernels(graph: ModelGraph, steps: Iterable[Step]) -> list[Step]:
    """The kernel steps that read the input, perhaps moved, padded, or scaled by a batch normalisation.

    Where iNNvestigate only looks through Flatten, Permute and Reshape, a
    ZeroPadding before the first convolution, as in ResNet50, does not hide it.
    """
    through = {graph.input}
    found = []
    for step in steps:
        if not through.issuperset(step.inputs):
            continue
        if kind_of(step) == KERNEL:
            found.append(step)
        elif is_before_kernels(step):
            through.add(step.output)
    return found


def is_before_kernels(step: Step) -> bool:
    """Whether a step leaves the input what it is, moved, padded or scaled."""
    return kind_of(step) in (IDENTITY, STRUCTURE, NORMALIZATION, CONCATENATE) and not _overshoots(step)


def _overshoots(step: Step) -> bool:
    """Whether it interpolates beyond the values that it is given."""
    return getattr(step.layer, "interpolation", "nearest") not in ("nearest", "bilinear")
