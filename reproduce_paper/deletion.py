"""Deletion and insertion curves of all methods, on photographs and on MNIST."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from mipin_keras import metrics

from . import data, explained, gallery, methods, models, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is measured on photographs: by name, the measure and its baseline.
PHOTOGRAPHS = {
    "deletion, blurred": (metrics.deletion, "blur"),
    "insertion, blurred": (metrics.insertion, "blur"),
    "deletion, mean colour": (metrics.deletion, "mean"),
    "insertion, mean colour": (metrics.insertion, "mean"),
}
#: And on MNIST, where 0 is the background.
DIGITS = {"deletion, black": (metrics.deletion, "zero"), "insertion, black": (metrics.insertion, "zero")}
#: Rankings that know nothing of the model.
RANDOM, CENTRE = "random ranking", "centre prior"


class Scale(NamedTuple):
    """How much of everything a run takes."""

    photographs: int = 80  # of those that the model classifies rightly
    candidates: int = 2000  # test photographs that are looked at to find them
    digits: int = 300
    fit_digits: int = 5000
    steps: int = 12


QUICK = Scale(photographs=12, candidates=300, digits=20, fit_digits=300, steps=8)


def rightly(
    predict: Callable[[np.ndarray], Any], batches: Callable, labels: np.ndarray, count: int
) -> tuple[np.ndarray, int]:
    """The first ``count`` samples that are classified as labelled: their indices, and how many were looked at.

    Args:
        predict: From a batch to probabilities ``(b, classes)``.
        batches: From a slice of the samples to what ``predict`` takes.
        labels: ``(n,)``.
        count: How many are wanted.

    Raises:
        ValueError: If there is none.
    """
    found: list[int] = []
    for start in range(0, len(labels), 100):
        part = slice(start, start + 100)
        found += (start + np.flatnonzero(np.argmax(predict(batches(part)), axis=1) == labels[part])).tolist()
        if len(found) >= count:
            return np.array(found[:count]), found[count - 1] + 1
    if not found:
        raise ValueError(f"expected images that the model classifies rightly, found none among {len(labels)}")
    return np.array(found), len(labels)


def curves(
    predict: Callable[[np.ndarray], Any],
    x: np.ndarray,
    labels: np.ndarray,
    maps: Mapping[str, np.ndarray],
    measures: Mapping[str, tuple[Callable[..., metrics.Curves], str]],
    scale: Scale,
    seed: int,
) -> dict[str, dict[str, metrics.Curves]]:
    """The curves of every measure for each ranking of the pixels of ``x``, by the names of both."""
    return {
        name: {
            title: measure(
                predict, x, ranking, labels, baseline=baseline, steps=scale.steps, batch_size=len(x), seed=seed
            )
            for title, ranking in maps.items()
        }
        for name, (measure, baseline) in measures.items()
    }


def blind(size: tuple[int, int], count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The maps ``(count, *size)`` that know nothing of the model."""
    prior = metrics.centre_prior(size)
    return {RANDOM: rng.random((count, *size)), CENTRE: np.broadcast_to(prior, (count, *size))}


def summary(parts: list[dict[str, dict[str, metrics.Curves]]], seed: int) -> dict[str, Any]:
    """Batches of curves put together: for each measure and ranking the mean curve and area, and how far MIP-IN is off.

    Returns:
        By the measure ``shares`` and ``rankings``; of each ranking ``area``,
        the mean over the images with its 95 % ``interval``, the mean
        ``curve``, and ``beyond_mipin``, the 95 % interval of its area less
        that of MIP-IN, image by image.
    """
    found = {}
    for name, first in parts[0].items():
        shares = next(iter(first.values())).shares
        whole = {
            title: metrics.Curves(shares, np.concatenate([part[name][title].scores for part in parts]))
            for title in first
        }
        ours = whole["MIP-IN"].areas
        found[name] = {
            "shares": shares.tolist(),
            "rankings": {
                title: {
                    "area": one.mean_area,
                    "interval": metrics.bootstrap_interval(one.areas, seed=seed),
                    "beyond_mipin": metrics.bootstrap_interval(one.areas - ours, seed=seed),
                    "curve": one.scores.mean(axis=0).tolist(),
                }
                for title, one in whole.items()
            },
        }
    return found


def on_photographs(
    subject: gallery.Subject, photographs: gallery.Gallery, args: argparse.Namespace, scale: Scale, say: Callable
) -> dict[str, Any]:
    """Measure one of the gallery's models."""
    rng = np.random.default_rng(args.seed)
    test = photographs.test.take(rng.permutation(len(photographs.test.paths))[: scale.candidates])

    def inputs(part: slice) -> np.ndarray:
        return subject.preprocess(test.take(range(len(test.paths))[part]).pixels())

    predict = subject.model.predict_on_batch
    indices, looked = rightly(predict, inputs, test.labels, scale.photographs)
    chosen = test.take(indices)
    analyzers = explained.fitted(methods.METHODS, subject, photographs.train, set(chosen.labels), args, say)
    parts = []
    for start in range(0, len(indices), 50):
        part = chosen.take(range(start, min(start + 50, len(indices))))
        x = subject.preprocess(part.pixels())
        maps = {title: methods.saliency(title, one, x, part.labels) for title, one in analyzers.items()}
        maps |= blind(test.size, len(x), rng)
        say(f"{subject.name}: curves of {start + len(x)} of {len(indices)} photographs")
        parts.append(curves(predict, x, part.labels, maps, PHOTOGRAPHS, scale, args.seed))
    fit = explained.QUICK_FIT if args.quick else explained.FIT
    about = subject.about | {"images": len(indices), "looked_at": looked}
    about["fit"] = {title: min(count, len(photographs.train.paths)) for title, count in fit.items()}
    return {"about": about, "data": photographs.title, "measures": summary(parts, args.seed)}


def on_digits(args: argparse.Namespace, scale: Scale, say: Callable) -> dict[str, Any]:
    """Measure the CNN of Table 4 on MNIST, all methods explained down to the pixels and read with their sign."""
    images = data.load("mnist", args.data_dir)
    model, about = models.trained("CNN-M", images, args.cache_dir, seed=args.seed, **models.QUICK if args.quick else {})
    train, test = models.shape_for(model, images.x_train), models.shape_for(model, images.x_test)
    predict, rng = model.predict_on_batch, np.random.default_rng(args.seed)
    indices, looked = rightly(predict, lambda part: test[part], images.y_test, scale.digits)
    x, labels, maps = test[indices], images.y_test[indices], {}
    for title in methods.METHODS:
        analyzer = methods.create(title, model, seed=args.seed)
        if title in methods.LEARNED:
            say(f"CNN-M: {title} is fitted on {min(scale.fit_digits, len(train)):,} digits")
            analyzer.fit(train[: scale.fit_digits], batch_size=256)
        maps[title] = analyzer.analyze(x, labels, reduce="sum")
    say(f"CNN-M: curves of {len(x)} digits")
    found = curves(predict, x, labels, maps | blind(x.shape[1:3], len(x), rng), DIGITS, scale, args.seed)
    about |= {"images": len(x), "looked_at": looked}
    about["fit"] = dict.fromkeys(methods.LEARNED, min(scale.fit_digits, len(train)))
    return {"about": about, "data": "MNIST", "measures": summary([found], args.seed)}


def picture(measures: Mapping[str, Any]) -> Figure:
    """The mean curves, a panel a measure; MIP-IN thick, what knows nothing of the model black."""
    from matplotlib.figure import Figure

    lines = -(-len(measures) // 2)
    figure = Figure(figsize=(7.5, 3.0 * lines + 1.1), layout="constrained")
    axes = figure.subplots(lines, 2, sharey=True).flat
    styles: dict[str, dict[str, Any]] = {
        "MIP-IN": {"color": "red", "linewidth": 2.5, "zorder": 3},
        RANDOM: {"color": "black", "linestyle": "--"},
        CENTRE: {"color": "black", "linestyle": ":"},
    }
    others = [title for title in methods.METHODS if title not in styles]
    colors = ["C0", "C1", "C2", "C4", "C5", "C6", "C8", "C9"]
    styles |= {title: {"color": color, "linewidth": 1.2} for title, color in zip(others, colors, strict=True)}
    for ax, (name, found) in zip(axes, measures.items(), strict=True):
        for title, one in found["rankings"].items():
            ax.plot(found["shares"], one["curve"], label=title, **styles[title])
        ax.set_title(name, fontsize=11)
        ax.set_xlabel(f"share of the pixels {'replaced' if name.startswith('deletion') else 'put back'}", fontsize=10)
        ax.set_xlim(0, 1)
        ax.grid(color="0.9")
    figure.axes[0].set_ylim(bottom=0)
    figure.get_layout_engine().set(wspace=0.06)
    figure.supylabel("probability of the class", fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """The page: for each model the areas, the curves, and what the numbers say."""
    page = ["# Deletion and insertion curves\n", ABOUT.strip()]
    for (name, found), file in zip(result["subjects"].items(), result["pictures"], strict=True):
        measures, about = found["measures"], found["about"]
        fit = ", ".join(f"{title} on {count:,}" for title, count in about["fit"].items())
        page.append(
            f"\n## {name}, {found['data']}\n\nTest accuracy {100 * about['accuracy']:.1f} %; the first "
            f"{about['images']} images that it classifies rightly, of {about['looked_at']} looked at in an order drawn "
            f"by the seed or the data set's own. {result['scale']['steps']} steps. Fitted on training images: {fit}.\n"
        )
        rows = []
        for title in next(iter(measures.values()))["rankings"]:
            cells = []
            for measure in measures.values():
                one = measure["rankings"][title]
                cells.append(f"{one['area']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}]")
            rows.append([title, *cells])
        page += [report.table(["area under the curve", *measures], rows), ""]
        page += [f"- {verdict(measure, one['rankings'])}" for measure, one in measures.items()]
        page.append(f"\n![{name}: the mean curves of every ranking]({file})")
    return "\n".join(page)


ABOUT = """
The pixels of an image are ranked by a map, highest first. *Deletion* replaces the top share of them (Samek et al.
2016; Petsiuk et al. 2018): the sooner the probability of the class falls, the smaller the area under the curve, the
better. *Insertion* starts from what replaces them and puts them back: the larger the area, the better. The paper has
neither. The probability is the softmax of the label's class. Photographs are replaced by a Gaussian blur of
themselves, of a standard deviation of a tenth of their side, or by the mean of each of their channels, and digits by
0, their background. On photographs the maps are read as in Table 2: those of MIP-IN and Grad-CAM are of a
feature map, the others' of the pixels, absolute values. On digits all explain the
pixels, and these are ranked by the attribution itself with its sign. Ties are broken at random. Areas are means over
images, with 95 % bootstrap intervals. An image with pixels replaced is one that no model was trained on: a map of
single pixels (as of gradients) makes another pattern of holes than a smooth one, so both measures say as much about
the model beside its data as about the map, and the random ranking and the centre prior, which know nothing of the
model, show how much that alone does.
"""


def verdict(measure: str, rankings: Mapping[str, Mapping[str, Any]]) -> str:
    """Who leads, where MIP-IN stands, and who does no better than what knows nothing of the model."""
    sign = 1 if measure.startswith("deletion") else -1
    area = {title: rankings[title]["area"] for title in rankings}
    order = sorted(methods.METHODS, key=lambda title: (sign * area[title], title != "MIP-IN"))
    word, place = "smallest" if sign > 0 else "largest", order.index("MIP-IN") + 1
    text = f"**{measure}**: the {word} area is that of {order[0]}, {area[order[0]]:.3f}"
    if place == 1:
        low, high = rankings[order[1]]["beyond_mipin"]
        other = f"{order[1]}, {area[order[1]]:.3f}, is next"
    else:
        low, high = rankings[order[0]]["beyond_mipin"]
        other = f"MIP-IN does not lead: {area['MIP-IN']:.3f}, place {place} of {len(order)}"
    told = "does not tell the two apart" if low <= 0 <= high else "tells the two apart"
    text += f"; {other}; the interval of their difference, image by image, [{low:.3f}, {high:.3f}], {told}."
    for title in (RANDOM, CENTRE):
        worse = [one for one in order if sign * area[one] >= sign * area[title]]
        if worse:
            text += f" No better than the {title} ({area[title]:.3f}): {explained.listed(worse)}."
    return text


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    lines = []
    for name, found in result["subjects"].items():
        places = []
        for measure, one in found["measures"].items():
            sign = 1 if measure.startswith("deletion") else -1
            areas = {title: sign * one["rankings"][title]["area"] for title in methods.METHODS}
            order = sorted(areas, key=lambda title: (areas[title], title != "MIP-IN"))
            first = "leads" if order[0] == "MIP-IN" else f"place {order.index('MIP-IN') + 1}, {order[0]} leads"
            places.append(f"{measure}: {first}")
        lines.append(f"{name}, MIP-IN among {len(methods.METHODS)} methods: {'; '.join(places)}.")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``deletion.json``, ``deletion.md`` and a picture a model."""
    experiment = report.Experiment("deletion", args)
    scale = QUICK if args.quick else Scale()
    photographs = gallery.load(args)
    subjects = {}
    for name, subject in photographs.subjects.items():
        subjects[name] = on_photographs(subject, photographs, args, scale, experiment.say)
    keras.backend.clear_session()
    subjects["CNN-M"] = on_digits(args, scale, experiment.say)
    experiment.result |= {"scale": scale._asdict(), "subjects": subjects}
    for name, found in subjects.items():
        experiment.picture(picture(found["measures"]), name)
    return experiment.write(markdown(experiment.result))
