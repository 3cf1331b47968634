"""Sanity check: how much of each method's map stays when the model's layers are randomised from the output down."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import mipin_keras
from mipin_keras.channels import reduced
from mipin_keras.metrics import cascading, similarity

from . import arguments, data, gallery, methods, models, report, sanity_page

KEPT = "not refitted"
#: What is drawn: a method, and of those that learn whether it is fitted anew after each randomisation.
CURVES = [
    (f"{title}, {kept}" if kept else title, title, bool(kept))
    for title in methods.METHODS
    for kept in (("", KEPT) if title in methods.LEARNED else ("",))
]
# The value of a random logit may be negative, which turns a map around: all maps are scaled as if it were positive.
PROPORTIONAL = ("LRP-epsilon", "PatternAttribution", "MIP-IN")  # to the value that they start from
OPTIONS = {"Guided Backprop": {"head": "one"}, "Deconvnet": {"head": "one"}}


class Scale(NamedTuple):
    """How many images, copies and rows a run takes."""

    photographs: int = 40  # explained
    digits: int = 100
    photo_fit: int = 500  # images that the methods which learn are fitted on
    digit_fit: int = 500
    smooth: int = 16  # SmoothGrad's noisy copies of an image
    rows: int = 1 << 13  # that MIP-IN's regressions take of a convolution


QUICK = Scale(8, 10, 40, 60, 4, 1 << 11)


class Case(NamedTuple):
    """A model, what is explained of it, and how maps are read.

    Attributes:
        title: What the model and its images are.
        layer: Where MIP-IN's explanation ends; None for pixels.
        x, classes: What is explained, for each sample the class.
        pixels: The samples to look at, ``(n, height, width[, 3])``.
        fit: What the methods that learn are fitted on.
        readings: How a map's channels become one value a pixel.
        about: What made the model.
    """

    title: str
    model: keras.Model
    layer: str | None
    x: np.ndarray
    classes: np.ndarray
    pixels: np.ndarray
    fit: Any
    readings: dict[str, str]
    about: dict[str, Any]


def evenly_by_class(labels: np.ndarray, n: int) -> np.ndarray:
    """The indices of ``n`` samples, about as many of each class, ordered by class; of all if there are fewer."""
    order = np.argsort(labels, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def photographs(args: argparse.Namespace, scale: Scale) -> Case:
    """The case of photographs: their VGG, or the first model that ``--subjects`` leaves."""
    found = gallery.load(args)
    name, subject = next(iter(found.subjects.items()))
    chosen = found.test.take(evenly_by_class(found.test.labels, scale.photographs))
    fit = found.train.take(evenly_by_class(found.train.labels, scale.photo_fit))
    pixels = chosen.pixels()
    return Case(
        f"{name}, {found.title}", subject.model, subject.layer, subject.preprocess(pixels), chosen.labels, pixels,
        fit.stream(subject.preprocess, 50), methods.READINGS, subject.about,
    )  # fmt: skip


def digits(args: argparse.Namespace, scale: Scale) -> Case:
    """The case of MNIST: the CNN of Table 4, explained down to its pixels by all methods but Grad-CAM."""
    images = data.load("mnist", args.data_dir)
    less = models.QUICK if args.quick else {}
    model, about = models.trained("CNN-M", images, args.cache_dir, seed=args.seed, verbose=args.verbose, **less)
    chosen = evenly_by_class(images.y_test, scale.digits)
    return Case(
        "CNN-M, MNIST", model, None, models.shape_for(model, images.x_test[chosen]), images.y_test[chosen],
        images.x_test[chosen], models.shape_for(model, images.x_train[: scale.digit_fit]),
        dict.fromkeys(methods.METHODS, "sum"), about,
    )  # fmt: skip


CASES = {"photographs": photographs, "mnist": digits}


class Maps(NamedTuple):
    """One value a pixel: the channels' sum, with its sign, and the map as the method is read."""

    signed: np.ndarray
    read: np.ndarray


def maps_of(title: str, analyzer: mipin_keras.Analyzer, case: Case) -> Maps:
    """A method's maps of the case's samples for their own classes; one that starts from a negative logit is negated."""
    found = analyzer.analyze(case.x, case.classes, batch_size=50)
    if title in PROPORTIONAL:
        logits = analyzer.logits(case.x)[np.arange(len(case.x)), case.classes]
        found = found * np.where(logits < 0, -1, 1).reshape(-1, *[1] * (found.ndim - 1)).astype(found.dtype)
    sizes = case.x.shape[1:-1]
    return Maps(reduced(found, "sum", sizes), reduced(found, case.readings[title], sizes))


def alike(found: Maps, trained: Maps) -> dict[str, float | None]:
    """The mean similarities of signed maps, and of maps as they are read.

    Where a map is constant nothing can be said: such samples are counted, not
    averaged in. A method has none, say, for a negative logit, and no map at
    all is not a map that has changed. None where all are.
    """
    signed, read = similarity(found.signed, trained.signed), similarity(found.read, trained.read)
    if read.ssim is None:
        raise ValueError(
            f"expected maps that are images large enough for SSIM, received shape {found.read.shape}; explain larger "
            "images"
        )
    constant = signed.constant | read.constant
    means = {
        "spearman": signed.spearman,
        "spearman_absolute": read.spearman_absolute,
        "ssim": read.ssim,
        "cosine": signed.cosine,
        "cosine_absolute": read.cosine_absolute,
    }
    some = {key: None if constant.all() else float(values[~constant].mean()) for key, values in means.items()}
    return some | {"constant": int(constant.sum())}


def analyzer_of(title: str, model: keras.Model, case: Case, scale: Scale, seed: int) -> mipin_keras.Analyzer:
    """Make one of the methods' analyzers for a model or for its randomised copy."""
    options = dict(OPTIONS.get(title, {}))
    if title == "SmoothGrad":
        options["augment_by_n"] = scale.smooth
    if title == "MIP-IN":
        options |= {"classes": sorted(set(case.classes.tolist())), "rows": scale.rows}
    return methods.create(title, model, case.layer, seed=seed, **options)


def carry(trained: mipin_keras.Analyzer, to: mipin_keras.Analyzer) -> None:
    """Give an analyzer what another has learned of the model before it was randomised.

    A file would be refused, since the copy is another model: here that is the experiment.
    """
    if hasattr(trained, "network"):
        to.network.weights = trained.network.weights
    else:
        to.patterns, to.exponents = trained.patterns, trained.exponents


def measure(case: Case, scale: Scale, seed: int, log: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, list]]:
    """Randomise the case's model layer by layer and compare each method's maps with those of the trained model.

    Returns:
        What goes to JSON: the names of the layers, and for each curve the
        similarities after each, and ``other``, those of the trained model's
        maps of different samples. And for the picture by curve the maps of
        the sample that the model is surest of, trained first.
    """
    analyzers, trained = {}, {}
    for title in methods.METHODS:
        analyzers[title] = analyzer_of(title, case.model, case, scale, seed)
        if title in methods.LEARNED:
            log(f"{case.title}: {title} learns the trained model")
            analyzers[title].fit(case.fit, 50)
        trained[title] = maps_of(title, analyzers[title], case)
    shares = case.model.predict(case.x, 50, verbose=0)
    sure = int(np.argmax(shares[np.arange(len(case.x)), case.classes]))
    curves: dict[str, dict[str, Any]] = {}
    shown: dict[str, list] = {}
    for label, title, _ in CURVES:
        others = Maps(*(np.roll(maps, len(maps) // 2, axis=0) for maps in trained[title]))
        curves[label] = {"method": title, "other": alike(others, trained[title]), "after": []}
        shown[label] = [trained[title].read[sure]]
    copies: dict[str, mipin_keras.Analyzer] = {}
    layers = []
    for layer, copy in cascading(case.model, seed):
        layers.append(layer)
        for label, title, kept in CURVES:
            if label not in copies:  # the copy stays the same one, and an analyzer reads its weights as they are
                copies[label] = analyzer_of(title, copy, case, scale, seed)
                if kept:
                    carry(analyzers[title], copies[label])
            if title in methods.LEARNED and not kept:
                copies[label].fit(case.fit, 50)
            found = maps_of(title, copies[label], case)
            curves[label]["after"].append(alike(found, trained[title]))
            shown[label].append(found.read[sure])
        log(f"{case.title}: {layer} is random")
    about = {
        "title": case.title, "model": case.about, "images": len(case.x), "shape": list(case.x.shape[1:]),
        "classes": len(set(case.classes.tolist())), "feature_map": case.layer, "layers": layers, "curves": curves,
        "right": float(np.mean(shares.argmax(axis=1) == case.classes)), "sample": sure,
    }  # fmt: skip
    return about, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)
    arguments.add_models(parser, CASES)


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``sanity.json``, ``sanity.md`` and pictures."""
    experiment = report.Experiment("sanity", args)
    scale = QUICK if args.quick else Scale()
    experiment.result |= {"scale": scale._asdict(), "models": {}}
    for name in args.models:
        case = CASES[name](args, scale)
        found, shown = measure(case, scale, args.seed, experiment.log)
        found["as_known"] = sanity_page.as_known(found)
        experiment.result["models"][name] = found
        experiment.picture(sanity_page.curves(found), name)
        experiment.picture(sanity_page.maps(found, shown, case.pixels[found["sample"]]), f"{name}-maps")
        experiment.log(sanity_page.verdict(found))
    experiment.result["as_known"] = all(found["as_known"] for found in experiment.result["models"].values())
    return experiment.write(markdown(experiment.result))


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    found = result["models"].values()
    return [f"{sanity_page.verdict(of)}. {sanity_page.place(of)}" for of in found]


def markdown(result: dict[str, Any]) -> str:
    """The page, from the result alone."""
    return sanity_page.page(result)
