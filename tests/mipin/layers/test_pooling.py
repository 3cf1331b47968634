"""Unpooling against loops over every window."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.mipin.inverse import make_inverse
from tests.networks import inverse_of, operation_step
from tests.reference import pool, unpool_average, unpool_max

L, K = keras.layers, keras.ops
MAX = {1: L.MaxPooling1D, 2: L.MaxPooling2D, 3: L.MaxPooling3D}
AVERAGE = {1: L.AveragePooling1D, 2: L.AveragePooling2D, 3: L.AveragePooling3D}

# spatial shape, pool, strides: tiles, leftovers at the border, overlap, gaps
GEOMETRIES = [
    ((8,), (2,), (2,)), ((9,), (2,), (2,)), ((9,), (4,), (4,)), ((9,), (3,), (2,)), ((9,), (3,), (1,)),
    ((11,), (2,), (3,)), ((11,), (3,), (5,)),
    ((6, 6), (2, 2), (2, 2)), ((7, 8), (2, 3), (2, 3)), ((5, 7), (3, 2), (3, 2)), ((7, 6), (3, 3), (2, 2)),
    ((6, 5), (3, 2), (1, 1)), ((7, 5), (3, 2), (2, 3)), ((8, 9), (2, 2), (3, 4)), ((5, 5), (5, 5), (5, 5)),
    ((4, 4, 4), (2, 2, 2), (2, 2, 2)), ((5, 3, 4), (2, 2, 3), (2, 2, 3)), ((4, 5, 3), (3, 2, 2), (1, 2, 1)),
    ((5, 4, 3), (1, 2, 1), (2, 3, 1)),
]  # fmt: skip
EVERYWHERE = pytest.mark.parametrize("padding", ["valid", "same"])
GEOMETRY = pytest.mark.parametrize(("spatial", "size", "strides"), GEOMETRIES)


def unpooled(layer, x, signal):
    inverse = inverse_of(layer, x.shape[1:])
    record = inverse.record(tf.constant(x), layer(x))
    assert all(r.shape[0] == len(x) for r in record)  # per sample: rows can be taken
    found = inverse.source(tf.constant(signal), record, ())
    np.testing.assert_array_equal(inverse.attribution(tf.constant(signal), record, ()), found)
    assert found.dtype == signal.dtype
    return found.numpy()


@EVERYWHERE
@GEOMETRY
@pytest.mark.few(10)
def test_max_unpooling_is_the_loop(spatial, size, strides, padding, rng):
    layer = MAX[len(spatial)](size, strides, padding)
    x = rng.normal(-3, 1, (3, *spatial, 2)).astype("float32")  # below 0: padding must never win
    y = pool(x, size, strides, padding)
    np.testing.assert_array_equal(layer(x), y)  # the reference itself
    signal = rng.normal(size=y.shape)
    found = unpooled(layer, x, signal)
    np.testing.assert_allclose(found, unpool_max(x, signal, size, strides, padding), rtol=1e-12)
    # a signal that is the pooled input comes back where it was, and nothing else does
    back = unpooled(layer, x, y.astype("float32"))
    np.testing.assert_allclose(back[back != 0], x[back != 0], rtol=1e-6)
    assert np.isin(y, x[back != 0]).all() and (back != 0).sum() <= y.size


@EVERYWHERE
@GEOMETRY
def test_the_first_of_equal_maxima_is_taken(spatial, size, strides, padding, rng):
    layer = MAX[len(spatial)](size, strides, padding)
    x = np.maximum(rng.integers(-2, 3, (4, *spatial, 2)), 0).astype("float32")  # many zeros, as after ReLU
    signal = rng.normal(size=layer(x).shape)
    np.testing.assert_allclose(
        unpooled(layer, x, signal), unpool_max(x, signal, size, strides, padding), rtol=1e-12, atol=1e-15
    )


@EVERYWHERE
@pytest.mark.parametrize("value", [0.0, -1.0, 2.0])
@pytest.mark.parametrize(
    ("spatial", "size", "strides"), [((6, 6), 2, 2), ((7, 7), 3, 2), ((4, 4, 4), 2, 2), ((9,), 2, 2)]
)
def test_a_flat_input_sends_everything_to_the_first(spatial, size, strides, padding, value):
    layer = MAX[len(spatial)](size, strides, padding)
    x = np.full((1, *spatial, 1), value, np.float32)
    signal = np.arange(1.0, 1 + np.prod(layer(x).shape)).reshape(layer(x).shape)
    rank = len(spatial)
    wanted = unpool_max(x, signal, (size,) * rank, (strides,) * rank, padding)
    np.testing.assert_allclose(unpooled(layer, x, signal), wanted)


def test_windows_that_chose_one_element_give_it_their_mean():
    x = np.array([0, 0, 5, 0, 0], np.float32).reshape(1, 5, 1)
    found = unpooled(L.MaxPooling1D(3, 1), x, np.array([1.0, 2.0, 6.0]).reshape(1, 3, 1))
    np.testing.assert_array_equal(found.ravel(), [0, 0, 3, 0, 0])


@EVERYWHERE
@GEOMETRY
def test_average_unpooling_is_the_loop(spatial, size, strides, padding, rng):
    layer = AVERAGE[len(spatial)](size, strides, padding)
    x = rng.normal(size=(3, *spatial, 2)).astype("float32")
    y = pool(x, size, strides, padding, largest=False)
    np.testing.assert_allclose(layer(x), y, rtol=1e-4, atol=1e-6)
    signal = rng.normal(size=y.shape)
    found = unpooled(layer, x, signal)
    np.testing.assert_allclose(found, unpool_average(x.shape, signal, size, strides, padding), rtol=1e-9, atol=1e-12)


def test_average_unpooling_of_tiles_is_the_pseudo_inverse(rng):
    layer = L.AveragePooling2D((2, 3))
    matrix = np.stack([np.asarray(layer(unit.reshape(1, 4, 6, 1))).ravel() for unit in np.eye(24, dtype="float32")])
    signal = rng.normal(size=(2, 2, 2, 1))
    found = unpooled(layer, np.zeros((2, 4, 6, 1), np.float32), signal)
    np.testing.assert_allclose(found.reshape(2, -1), signal.reshape(2, -1) @ np.linalg.pinv(matrix), atol=1e-6)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 2)])
def test_global_pooling_is_pooling_over_everything(spatial, keepdims, rng):
    rank = len(spatial)
    x = np.maximum(rng.integers(-3, 3, (4, *spatial, 3)), 0).astype("float32")
    for kind, loop in [("Max", unpool_max), ("Average", lambda x, *rest: unpool_average(x.shape, *rest))]:
        layer = getattr(L, f"Global{kind}Pooling{rank}D")(keepdims=keepdims)
        signal = rng.normal(size=layer(x).shape)
        found = unpooled(layer, x, signal)
        np.testing.assert_allclose(found, loop(x, signal, spatial, (1,) * rank, "valid"), rtol=1e-12)


REDUCED = [
    ((5,), (1,)), ((5,), -1), ((3, 4), 1), ((3, 4), (-1,)), ((3, 4), (2, 1)), ((3, 2, 4), (1, 2)), ((3, 2, 4), (1, 3)),
    ((3, 2, 4), -2),
]  # fmt: skip


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), REDUCED)
def test_reductions_between_layers(shape, axis, keepdims, rng):
    x = np.maximum(rng.integers(-3, 3, (4, *shape)), 0).astype("float32")  # equal maxima
    axes = tuple(np.arange(len(shape) + 1)[[axis] if isinstance(axis, int) else list(axis)])
    count = np.prod([x.shape[a] for a in axes])
    for function in (K.mean, K.sum, K.max, K.amax):
        step = operation_step(lambda z, f=function: f(z, axis=axis, keepdims=keepdims), shape)
        inverse = make_inverse(step)
        y = step({step.inputs[0]: tf.constant(x)})
        signal = rng.normal(size=y.shape)
        spread = np.broadcast_to(signal.reshape([1 if a in axes else n for a, n in enumerate(x.shape)]), x.shape)
        record = inverse.record(tf.constant(x), y)
        found = inverse.source(tf.constant(signal), record, ())
        assert all(r.shape[0] == 4 for r in record)
        if function is K.mean:
            wanted = spread
        elif function is K.sum:
            wanted = spread / count
        else:
            wanted = np.zeros(x.shape)
            for kept in np.ndindex(*(1 if a in axes else n for a, n in enumerate(x.shape))):
                places = [p for p in np.ndindex(*x.shape) if all(a in axes or p[a] == kept[a] for a in range(x.ndim))]
                best = max(places, key=lambda p: x[p])  # the first of equal ones
                wanted[best] = spread[best]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
        np.testing.assert_array_equal(inverse.attribution(tf.constant(signal), record, ()), found)


def test_means_and_sums_are_undone_by_the_pseudo_inverse(rng):
    for function in (K.mean, K.sum):
        step = operation_step(lambda z, f=function: f(z, axis=(1, 2)), (3, 4, 2))
        units = np.eye(24, dtype="float32").reshape(24, 3, 4, 2)
        matrix = np.asarray(step({step.inputs[0]: tf.constant(units)}), np.float64)
        signal = rng.normal(size=(5, 2))
        found = make_inverse(step).source(tf.constant(signal), (), ())
        np.testing.assert_allclose(np.reshape(found, (5, 24)), signal @ np.linalg.pinv(matrix), atol=1e-6)


def test_a_maximum_with_a_number_of_its_own_is_refused():
    step = operation_step(lambda x: K.max(x, axis=1, initial=0.0), (4, 3))
    with pytest.raises(ValueError, match=rf"'{step.name}' .*initial=0"):
        make_inverse(step)


def test_channels_do_not_mix(rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype("float32")
    for layer in (L.MaxPooling2D(2), L.MaxPooling2D(3, 2), L.AveragePooling2D(2), L.GlobalMaxPooling2D()):
        signal = np.zeros(layer(x).shape)
        signal[..., 1] = 1.0
        found = unpooled(layer, x, signal)
        assert found[..., 1].any() and not found[..., [0, 2]].any()


def test_a_sample_is_unpooled_alone_as_in_a_batch(rng):
    x = rng.normal(size=(5, 7, 6, 2)).astype("float32")
    for layer in (L.MaxPooling2D(2), L.MaxPooling2D(3, 2)):
        signal = rng.normal(size=layer(x).shape)
        whole = unpooled(layer, x, signal)
        for i in range(5):
            np.testing.assert_array_equal(unpooled(layer, x[[i]], signal[[i]]), whole[[i]])
