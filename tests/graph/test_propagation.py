"""The walk: tensors forward, one rule a step back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import cnn, mlp, with_weights

L = keras.layers


def branches():
    a = keras.Input((6,))
    b = L.Dense(5, activation="relu", name="one")(a)
    c = L.Dense(5, name="two")(b)
    d = L.Subtract(name="less")([b, c])
    return with_weights(keras.Model(a, L.Dense(3, name="head")(L.Concatenate(name="all")([d, a, b]))))


def gradient(step, seen, signal):
    """The vector-Jacobian product of one step: a rule whose walk must give the model's gradient."""
    with tf.GradientTape() as tape:
        tape.watch(seen)
        output = step(dict(zip(step.inputs, seen, strict=True)))
    parts = tape.gradient(output, seen, output_gradients=signal)
    return tuple(parts) if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("make", [mlp, cnn, branches])
def test_a_walk_of_gradients_is_the_gradient(make, rng):
    model = make()
    graph = ModelGraph(model)
    x = tf.constant(rng.normal(size=(3, *model.input_shape[1:])), tf.float32)
    tensors = propagation.forward(graph, x)
    seen = {step.index: [tensors[n] for n in step.inputs] for step in graph.steps}
    signal = tf.constant(rng.normal(size=(3, graph.neurons)), tf.float32)
    found = propagation.backward(graph, graph.steps, seen, signal, gradient)
    assert list(found) == [graph.input]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
    np.testing.assert_allclose(found[0], tape.gradient(y, x, output_gradients=signal), rtol=1e-5, atol=1e-6)


def test_forward_keeps_every_tensor():
    model = branches()
    graph = ModelGraph(model)
    x = tf.ones((2, 6))
    tensors = propagation.forward(graph, x)
    assert sorted(tensors) == sorted([graph.input, *(step.output for step in graph.steps)])
    assert tensors[graph.input] is x
    for name in ("one", "two", "less", "all"):
        wanted = keras.Model(model.inputs, model.get_layer(name).output)(x)
        np.testing.assert_allclose(tensors[graph.tensor_after(name)], wanted, rtol=1e-6)


def test_a_walk_stops_where_the_steps_do_and_visits_each_once_from_the_top():
    graph = ModelGraph(branches())
    start = graph.tensor_after("one")
    visited = []

    def rule(step, seen, signal):
        visited.append((step.name, seen))
        return (signal,) * len(step.inputs) if len(step.inputs) > 1 else signal

    found = propagation.backward(graph, graph.between(start), {graph.steps[-1].index: "known"}, tf.ones((1, 3)), rule)
    assert visited == [("head", "known"), ("all", None), ("less", None), ("two", None)]
    # the concatenation reads the input too: the walk ends at both; three parts meet at the start
    assert set(found) == {start, graph.input}
    np.testing.assert_array_equal(found[start], [[3.0] * 3])


def test_steps_that_no_signal_reaches_are_passed_over():
    graph = ModelGraph(mlp())
    visited = []

    def rule(step, seen, signal):
        visited.append(step.name)
        return signal

    propagation.backward(graph, graph.steps[-1:], {}, tf.ones((1, 4)), rule)
    assert visited == ["head"]
    visited.clear()
    propagation.backward(graph, graph.steps[:-1], {}, tf.ones((1, 4)), rule)  # the head is not walked
    assert visited == []


def test_a_rule_with_the_wrong_number_of_parts_is_refused():
    graph = ModelGraph(branches())
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        propagation.backward(graph, graph.steps, {}, tf.ones((1, 3)), lambda step, seen, signal: (signal, signal))
