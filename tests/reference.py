"""Slow and plain float64 constructions in NumPy that the tests compare with. Nothing of mipin_keras is used here."""

import functools
import itertools

import numpy as np

# Windows


def axis_windows(size, kernel, stride, dilation, padding):
    """For each output of one axis, the input index of each element of its window; None outside."""
    span = dilation * (kernel - 1) + 1
    if padding == "same":
        count = -(-size // stride)
        before = max((count - 1) * stride + span - size, 0) // 2
    elif padding == "causal":
        count, before = -(-size // stride), span - 1
    else:
        count, before = (size - span) // stride + 1, 0
    found = []
    for output in range(count):
        places = [output * stride - before + element * dilation for element in range(kernel)]
        found.append([place if 0 <= place < size else None for place in places])
    return found


def windows(sizes, kernels, strides, dilations, padding):
    """The output's sizes, and for each output a list with each element's flat input index or None."""
    return _windows(tuple(sizes), tuple(kernels), tuple(strides), tuple(dilations), padding)


@functools.cache
def _windows(sizes, kernels, strides, dilations, padding):
    axes = [axis_windows(*axis, padding) for axis in zip(sizes, kernels, strides, dilations, strict=True)]
    found = []
    for outputs in itertools.product(*axes):
        found.append([])
        for places in itertools.product(*outputs):
            flat = 0
            for place, size in zip(places, sizes, strict=True):
                flat = None if flat is None or place is None else flat * size + place
            found[-1].append(flat)
    return tuple(len(axis) for axis in axes), found


# Convolutions


def conv_matrix(kernel, sizes, strides, dilations, padding, groups=1):
    """The matrix of a convolution, flat input to flat output; ``kernel`` is (*sizes, channels / groups, filters)."""
    *kernels, per_group, filters = kernel.shape
    channels = per_group * groups
    outputs, elements = windows(sizes, kernels, strides, dilations, padding)
    flat = np.asarray(kernel, np.float64).reshape(-1, per_group, filters)
    matrix = np.zeros((int(np.prod(outputs)) * filters, int(np.prod(sizes)) * channels))
    for output, window in enumerate(elements):
        for element, place in enumerate(window):
            if place is None:
                continue
            for f in range(filters):
                first = place * channels + f // (filters // groups) * per_group
                matrix[output * filters + f, first : first + per_group] += flat[element, :, f]
    return matrix


def depthwise_matrix(kernel, sizes, strides, dilations, padding):
    """The matrix of a depthwise convolution; ``kernel`` is (*sizes, channels, multiplier)."""
    *kernels, channels, multiplier = kernel.shape
    grouped = np.reshape(kernel, (*kernels, 1, channels * multiplier))
    return conv_matrix(grouped, sizes, strides, dilations, padding, groups=channels)


def transposed_matrix(kernel, outputs, strides, dilations, padding):
    """The matrix of a transposed convolution to spatial sizes ``outputs``; ``kernel`` is (*sizes, filters, channels).

    It is the transpose of the convolution that leads back.
    """
    return conv_matrix(kernel, outputs, strides, dilations, padding).T


def transposed_design(signal, kernel_shape, sizes, strides, dilations, padding, groups=1):
    """What each unit kernel makes of ``signal`` (n, flat output) in a transposed convolution: (n, flat input, entries).

    Entries are in the kernel's order.
    """
    columns = []
    for entry in range(int(np.prod(kernel_shape))):
        unit = np.zeros(int(np.prod(kernel_shape)))
        unit[entry] = 1
        matrix = conv_matrix(unit.reshape(kernel_shape), sizes, strides, dilations, padding, groups)
        columns.append(np.asarray(signal, np.float64) @ matrix)
    return np.stack(columns, axis=-1)


# Regression


def penalized(design, targets, penalties):
    """argmin ||design w - targets||² + Σ penalties w², as one dense least-squares problem."""
    design = np.concatenate([design, np.diag(np.sqrt(penalties))])
    targets = np.concatenate([targets, np.zeros((len(penalties), *targets.shape[1:]))])
    return np.linalg.lstsq(design, targets, rcond=None)[0]


def ridge(features, targets, penalty):
    """The kernel and bias of a ridge regression whose bias costs nothing."""
    features, targets = (np.asarray(a, np.float64) for a in (features, targets))
    one = np.ones((len(features), 1))
    found = penalized(np.concatenate([features, one], axis=1), targets, [penalty] * features.shape[1] + [0.0])
    return found[:-1], found[-1]


def transposed_ridge(signal, x, kernel_shape, penalty, sizes, strides, dilations, padding, groups=1):
    """The kernel and bias (channels,) of the transposed convolution that best makes ``x`` from ``signal``."""
    flat = signal.reshape(len(x), -1)
    return kernel_ridge(
        transposed_design(flat, kernel_shape, sizes, strides, dilations, padding, groups), x, kernel_shape, penalty
    )


def kernel_ridge(design, x, kernel_shape, penalty):
    """The kernel and bias (channels,) that best make ``x`` of what each unit kernel makes: (n, flat input, entries)."""
    channels = x.shape[-1]
    entries = design.shape[-1]
    biases = np.tile(np.eye(channels), (design.shape[0] * design.shape[1] // channels, 1))
    design = np.concatenate([design.reshape(-1, entries), biases], axis=1)
    found = penalized(design, x.astype(np.float64).reshape(-1), [penalty] * entries + [0.0] * channels)
    return found[:entries].reshape(kernel_shape), found[entries:]


# Pooling


def pool(x, sizes, strides, padding, largest=True):
    """Max or average pooling of (n, *spatial, channels), one window at a time."""
    spatial, channels = x.shape[1:-1], x.shape[-1]
    outputs, elements = windows(spatial, sizes, strides, [1] * len(sizes), padding)
    flat = x.reshape(len(x), -1, channels)
    found = np.empty((len(x), len(elements), channels))
    for output, window in enumerate(elements):
        inside = flat[:, [place for place in window if place is not None]]
        found[:, output] = inside.max(axis=1) if largest else inside.mean(axis=1)
    return found.reshape(len(x), *outputs, channels)


def unpool_max(x, signal, sizes, strides, padding):
    """Each window's signal at its first maximum; the mean where several windows chose one element."""
    channels = x.shape[-1]
    _, elements = windows(x.shape[1:-1], sizes, strides, [1] * len(sizes), padding)
    flat, signal = x.reshape(len(x), -1, channels), signal.reshape(len(x), -1, channels)
    total, chosen = np.zeros(flat.shape), np.zeros(flat.shape)
    for n, output, c in itertools.product(range(len(x)), range(len(elements)), range(channels)):
        best = None
        for place in elements[output]:
            if place is not None and (best is None or flat[n, place, c] > flat[n, best, c]):
                best = place
        total[n, best, c] += signal[n, output, c]
        chosen[n, best, c] += 1
    return (total / np.maximum(chosen, 1)).reshape(x.shape)


def unpool_average(shape, signal, sizes, strides, padding):
    """For each element the mean of the signals of the windows that hold it, 0 where none does."""
    channels = shape[-1]
    _, elements = windows(shape[1:-1], sizes, strides, [1] * len(sizes), padding)
    signal = signal.reshape(shape[0], -1, channels)
    total = np.zeros((shape[0], int(np.prod(shape[1:-1])), channels))
    held = np.zeros((1, total.shape[1], 1))
    for output, window in enumerate(elements):
        for place in window:
            if place is not None:
                total[:, place] += signal[:, output]
                held[:, place] += 1
    return (total / np.maximum(held, 1)).reshape(shape)


# Algorithm 1


class Algorithm1:
    """MIP-IN for one class, as the paper's Algorithm 1 has it.

    Layers are tuples: ``("dense", kernel, bias)``, ``("relu",)``, ``("conv", kernel, bias)`` (2D, valid, stride 1),
    ``("maxpool", size)`` (2D, valid, stride = size), ``("mean",)`` (over space) and ``("flatten",)``.

    Args:
        layers: From the input to the logits.
        unit: The class.
        x: Samples to fit from.
        penalty: λ of Eq. 6.
        own: Whether only samples with the largest logit ``unit`` take part.
        relu: Forward ReLU (Eq. 9).
        stop: How many layers stay below the explanation.
        mask: Whether the mask acts where the explanation ends too.
    """

    def __init__(self, layers, unit, x, *, penalty=1e-3, own=False, relu=True, stop=0, mask=False):
        self.layers, self.unit, self.relu, self.stop, self.mask = layers, unit, relu, stop, mask
        self.found = {}
        tensors = self.forward(x)
        if own:
            tensors = [t[tensors[-1].argmax(axis=1) == unit] for t in tensors]
        signal = self.top(tensors)
        for i in reversed(range(stop, len(layers))):
            kind, *weights = layers[i]
            if kind == "dense":
                self.found[i] = ridge(signal, tensors[i], penalty)
            elif kind == "conv":
                geometry = (tensors[i].shape[1:-1], (1, 1), (1, 1), "valid")
                self.found[i] = transposed_ridge(signal, tensors[i], weights[0].shape, penalty, *geometry)
            signal = self.step(i, signal, tensors, bias=True)

    def forward(self, x):
        """The input of each layer, and the logits."""
        tensors = [np.asarray(x, np.float64)]
        for kind, *weights in self.layers:
            x = tensors[-1]
            if kind == "dense":
                x = x @ weights[0].astype(np.float64) + weights[1]
            elif kind == "conv":
                kernel, bias = weights
                sizes = x.shape[1:-1]
                matrix = conv_matrix(kernel, sizes, (1, 1), (1, 1), "valid")
                outputs = [size - k + 1 for size, k in zip(sizes, kernel.shape, strict=False)]
                x = (x.reshape(len(x), -1) @ matrix.T).reshape(len(x), *outputs, -1) + bias
            elif kind == "maxpool":
                x = pool(x, weights[0], weights[0], "valid")
            elif kind == "mean":
                x = x.mean(axis=(1, 2))
            elif kind == "relu":
                x = np.maximum(x, 0)
            else:
                x = x.reshape(len(x), -1)
            tensors.append(x)
        return tensors

    def top(self, tensors):
        """Y_c: a column, or where no dense layer is on top, at its place among zeros."""
        logits = tensors[-1]
        return logits[:, [self.unit]] if self.layers[-1][0] == "dense" else logits * np.eye(logits.shape[1])[self.unit]

    def step(self, i, signal, tensors, bias):
        """g of layer i, or its linear part, with the mask of Eq. 9 on a ReLU's output."""
        kind, *weights = self.layers[i]
        if kind == "dense":
            kernel, offset = self.found[i]
            signal = signal @ kernel + (offset if bias else 0)
        elif kind == "conv":
            kernel, offset = self.found[i]
            matrix = conv_matrix(kernel, tensors[i].shape[1:-1], (1, 1), (1, 1), "valid")
            signal = (signal.reshape(len(signal), -1) @ matrix).reshape(tensors[i].shape) + (offset if bias else 0)
        elif kind == "maxpool":
            signal = unpool_max(tensors[i], signal, weights[0], weights[0], "valid")
        elif kind == "mean":
            signal = np.broadcast_to(signal[:, None, None], tensors[i].shape)
        elif kind == "relu":
            signal = signal * (tensors[i + 1] != 0) if self.relu else signal
        else:
            signal = signal.reshape(tensors[i].shape)
        return signal * (tensors[i] != 0) if self.mask and i == self.stop else signal

    def _walk(self, x, bias):
        tensors = self.forward(x)
        signal = self.top(tensors)
        for i in reversed(range(self.stop, len(self.layers))):
            signal = self.step(i, signal, tensors, bias)
        return signal

    def source(self, x):
        """S_0."""
        return self._walk(x, True)

    def attribution(self, x):
        """A."""
        return self._walk(x, False)
