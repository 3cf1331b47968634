"""The comparison of a model's steps with the model."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.graph import comparison
from mipin_keras.graph.callable_graph import CallableGraph
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin import inverse as inverses
from tests.networks import cnn, mlp, residual, with_weights

L = keras.layers
X = np.float32([[1, 2], [3, 4]])


def around(layer):
    return keras.Sequential([keras.Input((2,)), layer])


class Sneaky(L.Layer):
    """Counts its calls where Keras does not see it, and hands on ``x`` times what ``factor`` makes of them."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.calls = factor, [0]

    def call(self, x):
        self.calls[0] += 1
        return x * self.factor(self.calls[0])


@pytest.mark.parametrize("make", [mlp, cnn, residual])
def test_the_steps_of_a_model_give_its_output(make, rng):
    model = make()
    x = tf.constant(rng.normal(size=(4, *model.input_shape[1:])), tf.float32)
    difference, limit = comparison.compared(ModelGraph(model), (x,))
    assert difference < 1e-5 < limit <= 1e-2


def test_the_difference_is_in_shares_of_the_largest_value():
    layer = Sneaky(lambda call: float(call))
    graph = ModelGraph(around(layer))
    layer.calls[0] = 9
    difference, limit = comparison.compared(graph, (tf.constant(X),))
    assert difference == pytest.approx(0.1, rel=1e-5) and limit < 0.1  # 10 x by the model, then 11 x by the steps
    assert layer.calls == [11]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_finite_in_one_alone_differs(bad):
    layer = Sneaky(lambda call: bad if call == 2 else 1.0)
    graph = ModelGraph(around(layer))
    layer.calls[0] = 0
    assert comparison.compared(graph, (tf.constant(X),))[0] == math.inf
    layer.factor = lambda call: bad  # alike, it is no matter of the steps: an analysis refuses such logits itself
    assert comparison.compared(graph, (tf.constant(X),))[0] == 0


def test_the_first_batch_tells_and_later_ones_do_not_ask_again():
    layer = Sneaky(lambda call: float(call))
    analyzer = create_analyzer("gradient", around(layer))
    for _ in range(2):  # refused once, it is refused again
        with pytest.raises(ValueError, match="expected the model's own output from its layers one by one"):
            analyzer.analyze(X)
    layer.factor = lambda call: 3.0
    analyzer._forget_traces()
    assert (analyzer.analyze(X) == [[0, 3]]).all()
    calls = layer.calls[0]
    analyzer.analyze(X)
    assert layer.calls[0] == calls  # traced, and not compared


def test_a_fit_compares_too(rng, monkeypatch):
    monkeypatch.setitem(inverses._INVERSES, Sneaky, inverses._INVERSES[L.Identity])
    layer = Sneaky(lambda call: float(call))
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, activation="relu"), layer, L.Dense(2)])
    analyzer = create_analyzer("mipin", model, verbose=0)
    with pytest.raises(ValueError, match="expected the model's own output from its layers one by one"):
        analyzer.fit(rng.random((20, 2)).astype("float32"))


def test_halves_may_differ_by_more():
    halves = keras.Sequential([keras.Input((2,)), L.Dense(3, dtype="mixed_float16"), L.Dense(2)])
    assert comparison.computes_in_halves(ModelGraph(halves)) and not comparison.computes_in_halves(ModelGraph(mlp()))
    difference, limit = comparison.compared(ModelGraph(with_weights(halves)), (tf.constant(X),))
    assert difference <= limit == 5e-2


def test_a_model_is_called_by_the_structure_of_its_inputs(rng):
    a, b = keras.Input((3,), name="z"), keras.Input((3,), name="y")
    model = with_weights(keras.Model({"first": a, "second": b}, L.Dense(2)(L.Subtract()([a, b]))))
    graph = ModelGraph(model)
    x = tuple(tf.constant(rng.normal(size=(4, 3)), tf.float32) for _ in range(2))
    (found,) = comparison.called(graph, x)
    np.testing.assert_array_equal(found, model(dict(zip(graph.input_names, x, strict=True))))
    assert comparison.compared(graph, x)[0] < 1e-5


def test_a_stateful_model_is_as_it_was():
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 2)), L.LSTM(3, stateful=True, name="lstm"), L.Dense(2)])
    x = (tf.ones((2, 3, 2)),)
    model(x[0])
    before = [np.array(state) for state in model.get_layer("lstm").states]
    assert any(state.any() for state in before)
    first = comparison.called(ModelGraph(model), x)[0]
    difference, _ = comparison.compared(ModelGraph(model), x)
    assert difference < 1e-5
    np.testing.assert_array_equal(comparison.called(ModelGraph(model), x)[0], first)
    for old, state in zip(before, model.get_layer("lstm").states, strict=True):
        np.testing.assert_array_equal(state, old)


def test_a_function_is_its_own_only_step():
    graph = CallableGraph(lambda x: x**2)
    graph.meet(X)
    assert comparison.compared(graph, (tf.constant(X),)) == (0.0, 0.0)
