"""The regressions of a depthwise convolution, from sums of products of shifted maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...graph.windows import Windows
from ..arithmetic import einsum, float64, mean, plus, total, view
from ..moments import Moments
from ..ridge import Regression, centred


class _Reach(NamedTuple):
    """At which output positions ``low`` to ``high`` an element of the window reads, for every input position.

    The first of them reads for input position ``first``, the others a stride further each.
    """

    low: int
    high: int
    first: int


class ShiftedSums(Regression):
    """A regression a channel, from the signals around a position to the input there, over whole maps.

    Its features are one map, shifted by each element of the window: so the
    Gram has sums of products of the map with a shifted map, over rectangles.
    These need no patches, and of all pairs of elements with one distance
    between them only one product.

    Args:
        windows: Of the convolution, over one or two spatial axes.
        channels: How many channels.
    """

    def __init__(self, windows: Windows, channels: int):
        if len(windows.sizes) == 1:  # one more axis of one element
            own = (windows.inputs, windows.outputs, windows.sizes, windows.strides, windows.dilations)
            inputs, outputs, sizes, strides, dilations = ((1, *each) for each in own)
            windows = Windows(inputs, outputs, sizes, strides, dilations, (0, *windows.lows))
        self.windows, self.channels = windows, channels
        self._elements = list(np.ndindex(*windows.sizes))
        self.sizes = (channels, len(self._elements), 1)
        self._reach = [[_reach(windows, axis, k) for k in range(windows.sizes[axis])] for axis in (0, 1)]
        # Per distance: the pairs of elements with it, the first of which reads above or before the second.
        self._distances: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for i in range(len(self._elements)):
            for j in range(len(self._elements)):
                distance = self._distance(i, j)
                if distance is not None and (distance > (0, 0) or (distance == (0, 0) and i <= j)):
                    self._distances.setdefault(distance, []).append((i, j))
        self._samples = 0
        self._shifts: tuple[Any, Any] | None = None
        self._products: dict[tuple[int, int], Any] = {}
        self._cross: dict[int, Any] = {}
        self._maps = self._targets = self._squares = None

    def _distance(self, i: int, j: int) -> tuple[int, int] | None:
        """From the output position that element i reads at to that of element j; None if they never read together."""
        found = []
        for axis, (a, b) in enumerate(zip(self._elements[i], self._elements[j], strict=True)):
            steps, rest = divmod((a - b) * self.windows.dilations[axis], self.windows.strides[axis])
            if rest:
                return None
            found.append(steps)
        return found[0], found[1]

    @property
    def nbytes(self) -> int:
        return 8 * self.channels * (len(self._distances) + 2) * int(np.prod(self.windows.outputs))

    @property
    def rows(self) -> int:
        return self._samples * int(np.prod(self.windows.inputs))

    def update(self, signal: Any, x: Any) -> None:
        """Add samples.

        Args:
            signal: Shape ``(n, *outputs, channels)``.
            x: What they are to reconstruct, ``(n, *inputs, channels)``.
        """
        n = int(signal.shape[0])
        if not n:
            return
        s = float64(tf.reshape(signal, (n, *self.windows.outputs, self.channels)))
        t = float64(tf.reshape(x, (n, *self.windows.inputs, self.channels)))
        if self._shifts is None:
            self._shifts = tuple(mean(mean(mean(each, 0), 0), 0) for each in (s, t))
        s -= self._shifts[0]
        t -= self._shifts[1]
        height, width = self.windows.outputs
        for dy, dx in self._distances:
            if dy < height and abs(dx) < width:
                here = s[:, : height - dy, max(0, -dx) : width - max(0, dx)]
                there = s[:, dy:, max(0, dx) : width + min(0, dx)]
                part = einsum("nyxc,nyxc->yxc", here, there)
                self._products[dy, dx] = plus(self._products.get((dy, dx)), part)
        for i, (a, b) in enumerate(self._elements):
            y, x_ = self._reach[0][a], self._reach[1][b]
            if y.high > y.low and x_.high > x_.low:
                own = t[:, _every(y, self.windows.strides[0]), _every(x_, self.windows.strides[1])]
                part = einsum("nyxc,nyxc->c", s[:, y.low : y.high, x_.low : x_.high], own)
                self._cross[i] = plus(self._cross.get(i), part)
        self._maps = plus(self._maps, total(s, 0))
        self._targets = plus(self._targets, total(t, 0))
        self._squares = plus(self._squares, einsum("nyxc,nyxc->c", t, t))
        self._samples += n

    def moments(self) -> Moments:
        channels, count, _ = self.sizes
        gram, cross = np.zeros((channels, count, count)), np.zeros((channels, count, 1))
        features = np.zeros((channels, count))
        if self._shifts is None:
            return Moments(0, features, np.zeros((channels, 1)), gram, cross, np.zeros((channels, 1)))
        shift, maps, targets = view(self._shifts[0]), _summed(view(self._maps)), view(self._targets)
        for i in range(count):
            (y, x), n = self._read_by(i, i), self._samples
            area = max(0, y.stop - y.start) * max(0, x.stop - x.start)
            features[:, i] = _over(maps, y, x) + shift * (area * n)
            if area:
                own = [
                    _every(self._reach[axis][k], self.windows.strides[axis]) for axis, k in enumerate(self._elements[i])
                ]
                cross[:, i, 0] = view(self._cross[i]) + shift * targets[own[0], own[1]].sum(axis=(0, 1))
        for (dy, dx), pairs in self._distances.items():
            if (dy, dx) not in self._products:
                continue
            products = _summed(view(self._products[dy, dx]))
            for i, j in pairs:
                y, x = self._read_by(i, j)
                area = max(0, y.stop - y.start) * max(0, x.stop - x.start)
                if area:
                    low = max(0, -dx)
                    found = _over(products, y, slice(x.start - low, x.stop - low))
                    # The maps were shifted, and 0 stands for "no window" beside them.
                    beside = _over(maps, y, x) + _over(maps, _moved(y, dy), _moved(x, dx))
                    found = found + shift * beside + shift**2 * (area * self._samples)
                    gram[:, i, j] = gram[:, j, i] = found
        squares = view(self._squares)[:, None]
        shifts = np.zeros((channels, count)), view(self._shifts[1])[:, None]
        return centred(self.rows, shifts, features, targets.sum(axis=(0, 1))[:, None], gram, cross, squares)

    def _read_by(self, i: int, j: int) -> tuple[slice, slice]:
        """At which output positions element i reads where element j reads too."""
        found = []
        for axis, (a, b) in enumerate(zip(self._elements[i], self._elements[j], strict=True)):
            one, other = self._reach[axis][a], self._reach[axis][b]
            steps = (a - b) * self.windows.dilations[axis] // self.windows.strides[axis]
            found.append(slice(max(one.low, other.low - steps), min(one.high, other.high - steps)))
        return found[0], found[1]


def _reach(windows: Windows, axis: int, k: int) -> _Reach:
    inputs, outputs, stride = windows.inputs[axis], windows.outputs[axis], windows.strides[axis]
    off = windows.lows[axis] - k * windows.dilations[axis]  # output q reads for input q stride - off
    low = max(0, -(-off // stride))
    return _Reach(low, max(low, min(outputs, (inputs - 1 + off) // stride + 1)), low * stride - off)


def _every(reach: _Reach, stride: int) -> slice:
    """The input positions that an element reads for."""
    return slice(reach.first, reach.first + (reach.high - reach.low - 1) * stride + 1, stride)


def _moved(part: slice, steps: int) -> slice:
    return slice(part.start + steps, part.stop + steps)


def _summed(maps: np.ndarray) -> np.ndarray:
    """Sums over all rectangles that begin at the corner, ``(height + 1, width + 1, channels)``."""
    return np.pad(maps, [(1, 0), (1, 0), (0, 0)]).cumsum(axis=0).cumsum(axis=1)


def _over(summed: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """The sum over a rectangle, one number a channel."""
    if y.stop <= y.start or x.stop <= x.start:
        return np.zeros(summed.shape[-1])
    return summed[y.stop, x.stop] - summed[y.start, x.stop] - summed[y.stop, x.start] + summed[y.start, x.start]
