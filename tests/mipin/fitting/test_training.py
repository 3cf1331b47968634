"""Convolutions trained as in the paper come to what the closed form finds at once."""

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer
from tests.networks import balanced, cnn, samples, with_weights

X = samples((7, 6, 2), 64)


def error(epochs=None, **options):
    """The error of the convolution's inverse of class 1, and the analyzer."""
    name = "mipin" if epochs is None else "mipin.trained"
    options |= {} if epochs is None else {"epochs": epochs}
    analyzer = create_analyzer(name, cnn(), classes=1, verbose=0, neuron_selection_mode="index", **options)
    analyzer.fit(X, batch_size=8)
    assert analyzer.fit_report[-1]["layer"] == "conv"
    return analyzer.fit_report[-1]["mse"], analyzer


def test_training_lowers_the_error_towards_the_closed_form():
    best, _ = error(rows=None, ridge=0.0)
    errors = [error(epochs)[0] for epochs in (1, 5, 30)]
    assert errors[0] > errors[1] > errors[2] > best
    assert errors[2] - best < 0.6 * (errors[0] - best)


@pytest.mark.medium
def test_long_training_arrives_at_the_closed_form():
    best, closed = error(rows=None, ridge=0.0)
    mse, trained = error(240)
    assert best * (1 - 1e-6) < mse < 1.01 * best
    found, wanted = trained.source_signal(X, 1), closed.source_signal(X, 1)
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


def test_the_reported_error_is_that_of_the_weights_that_are_kept():
    mse, analyzer = error(3)
    assert mse == pytest.approx(np.square(X - analyzer.source_signal(X, 1)).mean(), rel=1e-4)
    line = analyzer.fit_report[-1]
    assert (line["samples"], line["rows"]) == (64, 64 * 42)
    assert line["variance"] == pytest.approx(X.reshape(-1, 2).var(axis=0).mean(), rel=1e-4)


def test_only_convolutions_are_trained():
    _, closed = error(rows=None)
    _, trained = error(2)
    for line, other in zip(closed.fit_report[:-1], trained.fit_report[:-1], strict=True):
        assert line == other
    kernels = [analyzer.network.weights[1][0][0].numpy() for analyzer in (closed, trained)]
    assert kernels[0].shape == kernels[1].shape and not np.allclose(*kernels, rtol=0.01)


def test_seeds_and_epochs():
    weights = [error(2, seed=seed)[1].network.weights[1][0][0].numpy() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])


def test_classes_are_trained_each_on_its_own_samples():
    analyzer = create_analyzer(
        "mipin.trained", cnn(), samples="class", epochs=2, verbose=0, neuron_selection_mode="index"
    )
    analyzer.fit(X)
    top = cnn().predict(X, verbose=0).argmax(axis=1)
    assert [line["samples"] for line in analyzer.fit_report[-3:]] == np.bincount(top, minlength=3).tolist()
    alone = create_analyzer(
        "mipin.trained", cnn(), samples="class", epochs=2, classes=2, verbose=0, neuron_selection_mode="index"
    ).fit(X)
    np.testing.assert_allclose(alone.analyze(X, 2), analyzer.analyze(X, 2), rtol=1e-5, atol=1e-6)


def test_two_convolutions_one_above_the_other():
    layers = [keras.layers.Conv1D(3, 3, strides=2, padding="same", activation="relu"),
              keras.layers.Conv1D(2, 2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(2)]  # fmt: skip
    model = balanced(with_weights(keras.Sequential([keras.Input((9, 2)), *layers])))
    x = samples((9, 2), 64)
    analyzer = create_analyzer("mipin.trained", model, epochs=3, verbose=0).fit(x)
    assert [line["type"] for line in analyzer.fit_report] == ["Dense"] * 2 + ["Conv1D"] * 4
    assert np.isfinite(analyzer.analyze(x)).all() and analyzer.analyze(x).any()


def test_a_convolution_with_nothing_learned_above_it():
    layers = [keras.layers.Conv1D(3, 3, activation="relu"), keras.layers.GlobalAveragePooling1D()]
    model = with_weights(keras.Sequential([keras.Input((9, 2)), *layers]))
    x = samples((9, 2), 64)
    analyzer = create_analyzer("mipin.trained", model, epochs=2, verbose=0).fit(x)
    assert [line["type"] for line in analyzer.fit_report] == ["Conv1D"] * 3
    assert np.isfinite(analyzer.analyze(x)).all() and analyzer.analyze(x).any()
