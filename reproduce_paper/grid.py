"""The grid pointing game: which of four tiles a method's positive attribution lies in (Rao et al. 2022)."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from mipin_keras import metrics
from mipin_keras.plotting import plot

from . import explained, gallery, methods, report
from .photographs import Photographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Read as in Table 2; the channels of the others' maps are summed with their signs, and the positive part is measured.
POSITIVE = ("Grad-CAM", "MIP-IN")
CENTRE = "centre prior"


class Scale(NamedTuple):
    """How much of everything a run takes."""

    mosaics: int = 100  # each with four maps a method
    candidates: int = 2000  # test photographs that tiles are chosen from
    of_class: int = 10  # most tiles of a class


QUICK = Scale(mosaics=6, candidates=300)


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Images at half their height and width, each pixel the mean of four: uint8 to uint8.

    Raises:
        ValueError: For a height or width that is odd.
    """
    height, width = pixels.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"expected photographs of even height and width to tile, received {height} x {width}")
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
    """How sure the model is of each photograph at a tile's size, and its accuracy on the photographs as they are.

    A photograph is shrunk and tiled with itself, four times: the model then
    sees its object at the size, and at the places, at which it meets it in
    the game, and nothing else.

    Returns:
        The probability of the label ``(n,)``, whether it is the largest
        ``(n,)``, and the accuracy.
    """
    sure, right, whole = [], [], []
    for start in range(0, len(photographs.paths), 64):
        part = photographs.take(range(start, min(start + 64, len(photographs.paths))))
        pixels, rows = part.pixels(), np.arange(len(part.paths))
        scores = explained.outputs(subject, np.tile(shrunk(pixels), (1, 2, 2, 1)))
        sure.append(scores[rows, part.labels])
        right.append(scores.argmax(axis=1) == part.labels)
        whole.append(explained.outputs(subject, pixels).argmax(axis=1) == part.labels)
    return np.concatenate(sure), np.concatenate(right), float(np.concatenate(whole).mean())


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
            f"expected photographs of at least 4 classes that the model classifies rightly at half their size, found "
            f"{len(of)} among {len(labels)} photographs; train the model longer, or give more photographs"
        )
    rng, classes = np.random.default_rng(seed), sorted(of)
    chosen = [rng.choice(classes, 4, replace=False) for _ in range(scale.mosaics)]
    return np.array([[rng.choice(of[label]) for label in four] for four in chosen])


def play(
    subject: gallery.Subject, photographs: gallery.Gallery, args: argparse.Namespace, scale: Scale, say: Callable
) -> tuple[dict[str, Any], Figure]:
    """Play with one of the gallery's models: what is measured, and a picture of the first two mosaics."""
    order = np.random.default_rng(args.seed).permutation(len(photographs.test.paths))
    test = photographs.test.take(order[: scale.candidates])
    sure, right, whole = confidences(subject, test)
    indices = drawn(test.labels, sure, right, scale, args.seed)
    tiles, at = np.unique(indices, return_inverse=True)
    pixels = mosaics(shrunk(test.take(tiles).pixels())[at.reshape(indices.shape)])
    labels = test.labels[indices]
    scores = explained.outputs(subject, pixels)
    about = subject.about | {
        "photographs": len(test.paths),
        "accuracy_whole": whole,
        "accuracy_tiles": float(right.mean()),
        "confidence": float(np.median(sure[tiles])),
        "tiles": len(tiles),
        "classes": len(np.unique(labels)),
        "in_mosaic": float(np.take_along_axis(scores, labels, axis=1).mean()),
        "top_in_mosaic": float((labels == scores.argmax(axis=1)[:, None]).any(axis=1).mean()),
    }

    say(f"{subject.name}: {len(indices)} mosaics of {len(tiles)} photographs")
    analyzers = explained.fitted(methods.METHODS, subject, photographs.train, np.unique(labels), args, say)
    inside = np.tile(masks(test.size), (len(pixels), 1, 1))
    found, shown = {}, {}
    for title, analyzer in analyzers.items():
        say(f"{subject.name}: {title}")
        maps = explain(title, analyzer, subject, pixels, labels)
        found[title], shown[title] = metrics.positive_share(maps, inside), maps[:8].copy()
    prior = metrics.centre_prior(test.size)
    found[CENTRE] = metrics.positive_share(np.broadcast_to(prior - prior.min(), inside.shape), inside)
    captions = {
        title: ["none" if np.isnan(share) else f"{100 * share:.0f} %" for share in found[title].per_image[:8]]
        for title in shown
    }
    titles = [test.names[label] for label in labels[:2].reshape(-1)]
    figure = sheet(np.repeat(pixels[:2], 4, axis=0), shown, titles, captions)
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
            raise ValueError(f"no map of {title} or of MIP-IN has any positive attribution: no share can be taken")
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


def sheet(
    pixels: np.ndarray, maps: Mapping[str, np.ndarray], titles: list[str], captions: Mapping[str, list[str]]
) -> Figure:
    """Mosaics, and below them the positive part of each method's map of the class above; its tile is framed."""
    from matplotlib.patches import Rectangle

    positive = {}
    for title, some in maps.items():
        tops = [np.percentile(np.maximum(one, 0), 99) or 1.0 for one in some]
        positive[title] = [np.clip(one, 0, top) for one, top in zip(some, tops, strict=True)]
    titles = [title if len(title) < 14 else f"{title[:12]}." for title in titles]
    figure = plot.grid(positive, pixels, titles, captions, cmap="Greys", cell=1.15)
    height, width = pixels.shape[1:3]
    for i, ax in enumerate(figure.axes):
        row, column = divmod(i % len(pixels) % 4, 2)
        corner = (column * width / 2 - 0.5, row * height / 2 - 0.5)
        ax.add_patch(Rectangle(corner, width / 2, height / 2, fill=False, edgecolor="red", linewidth=1.2))
        ax.xaxis.label.set_fontsize(9)
    return figure


def boxes(subjects: Mapping[str, Any]) -> Figure:
    """For each model and method the middle half and 90 % of the maps' shares, and the mean with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots(1, len(subjects), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, found) in zip(axes, subjects.items(), strict=True):
        for y, one in enumerate(found["methods"].values()):
            low, first, middle, third, high = one["quantiles"]
            ax.plot([low, high], [y, y], color="0.6", linewidth=1)
            ax.barh(y, third - first, left=first, height=0.55, color="0.85", edgecolor="0.5", linewidth=0.8)
            ax.plot([middle, middle], [y - 0.27, y + 0.27], color="0.3", linewidth=1.2)
            ax.plot(one["interval"], [y, y], color="red", linewidth=3, solid_capstyle="butt")
            ax.plot(one["share"], y, "o", color="red", markersize=4)
        ax.axvline(0.25, color="black", linestyle="--", linewidth=1)
        ax.set_title(name, fontsize=11)
        ax.set_xlim(0, 1)
    axes[0].set_yticks(range(len(found["methods"])), list(found["methods"]), fontsize=10)
    axes[0].invert_yaxis()
    figure.get_layout_engine().set(wspace=0.06)
    figure.supxlabel("share of the positive attribution in its own tile (dashed: chance)", fontsize=10)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """The page: shares of both models, what the numbers say, and the pictures."""
    subjects, files = result["subjects"], result["pictures"]
    rows = []
    for title in next(iter(subjects.values()))["methods"]:
        cells = [title]
        for found in subjects.values():
            one = found["methods"][title]
            cells.append(f"{one['share']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}]")
            cells.append(str(one["undefined"]))
        rows.append(cells)
    header = ["share in the own tile"] + [word for name in subjects for word in (name, "undefined")]
    page = ["# The grid pointing game\n", ABOUT.strip(), "", report.table(header, rows), ""]
    page += [f"- {verdict(name, found['methods'])}" for name, found in subjects.items()]
    page.append(f"\n![Box plots of the shares]({files[0]})\n\n## What the models see\n")
    fit = ", ".join(f"{title} on {count:,}" for title, count in result["fit"].items())
    page.append(f"{result['data']}. Fitted on training photographs, whole and not tiled: {fit}.\n")
    page += [f"- {sight(name, found['about'], result['scale']['mosaics'])}" for name, found in subjects.items()]
    for name, file in zip(subjects, files[1:], strict=True):
        page.append(f"\n![{name}: the first two mosaics, and the positive part of every method's maps]({file})")
    return "\n".join(page)


ABOUT = """
Test photographs of four different classes are tiled two by two, and each of the four classes is explained in turn:
the score is the share of the map's positive attribution that lies in the tile of its own class (Boehle et al. 2021;
Rao et al. 2022). Chance is 0.25, for a map that knows nothing and for any prior of where objects lie: the centre
prior scores 0.25 by symmetry. The paper does not play it. Maps at the pixels are summed over their channels with
their signs, and the positive part is measured; Grad-CAM and MIP-IN explain a feature map, where MIP-IN is read
as in Table 2, and are resized to the image. That alone makes them smoother than the
others, and they stand at a layer where a position knows more: Rao et al. show that methods differ less when all are
taken at one layer.

The models take images of one size, so each photograph is shrunk to half (the mean of four pixels). Tiles are chosen
as Rao et al. do, by confidence: a shrunk photograph is tiled four times with itself, which shows the model its object
as it meets it in the game, and of each class the ten photographs at most are taken that the model then classifies
rightly with the largest probability. Maps without any positive attribution have no share: they are counted as
undefined and left out. Intervals are 95 % bootstraps over mosaics.
"""


def verdict(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Who leads, where MIP-IN stands, and who is not above chance."""
    order = sorted(methods.METHODS, key=lambda title: (-rows[title]["share"], title != "MIP-IN"))
    place = order.index("MIP-IN") + 1
    text = f"**{name}**: {order[0]} leads with {rows[order[0]]['share']:.3f}"
    if place == 1:
        other = order[1]
        text += f"; {other}, {rows[other]['share']:.3f}, is next"
    else:
        other = order[0]
        text += f"; MIP-IN does not: {rows['MIP-IN']['share']:.3f}, place {place} of {len(order)}"
    low, high = rows[other]["beyond_mipin"]
    told = "does not tell the two apart" if low <= 0 <= high else "tells the two apart"
    text += f"; the interval of their difference, mosaic by mosaic, [{low:.3f}, {high:.3f}], {told}."
    chance = [title for title in order if rows[title]["interval"][0] <= 0.25]
    return text + (f" Not told from chance, or below it: {explained.listed(chance)}." if chance else "")


def sight(name: str, about: Mapping[str, Any], count: int) -> str:
    """What the model makes of photographs, tiles and mosaics."""
    whole, tiles, top = (100 * about[key] for key in ("accuracy_whole", "accuracy_tiles", "top_in_mosaic"))
    return (
        f"**{name}** classifies {whole:.1f} % of {about['photographs']:,} test photographs rightly, and {tiles:.1f} % "
        f"of them shrunk and tiled with themselves. {about['tiles']} of these, of {about['classes']} classes, make the "
        f"{count} mosaics; the median probability of their labels is {about['confidence']:.2f}. In the mosaics the "
        f"probability of each of the four classes is {about['in_mosaic']:.2f} in the mean (it can be 0.25 at most), "
        f"and in {top:.0f} % of them the likeliest class is one of the four."
    )


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [verdict(name, found["methods"]) for name, found in result["subjects"].items()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``grid.json``, ``grid.md`` and pictures."""
    experiment = report.Experiment("grid", args)
    scale = QUICK if args.quick else Scale()
    photographs = gallery.load(args)
    played = {
        name: play(subject, photographs, args, scale, experiment.say) for name, subject in photographs.subjects.items()
    }
    subjects = {name: found for name, (found, _) in played.items()}
    experiment.result |= {"data": photographs.title, "scale": scale._asdict(), "subjects": subjects}
    fit = explained.QUICK_FIT if args.quick else explained.FIT
    experiment.result["fit"] = {title: min(count, len(photographs.train.paths)) for title, count in fit.items()}
    experiment.picture(boxes(subjects))
    for name, (_, figure) in played.items():
        experiment.picture(figure, name)
    return experiment.write(markdown(experiment.result))
