"""Sliding windows: which elements a convolution's or pooling's window holds, and in which windows an element lies."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
MAX_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
AVERAGE_POOLINGS = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)


@dataclasses.dataclass(frozen=True)
class Windows:
    """The geometry of a sliding window over 1, 2 or 3 spatial axes.

    Attributes:
        inputs, outputs: Spatial sizes before and after.
        sizes, strides, dilations: Per axis.
        lows: Padding before the first element, per axis.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    lows: tuple[int, ...]

    @property
    def overlap(self) -> bool:
        """Whether an input element can lie in more than one window."""
        return any(d * (k - 1) + 1 > s for k, s, d in zip(self.sizes, self.strides, self.dilations, strict=True))

    @property
    def pointwise(self) -> bool:
        """Whether each window is one element, the one at its own position."""
        return set(self.sizes) == {1} and self.inputs == self.outputs and set(self.strides) == {1}

    @property
    def highs(self) -> tuple[int, ...]:
        """Padding that the last window needs behind the last element, per axis."""
        return tuple(max((q - 1) * s + d * (k - 1) + 1 - n - low, 0) for n, q, k, s, d, low in self._axes())

    def elements(self) -> np.ndarray:
        """Which input elements each window holds.

        Returns:
            int32 of shape ``(prod(outputs), prod(sizes))``: flat spatial
            indices of the input; ``prod(inputs)`` stands for padding.
        """
        axes = []
        for n, q, k, s, d, low in self._axes():
            at = np.arange(q)[:, None] * s - low + np.arange(k)[None, :] * d
            axes.append(np.where((at >= 0) & (at < n), at, -1))
        return _combine(axes, self.inputs)

    def windows(self) -> np.ndarray:
        """Which windows each input element lies in, and where in them.

        Returns:
            int32 of shape ``(prod(inputs), prod(sizes))``: entry ``[p, k]`` is
            the flat spatial index of the output whose window has input
            element ``p`` as its element ``k``; ``prod(outputs)`` where there
            is none.
        """
        axes = []
        for n, q, k, s, d, low in self._axes():
            at = np.arange(n)[:, None] + low - np.arange(k)[None, :] * d
            axes.append(np.where((at % s == 0) & (at >= 0) & (at // s < q), at // s, -1))
        return _combine(axes, self.outputs)

    def reaching(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Which input positions the same elements of a window can come to lie on, borders aside.

        With strides an input element lies in windows as some of their elements
        only: of a window of 3 with stride 2 as the middle one, or as the first
        and the last.

        Returns:
            Flat indices of such elements, none perhaps, and of the input
            positions, each of which is in one of the pairs.
        """
        pairs = [(np.zeros(1, int), np.zeros(1, int))]
        for n, _, k, s, d, low in self._axes():
            residues = (np.arange(n) + low) % s
            elements, axis = np.arange(k), []
            for residue in np.unique(residues):
                axis.append((elements[(residue - elements * d) % s == 0], np.flatnonzero(residues == residue)))
            pairs = [
                ((a[:, None] * k + b).reshape(-1), (p[:, None] * n + q).reshape(-1)) for a, p in pairs for b, q in axis
            ]
        return pairs

    def _axes(self) -> Any:
        return zip(self.inputs, self.outputs, self.sizes, self.strides, self.dilations, self.lows, strict=True)


def _combine(axes: list[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Per-axis index tables as one table of flat indices; any -1 becomes ``prod(sizes)``."""
    flat, valid = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for table, size in zip(axes, sizes, strict=True):
        p, k = table.shape
        flat = (flat[:, None, :, None] * size + table[None, :, None, :]).reshape(flat.shape[0] * p, -1)
        valid = (valid[:, None, :, None] & (table >= 0)[None, :, None, :]).reshape(valid.shape[0] * p, -1)
    return np.where(valid, flat, math.prod(sizes)).astype(np.int32)


def windows_of(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Windows:
    """The window geometry of a convolution or pooling layer.

    Args:
        layer: A convolution, also a depthwise or transposed one, or a max or
            average pooling.
        input_shape, output_shape: The layer's, without the batch axis:
            spatial axes, then channels.

    Returns:
        The layer's windows; for a transposed convolution those of the
        convolution whose adjoint it is, from the layer's output to its input.
    """
    inputs, outputs = tuple(input_shape[:-1]), tuple(output_shape[:-1])
    if isinstance(layer, TRANSPOSED):
        inputs, outputs = outputs, inputs
    if hasattr(layer, "kernel_size"):
        sizes, dilations = tuple(layer.kernel_size), tuple(layer.dilation_rate)
    else:
        pool = layer.pool_size
        sizes = tuple(int(size) for size in keras.tree.flatten(pool))
        dilations = (1,) * len(sizes)
    strides = tuple(int(stride) for stride in keras.tree.flatten(layer.strides))
    spans = [d * (k - 1) + 1 for k, d in zip(sizes, dilations, strict=True)]
    if layer.padding == "same":
        # TensorFlow's SAME: what is needed, the smaller half of it before.
        lows = tuple(
            max((q - 1) * s + span - n, 0) // 2 for n, q, s, span in zip(inputs, outputs, strides, spans, strict=True)
        )
    elif layer.padding == "causal":
        lows = tuple(span - 1 for span in spans)
    else:
        lows = (0,) * len(sizes)
    return Windows(inputs, outputs, sizes, strides, dilations, lows)
