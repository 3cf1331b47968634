"""What an analysis of photographs takes beside the model, at the default batch size: GiB, method by method."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

import keras
import numpy as np

import mipin_keras
from reproduce_paper import report

from . import peer

MODELS = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None),
    "EfficientNetB0": lambda: keras.applications.EfficientNetB0(weights=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None),
    "VGG16": lambda: keras.applications.VGG16(weights=None),
}
METHODS = ["mipin", *peer.METHODS, "innvestigate:gradient", "innvestigate:lrp.epsilon"]
# ru_maxrss counts in KiB, on macOS in bytes.
UNIT = 1 if sys.platform == "darwin" else 1 << 10
GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["MobileNetV2", "VGG16"])
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
            command = [sys.executable, "-m", "benchmarks", "memory", "--memory-of", name, method]
            command += ["--samples", str(args.samples), "--memory", str(args.memory), "--seed", str(args.seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                rows.append([name, method, done.stderr.strip().splitlines()[-1][:60], "", "", ""])
            else:
                found = json.loads(done.stdout.strip().splitlines()[-1])
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
    if method in ("smoothgrad", "integrated_gradients"):  # a few points instead of 64: so many samples at once as ever
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
    before = _peak()
    found = analyzer.analyze(x, 0, memory=args.memory)
    above = _peak() - before - found.nbytes
    batch = min(args.samples, analyzer._batch_size(x, None, args.memory))
    each = above / batch
    times = each / analyzer._sample_bytes(x)
    print(json.dumps([batch, f"{above / GIB:.2f}", f"{each / (1 << 20):.1f}", f"{times:.2f}"]))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
