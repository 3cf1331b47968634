"""MIP-IN end to end on real images: a trained network, its source signals and attributions."""

import os
import pathlib

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras.metrics import average_percentage_change, completeness

L = keras.layers


def trained(x, y, units, epochs):
    keras.utils.set_random_seed(0)
    layers = [L.Flatten(), L.Dense(units, "relu"), L.Dense(units, "relu"), L.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def accuracy(model, x, y):
    return (model.predict(x, verbose=0).argmax(axis=1) == y).mean()


@pytest.fixture(scope="module")
def network(digits):
    """A network trained on scikit-learn's digits, and images that it has not seen."""
    x, y = digits
    model = trained(x[:1300], y[:1300], units=48, epochs=20)
    assert accuracy(model, x[1300:], y[1300:]) > 0.85
    return model, x[:1300], x[1300:]


# Measured with three seeds: 6.1 to 7.8 % (all), 4.7 to 7.5 % (class); positive 0.5 to 0.9 % and 3.5 to 5.7 %.
@pytest.mark.parametrize(("samples", "apc", "positive"), [("all", 12.0, 2.5), ("class", 12.0, 9.0)])
def test_source_signals_of_digits_keep_the_logit(network, samples, apc, positive):
    model, x_train, x_test = network
    analyzer = mipin_keras.create_analyzer("mipin", model, samples=samples, verbose=0).fit(x_train)
    found = completeness(analyzer, x_test)
    assert 0 < found.apc < apc and 0 < found.positive_apc < positive
    assert (found.samples, found.undefined, len(found.per_class)) == (len(x_test), 0, 10)

    # a source signal of another image does not: the measure can tell
    logits = analyzer.logits(x_test)
    top = logits.argmax(axis=1)
    rows, signal = np.arange(len(top)), analyzer.source_signal(x_test)
    swapped = analyzer.logits(np.roll(signal, 100, axis=0))[rows, top]
    assert average_percentage_change(logits[rows, top], swapped, top).apc > 50

    # what it reconstructs is the image, and ink counts for more than paper
    assert np.abs(x_test - signal).mean() < 0.7 * np.abs(x_test - np.roll(signal, 100, axis=0)).mean()
    attribution = analyzer.analyze(x_test)
    assert attribution[x_test > 0.5].mean() > 2 * np.abs(attribution[x_test <= 0.5].mean())
    assert all(0 < line["relative"] < 1 for line in analyzer.fit_report)


def test_the_masks_adapt_the_explanation_to_the_image(network):
    model, x_train, x_test = network
    found = {}
    for forward_relu in (True, False):
        options = {"verbose": 0, "neuron_selection_mode": "index", "classes": 3, "forward_relu": forward_relu}
        found[forward_relu] = mipin_keras.create_analyzer("mipin", model, **options).fit(x_train).analyze(x_test, 3)
    # without them every image of a class has one attribution, up to its logit (Figure 3 of the paper)
    unit = {key: maps / np.linalg.norm(maps, axis=1, keepdims=True) for key, maps in found.items()}
    alike = {key: np.abs(maps @ maps.T).min() for key, maps in unit.items()}
    assert alike[False] > 0.999 > 0.9 > alike[True]


def mnist():
    """The path of mnist.npz in MIPIN_DATA_DIR or beside the repository, or None."""
    folders = [os.environ.get("MIPIN_DATA_DIR"), pathlib.Path(__file__).parents[2] / "shared" / "data"]
    paths = [pathlib.Path(folder) / "mnist.npz" for folder in folders if folder]
    return next((path for path in paths if path.is_file()), None)


@pytest.mark.medium
@pytest.mark.skipif(mnist() is None, reason="no mnist.npz in MIPIN_DATA_DIR")
def test_source_signals_of_mnist_keep_the_logit():
    with np.load(mnist()) as file:
        x, y = (file["x_train"][:5000] / 255).astype("float32"), file["y_train"][:5000]
        x_test = (file["x_test"][:500] / 255).astype("float32")
    model = trained(x, y, units=96, epochs=5)
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0).fit(x[:2000], batch_size=250)
    found = completeness(analyzer, x_test)
    assert 0 < found.apc < 20 and 0 < found.positive_apc < 5  # measured: 11.1 to 13.2 %, 1.6 to 1.8 %
    attribution = analyzer.analyze(x_test)
    never = (x[:2000] == 0).all(axis=0)  # pixels of the border, where no image that was fitted has ink
    assert never.sum() > 50 and np.abs(attribution[:, never]).max() < 1e-5 * np.abs(attribution).max()
    assert attribution[x_test > 0.5].mean() > 5 * np.abs(attribution[x_test == 0].mean())
