"""Inverses of steps that merge several tensors, and of a tensor that several steps read."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...graph import linear
from ...graph.model_graph import Step
from ..inverse import Inverse, LearnedInverse, Record, Weights, register_merge
from ..ridge import ChannelRidge, Regression, Ridge
from .dense import PerChannel, multiplied, rows_at

_L = keras.layers

# A gate g hands on y = x g; back goes y g / (g² + GATE²), which is y / g up to
# (GATE / g)² of it, and nothing where the gate is shut.
GATE = 1e-3


class _Merge(Inverse):
    """What inverts a step with several different inputs ``self.tensor_ids``."""

    merges = True

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.tensor_ids = step.signal_inputs
        self.shapes = [step.input_shapes[step.inputs.index(tensor_id)] for tensor_id in self.tensor_ids]

    def _need_one_shape(self) -> None:
        if any(shape != self.output_shape for shape in self.shapes):
            raise ValueError(
                f"expected layer {self.step} to merge tensors of one shape, received {self.shapes}, which MIP-IN "
                "cannot invert, as broadcasting mixes positions; stop the explanation above it with input_layer="
            )


@register_merge(_L.Add, _L.Subtract, _L.Average, operations=("Add", "Subtract"))
class SumInverse(_Merge, LearnedInverse):
    """``y = c₁ x₁ + ... + c_k x_k``: a 1x1 ridge regression from the signal to each input but the last.

    The last gets what is left, ``(S - c₁ x₁ - ...) / c_k``, so that the
    reconstructions sum to the signal, and so do the attributions.
    """

    sampled = True

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self._need_one_shape()
        self.factors = linear.coefficients(step)
        if 0 in self.factors:
            raise ValueError(
                f"expected different tensors, received layer {step}, which subtracts a tensor from itself; leave it out"
            )
        # Of one tensor, such as Add([x, x]), there is nothing to learn.
        self.learned = len(self.tensor_ids) > 1
        channels = self.output_shape[-1]
        self.positions = math.prod(self.output_shape[:-1])
        others = (len(self.tensor_ids) - 1) * channels
        self.weight_shapes = ((channels, others), (others,))

    def regression(self) -> Regression:
        features, targets = self.weight_shapes[0]
        return Ridge(features, targets)

    def target(self, x: Any) -> tf.Tensor:
        return tf.concat(x[:-1], axis=-1)

    def reconstruction(self, source: Any) -> tf.Tensor:
        return tf.concat(source[:-1], axis=-1)

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        return rows_at(signal, positions, signal.shape[-1])[None], rows_at(x, positions, x.shape[-1])[None]

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel[0], bias[0]

    def attribution(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._shared(signal, weights[0], None) if weights else self._shared(signal, None, None)

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._shared(signal, *weights) if weights else self._shared(signal, None, None)

    def _shared(self, signal: tf.Tensor, kernel: tf.Tensor | None, bias: tf.Tensor | None) -> tuple[tf.Tensor, ...]:
        parts: list[tf.Tensor] = []
        if kernel is not None:
            joint = multiplied(signal, kernel)
            parts = tf.split(joint if bias is None else joint + bias, len(self.tensor_ids) - 1, axis=-1)
        rest = signal
        for factor, part in zip(self.factors, parts, strict=False):
            rest -= factor * part
        return (*parts, rest / self.factors[-1])


@register_merge(_L.Maximum, _L.Minimum, operations=("Maximum", "Minimum"))
class ExtremeInverse(_Merge):
    """The signal goes to each input where it is the extreme, as in max pooling (Eq. 8); equal ones all get it."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self._need_one_shape()

    def record(self, x: Any, y: tf.Tensor) -> Record:
        return tuple(tensor == y for tensor in x)

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        return tuple(tf.where(chosen, signal, tf.zeros((), signal.dtype)) for chosen in record)


@register_merge(_L.Concatenate, operations=("Concatenate",))
class ConcatenateInverse(_Merge):
    """Each input takes its own part; one that stands there several times their mean."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        axis = getattr(self.layer, "axis", -1)
        self.axis = axis if axis >= 0 else axis + len(self.output_shape) + 1
        if self.axis == 0:
            raise ValueError(
                f"expected layer {step} to join features, received one that joins samples, which MIP-IN cannot invert; "
                "join features instead"
            )

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        parts = tf.split(signal, [shape[self.axis - 1] for shape in self.step.input_shapes], axis=self.axis)
        own = [
            [p for p, n in zip(parts, self.step.inputs, strict=True) if n == tensor_id] for tensor_id in self.tensor_ids
        ]
        return tuple(tf.add_n(copies) / len(copies) for copies in own)


@register_merge(_L.Multiply, operations=("Multiply",))
class GateInverse(_Merge, PerChannel):
    """``y = x g`` with a gate g, as in squeeze and excitation: the gate is taken from the forward pass, like a mask.

    The signal over the gate, then a ridge regression a channel. What makes
    the gate gets no signal. Without ``forward_relu`` the gate is not used
    either.
    """

    def __init__(self, step: Step, *, gate: int | None = None, **options: Any):
        super().__init__(step, **options)
        if gate is None or len(step.inputs) != 2 or len(self.tensor_ids) != 2:
            raise ValueError(
                "expected a product with a gate (a tensor that a sigmoid makes, or that broadcasts over space), "
                f"received layer {step}, which multiplies tensors none of which is known as a gate; write an inverse "
                f"and register it with @mipin_keras.register_inverse({type(self.layer).__name__})"
            )
        self.gate = self.tensor_ids.index(gate)
        if self.shapes[1 - self.gate] != self.output_shape:
            raise ValueError(
                f"expected layer {step} to gate a tensor of its output's shape, received {self.shapes}; stop the "
                "explanation above it with input_layer="
            )
        self.over(self.output_shape)

    def carries(self, tensor_ids: tuple[int, ...]) -> tuple[int | None, ...]:
        return tuple(None if position == self.gate else tensor_id for position, tensor_id in enumerate(tensor_ids))

    def record(self, x: Any, y: tf.Tensor) -> Record:
        return (x[self.gate],) if self.forward_relu else ()

    def target(self, x: Any) -> tf.Tensor:
        return x[1 - self.gate]

    def reconstruction(self, source: Any) -> tf.Tensor:
        return source[1 - self.gate]

    def features(self, signal: tf.Tensor, record: Record) -> tf.Tensor:
        if not record:
            return signal
        gate = tf.cast(record[0], signal.dtype)
        return signal * (gate / (gate * gate + GATE**2))

    def _placed(self, found: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        return (None, found) if self.gate == 0 else (found, None)

    def attribution(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._placed(self.features(signal, record) * weights[0])

    def source(self, signal: Any, record: Record, weights: Weights) -> Any:
        return self._placed(self.features(signal, record) * weights[0] + weights[1])


class FanOutInverse(LearnedInverse):
    """A tensor that several steps read: a ridge regression merges what their inverses make of it.

    With ``merge="channel"`` a channel of the tensor is a sum of that channel
    of the reconstructions, each with a weight; with ``"full"`` of all
    channels of them.

    Args:
        shape: Of the tensor, without the batch axis.
        count: How many signals arrive.
        name: Of what makes the tensor, for messages.
    """

    sampled = True

    def __init__(self, shape: tuple[int, ...], count: int, name: str, *, merge: str = "channel", **options: Any):
        if None in shape:
            raise ValueError(
                f"expected the output of {name!r}, which several layers read, to have a static shape, received "
                f"{shape}; build the model with a fixed keras.Input shape"
            )
        self.input_shape = self.output_shape = shape
        self.forward_relu = options.get("forward_relu", True)
        self.count, self.full = count, merge == "full"
        channels = shape[-1]
        self.positions = math.prod(shape[:-1])
        self.weight_shapes = ((count, channels, channels) if self.full else (count, channels), (channels,))

    def regression(self) -> Regression:
        channels = self.output_shape[-1]
        return Ridge(self.count * channels, channels) if self.full else ChannelRidge(self.count, channels)

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        targets, *parts = (rows_at(tensor, positions, x.shape[-1]) for tensor in (x, *signal))
        return (tf.concat(parts, axis=1)[None], targets[None]) if self.full else (parts, targets)

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        channels = self.output_shape[-1]
        weights = kernel.reshape(self.count, channels, channels) if self.full else kernel[:, :, 0].T
        return weights, bias.reshape(channels)

    def attribution(self, signal: Any, record: Record, weights: Weights) -> tf.Tensor:
        pairs = zip(signal, tf.unstack(weights[0], self.count), strict=True)
        return tf.add_n([multiplied(part, w) if self.full else part * w for part, w in pairs])

    def source(self, signal: Any, record: Record, weights: Weights) -> tf.Tensor:
        return self.attribution(signal, record, weights) + weights[1]
