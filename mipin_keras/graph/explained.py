"""What is explained instead of an output neuron: a target, and the steps at the end of the graph that make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from .reading import Reader, structure_of
from .steps import Step, TensorId

_L = keras.layers
# What lies between a layer with weights and the logits, and does to each channel the same.
_CHANNELWISE = (
    _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D, _L.Dropout, _L.Identity,
)  # fmt: skip
_CONVOLUTIONS = (_L.Conv1D, _L.Conv2D, _L.Conv3D)


@dataclasses.dataclass(frozen=True)
class Target:
    """One number a sample, made of a model's outputs.

    Attributes:
        function: From the output ``(n, ...)``, or the structure of outputs
            that the model gives, to ``(n,)``.
        of_logits: Whether it is given the output without a final softmax or
            sigmoid; else the model's own output.
        weights: Where it is a weighted sum of output neurons: from their
            number to a weight for each, float32 ``(units,)``.
        about: What it is, for files: JSON; None for a function of the user's.
    """

    function: Callable[[Any], Any]
    of_logits: bool
    weights: Callable[[int], np.ndarray] | None = None
    about: Any = None

    #: For messages and reports.
    name: ClassVar[str] = "target"


class TargetValue:
    """What the last step calls: a target's function, on the outputs as the model gives them.

    Args:
        target: The target.
        heads: For each output, the steps that make it of the logits.
        structure: The model's outputs, for their structure; None for one tensor.
    """

    def __init__(self, target: Target, heads: Sequence[Sequence[Step]], structure: Any = None):
        self.target, self.heads, self.structure = target, heads, structure
        self.name = target.name

    def __call__(self, *logits: tf.Tensor) -> tf.Tensor:
        outputs = []
        for tensor, head in zip(logits, self.heads, strict=True):
            for step in head:
                tensor = step({step.inputs[0]: tensor} | dict.fromkeys(step.masks.values()))
            outputs.append(tensor)
        given = outputs[0] if self.structure is None else keras.tree.pack_sequence_as(self.structure, list(outputs))
        value = tf.convert_to_tensor(self.target.function(given))
        n = outputs[0].shape[0]
        if value.shape.rank != 1 or (value.shape[0] is not None and n is not None and value.shape[0] != n):
            raise ValueError(
                f"expected target to return one number a sample, (batch,), received {tuple(value.shape)}; let it "
                "reduce every axis but the first, as lambda y: keras.ops.mean(y[:, 20:30, 20:30, 3], axis=(1, 2))"
            )
        if not value.dtype.is_floating:
            raise ValueError(
                f"expected target to return floating-point numbers, received {value.dtype.name}, which has no "
                "gradient; leave out comparisons and argmax"
            )
        return value[:, None]


class _Combined:
    """A layer with one output channel, the weighted sum of another's; it reads that one's variables as they are.

    Attributes:
        combined_layer: The other layer.
        combination: The weight of each of its channels, float32 ``(channels,)``.
    """

    combined_layer: Any
    combination: np.ndarray

    @property
    def kernel(self) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.combined_layer.kernel)
        return tf.tensordot(kernel, tf.constant(self.combination[:, None], kernel.dtype), 1)

    @property
    def bias(self) -> tf.Tensor | None:
        if not self.combined_layer.use_bias:
            return None
        bias = tf.convert_to_tensor(self.combined_layer.bias)
        return tf.tensordot(bias, tf.constant(self.combination[:, None], bias.dtype), 1)

    @bias.setter
    def bias(self, value: Any) -> None:
        """Keras sets None where a layer is made."""

    @property
    def weights(self) -> list[Any]:
        return self.combined_layer.weights


class _CombinedDense(_Combined, keras.layers.Dense):
    pass


class _Combined1D(_Combined, keras.layers.Conv1D):
    pass


class _Combined2D(_Combined, keras.layers.Conv2D):
    pass


class _Combined3D(_Combined, keras.layers.Conv3D):
    pass


class _WeightedSum(keras.layers.Dense):
    """A Dense layer of fixed weights, without bias."""

    def __init__(self, weights: np.ndarray, name: str):
        super().__init__(1, use_bias=False, name=name, trainable=False)
        self.fixed = weights[:, None]

    @property
    def kernel(self) -> tf.Tensor:
        return tf.constant(self.fixed)


def append(reader: Reader, target: Target, ends: Sequence[int], heads: Sequence[Sequence[Step]], model: Any) -> int:
    """Append the steps that make a target's value.

    A weighted sum of logits becomes what it would be in a network trained for
    it: one neuron whose weights are the weighted sum of theirs. So a rule that
    tells positive from negative weights does so for the sum.

    Args:
        reader: Of the model; the steps are appended to its.
        target: The target.
        ends: Ids of the tensors it reads: the outputs, or their logits.
        heads: For each, the steps that make the output of the logits.
        model: The model, for the structure of its outputs; None where one tensor is read.

    Returns:
        Id of its value's tensor, ``(batch, 1)``.

    Raises:
        ValueError: If the target does not fit the outputs, or returns anything
            but one number a sample.
    """
    if target.weights is not None:
        shape = reader.shapes[ends[0]]
        if len(shape) != 1 or shape[0] is None:
            raise ValueError(
                f"expected an output of shape (batch, units) for this target, received (batch, "
                f"{', '.join(map(str, shape))}); give an index with a number for each axis, such as (row, column, "
                "class), or targets.segmentation(mask, unit)"
            )
        weights = target.weights(shape[0])
        found = _combined(reader, ends[0], weights)
        if found is None:
            spec = keras.KerasTensor((None, 1), reader.dtypes[ends[0]])
            read: Any = ((TensorId(ends[0]),), {})
            layer = _WeightedSum(weights, target.name)
            found = reader.add(layer, reader.unique(target.name), True, [ends[0]], spec, read)
        return found
    output = None if model is None or target.of_logits else structure_of(model, "output")
    # A model of one output in a list gives a tensor, one of a dict a dict.
    structure = output if isinstance(output, dict) or len(ends) > 1 else None
    value = TargetValue(target, heads, structure)
    _try(reader, value, ends)
    arguments: Any = (tuple(TensorId(n) for n in ends), {})
    spec = keras.KerasTensor((None, 1), "float32")
    return reader.add(value, reader.unique(target.name), False, list(ends), spec, arguments)


def _try(reader: Reader, value: TargetValue, ends: Sequence[int]) -> None:
    """Call a target once on symbolic outputs, so that what it does wrong is said before any work."""
    specs = [tf.TensorSpec((None, *reader.shapes[n]), reader.dtypes[n]) for n in ends]
    tf.function(lambda *outputs: value(*outputs), autograph=False).get_concrete_function(*specs)


def _combined(reader: Reader, tensor_id: int, weights: np.ndarray) -> int | None:
    """Append one channel that is the weighted sum of a tensor's; None if the layers behind it do not allow it."""
    step = next((step for step in reader.steps if step.output == tensor_id), None)
    if step is None:
        return None
    if (
        isinstance(step.layer, _CHANNELWISE)
        and len(step.inputs) == 1
        and len(step.output_shape) <= len(step.input_shape)
    ):
        below = _combined(reader, step.inputs[0], weights)
        if below is None:
            return None
        return _again(reader, step, step.layer, below)
    if not step.linear:
        return None
    layer = _one_channel(step.layer, weights)
    return None if layer is None else _again(reader, step, layer, step.inputs[0])


def _again(reader: Reader, step: Step, layer: Any, reads: int) -> int:
    """Append a step once more, with one channel and another input."""
    spec = keras.KerasTensor((None, *step.output_shape[:-1], 1), reader.dtypes[step.output])
    arguments = keras.tree.map_structure(
        lambda leaf: TensorId(reads) if leaf == TensorId(step.inputs[0]) else leaf, step.arguments
    )
    masks = dict.fromkeys((reads,), *step.masks.values()) if step.masks else {}
    name = reader.unique(f"{step.name}/target")
    return reader.add(layer, name, step.linear, [reads], spec, arguments, masks=masks)


def _one_channel(layer: Any, weights: np.ndarray) -> Any:
    """A layer with one output channel, the weighted sum of those of ``layer``; None for other layers."""
    shared = {"use_bias": layer.use_bias, "dtype": layer.dtype_policy, "name": f"{layer.name}_target"}
    made: Any
    if isinstance(layer, _L.Dense):
        made = _CombinedDense(1, **shared)
    elif isinstance(layer, _CONVOLUTIONS) and not hasattr(layer, "separable_layer") and layer.groups == 1:
        kind = {1: _Combined1D, 2: _Combined2D, 3: _Combined3D}[layer.rank]
        made = kind(
            1, layer.kernel_size, strides=layer.strides, padding=layer.padding, dilation_rate=layer.dilation_rate,
            **shared,
        )  # fmt: skip
    else:
        return None
    made.combined_layer, made.combination = layer, np.asarray(weights, np.float32)
    return made
