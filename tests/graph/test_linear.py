"""Linear parts, adjoints and window geometry against plain loops."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import activations, linear, windows
from tests.networks import close, step_of, with_weights
from tests.reference import conv_matrix, depthwise_matrix, transposed_matrix
from tests.reference import windows as reference_windows

L = keras.layers

# (layer, input shape, keyword arguments) on odd sizes, so that no border fits by chance
CONVOLUTIONS = [
    *(
        (L.Conv1D, (11, 4), {"filters": 6, "kernel_size": 3, "padding": padding, "groups": groups, **setting})
        for padding, (groups, setting) in itertools.product(
            ("valid", "same", "causal"),
            [(1, {}), (1, {"strides": 2}), (1, {"strides": 4}), (1, {"dilation_rate": 3}), (2, {"strides": 2})],
        )
    ),
    *(
        (L.Conv2D, (7, 6, 4), {"filters": 4, "kernel_size": (3, 2), "padding": padding, "groups": groups, **setting})
        for padding, (groups, setting) in itertools.product(
            ("valid", "same"),
            [
                (1, {}), (1, {"strides": (2, 3)}), (1, {"strides": 3}), (1, {"dilation_rate": (1, 2)}),
                (2, {"strides": (2, 3)}), (4, {"dilation_rate": (1, 2)}),
            ],
        )
    ),
    *(
        (L.Conv3D, (4, 5, 3, 2), {"filters": 2, "kernel_size": (2, 3, 2), "padding": padding, "groups": 1, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({}, {"strides": (2, 1, 3)}, {"dilation_rate": (2, 1, 2)})
        )
    ),
    (L.Conv3D, (3, 4, 3, 2), {"filters": 2, "kernel_size": 2, "padding": "same", "groups": 2}),
]  # fmt: skip
DEPTHWISE = [
    *(
        (L.DepthwiseConv1D, (11, 3), {"kernel_size": 3, "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"), ({}, {"strides": 2, "depth_multiplier": 2}, {"dilation_rate": 3, "use_bias": False})
        )
    ),
    *(
        (L.DepthwiseConv2D, (7, 6, 3), {"kernel_size": (3, 2), "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"),
            ({"use_bias": False}, {"strides": 2}, {"strides": 3, "depth_multiplier": 2}, {"dilation_rate": (1, 2)}),
        )
    ),
]
# Without dilations, which TensorFlow has for them on other devices than a CPU only.
TRANSPOSED = [
    *(
        (L.Conv1DTranspose, (5, 3), {"filters": 2, "kernel_size": 3, "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"),
            ({}, {"strides": 2}, {"strides": 4, "use_bias": False}, {"strides": 3, "output_padding": 1}),
        )
    ),
    *(
        (L.Conv2DTranspose, (4, 3, 3), {"filters": 2, "kernel_size": (3, 2), "padding": padding, **setting})
        for padding, setting in itertools.product(
            ("valid", "same"),
            ({"use_bias": False}, {"strides": (2, 3)}, {"strides": (2, 3), "output_padding": 1}, {"strides": 4}),
        )
    ),
    *(
        (L.Conv3DTranspose, (2, 3, 2, 2), {"filters": 2, "kernel_size": (2, 3, 2), "padding": padding, "strides": 2})
        for padding in ("valid", "same")
    ),
]  # fmt: skip
POOLINGS = [
    (L.MaxPooling1D, (9, 2), {"pool_size": 2}),
    (L.AveragePooling1D, (9, 2), {"pool_size": 3, "strides": 2, "padding": "same"}),
    (L.MaxPooling2D, (5, 7, 1), {"pool_size": (2, 3), "padding": "same"}),
    (L.AveragePooling2D, (6, 5, 1), {"pool_size": 3, "strides": (1, 2)}),
    (L.MaxPooling2D, (9, 9, 1), {"pool_size": 2, "strides": 3, "padding": "same"}),
    (L.MaxPooling3D, (4, 5, 3, 1), {"pool_size": 2, "padding": "same"}),
]


def described(value):
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items() if k not in ("filters", "kernel_size"))
    return ""


def axes(layer, shape):
    """Sizes, windows, strides and dilations per spatial axis, in the words of the layer's settings."""
    rank = len(shape) - 1
    settings = [getattr(layer, "kernel_size", getattr(layer, "pool_size", None)), layer.strides]
    settings.append(getattr(layer, "dilation_rate", 1))
    return [shape[:-1], *((s,) * rank if isinstance(s, int) else tuple(s) for s in settings)]


@pytest.mark.parametrize(("kind", "shape", "settings"), CONVOLUTIONS, ids=described)
@pytest.mark.few(9)
def test_convolutions_are_their_matrix_and_the_adjoint_its_transpose(kind, shape, settings, rng):
    layer = kind(**settings, activation="relu")
    step = step_of(layer, shape)
    kernel, bias = rng.normal(size=layer.kernel.shape), rng.normal(size=layer.bias.shape)
    layer.set_weights([kernel, bias])
    sizes, _, strides, dilations = axes(layer, shape)
    geometry = (sizes, strides, dilations, settings["padding"], settings["groups"])
    matrix = conv_matrix(kernel, *geometry)
    x = rng.normal(size=(3, *shape))
    wanted = (x.reshape(3, -1) @ matrix.T).reshape(3, *step.output_shape)
    assert close(layer(x.astype("float32")), np.maximum(wanted + bias, 0), 1e-5)  # the reference itself
    assert close(linear.before_activation(layer, tf.constant(x, tf.float32)), wanted + bias, 1e-5)

    other = rng.normal(size=layer.kernel.shape)
    matrix = conv_matrix(other, *geometry)
    signal = rng.normal(size=(3, *step.output_shape))
    found = linear.adjoint(layer, tf.constant(signal), tf.constant(other), shape)
    assert found.dtype == tf.float64
    assert close(found, (signal.reshape(3, -1) @ matrix).reshape(3, *shape), 1e-12)


def matrix_of(layer, kernel, step):
    """A depthwise or transposed layer's linear part, flat input to flat output."""
    geometry = layer.strides, layer.dilation_rate, layer.padding
    if isinstance(layer, windows.TRANSPOSED):
        return transposed_matrix(kernel, step.output_shape[:-1], *geometry)
    return depthwise_matrix(kernel, step.input_shape[:-1], *geometry)


@pytest.mark.parametrize(("kind", "shape", "settings"), DEPTHWISE + TRANSPOSED, ids=described)
def test_depthwise_and_transposed_ones_are_their_matrix_and_the_adjoint_its_transpose(kind, shape, settings, rng):
    layer = kind(**settings, activation="relu")
    step = step_of(layer, shape)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    kernel, *bias = (weight.astype("float64") for weight in layer.get_weights())
    matrix = matrix_of(layer, kernel, step)
    x = rng.normal(size=(3, *shape))
    wanted = (x.reshape(3, -1) @ matrix.T).reshape(3, *step.output_shape) + sum(bias)
    assert close(layer(x.astype("float32")), np.maximum(wanted, 0), 1e-5)  # the reference itself
    assert close(linear.before_activation(layer, tf.constant(x, tf.float32)), wanted, 1e-5)
    part = linear.linear_part(layer)
    assert close(part.apply(tf.constant(x, tf.float32), part.kernel) + part.bias, wanted, 1e-5)

    other = rng.normal(size=layer.kernel.shape)
    signal = rng.normal(size=(3, *step.output_shape))
    found = linear.adjoint(layer, tf.constant(signal), tf.constant(other), shape)
    assert found.dtype == tf.float64
    assert close(found, (signal.reshape(3, -1) @ matrix_of(layer, other, step)).reshape(3, *shape), 1e-12)


@pytest.mark.parametrize(("kind", "shape", "settings"), TRANSPOSED, ids=described)
def test_the_windows_of_a_transposed_convolution_lead_from_its_output_to_its_input(kind, shape, settings):
    layer = kind(**settings)
    step = step_of(layer, shape)
    found = windows.windows_of(layer, shape, step.output_shape)
    assert found.inputs == step.output_shape[:-1] and found.outputs == shape[:-1]
    geometry = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding
    outputs, elements = reference_windows(found.inputs, *geometry)
    assert outputs == shape[:-1]
    size = int(np.prod(found.inputs))
    wanted = np.array([[size if place is None else place for place in window] for window in elements])
    np.testing.assert_array_equal(found.elements(), wanted)


@pytest.mark.parametrize(("kind", "shape", "settings"), CONVOLUTIONS + DEPTHWISE + POOLINGS, ids=described)
def test_windows_are_those_of_a_loop(kind, shape, settings):
    layer = kind(**settings)
    step = step_of(layer, shape)
    found = windows.windows_of(layer, shape, step.output_shape)
    outputs, elements = reference_windows(*axes(layer, shape), layer.padding)
    size = int(np.prod(shape[:-1]))
    assert found.outputs == outputs == step.output_shape[:-1]
    table = np.array([[size if place is None else place for place in window] for window in elements])
    np.testing.assert_array_equal(found.elements(), table)

    held = np.full((size, table.shape[1]), len(elements))
    for (output, window), element in itertools.product(enumerate(elements), range(table.shape[1])):
        if window[element] is not None:
            held[window[element], element] = output
    np.testing.assert_array_equal(found.windows(), held)
    times = np.bincount(table[table < size], minlength=size)
    assert found.overlap or times.max() <= 1
    assert found.elements().dtype == found.windows().dtype == np.int32


@pytest.mark.parametrize(
    ("sizes", "strides", "dilations", "overlap"),
    [((2, 2), (2, 2), (1, 1), False), ((3,), (2,), (1,), True), ((2,), (2,), (2,), True),
     ((1, 3), (1, 3), (1, 1), False)],
)  # fmt: skip
def test_overlap(sizes, strides, dilations, overlap):
    rank = len(sizes)
    windows_ = windows.Windows((12,) * rank, (4,) * rank, sizes, strides, dilations, (0,) * rank)
    assert windows_.overlap is overlap


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_of_any_rank(shape, bias, rng):
    layer = L.Dense(4, activation="tanh", use_bias=bias)
    model = with_weights(keras.Sequential([keras.Input(shape), layer]))
    x = rng.normal(size=(3, *shape)).astype("float32")
    found = linear.before_activation(layer, tf.constant(x))
    assert close(found, x.astype(float) @ layer.get_weights()[0] + (layer.get_weights()[1] if bias else 0), 1e-6)
    assert close(np.tanh(found), model(x), 1e-6)


def test_activation_names():
    class Twice(L.ReLU):
        def call(self, x):
            return 2 * x

    class Kept(L.ReLU):
        pass

    def own(x):
        return 2 * x

    named = {
        L.ReLU(): "relu", L.LeakyReLU(): "leaky_relu", L.ELU(): "elu", L.Softmax(): "softmax", Kept(): "relu",
        Twice(): "", L.Activation("tanh"): "tanh", L.Activation(own): "", L.Activation(keras.activations.gelu): "gelu",
        L.Activation("relu6"): "relu6", L.Dense(1, activation="relu"): None, L.Dropout(0.5): None,
    }  # fmt: skip
    assert {layer: activations.activation_name(layer) for layer in named} == named
    # a function of one's own that carries a known name is not that function
    own.__name__ = "relu"
    assert activations.function_name(own) == ""
    assert activations.function_name(None) == "linear"


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax", "tanh", "log_softmax", "leaky_relu", "silu", "relu6"])
def test_operations_are_activations_by_name(name):
    x = keras.Input((3,))
    (operation,) = [o for o in keras.Model(x, getattr(keras.ops, name)(x)).operations if not isinstance(o, L.Layer)]
    assert activations.activation_name(operation) == name


def test_operations_that_are_no_activation_have_no_name():
    x = keras.Input((3,))
    model = keras.Model(x, keras.ops.exp(x) + 1.0)
    names = [activations.activation_name(o) for o in model.operations if not isinstance(o, L.InputLayer)]
    assert names == [None, None]


def test_a_subclass_with_its_own_call_is_no_kernel_layer():
    class Twice(L.Dense):
        def call(self, x):
            return 2 * super().call(x)

    class Kept(L.Dense):
        pass

    assert linear.is_kernel_layer(Kept(2)) and linear.is_kernel_layer(L.Conv1D(1, 1))
    assert not linear.is_kernel_layer(Twice(2)) and not linear.is_kernel_layer(L.SeparableConv2D(2, 2))
    assert activations.overrides_call(Twice(2), L.Dense) and not activations.overrides_call(Kept(2), L.Dense)
