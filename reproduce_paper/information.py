"""What a representation knows of a photograph: total, decision-related and redundant information (Gu 2021)."""

from __future__ import annotations

import argparse
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras.channels import reduced, resized
from mipin_keras.data.progress import keras_verbose
from mipin_keras.information import Information
from mipin_keras.information.fitting import NEGATIVES
from mipin_keras.information.results import Decomposition
from mipin_keras.metrics import bootstrap_interval, bounding_box_accuracy, centre_prior

from . import arguments, gallery, lite0, methods, report
from .gallery import Gallery
from .information_page import FEATURE, MASK, PARTS, markdown, picture, verdict
from .photo_models import BATCH, Subject
from .photographs import LARGEST_SHARE, Photographs

RESNET = "ResNet"
MODELS = (RESNET, lite0.NAME)
#: Passes of each training, and inputs a batch. With the package's own 20 the fit takes twice as long.
EPOCHS, FIT_BATCH = 10, 32
#: Of a quick run.
QUICK = {"limit": 40, "fit_images": 120, "epochs": 2}
SHOWN = 6


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [verdict(name, found).removeprefix("- ") for name, found in result["models"].items()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    arguments.add_models(parser, MODELS)
    parser.add_argument("--limit", type=int, help="explain only so many validation photographs, evenly drawn")
    parser.add_argument("--fit-images", type=int, help="fit on only so many training photographs, evenly drawn")
    parser.add_argument("--epochs", type=int, help=f"of the mask module and the critic each (default: {EPOCHS})")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Decompose what each model's representation knows of the photographs; draw and measure."""
    arguments.check_positive(args, "limit", "fit_images", "epochs")
    experiment = report.Experiment("information", args)
    experiment.result["models"] = {}
    for name in args.models:
        photographs = load(name, args)
        experiment.log(f"{name}: {photographs.title}")
        found, figure = run_model(photographs, args, experiment.log)
        found["picture"] = experiment.picture(figure, name.lower())
        experiment.result["models"][name] = found
    return experiment.write(markdown(experiment.result))


def load(name: str, args: argparse.Namespace) -> Gallery:
    """The photographs of a model, with this model alone."""
    if name == lite0.NAME:
        return lite0.load(args)
    of_table2 = {"photographs": "tiny-imagenet", "subjects": [name], "weights": []}
    return gallery.load(argparse.Namespace(**(vars(args) | of_table2)))


def run_model(photographs: Gallery, args: argparse.Namespace, log: Callable[[str], None]) -> tuple[dict[str, Any], Any]:
    """Fit, decompose and measure on the gallery's one model; the model's part of the result, and its picture."""
    (subject,) = photographs.subjects.values()
    less = QUICK if args.quick else {}
    shown, train = photographs.test, photographs.train
    shown = shown.evenly(args.limit or less.get("limit", len(shown.paths)))
    train = train.evenly(args.fit_images or less.get("fit_images", len(train.paths)))
    shares = shown.shares()
    small = np.flatnonzero((shares > 0) & (shares < LARGEST_SHARE))
    if not len(small):
        raise ValueError(f"expected test photographs with boxes under {LARGEST_SHARE:.0%}, received none; give others")
    analyzer, fit = fitted(subject, train, args.epochs or less.get("epochs", EPOCHS), args)
    log(f"{subject.name}: {len(shown.paths):,} photographs are decomposed")
    found = explained(analyzer, subject, shown, args.seed)
    result = {
        "photographs": len(shown.paths),
        "title": photographs.title,
        "about": subject.about,
        "layer": subject.layer,
        "locations": int(np.prod(found.parts.mask.shape[1:])),
        "fit": fit,
        **measured(found, shown.labels, args.seed),
        "chance": float(shares[small].mean()),
        "boxes": boxes(subject, shown.take(small), train, found.taken(small), args, log),
    }
    return result, pictured(found, shown, small, args.seed)


def fitted(
    subject: Subject, train: Photographs, epochs: int, args: argparse.Namespace
) -> tuple[Information, dict[str, Any]]:
    """The analyzer, fitted with the photographs' labels, and what the fit says of itself."""
    analyzer = mipin_keras.create_analyzer(
        "mi.total", subject.model, layer=subject.layer, epochs=epochs, seed=args.seed,
        verbose=keras_verbose(args.verbose),
    )  # fmt: skip
    start = time.perf_counter()
    analyzer.fit(train.stream(subject.preprocess, FIT_BATCH), train.labels)
    seconds = time.perf_counter() - start
    said = analyzer.fit_report._asdict()
    places = math.prod(analyzer.cut.shape[:-1])
    # An analysis has other negatives than a batch of the fit: parts of all photographs trained on.
    said["analysis_limit"] = math.log(min(NEGATIVES, said["samples"][0] * places))
    return analyzer, said | {"seconds": round(seconds, 1), "epochs": epochs, "batch_size": FIT_BATCH}


class Explained(NamedTuple):
    """What is found of ``n`` photographs.

    Attributes:
        parts: The decomposition.
        decisions: The class decided without the mask (``"unmasked"``), behind
            it (``"masked"``), and behind the same λ at other locations,
            drawn at random (``"shuffled"``): int64 ``(n,)`` each.
    """

    parts: Decomposition
    decisions: dict[str, np.ndarray]

    def taken(self, indices: np.ndarray) -> Explained:
        """Some of the photographs."""
        parts = Decomposition(*(array[indices] for array in self.parts))
        return Explained(parts, {how: classes[indices] for how, classes in self.decisions.items()})


def explained(analyzer: Information, subject: Subject, shown: Photographs, seed: int) -> Explained:
    """Decompose photographs, and let the network decide behind the mask; a batch of them is in memory at a time."""
    rng = np.random.default_rng(seed)

    @tf.function(reduce_retracing=True, autograph=False)
    def logits(x: tf.Tensor, masks: list[tf.Tensor]) -> list[tf.Tensor]:
        parts = analyzer.cut.parts((x,))
        feature = tf.cast(parts.feature, tf.float32)
        masked = [analyzer.cut.logits(feature * mask[..., None], parts.beside) for mask in masks]
        return [parts.logits, *masked]

    found, decisions = [], []
    for batch in shown.batches(BATCH):
        x = subject.preprocess(batch.pixels())
        found.append(analyzer.decompose(x))
        mask = found[-1].mask
        elsewhere = rng.permuted(mask.reshape(len(mask), -1), axis=1).reshape(mask.shape)
        each = logits(tf.constant(x), [tf.constant(mask), tf.constant(elsewhere)])
        decisions.append([one.numpy().argmax(axis=1) for one in each])
    of = [np.concatenate(one) for one in zip(*decisions, strict=True)]
    parts = Decomposition(*(np.concatenate(one) for one in zip(*found, strict=True)))
    return Explained(parts, dict(zip(("unmasked", "masked", "shuffled"), of, strict=True)))


def measured(found: Explained, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """The numbers of the decomposition and of the masked network, with 95 % bootstrap intervals over photographs."""
    parts, sums = found.parts, found.parts.sums
    right = {how: (classes == labels).astype(float) for how, classes in found.decisions.items()}
    kept = (found.decisions["masked"] == found.decisions["unmasked"]).astype(float)
    return {
        "information": {part: summary(sums[part], seed) for part in ("total", "decision", "redundant")},
        "coverage": summary(sums["coverage"], seed),
        "spread": float(parts.mask.reshape(len(labels), -1).std(axis=1).mean()),
        "accuracy": {how: summary(values, seed) for how, values in right.items()},
        "kept": summary(kept, seed),
        "difference": {
            how: summary(100 * (right[how] - right["unmasked"]), seed) for how in ("masked", "shuffled")
        },
        "above": float((parts.decision > parts.total).mean()),
        "above_in_sum": float((sums["decision"] > sums["total"]).mean()),
    }  # fmt: skip


def summary(values: np.ndarray, seed: int) -> dict[str, float]:
    """The mean of one number a photograph, with its interval."""
    low, high = bootstrap_interval(values, seed=seed)
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def boxes(
    subject: Subject,
    shown: Photographs,
    train: Photographs,
    found: Explained,
    args: argparse.Namespace,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Bounding-box accuracy, as in Table 2: of the three parts and the mask, and of what stands beside them.

    Args:
        subject: The model.
        shown: Photographs with small boxes.
        train: What MIP-IN is fitted on, for the classes of ``shown`` alone.
        found: Of ``shown``.
        args, log: See :func:`run_model`.
    """
    each = {
        title: bounding_box_accuracy(resized(getattr(found.parts, part), shown.size), shown.masks()).per_image
        for part, title in (PARTS | {"mask": MASK}).items()
    }
    log(f"{subject.name}: MIP-IN and Grad-CAM")
    model, layer, classes = subject.model, subject.layer, np.unique(shown.labels)
    analyzers = {
        "Grad-CAM": mipin_keras.create_analyzer("grad_cam", model, neuron_selection_mode="index", layer=layer),
        "MIP-IN": methods.create("MIP-IN", model, layer, seed=args.seed, classes=classes),
    }
    analyzers["MIP-IN"].fit(train.stream(subject.preprocess, BATCH))
    features = methods.feature_maps(model, [layer])
    prior = centre_prior(shown.size)

    def maps(x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        made = {title: methods.saliency(title, analyzers[title], x, labels) for title in analyzers}
        made[FEATURE] = reduced(features(x)[0], "mean", shown.size)
        return made | {methods.CENTRE: np.broadcast_to(prior, x.shape[:3])}

    each |= methods.box_accuracies(shown, subject.preprocess, maps, BATCH)
    return {
        "photographs": len(shown.paths),
        "classes": len(classes),
        "rows": {title: summary(values, args.seed) for title, values in each.items()},
        "differences": {
            title: summary(values - each[methods.CENTRE], args.seed)
            for title, values in each.items()
            if title != methods.CENTRE
        },
    }


def pictured(found: Explained, shown: Photographs, small: np.ndarray, seed: int) -> Any:
    """Draw a few photographs with small boxes, of different classes, first those that the model classifies rightly."""
    order = np.random.default_rng(seed).permutation(small)
    order = order[np.argsort(found.decisions["unmasked"][order] != shown.labels[order], kind="stable")]
    _, first = np.unique(shown.labels[order], return_index=True)
    chosen = order[np.sort(first)][:SHOWN]
    return picture(shown.take(chosen), found.taken(chosen).parts)
