"""The grid pointing game: which of four tiles a method's positive attribution lies in (Rao et al. 2022)."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from mipin_keras import metrics

from . import explained, gallery, grid_page, methods, report
from .grid_page import in_short, markdown
from .photographs import Photographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["add_arguments", "in_short", "markdown", "run"]

#: Read as in Table 2; the channels of the others' maps are summed with their signs, and the positive part is measured.
POSITIVE = ("Grad-CAM", "MIP-IN")


class Scale(NamedTuple):
    """How many images a run takes."""

    mosaics: int = 100  # each with four maps a method
    candidates: int = 2000  # test photographs that tiles are chosen from
    of_class: int = 10  # most tiles of a class


QUICK = Scale(mosaics=6, candidates=300)


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Shrink uint8 images to half their height and width; each pixel is the mean of four.

    Raises:
        ValueError: For a height or width that is odd.
    """
    height, width = pixels.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f"expected photographs of even height and width to tile, received {height} x {width}; crop them"
        )
    smaller = tf.image.resize(pixels, (height // 2, width // 2), method="area")
    return np.rint(smaller.numpy()).astype(np.uint8)


def mosaics(tiles: np.ndarray) -> np.ndarray:
    """Tiles ``(n, 4, h, w, 3)`` as images ``(n, 2 h, 2 w, 3)``: the first two above."""
    n, _, h, w, channels = tiles.shape
    return tiles.reshape(n, 2, 2, h, w, channels).swapaxes(2, 3).reshape(n, 2 * h, 2 * w, channels)


def masks(size: tuple[int, int]) -> np.ndarray:
    """Where each of the four tiles lies: bool ``(4, height, width)``."""
    quarters = np.zeros((4, *size), bool)
    for i, quarter in enumerate(quarters):
        row, column = divmod(i, 2)
        quarter[row * size[0] // 2 :, column * size[1] // 2 :][: size[0] // 2, : size[1] // 2] = True
    return quarters


def confidences(subject: gallery.Subject, photographs: Photographs) -> tuple[np.ndarray, np.ndarray, float]:
    """Measure how sure the model is of each photograph at the size of a tile.

    A photograph is shrunk and tiled with itself, four times: the model then
    sees its object at the size, and at the places, at which it meets it in
    the game, and nothing else.

    Returns:
        The probability of the label ``(n,)``, whether it is the largest
        ``(n,)``, and the accuracy.
    """
    sure, right, right_untiled = [], [], []
    for batch in photographs.batches(64):
        pixels, rows = batch.pixels(), np.arange(len(batch.paths))
        scores = subject.outputs(np.tile(shrunk(pixels), (1, 2, 2, 1)))
        sure.append(scores[rows, batch.labels])
        right.append(scores.argmax(axis=1) == batch.labels)
        right_untiled.append(subject.outputs(pixels).argmax(axis=1) == batch.labels)
    return np.concatenate(sure), np.concatenate(right), float(np.concatenate(right_untiled).mean())


def drawn(labels: np.ndarray, sure: np.ndarray, right: np.ndarray, scale: Scale, seed: int) -> np.ndarray:
    """The indices of the tiles of each mosaic ``(mosaics, 4)``, of four different classes.

    Of each class the photographs that are right and surest of all, at most
    ``scale.of_class``; from these, four classes and a photograph of each at
    random. A photograph can come again in another mosaic.

    Raises:
        ValueError: If fewer than four classes have a photograph.
    """
    order = np.argsort(-sure, kind="stable")
    order = order[right[order]]
    of = {label: order[labels[order] == label][: scale.of_class] for label in np.unique(labels[order])}
    if len(of) < 4:
        raise ValueError(
            f"expected photographs of at least 4 classes that the model classifies rightly at half their size, "
            f"received {len(of)} among {len(labels)} photographs; train the model longer, or give more photographs"
        )
    rng, classes = np.random.default_rng(seed), sorted(of)
    chosen = [rng.choice(classes, 4, replace=False) for _ in range(scale.mosaics)]
    return np.array([[rng.choice(of[label]) for label in four] for four in chosen])


def play(
    subject: gallery.Subject, photographs: gallery.Gallery, args: argparse.Namespace, scale: Scale, log: Callable
) -> tuple[dict[str, Any], Figure]:
    """Play with one of the gallery's models: what is measured, and a picture of the first two mosaics."""
    order = np.random.default_rng(args.seed).permutation(len(photographs.test.paths))
    test = photographs.test.take(order[: scale.candidates])
    sure, right, accuracy = confidences(subject, test)
    indices = drawn(test.labels, sure, right, scale, args.seed)
    tiles, at = np.unique(indices, return_inverse=True)
    pixels = mosaics(shrunk(test.take(tiles).pixels())[at.reshape(indices.shape)])
    labels = test.labels[indices]
    scores = subject.outputs(pixels)
    about = subject.about | {
        "photographs": len(test.paths),
        "accuracy_whole": accuracy,
        "accuracy_tiles": float(right.mean()),
        "confidence": float(np.median(sure[tiles])),
        "tiles": len(tiles),
        "classes": len(np.unique(labels)),
        "in_mosaic": float(np.take_along_axis(scores, labels, axis=1).mean()),
        "top_in_mosaic": float((labels == scores.argmax(axis=1)[:, None]).any(axis=1).mean()),
    }

    log(f"{subject.name}: {len(indices)} mosaics of {len(tiles)} photographs")
    analyzers = explained.fitted(methods.METHODS, subject, photographs.train, np.unique(labels), args, log)
    inside = np.tile(masks(test.size), (len(pixels), 1, 1))
    found, shown = {}, {}
    for title, analyzer in analyzers.items():
        log(f"{subject.name}: {title}")
        maps = explain(title, analyzer, subject, pixels, labels)
        found[title], shown[title] = metrics.positive_share(maps, inside), maps[:8].copy()
    prior = metrics.centre_prior(test.size)
    found[methods.CENTRE] = metrics.positive_share(np.broadcast_to(prior - prior.min(), inside.shape), inside)
    captions = {
        title: ["none" if np.isnan(share) else f"{100 * share:.0f} %" for share in found[title].per_image[:8]]
        for title in shown
    }
    titles = [test.names[label] for label in labels[:2].reshape(-1)]
    figure = grid_page.sheet(np.repeat(pixels[:2], 4, axis=0), shown, titles, captions)
    return {"about": about, "methods": summary(found, args.seed)}, figure


def explain(title: str, analyzer: Any, subject: gallery.Subject, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A method's maps of the four classes of each mosaic: ``(4 mosaics, height, width)``."""
    parts = []
    for start in range(0, len(pixels), 16):
        x = np.repeat(subject.preprocess(pixels[start : start + 16]), 4, axis=0)
        classes = labels[start : start + 16].reshape(-1)
        if title in POSITIVE:
            parts.append(methods.saliency(title, analyzer, x, classes))
        else:
            parts.append(analyzer.analyze(x, classes, batch_size=64, reduce="sum"))
    return np.concatenate(parts)


def summary(found: Mapping[str, metrics.PositiveShare], seed: int) -> dict[str, Any]:
    """The mean share over mosaics, each the mean of its four maps, with its interval, and how far MIP-IN is off."""
    of = {title: _by_mosaic(one) for title, one in found.items()}
    rows = {}
    for title, one in found.items():
        both = ~np.isnan(of[title]) & ~np.isnan(of["MIP-IN"])
        defined = of[title][~np.isnan(of[title])]
        if not both.any():
            raise ValueError(
                f"expected maps of {title} and of MIP-IN with positive attribution in one mosaic at least, received "
                "none; give more photographs"
            )
        rows[title] = {
            "share": float(defined.mean()),
            "interval": metrics.bootstrap_interval(defined, seed=seed),
            "beyond_mipin": metrics.bootstrap_interval((of[title] - of["MIP-IN"])[both], seed=seed),
            "undefined": one.undefined,
            "quantiles": np.nanquantile(one.per_image, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
        }
    return rows


def _by_mosaic(found: metrics.PositiveShare) -> np.ndarray:
    shares = np.ma.masked_invalid(found.per_image.reshape(-1, 4))
    return shares.mean(axis=1).filled(np.nan)


add_arguments = gallery.add_arguments


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``grid.json``, ``grid.md`` and pictures."""
    experiment = report.Experiment("grid", args)
    scale = QUICK if args.quick else Scale()
    photographs = gallery.load(args)
    played = {
        name: play(subject, photographs, args, scale, experiment.log) for name, subject in photographs.subjects.items()
    }
    subjects = {name: found for name, (found, _) in played.items()}
    experiment.result |= {"data": photographs.title, "scale": scale._asdict(), "subjects": subjects}
    experiment.result["fit"] = explained.fit_counts(photographs.train, args)
    experiment.picture(grid_page.boxes(subjects))
    for name, (_, figure) in played.items():
        experiment.picture(figure, name)
    return experiment.write(markdown(experiment.result))
