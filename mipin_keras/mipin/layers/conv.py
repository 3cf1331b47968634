"""Inverses of convolutions: the adjoint of the layer's own geometry, with a kernel of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...data.distribute import per_device
from ...graph import linear, windows
from ...graph.model_graph import Step
from ..inverse import LearnedInverse, Record, Weights, register_inverse
from ..ridge import Regression, Ridge
from .depthwise import ShiftedSums
from .transposed import adjoint_layer


class _Windowed(LearnedInverse):
    """What all convolutions share: each element of X is a row of a regression from the signal around it.

    The reconstruction is linear in its kernel, which has the shape of the
    layer's own and is applied as the layer's adjoint: strides, padding,
    dilation and groups are those of the layer. That is a transposed
    convolution: in float32 a Keras layer, :attr:`template`, computes it, with
    the weights of the class that is explained.
    """

    sampled = trainable = True

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.groups = self._groups()
        self.windows = windows.windows_of(self.layer, self.input_shape, self.output_shape)
        self.positions = int(np.prod(self.input_shape[:-1]))
        # Of each group, how many channels are read at one position, and how many are reconstructed there
        self._split = (self.output_shape[-1] // self.groups, self.input_shape[-1] // self.groups)
        self.weight_shapes = ((*self.windows.sizes, *self._kernel_tail()), (self.input_shape[-1],))
        self._traced: dict[Any, Callable] = {}
        self._last: dict[int | None, Any] = {}

    def _groups(self) -> int:
        """How many regressions run side by side."""
        return 1

    def _kernel_tail(self) -> tuple[int, int]:
        """The last two axes of the layer's kernel."""
        raise NotImplementedError

    def _read_from(self) -> np.ndarray:
        """From which output positions each input position is read: indices ``(input positions, kernel size)``."""
        raise NotImplementedError

    def _phases(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each phase of the strides, which elements of the kernel can reach which input positions: int arrays."""
        everything = np.arange(math.prod(self.windows.sizes))
        return [(everything, np.arange(self.positions))]

    @functools.cached_property
    def _table(self) -> np.ndarray:
        return self._read_from()

    @functools.cached_property
    def phases(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """See :meth:`_phases`; made once."""
        return self._phases()

    def regression(self) -> Regression:
        read, made = self._split
        columns = [(elements[:, None] * read + np.arange(read)).reshape(-1) for elements, _ in self.phases]
        return Ridge(math.prod(self.windows.sizes) * read, made, self.groups, columns)

    def add_rows(self, sums: Any, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> None:
        for phase in range(len(self.phases)):
            sums.update(*self._rows(signal, x, positions, phase), phase)

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        return self._rows(signal, x, positions, None)

    def _rows(
        self, signal: tf.Tensor, x: tf.Tensor, positions: np.ndarray | None, phase: int | None
    ) -> tuple[Any, Any]:
        """Features and targets: of all positions, or of those of a phase with the elements that reach them alone."""
        read, made = self._split
        pixels = tf.reshape(x, (-1, self.input_shape[-1]))
        elements, at, index = self._chosen(int(signal.shape[0]), positions, phase)
        pixels = pixels if at is None else tf.gather(pixels, at)
        if index is not None:
            features = self._patches(signal.dtype)(signal, index)
        else:  # each position is read from itself
            features = tf.reshape(signal, (-1, self.output_shape[-1]))
            features = features if at is None else tf.gather(features, at)
        rows = int(pixels.shape[0])  # without elements there are rows of no features
        if self.groups == 1:
            return tf.reshape(features, (1, rows, elements * read)), tf.reshape(pixels, (1, rows, made))
        split = tf.transpose(tf.reshape(features, (rows, elements, self.groups, read)), (2, 0, 1, 3))
        targets = tf.transpose(tf.reshape(pixels, (rows, self.groups, made)), (1, 0, 2))
        return tf.reshape(split, (self.groups, rows, elements * read)), targets

    def _chosen(
        self, n: int, positions: np.ndarray | None, phase: int | None
    ) -> tuple[int, tf.Tensor | None, tf.Tensor | None]:
        """How many elements of the window are read, of which input positions, and where each of them lies.

        Flat indices over ``n`` samples: of the input positions ``(rows,)``,
        None for all; of the signal ``(rows, elements)``, with one more output
        position a sample that stands for "no window", None where each
        position is read from itself.
        """
        known = self._last.get(phase)
        if known is not None and known[0] == n and known[1] is positions:  # of the class before
            return known[2]
        some = len(self.phases) > 1 and phase is not None
        elements, own = (
            self.phases[phase or 0] if some else (np.arange(self._table.shape[1]), np.arange(self.positions))
        )
        at = np.broadcast_to(own, (n, len(own))) if positions is None else positions
        samples, at = np.repeat(np.arange(n), at.shape[1]), at.reshape(-1)
        if some and positions is not None:
            chosen = np.isin(at, own)
            samples, at = samples[chosen], at[chosen]
        size, index = math.prod(self.output_shape[:-1]) + 1, None
        if not self.windows.pointwise:
            index = tf.constant(self._table[at][:, elements] + (samples * size)[:, None], tf.int32)
        every = positions is None and not some
        found = len(elements), None if every else tf.constant(samples * self.positions + at, tf.int32), index
        self._last[phase] = n, positions, found
        return found

    def _patches(self, dtype: tf.DType) -> Callable:
        """The traced function that reads the signal ``(n, *output_shape)`` at flat indices, as of :meth:`_chosen`."""

        def trace() -> Callable:
            spec = [tf.TensorSpec((None, *self.output_shape), dtype), tf.TensorSpec((None, None), tf.int32)]

            @tf.function(input_signature=spec, autograph=False)
            def patches(signal: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
                filters = self.output_shape[-1]
                flat = tf.reshape(signal, (tf.shape(signal)[0], -1, filters))
                return tf.gather(tf.reshape(tf.pad(flat, [[0, 0], [0, 1], [0, 0]]), (-1, filters)), index)

            return patches.get_concrete_function()

        return per_device(self._traced, dtype, trace)

    def keras_layer(self, name: str, **options: Any) -> keras.layers.Layer:
        """A Keras layer of its own for this inverse: its weights are those of :attr:`weight_shapes`, in their order.

        Args:
            name: The layer's.
            options: More options of it.

        Returns:
            ``Conv1DTranspose``, ``Conv2DTranspose`` or ``Conv3DTranspose``
            where one has the geometry of the layer's adjoint, else one of
            :mod:`mipin_keras.mipin.layers.transposed`; not yet built.
        """
        return adjoint_layer(self.layer, self.input_shape, self.output_shape, name=name, **options)

    @functools.cached_property
    def template(self) -> keras.layers.Layer:
        """The Keras layer that computes every class' source signal: its weights are given with each call."""
        # It is made while the walk is traced, and lies on the host: its own weights are never read.
        with tf.init_scope():
            layer = self.keras_layer("inverse", kernel_initializer="zeros")
            with tf.device("CPU:0"):
                layer.build((None, *self.output_shape))
        return layer

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        return linear.adjoint(self.layer, signal, weights[0], self.input_shape)

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        if signal.dtype == tf.float32:
            found, _ = self.template.stateless_call(list(weights), [], signal)
            return found
        return self.attribution(signal, record, weights) + weights[1]


@register_inverse(*windows.CONVOLUTIONS)
class ConvInverse(_Windowed):
    """``X = g * S + b`` with a transposed filter g, in closed form (Eq. 7).

    An element of X is read from the windows that it lies in.
    """

    def _groups(self) -> int:
        return self.layer.groups

    def _kernel_tail(self) -> tuple[int, int]:
        return self._split[1], self.output_shape[-1]

    def _read_from(self) -> np.ndarray:
        return self.windows.windows()

    def _phases(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return self.windows.reaching()

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        split = kernel.reshape(self.groups, -1, *self._split)
        return split.transpose(1, 3, 0, 2).reshape(self.weight_shapes[0]), bias.reshape(-1)


@register_inverse(*windows.DEPTHWISE)
class DepthwiseConvInverse(ConvInverse):
    """As a convolution, every channel a group of its own: it is read from the signals that it made."""

    def __init__(self, step: Step, **options: Any):
        super().__init__(step, **options)
        self.whole = self._split[0] == 1  # one map a channel: its sums are those of shifted maps

    def _groups(self) -> int:
        return self.input_shape[-1]

    def _kernel_tail(self) -> tuple[int, int]:
        return self.input_shape[-1], self._split[0]

    def regression(self) -> Regression:
        return ShiftedSums(self.windows, self.input_shape[-1]) if self.whole else super().regression()

    def add_rows(self, sums: Any, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> None:
        if self.whole:
            sums.update(signal, x)
        else:
            super().add_rows(sums, signal, x, positions, record)


@register_inverse(*windows.TRANSPOSED)
class TransposedConvInverse(_Windowed):
    """``X = g * S + b`` with a plain filter g, as the layer is the adjoint of a convolution.

    An element of X is read from the window that it was spread over.
    """

    def _kernel_tail(self) -> tuple[int, int]:
        return self._split

    def _read_from(self) -> np.ndarray:
        return self.windows.elements()

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return kernel.reshape(self.weight_shapes[0]), bias.reshape(-1)
