"""MIP-IN of models with several inputs; and which samples fit a class behind sigmoids."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer
from mipin_keras.mipin.fitting import finetune
from tests.networks import close, mlp, samples, with_weights
from tests.reference import ridge

L = keras.layers


def dense_pair():
    """Two inputs, each with a hidden layer, and a head on both."""
    a, b = keras.Input((5,), name="left"), keras.Input((4,), name="right")
    hidden = [L.Dense(6, activation="relu", name="of_left")(a), L.Dense(3, activation="relu", name="of_right")(b)]
    return with_weights(keras.Model([a, b], L.Dense(3, name="head")(L.Concatenate(name="joint")(hidden))))


def image_and_record():
    scan, record = keras.Input((6, 5, 1), name="scan"), keras.Input((4,), name="record")
    y = L.Flatten()(L.MaxPooling2D()(L.Conv2D(3, 3, activation="relu", name="conv")(scan)))
    z = L.Dense(5, activation="relu", name="dense")(record)
    return with_weights(keras.Model([scan, record], L.Dense(3, name="head")(L.Concatenate(name="joint")([y, z]))))


A, B = samples((5,), 80, seed=1), samples((4,), 80, seed=2)
SCAN = samples((6, 5, 1), 80, seed=3)
PAIRS = {"dense": (dense_pair, [A, B]), "image": (image_and_record, [SCAN, B])}


def mipin(model, **options):
    return create_analyzer("mipin", model, **({"verbose": 0, "neuron_selection_mode": "index"} | options))


def test_it_is_the_algorithm_down_to_each_input():
    """By NumPy in float64: one ridge from the logit to the joint features, then one to each input from its own."""
    model, c = dense_pair(), 1
    weights = {layer.name: [w.astype(float) for w in layer.get_weights()] for layer in model.layers if layer.weights}
    hidden = [np.maximum(x @ k + b, 0) for x, (k, b) in ((A, weights["of_left"]), (B, weights["of_right"]))]
    joint = np.concatenate(hidden, axis=1)
    k, b = weights["head"]
    logit = (joint @ k + b)[:, [c]]
    kernel, bias = ridge(logit, joint, 1e-3)
    source, linear = (logit @ kernel + bias) * (joint != 0), logit @ kernel * (joint != 0)
    analyzer = mipin(model, classes=[c]).fit([A, B])
    maps, signals = analyzer.analyze([A, B], c), analyzer.source_signal([A, B], c)
    for i, (x, own) in enumerate(((A, slice(0, 6)), (B, slice(6, 9)))):
        kernel, bias = ridge(source[:, own], x, 1e-3)
        assert close(signals[i], source[:, own] @ kernel + bias, 1e-3)
        assert close(maps[i], linear[:, own] @ kernel, 1e-3)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_inverse_model_gives_the_source_signals(kind, tmp_path):
    make, x = PAIRS[kind]
    analyzer = mipin(make()).fit(x)
    inverse = analyzer.inverse_model(2)
    found, wanted = inverse(x), analyzer.source_signal(x, 2)
    assert len(found) == len(wanted) == 2 and [signal.shape for signal in wanted] == [array.shape for array in x]
    for one, other in zip(found, wanted, strict=True):
        assert close(one, other, 1e-5)
    inverse.save(tmp_path / "inverse.keras")
    for one, other in zip(keras.models.load_model(tmp_path / "inverse.keras")(x), wanted, strict=True):
        assert close(one, other, 1e-5)
    at_layers = analyzer.inverse_model(2, outputs="all")(x)
    assert {"left", "right", "of_left"} <= at_layers.keys() if kind == "dense" else {"scan", "conv"} <= at_layers.keys()
    for name, explained in analyzer.analyze_layers(x, 2).items():
        assert close(at_layers[name], explained.source_signal, 1e-5)


@pytest.mark.parametrize("kind", ["dense", pytest.param("image", marks=pytest.mark.medium)])
def test_fine_tuning_lowers_the_error_at_both_inputs_together(kind, monkeypatch):
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e-4)  # few samples, near the best already
    make, x = PAIRS[kind]
    model = make()
    closed, tuned = (mipin(model, classes=[1], finetune_epochs=n).fit(x, batch_size=16) for n in (0, 10))
    squares = []
    for analyzer in (closed, tuned):
        signals = analyzer.source_signal(x, 1)
        squares.append([np.square(array - signal) for array, signal in zip(x, signals, strict=True)])
    means = [np.concatenate([part.reshape(-1) for part in both]).mean() for both in squares]
    line = tuned.fit_report[-1]
    assert line["end_mse"] < line["end_mse_before"]
    # Its report may weigh the inputs alike or their elements; both are lower.
    assert means[1] < means[0]


def test_samples_come_in_any_structure():
    model = dense_pair()
    first = mipin(model).fit([A, B])
    named = {"right": B, "left": A}
    data = tf.data.Dataset.from_tensor_slices(((A, B), np.zeros(80))).batch(32)
    for given in (named, data, (A, B), lambda: iter([({"left": A, "right": B}, np.zeros(80))])):
        other = mipin(model).fit(given)
        for found, wanted in zip(other.analyze([A, B], 0), first.analyze([A, B], 0), strict=True):
            assert close(found, wanted, 1e-3)
    by_name = first.analyze(named, 0)
    assert sorted(by_name) == ["left", "right"]
    np.testing.assert_array_equal(by_name["right"], first.analyze([A, B], 0)[1])


def test_an_input_without_part_gets_zeros():
    a, b = keras.Input((5,), name="left"), keras.Input((4,), name="right")
    outputs = [L.Dense(2, name="one")(L.Dense(4, activation="relu")(a)), L.Dense(2, name="two")(b)]
    analyzer = mipin(with_weights(keras.Model([a, b], outputs)), output="one").fit([A, B])
    left, right = analyzer.analyze([A, B], 1)
    assert left.any() and right.shape == B.shape and not right.any()


def test_a_fit_of_two_inputs_is_saved(tmp_path):
    model = dense_pair()
    analyzer = mipin(model).fit([A, B])
    again = load_analyzer(analyzer.save(tmp_path / "fit.npz"), model)
    for found, wanted in zip(again.analyze([A, B], 2), analyzer.analyze([A, B], 2), strict=True):
        np.testing.assert_array_equal(found, wanted)


# Which samples fit a class


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("head", ["sigmoid", keras.ops.sigmoid, "layer"], ids=["name", "function", "layer"])
@pytest.mark.few(2)
def test_behind_a_sigmoid_an_output_has_the_samples_with_a_positive_logit(units, head):
    model, x = mlp(units=units, head=None if head == "layer" else head), samples((12,), 120)
    if head == "layer":
        model = keras.Sequential([keras.Input((12,)), *model.layers, L.Activation("sigmoid")])
    logits = create_analyzer("gradient", model).logits(x)
    taken = logits > 0
    assert (taken.sum(axis=0) > 10).all() and (taken.sum(axis=0) < 110).all()
    if units > 1:  # a sample counts for several outputs, or for none
        assert (taken.sum(axis=1) > 1).any() and (taken.sum(axis=1) == 0).any()
    analyzer = mipin(model, samples="class").fit(x)
    counts = {(line["class"], line["samples"]) for line in analyzer.fit_report}
    assert counts == set(enumerate(taken.sum(axis=0).tolist()))
    for c in range(units):
        own = mipin(model, classes=[c]).fit(x[taken[:, c]])
        assert close(analyzer.analyze(x[:9], c), own.analyze(x[:9], c), 1e-4)
        assert close(analyzer.source_signal(x[:9], c), own.source_signal(x[:9], c), 1e-4)


@pytest.mark.parametrize("head", ["softmax", None])
def test_behind_a_softmax_or_nothing_the_largest_logit_tells(head):
    model, x = mlp(head=head), samples((12,), 120)
    top = create_analyzer("gradient", model).logits(x).argmax(axis=1)
    analyzer = mipin(model, samples="class").fit(x)
    counts = {(line["class"], line["samples"]) for line in analyzer.fit_report}
    assert counts == set(enumerate(np.bincount(top, minlength=4).tolist()))


def test_an_output_that_no_sample_is_taken_for_is_refused():
    model, x = mlp(units=1, head="sigmoid"), samples((12,), 60)
    logits = create_analyzer("gradient", model).logits(x)[:, 0]
    with pytest.raises(ValueError, match="received none among"):
        mipin(model, samples="class").fit(x[logits < 0])


@pytest.mark.medium
def test_fine_tuning_takes_the_same_samples(monkeypatch):
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e-4)
    model, x = mlp(units=1, head="sigmoid"), samples((12,), 100)
    own = x[create_analyzer("gradient", model).logits(x)[:, 0] > 0]
    # Batches of the class' own samples are filled in the data's order: here one holds them all.
    found = mipin(model, samples="class", finetune_epochs=4).fit(x, batch_size=100)
    wanted = mipin(model, finetune_epochs=4).fit(own, batch_size=100)
    assert close(found.analyze(x, 0), wanted.analyze(x, 0), 1e-3)
    assert found.fit_report[0]["end_mse"] == pytest.approx(wanted.fit_report[0]["end_mse"], rel=1e-3)
