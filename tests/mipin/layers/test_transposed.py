"""The Keras layers of the convolutions' inverses: the adjoint of every geometry, with weights of its own."""

import itertools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import linear
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse
from mipin_keras.mipin.layers import transposed
from tests.networks import close, inverse_of
from tests.reference import conv_matrix

L = keras.layers
PLAIN = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
# Keras 3.5 refuses an output_padding of 0, and forgets any when it saves.
TAKES_PADDING = "output_padding" in L.Conv1DTranspose(1, 1).get_config()


def geometries(rank):
    """Spatial sizes, kernel sizes, strides, dilations and paddings that Keras takes together."""
    sizes = {1: [(n,) for n in (1, 2, 3, 5, 8)], 2: [(5, 6), (7, 7), (8, 5)], 3: [(3, 4, 5), (4, 4, 4)]}[rank]
    kernels = {1: [(k,) for k in (1, 2, 3, 5)], 2: [(1, 1), (2, 3), (3, 3), (4, 2)], 3: [(1, 1, 1), (2, 1, 3)]}[rank]
    strides = {1: [(s,) for s in range(1, 5)], 2: [(1, 1), (2, 2), (2, 1), (3, 4)], 3: [(1, 1, 1), (2, 2, 2)]}[rank]
    dilations = {1: [(1,), (2,)], 2: [(1, 1), (3, 2)], 3: [(1, 1, 1), (1, 2, 2)]}[rank]
    paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    for n, k, s, d, padding in itertools.product(sizes, kernels, strides, dilations, paddings):
        spans = [dilation * (size - 1) + 1 for size, dilation in zip(k, d, strict=True)]
        fits = padding != "valid" or all(a >= span for a, span in zip(n, spans, strict=True))
        if fits and (max(s) == 1 or max(d) == 1):
            yield n, k, s, d, padding


def paddings_that_keras_takes(n, k, s, d, padding):
    """Whether Keras' layer comes out at the size ``n`` along every axis, for one setting of ``output_padding``."""
    spans = [dilation * (size - 1) + 1 for size, dilation in zip(k, d, strict=True)]
    plain, given = [], []
    for size, span, stride in zip(n, spans, s, strict=True):
        count = -(-size // stride) if padding == "same" else (size - span) // stride + 1
        plain.append(size == (count * stride if padding == "same" else (count - 1) * stride + max(span, stride)))
        more = size - (count - 1) * stride - (span % 2 if padding == "same" else span)
        given.append(0 <= more < stride)
    return all(plain) or (TAKES_PADDING and all(given))


def kind_for(rank, *geometry):
    """The type of the layer for an ordinary convolution without groups."""
    known = geometry[-1] != "causal" and paddings_that_keras_takes(*geometry)
    dilated = max(geometry[3]) > 1
    return PLAIN[rank - 1] if known and (not dilated or transposed.dilates(rank)) else transposed.ConvAdjoint


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.medium
def test_it_is_the_adjoint_in_every_geometry(rank, rng):
    seen = set()
    for n, k, s, d, padding in geometries(rank):
        layer = CONVOLUTIONS[rank - 1](3, k, strides=s, padding=padding, dilation_rate=d)
        shape = (*n, 2)
        outputs = layer.compute_output_shape((None, *shape))[1:]
        found = transposed.adjoint_layer(layer, shape, outputs, name="inverse")
        signal = rng.normal(size=(2, *outputs)).astype("float32")
        kernel, bias = rng.normal(size=(*k, 2, 3)).astype("float32"), rng.normal(size=2).astype("float32")
        found.build(signal.shape)
        found.set_weights([kernel, bias])
        matrix = conv_matrix(kernel, n, s, d, padding)
        wanted = (signal.reshape(2, -1) @ matrix).reshape(2, *shape) + bias
        case = (n, k, s, d, padding)
        assert close(found(signal), wanted, 1e-5), case
        assert close(linear.adjoint(layer, tf.constant(signal), kernel, shape) + bias, wanted, 1e-5), case
        assert type(found) is kind_for(rank, *case), case
        assert tuple(found.compute_output_shape((None, *outputs))) == (None, *shape)
        seen.add((type(found), padding))
    assert {padding for kind, padding in seen if kind is PLAIN[rank - 1]} == {"valid", "same"}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_where_tensorflow_has_no_dilation_the_package_has(rank, monkeypatch, rng):
    layer = CONVOLUTIONS[rank - 1](3, 2, dilation_rate=2, padding="same")
    shape = (5,) * rank + (2,)
    signal = tf.constant(rng.normal(size=(2, *shape[:-1], 3)), tf.float32)
    plain = PLAIN[rank - 1](2, 2, dilation_rate=2, padding="same")
    if transposed.dilates(rank):
        assert plain(signal).shape == (2, *shape)
    else:
        with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
            plain(signal)
    monkeypatch.setattr(transposed, "_dilates", lambda rank, device: False)
    found = transposed.adjoint_layer(layer, shape, tuple(signal.shape[1:]))
    assert type(found) is transposed.ConvAdjoint
    found.build(signal.shape)
    wanted = np.reshape(signal, (2, -1)) @ conv_matrix(
        found.kernel.numpy(), shape[:-1], (1,) * rank, (2,) * rank, "same"
    )
    assert close(found(signal), wanted.reshape(2, *shape), 1e-5)


LAYERS = [
    (L.Conv1D(4, 3, strides=2, padding="causal"), (7, 2), transposed.ConvAdjoint),
    (L.Conv1D(4, 3, groups=2), (7, 2), transposed.ConvAdjoint),
    (L.Conv2D(4, (2, 3), strides=2, padding="same"), (5, 6, 2), None),
    (L.Conv2D(4, (2, 3), strides=(1, 2), padding="same", groups=2), (5, 6, 2), transposed.ConvAdjoint),
    (L.Conv2D(4, (4, 2), strides=2, padding="same"), (5, 6, 2), transposed.ConvAdjoint),
    (L.Conv2D(4, (2, 3), dilation_rate=2), (5, 6, 2), None),
    (L.Conv3D(2, 2, strides=2), (5, 4, 3, 2), None),
    (L.DepthwiseConv1D(3, strides=2, depth_multiplier=2), (7, 2), transposed.DepthwiseConvAdjoint),
    (L.DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2), (5, 6, 2), transposed.DepthwiseConvAdjoint),
    (L.Conv1DTranspose(3, 3, strides=3, output_padding=2), (4, 2), transposed.ConvTransposeAdjoint),
    (L.Conv2DTranspose(3, (2, 3), strides=2, padding="same"), (3, 2, 2), transposed.ConvTransposeAdjoint),
    (L.Conv3DTranspose(2, (2, 1, 3), strides=(1, 3, 2), padding="same"), (2, 1, 2, 2), transposed.ConvTransposeAdjoint),
]  # fmt: skip
EVERY = pytest.mark.parametrize(
    ("layer", "shape", "kind"), LAYERS, ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else ""
)


def weights_for(inverse, rng, dtype="float32"):
    return [rng.normal(size=shape).astype(dtype) for shape in inverse.weight_shapes]


@EVERY
@pytest.mark.few(3)
def test_float32_is_the_keras_layer_and_agrees_with_float64(layer, shape, kind, rng):
    inverse = inverse_of(layer, shape)
    weights = weights_for(inverse, rng)
    signal = rng.normal(size=(3, *inverse.output_shape)).astype("float32")
    exact = inverse.source(tf.constant(signal, tf.float64), (), tuple(tf.constant(w, tf.float64) for w in weights))
    found = inverse.source(tf.constant(signal), (), tuple(map(tf.constant, weights)))
    assert found.dtype == tf.float32 and exact.dtype == tf.float64
    assert close(found, exact, 1e-5)
    linear_part = inverse.attribution(tf.constant(signal), (), tuple(map(tf.constant, weights)))
    assert close(linear_part + weights[1], exact, 1e-5)
    # The layer that a user gets takes the fitted weights as they are.
    own = inverse.keras_layer("mine")
    if kind is None:
        kind = kind_for(
            len(shape) - 1, shape[:-1], layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding
        )
    assert type(own) is type(inverse.template) is kind and own.name == "mine"
    own.build(signal.shape)
    assert [w.name for w in own.weights] == ["kernel", "bias"]
    assert [tuple(w.shape) for w in own.weights] == list(inverse.weight_shapes)
    own.set_weights(weights)
    np.testing.assert_array_equal(own(signal), found)
    # Its template's own weights stay as they were.
    assert not any(np.any(w) for w in inverse.template.get_weights())


@EVERY
def test_it_is_saved_and_comes_back(layer, shape, kind, rng, tmp_path):
    inverse = inverse_of(layer, shape)
    model = keras.Sequential([keras.Input(inverse.output_shape), inverse.keras_layer("inverse")])
    model.set_weights(weights_for(inverse, rng))
    assert model.output_shape == (None, *shape)
    model.save(tmp_path / "inverse.keras")
    again = keras.models.load_model(tmp_path / "inverse.keras")
    signal = rng.normal(size=(3, *inverse.output_shape)).astype("float32")
    np.testing.assert_array_equal(again(signal), model(signal))
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


@EVERY
def test_a_gradient_reaches_its_weights_and_the_signal(layer, shape, kind, rng):
    inverse = inverse_of(layer, shape)
    own = inverse.keras_layer("inverse")
    signal = tf.constant(rng.normal(size=(3, *inverse.output_shape)), tf.float32)
    own.build(signal.shape)
    x = rng.normal(size=(3, *shape)).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(signal)
        dot = tf.reduce_sum(own(signal) * x)
    kernel, back = tape.gradient(dot, [own.kernel.value, signal])
    # It is linear in both: <g(s), x> is the sum over the kernel of kernel times gradient, and over s likewise.
    wanted = float(dot) - float(np.sum(own.bias.numpy() * x))
    assert float(tf.reduce_sum(kernel * own.kernel.value)) == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert float(tf.reduce_sum(back * signal)) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_it_computes_in_float32_whatever_the_policy(rng):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for layer, shape, _ in LAYERS[:9:4]:
            half = type(layer).from_config(layer.get_config() | {"dtype": "float16"})
            steps = ModelGraph(keras.Sequential([keras.Input(shape), half, L.Flatten(), L.Dense(1)])).steps
            inverse = make_inverse(next(step for step in steps if step.layer is half))
            signal = tf.constant(rng.normal(size=(2, *inverse.output_shape)), tf.float32)
            weights = weights_for(inverse, rng)
            assert inverse.source(signal, (), tuple(map(tf.constant, weights))).dtype == tf.float32
            own = inverse.keras_layer("inverse")
            assert (own.compute_dtype, own.variable_dtype, own(signal).dtype) == ("float32", "float32", tf.float32)
    finally:
        keras.config.set_dtype_policy("float32")


def test_making_one_leaves_keras_names_and_random_numbers_alone():
    inverse = inverse_of(L.Conv2D(4, 3, groups=2), (5, 6, 2))
    keras.utils.set_random_seed(1)
    before = L.Conv2D(1, 1).name, random.getstate()
    assert inverse.template.name == "inverse"
    assert random.getstate() == before[1]
    number = int(before[0].rpartition("_")[2]) if before[0][-1].isdigit() else 0
    assert L.Conv2D(1, 1).name == f"conv2d_{number + 1}"


def test_the_inverse_of_a_dense_layer_is_a_dense_layer(rng):
    for shape in ((5,), (3, 5)):
        inverse = inverse_of(L.Dense(4), shape)
        own = inverse.keras_layer("mine")
        assert type(own) is L.Dense and own.name == "mine" and own.compute_dtype == "float32"
        weights = weights_for(inverse, rng)
        signal = tf.constant(rng.normal(size=(2, *inverse.output_shape)), tf.float32)
        own.build(signal.shape)
        own.set_weights(weights)
        assert close(own(signal), inverse.source(signal, (), weights), 1e-6)
        inverse.read_from(1)
        own = inverse.keras_layer("mine")
        own.build((None, *shape[:-1], 1))
        assert [tuple(w.shape) for w in own.weights] == list(inverse.weight_shapes) == [(1, 5), (5,)]


@pytest.mark.parametrize(
    ("make", "signal", "told"),
    [
        (lambda: transposed.ConvAdjoint((2,), 3), None, r"expected target_shape .* received \(2,\)"),
        (lambda: transposed.ConvAdjoint((2, 2, 2, 2, 2), 1), None, "expected target_shape to be 1 to 3 spatial"),
        (lambda: transposed.ConvAdjoint((None, 2), 1), None, "expected target_shape"),
        (lambda: transposed.DepthwiseConvAdjoint((4, 4, 4, 2), 3), None, "expected target_shape to be 1 to 2 spatial"),
        (lambda: transposed.ConvAdjoint((5, 4), 3, groups=2), (1, 3, 3), r"groups to divide the 3 .* groups=2"),
        (lambda: transposed.DepthwiseConvAdjoint((5, 4), 3), (1, 3, 6), r"multiple of the 4 .* received 6"),
        (lambda: transposed.ConvAdjoint((5, 4), 3), (1, 4, 3), r"spatial size \(3,\).* received \(1, 4, 3\)"),
        (lambda: transposed.ConvTransposeAdjoint((5, 4), 3), (1, 3, 3), r"spatial size \(7,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, signal, told):
    with pytest.raises(ValueError, match=told):
        make().build(signal)


def test_one_template_serves_every_class():
    inverse = inverse_of(L.Conv2D(3, 3), (5, 6, 2))
    assert "template" not in vars(inverse)  # nothing is made before it is used
    first = inverse.template
    assert inverse.template is first and len(first.weights) == 2
