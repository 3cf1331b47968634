"""What the figures of photographs share: they choose photographs, fit methods, read maps and draw sheets of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import mipin_keras
from mipin_keras.channels import reduced
from mipin_keras.plotting import plot

from . import charts, methods
from .gallery import Gallery
from .photo_models import Subject
from .photographs import Photographs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Training photographs that a method is fitted on.
FIT = {"MIP-IN": 4000, "PatternAttribution": 1500}
QUICK_FIT = {"MIP-IN": 400, "PatternAttribution": 200}


def subject_of(gallery: Gallery) -> Subject:
    """The model that Figures 6 to 9 explain: the gallery's first, a VGG unless ``--subjects`` leaves it out."""
    return next(iter(gallery.subjects.values()))


def class_numbers(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The numbers of classes that are named, or given by their numbers.

    Raises:
        ValueError: For a word that is neither, naming it and what there is.
    """
    known = {_plain(name): i for i, name in reversed(list(enumerate(names)))}
    known |= {str(i): i for i in range(len(names))}
    for word in wanted:
        if _plain(word) not in known:
            listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
            raise ValueError(
                f"expected a class's number below {len(names)} or name ({listed}), received {word!r}; give one of these"
            )
    return [known[_plain(word)] for word in wanted]


def first_known(names: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the first choice of classes whose names are all there, or of the first classes there are."""
    plain = {_plain(name) for name in names}
    for choice in choices:
        if all(_plain(name) in plain for name in choice):
            return class_numbers(names, choice)
    return list(range(min(len(choices[0]), len(names))))


def wanted_classes(names: Sequence[str], given: Sequence[str] | None, choices: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the classes that ``--classes`` gives; without it, what :func:`first_known` chooses."""
    return class_numbers(names, given) if given else first_known(names, choices)


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def candidates(photographs: Photographs, number: int, largest: float) -> np.ndarray:
    """The indices of a class's photographs whose boxes cover something, and less than the share ``largest``."""
    of_class = np.flatnonzero(photographs.labels == number)
    shares = photographs.take(of_class).shares()
    return of_class[(shares > 0) & (shares < largest)]


def chosen(
    subjects: Collection[Subject], photographs: Photographs, among: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most ``count`` photographs at random, first among those that all models classify rightly.

    Args:
        subjects: The models.
        photographs: The photographs that the indices are of.
        among: The indices to choose from.
        count: How many are wanted.
        rng: Draws the order.

    Returns:
        Their indices, and for each whether all models classify it rightly.
    """
    order = rng.permutation(among)
    drawn = photographs.take(order)
    pixels = drawn.pixels()
    right = np.all([subject.outputs(pixels).argmax(axis=1) == drawn.labels for subject in subjects], axis=0)
    first = np.argsort(~right, kind="stable")[:count]
    return order[first], right[first]


def fit_counts(train: Photographs, args: argparse.Namespace) -> dict[str, int]:
    """How many of the training photographs each method that learns is fitted on; fewer with ``--quick``."""
    return {title: min(count, len(train.paths)) for title, count in (QUICK_FIT if args.quick else FIT).items()}


def fitted(
    titles: Collection[str],
    subject: Subject,
    train: Photographs,
    classes: Collection[int],
    args: argparse.Namespace,
    log: Callable[[str], None],
) -> dict[str, mipin_keras.Analyzer]:
    """Make the methods' analyzers, by title; fit those that learn on photographs of ``train`` drawn by the seed.

    Args:
        titles: The methods, each one of ``methods.METHODS``.
        subject: The model.
        train: The photographs to draw from.
        classes: The classes that MIP-IN is fitted for.
        args: The command's arguments: ``seed`` and ``quick`` are read.
        log: Receives a line for each method that is fitted.
    """
    made = {}
    for title in titles:
        options: dict[str, Any] = {"classes": sorted(set(classes))} if title == "MIP-IN" else {}
        analyzer = methods.create(title, subject.model, subject.layer, seed=args.seed, **options)
        if title in methods.LEARNED:
            order = np.random.default_rng(args.seed).permutation(len(train.paths))
            part = train.take(order[: fit_counts(train, args)[title]])
            log(f"{subject.name}: {title} is fitted on {len(part.paths):,} photographs")
            analyzer.fit(part.stream(subject.preprocess, 64))
        made[title] = analyzer
    return made


def about(gallery: Gallery, subject: Subject, args: argparse.Namespace) -> dict[str, Any]:
    """The part of a result that says what photographs, model and fit it comes from."""
    return {
        "photographs": gallery.title,
        "model": subject.about,
        "layer": subject.layer,
        "reading": str(methods.MIPIN),
        "fit": fit_counts(gallery.train, args),
    }


def setting(result: Mapping[str, Any]) -> str:
    """:func:`about` in words: sentences for a page."""
    model, fit = result["model"], result["fit"]
    return (
        f"The model is the {model['model']}, {100 * model['accuracy']:.1f} % right on test photographs of "
        f"{result['photographs']}. MIP-IN explains down to `{result['layer']}` and is fitted on {fit['MIP-IN']:,} "
        f"training photographs, PatternAttribution on {fit['PatternAttribution']:,}. MIP-IN's map is its attribution "
        f"there, resized to the photograph ({result['reading']}); a baseline's is its attribution of the pixels, "
        f"absolute values, the channels read as in Table 2."
    )


class Maps(NamedTuple):
    """One analysis of ``n`` photographs, read in three ways, each float32 ``(n, height, width)``.

    Attributes:
        drawn: As figures show it and Table 2 measures it.
        positive: What shares are taken of: ReLU of each channel's
            attribution, then the mean over them; of MIP-IN and Grad-CAM the
            drawn map, which has no other values.
        signed: The sum over the channels, with its sign.
    """

    drawn: np.ndarray
    positive: np.ndarray
    signed: np.ndarray


def read(title: str, analyzer: mipin_keras.Analyzer, x: np.ndarray, classes: int | np.ndarray) -> Maps:
    """A method's maps of ``x``, what the model takes, for a class or one for each."""
    raw = analyzer.analyze(x, classes, batch_size=32)
    signed = reduced(raw, "sum", x.shape[1:3])
    if title not in methods.BASELINES:
        drawn = methods.saliency(title, analyzer, x, classes)
        return Maps(drawn, drawn, signed)
    drawn, positive = (reduced(raw, how, x.shape[1:3]) for how in (methods.READINGS[title], "relu_mean"))
    return Maps(drawn, positive, signed)


def sheet(
    pixels: np.ndarray,
    boxes: Sequence[np.ndarray],
    rows: Mapping[str, np.ndarray],
    *,
    titles: Sequence[str] | None = None,
    captions: Mapping[str, Sequence[str]] | None = None,
    over: Collection[str] = (),
    tops: Mapping[str, Sequence[float]] | None = None,
    columns: int = 4,
) -> Figure:
    """Draw photographs, each with its maps below it, at most ``columns`` side by side.

    Args:
        pixels: uint8 ``(n, height, width, 3)``.
        boxes: For each photograph ``(k, 4)``: left, top, right, bottom;
            drawn on it and on its maps.
        rows: By name, maps ``(n, height, width)``; those that are not drawn
            over the photograph are not negative.
        titles: Above the photographs.
        captions: By a row's name, below its maps.
        over: Rows that are drawn over the photograph.
        tops: By a row's name, the value of the strongest colour on each
            photograph; of other rows it is each map's own.
        columns: Photographs in a line.
    """
    lines, blocks = 1 + len(rows), -(-len(pixels) // columns)
    columns = min(columns, len(pixels))
    size = (1.3 + 1.3 * columns, blocks * (1.3 * lines + 0.2))
    figure, axes = charts.panels(size, blocks * lines, columns)
    for i in range(blocks * columns):
        line = axes[i // columns * lines : (i // columns + 1) * lines, i % columns]
        if i >= len(pixels):
            for ax in line:
                ax.set_axis_off()
            continue
        plot.image(pixels[i], line[0])
        if titles is not None:
            line[0].set_title(titles[i], fontsize=9)
        for ax, (name, maps) in zip(line[1:], rows.items(), strict=True):
            top = tops[name][i] if tops and name in tops else None
            if name in over:
                plot.overlay(pixels[i], maps[i], ax, vmax=top)
            else:
                plot.heatmap(maps[i], ax, "Greys", vmax=_darkest(maps[i]) if top is None else top)
            if captions and name in captions:
                ax.set_xlabel(captions[name][i], fontsize=9, labelpad=2)
        for ax in line:
            _draw(ax, boxes[i])
        if i % columns == 0:
            for ax, name in zip(line, ["photograph", *rows], strict=True):
                ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def _darkest(values: np.ndarray) -> float | None:
    """What is drawn black: the 99.5th percentile, so that a few pixels do not leave all others white."""
    return float(np.percentile(values, 99.5)) or None


def _draw(ax: Axes, boxes: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for left, top, right, bottom in boxes:
        frame: dict[str, Any] = {"fill": False, "edgecolor": "tab:orange", "linewidth": 1.2}
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **frame))
