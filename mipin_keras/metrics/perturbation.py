"""Deletion and insertion: how the score falls, or rises, as pixels go, or come back, in the order of a map.

Sources: Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned" (2016); Petsiuk et al.,
"RISE: Randomized Input Sampling for Explanation of Black-box Models" (2018), section 4.1. They know neither the method
that made the map nor what the model is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_finite, integer, real_array
from .checks import maps_of

BASELINES = ("mean", "blur", "zero")
BLUR = 0.1
"""The standard deviation of the baseline "blur" along an axis of the image, as a share of the image's size there."""


@dataclass(frozen=True)
class Curves:
    """What :func:`deletion` and :func:`insertion` found.

    Attributes:
        shares: (steps + 1,) float64, from 0 to 1 exactly: the share of the pixels that is replaced.
        scores: (n, steps + 1) float64, in the unit of what ``predict`` gives: the score of each image's explained
            class. For deletion the first is the image's own and the last the baseline's; for insertion the reverse.
    """

    shares: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def areas(self) -> NDArray[np.float64]:
        """(n,) float64, in the scores' unit: the area under each curve by the trapezoidal rule, over shares 0 to 1."""
        return (self.scores[:, 1:] + self.scores[:, :-1]) / 2 @ np.diff(self.shares)

    @property
    def mean_area(self) -> float:
        """The mean of ``areas``. Of deletion curves a small one is good, of insertion curves a large one."""
        return float(self.areas.mean())

    def __str__(self) -> str:
        return f"area {self.mean_area:.3f} ({len(self.scores)} images, {len(self.shares) - 1} steps)"


def deletion(
    predict: Callable[[NDArray[Any]], Any],
    x: ArrayLike,
    maps: ArrayLike,
    classes: ArrayLike,
    *,
    baseline: ArrayLike | str = "blur",
    steps: int = 50,
    batch_size: int = 128,
    seed: int = 0,
) -> Curves:
    """Replace the pixels of an image by a baseline, those that its map ranks highest first.

    Args:
        predict: From a batch (b, H, W, C) or (b, H, W), like x, to the scores of all classes (b, classes):
            probabilities or logits, whichever is to be measured. ``model.predict_on_batch`` and an analyzer's
            ``logits`` are such.
        x: (n, H, W, C) or (n, H, W), as predict takes it; real numbers. Integers become float32.
        maps: (n, H, W), real numbers; the highest value goes first. Equal values go in an order drawn at random for
            each image, so that a flat map scores chance on average.
        classes: The explained class: an integer, or (n,) of them.
        baseline: What replaces a pixel, all its channels together. ``"mean"``: the image's own mean of each channel;
            ``"blur"``: the image after a Gaussian filter whose standard deviation is a tenth of its height and of its
            width (``BLUR``), renormalised at the edges; ``"zero"``; or an array that broadcasts to x.
        steps: How often the same number of pixels goes, up to rounding; at most H * W.
        batch_size: Most images that are perturbed, and predicted, at once; it changes memory and time only.
        seed: Of the order of equal values.

    Returns:
        :class:`Curves`; of a faithful map the score falls early, and the area is small.

    Raises:
        ValueError: A shape, a type or an option is another than stated, a value is NaN or infinite, or ``predict``
            gives something else than finite scores (b, classes) with the explained class among them.
    """
    return _curves(predict, x, maps, classes, baseline, steps, batch_size, seed, insert=False)


def insertion(
    predict: Callable[[NDArray[Any]], Any],
    x: ArrayLike,
    maps: ArrayLike,
    classes: ArrayLike,
    *,
    baseline: ArrayLike | str = "blur",
    steps: int = 50,
    batch_size: int = 128,
    seed: int = 0,
) -> Curves:
    """Start from the baseline and put the pixels of the image back, those that its map ranks highest first.

    Args:
        predict, x, maps, classes, baseline, steps, batch_size, seed: As for :func:`deletion`.

    Returns:
        :class:`Curves`; of a faithful map the score rises early, and the area is large.

    Raises:
        ValueError: As :func:`deletion`.
    """
    return _curves(predict, x, maps, classes, baseline, steps, batch_size, seed, insert=True)


def _curves(
    predict: Callable[[NDArray[Any]], Any],
    x: ArrayLike,
    maps: ArrayLike,
    classes: ArrayLike,
    baseline: ArrayLike | str,
    steps: int,
    batch_size: int,
    seed: int,
    insert: bool,
) -> Curves:
    images = maps_of("x", x, "(n, H, W, C) or (n, H, W)", rank=None)
    if images.ndim not in (3, 4):
        raise ValueError(
            f"expected x of shape (n, H, W, C) or (n, H, W), received shape {images.shape}; deletion and insertion "
            "are for images"
        )
    if images.dtype.kind != "f":
        images = images.astype(np.float32)
    ranked = maps_of("maps", maps)
    if ranked.shape != images.shape[:3]:
        raise ValueError(
            f"expected maps of shape {images.shape[:3]}, one value a pixel of x, received shape {ranked.shape}; "
            "reduce a map's channels first: analyze(x, reduce=...)"
        )
    n, pixels = len(images), ranked[0].size
    labels = np.asarray(classes)
    if labels.dtype.kind not in "iu" or labels.shape not in ((), (n,)) or labels.min() < 0:
        raise ValueError(
            f"expected classes to be an integer from 0, or {n} of them, received {_brief(classes)}; give one class "
            "for all images, or one for each"
        )
    labels = np.broadcast_to(labels, (n,))
    steps, batch_size = integer("steps", steps, 1), integer("batch_size", batch_size, 1)
    seed = integer("seed", seed, 0)
    if steps > pixels:
        raise ValueError(
            f"expected steps of at most the number of pixels, {pixels}, received {steps}; take fewer steps"
        )
    given = baseline if isinstance(baseline, str) else _fixed(baseline, images)
    if isinstance(given, str) and given not in BASELINES:
        raise ValueError(f"expected baseline to be an array or one of {BASELINES}, received {baseline!r}")

    rng = np.random.default_rng(seed)
    counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(int)
    scores = np.empty((n, steps + 1))
    for first in range(0, n, batch_size):
        part = slice(first, first + batch_size)
        image, ranks = images[part], _ranks(ranked[part], rng)
        other = _baseline(given, image) if isinstance(given, str) else given[part]
        before, after = (other, image) if insert else (image, other)
        for step, count in enumerate(counts):
            replaced = (ranks < count).reshape(*ranks.shape, *[1] * (image.ndim - 3))
            scores[part, step] = _scores(predict, np.where(replaced, after, before), labels[part])
    return Curves(counts / pixels, scores)


def _ranks(maps: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """The position of each pixel in its map's order from the highest, from 0: (b, H, W); equal values at random."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((rng.random(flat.shape), -flat.astype(np.float64)), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(maps.shape)


def _baseline(name: str, images: NDArray[Any]) -> NDArray[Any]:
    """The baseline of that name, of a batch: of the images' type, and their shape or one that broadcasts to it."""
    if name == "zero":
        return np.zeros_like(images)
    if name == "mean":
        return images.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(images.dtype)
    rows, columns = (_gaussian(size) for size in images.shape[1:3])
    return np.einsum("hi,wj,nij...->nhw...", rows, columns, images, optimize=True).astype(images.dtype)


def _gaussian(size: int) -> NDArray[np.float64]:
    """The matrix (size, size) of a Gaussian filter along an axis; its weights of the pixels there sum to 1."""
    at = np.arange(size)
    weights = np.exp(-0.5 * ((at[:, None] - at) / (BLUR * size)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _fixed(baseline: ArrayLike, images: NDArray[Any]) -> NDArray[Any]:
    """A caller's baseline as a view of the images' shape, of their type."""
    array = real_array("baseline", baseline)
    try:
        view = np.broadcast_to(array, images.shape)
    except ValueError:
        raise ValueError(
            f"expected baseline to broadcast to x, {images.shape}, received shape {array.shape}; give a number, an "
            "image, or an image for each of x"
        ) from None
    maps_of("baseline", view, rank=None)
    return np.broadcast_to(array.astype(images.dtype), images.shape)


def _scores(
    predict: Callable[[NDArray[Any]], Any], batch: NDArray[Any], labels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """The explained classes' scores of a batch, checked."""
    scores = np.asarray(predict(batch))
    if scores.ndim != 2 or len(scores) != len(batch) or scores.dtype.kind not in "fiu":
        raise ValueError(
            f"expected predict to give the scores of all classes, ({len(batch)}, classes), of a batch of {len(batch)}, "
            f"received {scores.dtype} of shape {scores.shape}; give model.predict_on_batch, or an analyzer's logits"
        )
    if labels.max() >= scores.shape[1]:
        raise ValueError(
            f"expected classes below the {scores.shape[1]} that predict scores, received {labels.max()}; count them "
            "from 0"
        )
    check_finite("the scores that predict gives", scores, "images", "look for the cause in the model")
    return scores[np.arange(len(batch)), labels].astype(np.float64)


def _brief(values: Any) -> str:
    """What a message says of a caller's value: a number as it is, an array by its dtype and shape."""
    array = np.asarray(values)
    return f"{array.dtype} of shape {array.shape}" if array.ndim else repr(values)
