"""Layers that move, drop or mask values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph.model_graph import ModelGraph, Step
from mipin_keras.mipin.inverse import make_inverse
from tests.networks import inverse_of, operation_step

L, K = keras.layers, keras.ops


def applied(layer, x):
    """What a layer, or a step from keras.ops, makes of ``x``."""
    return np.asarray(layer({layer.inputs[0]: tf.constant(x)}) if isinstance(layer, Step) else layer(x))


def undone(layer, shape, signal, x=None, **options):
    inverse = make_inverse(layer, **options) if isinstance(layer, Step) else inverse_of(layer, shape, **options)
    x = np.zeros((len(signal), *shape), np.float32) if x is None else x
    record = inverse.record(tf.constant(x), tf.constant(applied(layer, x)))
    found = inverse.source(tf.constant(signal), record, ())
    np.testing.assert_array_equal(inverse.attribution(tf.constant(signal), record, ()), found)
    assert found.dtype == signal.dtype and found.shape == (len(signal), *shape)
    return found.numpy()


OPERATIONS = [
    (lambda x: K.reshape(x, (-1, 12, 2)), (3, 4, 2)), (lambda x: K.reshape(x, (-1, 2, 2, 6)), (3, 4, 2)),
    (lambda x: K.transpose(x, (0, 2, 1)), (3, 4)), (lambda x: K.transpose(x, (0, 3, 1, 2)), (2, 3, 4)),
    (lambda x: K.squeeze(x, 2), (3, 1, 2)), (lambda x: K.squeeze(x, -1), (3, 1)),
    (lambda x: K.squeeze(x, (1, 3)), (1, 4, 1)), (lambda x: K.expand_dims(x, 1), (3, 4)),
    (lambda x: K.expand_dims(x, -1), (3, 4)), (lambda x: K.expand_dims(x, (1, 3)), (3, 4)),
    (lambda x: K.pad(x, ((0, 0), (1, 2), (0, 1))), (3, 4)), (lambda x: K.pad(x, [[0, 0], [0, 0], [2, 0]]), (3, 4)),
    (lambda x: K.cast(x, "float32"), (3,)),
]  # fmt: skip


def described(value):
    return type(value).__name__ if isinstance(value, L.Layer) else str(value) if isinstance(value, tuple) else "ops"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Flatten(), (3, 4, 2)), (L.Flatten(), (5,)), (L.Reshape((4, 6)), (3, 4, 2)), (L.Reshape((-1, 3)), (6, 2)),
        (L.Permute((2, 1)), (3, 4)), (L.Permute((3, 1, 2)), (2, 3, 4)), (L.Permute((2, 3, 1)), (2, 3, 4)),
        (L.ZeroPadding1D(2), (4, 3)), (L.ZeroPadding1D((0, 3)), (4, 3)),
        (L.ZeroPadding2D(1), (3, 4, 2)), (L.ZeroPadding2D((2, 1)), (3, 4, 2)),
        (L.ZeroPadding2D(((0, 2), (1, 3))), (3, 4, 2)), (L.ZeroPadding3D(((1, 0), (0, 2), (3, 1))), (2, 3, 2, 2)),
        (L.Dropout(0.5), (4, 3)), (L.SpatialDropout1D(0.5), (4, 3)), (L.SpatialDropout2D(0.5), (4, 3, 2)),
        (L.SpatialDropout3D(0.5), (2, 3, 2, 2)), (L.AlphaDropout(0.5), (4,)), (L.GaussianDropout(0.5), (4,)),
        (L.GaussianNoise(1.0), (4,)), (L.ActivityRegularization(0.1), (4,)), (L.Identity(), (4,)),
        *OPERATIONS,
    ],
    ids=described,
)  # fmt: skip
def test_what_loses_nothing_is_undone(layer, shape, rng):
    layer = layer if isinstance(layer, L.Layer) else operation_step(layer, shape)
    x = rng.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_array_equal(undone(layer, shape, applied(layer, x)), x)
    # in float64 as well, and for a signal that the layer itself would never give
    signal = rng.normal(size=applied(layer, x).shape)
    order = applied(layer, np.arange(1, 1 + x.size).reshape(x.shape).astype("float32"))
    wanted = np.zeros(x.size)
    wanted[order[order > 0].astype(int) - 1] = signal[order > 0]
    np.testing.assert_array_equal(undone(layer, shape, signal).ravel(), wanted)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Cropping1D(1), (5, 2)), (L.Cropping1D((0, 2)), (5, 2)), (L.Cropping2D(((1, 0), (2, 1))), (4, 5, 2)),
        (L.Cropping2D(1), (4, 5, 2)), (L.Cropping3D(((1, 0), (0, 2), (0, 1))), (3, 4, 2, 1)),
        (L.CenterCrop(2, 3), (5, 6, 2)), (L.CenterCrop(4, 2), (5, 5, 1)), (L.CenterCrop(3, 1), (3, 4, 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else str(value),
)  # fmt: skip
def test_what_was_cropped_is_zero(layer, shape, rng):
    x = rng.normal(size=(3, *shape)).astype("float32")
    found = undone(layer, shape, np.asarray(layer(x)))
    assert (found == 0).sum() == x.size - np.asarray(layer(x)).size
    np.testing.assert_array_equal(found[found != 0], x[found != 0])
    np.testing.assert_array_equal(layer(found), layer(x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.UpSampling1D(3), (4, 2)), (L.UpSampling2D(2), (3, 4, 2)), (L.UpSampling2D((3, 1)), (2, 3, 1)),
        (L.UpSampling2D(2, interpolation="bilinear"), (3, 4, 2)),
        (L.UpSampling2D((2, 3), interpolation="bilinear"), (4, 2, 1)),
        (L.UpSampling2D(2, interpolation="bicubic"), (4, 3, 1)), (L.UpSampling3D((2, 1, 3)), (2, 3, 2, 2)),
        (L.Resizing(7, 9), (3, 4, 2)), (L.Resizing(6, 4, interpolation="nearest"), (3, 4, 1)),
        (L.Resizing(5, 8, interpolation="bicubic"), (4, 5, 1)), (L.Resizing(20, 3), (18, 2, 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else str(value),
)  # fmt: skip
def test_resizing_up_is_undone_by_least_squares(layer, shape, rng):
    least_squares(layer, shape, rng)
    x = rng.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(undone(layer, shape, np.asarray(layer(x))), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Resizing(3, 2), (7, 5, 2)), (L.Resizing(2, 8), (5, 4, 1)),
        (L.Resizing(3, 3, interpolation="nearest"), (6, 4, 1)), (L.Resizing(4, 3, interpolation="bicubic"), (9, 7, 1)),
        (L.RepeatVector(3), (4,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else str(value),
)  # fmt: skip
def test_resizing_down_and_copies_are_undone_by_least_squares(layer, shape, rng):
    found = least_squares(layer, shape, rng)
    again = undone(layer, shape, np.asarray(layer(found.astype("float32"))))
    np.testing.assert_allclose(again, found, rtol=1e-3, atol=1e-4)  # nothing is lost a second time


def least_squares(layer, shape, rng):
    """What is undone of a random signal, after a look at the pseudo-inverse of the layer's whole matrix."""
    size = int(np.prod(shape))
    matrix = np.asarray(layer(np.eye(size, dtype="float32").reshape(size, *shape))).reshape(size, -1).astype(float)
    outputs = layer.compute_output_shape((None, *shape))[1:]
    signal = rng.normal(size=(3, *outputs))
    wanted = signal.reshape(3, -1) @ np.linalg.pinv(matrix)
    found = undone(layer, shape, signal)
    np.testing.assert_allclose(found.reshape(3, -1), wanted, rtol=1e-4, atol=1e-5)
    return found


def bare_step(function, shape):
    """A step of an operation that no whole model could hold, as it has no batch to end in."""
    x = keras.Input(shape)
    y = function(x)
    layer = y._keras_history.operation
    return Step(0, layer.name, layer, False, (0,), 1, (shape,), tuple(y.shape[1:]), ((), {}))


def test_nearest_upsampling_is_undone_by_the_mean_of_each_block(rng):
    signal = rng.normal(size=(1, 4, 6, 1))
    found = undone(L.UpSampling2D((2, 3)), (2, 2, 1), signal)
    np.testing.assert_allclose(found[0, :, :, 0], signal.reshape(2, 2, 2, 3).mean(axis=(1, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: K.reshape(x, (-1, 2)), (3, 2)), (lambda x: K.transpose(x, (1, 0, 2)), (3, 2)),
        (lambda x: K.transpose(x), (3,)), (lambda x: K.squeeze(x), (3, 1)), (lambda x: K.pad(x, 1), (3, 2)),
        (lambda x: K.pad(x, ((1, 0), (0, 0))), (3,)), (lambda x: K.mean(x, axis=0, keepdims=True), (3,)),
        (lambda x: K.sum(x, axis=(-2, 1), keepdims=True), (3,)), (lambda x: K.max(x, axis=None, keepdims=True), (3,)),
    ],
)  # fmt: skip
def test_an_operation_that_touches_the_batch_axis_is_refused(function, shape):
    step = bare_step(function, shape)
    # where the batch comes to lie on another axis, that one is open
    with pytest.raises(ValueError, match=rf"'{step.name}' .*(batch axis.*one sample|static shape)"):
        make_inverse(step)


@pytest.mark.parametrize("mode", ["reflect", "symmetric"])
def test_a_padding_that_copies_is_refused(mode):
    step = operation_step(lambda x: K.pad(x, ((0, 0), (1, 1)), mode=mode), (4,))
    with pytest.raises(ValueError, match=rf"'{step.name}' .*mode='{mode}'"):
        make_inverse(step)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (L.Resizing(3, 3, crop_to_aspect_ratio=True, name="inner"), "crop_to_aspect_ratio"),
        (L.Resizing(3, 3, pad_to_aspect_ratio=True, name="inner"), "pad_to_aspect_ratio"),
        (L.Resizing(3, 3, dtype="uint8", name="inner"), "uint8|Cast"),  # older Keras casts in a step of its own
        (L.CenterCrop(9, 2, name="inner"), "which it resizes"),
    ],
)  # fmt: skip
def test_what_resizes_otherwise_is_refused(layer, named):
    with pytest.raises(ValueError, match=f"'inner'.*{named}"):
        inverse_of(layer, (4, 6, 2))


@pytest.mark.parametrize(
    "layer",
    [
        L.RandomFlip(), L.RandomRotation(0.1), L.RandomZoom(0.1), L.RandomContrast(0.1), L.RandomBrightness(0.1),
        L.RandomTranslation(0.1, 0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_augmentation_passes_through(layer, rng):
    signal = rng.normal(size=(2, 4, 6, 2))
    np.testing.assert_array_equal(inverse_of(layer, (4, 6, 2)).source(tf.constant(signal), (), ()), signal)


ACTIVATIONS = [
    "relu", "relu6", "elu", "selu", "gelu", "tanh", "sigmoid", "softplus", "softsign", "leaky_relu", "silu", "mish",
    "exponential", "hard_sigmoid", "hard_silu", "linear", "log_sigmoid", "celu", "hard_tanh", "hard_shrink",
    "soft_shrink", "tanh_shrink", "squareplus", "sparse_plus", "sparse_sigmoid", "threshold",
]  # fmt: skip


def elementwise():
    """Every activation of this Keras that works element by element, as a layer."""
    known = [name for name in ACTIVATIONS if hasattr(keras.activations, name)]
    layers = {name: L.Activation(keras.activations.get(name)) for name in known if name != "threshold"}
    layers["threshold"] = L.Activation("relu")
    layers |= {"ReLU": L.ReLU(6.0, 0.1, 0.5), "LeakyReLU": L.LeakyReLU(), "ELU": L.ELU(), "PReLU": L.PReLU()}
    names = ("relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "hard_silu", "softplus")
    return layers | {f"ops.{name}": getattr(K, name) for name in names}


@pytest.mark.parametrize(("name", "layer"), elementwise().items())
def test_an_activation_masks_where_its_output_is_zero(name, layer, rng):
    layer = operation_step(layer, (5,)) if name.startswith("ops.") else layer
    x = rng.normal(size=(6, 5)).astype("float32")
    x[0], x[1, 0] = 0.0, -100.0
    signal = rng.normal(size=(6, 5))
    y = applied(layer, x)
    np.testing.assert_array_equal(undone(layer, (5,), signal, x), np.where(y != 0, signal, 0))
    np.testing.assert_array_equal(undone(layer, (5,), signal, x, forward_relu=False), signal)
    if name in ("relu", "relu6", "ops.relu", "ops.relu6", "PReLU"):
        assert ((y == 0) == (x <= 0)).all()


def test_a_mask_stops_nan_and_infinity_too():
    # where(), not a product: 0 times infinity is NaN
    x = np.array([[-1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(undone(L.ReLU(), (2,), np.array([[np.inf, 1.0]]), x), [[0.0, 1.0]])


def test_the_mask_is_kept_as_booleans():
    inverse = inverse_of(L.ReLU(), (2,))
    (record,) = inverse.record(tf.constant([[-1.0, 2.0]]), tf.constant([[0.0, 2.0]]))
    assert record.dtype == tf.bool
    assert inverse_of(L.ReLU(), (2,), forward_relu=False).record(tf.constant([[1.0, 2.0]]), None) == ()


def own(x):
    return x * x


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: L.Activation(own, name="inner"), "own"),
        (lambda: L.Softmax(name="inner"), "softmax"),
        (lambda: L.Activation("log_softmax", name="inner"), "log_softmax"),
        (lambda: L.Dense(4, activation="softmax", name="inner"), "softmax"),
    ],
)
def test_an_activation_that_mixes_or_is_unknown_is_refused(make, named):
    # not as the last step: a final softmax would be left off
    steps = ModelGraph(keras.Sequential([keras.Input((4,)), make(), L.Dense(2)])).steps
    with pytest.raises(ValueError, match=f"activation .*{named}.*'inner.*register_inverse"):
        make_inverse(steps[-2])
