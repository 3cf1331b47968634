"""What MIP-IN's analyze costs, in multiples of one ``model.predict`` on the same batch."""

from __future__ import annotations

import argparse
import statistics

import keras
import numpy as np

import mipin_keras
from reproduce_paper import models, report

from .timing import interleaved, ratio

MODELS = {"MLP-M": models.mlp_m, "CNN-M": models.cnn_m, "CNN-C": models.cnn_c}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["MLP-M", "CNN-M", "CNN-C"])
    parser.add_argument("--batch", type=int, default=128, help="samples a batch")
    parser.add_argument("--rounds", type=int, default=30)


def run(args: argparse.Namespace) -> None:
    """Time predict and analyze turn by turn, steady state, on models with random weights and random images."""
    rows = []
    for name in args.models:
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
    print(report.table(header, rows))
