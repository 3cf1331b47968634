"""What an analysis of photographs takes beside the model, at the default batch size: GiB, method by method."""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import Any

import keras
import numpy as np

import mipin_keras
from reproduce_paper import arguments, report

from . import peer
from .processes import GIB, MIB, in_own_process, peak_memory

MODELS = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None),
    "EfficientNetB0": lambda: keras.applications.EfficientNetB0(weights=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None),
    "VGG16": lambda: keras.applications.VGG16(weights=None),
}
METHODS = ["mipin", *peer.METHODS, "innvestigate:gradient", "innvestigate:lrp.epsilon"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    arguments.add_models(parser, MODELS, ["MobileNetV2", "VGG16"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--samples", type=int, default=128, help="photographs to explain")
    parser.add_argument("--memory", type=float, default=mipin_keras.analyzer.MEMORY, help="GiB that are allowed")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Explain photographs of noise, each method on each model in a process of its own."""
    if args.memory_of is not None:
        _measure(*args.memory_of, args)
        return
    rows = []
    for name in args.models:
        for method in args.methods:
            options = {"samples": args.samples, "memory": args.memory, "seed": args.seed}
            try:
                found = in_own_process("memory", memory_of=[name, method], **options)
            except subprocess.CalledProcessError as problem:
                found = [problem.stderr.strip().splitlines()[-1][:60], "", "", ""]
            rows.append([name, method, *found])
            print("| " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    header = ["model", "method", "batch", "GiB beside the model", "MiB a sample", "times what the network makes of it"]
    print("\n" + report.table(header, [list(map(str, row)) for row in rows]))


def _measure(name: str, method: str, args: argparse.Namespace) -> None:
    """Print as JSON what :func:`run` shows of one method on one model."""
    keras.utils.set_random_seed(args.seed)
    model = MODELS[name]()
    options: dict[str, Any] = dict(peer.OPTIONS.get(method, {}))
    if "activations" in mipin_keras.options_of(method):
        options["activations"] = "any"
    if method in peer.SLOW:  # a few points instead of 64: so many samples at once as ever
        options["augment_by_n" if method == "smoothgrad" else "steps"] = 2
    if method == "mipin":
        options |= {"classes": [0], "rows": 1024, "verbose": 0}
    analyzer = mipin_keras.create_analyzer(method, model, neuron_selection_mode="index", **options)
    x = np.random.default_rng(args.seed).random((args.samples, *model.input_shape[1:]), np.float32)
    if not analyzer.fitted:
        analyzer.fit(x[:4], batch_size=2)
    analyzer.analyze(x[:1], 0)  # TensorFlow's own
    maps = np.ones(x.shape, np.float32)  # room for the result, which is the caller's
    del maps
    before = peak_memory()
    found = analyzer.analyze(x, 0, memory=args.memory)
    above = peak_memory() - before - found.nbytes
    batch = min(args.samples, analyzer._batch_size(x, None, args.memory))
    each = above / batch
    times = each / analyzer._sample_bytes(x)
    print(json.dumps([batch, f"{above / GIB:.2f}", f"{each / MIB:.1f}", f"{times:.2f}"]))
