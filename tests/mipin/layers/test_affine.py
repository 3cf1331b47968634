"""Fixed affine maps and their exact inverses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse
from mipin_keras.mipin.layers.affine import AffineInverse
from tests.networks import inverse_of, operation_step, samples, with_weights
from tests.reference import ridge

L, K = keras.layers, keras.ops
SHAPE = (4, 3, 2)
VECTOR = np.array([-0.3, 4.0], np.float32)


def adapted(**options):
    layer = L.Normalization(**options)
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, *SHAPE)).astype("float32"))
    return layer


LAYERS = {
    "scalar": lambda: L.Rescaling(1 / 127.5, offset=-1),
    "channels": lambda: L.Rescaling(VECTOR, offset=[1.0, 2.0]),
    "adapted": adapted,
    "elements": lambda: adapted(axis=(1, 2, 3)),
    "rows": lambda: adapted(axis=1),
    "given": lambda: L.Normalization(mean=[1.0, 100.0], variance=[0.25, 4.0]),
    "inverted": lambda: adapted(invert=True),
    "no variance": lambda: L.Normalization(mean=0.5, variance=0.0, axis=None),
}
OPERATIONS = {
    "add": lambda x: x + 3.5,
    "add left": lambda x: 3.5 + x,
    "add array": lambda x: K.add(x, VECTOR),
    "add batch of one": lambda x: K.add(x, np.ones((1, 4, 3, 2), "float32")),
    "add image": lambda x: K.add(np.arange(24, dtype="float32").reshape(SHAPE), x),
    "subtract": lambda x: x - VECTOR,
    "subtract from": lambda x: 1.0 - x,
    "multiply": lambda x: K.multiply(x, VECTOR),
    "multiply left": lambda x: 2 * x,
    "divide": lambda x: K.divide(x, VECTOR),
    "true_divide": lambda x: x / 127.5,
    "negative": lambda x: -x,
}


def examples():
    for name, make in LAYERS.items():
        yield pytest.param(lambda make=make: make_step(make()), id=name)
    for name, function in OPERATIONS.items():
        yield pytest.param(lambda function=function: operation_step(function, SHAPE), id=name)


def make_step(layer):
    return inverse_of(layer, SHAPE).step


def applied(step, x):
    return np.asarray(step({step.inputs[0]: tf.constant(x)}), np.float64)


@pytest.mark.parametrize("make", list(examples()))
def test_the_input_comes_back(make, rng):
    step = make()
    inverse = make_inverse(step)
    assert isinstance(inverse, AffineInverse) and not inverse.learned
    x = rng.normal(0.5, 2, (5, *SHAPE)).astype("float32")
    y = applied(step, x)
    assert not np.allclose(y, x)
    np.testing.assert_allclose(inverse.source(tf.constant(y), (), ()), x, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("make", list(examples()))
def test_the_attribution_is_the_source_without_its_constant(make, rng):
    inverse = make_inverse(make())
    s, t = (tf.constant(rng.normal(size=(3, *SHAPE))) for _ in range(2))
    constant = inverse.source(tf.zeros_like(s), (), ())
    np.testing.assert_allclose(inverse.source(s, (), ()), inverse.attribution(s, (), ()) + constant, atol=1e-9)
    both = inverse.attribution(2 * s - t, (), ())
    np.testing.assert_allclose(both, 2 * inverse.attribution(s, (), ()) - inverse.attribution(t, (), ()), atol=1e-9)


def test_a_regression_finds_the_same(rng):
    step = operation_step(lambda x: K.multiply(x, VECTOR), SHAPE)
    x = samples(SHAPE, 40)
    y = applied(step, x)
    inverse = make_inverse(step)
    for c in range(2):
        kernel, bias = ridge(y[..., c].reshape(-1, 1), x[..., c].reshape(-1, 1), 1e-9)
        wanted = y[..., c] * kernel[0, 0] + bias[0]
        np.testing.assert_allclose(inverse.source(tf.constant(y), (), ())[..., c], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.0 * x, lambda x: K.multiply(x, np.array([1.0, 0.0], "float32")), lambda x: 2.0 / x,
        lambda x: x / 0.0, lambda x: x * float("nan"), lambda x: x + float("inf"),
    ],
)  # fmt: skip
def test_what_loses_its_input_is_refused(function):
    step = operation_step(function, SHAPE)
    with pytest.raises(ValueError, match=rf"'{step.name}' .*multiplies it by 0.*register_inverse"):
        make_inverse(step)


def test_a_rescaling_by_0_is_refused():
    with pytest.raises(ValueError, match=r"'flat' \(Rescaling\).*multiplies it by 0"):
        inverse_of(L.Rescaling(0.0, name="flat"), SHAPE)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x + np.ones((3,), "float32"), (4, 1)),  # makes more of each sample
        (lambda x: x * np.full((5, 4, 2), 2.0, "float32"), (4, 2)),  # another factor for each sample of a batch
        (lambda x: x - np.ones((1, 3, 4, 2), "float32"), (4, 2)),  # makes more axes
    ],
)
def test_constants_that_broaden_the_input_are_refused(function, shape):
    step = operation_step(function, shape)
    with pytest.raises(ValueError, match=rf"'{step.name}' .*the shape .* of each sample, received constants"):
        make_inverse(step)


def test_arithmetic_of_two_tensors_is_no_affine_map():
    x = keras.Input((4,))
    step = ModelGraph(keras.Model(x, L.Dense(2)(x + x))).steps[0]
    assert not isinstance(make_inverse(step), AffineInverse)


def test_a_rescaled_input_is_explained_in_its_own_units():
    scaled = with_weights(keras.Sequential([keras.Input((6,)), L.Rescaling(0.2, 1.0), L.Dense(3)]))
    plain = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    plain.set_weights(scaled.get_weights())
    x = samples((6,), 40)
    y = (0.2 * x + 1).astype("float32")
    found, wanted = (mipin_keras.create_analyzer("mipin", m, verbose=0).fit(z) for m, z in ((scaled, x), (plain, y)))
    np.testing.assert_allclose(found.analyze(x), wanted.analyze(y) / 0.2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.source_signal(x), (wanted.source_signal(y) - 1) / 0.2, rtol=1e-4, atol=1e-4)
