"""Models without a graph: subclassed ones, functions, other libraries' objects; explained by their gradient."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import samples
from tests.wild.common import GRADIENTS, RULED, agree, by_tape, each, largest, made, maps

L = keras.layers
X = samples((6,), 8)
SERIES = samples((5, 2), 4)


class Net(keras.Model):
    """A model as tutorials subclass it: with a branch in Python, and dropout."""

    def __init__(self, head=None):
        super().__init__()
        self.first, self.second = L.Dense(5, activation="relu"), L.Dense(3, activation=head)
        self.dropout = L.Dropout(0.5)

    def call(self, x, training=False):
        y = self.first(x)
        if y.shape[-1] == 5:
            y = self.dropout(y, training=training)
        return self.second(y)


class Mapped(keras.Model):
    """An output a pixel."""

    def __init__(self):
        super().__init__()
        self.conv = L.Conv1D(3, 2)

    def call(self, x):
        return self.conv(x)


def built(model, x=X):
    model(x)
    return model


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_subclassed_model(name):
    model = built(Net())
    before = model.get_weights()
    agree(maps(name, model, X), by_tape(name, largest(lambda x: model(x, training=False), X), X))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_function_of_tensorflows(name):
    weights = tf.constant(np.random.default_rng(0).normal(size=(6, 3)), "float32")
    function = lambda x: tf.tanh(x) @ weights  # noqa: E731
    agree(maps(name, function, X), by_tape(name, largest(function, X), X))
    chosen = maps(name, function, X, selection=1, neuron_selection_mode="index")
    agree(chosen, by_tape(name, lambda x: function(x)[:, 1], X))


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_target_of_a_model_without_a_graph(name):
    model = built(Mapped(), SERIES)
    target = lambda y: keras.ops.mean(y[:, :, 1], axis=1)  # noqa: E731
    agree(maps(name, model, SERIES, target=target), by_tape(name, lambda x: target(model(x)), SERIES))
    with pytest.raises(ValueError, match="target="):
        made(name, model).analyze(SERIES)


@pytest.mark.parametrize("name", each([*RULED, "grad_cam"]))
@pytest.mark.parametrize("kind", ["subclassed", "function"])
def test_methods_that_walk_say_what_to_do(name, kind):
    model = built(Net()) if kind == "subclassed" else lambda x: tf.reduce_sum(x, 1, keepdims=True)
    with pytest.raises((ValueError, TypeError), match="keras.Model"):
        made(name, model)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_head_that_gives_probabilities_is_said(head):
    model = built(Net(head))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = made("gradient", model).analyze(X)
    assert any("probabilit" in str(one.message) or "softmax" in str(one.message) for one in said)
    agree(found, by_tape("gradient", largest(lambda x: model(x, training=False), X), X))


def test_logits_are_not_called_probabilities():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made("gradient", built(Net())).analyze(X)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.arange(12).reshape(2, 6), "float"),
        (["a", "b"], "number"),
        (np.zeros((0, 6), "float32"), "at least one"),
        (np.full((2, 6), np.nan, "float32"), "NaN"),
    ],
    ids=["integers", "words", "none", "NaN"],
)
def test_input_that_has_no_gradient_is_refused(given, words):
    with pytest.raises((ValueError, TypeError), match=words):
        made("gradient", built(Net())).analyze(given)


def test_a_function_without_a_gradient_is_refused():
    def rounded(x):
        return tf.round(x)[:, :2]

    with pytest.raises(ValueError, match="gradient"):
        create_analyzer("gradient", rounded).analyze(X)


def test_what_is_no_model_is_refused():
    for given in ("model.keras", None, 3, {"model": 1}):
        with pytest.raises(TypeError, match="expected a"):
            create_analyzer("gradient", given)


def test_a_subclassed_model_around_a_functional_one():
    # Its inside has a graph: what walks is given that.
    inner = keras.Sequential([keras.Input((6,)), L.Dense(4, activation="relu"), L.Dense(3)])

    class Around(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    agree(maps("gradient", built(Around()), X), maps("gradient", inner, X))
    assert maps("lrp.epsilon", inner, X).any()
