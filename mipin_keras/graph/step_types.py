"""Step types: what a step does, as far as the methods need to know it to carry a signal back through it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from . import activations, linear, windows
from .model_graph import ModelGraph, Step

_L = keras.layers

KERNEL = "kernel"  # Dense and the convolutions, without bias in mind and without activation
NORMALIZATION = "normalization"  # batch normalisation: one factor and one bias a channel
AFFINE = "affine"  # one factor and one offset an element, whatever the sample, and no weights to learn
STANDARDIZATION = "standardization"  # by statistics of the sample itself: layer normalisation and its kin
RECTIFIER = "rectifier"  # 0 below, the input above, perhaps capped: ReLU, relu6
ACTIVATION = "activation"  # any other elementwise function of keras.activations
IDENTITY = "identity"  # nothing at inference
STRUCTURE = "structure"  # moves, drops or copies elements, or mixes them by weights that only the shapes tell
MAX = "max"  # each output is one of the inputs
AVERAGE = "average"  # each output is a mean over a window of one input
SUM = "sum"  # each output is a sum over axes of one input
ADD = "add"  # sums and means of several inputs
SUBTRACT = "subtract"
CONCATENATE = "concatenate"
GATE = "gate"  # the product of two tensors, one of which may be how much of the other passes: see gates()

#: All of them.
ALL = (
    KERNEL, NORMALIZATION, AFFINE, STANDARDIZATION, RECTIFIER, ACTIVATION, IDENTITY, STRUCTURE, MAX, AVERAGE, SUM, ADD,
    SUBTRACT, CONCATENATE, GATE,
)  # fmt: skip

# Layers that return their input at inference, as a test makes sure of. Not every version of Keras has all.
AUGMENTATIONS: tuple[type, ...] = tuple(
    getattr(_L, name)
    for name in (
        "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter",
        "RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur",
        "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
        "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization",
    )
    if hasattr(_L, name)
)  # fmt: skip
_LAYER_TYPES: dict[str, tuple[type, ...]] = {
    NORMALIZATION: (_L.BatchNormalization,),
    AFFINE: (_L.Rescaling, _L.Normalization),
    STANDARDIZATION: linear.STANDARDIZATIONS,
    IDENTITY: (
        _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.AlphaDropout,
        _L.GaussianDropout, _L.GaussianNoise, _L.ActivityRegularization, _L.Identity, *AUGMENTATIONS,
    ),
    STRUCTURE: (
        _L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D,
        _L.Cropping1D, _L.Cropping2D, _L.Cropping3D, _L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D,
        _L.Resizing, _L.CenterCrop, _L.Masking,
    ),
    MAX: (
        *windows.MAX_POOLINGS, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D,
        _L.Maximum, _L.Minimum,
    ),
    AVERAGE: (
        *windows.AVERAGE_POOLINGS,
        _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D,
    ),
    ADD: (_L.Add, _L.Average),
    SUBTRACT: (_L.Subtract,),
    CONCATENATE: (_L.Concatenate,),
    GATE: (_L.Multiply,),
}  # fmt: skip
_MERGES = (_L.Add, _L.Average, _L.Subtract, _L.Concatenate, _L.Maximum, _L.Minimum, _L.Multiply)
# keras.ops between layers, by the name of their Operation: of several tensors, and of one.
_MERGING = {
    "Add": ADD, "Subtract": SUBTRACT, "Concatenate": CONCATENATE, "Stack": CONCATENATE, "Maximum": MAX,
    "Minimum": MAX, "Multiply": GATE,
}  # fmt: skip
_SINGLE = {
    "Reshape": STRUCTURE, "Transpose": STRUCTURE, "Squeeze": STRUCTURE, "ExpandDims": STRUCTURE, "Pad": STRUCTURE,
    "Mean": AVERAGE, "Sum": SUM, "Max": MAX, "Amax": MAX, "Min": MAX, "Amin": MAX, "Negative": AFFINE,
    "Flip": STRUCTURE, "Split": STRUCTURE, "Unstack": STRUCTURE,
}  # fmt: skip
# And of one tensor and a constant.
_AFFINE = frozenset({"Add", "Subtract", "Multiply", "Divide", "TrueDivide"})
# Activations whose output, between 0 and 1, is a share of something that passes.
_GATING = frozenset({"sigmoid", "hard_sigmoid", "softmax"})
_NOT_NEGATIVE = frozenset({"sigmoid", "hard_sigmoid", "softplus", "exponential", "squareplus", "sparse_plus"})


def of(step: Step) -> str | None:
    """The step type of a step; None for a step that no table here knows."""
    layer = step.layer
    if step.linear:
        return KERNEL
    if len(step.signal_inputs) != len(set(step.inputs)) and not isinstance(layer, _L.GlobalAveragePooling1D):
        return None  # it reads tokens or a mask too; of these only the masked mean is linear in what it averages
    name = activations.activation_name(layer)
    if name is not None:
        if len(step.inputs) != 1:  # a Lambda layer may stack what it is given
            return None
        if rectifies(layer):
            return RECTIFIER
        if name == "linear":
            return IDENTITY
        return ACTIVATION if name in activations.ELEMENTWISE or name == "sigmoid" else None
    step_type = _of_layer(step) if isinstance(layer, _L.Layer) else _of_operation(step)
    if step.part is not None and step_type not in (STRUCTURE, IDENTITY):
        return None  # one of several outputs, which the tables do not know
    return step_type if step_type is None or _per_sample(step) else None


def _of_layer(step: Step) -> str | None:
    layer: Any = step.layer
    step_type = _of_table(layer)
    if isinstance(layer, _MERGES):
        # A constant among what is merged may be a rectifier, max(x, 0), or make negative what was not.
        given = len(keras.tree.flatten(step.arguments[0]))
        return _of_merge(step, step_type) if given == len(step.inputs) else None
    if isinstance(layer, AUGMENTATIONS):
        # Exactly these: a subclass may change any of their methods. A crop to another size is none of them.
        same = type(layer) in AUGMENTATIONS and step.input_shape == step.output_shape
        return step_type if same and _floats(step.layer.compute_dtype) else None
    if isinstance(layer, _L.Resizing | _L.CenterCrop):
        return step_type if _floats(layer.compute_dtype) and not getattr(layer, "fill_value", 0) else None
    return None if getattr(layer, "rms_scaling", False) else step_type


def _of_operation(step: Step) -> str | None:
    layer, name, constants = step.layer, type(step.layer).__name__, step.constants
    if not type(layer).__module__.startswith("keras."):
        return None
    if name == "GetItem":
        return STRUCTURE if _keeps_batch(step) else None
    if name == "Cast":  # what older Keras puts between layers of mixed precision
        return IDENTITY if _floats(layer.dtype) else None
    if len(step.inputs) > 1:
        aligned = len({len(shape) for shape in step.input_shapes}) == 1  # else one's batch is another's axis
        return _of_merge(step, _MERGING.get(name)) if aligned and not constants else None
    if name in _AFFINE:
        return AFFINE if _is_affine(step, constants) else None
    if name == "Pad":
        nothing = layer.mode == "constant" and all(_is_number(value) and value == 0 for value in constants)
        return STRUCTURE if nothing and len(layer.pad_width) > 1 and not any(layer.pad_width[0]) else None
    if name == "Transpose":
        return STRUCTURE if layer.axes is not None and layer.axes[0] == 0 else None
    if name == "Reshape":  # with as many elements a sample as before, the batch is what it was
        known = None not in (*step.input_shape, *step.output_shape)
        return STRUCTURE if known and math.prod(step.input_shape) == math.prod(step.output_shape) else None
    return _SINGLE.get(name) if not constants and getattr(layer, "initial", None) is None else None


def _of_merge(step: Step, step_type: str | None) -> str | None:
    different = len(set(step.inputs))
    # A product of more tensors has no one gate, and a square is none.
    return step_type if len(step.inputs) > 1 and (step_type != GATE or len(step.inputs) == different == 2) else None


def _is_affine(step: Step, constants: list[Any]) -> bool:
    """Whether an operation of a tensor and a constant is linear, and the same for every sample."""
    given = keras.tree.flatten(step.arguments[0])
    if len(constants) != 1 or len(given) != 2 or step.input_shape != step.output_shape:
        return False
    if "Divide" in type(step.layer).__name__ and given[0] is constants[0]:
        return False
    shape = tuple(getattr(constants[0], "shape", ()))
    batch = len(step.input_shape) + 1
    return (_is_number(constants[0]) or bool(shape)) and (len(shape) < batch or shape[0] == 1)


def _keeps_batch(step: Step) -> bool:
    """Whether an indexing takes all samples, and what it takes of them is fixed."""
    args, kwargs = step.arguments
    key = kwargs["key"] if "key" in kwargs else args[1]
    parts = key if isinstance(key, tuple) else (key,)
    fixed = all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts)
    first = parts[0] if parts else Ellipsis
    return (
        fixed and (first is Ellipsis or first == slice(None)) and (first is not Ellipsis or _reaches_short(step, parts))
    )


def _reaches_short(step: Step, parts: tuple) -> bool:
    """Whether what stands behind an ellipsis does not come as far as the batch axis."""
    return sum(part is not None for part in parts[1:]) <= len(step.input_shape)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _floats(dtype: Any) -> bool:
    return "float" in str(dtype)


def _per_sample(step: Step) -> bool:
    """Whether what a step does along axes of its choice, it does not along the batch's."""
    name = type(step.layer).__name__
    if not hasattr(step.layer, "axis"):
        return True
    rank = len(step.input_shape) + (2 if name in ("ExpandDims", "Stack") else 1)
    axes = keras.tree.flatten(step.layer.axis)
    return None not in axes and all(axis % rank != 0 for axis in axes)


def _of_table(layer: Any) -> str | None:
    for step_type, types in _LAYER_TYPES.items():
        for base in types:
            # On to the next: SpatialDropout is a Dropout with a call of its own.
            if isinstance(layer, base) and not activations.overrides_call(layer, base):
                return step_type
    return None


def rectifies(layer: Any) -> bool:
    """Whether an activation is 0 up to a threshold of at least 0, and above it its input or a cap."""
    name = activations.activation_name(layer)
    if name == "rectifier":
        return True
    if name not in ("relu", "relu6"):
        return False
    # keras.activations.relu called on a tensor has settings as the layer has; keras.ops.relu has none.
    return float(getattr(layer, "negative_slope", 0)) == 0 and float(getattr(layer, "threshold", 0)) >= 0


def not_negative(graph: ModelGraph) -> frozenset[int]:
    """Ids of the tensors that hold no negative value, whatever the input."""
    known: set[int] = set()
    for step in graph.steps:
        step_type = of(step)
        if step_type == RECTIFIER or (
            step_type == ACTIVATION and activations.activation_name(step.layer) in _NOT_NEGATIVE
        ):
            known.add(step.output)
        elif step_type in (IDENTITY, STRUCTURE, MAX, AVERAGE, SUM, ADD, CONCATENATE) and known.issuperset(step.inputs):
            if not _overshoots(step):
                known.add(step.output)
    return frozenset(known)


def gates(graph: ModelGraph) -> dict[int, int]:
    """Which input of each product of two tensors is its gate, as in squeeze and excitation.

    It is the one that broadcasts to the other's shape, such as one number a
    channel; of two of one shape the one made by a sigmoid, hard sigmoid or
    softmax, perhaps moved since.

    Returns:
        The id of the gate's tensor by the step's index, without the steps
        where neither or both could be it.
    """
    gating: set[int] = set()
    found = {}
    for step in graph.steps:
        step_type = of(step)
        if activations.activation_name(step.layer) in _GATING or (
            step_type in (IDENTITY, STRUCTURE) and gating.issuperset(step.inputs)
        ):
            gating.add(step.output)
        if step_type == GATE:
            smaller = [n for n in step.inputs if graph.shapes[n] != step.output_shape]
            candidates = smaller or [n for n in step.inputs if n in gating]
            if len(candidates) == 1:
                found[step.index] = candidates[0]
    return found


def unknown(graph: ModelGraph, steps: Iterable[Step]) -> list[Step]:
    """Those of ``steps`` that no table here knows, and the products of which neither input is clearly the gate."""
    gated = gates(graph)
    types = [(step, of(step)) for step in steps]
    return [step for step, found in types if found is None or (found == GATE and step.index not in gated)]


def first_kernel_steps(graph: ModelGraph, steps: Iterable[Step]) -> list[Step]:
    """The kernel steps that read the input, perhaps moved, padded, or scaled by constants or a batch normalisation.

    Where iNNvestigate goes through Flatten, Permute and Reshape only, a
    ZeroPadding before the first convolution, as in ResNet50, does not hide it.
    """
    through = set(graph.inputs) | set(graph.starts())
    found = []
    for step in steps:
        if not through.issuperset(step.inputs):
            continue
        if of(step) == KERNEL:
            found.append(step)
        elif keeps_input(step):
            through.add(step.output)
    return found


def keeps_input(step: Step) -> bool:
    """Whether a step leaves the input what it is, moved, padded or scaled."""
    return of(step) in (IDENTITY, STRUCTURE, NORMALIZATION, AFFINE, CONCATENATE) and not _overshoots(step)


def _overshoots(step: Step) -> bool:
    """Whether it interpolates beyond the values that it is given."""
    return getattr(step.layer, "interpolation", "nearest") not in ("nearest", "bilinear")
