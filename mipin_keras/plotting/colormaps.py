"""Colour maps for :mod:`mipin_keras.plot`, and the checks and scaling of the arrays that it draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_finite, index, is_integer, real_array

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


class ColorScale(NamedTuple):
    """An entry of :data:`COLORMAPS`.

    Attributes:
        signed: Whether it has two sides around a white zero; otherwise it runs from 0 up.
        colorblind: Whether its makers publish it as readable with the common forms of colour blindness.
        colors: From the lowest value to the largest, evenly spaced; empty: matplotlib's own map of that name.
        note: What it looks like.
    """

    signed: bool
    colorblind: bool
    colors: tuple[str, ...]
    note: str


# matplotlib's own maps of the first three names have at their centre an even number of levels (seismic) or a light
# grey (RdBu_r, PuOr_r), so that 0 is drawn as a faint red or grey. Here are the same colours around an exact white.
COLORMAPS: dict[str, ColorScale] = {
    "seismic": ColorScale(
        True, False, ("#00004d", "#0000ff", "#ffffff", "#ff0000", "#800000"), "red positive, blue negative: the paper's"
    ),
    "RdBu_r": ColorScale(
        True,
        True,
        ("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ffffff")
        + ("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
        "red positive, blue negative (ColorBrewer)",
    ),
    "PuOr_r": ColorScale(
        True,
        True,
        ("#2d004b", "#542788", "#8073ac", "#b2abd2", "#d8daeb", "#ffffff")
        + ("#fee0b6", "#fdb863", "#e08214", "#b35806", "#7f3b08"),
        "orange positive, purple negative (ColorBrewer)",
    ),
    "Greys": ColorScale(False, True, (), "white at 0 to black"),
    "cividis": ColorScale(False, True, (), "dark blue at 0 to yellow"),
}
"""The colour maps, by name."""

# Odd, so that one level has its middle at 0 and is white.
_LEVELS = 257


def scale(name: str) -> ColorScale:
    """Look a colour map up.

    Raises:
        ValueError: The name is not in :data:`COLORMAPS`.
    """
    if name not in COLORMAPS:
        known = "; ".join(f"'{key}', {entry.note}" for key, entry in COLORMAPS.items())
        raise ValueError(f"expected the name of a colour map, received {name!r}; take one of these: {known}")
    return COLORMAPS[name]


def colormap(name: str) -> "Colormap":
    """Make the matplotlib colour map of a name in :data:`COLORMAPS`: 0 to 1 is lowest to highest, 0.5 a signed zero.

    Raises:
        ValueError: The name is not in :data:`COLORMAPS`.
    """
    entry = scale(name)
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if not entry.colors:
        return matplotlib.colormaps[name]
    return LinearSegmentedColormap.from_list(name, list(entry.colors), N=_LEVELS)


def attribution_map(attribution: ArrayLike, cmap: str) -> NDArray[np.float64]:
    """Check an attribution and sum its channels.

    Args:
        attribution: (H, W) or (H, W, C) of real numbers.
        cmap: The name of the colour map that is to show it.

    Returns:
        (H, W) float64, summed in float64.

    Raises:
        ValueError: The shape is another, it is empty, a value is NaN, infinite or no real number, the name is not in
            :data:`COLORMAPS`, or its scale starts at 0 and a value is below.
    """
    array = _numbers("an attribution", attribution, "C").astype(np.float64)
    array = array.sum(axis=2) if array.ndim == 3 else array
    if not scale(cmap).signed and array.min() < 0:
        signed = ", ".join(f"'{name}'" for name, entry in COLORMAPS.items() if entry.signed)
        raise ValueError(
            f"expected values from 0 up for the colour map '{cmap}', received {array.min():.3g}; "
            f"take a signed one ({signed}), or the absolute value"
        )
    return array


def image_shares(
    image: ArrayLike, limits: tuple[float, float] | None = None, bands: int | Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Scale an image to shares of full intensity.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), with ``bands`` (H, W, C); uint8, bool, or real numbers of any range.
        limits: What becomes 0 and 1; what lies outside is cut off. By default 0 and 255 for uint8, 0 and 1 for
            numbers that all lie there, else the smallest and the largest value; a constant is then 0.5. Only what is
            drawn counts.
        bands: As of :func:`chosen`.

    Returns:
        (H, W) or (H, W, 3) float64, from 0, black, to 1.

    Raises:
        ValueError: The shape is another, it is empty, a value is NaN, infinite or no real number, limits is not
            two finite numbers, the first smaller, or bands are not channels of the image.
    """
    array = _numbers("an image", image if bands is None else chosen(image, bands), "1 or 3")
    if array.ndim == 3 and array.shape[2] != 3:
        raise ValueError(
            f"expected an image of 1 or 3 channels, the last axis, received shape {array.shape}; say which channels to "
            "draw as red, green and blue, such as bands=(3, 2, 1), or one of them in grey, such as bands=0"
        )
    values = array.astype(np.float64)
    if limits is not None:
        low, high = limits
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(
                f"expected limits to be two finite numbers, the first smaller, received {limits}; leave limits out for "
                "those of the image"
            )
    elif array.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif values.min() >= 0 and values.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return np.full_like(values, 0.5)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def chosen(image: ArrayLike, bands: int | Sequence[int]) -> NDArray[Any]:
    """The channels of an image that are drawn.

    Args:
        image: (H, W, C).
        bands: The channels, counted from 0, to draw as red, green and blue; or one channel, to draw in grey.

    Returns:
        (H, W, 3), or (H, W, 1).

    Raises:
        ValueError: The image has no channels, or bands are not one or three of them.
    """
    array = real_array("an image", image)
    if array.ndim != 3:
        raise ValueError(
            f"expected an image of shape (H, W, C) to choose bands of, received shape {array.shape}; leave bands out"
        )
    several = isinstance(bands, list | tuple | range | np.ndarray) and np.ndim(bands) == 1
    entries: list[Any] = list(bands) if several else [bands] if is_integer(bands) else []  # type: ignore[arg-type]
    if len(entries) not in (1, 3):
        raise ValueError(
            f"expected bands to be three channels, for red, green and blue, or one, for grey, received {bands!r}; such "
            "as bands=(3, 2, 1)"
        )
    return array[..., [index("each of bands", entry, array.shape[2]) for entry in entries]]


def strongest(maps: Sequence[NDArray[np.float64]]) -> float:
    """The largest absolute value, in the maps' unit; 1.0 where all are 0, so that nothing is divided by 0."""
    return max(float(np.abs(one).max()) for one in maps) or 1.0


def _numbers(what: str, values: ArrayLike, channels: str) -> NDArray[Any]:
    """A checked array of (H, W) or (H, W, C), its only channel taken off."""
    array = real_array(what, values)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"expected {what} of shape (H, W) or (H, W, {channels}), not empty, received shape {array.shape}; "
            "take one sample of a batch, or reshape features in a row to the picture that they are of"
        )
    check_finite(what, array.reshape(-1), "values", "look for the cause: a picture would hide them")
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
