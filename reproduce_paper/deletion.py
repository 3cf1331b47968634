"""Deletion and insertion curves of all methods, on photographs and on MNIST."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from mipin_keras import metrics

from . import data, deletion_page, explained, gallery, methods, models, report
from .deletion_page import in_short, markdown

__all__ = ["add_arguments", "in_short", "markdown", "run"]

#: What is measured on photographs: by name, the measure and its baseline.
PHOTOGRAPHS = {
    "deletion, blurred": (metrics.deletion, "blur"),
    "insertion, blurred": (metrics.insertion, "blur"),
    "deletion, mean colour": (metrics.deletion, "mean"),
    "insertion, mean colour": (metrics.insertion, "mean"),
}
#: And on MNIST, where 0 is the background.
DIGITS = {"deletion, black": (metrics.deletion, "zero"), "insertion, black": (metrics.insertion, "zero")}


class Scale(NamedTuple):
    """How many images, steps and so on a run takes."""

    photographs: int = 80  # of those that the model classifies rightly
    candidates: int = 2000  # test photographs to find them among
    digits: int = 300
    fit_digits: int = 5000
    steps: int = 12


QUICK = Scale(photographs=12, candidates=300, digits=20, fit_digits=300, steps=8)


def rightly(
    predict: Callable[[np.ndarray], Any], batches: Callable, labels: np.ndarray, count: int
) -> tuple[np.ndarray, int]:
    """Find the first ``count`` samples that the model classifies as labelled.

    Args:
        predict: A function from a batch to probabilities ``(b, classes)``.
        batches: A function from a slice of the samples to what ``predict``
            takes.
        labels: The classes of the samples, ``(n,)``.
        count: How many are wanted.

    Returns:
        The indices of the samples, and how many had to be classified to find
        them.

    Raises:
        ValueError: If the model classifies no sample as labelled.
    """
    found: list[int] = []
    for start in range(0, len(labels), 100):
        part = slice(start, start + 100)
        found += (start + np.flatnonzero(np.argmax(predict(batches(part)), axis=1) == labels[part])).tolist()
        if len(found) >= count:
            return np.array(found[:count]), found[count - 1] + 1
    if not found:
        raise ValueError(
            f"expected images that the model classifies rightly, received none among {len(labels)}; train the model "
            "longer"
        )
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
    """Measure each ranking of the pixels of ``x`` by every measure; the curves by the names of both."""
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
    """Rank pixels at random and by the centre prior: maps ``(count, *size)`` that know nothing of the model."""
    prior = metrics.centre_prior(size)
    shape = (count, *size)
    return {deletion_page.RANDOM: rng.random(shape), methods.CENTRE: np.broadcast_to(prior, shape)}


def summary(parts: list[dict[str, dict[str, metrics.Curves]]], seed: int) -> dict[str, Any]:
    """Put batches of curves together, and compare each ranking with MIP-IN.

    Returns:
        For each measure ``shares`` and ``rankings``. Each ranking has ``area``,
        the mean over the images with its 95 % ``interval``, the mean
        ``curve``, and ``beyond_mipin``, the 95 % interval of its area less
        that of MIP-IN, image by image.
    """
    found = {}
    for name, first in parts[0].items():
        shares = next(iter(first.values())).shares
        together = {
            title: metrics.Curves(shares, np.concatenate([part[name][title].scores for part in parts]))
            for title in first
        }
        ours = together["MIP-IN"].areas
        found[name] = {
            "shares": shares.tolist(),
            "rankings": {
                title: {
                    "area": one.mean_area,
                    "interval": metrics.bootstrap_interval(one.areas, seed=seed),
                    "beyond_mipin": metrics.bootstrap_interval(one.areas - ours, seed=seed),
                    "curve": one.scores.mean(axis=0).tolist(),
                }
                for title, one in together.items()
            },
        }
    return found


def on_photographs(
    subject: gallery.Subject, photographs: gallery.Gallery, args: argparse.Namespace, scale: Scale, log: Callable
) -> dict[str, Any]:
    """Measure one of the gallery's models."""
    rng = np.random.default_rng(args.seed)
    test = photographs.test.take(rng.permutation(len(photographs.test.paths))[: scale.candidates])

    def inputs(part: slice) -> np.ndarray:
        return subject.preprocess(test.take(range(len(test.paths))[part]).pixels())

    predict = subject.model.predict_on_batch
    indices, looked = rightly(predict, inputs, test.labels, scale.photographs)
    chosen = test.take(indices)
    analyzers = explained.fitted(methods.METHODS, subject, photographs.train, set(chosen.labels), args, log)
    parts, done = [], 0
    for batch in chosen.batches(50):
        x = subject.preprocess(batch.pixels())
        maps = {title: methods.saliency(title, one, x, batch.labels) for title, one in analyzers.items()}
        maps |= blind(test.size, len(x), rng)
        done += len(x)
        log(f"{subject.name}: curves of {done} of {len(indices)} photographs")
        parts.append(curves(predict, x, batch.labels, maps, PHOTOGRAPHS, scale, args.seed))
    about = subject.about | {"images": len(indices), "looked_at": looked}
    about["fit"] = explained.fit_counts(photographs.train, args)
    return {"about": about, "data": photographs.title, "measures": summary(parts, args.seed)}


def on_digits(args: argparse.Namespace, scale: Scale, log: Callable) -> dict[str, Any]:
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
            log(f"CNN-M: {title} is fitted on {min(scale.fit_digits, len(train)):,} digits")
            analyzer.fit(train[: scale.fit_digits], batch_size=256)
        maps[title] = analyzer.analyze(x, labels, reduce="sum")
    log(f"CNN-M: curves of {len(x)} digits")
    found = curves(predict, x, labels, maps | blind(x.shape[1:3], len(x), rng), DIGITS, scale, args.seed)
    about |= {"images": len(x), "looked_at": looked}
    about["fit"] = dict.fromkeys(methods.LEARNED, min(scale.fit_digits, len(train)))
    return {"about": about, "data": "MNIST", "measures": summary([found], args.seed)}


add_arguments = gallery.add_arguments


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``deletion.json``, ``deletion.md`` and a picture a model."""
    experiment = report.Experiment("deletion", args)
    scale = QUICK if args.quick else Scale()
    photographs = gallery.load(args)
    subjects = {}
    for name, subject in photographs.subjects.items():
        subjects[name] = on_photographs(subject, photographs, args, scale, experiment.log)
    keras.backend.clear_session()
    subjects["CNN-M"] = on_digits(args, scale, experiment.log)
    experiment.result |= {"scale": scale._asdict(), "subjects": subjects}
    for name, found in subjects.items():
        experiment.picture(deletion_page.picture(found["measures"]), name)
    return experiment.write(markdown(experiment.result))
