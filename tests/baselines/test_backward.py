"""What all methods that walk back share: refusals, which output is explained, tensors read often, dtypes, traces."""

import contextlib
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction

from mipin_keras import create_analyzer
from tests.networks import NEEDED, close, cnn, mlp, residual, samples, with_weights

L = keras.layers
WALKERS = [
    "gradient", "input_t_gradient", "integrated_gradients", "smoothgrad", "deconvnet", "guided_backprop", "lrp.epsilon",
    "deep_taylor", "pattern.net", "pattern.attribution", "grad_cam",
]  # fmt: skip
SHORT = {"integrated_gradients": {"steps": 3}, "smoothgrad": {"augment_by_n": 3}}
SHORT |= {name: {"verbose": 0} for name in ("pattern.net", "pattern.attribution")}


def made(name, model, **options):
    return create_analyzer(name, model, **(SHORT.get(name, {}) | NEEDED.get(name, {}) | options))


def tape(model, x, shares):
    """The gradient of the outputs, weighted by ``shares``, over the whole model, in its own dtype."""
    x = tf.constant(x, model.inputs[0].dtype)
    with tf.GradientTape() as recorded:
        recorded.watch(x)
        y = model(x, training=False)
    return recorded.gradient(y, x, output_gradients=tf.cast(shares, y.dtype)).numpy()


# Refusals


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "int32") for name in WALKERS), ("gradient", "uint8"), ("gradient", "bool")]
)
@pytest.mark.few(4)
def test_a_model_of_integers_is_explained_at_the_first_floating_tensor(name, dtype):
    """As if the part of the model behind the embedding were the model; and it says so."""
    x, vectors = keras.Input((6,), dtype=dtype), keras.Input((6, 5))
    embedding = L.Embedding(10, 5, name="table")
    layers = [L.Conv1D(4, 2, activation="relu"), L.Flatten(), L.Dense(3)]
    ends = []
    for y in (embedding(x), vectors):
        for layer in layers:
            y = layer(y)
        ends.append(y)
    whole, part = keras.Model(x, ends[0]), keras.Model(vectors, ends[1])
    tokens = (np.arange(18).reshape(3, 6) % 7 > 3 if dtype == "bool" else np.arange(18).reshape(3, 6) % 7).astype(dtype)
    options = {} if name != "grad_cam" else {"resize": False}
    with contextlib.nullcontext() if name == "grad_cam" else pytest.warns(UserWarning, match="'table'.*6, 5"):
        analyzer = made(name, whole, **options)
    found = analyzer.fit(tokens, verbose=0).analyze(tokens)
    inside = embedding(tokens).numpy()
    wanted = made(name, part, **options).fit(inside, verbose=0).analyze(inside)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if name == "grad_cam":
        assert made(name, whole).analyze(tokens).shape == tokens.shape  # one value a token
    else:
        np.testing.assert_allclose(analyzer.analyze(tokens, reduce="sum"), wanted.sum(-1), rtol=1e-4, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Odd(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def refusal(name, model):
    with pytest.raises(ValueError) as caught:
        made(name, model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "layers", "unknown"),
    [
        ("deconvnet", [L.ELU(name="a"), L.ReLU(name="b"), L.Activation("tanh", name="c")], "ac"),
        ("guided_backprop", [L.Activation("gelu", name="a"), L.LeakyReLU(name="b")], "ab"),
        (
            "guided_backprop",
            [L.Activation("gelu", name="a"), Odd(name="b"), L.ReLU(name="c"), L.PReLU(name="d")],
            "abd",
        ),
        ("pattern.net", [Odd(name="a"), L.ReLU(name="b"), L.Activation("elu", name="c")], "ac"),
        ("pattern.attribution", [L.Activation("sigmoid", name="a"), L.Activation("tanh", name="b")], "ab"),
        ("lrp.epsilon", [Odd(name="a"), L.ReLU(name="b"), Odd(name="c")], "ac"),
        ("deep_taylor", [L.Activation("tanh", name="a"), L.ReLU(name="b"), Odd(name="c")], "ac"),
    ],
)
@pytest.mark.few(2)
def test_a_refusal_names_every_unknown_layer_at_once_and_what_would_do(name, layers, unknown):
    model = with_weights(keras.Sequential([keras.Input((5, 3)), *layers, L.Flatten(), L.Dense(2, name="head")]))
    message = refusal(name, model)
    assert message.startswith(f"'{name}' expected layers that it is defined for, received layer ")
    assert re.findall(r"'([a-d])' \(\w+\)", message) == list(unknown)
    assert "'head'" not in message and "register_inverse" in message
    offered = re.findall(r"'([\w.]+)'", message.split("for this model take")[1])
    assert {"gradient", "input_t_gradient", "integrated_gradients", "smoothgrad", "mipin"} <= set(offered)
    x = samples((5, 3), 3)
    for other in offered:  # and they do
        if other != "mipin":
            assert np.isfinite(made(other, model).analyze(x)).all()


def test_a_built_in_activation_is_named_with_its_layer():
    message = refusal("deconvnet", mlp(activation="tanh"))
    assert "'dense1/tanh'" in message and "'dense2/tanh'" in message and "'lrp.epsilon'" in message


# Which output is explained


@pytest.mark.parametrize("make", [mlp, residual])
@pytest.mark.parametrize("mode", ["max_activation", "one", "each", "all", "callable"])
def test_each_mode_explains_what_a_tape_does(make, mode):
    model = make()
    x = samples(model.input_shape[1:], 9)
    logits = np.asarray(model(x))
    units, chosen = logits.shape[1], None
    if mode == "max_activation":
        shares, option = np.eye(units)[logits.argmax(axis=1)], mode
    elif mode == "all":
        shares, option = np.ones_like(logits), mode
    elif mode == "callable":
        shares, option = np.eye(units)[logits.argmin(axis=1)], lambda found: found.argmin(axis=1)
    else:
        option, chosen = "index", 1 if mode == "one" else [i % units for i in range(9)]
        shares = np.eye(units)[np.broadcast_to(chosen, 9)]
    found = made("gradient", model, neuron_selection_mode=option).analyze(x, chosen, batch_size=4)
    assert close(found, tape(model, x, shares), 1e-6)


def test_ties_share_equally():
    model = keras.Sequential([keras.Input((2,)), L.Dense(4, use_bias=False)])
    kernel = np.float32([[1, 0, 1, 5], [0, 1, 0, 7]])
    model.set_weights([kernel])
    x = np.float32([[2, -1], [1, 1], [3, -3]])  # logits [2 -1 2 3], [1 1 1 12], [3 -3 3 -6]
    np.testing.assert_allclose(made("gradient", model).analyze(x), [[5, 7], [5, 7], [1, 0]], rtol=1e-6)
    model.set_weights([kernel * np.float32([1, 1, 1, 0])])
    x = np.float32([[1, 1], [-2, -1], [-1, -1], [2, 1]])  # [1 1 1 0], [-2 -1 -2 0], [-1 -1 -1 0], [2 1 2 0]
    wanted = [[2 / 3, 1 / 3], [0, 0], [0, 0], [1, 0]]
    np.testing.assert_allclose(made("gradient", model).analyze(x), wanted, rtol=1e-6)


def test_logits_before_a_softmax_are_explained():
    model, plain = mlp(head="softmax"), mlp()
    plain.set_weights(model.get_weights())
    x = samples((12,), 6)
    shares = np.eye(4)[np.asarray(plain(x)).argmax(axis=1)]
    assert close(made("gradient", model).analyze(x), tape(plain, x, shares), 1e-6)
    assert not close(tape(model, x, shares), tape(plain, x, shares), 0.1)


@pytest.mark.parametrize("mode", ["max_activation", "index", "all", lambda logits: 1])
@pytest.mark.parametrize("name", ["gradient", "smoothgrad", "guided_backprop"])
def test_logits_that_are_not_finite_are_refused(name, mode):
    model = cnn()
    weights = model.get_weights()
    weights[-1][2] = np.inf if mode == "all" else np.nan  # a neuron that modes "index" and callable do not even ask for
    analyzer = made(name, model, neuron_selection_mode=mode)
    x, chosen = samples((7, 6, 2), 3), 1 if mode == "index" else None
    assert np.isfinite(analyzer.analyze(x, chosen)).all()
    model.set_weights(weights)
    with pytest.raises(ValueError, match="expected finite logits, received NaN or infinity"):
        analyzer.analyze(x, chosen)


# Tensors that are read often


def twice_into_add(x):
    y = L.Dense(5, activation="tanh")(x)
    return L.Add()([y, y])


def thrice_into_concatenate(x):
    y = L.Dense(5, activation="tanh")(x)
    return L.Concatenate()([y, y, L.Dense(2)(y), y])


def twice_into_multiply(x):
    y = L.Dense(5, activation="tanh")(x)
    return L.Multiply()([y, y, x[:, :5]])


def the_input_everywhere(x):
    y = L.Dense(6, activation="tanh")(x)
    return L.Concatenate()([L.Add()([x, y, x]), L.Subtract()([x, y]), L.Average()([y, x, y]), x])


def skips(x):
    a = L.Dense(6, activation="relu")(x)
    b = L.Dense(6, activation="relu")(L.Add()([a, x]))
    c = L.Dense(6, activation="tanh")(L.Add()([b, a, x]))
    return L.Add()([c, b, a])


def operations(x):
    y = L.Dense(6, activation="tanh")(x)
    return keras.ops.concatenate([y + y, y * y, y - x, x / (2.0 + y), 3.0 - y], axis=-1)


def shared(x):
    layer = L.Dense(6, activation="tanh")
    return L.Maximum()([layer(layer(x)), layer(x), x])


@pytest.mark.parametrize("tail", [
    twice_into_add, thrice_into_concatenate, twice_into_multiply, the_input_everywhere, skips, operations, shared
])  # fmt: skip
def test_what_arrives_at_a_tensor_from_all_its_readers_is_summed(tail, rng):
    x = keras.Input((6,))
    model = with_weights(keras.Model(x, L.Dense(3)(tail(x))))
    data = rng.normal(size=(7, 6)).astype("float32")
    found = made("gradient", model, neuron_selection_mode="all").analyze(data)
    assert close(found, tape(model, data, np.ones((7, 3))), 1e-6)


def test_a_walk_by_numpy_with_the_same_tensor_twice():
    """Add([y, y]) doubles what arrives, also for a rule of its own."""
    x = keras.Input((4,))
    y = L.Dense(4, activation="relu", use_bias=False)(x)
    model = with_weights(keras.Model(x, L.Dense(2, use_bias=False)(L.Add()([y, y]))))
    first, last = (np.float64(w) for w in model.get_weights())
    data = samples((4,), 8).astype(np.float64)
    z = data @ first
    signal = np.ones((8, 2)) @ last.T * 2
    wanted = {"deconvnet": np.maximum(signal, 0), "guided_backprop": np.maximum(signal, 0) * (z > 0)}
    for name, back in wanted.items():
        found = made(name, model, neuron_selection_mode="all", head="one").analyze(data)
        assert close(found, back @ first.T, 1e-6)


# Dtypes


def test_a_float64_model_is_computed_in_float64(rng):
    x = keras.Input((6,), dtype="float64")
    y = L.Rescaling(1.0, -1e8, dtype="float64")(x)  # float32 would keep steps of 8 only
    for units, activation in ((5, "tanh"), (4, "relu"), (3, None)):
        y = L.Dense(units, activation=activation, dtype="float64")(y)
    model = with_weights(keras.Model(x, y))
    data = 1e8 + rng.normal(size=(5, 6))
    logits = np.asarray(model(data))
    shares = np.eye(3)[logits.argmax(axis=1)]
    assert len(np.unique(np.round(logits, 6))) == logits.size  # the data is more than its float32
    for mode, weights in (("max_activation", shares), ("all", np.ones((5, 3)))):
        found = made("gradient", model, neuron_selection_mode=mode).analyze(data)
        assert found.dtype == np.float32 and close(found, tape(model, data, weights), 1e-6)
    for name in ("integrated_gradients", "smoothgrad", "guided_backprop", "input_t_gradient"):
        if name != "guided_backprop":  # which does not take tanh
            assert np.isfinite(made(name, model).analyze(data)).all()


@pytest.mark.parametrize("name", [name for name in WALKERS if not name.startswith("pattern")])
@pytest.mark.few(3)
def test_a_mixed_float16_model_gives_finite_float32(name):
    def build(dtype):
        x = keras.Input((6, 6, 2))
        y = L.Conv2D(4, 3, activation="relu", dtype=dtype)(x)
        z = L.Conv2D(4, 3, padding="same", activation="relu", dtype=dtype)(y)
        y = L.GlobalAveragePooling2D(dtype=dtype)(L.Add(dtype=dtype)([y, z]))
        return with_weights(keras.Model(x, L.Dense(3, dtype=dtype)(y)))

    half, whole = build("mixed_float16"), build("float32")
    data = samples((6, 6, 2), 4)
    assert half.output.dtype == "float16"
    options = {"neuron_selection_mode": "all"}
    found = made(name, half, **options).analyze(data)
    assert found.dtype == np.float32 and np.isfinite(found).all() and found.any()
    assert close(found, made(name, whole, **options).analyze(data), 0.03)
    if name == "gradient":
        assert close(found, tape(half, data, np.ones((4, 3))), 1e-3)


# Traces and weights


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, "max_activation") for name in WALKERS),
        *itertools.product(("gradient", "smoothgrad", "pattern.net"), ("index", "all", lambda z: z.argmin(axis=1))),
    ],
)
@pytest.mark.few(5)
def test_one_trace_serves_all_batch_sizes(name, mode, monkeypatch):
    model = cnn()
    analyzer = made(name, model, neuron_selection_mode=mode).fit(samples((7, 6, 2), 20))
    traced, walk = [], analyzer._walk
    monkeypatch.setattr(analyzer, "_walk", lambda *given: traced.append(1) or walk(*given))
    chosen = 1 if mode == "index" else None
    for n, batch_size in ((1, 128), (5, 128), (7, 3), (2, 1), (12, 5)):
        analyzer.analyze(samples((7, 6, 2), n), chosen, batch_size=batch_size)
    assert len(traced) == 1
    analyzer.logits(samples((7, 6, 2), 5))
    analyzer.logits(samples((7, 6, 2), 3), batch_size=2)
    assert isinstance(analyzer._logits, ConcreteFunction) and analyzer._logits is analyzer._logits


@pytest.mark.parametrize("name", [name for name in WALKERS if not name.startswith("pattern")])
@pytest.mark.few(3)
def test_weights_are_those_of_the_moment(name):
    model = cnn()
    x = samples((7, 6, 2), 6)
    analyzer = made(name, model)
    before = analyzer.analyze(x)
    with_weights(model, 11)
    after = analyzer.analyze(x)
    assert not close(before, after, 0.1)
    assert close(after, made(name, model).analyze(x), 1e-6)
