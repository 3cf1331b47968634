"""MIP-IN on VGG19 and ResNet50: what a fit to the pixels takes, and analyze in multiples of one ``model.predict``."""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import mipin_keras
from reproduce_paper import report

from .analyze import LARGE
from .processes import GIB, MIB, in_own_process, peak_memory
from .timing import interleaved, ratio

METHODS = ["mipin", "gradient", "guided_backprop", "lrp.epsilon", "deep_taylor"]
CLASSIFIER_MAPS = [2000, 20000]
# What VGG19's classifier reads, and its layers (keras.applications).
BLOCK5_POOL, CLASSIFIER = (7, 7, 512), (4096, 4096, 1000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--model", choices=sorted(LARGE), default="ResNet50")
    parser.add_argument("--side", type=int, default=224, help="pixels a side of an image")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--unit", type=int, default=0, help="the class to fit and to explain")
    parser.add_argument("--samples", type=int, default=16, help="images to fit from")
    parser.add_argument("--fit-batch", type=int, default=4, help="images a batch of the fit")
    parser.add_argument("--rows", type=int, default=1 << 14, help="rows of the closed form")
    parser.add_argument("--batch", type=int, default=4, help="images a batch of predict and analyze")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peer", action="store_true", help="without the real iNNvestigate beside it")
    parser.add_argument("--classifier", type=int, nargs="*", metavar="MAPS", help="instead: time and peak memory of a "
                        "fit of VGG19's classifier, logit to block5_pool, from so many feature maps (default: "
                        f"{' and '.join(map(str, CLASSIFIER_MAPS))})")  # fmt: skip
    parser.add_argument("--units", type=int, nargs=3, default=CLASSIFIER, help="of the classifier's layers")
    parser.add_argument("--maps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fit-to", type=pathlib.Path, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Fit in a process of its own, whose peak memory is the fit's, and analyze from the file that it leaves."""
    if args.maps is not None:
        print(json.dumps(_classifier_fit(args)))
    elif args.fit_to is not None:
        print(json.dumps(_fit(args)))
    elif args.classifier is not None:
        _classifier(args)
    else:
        _end_to_end(args)


# The whole network


def _end_to_end(args: argparse.Namespace) -> None:
    model, x = _network(args), _images(args, args.batch)
    about = f"{args.model} at {args.side} pixels, random weights and images, class {args.unit}"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "mipin.npz"
        if "mipin" in args.methods:
            names = ("model", "side", "unit", "samples", "fit_batch", "rows", "seed")
            found = in_own_process("large", fit_to=path, **{name: getattr(args, name) for name in names})
            print(f"{about}: MIP-IN down to the pixels from {args.samples} images, {args.rows:,} rows")
            print(report.table(*_fits([found], [args.samples], "images")) + "\n", flush=True)
        rows = [_calls(name, model, x, path, args) for name in args.methods if _defined(name, model)]
    print(f"{about}: analyze on a batch of {args.batch}, in multiples of model.predict on it in the same rounds")
    header = [
        "method", "made in, s", "first call, s", "in predicts", "ms", "predict, ms", "in predicts", "range",
        "iNNvestigate, ms", "ours / its", "range", "its first call, s", "ours / its",
    ]  # fmt: skip
    print(report.table(header, rows))


def _network(args: argparse.Namespace) -> keras.Model:
    keras.utils.set_random_seed(args.seed)
    return getattr(keras.applications, args.model)(weights=None, input_shape=(args.side, args.side, 3))


def _images(args: argparse.Namespace, count: int) -> np.ndarray:
    return np.random.default_rng(args.seed).random((count, args.side, args.side, 3), np.float32)


def _fit(args: argparse.Namespace) -> dict[str, float]:
    before = peak_memory()
    model = _network(args)
    analyzer = mipin_keras.create_analyzer(
        "mipin", model, neuron_selection_mode="index", classes=[args.unit], rows=args.rows, seed=args.seed, verbose=0
    )
    found = _measured(analyzer, _images(args, args.samples), args.fit_batch, before)
    analyzer.save(args.fit_to)
    return found


def _defined(name: str, model: keras.Model) -> bool:
    """Whether ``name`` is a method for ``model``, which its making says."""
    try:
        mipin_keras.create_analyzer(name, model)
    except ValueError as problem:
        print(f"{name}: {problem}\n", flush=True)
        return False
    return True


def _calls(name: str, model: keras.Model, x: np.ndarray, path: pathlib.Path, args: argparse.Namespace) -> list[str]:
    """One row of the table: the first call of a fresh analyzer, tracing included, and the steady state."""
    start = time.perf_counter()
    if name == "mipin":
        ours = mipin_keras.load_analyzer(path, model)
    else:
        ours = mipin_keras.create_analyzer(name, model, neuron_selection_mode="index")
    made = time.perf_counter() - start
    first, analyze = _first(lambda: ours.analyze(x, args.unit))
    calls = {"predict": lambda: model.predict(x, batch_size=len(x), verbose=0), "ours": analyze}
    peer_first, known = 0.0, f"innvestigate:{name}" in mipin_keras.analyzers() and not args.no_peer
    if known:
        peer = mipin_keras.create_analyzer(f"innvestigate:{name}", model, neuron_selection_mode="index")
        peer_first, calls["peer"] = _first(lambda: peer._analyze(x, args.unit))
    seconds = interleaved(calls, args.rounds, warmup=1)
    predict = statistics.median(seconds["predict"])
    middle, least, most = ratio(seconds["ours"], seconds["predict"])
    steady = statistics.median(seconds["ours"])
    row = [
        name, f"{made:.2f}", f"{first:.2f}", f"{first / predict:.1f}", f"{1e3 * steady:.0f}", f"{1e3 * predict:.0f}",
        f"{middle:.2f}", f"{least:.2f} to {most:.2f}",
    ]  # fmt: skip
    if not known:
        return [*row, "", "", "", "", ""]
    middle, least, most = ratio(seconds["ours"], seconds["peer"])
    beside = [f"{1e3 * statistics.median(seconds['peer']):.0f}", f"{middle:.2f}", f"{least:.2f} to {most:.2f}"]
    return [*row, *beside, f"{peer_first:.2f}", f"{first / peer_first:.2f}"]


def _first(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, call


# VGG19's classifier


def _classifier(args: argparse.Namespace) -> None:
    counts = args.classifier or CLASSIFIER_MAPS
    options = {"unit": args.unit, "units": args.units, "seed": args.seed}
    found = [in_own_process("large", maps=count, **options) for count in counts]
    print(f"VGG19's classifier {args.units}, random weights, logit of class {args.unit} to block5_pool {BLOCK5_POOL}")
    print(report.table(*_fits(found, counts, "feature maps")))


def _classifier_fit(args: argparse.Namespace) -> dict[str, float]:
    before = peak_memory()
    keras.utils.set_random_seed(args.seed)
    layers = [keras.layers.Dense(units, activation="relu") for units in args.units[:-1]]
    layers.append(keras.layers.Dense(args.units[-1], activation="softmax"))
    model = keras.Sequential([keras.Input(BLOCK5_POOL), keras.layers.Flatten(), *layers])
    analyzer = mipin_keras.create_analyzer("mipin", model, classes=[args.unit], mask_input=True, verbose=0)
    return _measured(analyzer, lambda: _feature_maps(args.maps, args.seed), None, before)


def _feature_maps(count: int, seed: int, batch: int = 32) -> Iterator[np.ndarray]:
    """Made on the way, not negative and mostly 0 as behind a ReLU: nothing but the batch is in memory."""
    for i in range(0, count, batch):
        rng = np.random.default_rng([seed, i])
        found = rng.standard_normal((min(batch, count - i), *BLOCK5_POOL), np.float32)
        yield np.maximum(found - 0.5, 0, out=found)


# Both


def _measured(analyzer: Any, x: Any, batch: int | None, before: float) -> dict[str, float]:
    """Fit; the seconds it takes, and in bytes the peak memory, the peak ``before`` there was a model, the weights."""
    start = time.perf_counter()
    analyzer.fit(x) if batch is None else analyzer.fit(x, batch_size=batch)
    seconds = time.perf_counter() - start
    weights = sum(int(np.prod(weight.shape)) * 4 for weight in analyzer.model.weights)
    return {"seconds": seconds, "before": before, "peak": peak_memory(), "weights": weights}


def _fits(found: list[dict[str, float]], counts: list[int], what: str) -> tuple[list[str], list[list[str]]]:
    header = [
        what, "fit, s", "MiB before the model", "its weights, MiB", "peak MiB", "peak above both, GiB", "peak, ratio",
    ]  # fmt: skip
    rows = []
    for count, one in zip(counts, found, strict=True):
        above = (one["peak"] - one["before"] - one["weights"]) / GIB
        sizes = [f"{one[key] / MIB:.0f}" for key in ("before", "weights", "peak")]
        rows.append([f"{count:,}", f"{one['seconds']:.1f}", *sizes, f"{above:.2f}"])
        rows[-1].append(f"{one['peak'] / found[0]['peak']:.3f}")
    return header, rows
