"""Pictures of attributions: signed heatmaps, overlays, and grids with methods as rows.

Everything is drawn on :class:`matplotlib.figure.Figure` objects, never with pyplot: no global state, no window, no
figure that stays in memory until it is closed. matplotlib is imported when something is drawn.

    plot.save(plot.grid({"gradient": g, "MIP-IN": a}, images=x), "comparison.png")
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import number, one_of
from ..saving.atomic import written
from .colormaps import COLORMAPS, attribution_map, colormap, image_shares, scale, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORMAPS", "grid", "heatmap", "image", "overlay", "save"]

_T = TypeVar("_T")


def heatmap(
    attribution: ArrayLike,
    ax: "Axes | None" = None,
    cmap: str = "seismic",
    vmax: float | None = None,
    title: str | None = None,
) -> "Axes":
    """Draw one attribution, its zero white, its scale symmetric.

    Args:
        attribution: (H, W), (H, W, 1), or (H, W, C), whose channels are summed; real numbers. All zero is drawn all
            white.
        ax: The matplotlib Axes to draw on; a figure of its own by default.
        cmap: A name in :data:`COLORMAPS`. With a signed one the scale is -vmax to vmax, else 0 to vmax.
        vmax: The value of the strongest colour, in the attribution's unit; larger ones get that colour too. By
            default the largest absolute value of the drawn map.
        title: Text above.

    Returns:
        The Axes; its figure is ``.figure``.

    Raises:
        ValueError: The shape is another, a value is NaN, infinite or no real number, the colour map is not in the
            table, is unsigned while a value is negative, or vmax is not a positive number.
    """
    values = attribution_map(attribution, cmap)
    top = strongest([values]) if vmax is None else number("vmax", vmax, 0, above=True)
    bottom = -top if scale(cmap).signed else 0.0
    ax = _axes(ax, values.shape)
    ax.imshow(values, cmap=colormap(cmap), vmin=bottom, vmax=top, interpolation="nearest")
    return _finish(ax, title)


def overlay(
    image: ArrayLike,
    attribution: ArrayLike,
    ax: "Axes | None" = None,
    cmap: str = "seismic",
    vmax: float | None = None,
    alpha: float = 0.9,
    title: str | None = None,
    bands: int | Sequence[int] | None = None,
) -> "Axes":
    """Draw an attribution over a pale grey version of its image: the stronger, the more opaque.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), or with bands (H, W, C), as for :func:`image`.
        attribution: (H, W), (H, W, 1) or (H, W, C), as for :func:`heatmap`, with the image's H and W.
        ax: The matplotlib Axes to draw on; a figure of its own by default.
        cmap: A name in :data:`COLORMAPS`.
        vmax: As for :func:`heatmap`.
        alpha: Opacity of the strongest value, above 0 and at most 1; it falls linearly to 0 at the value 0.
        title: Text above.
        bands: As for :func:`image`. The attribution is summed over all channels all the same.

    Returns:
        The Axes: the grey image is its first image, the colours its second.

    Raises:
        ValueError: As :func:`heatmap` and :func:`image`; or the two differ in height or width, or alpha is out of
            range.
    """
    values = attribution_map(attribution, cmap)
    picture = image_shares(image, bands=bands)
    if picture.shape[:2] != values.shape:
        raise ValueError(
            f"expected an image and an attribution of one height and width, received {picture.shape[:2]} and "
            f"{values.shape}; resize the attribution to the image first, as analyze(x, reduce=...) does"
        )
    alpha = number("alpha", alpha, 0, above=True)
    if alpha > 1:
        raise ValueError(f"expected alpha to be at most 1, received {alpha:g}; 1 is opaque")
    top = strongest([values]) if vmax is None else number("vmax", vmax, 0, above=True)

    # The light greys only: a colour that is half transparent over black would look like another value. The weights are
    # those of ITU-R BT.601 luma.
    grey = 0.6 + 0.4 * (picture if picture.ndim == 2 else picture @ np.array([0.299, 0.587, 0.114]))
    share = np.clip(values / top, -1.0, 1.0)
    colors = colormap(cmap)((share + 1) / 2 if scale(cmap).signed else share)
    colors[..., 3] = alpha * np.abs(share)
    ax = _axes(ax, values.shape)
    ax.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.imshow(colors, interpolation="nearest")
    return _finish(ax, title)


def image(
    picture: ArrayLike,
    ax: "Axes | None" = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    bands: int | Sequence[int] | None = None,
) -> "Axes":
    """Draw an input, or a source signal, as a picture.

    Args:
        picture: (H, W), (H, W, 1) or (H, W, 3), or with bands (H, W, C); uint8, bool, or real numbers of any range.
        ax: The matplotlib Axes to draw on; a figure of its own by default.
        limits: The values drawn as black and as full intensity; what lies outside is cut off. By default 0 and 255
            for uint8, 0 and 1 for numbers that all lie there, else the smallest and the largest value (a constant
            image is then mid grey). Only the bands that are drawn count.
        title: Text above.
        bands: Which channels of a picture with others than three colours, counted from 0, are drawn as red, green and
            blue, such as (3, 2, 1) for the bands of Sentinel-2; or one channel, which is drawn in grey.

    Returns:
        The Axes.

    Raises:
        ValueError: The shape is another, a value is NaN, infinite or no real number, limits is not two finite
            numbers, the first smaller, or bands are not one or three channels of the picture.
    """
    shares = image_shares(picture, limits, bands)
    ax = _axes(ax, shares.shape)
    ax.imshow(shares, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    return _finish(ax, title)


def grid(
    rows: Mapping[str, Sequence[ArrayLike] | NDArray[Any]],
    images: Sequence[ArrayLike] | NDArray[Any] | None = None,
    titles: Sequence[str] | None = None,
    captions: Mapping[str, Sequence[str]] | None = None,
    pictures: Collection[str] = (),
    cmap: str = "seismic",
    scaling: str = "map",
    cell: float = 1.1,
    bands: int | Sequence[int] | None = None,
) -> "Figure":
    """Draw many attributions: a method a row, a sample a column.

    Args:
        rows: For each row, from the top, its name and its n attributions: (n, H, W[, C]), or n arrays as
            :func:`heatmap` takes them.
        images: The n inputs, as :func:`image` takes them, drawn as the first row, named "input".
        titles: n texts, one above each column.
        captions: For some rows by name ("input" included), n texts, one under each of its cells.
        pictures: Names of rows that are pictures, not attributions (source signals): drawn as by :func:`image`.
        cmap: A name in :data:`COLORMAPS`, for all rows.
        scaling: "map", each attribution has a scale of its own; or "row", one for the row, so that its strengths can be
            compared.
        cell: Width of a cell in inches.
        bands: For the images and pictures, as for :func:`image`; attributions are summed over all channels.

    Returns:
        The Figure.

    Raises:
        ValueError: There is no row, a length differs, a name in captions or pictures is no row's, scaling is
            neither, or cell is not a finite number above 0; and as :func:`heatmap` and :func:`image`, with the row and
            column in the message.
    """
    one_of("scaling", scaling, ("map", "row"))
    cell = number("cell", cell, 0, above=True)
    scale(cmap)
    captions = captions or {}
    table = {name: list(maps) for name, maps in rows.items()}
    as_pictures = set(pictures)
    if images is not None:
        if "input" in rows:
            raise ValueError(
                "expected rows beside the images, which are drawn as a row named 'input', received a row of that name "
                "too; give it another name"
            )
        table = {"input": list(images), **table}
        as_pictures.add("input")
    columns = _check_table(table, titles, captions, as_pictures)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(cell * (columns + 1), cell * (len(table) + 0.3)), layout="constrained")
    axes = figure.subplots(len(table), columns, squeeze=False)
    for (name, maps), line in zip(table.items(), axes, strict=True):
        vmax = None
        if scaling == "row" and name not in as_pictures:
            vmax = strongest([_named(name, column, attribution_map, one, cmap) for column, one in enumerate(maps)])
        for column, (one, ax) in enumerate(zip(maps, line, strict=True)):
            if name in as_pictures:
                _named(name, column, image, one, ax, None, None, bands)
            else:
                _named(name, column, heatmap, one, ax, cmap, vmax)
            if name in captions:
                ax.set_xlabel(captions[name][column], fontsize=8, labelpad=2)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    if titles is not None:
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=9)
    return figure


def save(figure: "Figure | Axes", path: str | os.PathLike[str], dpi: float = 150) -> Path:
    """Write a figure as a PNG file, atomically.

    The file is written beside the path and then renamed, so that an interruption leaves no truncated picture and an
    earlier one stays. Missing folders are made.

    Args:
        figure: A Figure, or the Axes that the functions here return.
        path: The file, ending in ".png".
        dpi: Dots an inch.

    Returns:
        The path.

    Raises:
        ValueError: The path does not end in ".png", or dpi is not a finite number above 0.
        OSError: It cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"expected a path that ends in '.png', received '{path}'; only PNG files are written")
    dpi = number("dpi", dpi, 0, above=True)
    drawn: Any = figure if hasattr(figure, "savefig") else figure.figure
    with written(path) as file:
        drawn.savefig(file, format="png", dpi=dpi)
    return path


def _axes(ax: "Axes | None", shape: tuple[int, ...]) -> "Axes":
    """The given Axes, or the only one of a new figure with the picture's proportions."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    height = 3.0 * min(max(shape[0] / shape[1], 0.2), 5.0)
    return Figure(figsize=(3.0, height), layout="constrained").subplots()


def _finish(ax: "Axes", title: str | None) -> "Axes":
    """Take the ticks off, and frame the picture thinly: the edge of a white map can be seen."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(color="0.75", linewidth=0.5)
    if title is not None:
        ax.set_title(title, fontsize=9)
    return ax


def _named(row: str, column: int, function: Callable[..., _T], *args: Any) -> _T:
    """Call ``function(*args)``; an error says which cell of the grid it is about."""
    try:
        return function(*args)
    except ValueError as error:
        raise ValueError(f"row '{row}', column {column}: {error}") from error


def _check_table(
    table: Mapping[str, Sequence[ArrayLike]],
    titles: Sequence[str] | None,
    captions: Mapping[str, Sequence[str]],
    pictures: Collection[str],
) -> int:
    """The number of columns, when all agree on it and every row named is there."""
    if not table or not next(iter(table.values())):
        raise ValueError("expected rows of at least one method and one sample, received none; pass {name: maps}")
    for name in [*captions, *pictures]:
        if name not in table:
            raise ValueError(
                f"expected captions and pictures to name rows ({', '.join(table)}), received {name!r}; name one of "
                "these"
            )
    first, columns = next((name, len(maps)) for name, maps in table.items())
    lengths = {f"row '{name}'": len(maps) for name, maps in table.items()}
    lengths |= {f"captions of '{name}'": len(texts) for name, texts in captions.items()}
    lengths |= {} if titles is None else {"titles": len(titles)}
    for what, length in lengths.items():
        if length != columns:
            raise ValueError(
                f"expected one entry a column everywhere, received {columns} in row '{first}' and {length} in {what}; "
                "give as many of each as there are samples"
            )
    return columns
