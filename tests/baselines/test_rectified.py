"""Deconvnet and Guided Backpropagation against NumPy walks; every form of ReLU; what is no ReLU is refused."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import close, cnn, mlp, samples, with_weights
from tests.reference import pool, unpool_max

L = keras.layers
METHODS = ["deconvnet", "guided_backprop"]


def rectify(name, signal, z):
    """The rule at a ReLU whose pre-activation is z."""
    return np.maximum(signal, 0) * (z > 0 if name == "guided_backprop" else 1)


def start(logits, head, shares=None):
    shares = np.eye(logits.shape[1])[logits.argmax(axis=1)] if shares is None else shares
    return shares * logits if head == "output" else shares


def walk_mlp(weights, x, name, head, shares=None):
    kernels, biases = ([np.float64(w) for w in weights[i::2]] for i in (0, 1))
    signals, zs = np.float64(x), []
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        zs.append(signals @ kernel + bias)
        signals = np.maximum(zs[-1], 0) if i < len(kernels) - 1 else zs[-1]
    back = start(signals, head, shares)
    for i in reversed(range(len(kernels))):
        back = back @ kernels[i].T
        back = rectify(name, back, zs[i - 1]) if i else back
    return back


def conv_matrix(kernel, shape, strides, padding):
    """A convolution as a float64 matrix (inputs, outputs), and its output's shape."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    found = tf.nn.conv2d(units, np.float64(kernel), strides, padding.upper()).numpy()
    return found.reshape(len(units), -1), found.shape[1:]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("head", ["output", "one"])
@pytest.mark.parametrize("mode", ["max_activation", "index", "all"])
def test_an_mlp_is_numpys_walk(name, head, mode):
    model = mlp(hidden=(10, 9, 8))
    x = samples((12,), 20)
    chosen = {"index": 2}.get(mode)
    shares = {"index": np.eye(4)[[2] * 20], "all": np.ones((20, 4))}.get(mode)
    wanted = walk_mlp(model.get_weights(), x, name, head, shares)
    found = create_analyzer(name, model, head=head, neuron_selection_mode=mode).analyze(x, chosen)
    assert close(found, wanted, 1e-5)
    if mode == "index":
        assert (np.asarray(model(x))[:, 2] < 0).any()  # a negative logit turns the signal


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("head", ["output", "one"])
def test_a_cnn_is_numpys_walk(name, head):
    layers = [
        L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2), L.Conv2D(5, 2, strides=2, padding="same"), L.ReLU(),
        L.Flatten(), L.Dense(6, activation="relu"), L.Dense(3),
    ]  # fmt: skip
    model = with_weights(keras.Sequential([keras.Input((8, 7, 2)), *layers]))
    x = samples((8, 7, 2), 6)
    k1, b1, k2, b2, k3, b3, k4, b4 = (np.float64(w) for w in model.get_weights())
    one, shape = conv_matrix(k1, (8, 7, 2), 1, "valid")
    z1 = (x.reshape(6, -1) @ one).reshape(6, *shape) + b1
    a1 = np.maximum(z1, 0)
    pooled = pool(a1, (2, 2), (2, 2), "valid")
    two, shape = conv_matrix(k2, pooled.shape[1:], 2, "same")
    z2 = ((pooled.reshape(6, -1) @ two).reshape(6, *shape) + b2).reshape(6, -1)
    z3 = np.maximum(z2, 0) @ k3 + b3
    logits = np.maximum(z3, 0) @ k4 + b4
    np.testing.assert_allclose(np.asarray(model(x)), logits, rtol=1e-4, atol=1e-4)  # the reference itself
    back = rectify(name, start(logits, head) @ k4.T, z3) @ k3.T
    back = rectify(name, back, z2) @ two.T
    back = unpool_max(a1, back.reshape(pooled.shape), (2, 2), (2, 2), "valid")
    back = rectify(name, back, z1).reshape(6, -1) @ one.T
    assert close(create_analyzer(name, model, head=head).analyze(x), back.reshape(x.shape), 1e-5)


# Every form of ReLU


def inside(depth, shape):
    """A model of one ReLU in ``depth`` models around each other."""
    model = keras.Sequential([keras.Input(shape), L.ReLU()])
    for _ in range(depth - 1):
        x = keras.Input(shape)
        model = keras.Model(x, model(x))
    return model


class Shared:
    """The same layer at each place."""

    def __init__(self):
        self.layer = L.ReLU()

    def __call__(self, x):
        return self.layer(x)


def in_dense(activation):
    return lambda: lambda units: L.Dense(units, activation=activation())


def behind_dense(make):
    def fresh():
        layer = make()
        return lambda units: lambda x: layer(L.Dense(units)(x))

    return fresh


FORMS = {
    "built-in": in_dense(lambda: "relu"),
    "built-in function": in_dense(lambda: keras.activations.relu),
    "built-in layer": in_dense(L.ReLU),
    "built-in relu6": in_dense(lambda: "relu6"),
    "Activation": behind_dense(lambda: lambda x: L.Activation("relu")(x)),
    "Activation of the function": behind_dense(lambda: lambda x: L.Activation(keras.activations.relu)(x)),
    "Activation relu6": behind_dense(lambda: lambda x: L.Activation("relu6")(x)),
    "ReLU": behind_dense(lambda: lambda x: L.ReLU()(x)),
    "ReLU(max_value=6)": behind_dense(lambda: lambda x: L.ReLU(max_value=6)(x)),
    "keras.ops.relu": behind_dense(lambda: keras.ops.relu),
    "keras.ops.relu6": behind_dense(lambda: keras.ops.relu6),
    "keras.activations.relu": behind_dense(lambda: keras.activations.relu),
    "keras.activations.relu6": behind_dense(lambda: keras.activations.relu6),
    "nested": behind_dense(lambda: lambda x: inside(1, x.shape[1:])(x)),
    "twice nested": behind_dense(lambda: lambda x: inside(2, x.shape[1:])(x)),
    "thrice nested": behind_dense(lambda: lambda x: inside(3, x.shape[1:])(x)),
    "shared": behind_dense(Shared),
    "nested with its Dense": lambda: (
        lambda units: (
            lambda x: keras.Sequential(
                [keras.Input(x.shape[1:]), keras.Sequential([L.Dense(units, activation="relu")])]
            )(x)
        )
    ),
}


def written_as(form):
    """The MLP of mlp(), each ReLU in one form."""
    layer_of = FORMS[form]()
    x = keras.Input((12,))
    y = layer_of(8)(layer_of(10)(x))
    model = keras.Model(x, L.Dense(4)(y))
    model.set_weights(mlp().get_weights())
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.few(5)
def test_every_form_of_relu_is_seen_and_never_the_plain_gradient_comes_back(form):
    x = 0.5 * samples((12,), 20)
    model = written_as(form)
    np.testing.assert_allclose(np.asarray(model(x)), np.asarray(mlp()(x)), rtol=1e-5, atol=1e-5)  # none is capped
    gradient = create_analyzer("gradient", model).analyze(x)
    for name in METHODS:
        for head in ("output", "one"):
            found = create_analyzer(name, model, head=head).analyze(x)
            assert close(found, walk_mlp(mlp().get_weights(), x, name, head), 1e-5)
            assert not close(found, gradient, 0.2)
            # in no sample but those where rectifying has nothing to do
            differs = np.abs(found - gradient).max(axis=1) > 0.1 * np.abs(gradient).max()
            assert differs.mean() > 0.7


@pytest.mark.parametrize("cap", [lambda: L.Activation("relu6"), lambda: L.ReLU(max_value=6), lambda: keras.ops.relu6])
def test_a_capped_relu_lets_guided_backpropagation_through_below_its_cap_only(cap):
    x = 6 * samples((12,), 20)
    inputs = keras.Input((12,))
    model = keras.Model(inputs, L.Dense(4)(cap()(L.Dense(10)(inputs))))
    with_weights(model)
    first, bias, last, _ = (np.float64(w) for w in model.get_weights())
    z = x @ first + bias
    assert (z > 6).mean() > 0.1 and (z < 0).any()
    signal = np.maximum(np.ones((20, 4)) @ last.T, 0)
    for name, open_ in (("deconvnet", 1), ("guided_backprop", (z > 0) & (z < 6))):
        found = create_analyzer(name, model, head="one", neuron_selection_mode="all").analyze(x)
        assert close(found, (signal * open_) @ first.T, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_relus_between_structure_sums_and_normalisation_are_seen(name):
    x = keras.Input((6, 6, 2))
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(L.ZeroPadding2D(1)(x)))
    y = L.Cropping2D(1)(L.Activation("relu")(y))
    y = L.Add()([y, L.Conv2D(4, 1)(x)])
    y = L.Multiply()([y, y])
    y = L.GlobalAveragePooling2D()(L.Concatenate()([L.ReLU()(y), L.AveragePooling2D(3, 1, padding="same")(y)]))
    model = with_weights(keras.Model(x, L.Dense(3)(L.LayerNormalization()(L.Dropout(0.5)(y)))))
    data = samples((6, 6, 2), 5)
    found = create_analyzer(name, model).analyze(data)
    assert np.isfinite(found).all() and not close(found, create_analyzer("gradient", model).analyze(data), 0.1)


@pytest.mark.parametrize("name", METHODS)
def test_without_a_relu_it_is_the_gradient_from_the_same_start(name):
    model = with_weights(keras.Sequential([keras.Input((6,)), L.Dense(5), L.LayerNormalization(), L.Dense(3)]))
    x = samples((6,), 5)
    gradient = create_analyzer("gradient", model).analyze(x)
    assert close(create_analyzer(name, model, head="one").analyze(x), gradient, 1e-6)
    top = np.asarray(model(x)).max(axis=1, keepdims=True)
    assert close(create_analyzer(name, model).analyze(x), top * gradient, 1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", ["logit", "", None, 1, "ONE"])
def test_an_unknown_head_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"head to be one of .'output', 'one'.*received {bad!r}"):
        create_analyzer(name, cnn(), head=bad)


# What is no ReLU


class Custom(keras.layers.Layer):
    def call(self, x):
        return keras.ops.relu(x)


class OwnReLU(L.ReLU):
    def call(self, x):
        return keras.ops.relu(x) - 1.0


class OwnDense(L.Dense):
    def call(self, x):
        return keras.ops.relu(super().call(x))


class OwnNorm(L.LayerNormalization):
    def call(self, x):
        return keras.ops.relu(super().call(x))


class OwnIdentity(L.Identity):
    def call(self, x):
        return keras.ops.relu(x)


OTHERS = {
    "LeakyReLU": lambda: L.LeakyReLU(name="odd"),
    "ReLU with a slope": lambda: L.ReLU(negative_slope=0.1, name="odd"),
    "leaky_relu": lambda: L.Activation("leaky_relu", name="odd"),
    "built-in leaky_relu": lambda: L.Conv2D(4, 2, activation="leaky_relu", name="odd"),
    "built-in LeakyReLU": lambda: L.Conv2D(4, 2, activation=L.LeakyReLU(), name="odd"),
    "built-in ReLU with a slope": lambda: L.Conv2D(4, 2, activation=L.ReLU(negative_slope=0.1), name="odd"),
    "built-in function": lambda: L.Conv2D(4, 2, activation=lambda x: keras.ops.sin(x), name="odd"),
    "tanh": lambda: L.Activation("tanh", name="odd"),
    "built-in elu": lambda: L.Conv2D(4, 2, activation="elu", name="odd"),
    "ELU": lambda: L.ELU(name="odd"),
    "selu": lambda: L.Activation("selu", name="odd"),
    "gelu": lambda: L.Activation("gelu", name="odd"),
    "silu": lambda: L.Activation("silu", name="odd"),
    "PReLU": lambda: L.PReLU(name="odd"),
    "softmax": lambda: L.Softmax(name="odd"),
    "softmax activation": lambda: L.Activation("softmax", name="odd"),
    "sigmoid": lambda: L.Activation("sigmoid", name="odd"),
    "custom": lambda: Custom(name="odd"),
    "own ReLU": lambda: OwnReLU(name="odd"),
    "own Dense": lambda: OwnDense(3, name="odd"),
    "own LayerNormalization": lambda: OwnNorm(name="odd"),
    "own Identity": lambda: OwnIdentity(name="odd"),
    "DepthwiseConv2D": lambda: L.DepthwiseConv2D(2, activation="tanh", name="odd"),
    "SeparableConv2D": lambda: L.SeparableConv2D(3, 2, activation="tanh", name="odd"),
    "Conv2DTranspose": lambda: L.Conv2DTranspose(3, 2, activation="tanh", name="odd"),
    "EinsumDense": lambda: L.EinsumDense("abcd,de->abce", (6, 6, 3), activation="relu", name="odd"),
    "Lambda": lambda: L.Lambda(keras.ops.sin, name="odd"),
    "nested": lambda: keras.Sequential([keras.Input((6, 6, 3)), L.Activation("tanh", name="odd")], name="inner"),
    "built-in bidirectional": lambda: keras.Sequential([L.Reshape((12, 9)), L.Bidirectional(L.GRU(2), name="odd")]),
    "LSTM": lambda: keras.Sequential([L.Reshape((12, 9)), L.LSTM(4, name="odd")]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_relu_is_refused_by_name(kind):
    x = keras.Input((6, 6, 3))
    y = L.Activation("relu", name="rectifier")(L.Conv2D(3, 1, name="conv")(x))
    model = keras.Model(x, L.Dense(2, name="head")(L.Flatten()(OTHERS[kind]()(y))))
    for name in METHODS:
        refused = f"'{name}' expected layers that it is defined for, received layer .*odd"
        with pytest.raises(ValueError, match=refused) as caught:
            create_analyzer(name, model)
        assert not any(f"'{known}" in str(caught.value) for known in ("rectifier", "conv", "head"))


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        (keras.ops.leaky_relu, "LeakyRelu"), (keras.ops.elu, "Elu"), (keras.ops.tanh, "Tanh"), (keras.ops.abs, "Abs"),
        (keras.ops.gelu, "Gelu"), (keras.ops.softmax, "Softmax"), (lambda x: keras.ops.maximum(x, 0.0), "Maximum"),
        (lambda x: keras.ops.clip(x, 0.0, 6.0), "Clip"), (lambda x: keras.ops.where(x > 0, x, 0.0), "Where"),
        (lambda x: keras.ops.maximum(x, keras.ops.zeros_like(x)), "ZerosLike"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", METHODS)
def test_operations_that_are_no_relu_or_write_one_in_other_words_are_refused(operation, what, name):
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(2)(operation(L.Dense(4)(x))))
    with pytest.raises(ValueError, match=re.compile(f"defined for, received layer .*{what}", re.DOTALL)):
        create_analyzer(name, model)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "settings", [{"negative_slope": 0.2}, {"threshold": -1.0}, {"negative_slope": 0.2, "max_value": 6}]
)
def test_the_function_relu_with_a_slope_is_refused(name, settings):
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(2)(keras.activations.relu(L.Dense(4)(x), **settings)))
    with pytest.raises(ValueError, match="defined for, received layer"):
        create_analyzer(name, model)


@pytest.mark.parametrize("name", METHODS)
def test_other_activations_have_their_gradient_if_they_may(name, rng):
    """Without a ReLU the methods are then the gradient; with one, it is rectified and the others are not."""
    x = rng.normal(size=(6, 5)).astype("float32")
    first, second, head = L.Dense(4), L.Dense(4), L.Dense(3)
    for activation in (keras.ops.tanh, keras.ops.relu):
        inputs = keras.Input((5,))
        y = second(keras.ops.elu(first(inputs)))
        model = with_weights(keras.Model(inputs, head(activation(y))))
        with pytest.raises(ValueError, match="give activations='any' to take the gradient of other activations"):
            create_analyzer(name, model)
        found = create_analyzer(name, model, activations="any", head="one").analyze(x)
        kernels = [layer.kernel.numpy().astype(float) for layer in (first, second, head)]
        z = x @ kernels[0] + first.bias.numpy()
        deep = np.where(z > 0, z, np.expm1(z)) @ kernels[1] + second.bias.numpy()
        back = np.eye(3)[np.asarray(model(x)).argmax(axis=1)] @ kernels[2].T
        back = back * (1 - np.tanh(deep) ** 2) if activation is keras.ops.tanh else rectify(name, back, deep)
        wanted = (back @ kernels[1].T * np.where(z > 0, 1, np.exp(z))) @ kernels[0].T
        assert close(found, wanted, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_gates_scalings_and_standardizations_have_their_gradient(name, rng):
    inputs = keras.Input((5,))
    y = L.LayerNormalization()(L.Dense(4)(L.Rescaling(0.5)(inputs)) * 2.0)
    model = with_weights(keras.Model(inputs, L.Dense(3)(L.Multiply()([y, L.Activation("sigmoid")(y)]))))
    x = rng.normal(size=(6, 5)).astype("float32")
    found = create_analyzer(name, model, activations="any", head="one").analyze(x)
    wanted = create_analyzer("gradient", model).analyze(x)
    assert close(found, wanted, 1e-5)


@pytest.mark.parametrize("name", ["deconvnet", "guided_backprop"])
def test_a_target_heeds_the_head(name, rng):
    """head="one" starts from the target's gradient, "output" from its value times that."""
    model = mlp()
    x = rng.normal(size=(4, 12)).astype("float32")
    maps = [create_analyzer(name, model, target=lambda y: y[:, 0] ** 2, head=h).analyze(x) for h in ("output", "one")]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3
