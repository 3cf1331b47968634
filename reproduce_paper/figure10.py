"""Figure 10: MIP-IN beside Grad-CAM on photographs of different classes, with each one's bounding-box accuracy."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np

from mipin_keras.metrics import bounding_box_accuracy

from . import explained, gallery, methods, report
from .photographs import LARGEST_SHARE

SHOWN = 8
TITLES = ["MIP-IN", "Grad-CAM"]


add_arguments = gallery.add_arguments


def run(args: argparse.Namespace) -> pathlib.Path:
    """Explain one photograph of each of eight classes on both models; draw and measure."""
    experiment = report.Experiment("figure10", args)
    photographs = gallery.load(args)
    subjects, test = photographs.subjects.values(), photographs.test
    rng = np.random.default_rng(args.seed)
    picked: list[int] = []
    right: list[bool] = []
    for number in rng.permutation(len(test.names)):
        among = explained.candidates(test, number, LARGEST_SHARE)
        if len(among) and len(picked) < SHOWN:
            index, classified = explained.chosen(subjects, test, among, 1, rng)
            picked.append(int(index[0]))
            right.append(bool(classified[0]))
    eight = test.take(picked)
    pixels, masks = eight.pixels(), eight.masks()
    experiment.result |= {
        "photographs": photographs.title,
        "reading": str(methods.MIPIN),
        "classes": [test.names[label] for label in eight.labels],
        "right": right,
        "chance": float(masks.mean()),
        "models": {},
    }
    for name, subject in photographs.subjects.items():
        analyzers = explained.fitted(TITLES, subject, photographs.train, eight.labels, args, experiment.log)
        x = subject.preprocess(pixels)
        maps = {title: methods.saliency(title, analyzers[title], x, eight.labels) for title in TITLES}
        found = {title: bounding_box_accuracy(maps[title], masks).per_image for title in TITLES}
        figure = explained.sheet(
            pixels,
            eight.boxes,
            maps,
            titles=experiment.result["classes"],
            captions={title: [f"{value:.2f}" for value in values] for title, values in found.items()},
            over=TITLES,
        )
        experiment.result["models"][name] = {
            "about": subject.about,
            "layer": subject.layer,
            "accuracy": {title: values.tolist() for title, values in found.items()},
            "picture": experiment.picture(figure, name.lower()),
        }
    return experiment.write(markdown(experiment.result))


def markdown(result: dict[str, Any]) -> str:
    """The pictures, and the bounding-box accuracy of those shown."""
    models, shown = result["models"], len(result["classes"])
    rows = []
    for i, name in enumerate(result["classes"]):
        rows.append([name, *(f"{of['accuracy'][title][i]:.2f}" for of in models.values() for title in TITLES)])
    means = [float(np.mean(of["accuracy"][title])) for of in models.values() for title in TITLES]
    rows.append(["**mean**", *(f"{value:.2f}" for value in means)])
    wrong = shown - sum(result["right"])
    pictures = "\n\n".join(
        f"![{name}: the photographs, MIP-IN's and Grad-CAM's maps over them]({of['picture']})"
        for name, of in models.items()
    )
    return f"""# Figure 10: MIP-IN beside Grad-CAM

One test photograph of each of {shown} classes drawn by the seed, of {result["photographs"]}, with boxes that cover less
than {100 * LARGEST_SHARE:.0f} % of it, among those that both models classify rightly\
{f" ({wrong} of them are not, for want of others)" if wrong else ""}. Red lies over the grey photograph where a map is
large, the orange frame is the box, and the number below each map its bounding-box accuracy: of the n largest pixels,
the share inside the box of n pixels. MIP-IN explains down to
{_layers(models)}; its map is the attribution there ({result["reading"]}). Grad-CAM weighs
the last convolution's feature map. Each layer is the method's best of the sweep on training photographs.

{pictures}

{report.table(["", *(f"{name}, {title}" for name in models for title in TITLES)], rows)}

The boxes cover {100 * result["chance"]:.0f} % of the pixels on average, which is what a random map scores.

{chr(10).join(_verdict(name, of) for name, of in models.items())}

The paper shows such photographs, without numbers, and says that MIP-IN localises more accurately than Grad-CAM. So few
photographs decide nothing: `table2` measures both on all.
"""


def _layers(models: dict[str, Any]) -> str:
    return ", ".join(f"`{of['layer']}` of the {name}" for name, of in models.items())


def _verdict(name: str, of: dict[str, Any]) -> str:
    """One line: on how many of the photographs MIP-IN is the more accurate."""
    ours, theirs = (np.array(of["accuracy"][title]) for title in TITLES)
    higher, lower = int((ours > theirs).sum()), int((ours < theirs).sum())
    leads = "leads" if ours.mean() > theirs.mean() else "does not lead"
    return (
        f"- {name} ({100 * of['about']['accuracy']:.1f} % right): MIP-IN {leads}: more accurate on {higher}, less on "
        f"{lower} of {len(ours)}; {ours.mean():.2f} and {theirs.mean():.2f} on average."
    )
