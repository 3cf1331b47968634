"""Appendix B: how far two classes' maps of one image lie apart, for a CNN on MNIST."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.metrics import bootstrap_interval, class_sensitivity

from . import digits, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The mean l2 distances of Appendix B.
PAPER = {
    "Gradient": 7.18,
    "SmoothGrad": 6.45,
    "LRP-epsilon": 6.88,
    "Deep Taylor": 3.62,
    "Deconvnet": 6.42,
    "Guided Backprop": 2.01,
    "PatternAttribution": 0.91,
    "MIP-IN": 5.53,
}
SENSITIVE = ("MIP-IN", "Gradient", "SmoothGrad", "LRP-epsilon")
INSENSITIVE = ("Guided Backprop", "PatternAttribution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    parser.add_argument("--images", type=int, default=5000, help="test images, shared by the pairs of classes")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Explain each image for two classes by every method; measure how far the two maps lie apart."""
    experiment = report.Experiment("appendix_b", args)
    trained = digits.load("CNN-M", args)
    count = 300 if args.quick else 10000
    x = trained.test[: 50 if args.quick else args.images]
    pairs = np.random.default_rng(args.seed).permutation(10).reshape(-1, 2)
    of_image = np.arange(len(x)) % len(pairs)
    classes = pairs[of_image].T
    found = {}
    for title in PAPER:
        rest = {"rows": 1 << 12} if args.quick and title == "MIP-IN" else {}
        analyzer = digits.fitted(title, trained, count, args, experiment.say, **rest)
        first, second = (analyzer.analyze(x, chosen) for chosen in classes)
        measured = class_sensitivity(first, second)
        found[title] = {
            "distance": measured.distance,
            "interval": list(bootstrap_interval(measured.per_image, seed=args.seed)),
            "per_pair": [float(measured.per_image[of_image == i].mean()) for i in range(len(pairs))],
            "identical": measured.identical,
            "empty": measured.empty,
            "cosine": cosine(first, second),
        }
        experiment.say(f"{title}: {measured.distance:.2f}")
    experiment.result |= {
        "about": trained.about,
        "fit_images": min(count, len(trained.train)),
        "images": len(x),
        "pairs": pairs.tolist(),
        "methods": found,
    }
    experiment.picture(bars(found))
    return experiment.write(markdown(experiment.result))


def cosine(first: np.ndarray, second: np.ndarray) -> float | None:
    """The mean cosine of an image's two maps, over the images where neither is 0; None where there is none."""
    a, b = (digits.scaled(maps).reshape(len(maps), -1) for maps in (first, second))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    there = lengths > 0
    return float(((a * b).sum(axis=1)[there] / lengths[there]).mean()) if there.any() else None


def bars(found: dict[str, dict[str, Any]]) -> Figure:
    """The paper's distances beside ours, with our intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(found))
    ours = np.array([numbers["distance"] for numbers in found.values()])
    low, high = np.array([numbers["interval"] for numbers in found.values()]).T
    axes.barh(places - 0.2, [PAPER[title] for title in found], 0.38, color="0.75", label="paper")
    axes.barh(places + 0.2, ours, 0.38, color="tab:blue", label="ours")
    axes.errorbar(ours, places + 0.2, xerr=[ours - low, high - ours], fmt="none", color="black", capsize=2)
    axes.set_yticks(places, list(found), fontsize=10)
    axes.invert_yaxis()
    axes.set_xlabel("mean l2 distance between two classes' maps", fontsize=10)
    axes.legend(fontsize=10, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    header = ["method", "paper", "ours", "95 %", "pair by pair", "cosine", "identical", "a map is 0"]
    lines = [
        [title, f"{PAPER[title]:.2f}", f"{found['distance']:.2f}", span(found)]
        + [" ".join(f"{value:.1f}" for value in found["per_pair"])]
        + ["-" if found["cosine"] is None else f"{found['cosine']:+.2f}"]
        + [f"{100 * found[key] / result['images']:.0f} %" for key in ("identical", "empty")]
        for title, found in result["methods"].items()
    ]
    pairs = ", ".join(f"{a} and {b}" for a, b in result["pairs"])
    return f"""# Appendix B: the distance between two classes' maps on MNIST

![Mean l2 distances of eight methods, the paper's and ours]({result["pictures"][0]})

{report.table(header, lines)}

The l2 distance between an image's maps for two classes, mean over {result["images"]:,} test images, with a 95 %
bootstrap interval. Each map is first divided by its largest absolute value; the paper does not say how it scales maps,
and without a scale of their own the distances of methods could not be compared. The paper draws two class labels and
does not name them here; ours are {len(result["pairs"])} pairs drawn at random, so that each class is in one ({pairs}),
each on {result["images"] // len(result["pairs"]):,} of the images. Cosine: of the two maps, which needs no scale (1:
the same picture, 0: none in common, below 0: opposed), over the images where neither map is 0 throughout.

{chr(10).join(verdicts(result))}

Model: the CNN of Table 4, {digits.trained_on(result["about"])}. MIP-IN and PatternAttribution are fitted on
{result["fit_images"]:,} training images, of all classes (the paper: 50,000); MIP-IN down to the pixels.
"""


def span(found: dict[str, Any]) -> str:
    """An interval, for a table."""
    low, high = found["interval"]
    return f"[{low:.2f}, {high:.2f}]"


def verdicts(result: dict[str, Any]) -> list[str]:
    """What the paper concludes, and whether our numbers say so."""
    found = result["methods"]
    wrong = [
        f"{high} not above {low}"
        for high in SENSITIVE
        for low in INSENSITIVE
        if found[high]["interval"][0] <= found[low]["interval"][1]
    ]
    order = sorted(found, key=lambda title: -found[title]["distance"])
    alike = sorted((title for title in found if found[title]["cosine"] is not None), key=lambda t: found[t]["cosine"])
    taylor = found["Deep Taylor"]
    n = result["images"]
    return [
        "- MIP-IN, gradient, SmoothGrad and LRP-epsilon are more class-sensitive than Guided Backpropagation and "
        "PatternAttribution, as the paper says, by intervals that do not meet: "
        + ("**so it is here**." if not wrong else f"**it was not so here**: {'; '.join(wrong)}."),
        f"- From the largest distance to the smallest, ours: {', '.join(order)}. The paper's: "
        f"{', '.join(sorted(PAPER, key=lambda title: -PAPER[title]))}. MIP-IN is {place(order, 'MIP-IN')} of "
        f"{len(order)} here and {place(sorted(PAPER, key=lambda title: -PAPER[title]), 'MIP-IN')} there.",
        f"- By the cosine, which no scale enters, the two maps differ most for {alike[0]} "
        f"({found[alike[0]]['cosine']:+.2f}) and least for {alike[-1]} ({found[alike[-1]]['cosine']:+.2f}).",
        f"- Deep Taylor's two situations (section 6.4.2): its two maps are the same, up to a factor, for "
        f"{taylor['identical']:,} of {n:,} images, and one or both are 0 throughout, as the class's logit is not "
        f"positive, for {taylor['empty']:,}; {n - taylor['identical'] - taylor['empty']:,} are in neither.",
    ]


def place(order: list[str], title: str) -> str:
    """Where in an order, as a word."""
    number = order.index(title) + 1
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def beside(result: dict[str, Any]) -> list[report.Beside]:
    """The paper's numbers beside ours."""
    setting = (
        f"{result['images']:,} MNIST test images, {len(result['pairs'])} random pairs of classes; CNN of Table 4, "
        f"{100 * result['about']['accuracy']:.1f} % right; maps scaled to 1 (the paper's scale is unknown)"
    )
    ours = {title: f"{found['distance']:.2f} {span(found)}" for title, found in result["methods"].items()}
    return [
        report.Beside("Appendix B", f"{title}, l2 distance", f"{PAPER[title]:.2f}", text, setting)
        for title, text in ours.items()
    ]
