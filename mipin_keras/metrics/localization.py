"""Localisation: whether what a map marks lies where the object is.

Sources: Deng et al., "Mutual Information Preserving Back-propagation" (MIP-IN), section 6.3, after Schulz et al.,
"Restricting the Flow: Information Bottlenecks for Attribution" (2020): bounding-box accuracy. Rao et al., "Towards
Better Understanding Attribution Methods" (2022), and Boehle et al., "Convolutional Dynamic Alignment Networks" (2021):
the share of positive attribution, which the grid pointing game takes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import integer, number
from .checks import maps_of, vector_of

_DRAWN = 1 << 20  # entries of the bootstrap that are drawn at once


@dataclass(frozen=True, eq=False)
class BoxAccuracy:
    """What :func:`bounding_box_accuracy` found.

    Attributes:
        accuracy: The mean over the images, from 0 to 1.
        per_image: (n,) float64, each image's share, from 0 to 1.
        chance: The mean share of an image that its box covers, which a flat map, or a random one, scores on average.
        samples: How many images there were.
    """

    accuracy: float
    per_image: NDArray[np.float64]
    chance: float
    samples: int

    def __str__(self) -> str:
        return f"bounding-box accuracy {self.accuracy:.3f} (chance {self.chance:.3f}, {self.samples} images)"


@dataclass(frozen=True, eq=False)
class PositiveShare:
    """What :func:`positive_share` found.

    Attributes:
        share: The mean over the images that have a value, from 0 to 1; NaN when none has.
        per_image: (n,) float64, each image's share; NaN where it is undefined.
        chance: The mean share of an image that its mask covers, over the images that have a value: what a flat
            positive map scores. NaN when none has.
        samples: How many images were averaged in.
        undefined: How many were not, because no pixel of their map is positive.
    """

    share: float
    per_image: NDArray[np.float64]
    chance: float
    samples: int
    undefined: int

    def __str__(self) -> str:
        return (
            f"positive share {self.share:.3f} (chance {self.chance:.3f}, {self.samples} images, "
            f"{self.undefined} undefined)"
        )


def bounding_box_accuracy(maps: ArrayLike, masks: ArrayLike) -> BoxAccuracy:
    """The share of an image's n strongest pixels that lie in its box of n pixels (section 6.3 of MIP-IN).

    Pixels that tie for the n-th position count in expectation, as if a random order settled them: a flat map scores
    exactly the share of the image that the box covers, and no order of storage helps.

    Args:
        maps: (n, H, W) of real numbers, largest where the object is said to be.
        masks: (n, H, W) of bool, the pixels in the box, or in the union of an image's boxes. The paper takes images
            whose boxes cover less than 33 %.

    Returns:
        A :class:`BoxAccuracy`.

    Raises:
        ValueError: The shapes differ or are others, there is no image, a map is not finite, the masks are not bool,
            or a mask covers nothing or everything.
    """
    values = maps_of("maps", maps)
    inside = _masks(masks, values.shape)
    per_image = np.array([_in_box(one, box) for one, box in zip(values, inside, strict=True)])
    return BoxAccuracy(float(per_image.mean()), per_image, float(inside.mean()), len(values))


def _in_box(values: NDArray[np.generic], box: NDArray[np.bool_]) -> float:
    n = int(box.sum())
    threshold = np.partition(values, values.size - n, axis=None)[values.size - n]
    above, tied = values > threshold, values == threshold
    left = n - int(above.sum())  # of the n pixels, those that the tied ones share
    return (int(box[above].sum()) + left * float(box[tied].mean())) / n


def positive_share(maps: ArrayLike, masks: ArrayLike) -> PositiveShare:
    """The share of an image's positive attribution that lies in its mask (Rao et al. 2022, section 3; Boehle 2021).

    Args:
        maps: (n, H, W) of real numbers; what is not positive counts as 0.
        masks: (n, H, W) of bool: the tile of the explained class, in the grid pointing game.

    Returns:
        A :class:`PositiveShare`. Images without any positive attribution are undefined: they are counted in
        ``undefined`` and not averaged in.

    Raises:
        ValueError: As :func:`bounding_box_accuracy`.
    """
    values = maps_of("maps", maps)
    inside = _masks(masks, values.shape)
    per_image = np.full(len(values), np.nan)
    for i, (one, mask) in enumerate(zip(values, inside, strict=True)):
        top = float(one.max())
        if top > 0:
            positive = np.maximum(one, 0) / top  # so that no sum overflows
            per_image[i] = positive[mask].sum(dtype=np.float64) / positive.sum(dtype=np.float64)
    defined = ~np.isnan(per_image)
    samples = int(defined.sum())
    share, chance = (per_image[defined].mean(), inside[defined].mean()) if samples else (np.nan, np.nan)
    return PositiveShare(float(share), per_image, float(chance), samples, len(values) - samples)


def centre_prior(size: tuple[int, int]) -> NDArray[np.float64]:
    """The map that knows nothing of an image but its centre: minus each pixel's distance from it.

    Args:
        size: Height and width, in pixels.

    Returns:
        (height, width) float64, in pixels, largest at the centre.

    Raises:
        ValueError: The size is not two integers of at least 1.
    """
    height, width = size
    size = integer("height", height, 1), integer("width", width, 1)
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in size)
    return -np.hypot(rows[:, None], columns[None, :])


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap's confidence interval of a mean over images.

    Args:
        values: (n,) of real numbers, one an image. For a paired comparison, give the differences.
        level: The share of resamples whose mean lies in the interval, between 0 and 1.
        resamples: How many times n images are drawn from the n, with replacement. Memory does not grow with it.
        seed: Of the draws.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: The values have another shape, are none, or hold NaN or infinity; or level, resamples or seed is out
            of range.
    """
    level, resamples = number("level", level, 0, above=True), integer("resamples", resamples, 1)
    seed = integer("seed", seed, 0)
    if level >= 1:
        raise ValueError(f"expected level to be between 0 and 1, received {level:g}; give a share, such as 0.95")
    numbers = vector_of("values", values, "give one number an image").astype(np.float64)
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWN // len(numbers))
    counts = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    means = np.concatenate(
        [numbers[random.integers(0, len(numbers), (count, len(numbers)))].mean(axis=1) for count in counts]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _masks(masks: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Checked masks of the maps' shape."""
    inside = np.asarray(masks)
    if inside.dtype != bool or inside.shape != shape:
        raise ValueError(
            f"expected masks of dtype bool, like the maps of shape {shape}, received {inside.dtype} of shape "
            f"{inside.shape}; resize the maps to the images, not the masks to the maps"
        )
    shares = inside.mean(axis=(1, 2))
    for what, bad in (("nothing", shares == 0), ("all of it", shares == 1)):
        if bad.any():
            raise ValueError(
                f"expected masks that cover a part of each image, received {int(bad.sum())} of {len(bad)} that cover "
                f"{what}, the first at index {int(np.argmax(bad))}; leave those images out: they measure nothing"
            )
    return inside
