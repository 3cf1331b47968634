"""Weights that are held: every way to change a variable is noticed, and what changed nothing is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.saving import held_weights
from mipin_keras.saving.held_weights import HeldWeights
from tests.networks import mlp, samples

L = keras.layers


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((12,)), L.Dense(5, "relu"), L.BatchNormalization(), L.Dense(4, name="head")])
    model.compile("adam", "mse")
    return model


def set_one(model):
    weights = model.get_weights()
    weights[0][3, 2] = np.nextafter(weights[0][3, 2], 9, dtype="float32")  # one bit
    model.set_weights(weights)


CHANGES = {
    "one bit": set_one,
    "assign": lambda model: model.weights[0].assign(model.weights[0] * 2),
    "assign_add": lambda model: model.weights[0].assign_add(np.ones((12, 5), "float32")),
    "in place": lambda model: model.weights[0].value.assign_sub(tf.ones((12, 5))),
    "scattered": lambda model: model.weights[0].value.scatter_nd_update([[0, 0]], [7.0]),
    "trained": lambda model: model.fit(samples((12,), 8), np.ones((8, 4)), verbose=0),
    "trained by XLA": lambda model: (
        model.compile("sgd", "mse", jit_compile=True),
        model.fit(samples((12,), 8), np.ones((8, 4)), verbose=0),
    ),
    "trained by hand": lambda model: keras.optimizers.SGD().apply([tf.ones((12, 5))], [model.weights[0]]),
    "moving statistics": lambda model: model(samples((12,), 8), training=True),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("addressed", [True, False], ids=["by address", "by value"])
@pytest.mark.few(5)
def test_each_way_to_change_a_weight_is_noticed(name, addressed, model, monkeypatch):
    if not addressed:  # a device or dtype that DLPack does not know
        monkeypatch.setattr(held_weights, "_address", lambda tensor: None)
    held = HeldWeights(model.weights)
    before = [variable.numpy() for variable in model.weights]
    assert held.changed() == []
    CHANGES[name](model)
    wanted = [
        variable.path
        for variable, old in zip(model.weights, before, strict=True)
        if not np.array_equal(variable.numpy(), old)
    ]
    assert wanted and held.changed() == wanted == held.changed()
    for variable, old in zip(model.weights, before, strict=True):
        variable.assign(old)
    assert held.changed() == []  # set back to what they were


def test_weights_set_to_themselves_and_read_in_a_trace_are_the_same(model):
    held = HeldWeights(model.weights)
    model.set_weights(model.get_weights())
    assert held.changed() == []

    @tf.function
    def read():
        return held.read()

    assert held.changed(read()) == []
    model.weights[-1].assign_add(np.ones(4, "float32"))
    assert held.changed(read()) == [model.weights[-1].path]


def test_no_copy_is_held_and_a_change_is_looked_for_by_address(model, monkeypatch):
    held = HeldWeights(model.weights)
    addresses = [held_weights._address(variable.value.read_value()) for variable in model.weights]
    assert addresses == held._addresses and None not in addresses
    monkeypatch.setattr(held_weights, "_hash", lambda tensor: pytest.fail("read the values"))
    assert held.changed() == []


def test_nan_is_equal_to_itself_and_other_dtypes_are_told_apart():
    model = mlp()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    half = keras.Variable(np.ones(3), dtype="bfloat16")
    held = HeldWeights([*model.weights, half, keras.Variable(np.zeros((0, 2)))])
    model.set_weights(model.get_weights())
    assert held.changed() == []
    half.assign([1, 1, 2])
    assert held.changed() == [half.path]
