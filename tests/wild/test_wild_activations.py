"""Activations that are not objects of keras.activations: read as what they compute."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import samples, with_weights
from tests.wild.common import GRADIENTS, OURS, RULED, agree, by_tape, each, largest, logits_of, made, maps

L = keras.layers
X = samples((6, 5, 2), 12)
T = samples((6,), 12)


def image_model(hidden="relu", head=None, units=3):
    x = keras.Input((6, 5, 2))
    y = L.Conv2D(4, 3, activation=hidden)(x)
    y = L.Flatten()(L.MaxPooling2D(2)(y))
    return with_weights(keras.Model(x, L.Dense(units, activation=head, name="head")(y)), 5)


HEADS = {
    "tf.nn.softmax": (tf.nn.softmax, "softmax"),
    "keras.ops.softmax": (keras.ops.softmax, "softmax"),
    "tf.nn.sigmoid": (tf.nn.sigmoid, "sigmoid"),
    "tf.sigmoid": (tf.sigmoid, "sigmoid"),
    "keras.ops.sigmoid": (keras.ops.sigmoid, "sigmoid"),
}
RELUS = {
    "tf.nn.relu": (tf.nn.relu, "relu"),
    "keras.ops.relu": (keras.ops.relu, "relu"),
    "tf.nn.relu6": (tf.nn.relu6, "relu6"),
    "keras.ops.relu6": (keras.ops.relu6, "relu6"),
}
OTHERS = {
    "tf.nn.tanh": (tf.nn.tanh, "tanh"),
    "tf.nn.elu": (tf.nn.elu, "elu"),
    "tf.nn.silu": (tf.nn.silu, "silu"),
    "keras.ops.tanh": (keras.ops.tanh, "tanh"),
    "keras.ops.silu": (keras.ops.silu, "silu"),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.few(3)
def test_a_heads_function_is_left_off(name, head):
    function, known = HEADS[head]
    model = image_model(head=function)
    logits = logits_of(image_model(head=known))
    agree(maps(name, model, X), by_tape(name, largest(logits, X), X))
    np.testing.assert_allclose(made("gradient", model).logits(X), logits(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["tf.nn.softmax", "keras.ops.sigmoid"])
@pytest.mark.parametrize("name", each([*RULED, "grad_cam"]))
@pytest.mark.few(3)
def test_every_method_with_a_heads_function(name, head):
    function, known = HEADS[head]
    agree(maps(name, image_model(head=function), X), maps(name, image_model(head=known), X))


@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(8)
def test_a_relu_by_another_name_is_a_relu(name, relu):
    function, known = RELUS[relu]
    agree(maps(name, image_model(hidden=function), X), maps(name, image_model(hidden=known), X))


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "deep_taylor", "guided_backprop", "mipin"])
@pytest.mark.few(7)
def test_other_functions_are_what_keras_calls_them(name, other):
    function, known = OTHERS[other]
    try:
        wanted = maps(name, image_model(hidden=known), X)
    except ValueError as problem:
        with pytest.raises(ValueError, match="activations='any'") as raised:
            maps(name, image_model(hidden=function), X)
        assert "activations='any'" in str(problem) and "conv2d" in str(raised.value)
        return
    agree(maps(name, image_model(hidden=function), X), wanted)


def own_softmax(x):
    """A function that nobody knows by name, and that is a softmax."""
    powers = keras.ops.exp(x - keras.ops.max(x, axis=-1, keepdims=True))
    return powers / keras.ops.sum(powers, axis=-1, keepdims=True)


WRAPPED = {
    "a lambda": lambda x: keras.activations.softmax(x),
    "an own function": own_softmax,
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_softmax_by_behaviour_is_left_off_or_said(wrapped):
    model = image_model(head=WRAPPED[wrapped])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        analyzer = create_analyzer("gradient", model)
    found, logits = analyzer.analyze(X), logits_of(image_model())
    plain = by_tape("gradient", largest(logits, X), X)
    if said:  # then it explains what the model gives, and says by name that these are no logits
        assert any("'head" in str(one.message) and "softmax" in str(one.message) for one in said)
        plain = by_tape("gradient", largest(lambda x: model(x, training=False), X), X)
    agree(found, plain)


def test_a_function_that_is_no_softmax_stays():
    # Bounded between 0 and 1, and rows that do not sum to 1: part of what is explained.
    model = image_model(head=lambda x: 0.5 + 0.5 * x / (1 + keras.ops.abs(x)))
    agree(maps("gradient", model, X), by_tape("gradient", largest(lambda x: model(x, training=False), X), X))


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "mipin"])
@pytest.mark.parametrize("end", ["Activation", "Softmax", "operation", "a layer of TensorFlow's"])
@pytest.mark.few(3)
def test_a_softmax_as_a_step_of_its_own(name, end):
    x = keras.Input((6,))
    logits = L.Dense(3, name="logits")(L.Dense(5, activation="relu")(x))
    ends = {
        "Activation": lambda y: L.Activation(tf.nn.softmax)(y),
        "Softmax": lambda y: L.Softmax()(y),
        "operation": lambda y: keras.ops.softmax(y, axis=-1),
        "a layer of TensorFlow's": lambda y: L.Activation(lambda z: tf.nn.softmax(z, axis=-1), name="probabilities")(y),
    }
    plain = with_weights(keras.Model(x, logits), 2)
    found = maps(name, keras.Model(x, ends[end](logits)), T)
    agree(found, maps(name, plain, T))
    if name == "gradient":
        agree(found, by_tape(name, largest(lambda points: plain(points, training=False), T), T))
