"""Table 2: bounding-box accuracy of all nine methods, with chance and a centre prior beside them."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.metrics import bootstrap_interval, centre_prior

from . import arguments, charts, gallery, methods, phrases, report
from .photo_models import Subject
from .photographs import LARGEST_SHARE, Photographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of VGG19 and ResNet50, on "over 5k" validation images of ILSVRC2012.
PAPER = {
    "Gradient": (0.345, 0.368),
    "SmoothGrad": (0.518, 0.541),
    "LRP-epsilon": (0.307, 0.292),
    "Deep Taylor": (0.427, 0.441),
    "Deconvnet": (0.226, 0.263),
    "Guided Backprop": (0.398, 0.456),
    "PatternAttribution": (0.499, None),
    "Grad-CAM": (0.486, 0.512),
    "MIP-IN": (0.648, 0.662),
}
PAPERS_MODELS = ("VGG19", "ResNet50")
#: Of a quick run.
QUICK = {"limit": 40, "fit_images": 200, "noises": 2}
PATTERN_IMAGES = 2000  # at most, for PatternAttribution, whose patterns are means over them


def papers_model(name: str) -> int:
    """Which of the paper's two models a model stands for: 0 for a VGG, 1 for a ResNet."""
    return 0 if name.startswith("VGG") else 1


def groups(photographs: Photographs, classes: int | None) -> Iterator[np.ndarray]:
    """The indices of the photographs of so many classes at a time; without a number, of all photographs at once."""
    labels = np.unique(photographs.labels)
    for i in range(0, len(labels), classes or len(labels)):
        yield np.flatnonzero(np.isin(photographs.labels, labels[i : i + (classes or len(labels))]))


def score(title: str, subject: Subject, shown: Photographs, train: Photographs, args: argparse.Namespace) -> np.ndarray:
    """A method's bounding-box accuracy on each photograph, its label explained: float64 ``(n,)``."""
    found = np.zeros(len(shown.paths))
    learned = title in methods.LEARNED
    chosen = list(groups(shown, args.classes_at_once)) if title == "MIP-IN" else [np.arange(len(found))]
    for indices in chosen:
        part = shown.take(indices)
        options: dict[str, Any] = {"classes": np.unique(part.labels)} if title == "MIP-IN" else {}
        if title == "SmoothGrad" and args.quick:
            options["augment_by_n"] = QUICK["noises"]
        analyzer = methods.create(
            title, subject.model, subject.layer, seed=args.seed, verbose=args.verbose if learned else 0, **options
        )
        if learned:
            images = train if title == "MIP-IN" else train.evenly(PATTERN_IMAGES)
            memory = {"memory": args.memory} if title == "MIP-IN" else {}
            analyzer.fit(images.stream(subject.preprocess, args.batch_size), **memory)
        found[indices] = methods.box_accuracies(
            part,
            subject.preprocess,
            lambda x, labels, analyzer=analyzer: {title: methods.saliency(title, analyzer, x, labels)},
            args.batch_size,
        )[title]
    return found


def summary(accuracies: np.ndarray, right: np.ndarray, seed: int) -> dict[str, float | None]:
    """The mean accuracy with its interval, and the mean over the photographs that the model classifies rightly."""
    low, high = bootstrap_interval(accuracies, seed=seed)
    of_right = float(accuracies[right].mean()) if right.any() else None
    return {"mean": float(accuracies.mean()), "low": low, "high": high, "of_right": of_right}


def run_model(
    subject: Subject, shown: Photographs, train: Photographs, args: argparse.Namespace, experiment: report.Experiment
) -> dict[str, Any]:
    """Measure every method and the centre prior on one model; the model's part of the result."""
    right = subject.predicted(shown) == shown.labels
    each = {}
    for title in methods.METHODS:
        experiment.log(f"{subject.name}: {title}")
        each[title] = score(title, subject, shown, train, args)
    prior = centre_prior(shown.size)
    each[methods.CENTRE] = methods.box_accuracies(
        shown, lambda x: x, lambda x, labels: {methods.CENTRE: np.broadcast_to(prior, x.shape[:3])}, args.batch_size
    )[methods.CENTRE]
    differences = {}
    for title, accuracies in each.items():
        if title != "MIP-IN":
            low, high = bootstrap_interval(each["MIP-IN"] - accuracies, seed=args.seed)
            differences[title] = {"mean": float((each["MIP-IN"] - accuracies).mean()), "low": low, "high": high}
    return {
        "about": subject.about,
        "layer": subject.layer,
        "right": float(right.mean()),
        "rows": {title: summary(accuracies, right, args.seed) for title, accuracies in each.items()},
        "differences": differences,
    }


def markdown(result: dict[str, Any]) -> str:
    """The table beside the paper's, and who leads."""
    models, names = result["models"], list(result["models"])
    header = [
        "method",
        *(column for name in names for column in (name, f"the paper, {PAPERS_MODELS[papers_model(name)]}")),
    ]
    rows = []
    for title in [*methods.METHODS, methods.CENTRE]:
        row = [title]
        for name in names:
            value = PAPER.get(title, (None, None))[papers_model(name)]
            row += [mean_with_interval(models[name]["rows"][title]), "-" if value is None else f"{value:.3f}"]
        rows.append(row)
    rows.append(["chance", *(cell for _ in names for cell in (f"{result['chance']:.3f}", "-"))])
    differences = [
        [title, *(mean_with_interval(models[name]["differences"][title], "+.3f") for name in names)]
        for title in [*methods.METHODS, methods.CENTRE]
        if title != "MIP-IN"
    ]
    reading = methods.Reading(**result["reading"])
    pictures = "\n".join(f"![Bounding-box accuracy of all methods]({file})" for file in result.get("pictures", []))
    right = " and ".join(f"{100 * models[name]['right']:.1f} % ({name})" for name in names)
    return f"""# Table 2: bounding-box accuracy

The share of a map's n strongest pixels that lie in the box of n pixels (section 6.3): the mean over
{result["photographs"]:,} photographs ({result["title"]}) whose boxes cover less than {LARGEST_SHARE:.0%}, with 95 %
bootstrap intervals over the photographs.

{report.table(header, rows)}

{pictures}

Chance is the mean share of a photograph that its box covers; the centre prior ranks pixels by their distance from the
centre and sees neither model nor photograph. The paper gives neither.

MIP-IN's accuracy less each of the others', paired by photograph, with its 95 % bootstrap interval:

{report.table(["less", *names], differences)}

{chr(10).join(verdict(name, models[name]) for name in names)}

The paper's numbers are of ImageNet's VGG19 and ResNet50 on over 5,000 validation images; these are of other models,
other photographs and smaller ones where the title says so, and only the order of the methods compares. The class
explained is the photograph's label, which the box is of; the paper does not say which it took. The models rightly
classify {right} of the photographs. MIP-IN was fitted on {result["fit_images"]:,} training photographs,
PatternAttribution on {result["pattern_images"]:,}; the paper fits MIP-IN on the 50,000 validation
images themselves. MIP-IN ends at {" and ".join(f"`{models[name]['layer']}` of {name}" for name in names)};
{reading}. That, and how each other method's channels are
read, was chosen on training photographs by the experiment `sweep`.
"""


def mean_with_interval(row: dict[str, float], form: str = ".3f") -> str:
    """A row's mean with its interval."""
    return phrases.with_interval(row["mean"], (row["low"], row["high"]), form)


def verdict(name: str, found: dict[str, Any]) -> str:
    """Say who leads, and which methods MIP-IN is above, below, or not told apart from."""
    rows, differences = found["rows"], found["differences"]
    best = max(methods.METHODS, key=lambda title: rows[title]["mean"])
    above = [title for title, d in differences.items() if d["low"] > 0]
    below = [title for title, d in differences.items() if d["high"] < 0]
    level = [title for title in differences if title not in above + below]
    place = sorted((rows[title]["mean"] for title in methods.METHODS), reverse=True).index(rows["MIP-IN"]["mean"]) + 1
    if best == "MIP-IN":
        words = f"MIP-IN leads the methods with {rows[best]['mean']:.3f}"
    else:
        words = (
            f"MIP-IN does not lead: {best} has {rows[best]['mean']:.3f}, MIP-IN {rows['MIP-IN']['mean']:.3f}, "
            f"place {place} of {len(methods.METHODS)}"
        )
    parts = [
        f"{what} {', '.join(titles)}"
        for what, titles in (("above", above), ("below", below), ("not told apart from", level))
        if titles
    ]
    of_right = {title: rows[title]["of_right"] for title in methods.METHODS}
    return f"- {name}: {words}. By the intervals of the differences it is {'; '.join(parts)}.{on_right(of_right)}"


def on_right(of_right: dict[str, float | None]) -> str:
    """MIP-IN and the best of the others on the photographs that the model classifies rightly."""
    others = {title: value for title, value in of_right.items() if title != "MIP-IN" and value is not None}
    if not others or of_right["MIP-IN"] is None:
        return ""
    best = max(others, key=lambda title: others[title])
    return f" On the photographs classified rightly MIP-IN has {of_right['MIP-IN']:.3f}, {best} {others[best]:.3f}."


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [verdict(name, found).removeprefix("- ") for name, found in result["models"].items()]


def beside(result: dict[str, Any]) -> list[report.Beside]:
    """Every number of Table 2 beside ours."""
    setting = f"{result['photographs']:,} photographs, {result['title']}"
    return [
        report.Beside(
            "Table 2",
            f"{title}, {PAPERS_MODELS[papers_model(name)]}",
            "-" if PAPER[title][papers_model(name)] is None else f"{PAPER[title][papers_model(name)]:.3f}",
            mean_with_interval(found["rows"][title]),
            f"{setting}, {name}",
        )
        for name, found in result["models"].items()
        for title in PAPER
    ]


def draw(result: dict[str, Any]) -> Figure:
    """Draw a bar with its interval for each method, a panel a model; chance and the centre prior are lines."""
    models = result["models"]
    figure, axes = charts.panels((5.0, 3.1 * len(models) + 0.4), len(models), sharex=True)
    for ax, (name, found) in zip(axes[:, 0], models.items(), strict=True):
        rows = {title: found["rows"][title] for title in methods.METHODS}
        means = {title: row["mean"] for title, row in rows.items()}
        intervals = [(row["low"], row["high"]) for row in rows.values()]
        charts.method_bars(ax, means, intervals, "0.65", ecolor="0.2", capsize=2.5, height=0.72)
        ax.axvline(result["chance"], color="black", linestyle=":", label="chance")
        ax.axvline(found["rows"][methods.CENTRE]["mean"], color="tab:blue", linestyle="--", label=methods.CENTRE)
        ax.set_title(name, fontsize=11)
    axes[-1, 0].set_xlabel("bounding-box accuracy, 95 % interval", fontsize=9)
    legend = axes[0, 0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)
    parser.add_argument("--limit", type=int, help="explain only so many photographs, evenly drawn")
    parser.add_argument("--fit-images", type=int, help="fit on only so many training photographs, evenly drawn")
    parser.add_argument(
        "--classes-at-once", type=int, help="fit MIP-IN for so many classes at a time, for less memory; default: all"
    )
    parser.add_argument("--memory", type=float, default=2.0, help="GiB for the sums of MIP-IN's fit")
    parser.add_argument("--batch-size", type=int, default=64, help="photographs at once")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Measure every method on every model."""
    arguments.check_positive(args, "limit", "fit_images", "classes_at_once", "batch_size")
    experiment = report.Experiment("table2", args)
    photographs = gallery.load(args)
    less = QUICK if args.quick else {}
    shown, train = photographs.test.with_small_boxes(), photographs.train
    shown = shown.evenly(args.limit or less.get("limit", len(shown.paths)))
    train = train.evenly(args.fit_images or less.get("fit_images", len(train.paths)))
    if not shown.paths:
        raise ValueError(f"expected test photographs with boxes under {LARGEST_SHARE:.0%}, received none; give others")
    experiment.result |= {
        "title": photographs.title,
        "photographs": len(shown.paths),
        "chance": float(shown.shares().mean()),
        "fit_images": len(train.paths),
        "pattern_images": min(len(train.paths), PATTERN_IMAGES),
        "reading": methods.MIPIN._asdict(),
        "channels": methods.READINGS,
        "models": {},
    }
    for name, subject in photographs.subjects.items():
        experiment.result["models"][name] = run_model(subject, shown, train, args, experiment)
    experiment.picture(draw(experiment.result))
    return experiment.write(markdown(experiment.result))
