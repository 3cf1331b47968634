"""MIP-IN on handwritten digits, from training to picture: ``python -m examples.demo --out demo_output``.

Trains the MLP of the paper's Table 3 on the digits that come with
scikit-learn, explains a digit of each class with MIP-IN and with the methods
it is compared with, and writes two pictures. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mipin_keras
from mipin_keras.metrics import Completeness, completeness
from mipin_keras.plotting import plot
from reproduce_paper.models import mlp_m

SEED = 0
#: What is fitted: a name for the rows, and the options of "mipin".
VARIANTS = {
    "MIP-IN global": {"samples": "all", "forward_relu": False},
    "MIP-IN local": {"samples": "all"},
    "MIP-IN local, class": {"samples": "class"},
}
#: The methods of the second picture.
METHODS = (
    "gradient", "smoothgrad", "integrated_gradients", "deconvnet", "guided_backprop", "lrp.epsilon", "deep_taylor",
    "pattern.attribution",
)  # fmt: skip


class Digits(NamedTuple):
    """Images ``(n, 28, 28)`` float32 from 0 to 1, and their digits ``(n,)``."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits(size: int = 28) -> Digits:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, resized; a fifth of each digit's are for testing."""
    bunch = load_digits()
    small = (bunch.images / 16.0).astype("float32")[..., None]
    large = keras.ops.image.resize(small, (size, size), interpolation="bilinear", data_format="channels_last")
    x = np.clip(keras.ops.convert_to_numpy(large)[..., 0], 0.0, 1.0)
    x_train, x_test, y_train, y_test = train_test_split(
        x, bunch.target, test_size=0.2, stratify=bunch.target, random_state=SEED
    )
    return Digits(x_train, y_train, x_test, y_test)


def one_of_each(model: keras.Model, data: Digits) -> tuple[np.ndarray, list[str]]:
    """The first test image of each digit that the model gets right (or just the first), and titles."""
    guesses = model.predict(data.x_test, verbose=0).argmax(axis=1)
    chosen, titles = [], []
    for digit in np.unique(data.y_test):
        of_digit = np.flatnonzero(data.y_test == digit)
        right = of_digit[guesses[of_digit] == digit]
        index = (right if len(right) else of_digit)[0]
        chosen.append(index)
        titles.append(str(digit) if guesses[index] == digit else f"{digit}, taken for {guesses[index]}")
    return data.x_test[chosen], titles


def picture(
    model: keras.Model, analyzers: dict[str, mipin_keras.Analyzer], x: np.ndarray, titles: list[str], path: pathlib.Path
) -> pathlib.Path:
    """Draw input, gradient, both attributions and the source signal of the samples ``x``."""
    local = analyzers["MIP-IN local"]
    signals = local.source_signal(x)
    logits, kept = local.logits(x), local.logits(signals)
    largest = logits.argmax(axis=1)
    rows = {
        "gradient": mipin_keras.create_analyzer("gradient", model).analyze(x),
        "MIP-IN global": analyzers["MIP-IN global"].analyze(x),
        "MIP-IN local": local.analyze(x),
        "source signal": np.clip(signals, 0.0, 1.0),  # black and white mean the same as in the inputs
    }
    captions = {
        "input": [f"logit {row[c]:.1f}" for row, c in zip(logits, largest, strict=True)],
        "source signal": [f"logit {row[c]:.1f}" for row, c in zip(kept, largest, strict=True)],
    }
    figure = plot.grid(rows, images=x, titles=titles, captions=captions, pictures={"source signal"})
    return plot.save(figure, path)


def compare(
    model: keras.Model, local: mipin_keras.Analyzer, x_fit: np.ndarray, x: np.ndarray, titles: list[str],
    path: pathlib.Path,
) -> pathlib.Path:  # fmt: skip
    """Draw the samples ``x`` as the other methods explain them, and as MIP-IN does."""
    rows = {}
    for name in METHODS:
        options = {"verbose": 0} if "verbose" in mipin_keras.options_of(name) else {}
        rows[name] = mipin_keras.create_analyzer(name, model, **options).fit(x_fit).analyze(x)
    return plot.save(plot.grid(rows | {"MIP-IN local": local.analyze(x)}, images=x, titles=titles), path)


def table(results: dict[str, Completeness]) -> str:
    """APC and positive APC, a line a variant."""
    lines = [f"{'':22}{'samples':>9}{'APC':>9}{'positive APC':>15}"]
    for name, found in results.items():
        samples = VARIANTS[name]["samples"]
        lines.append(f"{name:22}{samples:>9}{found.apc:>7.1f} %{found.positive_apc:>13.1f} %")
    return "\n".join(lines)


def run(
    out: pathlib.Path, *, epochs: int = 20, samples: int | None = None, verbose: int = 1
) -> dict[str, Completeness]:
    """Train, fit, draw and measure.

    Args:
        out: Folder of the picture, made if it is not there.
        epochs: Of the model's training.
        samples: Train and fit on the first so many images only.
        verbose: As the analyzers take it.

    Returns:
        The completeness on the test images of each variant.
    """
    start = time.perf_counter()
    data = digits()
    data = data._replace(x_train=data.x_train[:samples], y_train=data.y_train[:samples])
    print(f"training an MLP (28x28, 512, 512, 10) on {len(data.x_train)} digits, {epochs} epochs", flush=True)
    keras.utils.set_random_seed(SEED)
    model = mlp_m()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, batch_size=32, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(data.x_test, data.y_test, verbose=0)
    print(f"accuracy on {len(data.x_test)} test images: {accuracy:.1%}", flush=True)

    analyzers, results = {}, {}
    for name, options in VARIANTS.items():
        print(f"fitting {name}", flush=True)
        analyzer = mipin_keras.create_analyzer("mipin", model, verbose=verbose, **options)
        analyzers[name] = analyzer.fit(data.x_train, batch_size=256)
        results[name] = completeness(analyzer, data.x_test)
    x, titles = one_of_each(model, data)
    path = picture(model, analyzers, x, titles, out / "demo.png")
    others = compare(model, analyzers["MIP-IN local"], data.x_train, x, titles, out / "methods.png")
    print(f"\nHow much of the logit the source signal keeps, on {len(data.x_test)} test images (0 % is all of it):\n")
    print(table(results))
    seconds = time.perf_counter() - start
    print(f"\nThe pictures are {path} and, with the other methods, {others} (all took {seconds:.0f} s).")
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo_output"), help="folder of the picture")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="how much a fit says (default: 1)")
    args = parser.parse_args(argv)
    run(args.out, verbose=args.verbose)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
