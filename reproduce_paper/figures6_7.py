"""Figures 6 and 7 (and 11 to 13): saliency maps of photographs of one class, MIP-IN and the seven baselines."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np

from mipin_keras.metrics import positive_share

from . import explained, gallery, methods, phrases, report
from .maps import defined_mean

SHOWN = 8
TITLES = ["MIP-IN", *methods.BASELINES]
#: The paper's classes, where the photographs have them; else a dog, an object, and one that people come with.
CLASSES = (("Shetland sheepdog", "hand blower", "ski"), ("German shepherd", "beer bottle", "Arabian camel"))
LARGEST = 0.5  # the share of a photograph that its boxes may cover: the rest is the background to look at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names or numbers of the classes to show")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Explain eight photographs of each class; draw and measure."""
    experiment = report.Experiment("figures6_7", args)
    photographs = gallery.load(args)
    subject, test = explained.subject_of(photographs), photographs.test
    numbers = explained.wanted_classes(test.names, args.classes, CLASSES)
    if args.quick and not args.classes:
        numbers = numbers[:1]
    analyzers = explained.fitted(TITLES, subject, photographs.train, numbers, args, experiment.log)
    rng = np.random.default_rng(args.seed)
    experiment.result |= explained.about(photographs, subject, args) | {"largest": LARGEST, "classes": []}
    for number in numbers:
        among = explained.candidates(test, number, LARGEST)
        if not len(among):
            raise ValueError(
                f"expected photographs of {test.names[number]!r} with boxes below {LARGEST}, received none; give other "
                "--classes"
            )
        indices, right = explained.chosen([subject], test, among, SHOWN, rng)
        eight = test.take(indices)
        pixels, masks = eight.pixels(), eight.masks()
        x = subject.preprocess(pixels)
        maps, inside = {}, {}
        for title in TITLES:
            experiment.log(f"{test.names[number]}: {title}")
            found = explained.read(title, analyzers[title], x, number)
            maps[title] = found.drawn
            inside[title] = defined_mean(positive_share(found.positive, masks).per_image)
        suffix = f"{number}-" if len(numbers) > 1 else ""
        ours = {"MIP-IN": maps["MIP-IN"], "over it": maps["MIP-IN"]}
        pictures = [experiment.picture(explained.sheet(pixels, eight.boxes, ours, over=["over it"]), f"{suffix}mipin")]
        for start in range(0, len(pixels), 4):
            part = slice(start, start + 4)
            rows = {title: maps[title][part] for title in methods.BASELINES}
            figure = explained.sheet(pixels[part], eight.boxes[part], rows)
            pictures.append(experiment.picture(figure, f"{suffix}baselines{start // 4 + 1}"))
        experiment.result["classes"].append(
            {"name": test.names[number], "shown": len(pixels), "right": int(right.sum()), "pictures": pictures}
            | {"chance": float(masks.mean()), "inside": inside}
        )
    return experiment.write(markdown(experiment.result))


def markdown(result: dict[str, Any]) -> str:
    """The pictures, and what share of the positive attribution lies in the boxes."""
    classes = result["classes"]
    rows = [[title, *(phrases.number(of["inside"][title]) for of in classes)] for title in classes[0]["inside"]] + [
        ["the boxes' share of the pixels", *(f"{of['chance']:.2f}" for of in classes)]
    ]
    pages = "\n\n".join(_pictures(of) for of in classes)
    return f"""# Figures 6 and 7: photographs of one class

The paper shows eight photographs of shetland sheepdogs, explained by MIP-IN on VGG19 (Figure 6) and by seven baselines
(Figure 7), and in Figures 11 to 13 hair dryers and skis. Ours are {_which(result)}.
{explained.setting(result)} Black is a map's 99.5th percentile and above; the orange frame is the box.

{pages}

## What lies in the boxes

The share of the positive attribution (ReLU of each channel's, then their mean) inside the boxes, averaged over the
photographs shown. They are few: `table2` measures localisation on all.

{report.table(["", *(of["name"] for of in classes)], rows)}

{chr(10).join(_verdict(of) for of in classes)}

The paper says that MIP-IN accurately locates the object and gives the background almost nothing, and that the baselines
usually give some noisy scores to the background.
"""


def _which(result: dict[str, Any]) -> str:
    classes = result["classes"]
    wrong = sum(of["shown"] - of["right"] for of in classes)
    words = f"test photographs whose boxes cover less than {100 * result['largest']:.0f} % of them, drawn by the seed"
    words += " among those that the model classifies rightly"
    return words + (f"; {wrong} of those shown it does not, for want of others" if wrong else "")


def _pictures(of: dict[str, Any]) -> str:
    first, *others = of["pictures"]
    lines = [f"## {of['name']}", f"![{of['name']}: the photographs, MIP-IN's maps, and these over them]({first})"]
    lines += [f"![{of['name']}: the photographs and the seven baselines' maps]({file})" for file in others]
    return "\n\n".join(lines)


def _verdict(of: dict[str, Any]) -> str:
    """One line: MIP-IN's share beside the best baseline's and the boxes' share of the pixels."""
    known = {title: value for title, value in of["inside"].items() if value is not None}
    ours = known.pop("MIP-IN", None)
    if ours is None or not known:
        return f"- {of['name']}: MIP-IN, or every baseline, has no positive attribution there."
    best = max(known, key=known.__getitem__)
    leads = "MIP-IN puts the largest share in the boxes" if ours > known[best] else "MIP-IN does not lead"
    return (
        f"- {of['name']}: {leads}: {ours:.2f}, the best baseline ({best}) {known[best]:.2f}, "
        f"the boxes' share of the pixels {of['chance']:.2f}."
    )
