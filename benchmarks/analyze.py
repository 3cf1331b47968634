"""What analyze costs: MIP-IN in multiples of one ``model.predict``, every other method beside the real iNNvestigate."""

from __future__ import annotations

import argparse
import pathlib
import statistics

import keras
import numpy as np

import mipin_keras
from reproduce_paper import models, report

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
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
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
    rows = []
    for name in args.models:
        large = name in LARGE
        keras.utils.set_random_seed(args.seed)
        model = MODELS[name]()
        batch = args.large_batch if large else args.batch
        x = np.random.default_rng(args.seed).random((batch, *model.input_shape[1:]), np.float32)
        known = peer.LARGE_METHODS if large else peer.METHODS
        for method in known if args.methods is None else [method for method in peer.METHODS if method in args.methods]:
            if method == "grad_cam" and name == "MLP-M":  # no feature map
                continue
            row = peer.compare(method, model, x, args.large_rounds if large else args.rounds)
            rows.append([f"{name}, {batch}", method, *row])
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if rows:
        print("\n" + report.table(peer.HEADER, rows))


def _against(args: argparse.Namespace) -> None:
    before, rows = against.package_at(args.against), []
    for name in args.models:
        large = name in LARGE
        keras.utils.set_random_seed(args.seed)
        model = MODELS[name]()
        batch = args.large_batch if large else args.batch
        x = np.random.default_rng(args.seed).random((batch, *model.input_shape[1:]), np.float32)
        for method in args.methods or ["mipin", *(peer.LARGE_METHODS if large else peer.METHODS)]:
            if method == "grad_cam" and name == "MLP-M":  # no feature map
                continue
            slow = method in ("smoothgrad", "integrated_gradients")  # 64 gradients each
            rounds = args.large_rounds if large else min(args.rounds, 5) if slow else args.rounds
            rows.append([f"{name}, {batch}", method, *against.compare(before, method, model, x, rounds)])
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    print("\n" + report.table(against.HEADER, rows))


def _mipin(args: argparse.Namespace, names: list[str]) -> None:
    rows = []
    for name in names:
        keras.utils.set_random_seed(args.seed)
        model = MODELS[name]()
        x = np.random.default_rng(args.seed).random((args.batch, *model.input_shape[1:]), np.float32)
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
