"""Class sensitivity: how far apart the maps of two classes on one image lie.

Source: Deng et al., "Mutual Information Preserving Back-propagation" (MIP-IN), section 6.4.2 and appendix B.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import pairs_of

# Two maps of largest absolute value 1 are the same where no entry differs by more: for two classes, rounding to float32
# on the way back through a network leaves a difference of this size.
SAME = 1e-4


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What :func:`class_sensitivity` found.

    Attributes:
        distance: The mean l2 distance over the images; 0 for a method whose maps do not depend on the class, without
            an upper end: it grows with the square root of the number of entries of a map.
        per_image: (n,) float64, each image's distance.
        identical: Images whose two maps, neither of them all zero, are the same after scaling (to ``SAME``).
        empty: Images of which one map, or both, is all zero.
        samples: How many images there were.
    """

    distance: float
    per_image: NDArray[np.float64]
    identical: int
    empty: int
    samples: int

    def __str__(self) -> str:
        return (
            f"mean l2 distance {self.distance:.2f} ({self.samples} images, {self.identical} with identical maps, "
            f"{self.empty} with an empty one)"
        )


def class_sensitivity(first: ArrayLike, second: ArrayLike) -> Sensitivity:
    """The mean l2 distance between the maps of two classes on the same images (section 6.4.2).

    Each map is scaled to a largest absolute value of 1; an all-zero one stays zero. The paper does not say how its
    maps are scaled; the size of its numbers fits this. It finds that a large distance can mislead: Deep Taylor's maps
    of two classes are either the same, or one of them is all zero. Such images are counted, in ``identical`` and
    ``empty``, and averaged in.

    Args:
        first, second: (n, ...) of real numbers: for each image the map of the one and of the other class.

    Returns:
        A :class:`Sensitivity`.

    Raises:
        ValueError: The shapes differ, there is no image, or a map is not finite.
    """
    one, other = pairs_of(first, second)
    distances, identical, empty = np.zeros(len(one)), 0, 0
    for i, pair in enumerate(zip(one, other, strict=True)):
        a, b = (_scaled(m) for m in pair)
        distances[i] = np.linalg.norm(a - b)
        if not a.any() or not b.any():
            empty += 1
        elif np.abs(a - b).max() <= SAME:
            identical += 1
    return Sensitivity(float(distances.mean()), distances, identical, empty, len(one))


def _scaled(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """As float64 ``(entries,)`` of largest absolute value 1, or all zero."""
    flat = values.reshape(-1).astype(np.float64)
    top = np.abs(flat).max()
    return flat / top if top > 0 else flat
