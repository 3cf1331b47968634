"""What analyze costs: MIP-IN in multiples of one ``model.predict``, every other method beside the real iNNvestigate."""

from __future__ import annotations

import argparse
import pathlib
import statistics
from collections.abc import Callable

import keras
import numpy as np

import mipin_keras
from reproduce_paper import arguments, models, report

from . import against, peer
from .timing import interleaved, ratio

SMALL = {"MLP-M": models.mlp_m, "CNN-M": models.cnn_m, "CNN-C": models.cnn_c}
LARGE = {
    "VGG19": lambda: keras.applications.VGG19(weights=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None),
}
MODELS = SMALL | LARGE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    arguments.add_models(parser, MODELS)
    parser.add_argument("--methods", nargs="+", choices=["mipin", *peer.METHODS], help="default: all; on VGG19 and "
                        f"ResNet50 {', '.join(peer.LARGE_METHODS)}")  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, help="samples a batch")
    parser.add_argument("--large-batch", type=int, default=4, help="samples a batch of VGG19 and ResNet50")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--large-rounds", type=int, default=5, help="of VGG19 and ResNet50")
    parser.add_argument(
        "--against", type=pathlib.Path, metavar="DIR",
        help="the folder of another mipin_keras, such as the version before, to time ours beside",
    )  # fmt: skip
    parser.add_argument("--memory", action="store_true", help="peak memory of SmoothGrad on the CNN instead")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Time every call turn by turn, steady state, on models with random weights and random images."""
    if args.memory_of is not None:
        peer.peak(args.memory_of, args.batch, args.seed)
        return
    if args.memory:
        peer.memory(args.batch, args.seed)
        return
    if args.against is not None:
        _against(args)
        return
    small = [name for name in args.models if name in SMALL]
    if small and (args.methods is None or "mipin" in args.methods):
        _mipin(args, small)
    known = peer.METHODS
    chosen = None if args.methods is None else [method for method in known if method in args.methods]
    rows = _timed(
        args,
        lambda large: (peer.LARGE_METHODS if large else known) if chosen is None else chosen,
        lambda method, model, x, large: peer.compare(method, model, x, args.large_rounds if large else args.rounds),
    )
    if rows:
        print("\n" + report.table(peer.HEADER, rows))


def _against(args: argparse.Namespace) -> None:
    before = against.package_at(args.against)

    def compare(method: str, model: keras.Model, x: np.ndarray, large: bool) -> list[str]:
        rounds = min(args.rounds, 5) if method in peer.SLOW else args.rounds
        return against.compare(before, method, model, x, args.large_rounds if large else rounds)

    def chosen(large: bool) -> list[str]:
        return args.methods or ["mipin", *(peer.LARGE_METHODS if large else peer.METHODS)]

    print("\n" + report.table(against.HEADER, _timed(args, chosen, compare)))


def _timed(
    args: argparse.Namespace,
    methods: Callable[[bool], list[str]],
    compare: Callable[[str, keras.Model, np.ndarray, bool], list[str]],
) -> list[list[str]]:
    """Time the methods on each of ``args.models``, and print each row of the table as soon as it is there.

    Args:
        args: The command's arguments.
        methods: Gives the methods to time, for a large model or a small one.
        compare: Times a method on a model and a batch of images, large or
            small; returns the row without its first two columns.
    """
    rows = []
    for name in args.models:
        large = name in LARGE
        model, x = _model_and_images(name, args)
        for method in methods(large):
            if method == "grad_cam" and name == "MLP-M":  # no feature map
                continue
            rows.append([f"{name}, {len(x)}", method, *compare(method, model, x, large)])
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


def _model_and_images(name: str, args: argparse.Namespace) -> tuple[keras.Model, np.ndarray]:
    """A model with random weights, and a batch of random images for it."""
    keras.utils.set_random_seed(args.seed)
    model = MODELS[name]()
    batch = args.large_batch if name in LARGE else args.batch
    return model, np.random.default_rng(args.seed).random((batch, *model.input_shape[1:]), np.float32)


def _mipin(args: argparse.Namespace, names: list[str]) -> None:
    rows = []
    for name in names:
        model, x = _model_and_images(name, args)
        analyzer = mipin_keras.create_analyzer("mipin", model, neuron_selection_mode="index", rows=1 << 14, verbose=0)
        analyzer.fit(x, batch_size=args.batch)
        mixed = np.arange(args.batch) % model.output_shape[-1]
        calls = {
            "predict": lambda m=model, x=x: m.predict(x, batch_size=args.batch, verbose=0),
            "one class": lambda a=analyzer, x=x: a.analyze(x, 0),
            "ten classes": lambda a=analyzer, x=x, mixed=mixed: a.analyze(x, mixed),
        }
        seconds = interleaved(calls, args.rounds)
        for call in ("one class", "ten classes"):
            middle, least, most = ratio(seconds[call], seconds["predict"])
            predict = 1e3 * statistics.median(seconds["predict"])
            rows.append([name, call, f"{predict:.1f} ms", f"{middle:.2f}", f"{least:.2f} to {most:.2f}"])
    header = ["model", f"batch of {args.batch}, explaining", "predict", "analyze, in predicts", "range"]
    print(report.table(header, rows) + "\n", flush=True)
