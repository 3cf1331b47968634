"""Appendix B: how far two classes' maps of one image lie apart, for a CNN on MNIST."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.metrics import bootstrap_interval, class_sensitivity

from . import charts, digits, phrases, report
from .maps import cosines

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
        analyzer = digits.fitted(title, trained, count, args, experiment.log, **rest)
        first, second = (analyzer.analyze(x, chosen) for chosen in classes)
        measured = class_sensitivity(first, second)
        unsigned = np.minimum(measured.per_image, class_sensitivity(first, -second).per_image)
        none = [~maps.reshape(len(maps), -1).any(axis=1) for maps in (first, second)]
        both = ~none[0] & ~none[1]
        found[title] = {
            "distance": measured.distance,
            "interval": list(bootstrap_interval(measured.per_image, seed=args.seed)),
            "unsigned": float(unsigned.mean()),
            "unsigned_interval": list(bootstrap_interval(unsigned, seed=args.seed)),
            "per_pair": [float(measured.per_image[of_image == i].mean()) for i in range(len(pairs))],
            "identical": measured.identical,
            "one_zero": int((none[0] ^ none[1]).sum()),
            "both_zero": int((none[0] & none[1]).sum()),
            "distance_of_two": float(measured.per_image[both].mean()) if both.any() else None,
            "cosine": mean_cosines(first[both], second[both]) if both.any() else None,
        }
        experiment.log(f"{title}: {measured.distance:.2f}")
    experiment.result |= {
        "about": trained.about,
        "fit_images": min(count, len(trained.train)),
        "images": len(x),
        "pairs": pairs.tolist(),
        "methods": found,
    }
    experiment.picture(bars(found))
    return experiment.write(markdown(experiment.result))


def mean_cosines(first: np.ndarray, second: np.ndarray) -> list[float]:
    """The mean cosine of the images' two maps, and the mean of its absolute value; no map may be all zero."""
    found = cosines(first, second)
    return [float(found.mean()), float(np.abs(found).mean())]


def bars(found: dict[str, dict[str, Any]]) -> Figure:
    """The paper's distances beside ours, with our intervals."""
    figure, axes = charts.panels((6, 4))
    ax, heights = axes[0, 0], np.arange(len(found))
    ours = [numbers["distance"] for numbers in found.values()]
    errors = charts.whiskers(ours, [numbers["interval"] for numbers in found.values()])
    ax.barh(heights - 0.2, [PAPER[title] for title in found], 0.38, color="0.75", label="paper")
    ax.barh(heights + 0.2, ours, 0.38, xerr=errors, color="tab:blue", ecolor="black", capsize=2, label="ours")
    ax.set_yticks(heights, list(found), fontsize=10)
    charts.first_on_top(ax)
    ax.set_xlabel("mean l2 distance between two classes' maps", fontsize=10)
    ax.legend(fontsize=10, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    charts.half_framed(ax)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    n = result["images"]
    header = ["method", "paper", "ours", "95 %", "up to sign", "95 %", "cosine", "absolute"]
    lines = [
        [title, f"{PAPER[title]:.2f}", f"{found['distance']:.2f}", phrases.bracketed(found["interval"], ".2f")]
        + [f"{found['unsigned']:.2f}", phrases.bracketed(found["unsigned_interval"], ".2f")]
        + ([f"{found['cosine'][0]:+.2f}", f"{found['cosine'][1]:.2f}"] if found["cosine"] else ["-", "-"])
        for title, found in result["methods"].items()
    ]
    pairs = [f"{a} and {b}" for a, b in result["pairs"]]
    by_pair = [
        [title, *(f"{value:.2f}" for value in found["per_pair"])]
        + [f"{100 * found[key] / n:.0f} %" for key in ("identical", "one_zero", "both_zero")]
        for title, found in result["methods"].items()
    ]
    return f"""# Appendix B: the distance between two classes' maps on MNIST

![Mean l2 distances of eight methods, the paper's and ours]({result["pictures"][0]})

{report.table(header, lines)}

The l2 distance between an image's maps for two classes, mean over {n:,} test images, with a 95 % bootstrap interval.
Each map is first divided by its largest absolute value; the paper does not say how it scales maps, and without a scale
of their own the distances of methods could not be compared. "Up to sign": the smaller of the distances to the other
map and to its negative. What starts from the logit itself, as MIP-IN (A = Y), LRP and PatternAttribution do, gives a
map with its signs turned over where a logit is negative; two such maps are far apart and the same picture. Cosine: of
the two maps, and its absolute value, which need no scale (1: the same picture, 0: nothing in common), over the images
where neither map is 0 throughout.

The paper draws two class labels and does not name them here. Ours are {len(pairs)} pairs drawn at random, each class
in one, each pair on {n // len(pairs):,} of the images. By pair, and how often the two maps are identical, or one or
both of them 0 throughout:

{report.table(["distance", *pairs, "identical", "one 0", "both 0"], by_pair)}

{chr(10).join(verdicts(result))}

Model: the CNN of Table 4, {digits.trained_on(result["about"])}. MIP-IN and PatternAttribution are fitted on
{result["fit_images"]:,} of them, of all classes (the paper: 50,000); MIP-IN down to the pixels.
"""


def verdicts(result: dict[str, Any]) -> list[str]:
    """What the paper concludes, and whether our numbers say so."""
    found, n = result["methods"], result["images"]
    order = ordered({title: numbers["distance"] for title, numbers in found.items()})
    unsigned = ordered({title: numbers["unsigned"] for title, numbers in found.items()})
    alike = ordered({title: numbers["cosine"][1] for title, numbers in found.items() if numbers["cosine"]})
    taylor = found["Deep Taylor"]
    lines = [
        "- MIP-IN, gradient, SmoothGrad and LRP-epsilon are more class-sensitive than Guided Backpropagation and "
        f"PatternAttribution, as the paper says, by intervals that do not meet: {outcome(found, 'interval')} Up to "
        f"sign: {outcome(found, 'unsigned_interval')}",
        f"- From the largest distance to the smallest: {', '.join(order)}. Up to sign: {', '.join(unsigned)}. The "
        f"paper: {', '.join(ordered(PAPER))}. MIP-IN is number {order.index('MIP-IN') + 1} of {len(order)}, up to sign "
        f"number {unsigned.index('MIP-IN') + 1}, in the paper number {ordered(PAPER).index('MIP-IN') + 1}.",
        f"- By the cosine's absolute value, which neither scale nor sign enters, the two maps differ most for "
        f"{alike[-1]} ({found[alike[-1]]['cosine'][1]:.2f}) and least for {alike[0]} "
        f"({found[alike[0]]['cosine'][1]:.2f}).",
        f"- Deep Taylor's two situations (section 6.4.2): for {taylor['one_zero']:,} of {n:,} images one map is 0 "
        f"throughout, as that class's logit is not positive, for {taylor['both_zero']:,} both are",
    ]
    if taylor["cosine"]:
        lines[-1] += (
            f"; for the other {n - taylor['one_zero'] - taylor['both_zero']:,} the distance is "
            f"{taylor['distance_of_two']:.2f} and the cosine {taylor['cosine'][0]:.2f}"
        )
    lines[-1] += "."
    return lines


def outcome(found: dict[str, dict[str, Any]], interval: str) -> str:
    """Whether each of ``SENSITIVE`` lies above each of ``INSENSITIVE``, or which do not."""
    wrong = [
        f"{high} not above {low}"
        for high in SENSITIVE
        for low in INSENSITIVE
        if found[high][interval][0] <= found[low][interval][1]
    ]
    return "**so it is here**." if not wrong else f"**it was not so here**: {', '.join(wrong)}."


def ordered(numbers: dict[str, float]) -> list[str]:
    """The names, from the largest number to the smallest."""
    return sorted(numbers, key=lambda title: -numbers[title])


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [verdicts(result)[0].removeprefix("- ")]


def beside(result: dict[str, Any]) -> list[report.Beside]:
    """The paper's numbers beside ours."""
    setting = (
        f"{result['images']:,} MNIST test images, {len(result['pairs'])} random pairs of classes; CNN of Table 4, "
        f"{100 * result['about']['accuracy']:.1f} % right; maps scaled to 1 (the paper's scale is unknown)"
    )
    return [
        report.Beside(
            "Appendix B",
            f"{title}, l2 distance",
            f"{PAPER[title]:.2f}",
            phrases.with_interval(found["distance"], found["interval"], ".2f"),
            setting,
        )
        for title, found in result["methods"].items()
    ]
