"""Depthwise and transposed convolutions' closed form against a least squares over the layer's dense Jacobians."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.layers.conv import ConvInverse, DepthwiseConvInverse
from mipin_keras.mipin.network import InverseNetwork
from tests.networks import balanced, close, fitted_weights, inverse_of, samples, with_weights
from tests.reference import kernel_ridge

L = keras.layers

DEPTHWISE = [
    *(
        (L.DepthwiseConv1D, (7, 2), {"kernel_size": 3, "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({}, {"strides": 4}, {"dilation_rate": 2, "depth_multiplier": 2})
        )
    ),
    *(
        (L.DepthwiseConv2D, (5, 6, 3), {"kernel_size": (2, 3), "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({"depth_multiplier": 2}, {"strides": 2}, {"strides": 3}, {"dilation_rate": (2, 2)})
        )
    ),
]
TRANSPOSED = [
    *(
        (L.Conv1DTranspose, (4, 2), {"filters": 3, "kernel_size": 3, "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({}, {"strides": 2}, {"strides": 4}, {"dilation_rate": 2})
        )
    ),
    (L.Conv1DTranspose, (4, 2), {"filters": 3, "kernel_size": 3, "strides": 3, "output_padding": 2}),
    *(
        (L.Conv2DTranspose, (3, 2, 2), {"filters": 3, "kernel_size": (2, 3), "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({"strides": (2, 1)}, {"strides": 2, "output_padding": 1}, {"dilation_rate": 2})
        )
    ),
    *(
        (L.Conv3DTranspose, (2, 1, 2, 2), {"filters": 2, "kernel_size": (2, 1, 3), "padding": padding, **setting})
        for padding, setting in (("valid", {}), ("same", {"strides": (1, 3, 2)}))
    ),
]
EVERY = pytest.mark.parametrize(
    ("kind", "shape", "options"),
    [*DEPTHWISE, *TRANSPOSED],
    ids=lambda value: value.__name__ if isinstance(value, type) else " ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, dict) else "",
)  # fmt: skip


def jacobians(layer, shape):
    """The layer's matrix for each unit kernel, in the kernel's order: (entries, flat output, flat input)."""
    size = int(np.prod(shape))
    units = np.eye(size, dtype="float32").reshape(size, *shape)
    kernel = np.asarray(layer.kernel)
    found = []
    for entry in np.eye(kernel.size, dtype="float32"):
        layer.set_weights([entry.reshape(kernel.shape)])
        found.append(np.asarray(layer(units), np.float64).reshape(size, -1).T)
    return np.stack(found)


def example(kind, shape, options, n=12, seed=0):
    """An inverse, a signal at its output, and what each unit kernel's adjoint makes of it: (n, flat input, entries)."""
    rng = np.random.default_rng(seed)
    layer = kind(use_bias=False, **options)
    inverse = inverse_of(layer, shape)
    assert inverse.weight_shapes == (tuple(layer.kernel.shape), shape[-1:])
    signal = rng.normal(0.5, 1, (n, *inverse.output_shape))
    design = np.einsum("no,eoi->nie", signal.reshape(n, -1), jacobians(layer, shape))
    return inverse, signal, design, rng


@EVERY
@pytest.mark.few(8)
def test_closed_form_is_the_least_squares_over_the_jacobians(kind, shape, options):
    inverse, signal, design, rng = example(kind, shape, options)
    made = (design @ rng.normal(size=design.shape[-1])).reshape(-1, *shape)
    x = made + rng.normal(1, 1, made.shape)
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 0.1)
    kernel, bias = kernel_ridge(design, x, inverse.weight_shapes[0], 0.1)
    assert close(weights[0], kernel, 1e-6) and close(weights[1], bias, 1e-6)
    # and it is applied as it was found
    linear = (design @ kernel.ravel()).reshape(x.shape)
    assert close(inverse.attribution(tf.constant(signal), (), weights), linear, 1e-6)
    assert close(inverse.source(tf.constant(signal), (), weights), linear + bias, 1e-6)
    sums = inverse.regression()
    inverse.add_rows(sums, tf.constant(signal), tf.constant(x), None)
    assert sums.solve(0.1).mse == pytest.approx(np.square(x - linear - bias).mean(), rel=1e-6)
    # what an adjoint made is recovered
    x = made + rng.normal(size=shape[-1])
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 1e-9)
    assert close(inverse.source(tf.constant(signal), (), weights), x, 1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Conv2DTranspose(3, 2, strides=2), (3, 4, 2)), (L.Conv1DTranspose(1, 3, strides=4), (5, 2)),
        (L.Conv2DTranspose(4, 2, strides=3, padding="same"), (3, 4, 2)), (L.DepthwiseConv2D(1), (4, 3, 3)),
        (L.DepthwiseConv1D(1, depth_multiplier=3), (4, 2)), (L.Conv3DTranspose(2, 1, strides=2), (2, 2, 2, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)  # fmt: skip
def test_a_layer_that_loses_nothing_is_undone(layer, shape, rng):
    inverse = inverse_of(layer, shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    x = tf.constant(rng.normal(size=(100, *shape)), tf.float32)
    y = tf.cast(layer(x), tf.float64)
    weights = fitted_weights(inverse, y, x, 1e-8)
    assert close(inverse.source(y, (), weights), x, 1e-4)


@pytest.mark.parametrize(("kind", "shape", "options"), [DEPTHWISE[4], DEPTHWISE[6], TRANSPOSED[2], TRANSPOSED[-1]])
def test_positions_are_rows_of_all(kind, shape, options):
    inverse, signal, _, rng = example(kind, shape, options)
    signal, x = tf.constant(signal), tf.constant(rng.normal(size=(len(signal), *shape)))
    n, many, groups = len(signal), inverse.positions, inverse.groups
    assert inverse.sampled and many == np.prod(shape[:-1])
    whole = [np.reshape(a, (groups, n, many, -1)) for a in inverse.design(signal, x, None)]
    positions = np.argsort(rng.random((n, many)), axis=1)[:, : many // 2]
    for some, of in zip(inverse.design(signal, x, positions), whole, strict=True):
        wanted = of[:, np.arange(n)[:, None], positions]
        np.testing.assert_array_equal(np.reshape(some, (groups, n, many // 2, -1)), wanted)


# In models


def model(*layers, shape=(8, 8, 2)):
    head = [L.Flatten(name="flatten"), L.Dense(3, name="head")]
    return balanced(with_weights(keras.Sequential([keras.Input(shape), *layers, *head])))


@pytest.mark.parametrize("kind", [L.SeparableConv1D, L.SeparableConv2D])
def test_a_separable_convolution_has_the_inverses_of_its_two_parts(kind):
    shape = (8, 2) if kind is L.SeparableConv1D else (8, 8, 2)
    built = model(kind(4, 3, depth_multiplier=2, activation="relu", name="sep"), shape=shape)
    graph = ModelGraph(built)
    network = InverseNetwork(graph, (graph.input,))
    found = {step.name: type(network.inverses[step.index]) for step in graph.steps}
    assert found["sep/depthwise"] is DepthwiseConvInverse and found["sep/pointwise"] is ConvInverse
    x = samples(shape, 60)
    analyzer = mipin_keras.create_analyzer("mipin", built, verbose=0, classes=1, neuron_selection_mode="index").fit(x)
    found = analyzer.analyze(x, 1)
    assert found.shape == x.shape and np.isfinite(found).all() and found.std() > 0
    assert all(0 < line["relative"] < 1.001 for line in analyzer.fit_report)


@pytest.mark.medium
@pytest.mark.parametrize(
    "layer",
    [L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"), L.Conv2DTranspose(2, 3, strides=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_training_comes_towards_the_closed_form(layer):
    built, x = model(layer), samples((8, 8, 2), 64)

    def error(name, **options):
        analyzer = mipin_keras.create_analyzer(name, built, classes=1, verbose=0, **options).fit(x, batch_size=8)
        return analyzer.fit_report[-1]["mse"], analyzer

    best, _ = error("mipin", rows=None, ridge=0.0)
    short, _ = error("mipin.trained", epochs=1)
    long, analyzer = error("mipin.trained", epochs=30)
    assert short > long > best and long - best < 0.7 * (short - best)
    kernel, bias = analyzer.network.weights[1][0]
    assert kernel.shape == tuple(layer.kernel.shape) and bias.shape == (2,)
