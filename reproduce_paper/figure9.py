"""Figure 9: the mean l2 distance between the maps of two classes on photographs, of every method."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import mipin_keras
from mipin_keras.metrics import bootstrap_interval, class_sensitivity

from . import charts, explained, gallery, maps, methods, phrases, report
from .photo_models import Subject
from .photographs import Photographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Photographs measured; SmoothGrad, which takes 64 gradients for one map, on fewer.
MEASURED, SMOOTHGRAD = 1000, 200
QUICK_MEASURED, QUICK_SMOOTHGRAD = 60, 10
#: Pairs of classes; the photographs are dealt out among them.
PAIRS = 5
#: How the maps are read, see `explained.Maps`, and what the page calls it.
READINGS = {"drawn": "as drawn", "signed": "signed"}

#: Section 6.4.2: on VGG19, the distances of the first are larger than those of the second.
PAPER_LARGER = [
    *((title, other) for title in ("MIP-IN", "Gradient", "SmoothGrad", "LRP-epsilon")
      for other in ("Deconvnet", "Guided Backprop")),
    ("Deep Taylor", "Deconvnet"), ("Deep Taylor", "Guided Backprop"), ("MIP-IN", "PatternAttribution"),
]  # fmt: skip


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [line.removeprefix("- ") for line in _verdict(result).splitlines() if " hold" in line]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)
    parser.add_argument(
        "--classes", nargs=2, metavar="CLASS", help="one pair, names or numbers (the paper's: 981 589), for all"
    )


def run(args: argparse.Namespace) -> pathlib.Path:
    """Explain two classes on each photograph with every method; measure."""
    experiment = report.Experiment("figure9", args)
    photographs = gallery.load(args)
    subject, test = explained.subject_of(photographs), photographs.test
    rng = np.random.default_rng(args.seed)
    if args.classes:
        pairs = np.array([explained.class_numbers(test.names, args.classes)])
    else:
        pairs = np.stack([rng.choice(len(test.names), 2, replace=False) for _ in range(PAIRS)])
    chosen = test.take(rng.permutation(len(test.paths))[: QUICK_MEASURED if args.quick else MEASURED])
    experiment.result |= explained.about(photographs, subject, args) | {
        "pairs": [[test.names[number] for number in pair] for pair in pairs],
        "methods": {},
    }
    analyzers = explained.fitted(list(methods.METHODS), subject, photographs.train, pairs.ravel(), args, experiment.log)
    for title, analyzer in analyzers.items():
        part = chosen
        if title == "SmoothGrad":
            part = chosen.take(range(min(len(chosen.paths), QUICK_SMOOTHGRAD if args.quick else SMOOTHGRAD)))
        experiment.log(f"{title} on {len(part.paths)} photographs")
        experiment.result["methods"][title] = measured(title, analyzer, subject, part, pairs)
    experiment.picture(bars(experiment.result["methods"]))
    return experiment.write(markdown(experiment.result))


def measured(
    title: str, analyzer: mipin_keras.Analyzer, subject: Subject, photographs: Photographs, pairs: np.ndarray
) -> dict[str, Any]:
    """One method on all photographs, the i-th for the classes of pair i modulo their number."""
    distances: dict[str, list[np.ndarray]] = {name: [] for name in READINGS}
    cosines: dict[str, list[np.ndarray]] = {name: [] for name in READINGS}
    identical, empty = dict.fromkeys(READINGS, 0), dict.fromkeys(READINGS, 0)
    for start in range(0, len(photographs.paths), 64):
        numbers = np.arange(start, min(start + 64, len(photographs.paths)))
        x = subject.preprocess(photographs.take(numbers).pixels())
        one, other = (explained.read(title, analyzer, x, classes) for classes in pairs[numbers % len(pairs)].T)
        for name in READINGS:
            first, second = getattr(one, name), getattr(other, name)
            found = class_sensitivity(first, second)
            distances[name].append(found.per_image)
            cosines[name].append(maps.cosines(first, second))
            identical[name] += found.identical
            empty[name] += found.empty
    result: dict[str, Any] = {"samples": len(photographs.paths)}
    for name in READINGS:
        values = np.concatenate(distances[name])
        result[name] = {"distance": float(values.mean()), "interval": bootstrap_interval(values)}
        result[name] |= {"cosine": maps.defined_mean(np.concatenate(cosines[name]))}
        result[name] |= {"identical": identical[name], "empty": empty[name]}
    return result


def bars(found: Mapping[str, dict[str, Any]]) -> Figure:
    """A bar a method, with its interval, for each reading."""
    figure, axes = charts.panels((6.5, 3.2), 1, len(READINGS), sharey=True)
    for ax, (name, title) in zip(axes[0], READINGS.items(), strict=True):
        distances = {method: of[name]["distance"] for method, of in found.items()}
        intervals = [of[name]["interval"] for of in found.values()]
        charts.method_bars(ax, distances, intervals, "0.6", error_kw={"elinewidth": 0.8})
        ax.set_title(f"maps {title}", fontsize=10)
        ax.set_xlabel("mean l2 distance", fontsize=9)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """The bars, the table, and whether the paper's order holds."""
    found = result["methods"]
    header = ["", "photographs"]
    for title in READINGS.values():
        header += [f"l2, {title}", "95 %", f"cosine, {title}"]
    header += ["identical", "empty"]
    rows = []
    for title, of in found.items():
        row = [title, f"{of['samples']:,}"]
        for name in READINGS:
            low, high = of[name]["interval"]
            row += [f"{of[name]['distance']:.2f}", f"{low:.2f} to {high:.2f}", phrases.number(of[name]["cosine"])]
        rows.append([*row, of["drawn"]["identical"], of["drawn"]["empty"]])
    pairs = "; ".join(" and ".join(pair) for pair in result["pairs"])
    each = "" if len(result["pairs"]) == 1 else ", each photograph for one of these pairs"
    return f"""# Figure 9: how far the maps of two classes lie apart

The paper measures the mean l2 distance between the maps of two classes, 981 and 589, on VGG19 and 1,000 photographs of
ImageNet; it shows bars, without numbers. Our classes, drawn by the seed unless they were given: {pairs}{each}.
{explained.setting(result)} Grad-CAM's is its own.

![A bar for each method: the mean l2 distance between its maps of two classes]({result["pictures"][0]})

{report.table(header, rows)}

Each map is scaled to a largest absolute value of 1, which the paper does not say. "As drawn" is the map as above, and
the main number. "Signed" is the sum of the channels with its sign, resized too; MIP-IN, LRP-epsilon and
PatternAttribution start from the logit, so that a negative one turns their map over, which counts as distance there.
SmoothGrad takes 64
gradients a map and is measured on fewer photographs. "Identical" counts photographs whose two maps, as drawn, are the
same, "empty" those where one is all zero. A distance depends on how a map is made, a smooth map of few blobs or a dense
one of noise, as much as on the class: the cosine between the two maps, 1 for a method that does not look at the class,
does so less.

{_verdict(result)}
"""


def _verdict(result: dict[str, Any]) -> str:
    """How much of the paper's order the numbers here show, by each reading."""
    found = result["methods"]
    lines = [
        "The paper finds the distances of MIP-IN, Gradient, SmoothGrad and LRP-epsilon much larger than those of "
        "Deconvnet and Guided Backprop, Deep Taylor's larger than these two's (because its maps are either the same "
        "or empty), and PatternAttribution much less sensitive than MIP-IN. Of these comparisons:",
        "",
    ]
    for name, title in READINGS.items():
        ours = {method: of[name]["distance"] for method, of in found.items()}
        fails = [f"{one} over {other}" for one, other in PAPER_LARGER if ours[one] <= ours[other]]
        held = len(PAPER_LARGER) - len(fails)
        order = ", ".join(f"{method} {ours[method]:.2f}" for method in sorted(ours, key=lambda method: -ours[method]))
        but = f"; not: {', '.join(fails)}" if fails else ""
        lines.append(f"- {title}, {held} of {len(PAPER_LARGER)} hold{but}. Our order: {order}.")
    cosines = {method: of["drawn"]["cosine"] for method, of in found.items() if of["drawn"]["cosine"] is not None}
    if cosines:
        order = ", ".join(f"{method} {cosines[method]:.2f}" for method in sorted(cosines, key=cosines.__getitem__))
        lines.append(f"- By the cosine of the maps as drawn, from the most sensitive: {order}.")
    taylor = found["Deep Taylor"]
    lines.append(
        f"- Deep Taylor's maps are the same on {taylor['drawn']['identical']} and one is empty on "
        f"{taylor['drawn']['empty']} of {taylor['samples']:,} photographs."
    )
    return "\n".join(lines)
