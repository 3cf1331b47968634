"""LRP: which rule each layer gets, whole networks against NumPy, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer
from mipin_keras.baselines import BASELINES
from mipin_keras.baselines.lrp import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z
from mipin_keras.baselines.lrp.analyzer import LRP
from mipin_keras.baselines.lrp.input_bounds import Bounded, BoundedInput
from mipin_keras.baselines.lrp.named_rules import RULES
from mipin_keras.graph import propagation
from mipin_keras.saving.archive import open_file
from tests.networks import NEEDED, balanced, close, cnn, layers_of, mlp, residual, samples, with_weights
from tests.reference import conv_matrix, pool, unpool_max, windows

L = keras.layers
METHODS = {name: kind for name, kind in BASELINES.items() if name.split(".")[0] == "lrp"}


def made(name, model, **options):
    return METHODS[name](model, **(NEEDED.get(name, {}) | options))


def by_name(analyzer):
    """The rule of each step with weights."""
    rules = {step.name: analyzer.rules[step.index] for step in analyzer.steps}
    return {name: rule for name, rule in rules.items() if name in ("conv", "bn", "conv2", "dense1", "head")}


def same(rules, wanted):
    plain = (Flat, WSquare)  # without parameters
    assert rules.keys() == wanted.keys()
    return all(
        rule == wanted[name] or type(rule) is type(wanted[name]) and isinstance(rule, plain)
        for name, rule in rules.items()
    )


def explained(analyzer, x, each=None):
    """The map of the largest logit, eagerly and in the dtype of ``x``; ``each`` sees every step's relevances."""
    graph = analyzer.graph
    tensors, trace = propagation.forward_with_traces(graph, tf.constant(x), analyzer.steps)
    logits = tensors[graph.output]

    def rule(step, trace, signal):
        found = analyzer.rules[step.index](step, trace, signal)
        if each is not None:
            each(step, found if isinstance(found, tuple) else (found,), signal)
        return found

    top = tf.one_hot(tf.argmax(logits, axis=1), graph.neurons, dtype=logits.dtype)
    return propagation.backward(graph, analyzer.steps, trace, logits * top, rule)[graph.input].numpy()


# Which rule each layer gets

IB = {"alpha": 2.0, "beta": 1.0, "bias": False}
TABLE = [
    ("lrp", {"rule": "Z"}, (Z(), Z(), Z(), Z())),
    ("lrp", {"rule": "Epsilon"}, (Epsilon(), Z(), Epsilon(), Epsilon())),
    ("lrp", {"rule": Epsilon(0.5)}, (Epsilon(0.5), Z(), Epsilon(0.5), Epsilon(0.5))),
    ("lrp", {"rule": {"dense": "Z", "conv": Flat()}}, (Flat(), Z(), Flat(), Z())),
    ("lrp", {"rule": {"dense": AlphaBeta(3, 2), "conv": "Z"}}, (Z(), Z(), Z(), AlphaBeta(3, 2, nonnegative=True))),
    ("lrp", {"rule": "Z", "input_layer_rule": "Flat"}, (Flat(), Z(), Z(), Z())),
    ("lrp", {"rule": "Z", "input_layer_rule": Epsilon(2.0)}, (Epsilon(2.0), Z(), Z(), Z())),
    ("lrp", {"rule": "Z", "bn_layer_rule": "AlphaBetaX2m100"}, (Z(), AlphaBetaX(), Z(), Z())),
    ("lrp", {"rule": "Z", "bn_layer_rule": Epsilon(2.0)}, (Z(), Epsilon(2.0), Z(), Z())),
    ("lrp", {"rule": "Z", "until_layer_idx": 1, "until_layer_rule": "Flat"}, (Flat(), Z(), Z(), Z())),
    ("lrp", {"rule": "Z", "until_layer_idx": 4, "until_layer_rule": Epsilon()}, (Epsilon(), Z(), Epsilon(), Z())),
    ("lrp", {"rule": "Z", "until_layer_idx": 8, "until_layer_rule": "Flat"}, (Flat(), Z(), Flat(), Flat())),
    (
        "lrp",
        {"rule": "Z", "input_layer_rule": "WSquare", "until_layer_idx": 4, "until_layer_rule": "Flat"},
        (WSquare(), Z(), Flat(), Z()),
    ),
    ("lrp.z", {}, (Z(),) * 4),
    ("lrp.z", {"bn_layer_rule": "Flat"}, (Z(), Flat(), Z(), Z())),
    ("lrp.epsilon", {}, (Epsilon(1e-7),) * 4),
    ("lrp.epsilon", {"epsilon": 0.25, "bias": False}, (Epsilon(0.25, False),) * 4),
    ("lrp.w_square", {}, (WSquare(),) * 4),
    ("lrp.flat", {}, (Flat(),) * 4),
    ("lrp.gamma", {}, (Gamma(0.25),) * 4),
    ("lrp.gamma", {"gamma": 1.0, "bias": False}, (Gamma(1.0, False),) * 4),
    ("lrp.epsilon_plus", {}, (AlphaBeta(bias=False), Epsilon(1e-6), AlphaBeta(bias=False), Epsilon(1e-6))),
    ("lrp.epsilon_plus", {"epsilon": 0.5}, (AlphaBeta(bias=False), Epsilon(0.5), AlphaBeta(bias=False), Epsilon(0.5))),
    ("lrp.alpha_beta", {"alpha": 3.0}, (AlphaBeta(3.0, 2.0),) * 4),
    ("lrp.alpha_beta", {"beta": 0.5, "bias": False}, (AlphaBeta(1.5, 0.5, False),) * 4),
    ("lrp.alpha_beta", {"alpha": 1.0, "beta": 0.0}, (AlphaBeta(1.0, 0.0),) * 4),
    ("lrp.alpha_2_beta_1", {}, (AlphaBeta(2.0, 1.0),) * 4),
    ("lrp.alpha_2_beta_1_IB", {}, (AlphaBeta(**IB),) * 4),
    ("lrp.alpha_1_beta_0", {}, (AlphaBeta(),) * 4),
    ("lrp.alpha_1_beta_0_IB", {}, (AlphaBeta(bias=False),) * 4),
    ("lrp.z_plus", {}, (AlphaBeta(bias=False),) * 4),
    ("lrp.z_plus_fast", {}, (AlphaBeta(bias=False, nonnegative=True),) * 4),
    ("lrp.sequential_preset_a", {}, (AlphaBeta(), AlphaBetaX(), AlphaBeta(), Epsilon(0.1))),
    ("lrp.sequential_preset_a", {"epsilon": 0.5}, (AlphaBeta(), AlphaBetaX(), AlphaBeta(), Epsilon(0.5))),
    ("lrp.sequential_preset_a", {"bn_layer_rule": "Z"}, (AlphaBeta(), Z(), AlphaBeta(), Epsilon(0.1))),
    ("lrp.sequential_preset_b", {}, (AlphaBeta(2, 1), AlphaBetaX(), AlphaBeta(2, 1), Epsilon(0.1))),
    ("lrp.sequential_preset_a_flat", {}, (Flat(), AlphaBetaX(), AlphaBeta(), Epsilon(0.1))),
    ("lrp.sequential_preset_b_flat", {"epsilon": 0.2}, (Flat(), AlphaBetaX(), AlphaBeta(2, 1), Epsilon(0.2))),
    ("lrp.sequential_preset_b_flat_until_idx", {}, (Flat(), AlphaBetaX(), AlphaBeta(2, 1), Epsilon(0.1))),
    (
        "lrp.sequential_preset_b_flat_until_idx",
        {"until_layer_idx": 4, "epsilon": 0.3},
        (Flat(), AlphaBetaX(), Flat(), Epsilon(0.3)),
    ),
]


@pytest.fixture(scope="module")
def network():
    return residual()


@pytest.mark.parametrize(("name", "options", "wanted"), TABLE)
def test_which_rule_each_layer_gets(name, options, wanted, network):
    wanted = dict(zip(("conv", "bn", "conv2", "head"), wanted, strict=True))
    for after_relu in ("conv2", "head"):
        wanted[after_relu] = wanted[after_relu].for_input(nonnegative=True)
    assert same(by_name(METHODS[name](network, **options)), wanted)


def test_every_method_is_in_the_table():
    assert METHODS.keys() == {name for name, _, _ in TABLE} | {"lrp.epsilon_gamma_box"}


@pytest.mark.parametrize("options", [{}, {"epsilon": 0.5, "gamma": 2.0}])
def test_epsilon_gamma_box_has_the_rule_z_b_first(options, network):
    analyzer = METHODS["lrp.epsilon_gamma_box"](network, low=-1.0, high=[2.0, 3.0], **options)
    rules = by_name(analyzer)
    low, high = rules["conv"].bounds.low, rules.pop("conv").bounds.high
    assert (low == -1).all() and (high == [2, 3]).all()
    epsilon = Epsilon(options.get("epsilon", 1e-6))
    gamma = Gamma(options.get("gamma", 0.25), nonnegative=True)
    assert same(rules, {"bn": epsilon, "conv2": gamma, "head": epsilon})
    with pytest.raises(ValueError, match="between the bounds"):
        analyzer.analyze(np.full((1, 7, 6, 2), -2.0, "float32"))
    for wrong in ({}, {"low": 0.0}, {"low": 1.0, "high": 0.0}):
        with pytest.raises(ValueError, match="the bounds of the input|low to be below high"):
            METHODS["lrp.epsilon_gamma_box"](network, **wrong)


def test_bounds_of_the_input_make_the_rule_z_b(network):
    rules = by_name(made("lrp.z", network, input_layer_rule=(-1.0, [2.0, 3.0])))
    assert isinstance(rules.pop("conv"), BoundedInput) and same(rules, {"bn": Z(), "conv2": Z(), "head": Z()})
    bounded = by_name(made("lrp.z", network, input_layer_rule=[-1.0, [2.0, 3.0]]))["conv"]
    low, high = bounded.bounds.low, bounded.bounds.high
    assert low.shape == high.shape == (7, 6, 2)
    assert (low == -1).all() and (high == [2, 3]).all()


def test_until_reaches_into_nested_models_and_shared_layers():
    shared, inner = L.Dense(4, name="dense1"), keras.Sequential([keras.Input((4,)), L.Dense(4, name="conv2")])
    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2, name="head")(shared(inner(shared(x)))))
    analyzer = LRP(model, rule="Z", until_layer_idx=2, until_layer_rule="Flat")
    kinds = [type(analyzer.rules[step.index]) for step in analyzer.steps]
    assert [layer.name for layer in model.layers][1] == "dense1" and kinds == [Flat, Flat, Flat, Z]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "needs rule="),
        ({"rule": "epsilon"}, "expected rule to be one of"),
        ({"rule": 3}, "expected rule to be one of"),
        ({"rule": Epsilon}, "expected rule to be one of"),
        ({"rule": {"dense": "Z"}}, "a dict of 'dense' and 'conv'"),
        ({"rule": {"dense": "Z", "conv": "Z", "bn": "Z"}}, "a dict of 'dense' and 'conv'"),
        ({"rule": {"dense": "Z", "conv": "None"}}, "expected rule to be one of"),
        ({"rule": "Z", "input_layer_rule": "Bounded"}, "expected input_layer_rule to be one of"),
        ({"rule": "Z", "input_layer_rule": (0.0, 1.0, 2.0)}, r"a rule or \(low, high\)"),
        ({"rule": "Z", "input_layer_rule": (1.0, 0.0)}, "low to be below high"),
        ({"rule": "Z", "input_layer_rule": ("Z", "Flat")}, "expected low to be a number"),
        ({"rule": "Z", "bn_layer_rule": "z"}, "expected bn_layer_rule to be one of"),
        ({"rule": "Z", "until_layer_idx": 1}, "need each other"),
        ({"rule": "Z", "until_layer_rule": "Z"}, "need each other"),
        ({"rule": "Z", "until_layer_idx": 1, "until_layer_rule": "z"}, "expected until_layer_rule to be one of"),
        *(
            ({"rule": "Z", "until_layer_idx": index, "until_layer_rule": "Z"}, "until_layer_idx")
            for index in (-1, 9, 1.0, True, "1")
        ),
    ],
)
def test_bad_options(options, problem, network):
    with pytest.raises(ValueError, match=problem):
        LRP(network, **options)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("lrp.epsilon", {"epsilon": 0.0}, "epsilon"),
        ("lrp.epsilon", {"bias": 1}, "bias"),
        ("lrp.sequential_preset_a", {"epsilon": -0.1}, "epsilon"),
        ("lrp.gamma", {"gamma": -0.1}, "gamma"),
        ("lrp.gamma", {"bias": "no"}, "bias"),
        ("lrp.epsilon_plus", {"epsilon": 0.0}, "epsilon"),
        ("lrp.epsilon_gamma_box", {"gamma": None}, "gamma"),
        ("lrp.alpha_beta", {"alpha": None}, "needs alpha= or beta="),
        ("lrp.alpha_beta", {"alpha": 0.5}, "alpha"),
        ("lrp.alpha_beta", {"alpha": None, "beta": -0.5}, "beta"),
        ("lrp.alpha_beta", {"alpha": 2.0, "beta": 0.5}, "alpha - beta = 1"),
        ("lrp.alpha_beta", {"alpha": 2.0, "bias": None}, "bias"),
    ],
)
def test_bad_options_of_named_methods(name, options, problem, network):
    with pytest.raises(ValueError, match=problem):
        made(name, network, **options)


# Whole networks, as shares of contributions (n, outputs, inputs) in NumPy and float64


def shared(parts, bias, relevance, epsilon=0.0):
    z = parts.sum(axis=2) + bias
    z = z + epsilon * np.where(z < 0, -1, 1)
    return np.einsum("noi,no->ni", parts, relevance / np.where(z == 0, 1e-7, z))


def z_rule(x, matrix, bias, relevance):
    return shared(x[:, None] * matrix, bias, relevance)


def epsilon_rule(epsilon):
    return lambda x, matrix, bias, relevance: shared(x[:, None] * matrix, bias, relevance, epsilon)


def alpha_beta_rule(alpha, beta):
    def rule(x, matrix, bias, relevance):
        parts = x[:, None] * matrix
        above = shared(np.maximum(parts, 0), np.maximum(bias, 0), relevance)
        return alpha * above - beta * shared(np.minimum(parts, 0), np.minimum(bias, 0), relevance)

    return rule


def alpha_beta_x_rule(x, matrix, bias, relevance):
    high = np.maximum(x, 0)[:, None]
    above = shared(high * np.maximum(matrix, 0), np.maximum(bias, 0), relevance)
    return 2 * above - shared(high * np.minimum(matrix, 0), np.minimum(bias, 0), relevance)


def flat_rule(x, matrix, bias, relevance):
    """For layers none of whose weights is exactly 0."""
    return shared((matrix != 0) + 0 * x[:, None], 0, relevance)


def top(logits):
    return logits * (logits == logits.max(axis=1, keepdims=True))


def walk_of_cnn(model, x, dense, conv, first=None):
    """What :func:`tests.networks.cnn` or mlp explains, by one rule for dense layers and one for convolutions."""
    tensors, steps = [x.astype(np.float64)], []
    for kind, *weights in layers_of(model):
        x = tensors[-1]
        flat = x.reshape(len(x), -1)
        if kind in ("dense", "conv"):
            kernel, bias = (w.astype(np.float64) for w in weights)
            matrix = kernel.T
            shape = (len(bias),)
            if kind == "conv":
                matrix = conv_matrix(kernel, x.shape[1:-1], (1, 1), (1, 1), "valid")
                shape = (*(n - k + 1 for n, k in zip(x.shape[1:-1], kernel.shape, strict=False)), len(bias))
                bias = np.tile(bias, matrix.shape[0] // len(bias))
            steps.append((kind, matrix, bias))
            tensors.append((flat @ matrix.T + bias).reshape(-1, *shape))
        else:
            steps.append((kind, *weights))
            ways = {"relu": lambda x=x: np.maximum(x, 0), "flatten": lambda flat=flat: flat}
            tensors.append(pool(x, weights[0], weights[0], "valid") if kind == "maxpool" else ways[kind]())
    relevance = top(tensors[-1])
    for i, (kind, *about) in reversed(list(enumerate(steps))):
        x = tensors[i]
        if kind in ("dense", "conv"):
            rule = first if first and i == 0 else dense if kind == "dense" else conv
            flat = relevance.reshape(len(x), -1)
            relevance = rule(x.reshape(len(x), -1), *about, flat)
        elif kind == "maxpool":
            relevance = unpool_max(x, relevance, about[0], about[0], "valid")
        relevance = relevance.reshape(x.shape)
    return relevance


def walk_of_residual(model, x, dense, conv, bn, first=None):
    """What :func:`tests.networks.residual` explains."""
    weights = {layer.name: [w.astype(np.float64) for w in layer.get_weights()] for layer in model.layers}
    *sizes, channels = x.shape[1:]
    places = sizes[0] * sizes[1]
    one, two = (conv_matrix(weights[name][0], sizes, (1, 1), (1, 1), "same") for name in ("conv", "conv2"))
    b1, b2 = (np.tile(weights[name][1], places) for name in ("conv", "conv2"))
    gamma, beta, mean, variance = weights["bn"]
    factor = gamma / np.sqrt(variance + model.get_layer("bn").epsilon)
    diagonal, offset = np.diag(np.tile(factor, places)), np.tile(beta - mean * factor, places)
    filters = len(gamma)
    _, elements = windows(sizes, (2, 2), (2, 2), (1, 1), "valid")
    mean = np.zeros((len(elements) * filters, places * filters))
    for i, window in enumerate(elements):
        for place in window:
            mean[i * filters : (i + 1) * filters, place * filters : (place + 1) * filters] += np.eye(filters) / 4
    kernel, bias = weights["head"]

    start = x.reshape(len(x), -1).astype(np.float64)
    convolved = start @ one.T + b1
    active = np.maximum(convolved @ diagonal + offset, 0)
    branch = np.maximum(active @ two.T + b2, 0)
    pooled = (active + branch) @ mean.T

    relevance = dense(pooled, kernel.T, bias, top(pooled @ kernel + bias))
    relevance = z_rule(active + branch, mean, 0, relevance)
    relevance = relevance / np.where(active + branch == 0, 1e-7, active + branch)
    relevance = active * relevance + conv(active, two, b2, branch * relevance)
    relevance = bn(convolved, diagonal, offset, relevance)
    return (first or conv)(start, one, b1, relevance).reshape(x.shape)


WHOLE = {
    "lrp.z": {"dense": z_rule, "conv": z_rule, "bn": z_rule},
    "lrp.epsilon": {key: epsilon_rule(1e-7) for key in ("dense", "conv", "bn")},
    "lrp.alpha_2_beta_1": {key: alpha_beta_rule(2, 1) for key in ("dense", "conv", "bn")},
    "lrp.sequential_preset_a": {"dense": epsilon_rule(0.1), "conv": alpha_beta_rule(1, 0), "bn": alpha_beta_x_rule},
    "lrp.sequential_preset_b_flat": {
        "dense": epsilon_rule(0.1), "conv": alpha_beta_rule(2, 1), "bn": alpha_beta_x_rule, "first": flat_rule,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [*WHOLE, "lrp.flat"])
def test_a_convolutional_network_is_its_numpy_walk(name):
    model = cnn()
    rules = {key: rule for key, rule in WHOLE.get(name, {}).items() if key != "bn"} or {"dense": flat_rule}
    x = samples((7, 6, 2), 6)
    wanted = walk_of_cnn(model, x, **({"conv": flat_rule} | rules))
    assert close(made(name, model).analyze(x), wanted, 1e-4)


@pytest.mark.parametrize("name", WHOLE)
def test_a_residual_network_is_its_numpy_walk(name, network):
    x = samples((7, 6, 2), 6)
    assert close(made(name, network).analyze(x), walk_of_residual(network, x, **WHOLE[name]), 1e-4)


@pytest.mark.parametrize("name", ["lrp.z", "lrp.alpha_2_beta_1"])
def test_a_dense_network_is_its_numpy_walk(name, rng):
    model = mlp()
    x = rng.normal(size=(6, 12)).astype("float32")
    assert close(made(name, model).analyze(x), walk_of_cnn(model, x, WHOLE[name]["dense"], None), 1e-4)


def test_the_neuron_that_is_asked_for(rng):
    model, x = mlp(), rng.normal(size=(6, 12)).astype("float32")
    analyzer = made("lrp.epsilon", model, neuron_selection_mode="index", bias=False, epsilon=1e-6)
    logits = analyzer.logits(x)
    found = np.stack([analyzer.analyze(x, unit) for unit in range(4)])
    every = made("lrp.epsilon", model, neuron_selection_mode="all", bias=False, epsilon=1e-6).analyze(x)
    assert close(every, found.sum(axis=0), 1e-4)
    np.testing.assert_allclose(found.sum(axis=2).T, logits, rtol=1e-3, atol=1e-3)


# Conservation


def conserving(dtype):
    """Layers of every kind that keeps the sum of relevance, none with a bias."""
    plain = {"use_bias": False, "dtype": dtype}
    x = keras.Input((8, 6, 2), dtype=dtype)
    y = L.Conv2D(3, 3, padding="same", activation="relu", **plain)(x)
    z = L.AveragePooling2D(2, dtype=dtype)(L.Conv2D(3, 3, padding="same", **plain)(y))
    y = L.MaxPooling2D(2, dtype=dtype)(y)
    y = L.Concatenate(dtype=dtype)([L.Add(dtype=dtype)([y, z]), L.Subtract(dtype=dtype)([z, y])])
    y = L.Conv2D(4, 2, strides=(1, 2), **plain)(L.ZeroPadding2D(1, dtype=dtype)(y))
    y = L.Dropout(0.5, dtype=dtype)(L.Activation("tanh", dtype=dtype)(y))
    y = L.Dense(5, activation="relu", **plain)(L.Flatten(dtype=dtype)(y))
    return with_weights(keras.Model(x, L.Dense(3, **plain)(y)), seed=2)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("lrp.z", "float64", 1e-10),
        ("lrp.epsilon", "float64", 1e-5),
        ("lrp.z", "float32", 1e-5),
        ("lrp.epsilon", "float32", 1e-5),
    ],
)
def test_the_sum_is_kept_step_by_step_and_through_the_network(name, dtype, tolerance, rng):
    analyzer = made(name, conserving(dtype))
    x = rng.normal(size=(4, 8, 6, 2)).astype(dtype)
    logits = propagation.forward(analyzer.graph, tf.constant(x))[analyzer.graph.output].numpy()

    def sums(tensor):
        return tensor.numpy().astype(np.float64).reshape(len(tensor), -1).sum(axis=1)

    def each(step, before, after):
        size = np.maximum(np.abs(after.numpy()).reshape(len(after), -1).sum(axis=1), 1e-30)
        assert (np.abs(sum(map(sums, before)) - sums(after)) <= tolerance * size).all(), step

    found = explained(analyzer, x, each)
    size = np.abs(found).reshape(4, -1).sum(axis=1)
    assert (np.abs(found.reshape(4, -1).sum(axis=1) - logits.max(axis=1)) <= tolerance * size).all()


@pytest.mark.parametrize("merge", [L.Add, L.Concatenate])
def test_the_sum_is_kept_where_a_branch_does_nothing(merge, rng):
    x = keras.Input((5,))
    y = L.Dense(6, activation="relu", use_bias=False)(x)
    y = L.Dense(3, use_bias=False)(merge()([y, L.Dropout(0.5)(y)]))
    analyzer = made("lrp.z", with_weights(keras.Model(x, y), seed=1))
    image = rng.normal(size=(4, 5)).astype("float32")
    logits = analyzer.logits(image).max(axis=1)
    assert (np.abs(logits) > 0.01).any()
    np.testing.assert_allclose(analyzer.analyze(image).sum(axis=1), logits, rtol=1e-3, atol=1e-5)


# The same network, written in other ways

RELUS = {
    "layer": lambda: L.ReLU(),
    "activation": lambda: L.Activation("relu"),
    "operation": lambda: keras.ops.relu,
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.few(5)
def test_a_relu_is_a_relu_however_it_is_written(name, rng):
    def network(relu):
        x = keras.Input((5, 2))
        built_in = {"activation": "relu"} if relu is None else {}
        then = relu() if relu else lambda y: y
        y = then(L.Conv1D(8, 2, **built_in)(x))
        y = then(L.Dense(12, **built_in)(L.Flatten()(y)))
        return with_weights(keras.Model(x, L.Dense(3)(y)), seed=1)

    x = rng.normal(size=(3, 5, 2)).astype("float32")
    wanted = explained(made(name, network(None)), x)
    assert np.abs(wanted).max() > 0
    for relu in RELUS.values():
        np.testing.assert_allclose(explained(made(name, network(relu)), x), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["lrp.epsilon", "lrp.alpha_1_beta_0", "lrp.sequential_preset_b_flat", "lrp.w_square"])
def test_a_nested_model_is_its_layers(name, rng):
    flat = cnn()
    layers = flat.layers
    inner = keras.Sequential([keras.Input((7, 6, 2)), *layers[:2]])
    nested = keras.Sequential([keras.Input((7, 6, 2)), inner, *layers[2:]])
    x = rng.normal(size=(3, 7, 6, 2)).astype("float32")
    assert close(made(name, nested).analyze(x), made(name, flat).analyze(x), 1e-6)


@pytest.mark.parametrize("name", ["lrp.epsilon", "lrp.alpha_1_beta_0", "lrp.sequential_preset_b_flat", "lrp.w_square"])
def test_a_shared_layer_is_two_layers_of_one_weight(name, rng):
    def network(first, second):
        x = keras.Input((5,))
        y = L.ReLU()(first(L.ReLU()(second(x))))
        return keras.Model(x, L.Dense(3, name="head")(L.Concatenate()([y, L.ReLU()(first(x))])))

    one = L.Dense(5)
    shared_ = with_weights(network(one, one), seed=1)
    apart = network(L.Dense(5), L.Dense(5))
    for layer in apart.layers:
        if isinstance(layer, L.Dense):
            layer.set_weights((shared_.get_layer("head") if layer.name == "head" else one).get_weights())
    x = rng.normal(size=(3, 5)).astype("float32")
    assert close(explained(made(name, shared_), x), explained(made(name, apart), x), 1e-6)


def test_analyze_is_the_walk_with_these_rules(network):
    x = samples((7, 6, 2), 4)
    analyzer = made("lrp.sequential_preset_b_flat", network)
    assert close(analyzer.analyze(x), explained(analyzer, x), 1e-5)


def test_the_model_is_left_as_it_was(network):
    weights, config = network.get_weights(), network.to_json()
    made("lrp.alpha_2_beta_1", network).analyze(samples((7, 6, 2), 2))
    assert network.to_json() == config
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# What LRP is not defined for


class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


REFUSED = {
    "'odd' (Multiply)": lambda x: L.Multiply(name="odd")([x, L.Dense(6)(x)]),
    "'odd' (Softmax)": lambda x: L.Softmax(name="odd")(x),
    "'odd' (Activation)": lambda x: L.Activation("softmax", name="odd")(x),
    "'odd/softmax' (Activation)": lambda x: L.Dense(6, activation="softmax", name="odd")(x),
    "'odd' (Doubled)": lambda x: Doubled(name="odd")(x),
    "'odd' (Lambda)": lambda x: L.Lambda(lambda y: 2 * y, name="odd")(x),
}


@pytest.mark.parametrize("layer", REFUSED)
@pytest.mark.parametrize("name", ["lrp.z", "lrp.sequential_preset_a"])
def test_layers_that_lrp_is_not_defined_for(layer, name):
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(3)(L.ReLU()(REFUSED[layer](L.Dense(6)(x)))))
    with pytest.raises(ValueError) as caught:
        made(name, model)
    message = str(caught.value)
    assert message.startswith(f"{name!r} expected layers that it is defined for, received layer {layer}")
    for other in ("gradient", "input_t_gradient", "integrated_gradients", "smoothgrad", "mipin"):
        assert f"'{other}'" in message
    assert "'lrp" not in message.removeprefix(repr(name))
    assert "ReLU" not in message and "Dense" not in message


def test_all_of_them_are_named():
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(3)(L.Softmax(name="two")(L.Dense(6)(Doubled(name="one")(L.Dense(6)(x))))))
    with pytest.raises(ValueError, match=r"layer 'one' \(Doubled\), 'two' \(Softmax\)"):
        made("lrp.epsilon", model)


def test_what_does_not_depend_on_the_input_is_left_alone():
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(3, activation="softmax", name="head")(L.Dense(6, activation="tanh")(x)))
    analyzer = made("lrp.epsilon", model)
    assert analyzer.graph.stripped == "head/softmax" and len(analyzer.steps) == 3


# Files

SAVED = [
    ("lrp", {"rule": "Epsilon"}),
    ("lrp", {"rule": {"dense": "Z", "conv": "Flat"}, "bn_layer_rule": "Flat", "input_layer_rule": "WSquare"}),
    ("lrp", {"rule": "Z", "until_layer_idx": 1, "until_layer_rule": "Flat"}),
    ("lrp.z", {"input_layer_rule": (-1.0, 2.0)}),
    ("lrp.z", {"input_layer_rule": (np.array([-1.0, -2.0]), np.float32(2.0))}),
    ("lrp.epsilon", {"epsilon": 0.25, "bias": False, "output_layer": "head"}),
    ("lrp.alpha_beta", {"alpha": 2.5, "bias": False}),
    ("lrp.alpha_beta", {"beta": 0.5}),
    ("lrp.sequential_preset_a", {"epsilon": 0.5, "bn_layer_rule": "Z", "input_layer_rule": "Flat"}),
    ("lrp.sequential_preset_b_flat_until_idx", {"until_layer_idx": 4}),
    *((name, NEEDED.get(name, {})) for name in METHODS),
]


@pytest.mark.parametrize(("name", "options"), SAVED)
def test_options_come_back_from_a_file(name, options, network, tmp_path):
    analyzer = METHODS[name](network, **options)
    analyzer.save(tmp_path / "file.npz")
    with open_file(tmp_path / "file.npz") as file:
        again = METHODS[name](network, **file.header["options"])
    assert again.load(tmp_path / "file.npz") is again
    rules, wanted = by_name(again), by_name(analyzer)
    for found, bounded in zip(rules.values(), wanted.values(), strict=True):
        if isinstance(bounded, BoundedInput):
            found, bounded = found.bounds, bounded.bounds
            np.testing.assert_array_equal([found.low, found.high], [bounded.low, bounded.high])
            rules["conv"] = wanted["conv"] = Z()
    assert same(rules, wanted)


def test_a_file_of_other_options_is_refused(network, tmp_path):
    made("lrp.epsilon", network, epsilon=0.25).save(tmp_path / "file.npz")
    for other in (made("lrp.epsilon", network), made("lrp.epsilon", network, epsilon=0.25, bias=False)):
        with pytest.raises(ValueError, match="other options"):
            other.load(tmp_path / "file.npz")
    with pytest.raises(ValueError, match="of 'lrp.z'"):
        made("lrp.z", network).load(tmp_path / "file.npz")


RULES_OF_FILES = [
    {"rule": Epsilon(0.5)}, {"rule": {"dense": Flat(), "conv": "Z"}}, {"rule": "Z", "input_layer_rule": Flat()},
    {"rule": "Z", "bn_layer_rule": AlphaBetaX()}, {"rule": AlphaBetaX((1.5, 0.5), (0.25, 0.75))},
    {"rule": "Z", "until_layer_idx": 1, "until_layer_rule": Epsilon(0.5)},
    {"rule": "Z", "rules": {"conv": Gamma(0.5), L.Dense: Flat(), L.BatchNormalization: "Epsilon"}},
]  # fmt: skip


@pytest.mark.parametrize("options", RULES_OF_FILES)
@pytest.mark.few(2)
def test_rules_come_back_from_a_file(options, network, tmp_path):
    analyzer, x = LRP(network, **options), samples((7, 6, 2), 3)
    loaded = load_analyzer(analyzer.save(tmp_path / "file.npz"), network)
    assert loaded.options == analyzer.options and same(by_name(loaded), by_name(analyzer))
    np.testing.assert_array_equal(loaded.analyze(x), analyzer.analyze(x))
    load_analyzer(loaded.save(tmp_path / "again.npz"), network)


def test_a_rule_of_ones_own_cannot_be_saved(network, tmp_path):
    class Halved(Rule):
        pass

    with pytest.raises(ValueError, match="options that a file can hold"):
        LRP(network, rule="Z", input_layer_rule=Halved()).save(tmp_path / "file.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", [{"rule": "Best"}, {"rule": "Gamma", "delta": 1}, {"rule": "Gamma", "gamma": -1}])
def test_a_file_of_no_rule_is_refused(found, network):
    with pytest.raises(ValueError, match="expected a rule as an analyzer's file|expected gamma to be"):
        LRP(network, rule=found)


# Rules for single layers


@pytest.mark.parametrize(
    ("name", "options", "rules", "changed"),
    [
        ("lrp.epsilon", {}, {"conv2": Gamma(0.5)}, {"conv2": Gamma(0.5)}),
        ("lrp.z", {}, {L.Conv2D: "Flat"}, {"conv": Flat(), "conv2": Flat()}),
        ("lrp.z", {}, {L.Conv2D: "Flat", "conv": "WSquare"}, {"conv": WSquare(), "conv2": Flat()}),
        ("lrp.z", {}, {L.Layer: "Flat", L.Dense: "WSquare"}, {k: Flat() for k in ("conv", "bn", "conv2")}
         | {"head": WSquare()}),
        ("lrp.z", {"bn_layer_rule": "Flat"}, {L.BatchNormalization: "WSquare"}, {"bn": WSquare()}),
        ("lrp.z", {}, {"bn": Epsilon(0.5)}, {"bn": Epsilon(0.5)}),
        # The first layers, and those up to an index, go before a rule by type and after one by name.
        ("lrp.sequential_preset_a_flat", {}, {L.Conv2D: "WSquare"}, {"conv2": WSquare()}),
        ("lrp.sequential_preset_a_flat", {}, {"conv": "WSquare"}, {"conv": WSquare()}),
        ("lrp.z", {"until_layer_idx": 4, "until_layer_rule": "Flat"}, {L.Conv2D: "WSquare", "conv2": "Epsilon"},
         {"conv": Flat(), "conv2": Epsilon()}),
        ("lrp", {"rule": "Z"}, {"head": "Flat"}, {"head": Flat()}),
    ],
)  # fmt: skip
def test_rules_for_single_layers(name, options, rules, changed, network):
    plain = by_name(METHODS[name](network, **{k: v for k, v in options.items() if "until" not in k}))
    found = by_name(METHODS[name](network, rules=rules, **options))
    for after_relu in {"conv2", "head"} & changed.keys():
        changed[after_relu] = changed[after_relu].for_input(nonnegative=True)
    assert same(found, plain | changed)


def test_rules_reach_separable_nested_and_shared_layers():
    shared, inner = L.Dense(4, name="twice"), keras.Sequential([keras.Input((4,)), L.Dense(4, name="inside")])
    x = keras.Input((5, 6, 2))
    y = L.Flatten()(L.SeparableConv2D(2, 3, name="separable")(x))
    y = inner(shared(shared(L.Dense(4, name="plain")(y))))
    model = keras.Model(x, L.Dense(2, name="head")(y))
    analyzer = create_analyzer("lrp.z", model, rules={L.SeparableConv2D: "Flat", "twice": "WSquare", "inside": "Flat"})
    found = {step.name: type(analyzer.rules[step.index]) for step in analyzer.steps if step.linear}
    names = ["separable/depthwise", "separable/pointwise", "plain", "twice", "twice#2", f"{inner.name}/inside", "head"]
    assert found == dict(zip(names, [Flat, Flat, Z, WSquare, WSquare, Flat, Z], strict=True))


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"nowhere": "Z"}, "unknown layer name 'nowhere'"),
        ({"pool": "Z"}, "which names none"),
        ({L.Conv3D: "Z"}, "'Conv3D', which names none"),
        ({keras.Model: "Z"}, "which names none"),
        ({"conv": "z"}, r"expected rules\['conv'\] to be one of"),
        ({L.Dense: Epsilon}, r"expected rules\['Dense'\] to be one of"),
        ({"conv": Bounded(0.0, 1.0)}, "a rule for any layer"),
        ({3: "Z"}, "layer names or layer types as keys"),
        ({L.Dense(1): "Z"}, "layer names or layer types as keys"),
        ({}, "a dict from layer names or layer types"),
        ("Z", "a dict from layer names or layer types"),
        (["conv", "Z"], "a dict from layer names or layer types"),
    ],
)
def test_bad_rules_for_single_layers(rules, problem, network):
    with pytest.raises(ValueError, match=problem):
        create_analyzer("lrp.z", network, rules=rules)


def test_a_rule_for_a_layer_that_relevance_does_not_come_by_is_refused(network):
    with pytest.raises(ValueError, match=r"'conv', which names none; they are \['conv2', 'head'\]"):
        create_analyzer("lrp.z", network, rules={"conv": "Flat"}, input_layer="relu")


def test_a_rule_of_ones_own(network):
    class Halved(Rule):
        def __call__(self, step, trace, signal):
            return tuple(part / 2 for part in trace.vjp(signal))

    analyzer = LRP(network, rule="Z", input_layer_rule=Halved())
    x = samples((7, 6, 2), 3)
    pulled = []
    explained(analyzer, x, lambda step, before, after: pulled.append((step, before[0], after)))
    step, found, signal = pulled[-1]
    kernel = network.get_layer("conv").get_weights()[0]
    matrix = conv_matrix(kernel, (7, 6), (1, 1), (1, 1), "same")
    assert step.name == "conv" and close(found, (signal.numpy().reshape(3, -1) @ matrix / 2).reshape(x.shape), 1e-5)


NAMED = {
    "Z": Z(), "Epsilon": Epsilon(1e-7), "WSquare": WSquare(), "Flat": Flat(), "Gamma": Gamma(0.25),
    "Alpha1Beta0": AlphaBeta(1.0, 0.0), "Alpha1Beta0IgnoreBias": AlphaBeta(1.0, 0.0, bias=False),
    "Alpha2Beta1": AlphaBeta(2.0, 1.0), "Alpha2Beta1IgnoreBias": AlphaBeta(2.0, 1.0, bias=False),
    "AlphaBetaX2m100": AlphaBetaX(), "ZPlus": AlphaBeta(1.0, 0.0, bias=False),
    "ZPlusFast": AlphaBeta(1.0, 0.0, bias=False, nonnegative=True),
}  # fmt: skip


def test_each_name_is_its_rule():
    assert NAMED.keys() == RULES.keys()
    model = balanced(with_weights(keras.Sequential([keras.Input((4,)), L.Dense(3, name="dense1"), L.Dense(2)])))
    for name, rule in NAMED.items():
        assert same({"dense1": by_name(LRP(model, rule=name))["dense1"]}, {"dense1": rule.for_input(nonnegative=False)})


def test_rules_and_indices_that_change_nothing_are_refused():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, L.Dense(3)(x))
    with pytest.raises(ValueError, match="up to 'x' there is none"):
        create_analyzer("lrp", model, rule="Z", until_layer_idx=0, until_layer_rule="Flat")
    with pytest.raises(ValueError, match=r"give input_layer_rule=\(low, high\)"):
        create_analyzer("lrp", model, rule=Bounded(np.zeros(4), np.ones(4)))
    with pytest.raises(ValueError, match="epsilon.*1e-50"):
        create_analyzer("lrp.epsilon", model, epsilon=1e-50)


def test_a_numpy_epsilon_can_be_saved(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    analyzer = create_analyzer("lrp.epsilon", model, epsilon=np.float32(0.5))
    assert load_analyzer(analyzer.save(tmp_path / "a.npz"), model).options["epsilon"] == 0.5


def test_a_refusal_names_the_methods_that_take_each_layer():
    x = keras.Input((4,))
    y = L.Dense(3, activation="tanh")(x)
    model = keras.Model(x, L.Dense(2)(L.BatchNormalization()(y)))
    for name in ("deep_taylor", "guided_backprop", "pattern.net"):
        with pytest.raises(ValueError, match=r"take 'lrp.z', 'lrp.epsilon', 'gradient'"):
            create_analyzer(name, model)
        create_analyzer("lrp.epsilon", model)


# Steps that are no layers with weights


def gradient_times_input(model, x, held):
    """For the largest logit, from a copy of the model in TensorFlow in which ``held`` parts are constants."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = held(model, x)
        largest = tf.reduce_max(logits, axis=1)
    return (x * tape.gradient(largest, x)).numpy()


def test_a_gate_takes_nothing(rng):
    """Without biases and ReLUs, Z with a gate is input times the gradient in which the gate is a constant."""
    inputs = keras.Input((4, 3, 2))
    conv = L.Conv2D(3, 2, use_bias=False, name="conv")
    squeeze, excite = L.GlobalAveragePooling2D(keepdims=True), L.Dense(3, activation="sigmoid", name="excite")
    flat, head = L.Flatten(), L.Dense(3, use_bias=False, name="head")
    y = conv(inputs)
    model = with_weights(keras.Model(inputs, head(flat(L.Multiply()([y, excite(squeeze(y))])))))
    x = rng.normal(size=(5, 4, 3, 2)).astype("float32")

    def held(model, x):
        y = conv(x)
        return head(flat(y * tf.stop_gradient(excite(squeeze(y)))))

    found = made("lrp.z", model).analyze(x)
    assert close(found, gradient_times_input(model, x, held), 1e-4)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), model(x).numpy().max(axis=1), rtol=1e-3)


def test_a_layer_normalisation_divides_by_a_constant(rng):
    """Likewise with the deviation of each sample for a constant (Ali et al. 2022, Eq. 9)."""
    dense, norm = L.Dense(6, use_bias=False), L.LayerNormalization(center=False)
    head = L.Dense(3, use_bias=False)
    model = with_weights(keras.Sequential([keras.Input((4,)), dense, norm, head]))
    x = rng.normal(size=(5, 4)).astype("float32")

    def held(model, x):
        y = dense(x)
        mean, variance = tf.nn.moments(y, -1, keepdims=True)
        return head((y - mean) * tf.stop_gradient(tf.math.rsqrt(variance + norm.epsilon)) * norm.gamma)

    assert close(made("lrp.z", model).analyze(x), gradient_times_input(model, x, held), 1e-4)


def test_activations_and_scalings_pass_relevance_on(rng):
    layers = [L.Dense(5), L.PReLU(), L.Rescaling(3.0, offset=1.0), L.ELU(), L.Dense(3)]
    model = with_weights(keras.Sequential([keras.Input((4,)), *layers]))
    x = rng.normal(size=(3, 4))
    signals = {}
    analyzer = made("lrp.epsilon", model)

    def note(step, found, signal):
        signals[step.index] = found[0], signal

    explained(analyzer, x.astype("float32"), note)
    assert [analyzer.graph.steps[i].layer for i in (1, 2, 3)] == layers[1:4]
    for index in (1, 2, 3):
        np.testing.assert_array_equal(*signals[index])


def test_a_separable_convolution_is_two_layers_with_weights(rng):
    layers = [L.SeparableConv2D(4, 2, use_bias=False, activation="relu"), L.Flatten(), L.Dense(3, use_bias=False)]
    model = with_weights(keras.Sequential([keras.Input((5, 4, 2)), *layers]))

    def rules(**options):
        analyzer = made("lrp", model, **options)
        return [type(analyzer.rules[step.index]) for step in analyzer.steps if step.linear]

    assert rules(rule="Z") == [Z, Z, Z]
    assert rules(rule="Z", input_layer_rule="Flat") == [Flat, Z, Z]
    assert rules(rule="Z", until_layer_idx=0, until_layer_rule="Flat") == [Flat, Flat, Z]
    assert rules(rule={"conv": "WSquare", "dense": "Z"}) == [WSquare, WSquare, Z]
    x = rng.normal(size=(5, 5, 4, 2)).astype("float32")
    found = made("lrp.z", model).analyze(x)  # no bias: the sum is kept
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), np.asarray(model(x)).max(axis=1), rtol=1e-3)


def test_a_product_of_which_nothing_is_the_gate_does_not_name_lrp():
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(3)(L.Multiply(name="odd")([L.Dense(6)(x), L.Dense(6)(x)])))
    with pytest.raises(ValueError, match=r"'odd' \(Multiply\)") as caught:
        made("lrp.epsilon", model)
    assert "'lrp.z'" not in str(caught.value)
