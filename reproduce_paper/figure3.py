"""Figure 3: global and local source signals and attributions of samples of one digit."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np

from mipin_keras.plotting import plot

from . import digits, report

SHOWN = 8
SHOWN_MAPS = ("source signal", "attribution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    parser.add_argument("--class", dest="digit", type=int, choices=range(10), default=0, help="the digit")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Fit MIP-IN with and without its forward ReLU, draw both, measure what the paper says of them."""
    experiment = report.Experiment("figure3", args)
    trained = digits.load("MLP-M", args)
    count = 1000 if args.quick else 50000
    chosen = trained.right(args.digit)[: 100 if args.quick else None]
    x = trained.test[chosen]
    maps: dict[str, dict[str, np.ndarray]] = {}
    for view in ("global", "local"):
        forward = view == "local"
        classes = args.digit if forward else None  # the other digits' global maps are what chance is read from
        analyzer = digits.fitted("MIP-IN", trained, count, args, experiment.log, forward_relu=forward, classes=classes)
        maps[view] = {
            "source signal": analyzer.source_signal(x, args.digit),
            "attribution": analyzer.analyze(x, args.digit),
        }
        if not forward:
            logits = analyzer.logits(x[:1])[0]
            others = {c: analyzer.analyze(x[:1], c)[0] / logits[c] for c in range(len(logits)) if c != args.digit}

    rows = {f"{what},\n{view}": show(what, maps[view][what][:SHOWN]) for view in maps for what in SHOWN_MAPS}
    pictures = [f"source signal,\n{view}" for view in maps]
    local = maps["local"]["attribution"]
    experiment.result |= {
        "digit": args.digit,
        "about": trained.about,
        "fit_images": min(count, len(trained.train)),
        "images": len(x),
        "shown": chosen[:SHOWN].tolist(),
        "between_samples": between(x),
        "maps": {
            view: {what: {"between": between(found), "own": own(found, x)} for what, found in of_view.items()}
            for view, of_view in maps.items()
        },
        "local_with_global": own(local, maps["global"]["attribution"]),
        "local_with_others": {c: own(local, np.broadcast_to(other, x.shape)) for c, other in others.items()},
    }
    experiment.picture(plot.grid(rows, images=x[:SHOWN], pictures=pictures, cell=0.8))
    return experiment.write(markdown(experiment.result))


def show(what: str, maps: np.ndarray) -> np.ndarray:
    """Maps as they are drawn: source signals are cut to the range of images, [0, 1]."""
    return np.clip(maps, 0, 1) if what == "source signal" else maps


def between(maps: np.ndarray) -> float:
    """The mean correlation (Pearson's, over the pixels) of two different samples' maps, all pairs."""
    z = _standard(maps)
    n = len(z)
    return float((np.square(z.sum(axis=0)).sum() - n) / (n * (n - 1)))


def own(maps: np.ndarray, others: np.ndarray) -> float:
    """The mean correlation of each sample's map with its other one."""
    return float((_standard(maps) * _standard(others)).sum(axis=1).mean())


def _standard(maps: np.ndarray) -> np.ndarray:
    """Flattened maps, centred and of length 1, so that products of two are correlations."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("expected maps that are not constant, received one, which has no correlation; leave it out")
    return flat / length


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    maps, digit = result["maps"], result["digit"]
    rows = [["the samples themselves", f"{result['between_samples']:.3f}", ""]]
    rows += [
        [f"{what}, {view}", f"{maps[view][what]['between']:.3f}", f"{maps[view][what]['own']:.3f}"]
        for what in SHOWN_MAPS
        for view in ("global", "local")
    ]
    header = ["maps", "between two samples", "with the sample itself"]
    return f"""# Figure 3: global and local source signals and attributions

![Samples of the digit {digit}, and for each its source signal and attribution, global and \
local]({result["pictures"][0]})

Samples of the digit {digit} and what MIP-IN makes of them for the logit of {digit}: globally (without the forward
ReLU, `forward_relu=False`), and locally (with it, the default). Source signals are drawn as images, cut to [0, 1];
attributions red where positive, blue where negative, white at 0, each with a scale of its own.

{report.table(header, rows)}

Mean correlation (Pearson's, over the pixels), of all pairs of the {result["images"]:,} test images of this digit that
the model classifies rightly, and of each image's map with the image itself.

{chr(10).join(verdicts(result))}

Model: the MLP of Table 3, {digits.trained_on(result["about"])}. MIP-IN is fitted on {result["fit_images"]:,} training
images, of all classes.
"""


def verdicts(result: dict[str, Any]) -> list[str]:
    """What section 4.3 says of the figure, and whether our numbers say so."""
    glob, local = result["maps"]["global"], result["maps"]["local"]
    same = min(glob[what]["between"] for what in SHOWN_MAPS)
    apart = all(local[what]["between"] < glob[what]["between"] for what in SHOWN_MAPS)
    source, before = local["source signal"]["own"], glob["source signal"]["own"]
    others = result["local_with_others"]
    closest = max(others, key=others.get)
    with_own = result["local_with_global"]
    return [
        f'- "Without forward relu, the produced global source signal and attribution vector keep almost the same for '
        f'different samples in the same class" (correlations above 0.95): {yes(same > 0.95)}, {same:.3f} or more. In '
        "an MLP it could not be otherwise: without masks the inverse is one affine map of one number, the logit, so "
        "that two attributions differ by a factor only.",
        f'- "After adopting the forward relu function for local adaptation, the framework can well adapt to each '
        f"specific input\" (two samples' local maps are less alike than their global ones, and a local source signal "
        f"is more like its own sample than a global one): {yes(apart and source > before)}, "
        f"{local['source signal']['between']:.3f} and {local['attribution']['between']:.3f} between samples, "
        f"{source:.3f} after {before:.3f} with the sample itself.",
        f'- "The attributions of local adaptation turn out to be specifications of the global attributions" (a local '
        f"one is more like the global one of its digit than like another digit's): {yes(with_own > others[closest])}, "
        f"{with_own:.3f}; with the other digits' global attributions (for a logit of 1) "
        f"{np.mean(list(others.values())):.3f} in the mean, at most {others[closest]:.3f} (digit {closest}).",
    ]


def yes(true: bool) -> str:
    """A claim's outcome, in bold."""
    return "**so it is here**" if true else "**not so here**"
