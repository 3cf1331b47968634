"""The bounds of a model's input, and where layers before the first weights move them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.baselines.lrp.input_bounds import InputBounds
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.graph.step_types import first_kernel_steps
from tests.networks import balanced, close, mlp, with_weights

L = keras.layers
IMAGE = (4, 3, 2)


def at_first(build, low, high, shape=IMAGE):
    """The bounds at each of the first layers with weights of ``build``, by name."""
    x = keras.Input(shape)
    graph = ModelGraph(keras.Model(x, L.Dense(2, name="head")(L.Flatten(name="flat")(build(x)))))
    bounds = InputBounds(graph, low, high)
    return {step.name: bounds.at(step) for step in first_kernel_steps(graph, graph.steps)}


def image_network():
    layers = [keras.Input(IMAGE), L.Conv2D(3, 2, activation="relu"), L.Flatten(), L.Dense(3)]
    return balanced(with_weights(keras.Sequential(layers), seed=5))


def normalization(**weights):
    """A BatchNormalization of 2 channels with epsilon 0 but for rounding."""
    layer = L.BatchNormalization(epsilon=1e-12)
    layer.build((None, *IMAGE))
    for name, value in weights.items():
        getattr(layer, name).assign(value)
    return layer


# What is refused

MISSING = [(None, None), (0.0, None), (None, 1.0)]
NOT_FINITE = [(float("nan"), 1.0), (0.0, float("inf")), (-float("inf"), 1.0), (np.array([0.0, np.nan]), 1.0)]
INVERTED = [(1.0, 0.0), (0.0, 0.0), (np.array([0.0, 2.0]), 1.0), (0.0, np.array([1.0, 0.0]))]
SHAPELESS = [(np.zeros(3), 1.0), (0.0, np.ones((5, 3, 2))), (np.zeros((1, *IMAGE)), 1.0), ("low", 1.0), (0.0, "high")]
REFUSED = [
    *((pair, "expected the bounds of the input") for pair in MISSING),
    *((pair, "finite") for pair in NOT_FINITE),
    *((pair, "expected low to be below high everywhere") for pair in INVERTED),
    *((pair, r"broadcasts to one sample \(4, 3, 2\)") for pair in SHAPELESS),
]


@pytest.mark.parametrize(("pair", "problem"), REFUSED)
@pytest.mark.few(4)
def test_bad_bounds(pair, problem):
    model = image_network()
    with pytest.raises(ValueError, match=problem):
        InputBounds(ModelGraph(model), *pair)
    with pytest.raises(ValueError, match=problem):
        create_analyzer("deep_taylor.bounded", model, low=pair[0], high=pair[1])
    with pytest.raises(ValueError, match=problem):
        create_analyzer("lrp.z", model, input_layer_rule=pair)


def test_an_input_without_a_fixed_shape():
    x = keras.Input((None, 3, 2))
    model = keras.Model(x, L.Dense(2)(L.GlobalMaxPooling2D()(L.Conv2D(3, 2)(x))))
    with pytest.raises(ValueError, match="fixed input shape"):
        create_analyzer("deep_taylor.bounded", model, low=0.0, high=1.0)
    with pytest.raises(ValueError, match="fixed input shape"):
        create_analyzer("lrp.epsilon", model, input_layer_rule=(0.0, 1.0))


def test_a_model_without_weights_at_the_input():
    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2)(L.ReLU()(x)))
    with pytest.raises(ValueError, match="layers with weights at the input, received a model without"):
        create_analyzer("deep_taylor.bounded", model, low=0.0, high=1.0)
    with pytest.raises(ValueError, match="with weights at the input, which input_layer_rule is for"):
        create_analyzer("lrp.epsilon", model, input_layer_rule=(0.0, 1.0))


@pytest.mark.parametrize("name", ["deep_taylor.bounded", "lrp.z"])
def test_inputs_outside_the_bounds(name, rng):
    options = {"low": -1.0, "high": 2.0} if name != "lrp.z" else {"input_layer_rule": (-1.0, 2.0)}
    analyzer = create_analyzer(name, mlp(5, (4,)), **options)
    x = rng.uniform(-1, 2, size=(3, 5)).astype("float32")
    x[0, :2] = -1, 2
    assert np.isfinite(analyzer.analyze(x)).all()
    for beyond in (-1.1, 2.1):
        x[2, 3] = beyond
        with pytest.raises(ValueError, match="expected input between the bounds -1 and 2, received values from"):
            analyzer.analyze(x)


def test_each_channel_has_its_own_bounds(rng):
    analyzer = create_analyzer("deep_taylor.bounded", image_network(), low=[0.0, -2.0], high=[1.0, -1.0])
    x = (rng.uniform(size=(2, *IMAGE)) + [0, -2]).astype("float32")
    analyzer.analyze(x)
    for place, value in (((0, 1, 1, 0), -0.5), ((0, 1, 1, 1), 0.5)):
        beyond = x.copy()
        beyond[place] = value
        with pytest.raises(ValueError, match="expected input between the bounds"):
            analyzer.analyze(beyond)


def test_rounding_is_forgiven():
    bounds = InputBounds(ModelGraph(mlp(5, (4,))), 0.0, 1.0)
    bounds.check(np.full((1, 5), 1 + 1e-6, "float32"))
    with pytest.raises(ValueError, match="outside|between"):
        bounds.check(np.full((1, 5), 1 + 1e-4, "float32"))


# What becomes of them before the first layers with weights


def test_numbers_and_arrays_of_any_rank_that_broadcasts():
    low, high = np.arange(3.0)[:, None], np.array([[[10.0]]])
    found = at_first(lambda x: L.Conv2D(2, 2, name="conv")(x), low, high)["conv"]
    np.testing.assert_array_equal(found[0], np.broadcast_to([[0.0] * 2, [1.0] * 2, [2.0] * 2], IMAGE))
    np.testing.assert_array_equal(found[1], np.full(IMAGE, 10.0))


def test_a_padding_is_zero_in_both():
    found = at_first(lambda x: L.Conv2D(2, 2, name="conv")(L.ZeroPadding2D(((1, 0), (0, 2)))(x)), -3.0, [5.0, 7.0])
    low, high = np.zeros((2, 5, 5, 2))
    low[1:, :3], high[1:, :3] = -3, [5, 7]
    np.testing.assert_array_equal(found["conv"], [low, high])


def test_elements_move(rng):
    low, high = -rng.uniform(size=(2, *IMAGE)).astype("float32") * [[[[1]]], [[[-1]]]]
    build = lambda x: L.Dense(2, name="dense")(L.Reshape((6, 4))(L.Permute((3, 1, 2))(L.Dropout(0.5)(x))))  # noqa: E731
    found = at_first(build, low, high)["dense"]
    wanted = [bound.transpose(2, 0, 1).reshape(6, 4) for bound in (low, high)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_negative_factor_turns_them_around():
    layer = normalization(gamma=[2.0, -3.0], beta=[1.0, 4.0], moving_mean=[0.5, -1.0], moving_variance=[4.0, 0.25])
    low, high = at_first(lambda x: L.Conv2D(2, 2, name="conv")(layer(x)), [-1.0, -2.0], [3.0, 5.0])["conv"]
    # 2 (x - 0.5) / 2 + 1 and -3 (x + 1) / 0.5 + 4
    np.testing.assert_allclose(low[0, 0], [-0.5, -32.0], rtol=1e-5)
    np.testing.assert_allclose(high[0, 0], [3.5, 10.0], rtol=1e-5)
    assert bool(tf.reduce_all(low < high))


def test_scalings_move_them():
    scaling = L.Rescaling(0.5, offset=[1.0, 2.0])
    found = at_first(lambda x: L.Conv2D(2, 2, name="conv")(1.0 - scaling(x)), -1.0, [3.0, 5.0])
    np.testing.assert_allclose(found["conv"][0][0, 0], [-1.5, -3.5])
    np.testing.assert_allclose(found["conv"][1][0, 0], [0.5, -0.5])


def test_branches_and_concatenations():
    def build(x):
        y = L.Concatenate(axis=1)([x, normalization(gamma=[-1.0, 1.0])(x)])
        return L.Concatenate(axis=1)([L.Conv2D(2, 1, name="first")(y), L.Conv2D(2, 1, name="second")(x)])

    found = at_first(build, -1.0, 2.0)
    np.testing.assert_array_equal(found["second"][0], np.full(IMAGE, -1.0))
    low, high = found["first"]
    np.testing.assert_allclose(low[:4], np.full(IMAGE, -1.0))
    np.testing.assert_allclose(low[4:], np.broadcast_to([-2.0, -1.0], IMAGE), rtol=1e-5)
    np.testing.assert_allclose(high[4:], np.broadcast_to([1.0, 2.0], IMAGE), rtol=1e-5)


# In the methods


def convolution(padding, **settings):
    """A network with the same weights whether its convolution pads or a layer before it."""
    before = [L.ZeroPadding2D(((1, 1), (1, 1)))] if padding else []
    conv = L.Conv2D(3, 3, padding="valid" if padding else "same", activation="relu", **settings)
    layers = [keras.Input((5, 4, 2)), *before, conv, L.Flatten(), L.Dense(3)]
    return balanced(with_weights(keras.Sequential(layers), seed=5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deep_taylor.bounded", {"low": -1.0, "high": 2.0}),
        ("deep_taylor.bounded", {"low": [0.5, -3.0], "high": [1.0, -1.0]}),
        ("lrp.epsilon", {"input_layer_rule": (0.5, 2.0)}),
    ],
)
def test_padding_in_the_convolution_and_before_it_are_one(name, options, rng):
    low, high = (options["low"], options["high"]) if "low" in options else options["input_layer_rule"]
    x = (np.array(low) + (np.array(high) - low) * rng.uniform(size=(4, 5, 4, 2))).astype("float32")
    maps = [create_analyzer(name, convolution(padding), **options).analyze(x) for padding in (True, False)]
    assert np.abs(maps[0]).max() > 0
    assert close(*maps, 1e-6)


def test_a_normalisation_before_the_convolution_is_the_same_as_normalised_inputs(rng):
    """The map at the normalised input, from bounds that the normalisation makes."""
    layer = normalization(gamma=[2.0, -3.0], beta=[1.0, 4.0], moving_mean=[0.5, -1.0], moving_variance=[4.0, 0.25])
    inner = image_network()
    model = keras.Sequential([keras.Input(IMAGE), layer, *inner.layers])
    image = rng.uniform(-1, 2, size=(3, *IMAGE)).astype("float32")
    found = create_analyzer("deep_taylor.bounded", model, low=-1.0, high=2.0).analyze(image)
    factor = np.array([1.0, -6.0])
    ends = factor * np.array([[-1.0], [2.0]]) + [0.5, -2.0]
    inside = create_analyzer("deep_taylor.bounded", inner, low=ends.min(axis=0), high=ends.max(axis=0))
    wanted = inside.analyze((factor * image + [0.5, -2.0]).astype("float32"))
    assert close(found, factor * wanted, 1e-4)
