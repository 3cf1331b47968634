"""Deep Taylor decomposition against NumPy: sums, merges, caps, bounds, and what is refused."""

import keras
import numpy as np
import pytest

from mipin_keras.baselines.deep_taylor import BoundedDeepTaylor, DeepTaylor
from mipin_keras.baselines.lrp.input_bounds import BoundedInput
from mipin_keras.baselines.lrp.rules import AlphaBeta
from tests.networks import balanced, close, cnn, layers_of, mlp, residual, samples, with_weights
from tests.reference import conv_matrix, pool, unpool_max

L = keras.layers


# In NumPy, as shares of contributions (n, outputs, inputs)


def shared(parts, relevance):
    z = parts.sum(axis=2)
    return np.einsum("noi,no->ni", parts, relevance / np.where(z == 0, 1e-7, z))


def positive(x, matrix, relevance):
    return shared(np.maximum(x[:, None] * matrix, 0), relevance)


def bounded(low, high):
    def rule(x, matrix, relevance):
        ends = low * np.maximum(matrix, 0) + high * np.minimum(matrix, 0)
        return shared(x[:, None] * matrix - ends, relevance)

    return rule


def decomposed(model, x, unit=None, first=positive):
    """The decomposition of an mlp or cnn of tests.networks: the largest logit, or ``unit``'s."""
    tensors, matrices = [x.astype(np.float64)], []
    for kind, *weights in layers_of(model):
        x, matrix = tensors[-1], None
        flat = x.reshape(len(x), -1)
        if kind == "dense":
            matrix, bias = (w.astype(np.float64) for w in (weights[0].T, weights[1]))
            tensors.append(flat @ matrix.T + bias)
        elif kind == "conv":
            matrix = conv_matrix(weights[0], x.shape[1:-1], (1, 1), (1, 1), "valid")
            outputs = [n - k + 1 for n, k in zip(x.shape[1:-1], weights[0].shape, strict=False)]
            tensors.append((flat @ matrix.T).reshape(len(x), *outputs, -1) + weights[1])
        elif kind == "maxpool":
            tensors.append(pool(x, weights[0], weights[0], "valid"))
        else:
            tensors.append(np.maximum(x, 0) if kind == "relu" else flat)
        matrices.append((kind, matrix, *weights))
    logits = tensors[-1]
    chosen = logits == logits.max(axis=1, keepdims=True) if unit is None else np.eye(logits.shape[1])[unit]
    relevance = np.maximum(logits, 0) * chosen
    for i, (kind, matrix, *weights) in reversed(list(enumerate(matrices))):
        x = tensors[i]
        if matrix is not None:
            rule = first if i == 0 else positive
            relevance = rule(x.reshape(len(x), -1), matrix, relevance.reshape(len(x), -1))
        elif kind == "maxpool":
            relevance = unpool_max(x, relevance, weights[0], weights[0], "valid")
        elif kind == "relu":
            relevance = relevance * (x > 0)
        relevance = relevance.reshape(x.shape)
    return relevance


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_network_is_its_numpy_walk(make, rng):
    model = make()
    shape = model.input_shape[1:]
    for x in (samples(shape, 6), rng.normal(size=(6, *shape)).astype("float32")):
        wanted = decomposed(model, x)
        assert wanted.max() > 0
        assert close(DeepTaylor(model).analyze(x), wanted, 1e-5)


@pytest.mark.parametrize("make", [mlp, cnn])
def test_bounded_is_its_numpy_walk(make, rng):
    model = make()
    shape = model.input_shape[1:]
    low = -1 - rng.uniform(size=shape)
    high = 1 + rng.uniform(size=shape[-1:])
    x = rng.uniform(-1, 1, size=(6, *shape)).astype("float32")
    first = bounded(low.ravel(), np.broadcast_to(high, shape).ravel())
    analyzer = BoundedDeepTaylor(model, low=low, high=high)
    assert close(analyzer.analyze(x), decomposed(model, x, first=first), 1e-5)
    kinds = [type(analyzer.rules[step.index]) for step in analyzer.steps if step.linear]
    assert kinds == [BoundedInput] + [AlphaBeta] * (len(kinds) - 1)


def test_each_neuron(rng):
    model, x = mlp(), rng.normal(size=(4, 12)).astype("float32")
    analyzer = DeepTaylor(model, neuron_selection_mode="index")
    found = [analyzer.analyze(x, unit) for unit in range(4)]
    for unit in range(4):
        assert close(found[unit], decomposed(model, x, unit), 1e-5)
    assert close(DeepTaylor(model, neuron_selection_mode="all").analyze(x), sum(found), 1e-5)


# Sums


def fed(units=3, seed=4):
    """A chain in which every unit has a positive contribution where inputs are positive."""
    model = mlp(6, (8, 7), units, seed=seed)
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        kernel[0] = np.abs(kernel[0]) + 0.05
        layer.set_weights([kernel, np.abs(bias) if layer.name != "head" else bias])
    dense1 = model.layers[0].get_weights()
    model.layers[0].set_weights([np.abs(dense1[0]), dense1[1]])
    return model


@pytest.mark.parametrize("seed", [4, 5])
def test_the_map_of_a_chain_sums_to_the_rectified_logit(seed):
    model = fed(seed=seed)
    x = np.random.default_rng(seed).uniform(0.1, 1, size=(20, 6)).astype("float32")
    analyzer = DeepTaylor(model, neuron_selection_mode="index")
    logits = analyzer.logits(x)
    assert (logits > 0).any() and (logits < 0).any()
    for unit in range(3):
        found = analyzer.analyze(x, unit)
        np.testing.assert_allclose(found.sum(axis=1), np.maximum(logits[:, unit], 0), rtol=1e-5, atol=1e-6)
        assert (found >= 0).all()
        assert (found[logits[:, unit] < 0] == 0).all()


def test_a_unit_without_a_positive_contribution_keeps_nothing():
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="relu"), L.Dense(1)])
    model.set_weights([np.array([[1.0, -1], [2, -1]]), np.array([0.0, 5]), np.array([[1.0], [1]]), np.array([0.0])])
    # Hidden 5 and 2, of which the second comes from its bias alone.
    found = DeepTaylor(model).analyze(np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(found, [[1.0, 4.0]], rtol=1e-6)


@pytest.mark.parametrize("make", [mlp, cnn, residual])
def test_negative_logits_have_no_map(make):
    model = make()
    head = model.layers[-1]
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias - 1e3])
    x = samples(model.input_shape[1:], 5)
    analyzer = DeepTaylor(model)
    assert (analyzer.logits(x) < 0).all()
    assert (analyzer.analyze(x) == 0).all()
    assert (BoundedDeepTaylor(model, low=-10.0, high=10.0).analyze(x) == 0).all()


# Merges


def merging(layer, branches=2):
    """A ReLU layer, and a head on it merged with itself by way of ReLUs that do nothing."""
    x = keras.Input((5,))
    hidden = L.Dense(6, activation="relu", name="dense1")(x)
    ways = [L.ReLU()(hidden) for _ in range(branches)]
    return with_weights(keras.Model(x, L.Dense(3, name="head")(layer(ways))), seed=8)


@pytest.mark.parametrize("branches", [2, 3])
@pytest.mark.parametrize(
    ("layer", "how", "doubles"),
    [(L.Add, "copy", True), (L.Add, "share", False), (L.Average, "share", False), (L.Average, "copy", False)],
)
def test_an_add_copies_or_shares(layer, how, doubles, branches, rng):
    """That an Average hands on 1/n of the relevance is its gradient."""
    model = merging(layer(), branches)
    x = rng.uniform(size=(6, 5)).astype("float32")
    first, bias, head, offset = (w.astype(np.float64) for w in model.get_weights())
    hidden = np.maximum(x @ first + bias, 0)
    merged = branches * hidden if layer is L.Add else hidden
    logits = merged @ head + offset
    relevance = np.maximum(logits, 0) * (logits == logits.max(axis=1, keepdims=True))
    wanted = positive(x, first.T, positive(merged, head.T, relevance) * (hidden > 0))
    assert wanted.max() > 0
    assert close(DeepTaylor(model, merge=how).analyze(x), branches * wanted if doubles else wanted, 1e-5)


@pytest.mark.parametrize("layer", [L.Dropout(0.5), L.Identity(), L.Activation("linear")])
def test_a_branch_that_does_nothing_is_a_branch(layer, rng):
    x = keras.Input((5,))
    hidden = L.Dense(6, activation="relu", name="dense1")(x)
    model = keras.Model(x, L.Dense(3, name="head")(L.Add()([hidden, layer(hidden)])))
    model.set_weights(merging(L.Add()).get_weights())
    image = rng.uniform(size=(6, 5)).astype("float32")
    for how in ("copy", "share"):
        wanted = DeepTaylor(merging(L.Add()), merge=how).analyze(image)
        assert close(DeepTaylor(model, merge=how).analyze(image), wanted, 1e-5)


def test_copy_is_the_default():
    model = merging(L.Add())
    x = samples((5,), 4)
    np.testing.assert_array_equal(DeepTaylor(model).analyze(x), DeepTaylor(model, merge="copy").analyze(x))
    assert DeepTaylor(model).options["merge"] == "copy"


@pytest.mark.parametrize("merge", ["half", None, 1, ("copy",)])
def test_other_merges_are_refused(merge):
    with pytest.raises(ValueError, match="expected merge to be one of"):
        DeepTaylor(mlp(), merge=merge)


def test_sharing_keeps_the_sum_where_the_branches_differ(rng):
    x = keras.Input((5,))
    a, b = (L.Dense(4, activation="relu", name=f"dense{i}")(x) for i in (1, 2))
    model = keras.Model(x, L.Dense(2, name="head")(L.Add()([a, b])))
    weights = [np.abs(w) for w in with_weights(model).get_weights()]
    model.set_weights(weights)
    image = rng.uniform(0.1, 1, size=(6, 5)).astype("float32")
    analyzer = DeepTaylor(model, merge="share")
    np.testing.assert_allclose(analyzer.analyze(image).sum(axis=1), analyzer.logits(image).max(axis=1), rtol=1e-5)
    copied = DeepTaylor(model).analyze(image).sum(axis=1)
    np.testing.assert_allclose(copied, 2 * analyzer.logits(image).max(axis=1), rtol=1e-5)


# Other layers


@pytest.mark.parametrize(
    "relu", [L.ReLU(max_value=1.0), L.Activation("relu6"), keras.ops.relu6, L.ReLU(max_value=2.0, threshold=0.5)]
)
def test_a_capped_relu_keeps_relevance_at_saturation(relu):
    x = keras.Input((2,))
    model = keras.Model(x, L.Dense(1)(relu(L.Dense(2)(x))))
    model.set_weights([np.array([[1.0, -1], [3, 0]]), np.zeros(2), np.array([[1.0], [1]]), np.zeros(1)])
    found = DeepTaylor(model).analyze(np.array([[5.0, 5.0]]))
    top = float(np.asarray(model(np.array([[5.0, 5.0]])))[0, 0])
    assert top < 20
    np.testing.assert_allclose(found, [[top / 4, 3 * top / 4]], rtol=1e-6)


def test_relus_are_one_however_they_are_written():
    def network(relu):
        x = keras.Input((5,))
        built_in = {} if relu else {"activation": "relu"}
        then = relu or (lambda y: y)
        y = then(L.Dense(8, **built_in)(then(L.Dense(8, **built_in)(x))))
        model = with_weights(keras.Model(x, L.Dense(3, name="head")(y)), seed=1)
        model.set_weights([*model.get_weights()[:-1], np.array([0.5, 1.0, 1.5])])
        return model

    x = samples((5,), 4)
    wanted = DeepTaylor(network(None)).analyze(x)
    assert wanted.max() > 0
    for relu in (lambda y: L.ReLU()(y), lambda y: L.Activation("relu")(y), keras.ops.relu):
        np.testing.assert_allclose(DeepTaylor(network(relu)).analyze(x), wanted, rtol=1e-6)


def test_batch_normalisation_takes_the_gradient(rng):
    layers = [L.Dense(8, name="dense1"), L.BatchNormalization(name="bn"), L.ReLU(), L.Dense(3, name="head")]
    model = balanced(with_weights(keras.Sequential([keras.Input((5,)), *layers]), seed=1))
    x = rng.normal(size=(6, 5)).astype("float32")
    weights = {layer.name: [w.astype(np.float64) for w in layer.get_weights()] for layer in model.layers}
    (first, bias), (gamma, beta, mean, variance), (head, offset) = (weights[name] for name in ("dense1", "bn", "head"))
    factor = gamma / np.sqrt(variance + model.get_layer("bn").epsilon)
    normal = (x @ first + bias - mean) * factor + beta
    assert (factor < 0).any() and (factor > 0).any()
    logits = np.maximum(normal, 0) @ head + offset
    relevance = np.maximum(logits, 0) * (logits == logits.max(axis=1, keepdims=True))
    relevance = positive(np.maximum(normal, 0), head.T, relevance) * (normal > 0)
    wanted = positive(x.astype(np.float64), first.T, relevance * factor)
    assert close(DeepTaylor(model).analyze(x), wanted, 1e-5)


def test_average_pooling_takes_the_gradient():
    layers = [L.AveragePooling1D(2), L.Flatten(), L.Dense(1)]
    model = keras.Sequential([keras.Input((4, 1)), *layers])
    model.set_weights([np.array([[1.0], [2.0]]), np.zeros(1)])
    # Means 2 and 3 contribute 2 and 6; the gradient gives half of that to each element, whatever its size.
    found = DeepTaylor(model).analyze(np.array([[[1.0], [3.0], [0.0], [6.0]]]))
    np.testing.assert_allclose(found.ravel(), [1.0, 1.0, 3.0, 3.0], rtol=1e-6)


# What is refused

REFUSED = {
    "'odd' (Activation), tanh": lambda x: L.Activation("tanh", name="odd")(x),
    "'odd/tanh' (Activation), tanh": lambda x: L.Dense(6, activation="tanh", name="odd")(x),
    "'odd/sigmoid' (Activation), sigmoid": lambda x: L.Dense(6, activation="sigmoid", name="odd")(x),
    "'odd' (LeakyReLU)": lambda x: L.LeakyReLU(name="odd")(x),
    "'odd' (ReLU)": lambda x: L.ReLU(negative_slope=0.1, name="odd")(x),
    "'odd' (ELU)": lambda x: L.ELU(name="odd")(x),
    "'odd' (Softmax)": lambda x: L.Softmax(name="odd")(x),
    "'odd/softmax' (Activation)": lambda x: L.Dense(6, activation="softmax", name="odd")(x),
    "'odd' (Multiply)": lambda x: L.Multiply(name="odd")([x, L.Dense(6)(x)]),
    "'odd' (Subtract)": lambda x: L.Subtract(name="odd")([x, L.Dense(6)(x)]),
    "'odd' (Lambda)": lambda x: L.Lambda(lambda y: 2 * y, name="odd")(x),
}


@pytest.mark.parametrize("layer", REFUSED)
@pytest.mark.parametrize(("kind", "options"), [(DeepTaylor, {}), (BoundedDeepTaylor, {"low": 0.0, "high": 1.0})])
def test_layers_that_it_is_not_defined_for(layer, kind, options):
    x = keras.Input((6,))
    model = keras.Model(x, L.Dense(3)(L.ReLU()(REFUSED[layer](L.Dense(6)(x)))))
    with pytest.raises(ValueError) as caught:
        kind(model, **options)
    message = str(caught.value)
    assert message.startswith(f"{kind.name!r} expected layers that it is defined for, received layer {layer}; ")
    for other in ("gradient", "input_t_gradient", "integrated_gradients", "smoothgrad", "mipin"):
        assert f"'{other}'" in message
    lrp_takes = any(name in layer for name in ("tanh", "sigmoid", "ReLU", "ELU", "Subtract"))
    assert ("'lrp.epsilon'" in message) == lrp_takes


def test_a_head_of_softmax_or_sigmoid_is_left_off():
    x = samples((12,), 4)
    maps = [DeepTaylor(mlp(head=head)).analyze(x) for head in (None, "softmax", "sigmoid")]
    assert maps[0].max() > 0
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-6)
    np.testing.assert_allclose(maps[2], maps[0], rtol=1e-6)


# Files


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DeepTaylor, {"merge": "share"}),
        (BoundedDeepTaylor, {"low": 0.0, "high": 1.0, "merge": "share"}),
        (BoundedDeepTaylor, {"low": np.zeros(12), "high": np.float32(5.0)}),
        (BoundedDeepTaylor, {"low": np.full(12, -1), "high": list(range(1, 13))}),
    ],
)
def test_options_come_back_from_a_file(kind, options, tmp_path):
    model = mlp()
    analyzer = kind(model, **options)
    analyzer.save(tmp_path / "file.npz")
    again = kind(model, **analyzer.options).load(tmp_path / "file.npz")
    x = np.random.default_rng(0).uniform(size=(3, 12)).astype("float32")
    np.testing.assert_array_equal(again.analyze(x), analyzer.analyze(x))
    assert again.options == analyzer.options


def test_a_file_of_other_bounds_is_refused(tmp_path):
    model = mlp()
    BoundedDeepTaylor(model, low=0.0, high=1.0).save(tmp_path / "file.npz")
    with pytest.raises(ValueError, match="other options: high"):
        BoundedDeepTaylor(model, low=0.0, high=2.0).load(tmp_path / "file.npz")


# Other steps


def behind(build, seed=0):
    """The decomposition of a network with ``build`` between two Dense layers, and what it is made of."""
    inputs = keras.Input((6,))
    first, head = L.Dense(6, activation="relu"), L.Dense(3)
    y = first(inputs)
    model = balanced(with_weights(keras.Model(inputs, head(L.Flatten()(build(y)))), seed))
    x = samples((6,), 8)
    return model, x, first(x).numpy().astype(float), [w.astype(float) for w in model.get_weights()]


def wanted_at_head(model, x, y, kernel):
    """The relevance of the head's inputs ``y``."""
    logits = np.asarray(model(x), float)
    top = np.maximum(logits, 0) * (logits == logits.max(axis=1, keepdims=True))
    return positive(y, kernel.T, top)


def test_scalings_keep_relevance():
    model, x, y, (kernel, _, head, _) = behind(lambda y: L.Rescaling(2.0, offset=0.5)(y) * 3.0)
    relevance = wanted_at_head(model, x, 3 * (2 * y + 0.5), head)
    assert close(DeepTaylor(model).analyze(x), positive(x.astype(float), kernel.T, relevance), 1e-4)


def test_a_gate_takes_nothing():
    gate = L.Dense(6, activation="sigmoid")
    model, x, y, (kernel, _, *_, head, _) = behind(lambda y: L.Multiply()([gate(y), y]))
    relevance = wanted_at_head(model, x, y * np.asarray(gate(y.astype("float32")), float), head)
    found = DeepTaylor(model).analyze(x)  # nothing comes by the sigmoid, which needs no rule
    assert close(found, positive(x.astype(float), kernel.T, relevance), 1e-4)


def test_other_activations_keep_relevance_if_they_may():
    model, x, y, (kernel, _, head, _) = behind(L.Activation("softplus"))
    relevance = wanted_at_head(model, x, np.log1p(np.exp(y)), head)
    with pytest.raises(ValueError, match="give activations='any' to keep relevance at other activations"):
        DeepTaylor(model)
    found = DeepTaylor(model, activations="any").analyze(x)
    assert close(found, positive(x.astype(float), kernel.T, relevance), 1e-4)


def test_a_layer_normalisation_has_the_gradient_with_its_divisor_held():
    norm = L.LayerNormalization(epsilon=0.01)
    model, x, y, (kernel, _, gamma, beta, head, _) = behind(norm)
    centre = np.eye(6) - 1 / 6
    z = (y @ centre) * gamma / np.sqrt(y.var(axis=1, keepdims=True) + 0.01)
    relevance = wanted_at_head(model, x, z + beta, head)
    relevance = (relevance * gamma / np.sqrt(y.var(axis=1, keepdims=True) + 0.01)) @ centre
    assert close(DeepTaylor(model).analyze(x), positive(x.astype(float), kernel.T, relevance), 1e-4)


def test_a_sum_shares_as_the_mean_that_it_is_but_for_a_factor():
    def build(y, summed):
        rows = L.Reshape((3, 2))(y)
        return keras.ops.sum(rows, axis=1) / 3.0 if summed else keras.ops.mean(rows, axis=1)

    models = [behind(lambda y, summed=summed: build(y, summed))[0] for summed in (False, True)]
    maps = [DeepTaylor(model).analyze(samples((6,), 8)) for model in models]
    assert np.abs(maps[0]).max() > 0
    assert close(*maps, 1e-5)


def test_depthwise_and_transposed_convolutions_keep_the_sum_without_biases(rng):
    layers = [
        L.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False, activation="relu"),
        L.Conv2DTranspose(2, 3, strides=2, use_bias=False, activation="relu"), L.Flatten(), L.Dense(3, use_bias=False),
    ]  # fmt: skip
    model = with_weights(keras.Sequential([keras.Input((5, 5, 2)), *layers]))
    x = np.abs(rng.normal(size=(6, 5, 5, 2))).astype("float32")
    found = DeepTaylor(model).analyze(x)
    logits = np.maximum(np.asarray(model(x)).max(axis=1), 0)
    assert (found >= 0).all() and logits.max() > 0
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), logits, rtol=1e-3, atol=1e-4)
