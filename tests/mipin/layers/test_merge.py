"""The inverses of merges and of tensors with several readers: against NumPy, and where the inverse is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.graph import step_types
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse
from mipin_keras.mipin.layers.merge import FanOutInverse
from tests.networks import close, fitted_weights, residual, samples, with_weights
from tests.reference import ridge as least_squares

L = keras.layers


def merged(merge, shapes=((4, 3), (4, 3)), **options):
    """The inverse of a merge of tensors of these shapes."""
    inputs = keras.Input((int(sum(np.prod(shape) for shape in shapes)),))
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = [
        L.Reshape(shape, name=f"part{i}")(inputs[:, end - int(np.prod(shape)) : end])
        for i, (shape, end) in enumerate(zip(shapes, ends, strict=True))
    ]
    joint = merge(parts)
    graph = ModelGraph(keras.Model(inputs, L.Dense(2)(L.Flatten()(joint))))
    (step,) = [step for step in graph.steps if len(step.inputs) > 1]
    return make_inverse(step, gate=step_types.gates(graph).get(step.index), **options)


def values(rng, shapes=((4, 3), (4, 3)), n=50):
    return [rng.normal(size=(n, *shape)) for shape in shapes]


@pytest.mark.parametrize("positions", [None, 2])
@pytest.mark.parametrize(
    ("merge", "factors"),
    [
        (L.Add(), (1, 1)), (L.Add(), (1, 1, 1)), (L.Subtract(), (1, -1)), (L.Average(), (1 / 3, 1 / 3, 1 / 3)),
        (lambda parts: keras.ops.add(*parts), (1, 1)), (lambda parts: parts[0] - parts[1], (1, -1)),
    ],
)  # fmt: skip
def test_a_sum_is_shared_by_a_ridge_and_what_is_left(merge, factors, positions, rng):
    shapes = [(4, 3)] * len(factors)
    xs = values(rng, shapes)
    y = sum(factor * x for factor, x in zip(factors, xs, strict=True))
    signal = y + 0.3 * rng.normal(size=y.shape)
    inverse = merged(merge, shapes)
    target = inverse.target([tf.constant(x) for x in xs])
    assert inverse.learned and inverse.positions == 4
    if positions is None:
        weights = fitted_weights(inverse, tf.constant(signal), target, 0.1)
        kernel, bias = least_squares(
            signal.reshape(-1, 3), np.concatenate([x.reshape(-1, 3) for x in xs[:-1]], axis=1), 0.1
        )
        assert close(weights[0], kernel, 1e-8) and close(weights[1], bias, 1e-8)
        assert [w.shape for w in weights] == list(inverse.weight_shapes)
        found = inverse.source(tf.constant(signal), (), weights)
        linear = inverse.attribution(tf.constant(signal), (), weights)
        for k, wanted in enumerate(np.split(signal @ kernel + bias, len(xs) - 1, axis=-1)):
            assert close(found[k], wanted, 1e-8)
        assert close(sum(f * np.asarray(part) for f, part in zip(factors, found, strict=True)), signal, 1e-10)
        assert close(sum(f * np.asarray(part) for f, part in zip(factors, linear, strict=True)), signal, 1e-10)
        np.testing.assert_array_equal(inverse.reconstruction(found), tf.concat(found[:-1], -1))
    else:
        at = np.argsort(rng.random((50, 4)), axis=1)[:, :positions]
        features, targets = inverse.design(tf.constant(signal), target, at)
        np.testing.assert_array_equal(features[0], signal[np.arange(50)[:, None], at].reshape(-1, 3))
        np.testing.assert_array_equal(targets[0], np.asarray(target)[np.arange(50)[:, None], at].reshape(100, -1))


def test_a_tensor_added_to_itself_is_half_of_the_sum():
    a = keras.Input((3,))
    graph = ModelGraph(keras.Model(a, L.Dense(2)(L.Add()([a, a]))))
    inverse = make_inverse(graph.steps[0])
    assert not inverse.learned and inverse.merges
    (found,) = inverse.source(tf.constant([[2.0, 4.0, 6.0]]), (), ())
    np.testing.assert_array_equal(found, [[1.0, 2.0, 3.0]])
    graph = ModelGraph(keras.Model(a, L.Dense(2)(L.Subtract()([a, a]))))
    with pytest.raises(ValueError, match="subtracts a tensor from itself"):
        make_inverse(graph.steps[0])


@pytest.mark.parametrize(
    ("merge", "extreme"),
    [(L.Maximum(), np.maximum), (L.Minimum(), np.minimum), (lambda p: keras.ops.maximum(*p), np.maximum)],
)
def test_an_extreme_goes_back_to_where_it_came_from(merge, extreme, rng):
    a, b = values(rng)
    b[:10] = a[:10]  # both are
    inverse = merged(merge)
    y = extreme(a, b)
    record = inverse.record((tf.constant(a), tf.constant(b)), tf.constant(y))
    signal = rng.normal(size=y.shape)
    found = inverse.source(tf.constant(signal), record, ())
    np.testing.assert_array_equal(found[0], np.where(a == y, signal, 0))
    np.testing.assert_array_equal(found[1], np.where(b == y, signal, 0))
    assert not inverse.learned


@pytest.mark.parametrize(
    ("merge", "shapes", "axis"),
    [
        (L.Concatenate(), ((4, 3), (4, 2), (4, 5)), -1), (L.Concatenate(axis=1), ((4, 3), (2, 3)), 1),
        (lambda parts: keras.ops.concatenate(parts, axis=-1), ((4, 3), (4, 2)), -1),
    ],
)  # fmt: skip
def test_a_concatenation_is_taken_apart(merge, shapes, axis, rng):
    xs = values(rng, shapes)
    found = merged(merge, shapes).source(tf.constant(np.concatenate(xs, axis=axis)), (), ())
    for part, x in zip(found, xs, strict=True):
        np.testing.assert_array_equal(part, x)


def test_what_stands_twice_in_a_concatenation_gets_the_mean():
    a = keras.Input((2,))
    graph = ModelGraph(keras.Model(a, L.Dense(2)(L.Concatenate()([a, a]))))
    (found,) = make_inverse(graph.steps[0]).source(tf.constant([[1.0, 2.0, 3.0, 6.0]]), (), ())
    np.testing.assert_array_equal(found, [[2.0, 4.0]])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_a_gate_is_opened_again(first, relu, rng):
    shapes = ((1, 3), (4, 3)) if first else ((4, 3), (1, 3))
    inverse = merged(L.Multiply(), shapes, forward_relu=relu)
    gate, x = rng.uniform(0.2, 1, size=(50, 1, 3)), rng.normal(size=(50, 4, 3))
    xs = tuple(tf.constant(a) for a in ((gate, x) if first else (x, gate)))
    record = inverse.record(xs, xs[0] * xs[1])
    assert len(record) == relu and inverse.carries((7, 8)) == ((None, 8) if first else (7, None))
    signal = tf.constant(gate * x)
    target = inverse.target(xs)
    sums = inverse.regression()
    inverse.add_rows(sums, signal, target, None, record)
    solution = sums.solve(1e-9)
    weights = inverse.assemble(solution.kernel, solution.bias)
    found = inverse.reconstruction(inverse.source(signal, record, weights))
    if relu:  # the stated error: (1e-3 / gate)² of it
        assert close(found, x, 2.5e-5)
        return
    for channel in range(3):
        kernel, bias = least_squares((gate * x)[..., channel].reshape(-1, 1), x[..., channel].reshape(-1, 1), 1e-9)
        assert close(np.asarray(found)[..., channel], (gate * x)[..., channel] * kernel[0] + bias, 1e-8)


def test_a_shut_gate_lets_nothing_back():
    inverse = merged(L.Multiply(), ((4, 3), (1, 3)))
    xs = tf.ones((1, 4, 3)), tf.constant([[[0.0, 1e-9, 1.0]]])
    found = inverse.attribution(tf.ones((1, 4, 3)), inverse.record(xs, xs[0]), (tf.ones(3), tf.zeros(3)))[0]
    np.testing.assert_allclose(found[0, 0], [0, 1e-3, 1], atol=1e-4)


@pytest.mark.parametrize("merge", ["channel", "full"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("positions", [None, 3])
def test_several_readers_are_merged_by_a_ridge(merge, count, positions, rng):
    x = rng.normal(size=(40, 5, 3))
    parts = [x + rng.normal(size=x.shape) * (k + 1) for k in range(count)]
    inverse = FanOutInverse((5, 3), count, "x", merge=merge)
    at = None if positions is None else np.argsort(rng.random((40, 5)), axis=1)[:, :positions]
    chosen = [a if at is None else a[np.arange(40)[:, None], at] for a in (x, *parts)]
    sums = inverse.regression()
    inverse.add_rows(sums, tuple(tf.constant(part) for part in parts), tf.constant(x), at)
    solution = sums.solve(0.1)
    weights = inverse.assemble(solution.kernel, solution.bias)
    assert [w.shape for w in weights] == list(inverse.weight_shapes)
    found = inverse.source(tuple(tf.constant(part) for part in parts), (), weights)
    flat = [a.reshape(-1, 3) for a in chosen]
    if merge == "full":
        kernel, bias = least_squares(np.concatenate(flat[1:], axis=1), flat[0], 0.1)
        assert close(found, np.concatenate(parts, axis=-1) @ kernel + bias, 1e-8)
    else:
        for channel in range(3):
            kernel, bias = least_squares(
                np.stack([a[:, channel] for a in flat[1:]], axis=1), flat[0][:, [channel]], 0.1
            )
            wanted = np.stack([part[..., channel] for part in parts], axis=-1) @ kernel[:, 0] + bias
            assert close(np.asarray(found)[..., channel], wanted, 1e-8)
    linear = inverse.attribution(tuple(tf.constant(part) for part in parts), (), weights)
    assert close(np.asarray(found) - np.asarray(linear), np.broadcast_to(weights[1], x.shape), 1e-8)


# Whole models


def on_a_line(shape, n=60, seed=0):
    """Samples of one latent number: a linear network's inverse can recover them from a logit."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, *[1] * len(shape))) * rng.normal(size=(1, *shape)) + 0.5).astype("float32")


def linear_merge(merge, parts=2):
    a = keras.Input((6,))
    branches = [L.Dense(5, name=f"branch{i}")(a) for i in range(parts)]
    return with_weights(keras.Model(a, L.Dense(2, name="head")(merge(branches))))


@pytest.mark.parametrize(
    ("merge", "parts"),
    [
        (L.Add(), 2), (L.Add(), 4), (L.Subtract(), 2), (L.Average(), 3), (L.Concatenate(), 3),
        (lambda b: keras.ops.add(b[0], b[1]), 2), (lambda b: keras.ops.concatenate(b, axis=-1), 2),
    ],
)  # fmt: skip
def test_linear_maps_of_one_latent_are_recovered_through_a_merge(merge, parts):
    model, x = linear_merge(merge, parts), on_a_line((6,))
    analyzer = mipin_keras.create_analyzer("mipin", model, ridge=1e-6, classes=0, verbose=0).fit(x)
    other = on_a_line((6,), seed=0)[:7]
    analyzer.neuron_selection_mode = "index"
    assert close(analyzer.source_signal(other, 0), other, 1e-4)
    assert all(line["relative"] < 1e-6 for line in analyzer.fit_report)
    assert [line["type"] for line in analyzer.fit_report if line["type"] == "fan-out"] == ["fan-out"]


def test_one_latent_is_recovered_through_an_extreme():
    """max(u, v) of maps of a positive latent t, u = 2 t and v = t, is u: what reads v gets nothing."""
    a = keras.Input((6,))
    y = L.Maximum(name="joint")([L.Dense(5, name="large")(a), L.Dense(5, name="small")(a)])
    model = with_weights(keras.Model(a, L.Dense(2, name="head")(y)))
    kernel = np.abs(model.get_layer("large").get_weights()[0])
    model.get_layer("large").set_weights([kernel, np.zeros(5)])
    model.get_layer("small").set_weights([kernel / 2, np.zeros(5)])
    rng = np.random.default_rng(0)
    x = (rng.uniform(0.5, 2, (60, 1)) * rng.uniform(0.5, 2, (1, 6))).astype("float32")
    analyzer = mipin_keras.create_analyzer("mipin", model, ridge=1e-6, classes=0, verbose=0).fit(x)
    analyzer.neuron_selection_mode = "index"
    assert close(analyzer.source_signal(x, 0), x, 1e-4)


def squeezed(gate_kernel):
    """A 1x1 convolution, gated by a sigmoid of its channels' means."""
    a = keras.Input((4, 4, 3))
    z = L.Conv2D(3, 1, name="before")(a)
    g = L.Dense(3, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(z))
    y = L.Conv2D(3, 1, name="behind")(L.Multiply(name="gated")([z, g]))
    model = with_weights(keras.Model(a, L.Dense(2, name="head")(L.Flatten(name="flatten")(y))))
    model.get_layer("gate").set_weights([gate_kernel * np.eye(3), np.array([-1.0, 0.0, 1.0])])
    return model


def test_one_latent_is_recovered_through_gates():
    model, x = squeezed(0.0), on_a_line((4, 4, 3))
    analyzer = mipin_keras.create_analyzer("mipin", model, ridge=1e-6, classes=0, verbose=0, rows=None).fit(x)
    assert [node.name for node in analyzer.network.nodes] == ["head", "flatten", "behind", "gated", "before"]
    analyzer.neuron_selection_mode = "index"
    assert close(analyzer.source_signal(x, 0), x, 1e-3)
    moving = mipin_keras.create_analyzer("mipin", squeezed(1.0), classes=0, verbose=0).fit(x)
    assert all(line["relative"] < 1 for line in moving.fit_report)


def test_a_network_of_merges_against_the_same_by_hand():
    """The residual network's inverse, step by step in NumPy from the fitted weights."""
    model, x = residual(), samples((7, 6, 2), 60)
    analyzer = mipin_keras.create_analyzer("mipin", model, classes=[0, 1, 2], verbose=0).fit(x)
    network = analyzer.network
    names = [node.name for node in network.nodes]
    assert names == ["head", "flatten", "pool", "add", "conv2/relu", "conv2", "relu/merge", "relu", "bn", "conv"]
    tensors = keras.Model(model.inputs, [model.get_layer(n).output for n in ("relu", "conv2", "add", "pool")])(x)
    relu, conv2, _, pool = (np.asarray(t, np.float64) for t in tensors)
    logits = np.asarray(model(x), np.float64)
    weights = {n.name: [np.asarray(w, np.float64) for w in network.weights[1].get(n.index, ())] for n in network.nodes}
    for node in network.nodes:
        if node.name in ("conv2", "conv"):
            weights[node.name + "/inverse"] = node.inverse
    s = logits[:, [1]] @ weights["head"][0] + weights["head"][1]
    s = s.reshape(pool.shape)
    s = np.repeat(np.repeat(s, 2, axis=1), 2, axis=2)
    s = np.pad(s, [(0, 0), (0, 1), (0, 0), (0, 0)])  # 7 rows pooled by 2: the last is in no window
    shortcut = s @ weights["add"][0] + weights["add"][1]
    rest = s - shortcut
    rest = np.where(conv2 != 0, rest, 0)
    back = weights["conv2/inverse"].source(tf.constant(rest), (), [tf.constant(w) for w in weights["conv2"]])
    (first, second), bias = weights["relu/merge"]
    s = np.where(relu != 0, first * shortcut + second * np.asarray(back) + bias, 0)
    s = s * weights["bn"][0] + weights["bn"][1]
    s = weights["conv/inverse"].source(tf.constant(s), (), [tf.constant(w) for w in weights["conv"]])
    analyzer.neuron_selection_mode = "index"
    assert close(analyzer.source_signal(x, 1), s, 1e-4)


def test_full_merges_know_more_than_those_by_channel():
    model, x = residual(), samples((7, 6, 2), 100)
    errors = {}
    for merge in ("channel", "full"):
        report = mipin_keras.create_analyzer("mipin", model, merge=merge, verbose=0, rows=None).fit(x).fit_report
        errors[merge] = np.mean([line["mse"] for line in report if line["type"] == "fan-out"])
    assert errors["full"] < errors["channel"]


def test_a_signal_that_only_makes_a_gate_is_no_way_down():
    a = keras.Input((4, 4, 3))
    z = L.Conv2D(3, 1, name="before")(a)
    g = L.Dense(3, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(z))
    model = keras.Model(a, L.Dense(2)(L.Flatten()(L.Multiply()([z, g]))))
    with pytest.raises(ValueError, match="only makes the gate"):
        mipin_keras.create_analyzer("mipin", model, input_layer="squeeze")


def test_broadcasting_sums_are_refused_by_name():
    with pytest.raises(ValueError, match="tensors of one shape"):
        merged(L.Add(), ((4, 3), (1, 3)))
