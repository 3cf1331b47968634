"""A neuron's pattern: which outputs and which entries of a kernel are its, and the sums that it is made of."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import numpy as np
import tensorflow as tf

from ...graph import linear, step_types, windows
from ...graph.linear import LinearPart
from ...graph.model_graph import Step

#: The step types whose neurons have patterns to learn.
LEARNED = (step_types.KERNEL, step_types.ADD, step_types.SUBTRACT)


def is_known(step: Step) -> bool:
    """Whether it is clear which entries of its kernel each output of a step of the types :data:`LEARNED` reads."""
    if isinstance(step.layer, windows.TRANSPOSED):  # with strides, an output's position tells
        return None not in step.output_shape or set(step.layer.strides) == {1}
    aligned = {len(shape) for shape in step.input_shapes} == {len(step.output_shape)}
    return step.linear or (aligned and step.output_shape[-1] is not None)


def linear_part(step: Step, dtype: Any, wide: bool = False) -> LinearPart:
    """A step with patterns to learn as ``apply(x, kernel) + bias``; ``x`` is a tuple of its different inputs.

    In float32 at least with ``wide``. A merge's neuron is one channel: its kernel has the shape ``(different
    inputs, channels)``.
    """
    if step.linear:
        part = linear.linear_part(step.layer, wide)
        return part._replace(apply=lambda x, kernel: part.apply(x[0], kernel))
    kernel = tf.tile(tf.constant(linear.coefficients(step), dtype)[:, None], [1, step.output_shape[-1]])

    def apply(x: tuple[tf.Tensor, ...], kernel: tf.Tensor) -> tf.Tensor:
        return functools.reduce(operator.add, [one * kernel[k] for k, one in enumerate(x)])

    return LinearPart(apply, kernel, tf.zeros((), kernel.dtype))


class Neurons:
    """Which outputs and which entries of the kernel belong to one neuron of a step.

    A neuron is an output channel. Of a transposed convolution with strides it
    is a channel and a *phase*: where an output lies between the steps of the
    stride tells which entries of the kernel it reads.

    Args:
        step: Of one of the types :data:`LEARNED`.

    Attributes:
        shape: The kernel's.
    """

    def __init__(self, step: Step):
        layer = step.layer
        self.shape = tuple(layer.kernel.shape) if step.linear else (len(set(step.inputs)), step.output_shape[-1])
        self.strides: tuple[int, ...] = ()
        self._kept: tuple[int, ...] = (-1,)
        if isinstance(layer, windows.DEPTHWISE):
            self._kept = (-2, -1)
        elif isinstance(layer, windows.TRANSPOSED):
            self._kept = (-2,)
            if any(stride > 1 for stride in layer.strides):
                self.strides = tuple(layer.strides)
                geometry = windows.windows_of(layer, step.input_shape, step.output_shape)
                axes = zip(geometry.inputs, geometry.lows, self.strides, strict=True)
                at = [(np.arange(size) + low) % stride for size, low, stride in axes]
                self._phases = np.ravel_multi_index(np.meshgrid(*at, indexing="ij"), self.strides).ravel()
        self.totals: list[np.ndarray] | None = None

    def total(self, y: tf.Tensor) -> tf.Tensor:
        """The sum over the outputs ``(n, *output shape)`` of each neuron: float64 ``(phases, channels)``."""
        y = tf.cast(y, tf.float64)
        if not self.strides:
            return tf.reduce_sum(y, list(range(y.shape.rank - 1)))[None]
        positions = tf.reshape(tf.reduce_sum(y, 0), [-1, y.shape[-1]])
        return tf.math.unsorted_segment_sum(positions, self._phases, int(np.prod(self.strides)))

    def add(self, *found: np.ndarray) -> None:
        """One batch: totals of y, of 1 and of the mask; x times the mask, and x times the mask times (y - shift)."""
        if self.totals is None:
            self.totals = [np.array(new, np.float64) for new in found]
        else:
            for total, new in zip(self.totals, found, strict=True):
                total += new

    def pattern(self, kernel: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """``cov / (wᵀ cov)`` a neuron, float32 of the kernel's shape.

        ``cov = E₊[x y] - E₊[x] E[y]``: E₊ over the samples of the mask, E over
        all. The shift of y, near its mean, changes nothing but the rounding.

        Args:
            kernel: The step's, w.
            shift: What was taken from y, one number a channel.
        """
        y, count, active, x, xy = self.totals or []
        found = np.empty(self.shape, np.float32)
        steps = self.strides or (1,)
        for phase, first in enumerate(itertools.product(*map(range, steps))):
            # the entries that one phase reads: every stride's, as Keras has no strides together with dilation
            where = tuple(slice(a, None, s) for a, s in zip(first, steps, strict=True))
            some = np.maximum(self._wide(active[phase]), 1)
            mean = self._wide(y[phase] / np.maximum(count[phase], 1) - shift)
            covariance = xy[where] / some - x[where] / some * mean
            axes = tuple(axis for axis in range(-kernel.ndim, 0) if axis not in self._kept)
            along = (kernel[where] * covariance).sum(axis=axes, keepdims=True)
            found[where] = covariance / np.where(along == 0, 1, along)
        return found

    def _wide(self, of_channels: np.ndarray) -> np.ndarray:
        """A number a channel, in a shape that broadcasts to the kernel."""
        rank = len(self.shape)
        return of_channels.reshape([self.shape[axis] if axis in self._kept else 1 for axis in range(-rank, 0)])


def batch_sums(step: Step, inputs: list[tf.Tensor], shift: tf.Tensor, pattern_type: str) -> list[tf.Tensor]:
    """What :class:`Neurons` add up over the data, of one batch.

    Args:
        step: Of one of the types :data:`LEARNED`.
        inputs: Its different inputs, ``(n, ...)`` each.
        shift: Near the mean of each channel of its output, ``(channels,)``.
        pattern_type: See :class:`~.analyzer.PatternNet`.

    Returns:
        float64, as :meth:`Neurons.add` takes them.
    """
    part = linear_part(step, inputs[0].dtype)
    if part.kernel.dtype.size < 4:  # half precision has no room for sums over a batch
        part = part._replace(kernel=tf.cast(part.kernel, tf.float32), bias=tf.cast(part.bias, tf.float32))
    x = tuple(tf.cast(one, part.kernel.dtype) for one in inputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(part.kernel)
        y = part.apply(x, part.kernel)
    z = y + part.bias
    if pattern_type == "linear":
        mask = tf.ones_like(y)
    else:
        mask = tf.cast(z > 0 if pattern_type == "relu" else z <= 0, y.dtype)
    total = Neurons(step).total
    # The adjoint with respect to the kernel sums x times a signal over
    # all positions of the window, whatever its strides and padding.
    centred = (y - tf.cast(shift, y.dtype)) * mask
    sums = [
        total(y),
        total(tf.ones_like(y)),
        total(mask),
        tape.gradient(y, part.kernel, output_gradients=mask),
        tape.gradient(y, part.kernel, output_gradients=centred),
    ]
    return [tf.cast(found, tf.float64) for found in sums]
