"""Few-shot: a prototype network's accuracy on classes held out from its training, and what its embedding knows."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

import mipin_keras
from mipin_keras.channels import resized
from mipin_keras.data.progress import keras_verbose
from mipin_keras.information import Decomposition
from mipin_keras.metrics import bootstrap_interval, positive_share

from . import few_shot, gallery, prototype_page, report
from .photo_models import Subject, standardized
from .photographs import Photographs
from .prototype_page import MAPS, QUERIES, SHOTS, WAYS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The images that make each prototype of the decomposition.
SUPPORT = 5
#: Of the mask's mean beside the cross-entropy: the paper's, whose maps are shown, and larger ones.
MASK_WEIGHTS = (0.5, 1.0, 2.0)
#: Photographs of each class in the picture.
SHOWN = 2


class Scale(NamedTuple):
    """How much is computed.

    Attributes:
        train: Photographs that the embedding is trained on, at most.
        episodes, epochs: Of its training: episodes an epoch, and epochs.
        held: Photographs of the held-out classes, at most.
        measured: Test episodes.
        fit_epochs: Of the decomposition's trainings.
    """

    train: int = 100_000
    episodes: int = 60
    epochs: int = 10
    held: int = 100_000
    measured: int = 600
    fit_epochs: int = 20


QUICK = Scale(train=600, episodes=5, epochs=2, held=480, measured=60, fit_epochs=3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This experiment has no options of its own."""


def run(args: argparse.Namespace) -> pathlib.Path:
    """Train the embedding on some classes, classify others by episodes, and take its embedding apart on these."""
    experiment = report.Experiment("prototype", args)
    scale = QUICK if args.quick else Scale()
    train, test = gallery.tiny_imagenet_of(args)
    out = few_shot.held_out(len(train.names))
    if out.sum() < WAYS:
        raise ValueError(
            f"expected Tiny ImageNet with {WAYS} held-out classes at least, two in five, received {len(out)} classes "
            "in all; unpack more of them"
        )
    learning = train.take(np.flatnonzero(~out[train.labels])).evenly(scale.train)
    # Neither split of the held-out classes was ever trained on.
    held = [of.take(np.flatnonzero(out[of.labels])).evenly(scale.held) for of in (train, test)]
    classes = {"trained": np.array(train.names)[~out].tolist(), "held_out": np.array(train.names)[out].tolist()}
    experiment.log(f"the embedding is trained on {len(learning.paths):,} photographs of {(~out).sum()} classes")
    subject = few_shot.trained(
        learning, args.cache_dir, episodes=scale.episodes, epochs=scale.epochs, seed=args.seed, verbose=args.verbose
    )
    experiment.log(f"the embeddings of {sum(len(of.paths) for of in held):,} photographs of {out.sum()} others")
    experiment.result |= {
        "classes": classes,
        "model": subject.about,
        "episodes": episodes(subject, held, scale.measured, args.seed) | {"count": scale.measured},
    }
    found, figure = decomposition(subject, *held, scale.fit_epochs, args, experiment.log)
    experiment.result["decomposition"] = found
    experiment.picture(figure)
    return experiment.write(markdown(experiment.result))


def episodes(subject: Subject, held: list[Photographs], count: int, seed: int) -> dict[str, Any]:
    """The accuracy in 1-shot and 5-shot episodes of the held-out classes, trained and untrained.

    Returns:
        By embedding, ``"trained"`` and ``"untrained"``, and number of shots
        the mean ``accuracy`` over the episodes, and half of its 95 % interval.
    """
    pixels = np.concatenate([of.pixels() for of in held])
    labels = np.concatenate([of.labels for of in held])
    keras.utils.set_random_seed(seed)
    untrained = subject._replace(model=few_shot.embedding(held[0].size))
    found: dict[str, Any] = {}
    for name, of in (("trained", subject), ("untrained", untrained)):
        z = of.outputs(pixels)
        found[name] = {}
        for shots in SHOTS:
            each = few_shot.accuracies(z, labels, shots=shots, count=count, seed=seed, ways=WAYS, queries=QUERIES)
            half = 1.96 * each.std(ddof=1) / np.sqrt(count)
            found[name][str(shots)] = {"accuracy": float(each.mean()), "half": float(half)}
    return found


def decomposition(
    subject: Subject,
    pool: Photographs,
    queries: Photographs,
    epochs: int,
    args: argparse.Namespace,
    log: Callable[[str], None],
) -> tuple[dict[str, Any], Figure]:
    """What the embedding knows of its last feature map, and what the nearest of an episode's prototypes needs of it.

    Args:
        subject: The embedding.
        pool: Training photographs of the held-out classes: some make the
            prototypes, the others fit the decomposition, without labels.
        queries: Validation photographs of them, which are taken apart.
        epochs: Of the fit.
        args: The command's arguments: ``seed`` and ``verbose`` are read.
        log: Receives a line of progress.

    Returns:
        The measurements, and the picture.
    """
    rng = np.random.default_rng(args.seed)
    classes = np.sort(rng.choice(np.unique(pool.labels), WAYS, replace=False))
    of_classes = [np.flatnonzero(pool.labels == label) for label in classes]
    support = np.stack([rng.choice(of, SUPPORT, replace=False) for of in of_classes])
    fit = pool.take(np.setdiff1d(np.concatenate(of_classes), support))
    queries = queries.take(np.flatnonzero(np.isin(queries.labels, classes)))
    labels = np.searchsorted(classes, queries.labels)
    z = subject.outputs(pool.take(support.reshape(-1)).pixels())
    model = few_shot.classifier(subject.model, z.reshape(WAYS, SUPPORT, -1).mean(axis=1))
    x_fit, pixels = standardized(fit.pixels()), queries.pixels()
    x = standardized(pixels)
    result: dict[str, Any] = {
        "layer": few_shot.FEATURE,
        "size": int(z.shape[1]),
        "classes": [pool.names[label] for label in classes],
        "support": SUPPORT,
        "fit": len(fit.paths),
        "queries": len(queries.paths),
        "weights": {},
    }
    for weight in MASK_WEIGHTS:
        log(f"the decomposition is fitted on {len(fit.paths):,} photographs of {WAYS} classes, mask weight {weight:g}")
        analyzer = mipin_keras.create_analyzer(
            "mi.total", model, layer=few_shot.FEATURE, representation=few_shot.EMBEDDING, epochs=epochs,
            mask_weight=weight, seed=args.seed, verbose=keras_verbose(args.verbose),
        )  # fmt: skip
        found = analyzer.fit(x_fit).decompose(x)
        nearest, masked = analyzer.logits(x).argmax(axis=1), analyzer.masked_logits(x).argmax(axis=1)
        result["weights"][f"{weight:g}"] = {
            "maps": measured(found, queries.masks()),
            "above": float((found.decision > found.total).mean()),
            "masked_accuracy": float((masked == labels).mean()),
            "agreement": float((masked == nearest).mean()),
        }
        if weight == MASK_WEIGHTS[0]:
            first, fitted = found, analyzer.fit_report
    right = nearest == labels
    result |= {
        "accuracy": float(right.mean()),
        "feature_map": list(first.total.shape[1:]),
        "limit": fitted.limit,
        "fitted": {"total": fitted.total, "decision": fitted.decision},
        "chance": float(queries.masks()[partly(queries.masks())].mean()),
        "boxed": int(partly(queries.masks()).sum()),
    }
    shown = np.concatenate([rng.permutation(np.flatnonzero((labels == i) & right))[:SHOWN] for i in range(WAYS)])
    if not len(shown):  # none is right: as they come
        shown = np.arange(min(len(labels), WAYS * SHOWN))
    part = Decomposition(*(maps[shown] for maps in first))
    titles = [queries.names[label] for label in queries.labels[shown]]
    return result, prototype_page.picture(pixels[shown], part, titles)


def partly(boxes: np.ndarray) -> np.ndarray:
    """Of which photographs the boxes cover a part: of the others no share in the box can be told from another."""
    covered = boxes.mean(axis=(1, 2))
    return (covered > 0) & (covered < 1)


def measured(found: Decomposition, boxes: np.ndarray) -> dict[str, Any]:
    """What is measured of each map.

    Args:
        found: Of ``n`` photographs.
        boxes: Which of their pixels lie in a box, bool ``(n, height, width)``.

    Returns:
        For each map the mean over the photographs of its ``sum`` over the
        locations, in nats, with its 95 % bootstrap ``interval``; its ``area``,
        the mean share of locations above half of its maximum; and ``box``, the
        mean share of its positive values that lies in the box, of the
        photographs :func:`partly` covered. The same of the ``mask``, whose
        sum is its mean, the coverage.
    """
    sums, rows, part = found.sums, {}, partly(boxes)
    for name, maps in (*((name, getattr(found, name)) for name in MAPS), ("mask", found.mask)):
        each = sums["coverage" if name == "mask" else name].astype(np.float64)
        top = maps.max(axis=(1, 2), keepdims=True)
        rows[name] = {
            "sum": float(each.mean()),
            "interval": bootstrap_interval(each),
            "area": float(((maps > top / 2) & (maps > 0)).mean()),
            "box": positive_share(resized(maps[part], boxes.shape[1:]), boxes[part]).share,
        }
    return rows


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return prototype_page.in_short(result)


def markdown(result: dict[str, Any]) -> str:
    """The page, from the result alone."""
    return prototype_page.page(result)
