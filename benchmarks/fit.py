"""Fitting MIP-IN: the closed form against the paper's training, what memory a fit takes, and the time of large fits."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import mipin_keras
from mipin_keras.metrics import completeness
from reproduce_paper import arguments, data, models, report

from . import fit_sides
from .processes import MIB, in_own_process, peak_memory

MEMORY_SAMPLES = (5000, 50000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    arguments.add_data(parser)
    parser.add_argument("--samples", type=int, default=5000, help="images to fit from")
    parser.add_argument("--epochs", type=int, default=20, help="of the training it is compared with")
    parser.add_argument("--batch", type=int, default=32, help="samples a batch, for both")
    parser.add_argument("--unit", type=int, default=0, help="the class to fit")
    parser.add_argument("--memory", action="store_true", help="peak memory on 5,000 and on 50,000 samples instead")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    fit_sides.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the benchmark that the arguments ask for."""
    if args.memory_of is not None:
        print(json.dumps(_fit(args.memory_of, args.seed)))
    elif args.case_of is not None:
        fit_sides.measure(args)
    elif args.cases is not None:
        fit_sides.compare(args)
    elif args.memory:
        _memory(args)
    else:
        _solvers(args)


def _solvers(args: argparse.Namespace) -> None:
    """Both solvers on the CNN of Table 4: time, error a layer on all fit samples, APC."""
    images = data.load("mnist", args.data_dir)
    model, about = models.trained("CNN-M", images, arguments.cache_dir(args), seed=args.seed)
    x = models.shape_for(model, images.x_train[: args.samples])
    test = models.shape_for(model, images.x_test)
    test = test[model.predict(test, verbose=0).argmax(axis=1) == args.unit]
    found = {}
    for name, options in (("mipin", {}), ("mipin.trained", {"epochs": args.epochs})):
        analyzer = mipin_keras.create_analyzer(name, model, classes=[args.unit], seed=args.seed, verbose=0, **options)
        start = time.perf_counter()
        analyzer.fit(x, batch_size=args.batch)
        seconds = time.perf_counter() - start
        errors = {e["layer"]: e for e in analyzer.reconstruction_errors(x, batch_size=256)}
        found[name] = (seconds, errors, completeness(analyzer, test))
    closed, trained = found["mipin"], found["mipin.trained"]
    rows = [["fit, seconds", f"{closed[0]:.1f}", f"{trained[0]:.1f}", f"{trained[0] / closed[0]:.1f}"]]
    for layer in closed[1]:
        a, b = closed[1][layer]["mse"], trained[1][layer]["mse"]
        rows.append([f"mean squared error, {layer}", f"{a:.5f}", f"{b:.5f}", f"{b / a:.3f}"])
    for name in ("apc", "positive_apc"):
        a, b = getattr(closed[2], name), getattr(trained[2], name)
        rows.append([f"{name} on {len(test)} test images, %", f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}"])
    print(f"CNN of Table 4 (accuracy {about['accuracy']:.4f}), class {args.unit}, {len(x)} images, batch {args.batch}")
    print(report.table(["", "closed form", f"{args.epochs} epochs of Adam", "trained / closed"], rows))


def _stream(samples: int, seed: int, batch: int = 256) -> Iterator[np.ndarray]:
    """Images made on the way: nothing but the batch is in memory."""
    for i in range(0, samples, batch):
        rng = np.random.default_rng([seed, i])
        yield rng.random((min(batch, samples - i), 28, 28, 1), np.float32)


def _fit(samples: int, seed: int) -> dict[str, Any]:
    """Fit from so many samples; the peak memory in bytes before and after."""
    keras.utils.set_random_seed(seed)
    analyzer = mipin_keras.create_analyzer("mipin", models.cnn_m(), classes=[0, 1], seed=seed, verbose=0)
    before = peak_memory()
    analyzer.fit(lambda: _stream(samples, seed))
    return {"samples": samples, "before": before, "peak": peak_memory()}


def _memory(args: argparse.Namespace) -> None:
    """Peak resident memory of fits on few and on many samples, each in a process of its own."""
    peaks = [in_own_process("fit", memory_of=samples, seed=args.seed) for samples in MEMORY_SAMPLES]
    rows = [
        [
            f"{p['samples']:,}",
            f"{p['before'] / MIB:.0f}",
            f"{p['peak'] / MIB:.0f}",
            f"{p['peak'] / peaks[0]['peak']:.3f}",
        ]
        for p in peaks
    ]
    print("CNN of Table 4, random weights, 2 classes from all samples, images made batch by batch")
    print(report.table(["samples", "MiB before fit", "peak MiB", "peak, ratio"], rows))
