"""Normalisations by a sample's own divisor: what the recorded divisor gives back, and a regression beside it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.mipin.layers.normalization import StandardizationInverse
from tests.networks import balanced, close, fitted_weights, inverse_of, samples, with_weights
from tests.reference import ridge

L = keras.layers

CASES = [
    (L.LayerNormalization, {}, (6,), (6,)),
    (L.LayerNormalization, {"epsilon": 0.5}, (4, 6), (6,)),
    (L.LayerNormalization, {"axis": (-2, -1)}, (3, 4, 2), (4, 2)),
    (L.LayerNormalization, {"axis": (1, 2, 3)}, (3, 4, 2), (3, 4, 2)),
    (L.LayerNormalization, {"center": False}, (4, 6), (6,)),
    (L.LayerNormalization, {"scale": False}, (4, 6), (6,)),
    (L.GroupNormalization, {"groups": 2}, (6,), (6,)),
    (L.GroupNormalization, {"groups": 3, "epsilon": 0.1}, (3, 4, 6), (6,)),
    (L.GroupNormalization, {"groups": 1}, (3, 4, 6), (6,)),
    (L.GroupNormalization, {"groups": -1}, (3, 4, 6), (6,)),
    (L.UnitNormalization, {}, (4, 6), (6,)),
    (L.UnitNormalization, {"axis": (-2, -1)}, (4, 6), (4, 6)),
]
if hasattr(L, "RMSNormalization"):
    CASES += [
        (L.RMSNormalization, {}, (4, 6), (6,)),
        (L.RMSNormalization, {"axis": (1, 2), "epsilon": 0.3}, (4, 6), (4, 6)),
    ]


def example(kind, options, shape, rng, n=60):
    """A layer with weights, its input (each sample of a size of its own) and output."""
    layer = kind(**options)
    layer.build((None, *shape))
    layer.set_weights([rng.uniform(0.5, 2, w.shape) * rng.choice([-1, 1], w.shape) for w in layer.get_weights()])
    x = rng.normal(size=(n, *shape)) * rng.uniform(0.2, 5, (n, *[1] * len(shape)))
    return layer, x.astype("float32")


def centred(x, kind, options, shape):
    """``x`` less what the layer takes away as its mean."""
    if kind is L.LayerNormalization:
        return x - x.mean(axis=options.get("axis", -1), keepdims=True)
    if kind is L.GroupNormalization:
        groups = options["groups"] if options["groups"] > 0 else shape[-1]
        split = x.reshape(len(x), -1, groups, shape[-1] // groups)
        return (split - split.mean(axis=(1, 3), keepdims=True)).reshape(x.shape)
    return x


@pytest.mark.parametrize(("kind", "options", "shape", "channels"), CASES)
def test_an_input_without_a_mean_of_its_own_comes_back(kind, options, shape, channels, rng):
    layer, x = example(kind, options, shape, rng)
    inverse = inverse_of(layer, shape)
    assert isinstance(inverse, StandardizationInverse) and inverse.weight_shapes == (channels, channels)
    x = centred(x, kind, options, shape)
    y = tf.convert_to_tensor(layer(x))
    record = inverse.record(tf.constant(x), y)
    assert record[0].shape[0] == len(x) and np.broadcast_shapes(record[0].shape, x.shape) == x.shape
    weights = fitted_weights(inverse, tf.cast(y, tf.float64), tf.constant(x), 1e-6, record)
    assert tuple(w.shape for w in weights) == inverse.weight_shapes
    assert close(inverse.source(tf.cast(y, tf.float64), record, weights), x, 1e-5)
    # without the divisors it is not to be had
    plain = inverse_of(layer, shape, forward_relu=False)
    assert plain.record(tf.constant(x), y) == ()
    weights = fitted_weights(plain, tf.cast(y, tf.float64), tf.constant(x), 1e-6)
    assert not close(plain.source(tf.cast(y, tf.float64), (), weights), x, 1e-2)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("kind", "options", "shape", "channels"), CASES)
def test_a_regression_a_channel_in_float64(kind, options, shape, channels, relu, rng):
    layer, x = example(kind, options, shape, rng)
    inverse = inverse_of(layer, shape, forward_relu=relu)
    signal = rng.normal(1, 1, x.shape)
    record = inverse.record(tf.constant(x), layer(x))
    weights = fitted_weights(inverse, tf.constant(signal), tf.constant(x), 0.5, record)
    # the divisor from what the layer itself makes of a sample: y - beta = gamma (x - mean) / sigma
    beta = np.asarray(layer.beta, np.float64) if getattr(layer, "beta", None) is not None else 0.0
    gamma = next((np.asarray(g, np.float64) for g in (getattr(layer, n, None) for n in ("gamma", "scale"))
                  if g is not None and not isinstance(g, bool)), 1.0)  # fmt: skip
    y = np.asarray(layer(x), np.float64)
    normed = (y - beta) / gamma
    within = centred(x.astype(np.float64), kind, options, shape)
    sure = np.abs(normed) > 0.05
    divisor = np.asarray(record[0], np.float64) if relu else np.ones(())
    if relu:
        np.testing.assert_allclose(np.broadcast_to(divisor, x.shape)[sure], (within / normed)[sure], rtol=1e-4)
    features, targets = ((a * np.ones(x.shape)).reshape(-1, np.prod(channels)) for a in ((signal - beta) * divisor, x))
    for c, (w, b) in enumerate(zip(weights[0].ravel(), weights[1].ravel(), strict=True)):
        kernel, bias = ridge(features[:, [c]], targets[:, [c]], 0.5)
        assert w == pytest.approx(kernel[0, 0], rel=1e-5, abs=1e-9) and b == pytest.approx(bias[0], rel=1e-5, abs=1e-7)
    wanted = signal * divisor * weights[0]
    assert close(inverse.attribution(tf.constant(signal), record, weights), wanted, 1e-10)
    source = wanted + weights[1] - beta * divisor * weights[0]
    assert close(inverse.source(tf.constant(signal), record, weights), source, 1e-10)


def test_a_record_is_the_samples_own(rng):
    layer, x = example(L.GroupNormalization, {"groups": 2}, (3, 4), rng)
    inverse = inverse_of(layer, (3, 4))
    (whole,), (alone,) = (inverse.record(tf.constant(a), None) for a in (x, x[7:8]))
    np.testing.assert_allclose(alone[0], whole[7], rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [L.LayerNormalization(axis=1, name="inner"), L.LayerNormalization(axis=(1, 3), name="inner"),
     L.GroupNormalization(2, axis=1, name="inner"), L.UnitNormalization(axis=2, name="inner")],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_normalization_over_another_axis_is_refused(layer):
    with pytest.raises(ValueError, match=r"'inner' .*last axis"):
        inverse_of(layer, (4, 3, 2))


def network(*layers):
    head = [L.Conv2D(4, 3, name="conv"), *layers, L.GlobalAveragePooling2D(), L.Dense(3, name="head")]
    return balanced(with_weights(keras.Sequential([keras.Input((6, 5, 2)), *head])))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("kind", [L.LayerNormalization, lambda: L.GroupNormalization(2), L.UnitNormalization])
@pytest.mark.few(2)
def test_a_network_is_fitted_with_what_its_samples_record(kind, relu):
    model, x = network(kind()), samples((6, 5, 2), 40)
    analyzer = create_analyzer(
        "mipin", model, classes=1, verbose=0, rows=None, neuron_selection_mode="index", forward_relu=relu
    ).fit(x)
    step = analyzer.network.learned[-2]
    hidden = np.asarray(keras.Model(model.inputs, model.get_layer("conv").output)([x]))
    inverse = analyzer.network.regression(step)
    # the regression of the whole data at once, from the signal that the head's own gives
    seen = analyzer.network.forward(x)
    above = {i: tuple(tf.cast(w, tf.float64) for w in ws) for i, ws in analyzer.network.weights[1].items()}
    kernel, bias = above[analyzer.network.learned[0].index]
    spread = np.asarray(seen.logits, np.float64)[:, 1:2] @ kernel + bias
    signal = np.broadcast_to(spread[:, None, None], hidden.shape)
    record = inverse.record(tf.constant(hidden), None)
    wanted = fitted_weights(inverse, tf.constant(signal), tf.constant(hidden), 1e-3, record)
    for found, of in zip(analyzer.network.weights[1][step.index], wanted, strict=True):
        assert close(found, of, 1e-4)
    whole = analyzer.analyze(x, 1)
    assert np.isfinite(whole).all() and whole.std() > 0
    np.testing.assert_allclose(analyzer.analyze(x[3:4], 1)[0], whole[3], rtol=1e-4, atol=1e-6)


def test_every_kind_of_layer_below_one_another():
    layers = [
        L.Rescaling(0.5, -1.0), L.Normalization(mean=[0.1, 0.2], variance=[1.0, 2.0]),
        L.Conv2DTranspose(4, 3, strides=2, padding="same", name="up"), L.LayerNormalization(), L.PReLU(),
        L.DepthwiseConv2D(3, depth_multiplier=2, activation="silu"), L.GroupNormalization(2), L.LeakyReLU(),
        L.Resizing(6, 5), L.SeparableConv2D(6, 3, padding="same", activation="relu6"), L.UnitNormalization(),
        L.CenterCrop(4, 4), L.Conv2D(4, 2, strides=2, activation="gelu"),
    ]  # fmt: skip
    a = b = keras.Input((6, 5, 2))
    for layer in layers:
        b = layer(b)
    b = keras.ops.elu(keras.ops.pad(b, ((0, 0), (1, 0), (0, 1), (0, 0))))
    b = keras.ops.mean(keras.ops.transpose(keras.ops.reshape(b, (-1, 9, 4)), (0, 2, 1)), axis=-1) / 3.0 + 1.0
    model = with_weights(keras.Model(a, L.Dense(3, name="head")(b)))
    x = samples((6, 5, 2), 60)
    analyzer = create_analyzer("mipin", model, classes=[0, 2], verbose=0, neuron_selection_mode="index").fit(x)
    assert len({line["layer"] for line in analyzer.fit_report}) == 9
    assert all(0 < line["relative"] < 1.001 for line in analyzer.fit_report)
    for found in (analyzer.analyze(x, 2), analyzer.source_signal(x, 2)):
        assert found.shape == x.shape and np.isfinite(found).all() and found.std() > 0
