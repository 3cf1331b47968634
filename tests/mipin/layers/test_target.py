"""The inverse of a target: a ridge regression of NumPy's from its value to the outputs that it depends on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer, targets
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse
from mipin_keras.mipin.layers.target import TargetInverse
from tests.networks import close, fitted_weights, mlp, samples, with_weights
from tests.reference import ridge

L, K = keras.layers, keras.ops


def image(head=None):
    x = keras.Input((3, 4, 2))
    return keras.Model(x, L.Conv2D(3, 1, activation=head, name="logits")(x))


def target_step(function, model=None, **options):
    graph = ModelGraph(image() if model is None else model, target=targets.as_target(function), **options)
    return graph.steps[-1]


REGION = np.array([[True, False, False, True], [False] * 4, [False, True, True, False]])


def slope_of_region(y):
    found = np.zeros(y.shape, bool)
    found[:, REGION, 1] = True
    return found


def slope_of_element(y):
    found = np.zeros(y.shape, bool)
    found[:, 2, 1, 0] = True
    return found


ALL = (1, 2, 3)
# Each: the target, its value, and which outputs its gradient is not 0 for.
TARGETS = {
    "segmentation": (targets.segmentation(REGION, 1), lambda y: y[:, REGION, 1].mean(axis=1), slope_of_region),
    "index": ((2, 1, 0), lambda y: y[:, 2, 1, 0], slope_of_element),
    "squares": (lambda y: K.sum(y**2, axis=ALL), lambda y: (y**2).sum(axis=ALL), lambda y: y != 0),
    "largest": (
        lambda y: K.max(y, axis=ALL), lambda y: y.max(axis=ALL), lambda y: y == y.max(axis=ALL, keepdims=True),
    ),
    "positive": (
        lambda y: K.sum(K.relu(y), axis=ALL), lambda y: np.maximum(y, 0).sum(axis=ALL), lambda y: y > 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_it_is_a_ridge_to_the_outputs_that_the_target_depends_on(kind, rng):
    function, value, slope = TARGETS[kind]
    y = rng.normal(size=(40, 3, 4, 3))
    inverse = make_inverse(target_step(function))
    assert type(inverse) is TargetInverse and inverse.learned and inverse.merges
    given, t, depends = (tf.constant(y),), value(y)[:, None], slope(y)
    (record,) = inverse.record(given, tf.constant(t))
    np.testing.assert_array_equal(record, depends)
    wanted = np.where(depends, y, 0).reshape(40, -1)
    np.testing.assert_array_equal(inverse.target(given), wanted)
    weights = fitted_weights(inverse, tf.constant(t), inverse.target(given), 0.1)
    kernel, bias = ridge(t, wanted, 0.1)
    assert close(weights[0], kernel, 1e-8) and close(weights[1], bias, 1e-8)
    assert [w.shape for w in weights] == list(inverse.weight_shapes)
    signal = rng.normal(size=(40, 1))
    (source,) = inverse.source(tf.constant(signal), (record,), weights)
    (linear,) = inverse.attribution(tf.constant(signal), (record,), weights)
    assert close(source, np.where(depends, (signal @ kernel + bias).reshape(y.shape), 0), 1e-8)
    assert close(linear, np.where(depends, (signal @ kernel).reshape(y.shape), 0), 1e-8)
    np.testing.assert_array_equal(inverse.reconstruction((source,)), np.reshape(source, (40, -1)))


def test_several_outputs_share_one_regression(rng):
    x = keras.Input((4,))
    model = keras.Model(x, {"a": L.Dense(2, name="a")(x), "b": L.Dense(3, name="b")(x)})
    step = target_step(lambda y: y["a"][:, 0] * y["b"][:, 2], model)
    inverse = make_inverse(step)
    assert inverse.shapes == [(2,), (3,)]
    a, b = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    t = a[:, :1] * b[:, 2:]
    given = tf.constant(a), tf.constant(b)
    record = inverse.record(given, tf.constant(t))
    np.testing.assert_array_equal(record[0], [[True, False]] * 30)
    np.testing.assert_array_equal(record[1], [[False, False, True]] * 30)
    weights = fitted_weights(inverse, tf.constant(t), inverse.target(given), 1e-3)
    kernel, bias = ridge(t, np.concatenate([a * [1, 0], b * [0, 0, 1]], axis=1), 1e-3)
    assert close(weights[0], kernel, 1e-8) and close(weights[1], bias, 1e-8)
    found = inverse.source(tf.constant(t), record, weights)
    assert close(np.concatenate(found, axis=1), (t @ kernel + bias) * [1, 0, 0, 0, 1], 1e-8)


# Through the whole of MIP-IN


def test_mipin_starts_there_and_goes_down_as_always():
    model, x = mlp(hidden=(8,)), samples((12,), 80)
    k, b, k2, b2 = (w.astype(float) for w in model.get_weights())
    hidden = np.maximum(x @ k + b, 0)
    y = hidden @ k2 + b2
    t = (y[:, :2] ** 2).sum(axis=1, keepdims=True)
    depends = np.array([True, True, False, False]) & (y != 0)
    analyzer = create_analyzer("mipin", model, target=lambda y: K.sum(y[:, :2] ** 2, axis=1), verbose=0).fit(x)
    np.testing.assert_allclose(analyzer.logits(x), t, rtol=1e-4)
    source, linear = t, t
    for below, mask in ((np.where(depends, y, 0), depends), (hidden, hidden != 0), (x, np.ones(x.shape))):
        kernel, bias = ridge(source, below, 1e-3)
        source, linear = (source @ kernel + bias) * mask, linear @ kernel * mask
    assert close(analyzer.source_signal(x), source, 1e-3) and close(analyzer.analyze(x), linear, 1e-3)
    assert [line["layer"] for line in analyzer.fit_report] == ["target", "head", "dense1"]
    assert {line["class"] for line in analyzer.fit_report} == {0}


@pytest.mark.parametrize(
    ("target", "weights"), [(targets.contrast(2, 0), [-1, 0, 1, 0]), (targets.negative(1), [0, -1, 0, 0])]
)
def test_a_weighted_sum_is_fitted_as_a_model_with_that_one_neuron(target, weights):
    model, x = mlp(), samples((12,), 80)
    *below, kernel, bias = model.get_weights()
    one = mlp(units=1)
    one.set_weights([*below, kernel @ np.float32(weights)[:, None], np.float32([bias @ np.float32(weights)])])
    found = create_analyzer("mipin", model, target=target, verbose=0).fit(x)
    wanted = create_analyzer("mipin", one, verbose=0).fit(x)
    for way in ("analyze", "source_signal", "logits"):
        assert close(getattr(found, way)(x), getattr(wanted, way)(x), 1e-5)


def test_a_logit_and_minus_it_have_one_attribution():
    """The value changes its sign, and so do the weights that are learned from it."""
    model, x = mlp(units=1, head="sigmoid"), samples((12,), 80)
    plain, other = (create_analyzer("mipin", model, target=t, verbose=0).fit(x) for t in (None, targets.negative(0)))
    assert close(other.analyze(x), plain.analyze(x), 1e-5) and close(other.logits(x), -plain.logits(x), 1e-6)


def test_samples_of_the_class_are_those_whose_target_is_positive():
    model, x = mlp(units=1, head="sigmoid"), samples((12,), 80)
    logits = create_analyzer("gradient", model).logits(x)[:, 0]
    assert 8 < (logits < 0).sum() < 72
    own = create_analyzer("mipin", model, target=targets.negative(0), samples="class", verbose=0).fit(x)
    wanted = create_analyzer("mipin", model, target=targets.negative(0), verbose=0).fit(x[logits < 0])
    assert {line["samples"] for line in own.fit_report} == {int((logits < 0).sum())}
    assert close(own.analyze(x), wanted.analyze(x), 1e-4)


@pytest.mark.parametrize("finetune_epochs", [0, pytest.param(2, marks=pytest.mark.medium)])
def test_an_image_of_logits_is_explained_at_its_input(finetune_epochs, rng):
    x = keras.Input((4, 4, 1))
    y = L.Conv2D(3, 3, padding="same", activation="relu", name="conv")(x)
    model = with_weights(keras.Model(x, L.Conv2D(2, 1, activation="softmax", name="classes")(y)))
    data = rng.random((60, 4, 4, 1)).astype("float32")
    region = np.zeros((4, 4), bool)
    region[1:3, 1:3] = True
    options = {"verbose": 0, "finetune_epochs": finetune_epochs}
    analyzer = create_analyzer("mipin", model, target=targets.segmentation(region, 1), **options).fit(data)
    maps = analyzer.analyze(data)
    assert maps.shape == data.shape and np.isfinite(maps).all()
    # Nothing lies further from the region than the convolution reaches: here every pixel is reached.
    assert (np.abs(maps).max(axis=0) > 0).all()
    inverse = analyzer.inverse_model(0)
    assert close(inverse(data), analyzer.source_signal(data), 1e-5)
    if finetune_epochs:
        assert analyzer.fit_report[0]["end_mse"] < analyzer.fit_report[0]["end_mse_before"]


# Files


def margin(y):
    return y[:, 0] - y[:, 1] ** 2


@pytest.mark.parametrize("target", [targets.contrast(0, 1), 2, margin], ids=["contrast", "index", "function"])
def test_a_saved_fit_says_of_which_target(target, tmp_path):
    model, x = mlp(), samples((12,), 60)
    analyzer = create_analyzer("mipin", model, target=target, verbose=0).fit(x)
    path = analyzer.save(tmp_path / "fit.npz")
    again = {"target": margin} if target is margin else {}
    np.testing.assert_array_equal(load_analyzer(path, model, **again).analyze(x), analyzer.analyze(x))
    if target is margin:
        with pytest.raises(ValueError, match=r"give it: load_analyzer\(path, model, target=function\)"):
            load_analyzer(path, model)


def test_what_says_another_quantity_is_refused_beside_it():
    with pytest.raises(ValueError, match="one of target and classes"):
        create_analyzer("mipin", mlp(), target=targets.negative(0), classes=[0])
    with pytest.raises(ValueError, match="one of target and neuron_selection_mode"):
        create_analyzer("mipin", mlp(), target=targets.negative(0), neuron_selection_mode="index")
