"""Figure 5: saliency maps of MIP-IN and the seven baselines for an MLP on MNIST."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mipin_keras.metrics import bootstrap_interval
from mipin_keras.plotting import plot

from . import digits, maps, methods, report

SHOWN = (0, 2, 3, 4, 5, 7, 8, 9)
TITLES = ["MIP-IN", *methods.BASELINES]
INK, RING = 0.5, 2  # what is drawn on a digit, and how many pixels wide "around" it is


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    three = "Positive on the digit, negative around it, nothing on constant pixels, all three"
    return [line.replace("- All three together", three) for line in verdicts(result) if "- All three together" in line]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(args: argparse.Namespace) -> pathlib.Path:
    """Draw every method's maps of some digits; measure where those of many lie."""
    experiment = report.Experiment("figure5", args)
    trained = digits.load("MLP-M", args)
    count = 1000 if args.quick else 50000
    chosen = trained.first(SHOWN)
    many = trained.right()[: 50 if args.quick else 1000]
    constant = np.ptp(trained.train[:count], axis=0) == 0
    areas = regions(trained.test[many], constant)
    rows, found = {}, {}
    for title in TITLES:
        analyzer = digits.fitted(title, trained, count, args, experiment.log)
        rows[title] = analyzer.analyze(trained.test[chosen], trained.labels[chosen])
        found[title] = measure(analyzer.analyze(trained.test[many], trained.labels[many]), areas, args.seed)
        experiment.log(f"{title}: done")
    experiment.result |= {
        "about": trained.about,
        "fit_images": min(count, len(trained.train)),
        "images": len(many),
        "shown": chosen.tolist(),
        "constant_pixels": int(constant.sum()),
        "area": {name: float(area.mean()) for name, area in areas.items()},
        "methods": found,
    }
    experiment.picture(plot.grid(rows, images=trained.test[chosen], cell=0.8))
    return experiment.write(markdown(experiment.result))


def regions(x: np.ndarray, constant: np.ndarray) -> dict[str, np.ndarray]:
    """Where a pixel of an image can lie, as masks like ``x``; all but the last are disjoint.

    Args:
        x: Images in [0, 1], ``(n, height, width)``.
        constant: Pixels without information, ``(height, width)``.

    Returns:
        ``digit`` (above ``INK``), ``around`` (0, at most ``RING`` pixels from
        what is not), ``far`` (the other zeros), ``constant`` (in neither of
        these), and ``background``: every 0.
    """
    drawn = x > 0
    near = grown(drawn, RING)
    constant = np.broadcast_to(constant, x.shape)
    return {
        "digit": (x > INK) & ~constant,
        "around": near & ~drawn & ~constant,
        "far": ~near & ~constant,
        "constant": constant,
        "background": ~drawn,
    }


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """A mask and the pixels at most ``steps`` away along both axes."""
    height, width = mask.shape[1:]
    padded = np.pad(mask, ((0, 0), (steps, steps), (steps, steps)))
    shifts = range(2 * steps + 1)
    return np.any([padded[:, i : i + height, j : j + width] for i in shifts for j in shifts], axis=0)


def measure(attributions: np.ndarray, areas: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Where a method's maps lie, each scaled to a largest absolute value of 1.

    Returns:
        ``mean``: by region the mean value there (over the images that have
        the region), and its 95 % bootstrap interval; ``share``: of the
        absolute values, by region.
    """
    scaled = maps.scaled(attributions)
    found: dict[str, Any] = {"mean": {}, "share": {}}
    strength = np.abs(scaled)
    for name, area in areas.items():
        size = area.sum(axis=(1, 2))
        values = (scaled * area).sum(axis=(1, 2))[size > 0] / size[size > 0]
        found["mean"][name] = [float(values.mean()), *bootstrap_interval(values, seed=seed)]
        found["share"][name] = float((strength * area).sum() / strength.sum())
    return found


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    names = ("digit", "around", "far", "constant")
    values = [
        [title, *(f"{found['mean'][name][0]:+.3f}" for name in names)] for title, found in result["methods"].items()
    ]
    lying = ("digit", "around", "constant", "background")
    of_all = {title: found["share"] for title, found in result["methods"].items()} | {"(of the area)": result["area"]}
    shares = [[title, *(f"{100 * share[name]:.1f} %" for name in lying)] for title, share in of_all.items()]
    return f"""# Figure 5: saliency maps for an MLP on MNIST

![Eight digits, and for each the saliency maps of MIP-IN and seven baselines]({result["pictures"][0]})

Attributions for the logit of the digit, which the model recognises: red positive, blue negative, white 0, each map
with a scale of its own. The MLP has neither convolutions nor pooling that would make a map look good (section 6.2.1).

What the picture shows, in numbers: over {result["images"]:,} test images that the model classifies rightly, each map
scaled to a largest absolute value of 1, the mean value on the digit (pixels above {INK}), around it (pixels of 0, at
most {RING} from one that is not), far from it, and on the {result["constant_pixels"]} pixels that are the same in all
{result["fit_images"]:,} training images:

{report.table(["mean value", "on the digit", "around it", "far", "constant pixels"], values)}

And how much of the map, in absolute values, lies where:

{report.table(["share", "on the digit", "around it", "constant pixels", "all pixels of 0"], shares)}

{chr(10).join(verdicts(result))}

Model: the MLP of Table 3, {digits.trained_on(result["about"])}. MIP-IN and PatternAttribution are fitted on
{result["fit_images"]:,} training images, of all classes.
"""


def verdicts(result: dict[str, Any]) -> list[str]:
    """The three observations of section 6.2.2, and for which methods they hold."""
    methods_found = result["methods"]
    mip = methods_found["MIP-IN"]

    def those(test: Callable[[dict[str, Any]], bool]) -> list[str]:
        return [title for title, found in methods_found.items() if test(found)]

    positive = those(lambda found: found["mean"]["digit"][1] > 0)
    negative = those(lambda found: found["mean"]["around"][2] < 0)
    silent = those(lambda found: found["share"]["constant"] < 1e-3)
    cleaner = those(lambda found: found["share"]["background"] < mip["share"]["background"])
    denser = those(lambda found: found["share"]["digit"] > mip["share"]["digit"])
    zero = those(lambda found: found["share"]["background"] < 1e-6)
    whole = [title for title in positive if title in negative and title in silent]
    lines = [
        f'- "The pixels on the digit have a positive effect" (the 95 % interval of the mean lies above 0): '
        f"{comma_list(positive)}.",
        f'- "The pixels around the digit play a negative role" (it lies below 0): {comma_list(negative)}.',
        f'- "The regions on the background, which are scored close to 0" (less than 0.1 % of the map lies on constant '
        f"pixels): {comma_list(silent)}. For MIP-IN by construction: a constant pixel's regression weights are 0. A "
        "gradient's are what the network was initialised with, which training never touched.",
        f"- All three together: {comma_list(whole)}. MIP-IN's picture is {'' if 'MIP-IN' in whole else 'not '}what "
        "the paper says.",
        f'- "Accurate localization", "sharper and cleaner": {100 * mip["share"]["background"]:.0f} % of MIP-IN\'s map '
        "(in part what it says of the pixels around the digit) lies on pixels of 0, less for "
        f"{comma_list(cleaner)}; {100 * mip['share']['digit']:.0f} % lies on the digit, more for {comma_list(denser)}.",
    ]
    if zero:
        lines.append(
            f"- {comma_list(zero)} give exactly 0 wherever the image is 0: they multiply by the input, and can say "
            "nothing of what is missing around a digit."
        )
    return lines


def comma_list(titles: list[str]) -> str:
    """Names in a sentence."""
    return ", ".join(titles) if titles else "no method"
