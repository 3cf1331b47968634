"""Inverses of slices, splits, flips and stacks: against matrices made by NumPy's own indexing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse
from mipin_keras.mipin.layers.indexing import DisjointInverse, SelectionInverse
from mipin_keras.mipin.layers.merge import FanOutInverse
from tests.networks import close, samples, with_weights

L, K = keras.layers, keras.ops
SHAPE = (4, 5, 2)


def matrix(function, shape=SHAPE):
    """The matrix of a function of NumPy arrays ``(n, *shape)``, flat input to flat output."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return function(basis).reshape(len(basis), -1).T


def first_step(function, shape=SHAPE):
    x = keras.Input(shape)
    y = function(x)
    y = L.Flatten()(y) if len(y.shape) > 2 else y
    return ModelGraph(keras.Model(x, L.Dense(2)(y))).steps[0]


SELECTIONS = {
    "rows": (lambda x: x[:, 1:3], lambda x: x[:, 1:3]),
    "one row": (lambda x: x[:, -1], lambda x: x[:, -1]),
    "steps": (lambda x: x[:, ::2, 1:], lambda x: x[:, ::2, 1:]),
    "backwards": (lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
    "a channel": (lambda x: x[..., 1], lambda x: x[..., 1]),
    "a new axis": (lambda x: x[:, 2, None, :], lambda x: x[:, 2, None, :]),
    "split": (lambda x: K.split(x, 2, axis=1)[1], lambda x: x[:, 2:]),
    "split at": (lambda x: K.split(x, [1, 4], axis=2)[1], lambda x: x[:, :, 1:4]),
    "unstack": (lambda x: K.unstack(x, axis=2)[3], lambda x: x[:, :, 3]),
    "flip": (lambda x: K.flip(x, axis=1), lambda x: x[:, ::-1]),
    "flip channels": (lambda x: K.flip(x, axis=-1), lambda x: x[..., ::-1]),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_a_selection_goes_back_by_its_adjoint(kind, rng):
    function, by_numpy = SELECTIONS[kind]
    inverse = make_inverse(first_step(function))
    assert type(inverse) is SelectionInverse and not inverse.learned
    adjoint = matrix(by_numpy)
    signal = rng.normal(size=(3, *inverse.output_shape))
    wanted = (signal.reshape(3, -1) @ adjoint).reshape(3, *SHAPE)
    for dtype in (np.float64, np.float32):
        for way in (inverse.source, inverse.attribution):
            found = way(tf.constant(signal.astype(dtype)), (), ())
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, wanted.astype(dtype))
    np.testing.assert_array_equal(inverse.places, adjoint.any(axis=0).reshape(SHAPE))
    layer = inverse.keras_layer("undone")
    np.testing.assert_array_equal(layer(tf.constant(signal, tf.float32)), wanted.astype("float32"))


@pytest.mark.parametrize("function", [lambda x: K.flip(x, axis=0), K.flip], ids=["samples", "every axis"])
def test_what_moves_samples_is_refused(function):  # a slice of the samples Keras refuses itself
    with pytest.raises(ValueError, match="expected"):
        make_inverse(first_step(function))


# Stacks


def stack_of(order, axis):
    """The inverse of a stack of tensors a, b of shape (3, 2) in some order, and NumPy's."""
    x = keras.Input((12,))
    parts = {"a": L.Reshape((3, 2), name="a")(x[:, :6]), "b": L.Reshape((3, 2), name="b")(x[:, 6:])}
    stacked = K.stack([parts[name] for name in order], axis=axis)
    graph = ModelGraph(keras.Model(x, L.Dense(2)(L.Flatten()(stacked))))
    (step,) = [step for step in graph.steps if type(step.layer).__name__ == "Stack"]
    return make_inverse(step)


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_stack_is_taken_apart(order, axis, rng):
    xs = [rng.normal(size=(4, 3, 2)) for _ in order]
    inverse = stack_of(order, axis)
    signal = np.stack(xs, axis=axis)
    assert signal.shape[1:] == inverse.output_shape and not inverse.learned
    for found, wanted in zip(inverse.source(tf.constant(signal), (), ()), xs, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_tensor_that_is_stacked_twice_gets_the_mean(rng):
    signal = rng.normal(size=(4, 3, 3, 2))
    a, b = stack_of("aba", 1).source(tf.constant(signal), (), ())
    np.testing.assert_allclose(a, (signal[:, 0] + signal[:, 2]) / 2, rtol=1e-12)
    np.testing.assert_array_equal(b, signal[:, 1])


# Parts that are read apart


def split_model(*places):
    """Parts of the input, each with a Dense of its own."""
    x = keras.Input((6,))
    parts = [L.Dense(3, activation="tanh", name=f"part{i}")(x[:, a:b]) for i, (a, b) in enumerate(places)]
    return with_weights(keras.Model(x, L.Dense(2, name="head")(L.Concatenate()(parts))))


@pytest.mark.parametrize(
    ("places", "inverse"),
    [(((0, 2), (2, 6)), DisjointInverse), (((0, 2), (4, 6)), DisjointInverse), (((0, 4), (2, 6)), FanOutInverse)],
)
def test_parts_that_are_read_apart_stand_side_by_side(places, inverse):
    model, x = split_model(*places), samples((6,), 60)
    analyzer = create_analyzer("mipin", model, forward_relu=False, verbose=0).fit(x)
    (meeting,) = [node for node in analyzer.network.nodes if node.step is None]
    assert type(meeting.inverse) is inverse
    maps, signals = analyzer.analyze(x), analyzer.source_signal(x)
    assert np.isfinite(maps).all() and maps.any()
    if inverse is DisjointInverse:
        inside = np.zeros(6, bool)
        for a, b in places:
            inside[a:b] = True
        assert (maps[:, ~inside] == 0).all() and (signals[:, ~inside] == 0).all()
        assert (np.abs(maps[:, inside]).max(axis=0) > 0).all()


def test_two_halves_are_two_models():
    """A model of two halves of its input is that of two inputs."""
    x = samples((6,), 80)
    model = split_model((0, 2), (2, 6))
    a, b = keras.Input((2,)), keras.Input((4,))
    layers = [model.get_layer(name) for name in ("part0", "part1", "head")]
    two = keras.Model([a, b], layers[2](L.Concatenate()([layers[0](a), layers[1](b)])))
    options = {"verbose": 0, "classes": [1], "neuron_selection_mode": "index"}
    joint = create_analyzer("mipin", model, **options).fit(x)
    apart = create_analyzer("mipin", two, **options).fit([x[:, :2], x[:, 2:]])
    for way in ("analyze", "source_signal"):
        wanted = np.concatenate(getattr(apart, way)([x[:9, :2], x[:9, 2:]], 1), axis=1)
        assert close(getattr(joint, way)(x[:9], 1), wanted, 1e-4)
