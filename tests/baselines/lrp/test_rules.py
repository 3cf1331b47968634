"""The rules of layer-wise relevance propagation against shares of explicit contributions, in NumPy and float64."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.baselines.lrp.input_bounds import Bounded
from mipin_keras.baselines.lrp.named_rules import RULES
from mipin_keras.baselines.lrp.nonlinear_rules import Gated, Standardized
from mipin_keras.baselines.lrp.rules import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z
from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import close
from tests.reference import conv_matrix, depthwise_matrix, transposed_matrix

L = keras.layers

KERNEL_LAYERS = {
    "dense": (L.Dense, (7,), {"units": 5}),
    "dense-rank3": (L.Dense, (3, 4), {"units": 5}),
    "conv1d-causal": (L.Conv1D, (7, 2), {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    "conv1d-same": (L.Conv1D, (8, 2), {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2}),
    "conv1d-valid": (L.Conv1D, (8, 2), {"filters": 3, "kernel_size": 3}),
    "conv2d-strides": (L.Conv2D, (7, 6, 2), {"filters": 3, "kernel_size": (3, 2), "strides": (2, 3)}),
    "conv2d-same": (L.Conv2D, (5, 4, 2), {"filters": 3, "kernel_size": 3, "padding": "same"}),
    "conv2d-same-strides": (L.Conv2D, (6, 5, 1), {"filters": 2, "kernel_size": 3, "padding": "same", "strides": 2}),
    "conv2d-dilation": (L.Conv2D, (6, 5, 1), {"filters": 2, "kernel_size": 2, "padding": "same", "dilation_rate": 2}),
    "depthwise1d": (L.DepthwiseConv1D, (7, 2), {"kernel_size": 3, "padding": "same", "depth_multiplier": 2}),
    "depthwise2d": (L.DepthwiseConv2D, (6, 5, 2), {"kernel_size": (3, 2), "strides": 2, "depth_multiplier": 2}),
    "transposed1d": (L.Conv1DTranspose, (4, 2), {"filters": 2, "kernel_size": 3, "strides": 2}),
    "transposed2d": (
        L.Conv2DTranspose, (3, 2, 2), {"filters": 2, "kernel_size": (3, 2), "strides": 2, "padding": "same"},
    ),
    "conv3d": (L.Conv3D, (4, 3, 3, 2), {"filters": 2, "kernel_size": (2, 3, 2), "padding": "same", "strides": 2}),
}  # fmt: skip
# Apart, as Keras compiles each of its convolutions anew, which takes a second.
GROUPED = {"conv2d-groups": (L.Conv2D, (4, 5, 4), {"filters": 4, "kernel_size": 2, "groups": 2, "strides": 2})}
NORMALIZATIONS = {
    "bn": (L.BatchNormalization, (6,), {}),
    "bn-image": (L.BatchNormalization, (3, 4, 2), {}),
    "bn-axis1": (L.BatchNormalization, (3, 4, 2), {"axis": 1, "epsilon": 0.1}),
    "bn-axis-2": (L.BatchNormalization, (3, 4, 2), {"axis": -2}),
    "bn-no-center": (L.BatchNormalization, (3, 4), {"center": False}),
    "bn-no-scale": (L.BatchNormalization, (3, 4), {"scale": False}),
    "bn-bare": (L.BatchNormalization, (6,), {"center": False, "scale": False}),
}
# One layer of each kind in the quick tests.
QUICK = ("dense", "conv1d-causal", "conv2d-same-strides", "depthwise2d", "transposed2d", "bn-axis1")
CASES = [
    pytest.param(name, True, marks=() if name in QUICK else pytest.mark.medium)
    for name in [*KERNEL_LAYERS, *NORMALIZATIONS]
]
CASES += [
    pytest.param(name, False, marks=() if name == "conv3d" else pytest.mark.medium)
    for name in ("dense", "dense-rank3", "conv1d-same", "conv2d-strides", "depthwise2d", "conv3d")
]


# The layers, as a graph and as a matrix


class Linear:
    """A layer as the first step of a float model, and as what it is in NumPy.

    Attributes:
        matrix: From a kernel to a float64 (outputs, inputs).
        kernel: Its own.
        bias: float64 (outputs,).
    """

    def __init__(self, name, bias, dtype="float64", seed=0):
        kind, self.shape, settings = (KERNEL_LAYERS | GROUPED | NORMALIZATIONS)[name]
        settings = settings if name in NORMALIZATIONS else settings | {"use_bias": bias}
        layer = kind(**settings, dtype=dtype)
        head = [L.Flatten(dtype=dtype), L.Dense(1, dtype=dtype)]
        self.graph = ModelGraph(keras.Sequential([keras.Input(self.shape, dtype=dtype), layer, *head]))
        self.step = self.graph.steps[0]
        rng = np.random.default_rng(seed)
        weights = {}
        for variable in layer.variables:
            value = rng.normal(size=variable.shape).astype(np.float32).astype(np.float64)
            weights[variable.name] = 0.3 + np.abs(value) if variable.name == "moving_variance" else value
            variable.assign(weights[variable.name])
        if kind is L.BatchNormalization:
            self._normalization(layer, weights)
        else:
            self._kernel_layer(layer, settings, weights)

    def _normalization(self, layer, weights):
        kernel = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + layer.epsilon)
        bias = weights.get("beta", 0.0) - kernel * weights["moving_mean"]
        axis = layer.axis - 1 if layer.axis > 0 else layer.axis
        places = np.moveaxis(np.arange(np.prod(self.shape)).reshape(self.shape), axis, -1)
        self.kernel = kernel
        self.bias = np.empty(places.size)
        self.bias[places] = bias

        def matrix(kernel):
            diagonal = np.empty(places.size)
            diagonal[places] = kernel
            return np.diag(diagonal)

        self.matrix = matrix

    def _kernel_layer(self, layer, settings, weights):
        self.kernel = weights["kernel"]
        rows = int(np.prod(self.step.output_shape[:-1]))
        self.bias = np.tile(weights.get("bias", np.zeros(self.step.output_shape[-1])), rows)
        if isinstance(layer, L.Dense):
            self.matrix = lambda kernel: np.kron(np.eye(rows), kernel.T)
            return
        rank = len(self.shape) - 1
        axes = [settings.get(key, 1) for key in ("strides", "dilation_rate")]
        axes = [(value,) * rank if isinstance(value, int) else value for value in axes]
        padding, groups = settings.get("padding", "valid"), settings.get("groups", 1)
        if "Transpose" in type(layer).__name__:
            self.matrix = lambda kernel: transposed_matrix(kernel, self.step.output_shape[:-1], *axes, padding)
        elif "Depthwise" in type(layer).__name__:
            self.matrix = lambda kernel: depthwise_matrix(kernel, self.shape[:-1], *axes, padding)
        else:
            self.matrix = lambda kernel: conv_matrix(kernel, self.shape[:-1], *axes, padding, groups)

    def samples(self, nonnegative=False, seed=0, n=3):
        """Inputs and relevances of outputs, float64 that float32 holds too."""
        rng = np.random.default_rng(100 + seed)
        x, relevance = (
            rng.normal(size=(n, *shape)).astype("float32").astype("float64")
            for shape in (self.shape, self.step.output_shape)
        )
        return np.abs(x) if nonnegative else x, relevance

    def trace(self, x):
        """The step's pass."""
        x = tf.constant(x, self.graph.model.inputs[0].dtype)
        return propagation.forward_with_traces(self.graph, x, [self.step])[1][0]

    def found(self, rule, x, relevance):
        """What the rule makes of it."""
        found = rule(self.step, self.trace(x), tf.constant(relevance, self.graph.model.inputs[0].dtype))
        found = found[0] if isinstance(found, tuple) else found
        assert found.dtype == self.graph.model.inputs[0].dtype and found.shape == x.shape
        return found.numpy()

    def wanted(self, formula, x, relevance):
        """What the formula does."""
        flat = formula(self, x.reshape(len(x), 1, -1), relevance.reshape(len(x), -1))
        return flat.reshape(x.shape)


linear = functools.cache(Linear)


# The rules, as shares of contributions (n, outputs, inputs)


def filled(z):
    return np.where(z == 0, 1e-7, z)


def shared(parts, bias, relevance, divisor=filled):
    """Each output's relevance among its inputs, by their parts; a bias has its part, which goes nowhere."""
    return np.einsum("noi,no->ni", parts, relevance / divisor(parts.sum(axis=2) + bias))


def z_rule(bias):
    return lambda a, x, r: shared(x * a.matrix(a.kernel), a.bias * bias, r)


def epsilon_rule(epsilon, bias):
    def divisor(z):
        return z + epsilon * np.where(z < 0, -1, 1)

    return lambda a, x, r: shared(x * a.matrix(a.kernel), a.bias * bias, r, divisor)


def square_rule(a, x, r):
    return shared(np.square(a.matrix(a.kernel)) + 0 * x, 0, r)


def flat_rule(a, x, r):
    return shared(a.matrix(np.ones_like(a.kernel)) + 0 * x, 0, r)


def alpha_beta_rule(alpha, beta, bias):
    def formula(a, x, r):
        parts = x * a.matrix(a.kernel)
        above = shared(np.maximum(parts, 0), np.maximum(a.bias, 0) * bias, r)
        return alpha * above - beta * shared(np.minimum(parts, 0), np.minimum(a.bias, 0) * bias, r)

    return formula


def alpha_beta_x_rule(alpha, beta, bias):
    def formula(a, x, r):
        matrix = a.matrix(a.kernel)
        parts = x * matrix
        above, below = np.maximum(a.bias, 0) * bias, np.minimum(a.bias, 0) * bias
        found = alpha[0] * shared(parts * ((x > 0) & (matrix > 0)), above, r)
        found += alpha[1] * shared(parts * ((x < 0) & (matrix < 0)), below, r)
        found -= beta[0] * shared(parts * ((x > 0) & (matrix < 0)), below, r)
        return found - beta[1] * shared(parts * ((x < 0) & (matrix > 0)), above, r)

    return formula


def gamma_rule(gamma, bias):
    """Contributions of the sign of z count 1 + gamma times."""

    def formula(a, x, r):
        parts, own = x * a.matrix(a.kernel), a.bias * bias
        above = parts.sum(axis=2) + own >= 0
        found = 0
        for sign, there in ((1, above), (-1, ~above)):
            weighed, bias_weighed = (b * np.where(sign * b > 0, 1 + gamma, 1) for b in (parts, own))
            found = found + shared(weighed, bias_weighed, r * there)
        return found

    return formula


def fast_rule(a, x, r):
    return shared(x * np.maximum(a.matrix(a.kernel), 0), 0, r)


ABX = ((1.5, 0.5), (0.25, 0.75))
FORMULAS = {
    "Z": (Z(), z_rule(1)),
    "Z-no-bias": (Z(bias=False), z_rule(0)),
    "Epsilon": (Epsilon(), epsilon_rule(1e-7, 1)),
    "Epsilon-0.25": (Epsilon(0.25), epsilon_rule(0.25, 1)),
    "Epsilon-no-bias": (Epsilon(0.01, bias=False), epsilon_rule(0.01, 0)),
    "WSquare": (WSquare(), square_rule),
    "Flat": (Flat(), flat_rule),
    "Alpha1Beta0": (AlphaBeta(), alpha_beta_rule(1, 0, 1)),
    "Alpha1Beta0-no-bias": (AlphaBeta(bias=False), alpha_beta_rule(1, 0, 0)),
    "Alpha2Beta1": (AlphaBeta(2.0, 1.0), alpha_beta_rule(2, 1, 1)),
    "Alpha2Beta1-no-bias": (AlphaBeta(2, 1, bias=False), alpha_beta_rule(2, 1, 0)),
    "Alpha3.5Beta2.5": (AlphaBeta(3.5, 2.5), alpha_beta_rule(3.5, 2.5, 1)),
    "Gamma": (Gamma(), gamma_rule(0.25, 1)),
    "Gamma-3-no-bias": (Gamma(3.0, bias=False), gamma_rule(3.0, 0)),
    "AlphaBetaX": (AlphaBetaX(), alpha_beta_x_rule((2, 0), (1, 0), 1)),
    "AlphaBetaX-all": (AlphaBetaX(*ABX), alpha_beta_x_rule(*ABX, 1)),
    "AlphaBetaX-no-bias": (AlphaBetaX(*ABX, bias=False), alpha_beta_x_rule(*ABX, 0)),
    "ZPlusFast": (AlphaBeta(bias=False, nonnegative=True), fast_rule),
}
NAMED = {
    "Z": "Z", "Epsilon": "Epsilon", "WSquare": "WSquare", "Flat": "Flat", "Gamma": "Gamma",
    "Alpha1Beta0": "Alpha1Beta0",
    "Alpha1Beta0IgnoreBias": "Alpha1Beta0-no-bias", "Alpha2Beta1": "Alpha2Beta1",
    "Alpha2Beta1IgnoreBias": "Alpha2Beta1-no-bias", "AlphaBetaX2m100": "AlphaBetaX", "ZPlus": "Alpha1Beta0-no-bias",
    "ZPlusFast": "ZPlusFast",
}  # fmt: skip


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize(("name", "bias"), CASES)
@pytest.mark.few(26)
def test_a_rule_is_its_formula_on_the_layers_matrix(name, bias, rule):
    layer, (rule, formula) = linear(name, bias), FORMULAS[rule]
    sets = [layer.samples(nonnegative, seed) for nonnegative, seed in ((False, 0), (False, 1), (True, 2))]
    x, relevance = (np.concatenate(parts) for parts in zip(*sets, strict=True))
    found, wanted = layer.found(rule, x, relevance), layer.wanted(formula, x, relevance)
    for i in range(0, len(x), 3):
        assert close(found[i : i + 3], wanted[i : i + 3], 1e-9)


@pytest.mark.parametrize("rule", ["Z", "Flat", "Alpha1Beta0"])
def test_rules_of_grouped_convolutions(rule):
    test_a_rule_is_its_formula_on_the_layers_matrix("conv2d-groups", True, rule)


@pytest.mark.parametrize(("name", "bias"), CASES)
def test_the_matrix_is_the_layers_own(name, bias):
    layer = linear(name, bias)
    x, _ = layer.samples()
    wanted = x.reshape(len(x), -1) @ layer.matrix(layer.kernel).T + layer.bias
    assert close(layer.trace(x).output, wanted.reshape(len(x), *layer.step.output_shape), 1e-12)


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize("name", ["dense", "conv1d-causal", "conv2d-same", "bn-image"])
def test_rules_in_float32(name, rule):
    layer = linear(name, True, "float32")
    x, relevance = layer.samples(nonnegative=rule == "ZPlusFast", seed=3)
    relevance *= layer.trace(x).output.numpy()  # so that no z near 0 magnifies its rounding
    rule, formula = FORMULAS[rule]
    assert close(layer.found(rule, x, relevance), layer.wanted(formula, x, relevance), 1e-5)


@pytest.mark.parametrize("name", NAMED)
def test_names_stand_for_their_rules(name):
    layer, rule = linear("conv2d-same", True), RULES[name]()
    assert isinstance(rule, Rule)
    x, relevance = layer.samples(seed=4)
    assert close(layer.found(rule, x, relevance), layer.wanted(FORMULAS[NAMED[name]][1], x, relevance), 1e-9)


@pytest.mark.parametrize("name", ["dense", "conv2d-same", "bn-image"])
def test_gamma_lies_between_z_and_alpha_beta(name):
    layer = linear(name, True)
    x, relevance = layer.samples(seed=6)
    assert close(layer.found(Gamma(0.0), x, relevance), layer.found(Z(), x, relevance), 1e-9)
    positive = relevance * (layer.trace(x).output.numpy() > 0)
    assert close(layer.found(Gamma(1e9), x, positive), layer.found(AlphaBeta(), x, positive), 1e-5)


@pytest.mark.parametrize("name", ["dense", "conv2d-same"])
@pytest.mark.parametrize("rule", [AlphaBeta(), Gamma(), AlphaBeta(2.0, 1.0)])
def test_an_input_known_not_to_be_negative_changes_nothing(name, rule):
    layer = linear(name, True)
    x, relevance = layer.samples(nonnegative=True, seed=7)
    known = rule.for_input(nonnegative=True)
    assert known.nonnegative and close(layer.found(known, x, relevance), layer.found(rule, x, relevance), 1e-12)


def test_the_rules_keep_the_name_of_their_module_in_version_0_1():
    from mipin_keras.baselines import rules

    assert rules.Epsilon is Epsilon and rules.RULES is RULES and rules.Rule is Rule


def test_every_name_is_tested():
    assert RULES.keys() == NAMED.keys()


@pytest.mark.parametrize("rule", ["Z", "Epsilon-0.25", "WSquare", "Alpha2Beta1", "AlphaBetaX-all"])
def test_a_traced_rule_is_the_eager_one(rule):
    layer, (rule, formula) = linear("conv2d-same-strides", True), FORMULAS[rule]
    traced = tf.function(
        lambda x, r: rule(layer.step, propagation.forward_with_traces(layer.graph, x, [layer.step])[1][0], r),
        input_signature=[tf.TensorSpec((None, *shape), tf.float64) for shape in (layer.shape, layer.step.output_shape)],
        autograph=False,
    )
    for n in (2, 5):
        x, relevance = layer.samples(n=n)
        found = traced(tf.constant(x), tf.constant(relevance))
        found = found[0] if isinstance(found, list | tuple) else found
        assert close(found, layer.wanted(formula, x, relevance), 1e-9)


# Bounds


@pytest.mark.parametrize(
    ("name", "everywhere"), [*((name, one) for name in KERNEL_LAYERS for one in (True, False)), ("conv2d-groups", True)]
)
def test_bounded(name, everywhere, rng):
    layer = linear(name, True)
    low, high = np.full(layer.shape, -1.0), np.full(layer.shape, 2.0)
    if not everywhere:
        low, high = low - rng.uniform(size=layer.shape), high + rng.uniform(size=layer.shape)
    x = low + (high - low) * rng.uniform(size=(3, *layer.shape))
    _, relevance = layer.samples()

    def formula(a, x, r):
        matrix = a.matrix(a.kernel)
        return shared(x * matrix - low.ravel() * np.maximum(matrix, 0) - high.ravel() * np.minimum(matrix, 0), 0, r)

    found = layer.found(Bounded(low, high), x, np.abs(relevance))
    assert close(found, layer.wanted(formula, x, np.abs(relevance)), 1e-9)
    np.testing.assert_allclose(found.sum(), np.abs(relevance).sum(), rtol=1e-9)
    assert (found > -1e-12).all()  # between bounds no share is negative


# Conservation


@pytest.mark.parametrize("rule", ["Z", "Z-no-bias", "Epsilon"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-5), ("float32", 1e-5)])
@pytest.mark.parametrize("name", KERNEL_LAYERS)
@pytest.mark.few(17)
def test_sums_are_kept_without_a_bias(name, rule, dtype, tolerance):
    layer = linear(name, False, dtype)
    x, _ = layer.samples(seed=5)
    relevance = layer.trace(x).output.numpy()  # as where the outputs are the logits: no z near 0 shows
    found = layer.found(FORMULAS[rule][0], x, relevance)
    kept = 1e-10 if dtype == "float64" and rule != "Epsilon" else tolerance
    size = np.abs(relevance).sum(axis=tuple(range(1, relevance.ndim)))
    difference = found.reshape(len(x), -1).sum(axis=1) - relevance.reshape(len(x), -1).sum(axis=1)
    assert (np.abs(difference) <= kept * size).all()


@pytest.mark.parametrize("name", ["dense", "conv2d-same", "bn"])
def test_the_biass_share_is_lost(name):
    layer = linear(name, True)
    x, relevance = layer.samples(seed=6)
    z = x.reshape(len(x), -1) @ layer.matrix(layer.kernel).T + layer.bias
    lost = (relevance.reshape(len(x), -1) * layer.bias / z).sum(axis=1)
    found = layer.found(Z(), x, relevance).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(found + lost, relevance.reshape(len(x), -1).sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize("rule", ["WSquare", "Flat"])
@pytest.mark.parametrize("name", [*KERNEL_LAYERS, *NORMALIZATIONS])
def test_rules_of_the_weights_alone_keep_the_sum_and_know_no_input(name, rule):
    layer, rule = linear(name, True), FORMULAS[rule][0]
    x, relevance = layer.samples(seed=7)
    found = layer.found(rule, x, relevance)
    np.testing.assert_allclose(found.sum(), relevance.sum(), rtol=1e-9)
    np.testing.assert_array_equal(layer.found(rule, 3 * x - 1, relevance), found)


# Alpha and beta


def neuron(weights, bias):
    """A Dense layer of one unit."""
    model = keras.Sequential([keras.Input((len(weights),), dtype="float64"), L.Dense(1, dtype="float64")])
    model.set_weights([np.reshape(weights, (-1, 1)), np.array([bias])])
    graph = ModelGraph(model)

    def run(rule, x, relevance):
        trace = propagation.forward_with_traces(graph, tf.constant([x], tf.float64), graph.steps)[1][0]
        return rule(graph.steps[0], trace, tf.constant([[relevance]], tf.float64))

    return run


@pytest.mark.parametrize(
    ("x", "bias", "alpha", "wanted"),
    [
        # contributions 3 and -2; a positive bias joins the 3, a negative one the -2
        ((1.0, 2.0), 0.5, 2.0, (12.0, -7.0)),
        ((1.0, 2.0), -2.0, 2.0, (14.0, -3.5)),
        ((1.0, 2.0), 0.0, 2.0, (14.0, -7.0)),
        ((1.0, 2.0), 4.0, 1.0, (3.0, 0.0)),
        ((1.0, 2.0), -2.0, 1.0, (7.0, 0.0)),
        # contributions -3 and 2
        ((-1.0, -2.0), 0.5, 2.0, (-7.0, 11.2)),
        ((-1.0, -2.0), -4.0, 2.0, (-3.0, 14.0)),
        # both positive: the negative part is the bias alone
        ((1.0, -4.0), -2.0, 2.0, (6.0, 8.0)),
    ],
)
def test_a_bias_counts_with_the_contributions_of_its_sign(x, bias, alpha, wanted):
    found = neuron([3.0, -1.0], bias)(AlphaBeta(alpha, alpha - 1), x, 7.0)
    np.testing.assert_allclose(found, [wanted], rtol=1e-12)


def test_without_its_bias_a_neuron_shares_by_the_weights():
    found = neuron([3.0, -1.0], 0.5)(AlphaBeta(2.0, 1.0, bias=False), (1.0, 2.0), 7.0)
    np.testing.assert_allclose(found, [[14.0, -7.0]], rtol=1e-12)


@pytest.mark.parametrize("name", ["dense", "conv1d-causal", "conv2d-same", "conv3d", "bn-axis1"])
@pytest.mark.parametrize("rule", [AlphaBeta(), AlphaBeta(bias=False), AlphaBeta(2.0, 1.0), AlphaBeta(3, 2, False)])
def test_known_signs_save_work_and_change_nothing(name, rule):
    layer, known = linear(name, True), rule.for_input(nonnegative=True)
    assert known.nonnegative and not rule.nonnegative and not rule.for_input(nonnegative=False).nonnegative
    x, relevance = layer.samples(nonnegative=True)
    assert close(layer.found(known, x, relevance), layer.found(rule, x, relevance), 1e-12)


@pytest.mark.parametrize("rule", [Z(), Epsilon(), WSquare(), AlphaBetaX()])
def test_signs_mean_nothing_to_the_other_rules(rule):
    assert rule.for_input(nonnegative=True) is rule


# Zeros


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize(
    ("name", "bias", "dtype"),
    [("dense", False, "float64"), ("dense", False, "float32"), ("conv2d-same", True, "float64")],
)
def test_a_z_of_zero_is_finite(name, bias, rule, dtype):
    layer, (rule, formula) = linear(name, bias, dtype), FORMULAS[rule]
    x, relevance = layer.samples(seed=8)
    x[0], x[1, ..., 1:] = 0, 0
    found = layer.found(rule, x, relevance)
    assert np.isfinite(found).all()
    if rule not in (FORMULAS["WSquare"][0], FORMULAS["Flat"][0]):
        assert (found[0] == 0).all()
    assert close(found, layer.wanted(formula, x, relevance), 1e-9 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize(("rule", "wanted"), [(Z(), (1e7, -1e7)), (Epsilon(0.5), (2.0, -2.0))])
def test_contributions_that_cancel(rule, wanted):
    found = neuron([1.0, -1.0], 0.0)(rule, (1.0, 1.0), 1.0)
    np.testing.assert_allclose(found, [[wanted]], rtol=1e-12)


def test_epsilon_has_the_sign_of_z():
    for x, wanted in (((3.0, 1.0), (6.0, -2.0)), ((1.0, 3.0), (-2.0, 6.0))):
        found = neuron([1.0, -1.0], 0.0)(Epsilon(0.5), x, 5.0)
        np.testing.assert_allclose(found, [[wanted]], rtol=1e-12)


def test_only_an_exact_zero_is_replaced():
    found = neuron([1.0, 0.0], 0.0)(Z(), (1e-12, 1.0), 5.0)
    np.testing.assert_allclose(found, [[(5.0, 0.0)]], rtol=1e-12)


# Parameters


@pytest.mark.parametrize("epsilon", [0, 0.0, -1e-7, float("nan"), float("inf"), "1", None, True])
def test_bad_epsilons_are_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon to be a finite number greater than 0"):
        Epsilon(epsilon)


@pytest.mark.parametrize(
    ("alpha", "beta", "problem"),
    [
        (0.5, -0.5, "alpha"), (0.0, 0.0, "alpha"), (float("nan"), 1.0, "alpha"), ("2", 1, "alpha"), (1.0, -1.0, "beta"),
        (2.0, float("inf"), "beta"), (2.0, 0.5, "alpha - beta = 1"), (1.0, 1.0, "alpha - beta = 1"),
        (2.0, 0.0, "alpha - beta = 1"),
    ],
)  # fmt: skip
def test_bad_alphas_and_betas_are_refused(alpha, beta, problem):
    with pytest.raises(ValueError, match=problem):
        AlphaBeta(alpha, beta)


def test_an_abstract_rule_shares_nothing():
    layer = linear("dense", True)
    x, relevance = layer.samples()
    with pytest.raises(NotImplementedError):
        Rule()(layer.step, layer.trace(x), relevance)


@pytest.mark.parametrize("rule", [Z(), Epsilon(), AlphaBeta(bias=False), WSquare()])
def test_half_precision_divides_by_nothing_too_small_for_it(rule):
    layer = L.Dense(3, dtype="mixed_float16")
    x = np.zeros((2, 5), np.float32)
    graph = ModelGraph(keras.Sequential([keras.Input((5,)), layer, L.Dense(2)]))
    step = next(step for step in graph.steps if step.linear)  # older Keras casts in a step of its own
    _, trace = propagation.forward_with_traces(graph, tf.constant(x), [step])
    found = rule(step, trace[step.index], tf.ones((2, 3), "float16"))
    squares = np.square(np.asarray(layer.kernel))  # an input of 0 has no share, but in the rule that asks weights alone
    wanted = (squares / squares.sum(axis=0)).sum(axis=1) if isinstance(rule, WSquare) else np.zeros(5)
    np.testing.assert_allclose(found[0] if isinstance(found, tuple) else found, np.tile(wanted, (2, 1)), rtol=5e-3)


# Standardizations and gates

STANDARDIZATIONS = {
    "layer": (lambda **rest: L.LayerNormalization(epsilon=0.01, **rest), (2,), True),
    "layer-axes": (lambda **rest: L.LayerNormalization(axis=[1, 3], **rest), (0, 2), True),
    "layer-bare": (lambda **rest: L.LayerNormalization(center=False, scale=False, **rest), (2,), True),
    "group": (lambda **rest: L.GroupNormalization(2, **rest), "groups", True),
    "unit": (lambda **rest: L.UnitNormalization(axis=[1, 2], **rest), (0, 1), False),
}
if hasattr(L, "RMSNormalization"):
    STANDARDIZATIONS["rms"] = (lambda **rest: L.RMSNormalization(**rest), (2,), False)
SAMPLE = (3, 2, 4)


def standardized(name, seed=0):
    """Such a layer's graph, the layer, and as matrices on one flat sample the centering and the mean."""
    make, axes, centred = STANDARDIZATIONS[name]
    layer = make(dtype="float64")
    model = [keras.Input(SAMPLE, dtype="float64"), layer, L.Flatten(dtype="float64"), L.Dense(1, dtype="float64")]
    graph = ModelGraph(keras.Sequential(model))
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    size = int(np.prod(SAMPLE))
    labels = np.zeros(SAMPLE, int)  # which elements have their statistics together
    for place in np.ndindex(*SAMPLE):
        kept = [place[-1] // 2] if axes == "groups" else [p for axis, p in enumerate(place) if axis not in axes]
        labels[place] = sum(p * 100**i for i, p in enumerate(kept))
    together = (labels.ravel()[:, None] == labels.ravel()).astype(float)
    together /= together.sum(axis=1, keepdims=True)
    centre = np.eye(size) - together if centred else np.eye(size)
    return graph, layer, centre, together


def divisors(layer, centre, together, x):
    """1 / sigma at each element."""
    spread = together @ np.square(centre @ x.ravel())
    if isinstance(layer, L.UnitNormalization):
        return 1 / np.sqrt(spread / together.max(axis=1))  # of the sum, not of the mean
    return 1 / np.sqrt(spread + layer.epsilon)


@pytest.mark.parametrize("name", STANDARDIZATIONS)
def test_a_standardization_shares_by_z_with_its_divisor_held(name, rng):
    graph, layer, centre, together = standardized(name)
    x, relevance = rng.normal(size=(2, 5, *SAMPLE))
    _, trace = propagation.forward_with_traces(graph, tf.constant(x), graph.steps[:1])
    found = Standardized()(graph.steps[0], trace[0], tf.constant(relevance)).numpy()
    pulled = Standardized(shares=False)(graph.steps[0], trace[0], tf.constant(relevance)).numpy()
    axes = layer.axis if isinstance(layer.axis, list) else [layer.axis]
    broadcast = [SAMPLE[i] if i + 1 in axes or i - 3 in axes else 1 for i in range(3)]
    named = {variable.name: variable.numpy().reshape(broadcast) for variable in layer.variables}
    gamma = np.broadcast_to(named.get("gamma", named.get("scale", 1.0)), SAMPLE).ravel()
    beta = np.broadcast_to(named.get("beta", 0.0), SAMPLE).ravel()
    for i in range(len(x)):
        matrix = (gamma * divisors(layer, centre, together, x[i]))[:, None] * centre
        y = matrix @ x[i].ravel() + beta
        np.testing.assert_allclose(trace[0].output[i].numpy().ravel(), y, rtol=1e-9, atol=1e-12)  # the reference itself
        wanted = x[i].ravel() * (matrix.T @ (relevance[i].ravel() / y))
        np.testing.assert_allclose(found[i].ravel(), wanted, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(pulled[i].ravel(), matrix.T @ relevance[i].ravel(), rtol=1e-9, atol=1e-12)
    if name in ("layer-bare", "unit", "rms"):  # no beta: the sum is kept
        np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), relevance.sum(axis=(1, 2, 3)), rtol=1e-8)
    if name in ("unit", "rms"):
        np.testing.assert_allclose(found, relevance, rtol=1e-9)


@pytest.mark.parametrize("gate", [0, 1])
def test_at_a_gate_the_signal_takes_all(gate, rng):
    x = keras.Input((3, 2, 4))
    scores = L.Activation("sigmoid")(x)
    y = L.Multiply()([scores, x] if gate == 0 else [x, scores])
    graph = ModelGraph(keras.Model(x, L.Dense(2)(L.Flatten()(y))))
    step = graph.steps[1]
    _, trace = propagation.forward_with_traces(graph, tf.constant(rng.normal(size=(2, 3, 2, 4)), "float32"), [step])
    relevance = rng.normal(size=(2, 3, 2, 4)).astype("float32")
    found = Gated(step.inputs[gate])(step, trace[step.index], tf.constant(relevance))
    np.testing.assert_array_equal(found[gate], np.zeros_like(relevance))
    np.testing.assert_array_equal(found[1 - gate], relevance)
