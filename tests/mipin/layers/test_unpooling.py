"""MaxSwitches and MaxUnpooling as Keras layers, against loops over every window."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras import MaxSwitches, MaxUnpooling
from tests.reference import pool, unpool_max, windows

# spatial shape, pool, strides: tiles, leftovers, overlap, gaps; 1D, 2D, 3D
GEOMETRIES = [
    ((9,), 2, None), ((9,), 3, 2), ((6, 6), 2, None), ((7, 8), (2, 3), None), ((7, 6), 3, 2), ((8, 9), 2, (3, 4)),
    ((4, 5, 3), (3, 2, 2), (1, 2, 1)), ((4, 4, 4), 2, None),
]  # fmt: skip
GEOMETRIES = [(*each, padding) for each in GEOMETRIES for padding in ("valid", "same")] + [((2, 3), 4, None, "same")]
GEOMETRY = pytest.mark.parametrize(("spatial", "size", "strides", "padding"), GEOMETRIES)


def each(value, spatial):
    return (value,) * len(spatial) if isinstance(value, int) else value


def settings(spatial, size, strides):
    """Pool sizes and strides of each axis."""
    sizes = each(size, spatial)
    return sizes, sizes if strides is None else each(strides, spatial)


def argmax(x, sizes, strides, padding):
    """The flat index in its sample of each window's first maximum, by a loop."""
    outputs, elements = windows(x.shape[1:-1], sizes, strides, [1] * len(sizes), padding)
    flat, channels = x.reshape(len(x), -1, x.shape[-1]), x.shape[-1]
    found = np.empty((len(x), len(elements), channels), int)
    for output, window in enumerate(elements):
        places = [place for place in window if place is not None]
        first = np.asarray(places)[flat[:, places].argmax(axis=1)]
        found[:, output] = first * channels + np.arange(channels)
    return found.reshape(len(x), *outputs, channels)


@GEOMETRY
def test_switches_and_unpooling_are_the_loop(spatial, size, strides, padding, rng):
    sizes, steps = settings(spatial, size, strides)
    x = np.maximum(rng.integers(-2, 4, (3, *spatial, 2)), 0).astype("float32")  # equal maxima
    switches = MaxSwitches(size, strides, padding)(x)
    assert switches.dtype == tf.int32
    np.testing.assert_array_equal(switches, argmax(x, sizes, steps, padding))
    signal = rng.normal(size=switches.shape)
    layer = MaxUnpooling(spatial, size, strides, padding)
    found = layer(tf.constant(signal), switches)
    assert found.dtype == tf.float64 and found.shape == x.shape
    np.testing.assert_allclose(found, unpool_max(x, signal, sizes, steps, padding), rtol=1e-12, atol=1e-15)
    assert layer.compute_output_shape((None, *signal.shape[1:])) == (None, *x.shape[1:])
    np.testing.assert_array_equal(layer(tf.constant(signal), tf.cast(switches, tf.int64)), found)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_it_takes_the_switches_of_tensorflow(padding, rng):
    x = rng.normal(size=(4, 7, 6, 3)).astype("float32")
    for size, strides in ((2, 2), (3, 2)):
        y, switches = tf.nn.max_pool_with_argmax(x, size, strides, padding)
        found = MaxUnpooling((7, 6), size, strides, padding.lower())(y, switches)
        np.testing.assert_array_equal(MaxSwitches(size, strides, padding.lower())(x), switches)
        kept = np.isin(np.arange(x[0].size), switches[0]).reshape(x.shape[1:])
        np.testing.assert_allclose(found[0], np.where(kept, x[0], 0), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 2)])
def test_any_float_dtype_stays_what_it_is(dtype, size, strides, rng):
    x = tf.cast(rng.integers(-50, 50, (2, 7, 7, 2)), dtype)  # exact in each
    switches = MaxSwitches(size, strides)(x)
    np.testing.assert_array_equal(
        switches, argmax(np.asarray(x, np.float32), *settings((7, 7), size, strides), "valid")
    )
    signal = tf.cast(rng.integers(-8, 8, switches.shape), dtype)
    found = MaxUnpooling((7, 7), size, strides)(signal, switches)
    assert found.dtype == dtype
    sizes, steps = settings((7, 7), size, strides)
    wanted = unpool_max(np.asarray(x, np.float64), np.asarray(signal, np.float64), sizes, steps, "valid")
    tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, 1e-6)
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=tolerance)


def test_digits_of_float64_are_kept_beside_a_float32_policy():
    signal = tf.constant(np.full((1, 1, 1, 1), 1 + 1e-12))
    found = MaxUnpooling((2, 2))(signal, tf.zeros((1, 1, 1, 1), tf.int32))
    assert found[0, 0, 0, 0] == 1 + 1e-12
    assert MaxUnpooling((2, 2))(signal.numpy(), np.zeros((1, 1, 1, 1), "int32")).dtype == tf.float64


@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 2), (3, 1)])
def test_one_trace_takes_every_batch_size(size, strides, rng):
    switches, unpooling = MaxSwitches(size, strides), MaxUnpooling((7, 6), size, strides)
    traced = []

    @tf.function(
        input_signature=[tf.TensorSpec((None, 7, 6, 2)), tf.TensorSpec((None, None, None, 2))], autograph=False
    )
    def both(x, signal):
        traced.append(1)
        found = switches(x)
        return unpooling(tf.ensure_shape(signal, found.shape), found)

    for n in (1, 4, 2):
        x = rng.normal(size=(n, 7, 6, 2)).astype("float32")
        y = np.asarray(keras.layers.MaxPooling2D(size, strides)(x))
        found = both(x, y)
        assert found.shape == x.shape
        np.testing.assert_allclose(found, unpool_max(x, y, *settings((7, 6), size, strides), "valid"), rtol=1e-6)
    assert len(traced) == 1


@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 1)])
def test_the_gradient_goes_back_to_the_signal(size, strides, rng):
    x = rng.normal(size=(2, 5, 5, 1)).astype("float32")
    switches = MaxSwitches(size, strides)(x)
    layer = MaxUnpooling((5, 5), size, strides)
    signal, weight = tf.constant(rng.normal(size=switches.shape)), rng.normal(size=x.shape)
    with tf.GradientTape() as tape:
        tape.watch(signal)
        total = tf.reduce_sum(layer(signal, switches) * weight)
    units = np.eye(signal[0].numpy().size).reshape(-1, *signal.shape[1:])
    wanted = []
    for i in range(2):
        where = tf.repeat(switches[i : i + 1], len(units), axis=0)
        wanted.append((np.asarray(layer(tf.constant(units), where)) * weight[i]).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(tape.gradient(total, signal).numpy().reshape(2, -1), wanted, rtol=1e-9)


def test_in_a_functional_model_saved_and_loaded(tmp_path, rng):
    image = keras.Input((7, 6, 2))
    pooled = keras.layers.MaxPooling2D(3, 2)(image)
    switches = MaxSwitches(3, 2, name="switches")(image)
    assert switches.dtype == "int32" and switches.shape == (None, 3, 2, 2)
    back = MaxUnpooling((7, 6), 3, 2, name="unpool")(pooled, switches)
    assert back.shape == (None, 7, 6, 2)
    model = keras.Model(image, back)
    x = rng.normal(size=(5, 7, 6, 2)).astype("float32")
    wanted = unpool_max(x, pool(x, (3, 3), (2, 2), "valid"), (3, 3), (2, 2), "valid")
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert type(again.get_layer("unpool")) is MaxUnpooling and again.get_layer("unpool").strides == 2


def test_the_config_makes_the_layer_anew():
    layer = MaxUnpooling((9, 7), (2, 3), (1, 2), "same", name="mine")
    again = MaxUnpooling.from_config(layer.get_config())
    for name in ("spatial_shape", "pool_size", "strides", "padding", "name"):
        assert getattr(again, name) == getattr(layer, name)
    assert keras.saving.get_registered_name(MaxUnpooling) == "mipin_keras>MaxUnpooling"
    assert keras.saving.get_registered_name(MaxSwitches) == "mipin_keras>MaxSwitches"
    assert MaxUnpooling(9).spatial_shape == (9,) and mipin_keras.MaxUnpooling is MaxUnpooling


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (((4, 4), 0), "pool_size to be an integer of at least 1, received 0"),
        (((4, 4), 2, 0.5), "strides to be an integer"), (((4, 4), (2,)), r"pool_size=\(2,\).*2 spatial axes"),
        (((4, 4), 2, 2, "full"), "padding to be one of"), (((4, 4), 5), r"fit into the spatial axes \(4, 4\).*=5"),
        (((4, None), 2), "spatial_shape to be an integer"), (((2, 2, 2, 2), 2), "1 to 3 spatial axes"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        MaxUnpooling(*arguments)


def test_wrong_tensors_are_refused():
    layer = MaxUnpooling((4, 4), 2, name="mine")
    good, wrong = tf.zeros((1, 2, 2, 1)), tf.zeros((1, 3, 2, 1))
    for signal, switches, name in ((wrong, good, "signal"), (good, wrong, "switches")):
        with pytest.raises(ValueError, match=rf"{name} of shape \(batch.*'mine'.*received \(1, 3, 2, 1\)"):
            layer(signal, tf.cast(switches, tf.int32))
    with pytest.raises(ValueError, match="2 spatial axes"):
        MaxSwitches((2, 2, 2))(tf.zeros((1, 4, 4, 1)))
