"""Figure 8: the maps of two classes on one image, MIP-IN and the seven baselines."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras.metrics import bootstrap_interval, positive_share

from . import explained, gallery, methods, phrases, report
from .maps import cosines, defined_mean
from .photo_models import Subject
from .photographs import Photographs, decoded

TITLES = ["MIP-IN", *methods.BASELINES]
#: A dog and a cat: the paper's, where the photographs have them.
CLASSES = (("bull mastiff", "tiger cat"), ("German shepherd", "Egyptian cat"))
#: Pairs of photographs that are tried, how many of them are measured, how often one photograph may be among those.
TRIED, MEASURED, TIMES = 1000, 50, 2
QUICK_TRIED, QUICK_MEASURED = 60, 6
SHOWN = 4
#: The paper's: "generate very similar visualizations for the two classes".
SIMILAR = ("Guided Backprop", "Deep Taylor", "PatternAttribution")


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [line.removeprefix("- ") for line in _verdict(result).splitlines() if line.startswith("- MIP-IN")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    gallery.add_arguments(parser)
    parser.add_argument("--classes", nargs=2, metavar="CLASS", help="names or numbers: left and right, top and bottom")
    parser.add_argument("--image", type=pathlib.Path, help="a JPEG with objects of both --classes, instead of halves")


def run(args: argparse.Namespace) -> pathlib.Path:
    """Explain two classes on each of the images; draw and measure."""
    experiment = report.Experiment("figure8", args)
    photographs = gallery.load(args)
    subject, test = explained.subject_of(photographs), photographs.test
    if args.image is not None and args.classes is None:
        raise ValueError("expected --classes with --image, received none; give the two classes to explain on it")
    pair = explained.wanted_classes(test.names, args.classes, CLASSES)
    if args.image is None:
        pixels = composed(subject, test, pair, args, experiment.log)
    else:
        pixels = squared(decoded(args.image), test.size)[None]
    confidence = subject.outputs(pixels)[:, pair]
    experiment.result |= explained.about(photographs, subject, args) | {
        "classes": [test.names[number] for number in pair],
        "images": len(pixels),
        "composed": args.image is None,
        "confidence": confidence.mean(axis=0).tolist(),
        "least": float(confidence.min()),
        "methods": {},
    }
    analyzers = explained.fitted(TITLES, subject, photographs.train, pair, args, experiment.log)
    maps = {}
    for title in TITLES:
        experiment.log(title)
        maps[title], found = measured(title, analyzers[title], subject.preprocess(pixels), pair)
        experiment.result["methods"][title] = found if args.image is None else {"cosine": found["cosine"]}
    for start in range(0, min(len(pixels), SHOWN), 2):
        figure = _sheet(pixels, maps, range(start, min(start + 2, len(pixels))), experiment.result)
        experiment.picture(figure, str(start // 2 + 1))
    return experiment.write(markdown(experiment.result))


def halves(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The centres of two images, half as wide, side by side: uint8 ``(n, height, width, 3)``."""
    width = left.shape[2]
    cut = slice(width // 4, width // 4 + width // 2)
    return np.concatenate([left[:, :, cut], right[:, :, cut]], axis=2)


def composed(
    subject: Subject, test: Photographs, pair: list[int], args: argparse.Namespace, log: Callable[[str], None]
) -> np.ndarray:
    """Of images put together from a photograph of each class, those where the model is surest of both.

    They are ranked by the smaller of the two classes' outputs.
    """
    rng = np.random.default_rng(args.seed)
    drawn = [rng.choice(np.flatnonzero(test.labels == number), QUICK_TRIED if args.quick else TRIED) for number in pair]
    tried = np.unique(np.stack(drawn, axis=1), axis=0)

    def pixels(pairs: np.ndarray) -> np.ndarray:
        return halves(test.take(pairs[:, 0]).pixels(), test.take(pairs[:, 1]).pixels())

    log(f"{len(tried)} pairs of photographs are tried")
    parts = [tried[i : i + 64] for i in range(0, len(tried), 64)]
    least = np.concatenate([subject.outputs(pixels(part))[:, pair].min(axis=1) for part in parts])
    picked: list[np.ndarray] = []
    times = np.zeros(len(test.paths), int)
    for one in tried[np.argsort(-least, kind="stable")]:
        if len(picked) < (QUICK_MEASURED if args.quick else MEASURED) and (times[one] < TIMES).all():
            picked.append(one)
            times[one] += 1
    return pixels(np.stack(picked))


def squared(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The centre of an image in the proportions of ``size``, resized to it: uint8 ``(*size, 3)``."""
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1])
    height, width = int(size[0] * scale), int(size[1] * scale)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    resized = tf.image.resize(image[top : top + height, left : left + width], size, antialias=True)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def measured(
    title: str, analyzer: mipin_keras.Analyzer, x: np.ndarray, pair: list[int]
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """One method's maps of both classes as they are drawn, and what is measured of them."""
    one, other = (explained.read(title, analyzer, x, number) for number in pair)
    right = np.zeros(x.shape[:3], bool)
    right[:, :, x.shape[2] // 2 :] = True
    shares = [positive_share(maps.positive, right).per_image for maps in (one, other)]
    own = (1 - shares[0] + shares[1]) / 2
    own = own[~np.isnan(own)]
    found = {
        "right": [defined_mean(share) for share in shares],
        "own": defined_mean(own),
        "interval": bootstrap_interval(own) if len(own) else None,
        "samples": len(own),
        "cosine": {
            "drawn": defined_mean(cosines(one.drawn, other.drawn)),
            "signed": defined_mean(cosines(one.signed, other.signed)),
        },
    }
    return [one.drawn, other.drawn], found


def _sheet(pixels: np.ndarray, maps: Mapping[str, list[np.ndarray]], images: range, result: dict[str, Any]) -> Any:
    """Some images, each for its one and its other class; framed is the class's own half."""
    height, width = pixels.shape[1:3]
    own = [[[1, 1, width // 2 - 1, height - 1]], [[width // 2 + 1, 1, width - 1, height - 1]]]  # apart, to be seen
    frames = own if result["composed"] else [[], []]
    columns = [(i, c) for i in images for c in (0, 1)]
    return explained.sheet(
        pixels[[i for i, _ in columns]],
        [np.array(frames[c]).reshape(-1, 4) for _, c in columns],
        {title: np.stack([both[c][i] for i, c in columns]) for title, both in maps.items()},
        titles=[result["classes"][c] for _, c in columns],
    )


def markdown(result: dict[str, Any]) -> str:
    """The pictures, and how far each method tells the two classes apart."""
    one, other = result["classes"]
    alt = f"Images, each explained for {one} and for {other}, by MIP-IN and the seven baselines"
    pictures = "\n\n".join(f"![{alt}]({file})" for file in result["pictures"])
    return f"""# Figure 8: two classes on one image

The paper explains one photograph of a dog and a cat on VGG19, for "bull mastiff" and for "tiger cat". Ours are
{_images(result)} The model gives {one} {result["confidence"][0]:.2f}
and {other} {result["confidence"][1]:.2f} on average, neither of them below {result["least"]:.2f}.
{explained.setting(result)} Black is a map's 99.5th percentile and above\
{"; the orange frame is the half of the class explained" * result["composed"]}.

{pictures}

{_table(result)}

{_verdict(result)}
"""


def _images(result: dict[str, Any]) -> str:
    if not result["composed"]:
        return "of one image that was given."
    return (
        f"{result['images']} images, put together: on the left the centre of a test photograph of the class "
        f"{result['classes'][0]}, on the right one of {result['classes'][1]}, because no photograph here has two "
        f"labelled classes. Of pairs drawn by the seed these are the ones where the model is surest of both classes, "
        f"each photograph at most {TIMES} times; the first {min(SHOWN, result['images'])} are shown."
    )


def _table(result: dict[str, Any]) -> str:
    one, other = result["classes"]
    header = ["", "cosine, as drawn", "cosine, signed"]
    if result["composed"]:
        header[1:1] = [f"{one}: right half", f"{other}: right half", "own half", "95 %"]
    rows = []
    for title, of in result["methods"].items():
        row = [title, *(phrases.number(of["cosine"][how]) for how in ("drawn", "signed"))]
        if result["composed"]:
            interval = "-" if of["interval"] is None else "{:.2f} to {:.2f}".format(*of["interval"])
            row[1:1] = [*(phrases.number(share) for share in of["right"]), phrases.number(of["own"]), interval]
        rows.append(row)
    words = """The cosine is the one between the maps of the two classes, averaged over the images: 1 for a method that
does not look at the class; "signed" is of the channels' sum, with its sign."""
    if result["composed"]:
        words = f"""The share of the positive attribution that lies in the right half, where the {other} is: a method
that tells the classes apart gives little of it there for the left one and much for the right one. "Own half" is the
share in the half of the class explained, averaged over both classes: 0.5 for a method that does not look at the class,
whatever it marks; with its 95 % bootstrap interval. {words}"""
    return f"{report.table(header, rows)}\n\n{words}"


def _verdict(result: dict[str, Any]) -> str:
    """What the paper says of this figure, and whether the numbers here show it."""
    found = result["methods"]
    cosines = {title: of["cosine"]["drawn"] for title, of in found.items() if of["cosine"]["drawn"] is not None}
    ranked = sorted(cosines, key=lambda title: -cosines[title])
    most, named = ranked[: len(SIMILAR)], [title for title in SIMILAR if title in cosines]
    lines = [
        "The paper says that Guided Backprop, Deep Taylor and PatternAttribution give very similar maps for the two "
        "classes, and that MIP-IN is highly class-sensitive.",
        f"- Here the maps of {phrases.and_list([f'{t} ({cosines[t]:.2f})' for t in most])} are the most alike; those "
        f"the paper names have {phrases.and_list([f'{t} {cosines[t]:.2f}' for t in named])}.",
    ]
    if "MIP-IN" in cosines:
        place, cosine = ranked[::-1].index("MIP-IN") + 1, cosines["MIP-IN"]
        lines.append(f"- MIP-IN's maps differ {_place(place)} of the {len(ranked)} methods' (cosine {cosine:.2f}).")
    shares = {title: of["own"] for title, of in found.items() if of.get("own") is not None}
    if "MIP-IN" in shares and len(shares) > 1:
        best = max((title for title in shares if title != "MIP-IN"), key=shares.__getitem__)
        low, high = found["MIP-IN"]["interval"]
        leads = "more than any baseline" if shares["MIP-IN"] > shares[best] else "which is not the most"
        if low <= found[best]["interval"][1] and found[best]["interval"][0] <= high:
            leads = "by their intervals not told apart from the best baseline"
        beyond = "above" if low > 0.5 else "not reliably above"
        lines.append(
            f"- MIP-IN puts {shares['MIP-IN']:.3f} of its attribution in the half of the class explained, {beyond} "
            f"the 0.5 of a method that does not look at the class, and {leads}: {best} {shares[best]:.3f}."
        )
    return "\n".join(lines[:1] + [""] + lines[1:])


def _place(place: int) -> str:
    ending = {2: "nd", 3: "rd"}.get(place, "th")
    return "the most" if place == 1 else f"the {place}{ending} most"
