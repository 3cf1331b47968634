"""The page and the pictures of the decomposition of what a representation knows, made from its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.channels import resized
from mipin_keras.information.results import Decomposition

from . import explained, methods, phrases, report
from .photographs import LARGEST_SHARE, Photographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The parts of the decomposition, and what they are called here.
PARTS = {"total": "total", "decision": "decision-related", "redundant": "redundant"}
MASK, FEATURE = "mask λ", "feature map, mean over channels"
#: Points of accuracy that the masked network may lose.
MARGIN = 2.0


def picture(shown: Photographs, parts: Decomposition) -> Figure:
    """Draw photographs, below each the three parts over it, each from its smallest value up, and the mask."""
    lows = {part: getattr(parts, part).min(axis=(1, 2)) for part in PARTS}
    highs = {part: getattr(parts, part).max(axis=(1, 2)) for part in PARTS}
    rows = {
        title: resized(getattr(parts, part) - lows[part][:, None, None], shown.size) for part, title in PARTS.items()
    }
    captions = {
        title: [f"{low:.1f} to {high:.1f} nats" for low, high in zip(lows[part], highs[part], strict=True)]
        for part, title in PARTS.items()
    }
    captions[MASK] = [f"coverage {mask.mean():.2f}" for mask in parts.mask]
    return explained.sheet(
        shown.pixels(),
        shown.boxes,
        rows | {MASK: resized(parts.mask, shown.size)},
        titles=[shown.names[label] for label in shown.labels],
        captions=captions,
        over=list(PARTS.values()),
        tops={MASK: np.ones(len(parts.mask))},
        columns=len(shown.paths),
    )


def markdown(result: dict[str, Any]) -> str:
    """The pictures and the tables of each model."""
    sections = "\n\n".join(_section(name, found) for name, found in result["models"].items())
    return f"""# What a representation knows: total, decision-related and redundant information

Gu, "Explaining Representation by Mutual Information" (arXiv 2103.15114), which publishes pictures and no numbers: there
is nothing to hold these beside. Of each location of a feature map it asks what the representation Z, here what the last
layer reads, shares with the vector there: the *total* information. A mask module leaves of the map what the decision
needs, λ of each vector; what Z shares with the masked vector is *decision-related*, the difference *redundant*. Both
are estimates against negatives, parts of other photographs: one near log(number of negatives) says only that there
is as much or more. Nothing forces the total to be the larger one at a location.

The mask module and the critic were fitted on training photographs with the labels of the data, the network as it is.
All else is of validation photographs, with 95 % bootstrap intervals over them. Behind the mask, the network sees λ
times the feature map. λ *shuffled* is a check of ours: the same values at locations drawn at random, which shows
whether it matters where the mask lets things through. Bounding-box accuracy is Table 2's: of the n strongest pixels,
the share in the box of n pixels, for boxes that cover less than {LARGEST_SHARE:.0%}, the class of Grad-CAM and MIP-IN
the photograph's label. The three parts and the mask are no explanations of a class: where they find objects, the
network knows more of these, or needs more, than of what is around.

{chr(10).join(verdict(name, found) for name, found in result["models"].items())}

{sections}
"""


def _section(name: str, found: dict[str, Any]) -> str:
    fit, boxes = found["fit"], found["boxes"]
    return f"""## {name}, {found["title"]}

![{name}: photographs, the three parts of the information and the mask]({found["picture"]})

Red lies over the grey photograph where a part is large, from its smallest value there to its largest, as the paper
draws them: the numbers below say which. The mask is black where λ is 1. The orange frame is the box.

Of {found["photographs"]:,} validation photographs, at the {found["locations"]} locations of `{found["layer"]}`:

{report.table(["nats", "sum over the locations", "mean a location"], _information(found))}

{report.table(["", "found"], _mask(found))}

Bounding-box accuracy on {boxes["photographs"]:,} of them, all maps of the same layer; MIP-IN fitted on the same
training photographs, for their {boxes["classes"]:,} classes:

{report.table(["map", "bounding-box accuracy", "less the centre prior's"], _boxes(found))}

The fit took {fit["seconds"]:.0f} s: {fit["epochs"]} epochs of each training, batches of {fit["batch_size"]},
{fit["samples"][0]:,} photographs trained on and {fit["samples"][1]:,} held out. On those held out, total
{fit["total"]:.2f} and decision-related {fit["decision"]:.2f} nats a location (on those trained on, in the last epoch,
{fit["history"]["critic"]["total"][-1]:.2f} and {fit["history"]["critic"]["decision"][-1]:.2f}), the limit
{fit["limit"]:.2f}; coverage
{fit["coverage"]:.2f}; accuracy {100 * fit["accuracy"]:.1f} % without the mask, {100 * fit["masked_accuracy"]:.1f} %
behind it. The limit of the numbers in the tables above is {fit["analysis_limit"]:.2f}."""


def _information(found: dict[str, Any]) -> list[list[str]]:
    return [
        [title, _interval(found["information"][part], ".1f"), f"{_of_location(found, part):.2f}"]
        for part, title in PARTS.items()
    ]


def _mask(found: dict[str, Any]) -> list[list[str]]:
    accuracy, difference = found["accuracy"], found["difference"]
    return [
        ["coverage, the mean of λ", _interval(found["coverage"], ".3f")],
        ["standard deviation of λ over a photograph's locations", f"{found['spread']:.3f}"],
        ["accuracy without the mask", _interval(accuracy["unmasked"], ".3f")],
        ["accuracy behind the mask", _interval(accuracy["masked"], ".3f")],
        ["difference behind the mask, points", _interval(difference["masked"], "+.1f")],
        ["accuracy behind λ shuffled", _interval(accuracy["shuffled"], ".3f")],
        ["difference behind λ shuffled, points", _interval(difference["shuffled"], "+.1f")],
        ["decisions that stay behind the mask", _interval(found["kept"], ".3f")],
        ["locations where decision-related exceeds total", f"{found['above']:.3f}"],
        ["photographs where its sum does", f"{found['above_in_sum']:.3f}"],
    ]


def _boxes(found: dict[str, Any]) -> list[list[str]]:
    rows, differences = found["boxes"]["rows"], found["boxes"]["differences"]
    made = [
        [title, _interval(row, ".3f"), _interval(differences[title], "+.3f") if title in differences else "-"]
        for title, row in rows.items()
    ]
    return [*made, ["chance", f"{found['chance']:.3f}", "-"]]


def verdict(name: str, found: dict[str, Any]) -> str:
    """What was found on a model, in a line."""
    total, decision, redundant = (_of_location(found, part) for part in PARTS)
    difference, shuffled = (found["difference"][how]["mean"] for how in ("masked", "shuffled"))
    within = "within" if abs(difference) <= MARGIN else "not within"
    larger = "the larger on average" if total > decision else "not the larger on average"
    rows = found["boxes"]["rows"]
    best = max([*PARTS.values(), MASK], key=lambda title: rows[title]["mean"])
    beside = [f"{title} {rows[title]['mean']:.3f}" for title in ("Grad-CAM", "MIP-IN", methods.CENTRE)]
    return (
        f"- {name}: {total:.2f} nats a location in total, {larger}, {decision:.2f} decision-related, {redundant:.2f} "
        f"redundant; decision-related exceeds total at {100 * found['above']:.1f} % of the locations. At coverage "
        f"{found['coverage']['mean']:.2f} the masked network's accuracy changes by {difference:+.1f} points, {within} "
        f"{MARGIN:.0f} (λ shuffled {shuffled:+.1f}). Of its maps {best} finds the boxes best, "
        f"{rows[best]['mean']:.3f}; {phrases.and_list(beside)}."
    )


def _of_location(found: dict[str, Any], part: str) -> float:
    return found["information"][part]["mean"] / found["locations"]


def _interval(row: dict[str, float], form: str) -> str:
    return phrases.with_interval(row["mean"], (row["low"], row["high"]), form)
