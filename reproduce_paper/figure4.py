"""Figure 4: samples and their source signals, with the logits of both, for the three models."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np

import mipin_keras
from mipin_keras.metrics import average_percentage_change
from mipin_keras.plotting import plot

from . import arguments, digits, report

# Training images that MIP-IN is fitted on; a CNN takes minutes for 10,000.
FIT = {"MLP-M": 50000, "CNN-M": 10000, "CNN-C": 10000}
SHOWN = {"MLP-M": (0, 1, 2, 3, 4, 5, 6), "CNN-M": (3, 4, 5, 6, 7, 8, 9), "CNN-C": (0, 1, 3, 5, 6, 7, 8)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    arguments.add_models(parser, FIT)


def run(args: argparse.Namespace) -> pathlib.Path:
    """Fit MIP-IN to each model, draw some source signals, measure many."""
    experiment = report.Experiment("figure4", args)
    measured = 100 if args.quick else 1000
    rows: dict[str, np.ndarray] = {}
    captions = {}
    experiment.result["models"] = {}
    for name in args.models:
        trained = digits.load(name, args)
        count = 300 if args.quick else FIT[name]
        rest = {"rows": 1 << 12} if args.quick else {}
        analyzer = digits.fitted("MIP-IN", trained, count, args, experiment.log, **rest)
        chosen = trained.first(SHOWN[name])
        x, labels = trained.test[chosen], trained.labels[chosen]
        signals, shown = compare(analyzer, x, labels)
        _, many = compare(analyzer, trained.test[:measured], trained.predicted[:measured])
        experiment.result["models"][name] = {
            "about": trained.about,
            "fit_images": min(count, len(trained.train)),
            "numbers": chosen.tolist(),
            "shown": shown,
            "measured": many,
        }
        for what, pictures in (("sample", x), ("source signal", np.clip(signals, 0, 1))):
            rows[f"{name}\n{what}"] = pictures
            captions[f"{name}\n{what}"] = [
                f"{trained.names[label]}: {logit:.1f}"
                for label, logit in zip(labels, shown[f"{what} logits"], strict=True)
            ]
        experiment.log(f"{name}: logits differ by {many['difference']:.2f} in the mean")
    experiment.picture(plot.grid(rows, pictures=list(rows), captions=captions, cell=0.9))
    for found in experiment.result["models"].values():
        for what in ("sample", "source signal"):
            del found["measured"][f"{what} logits"]
    return experiment.write(markdown(experiment.result))


def compare(analyzer: mipin_keras.Analyzer, x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The source signals of ``x`` for ``classes``, and how their logits differ from those of ``x``."""
    signals = analyzer.source_signal(x, classes)
    every = analyzer.logits(signals)
    rows = np.arange(len(x))
    logits, sources = analyzer.logits(x)[rows, classes], every[rows, classes]
    change = average_percentage_change(logits, sources, classes)
    return signals, {
        "images": len(x),
        "sample logits": logits.tolist(),
        "source signal logits": sources.tolist(),
        "mean_logit": float(logits.mean()),
        "difference": float(np.abs(logits - sources).mean()),
        "apc": change.apc,
        "positive_apc": change.positive_apc,
        "kept": float((every.argmax(axis=1) == classes).mean()),
    }


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    header = ["model", "images", "mean logit", "mean difference", "relative", "relative, lost only", "same class"]
    lines = []
    for name, found in result["models"].items():
        for which in ("shown", "measured"):
            numbers = found[which]
            lines.append(
                [name if which == "shown" else "", f"{numbers['images']:,} {'shown' if which == 'shown' else 'test'}"]
                + [f"{numbers['mean_logit']:.2f}", f"{numbers['difference']:.2f}"]
                + [f"{numbers[key]:.1f} %" for key in ("apc", "positive_apc")]
                + [f"{100 * numbers['kept']:.0f} %"]
            )
    about = "\n".join(
        f"- {name}: {digits.trained_on(found['about'])}; MIP-IN is fitted on {found['fit_images']:,} of them, of all "
        "classes."
        for name, found in result["models"].items()
    )
    return f"""# Figure 4: samples and their source signals, with their logits

![Samples and their source signals for {", ".join(result["models"])}, the logits below]({result["pictures"][0]})

Under each sample its class and that class's logit; under its source signal the logit that the model gives to the
source signal alone. Source signals are cut to [0, 1] for drawing, and not for the logits. Shown are the first test
images of their classes that the model classifies rightly; the table's "test" rows are the first test images, for the
class that the model takes each for.

{report.table(header, lines)}

Mean difference: of the two logits, absolute. Relative: that difference as a share of the sample's own logit, averaged
within each class and then over the classes, which is Eq. 10 (APC); "lost only" counts only what the source signal's
logit lacks, Eq. 11. Same class: how many of the source signals the model still takes for the class.

The paper says that "the logits of the source signal are very similar to the logits of the original input signal", and
gives no number here but those of Table 1. Ours:

{chr(10).join(verdict(name, found) for name, found in result["models"].items())}

{about}
"""


def verdict(name: str, found: dict[str, Any]) -> str:
    """A line on one model: how near the logits are."""
    many, shown = found["measured"], found["shown"]
    pairs = zip(shown["sample logits"], shown["source signal logits"], strict=True)
    near = sum(abs(source - logit) <= 0.25 * abs(logit) for logit, source in pairs)
    lost = many["positive_apc"] / many["apc"] if many["apc"] else 0.0
    return (
        f"- {name}: of the {shown['images']} shown, {near} source signals have a logit within 25 % of their sample's; "
        f"over {many['images']:,} test images the logits differ by {many['apc']:.1f} % ({100 * lost:.0f} % of it lost, "
        f"the rest gained), and "
        f"{100 * many['kept']:.0f} % of the source signals are still taken for the class."
    )
