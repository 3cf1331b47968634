"""The smallest complete use: ``python -m examples.explain_a_model --out DIR``.

A small network on scikit-learn's handwritten digits (8x8), fitted, explained,
drawn, saved and loaded again.
"""

import argparse
import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits

import mipin_keras
from mipin_keras.metrics import completeness
from mipin_keras.plotting import plot


def main(out: pathlib.Path, epochs: int = 15, samples: int = 1500, verbose: int = 1) -> np.ndarray:
    """Explain six test digits; returns their attributions ``(6, 8, 8, 1)``."""
    # Your model and your data would stand here.
    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype("float32")
    x_train, y_train, x_test = x[:samples], digits.target[:samples], x[1500:]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=epochs, verbose=0)

    # Learn the inverse of the network once ...
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=verbose)
    analyzer.fit(x_train, batch_size=128)
    # ... and explain as many samples as you like.
    chosen = x_test[:6]
    attribution = analyzer.analyze(chosen)  # what speaks for the class (positive) and against it (negative)
    signal = analyzer.source_signal(chosen)  # what of the input the logit still knows
    print(completeness(analyzer, x_test))

    rows = {"MIP-IN": attribution, "source signal": signal}
    titles = [f"taken for {guess}" for guess in analyzer.logits(chosen).argmax(axis=1)]
    path = plot.save(
        plot.grid(rows, images=chosen, titles=titles, pictures={"source signal"}), out / "explain_a_model.png"
    )
    print(f"drew {path}")

    # Why not a 3? Any output neuron can be explained.
    three = mipin_keras.create_analyzer("mipin", model, classes=3, neuron_selection_mode="index", verbose=0)
    three.fit(x_train, batch_size=128).analyze(chosen, 3)

    # Keep the fit: arrays and JSON in one file, for this model with these weights.
    again = mipin_keras.load_analyzer(analyzer.save(out / "fit.npz"), model)
    np.testing.assert_allclose(again.analyze(chosen), attribution, rtol=1e-5, atol=1e-7)
    return attribution


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.explain_a_model", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo_output"), help="folder of the results")
    main(parser.parse_args().out)
