"""Charts that several experiments draw: figures of panels, and horizontal bars with intervals, one for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(size: tuple[float, float], rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, np.ndarray]:
    """Make a figure whose panels do not overlap.

    Args:
        size: Width and height of the figure in inches.
        rows, columns: The number of panels below each other and side by side.
        **shared: ``sharex`` and ``sharey``, as for ``Figure.subplots``.

    Returns:
        The figure, and its axes in an array ``(rows, columns)``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def method_bars(
    ax: Axes, values: Mapping[str, float], intervals: Sequence[Sequence[float]], grey: str, **style: Any
) -> None:
    """Draw a horizontal bar with its interval for each method; MIP-IN's bar is red.

    Args:
        ax: Where the bars are drawn, the first one on top.
        values: The length of each bar, by the method's name.
        intervals: The lower and upper end of each bar's interval.
        grey: The color of the other methods' bars.
        **style: More options of ``Axes.barh``.
    """
    colors = ["tab:red" if method == "MIP-IN" else grey for method in values]
    lengths = list(values.values())
    ax.barh(list(values), lengths, xerr=whiskers(lengths, intervals), color=colors, **style)
    ax.tick_params(labelsize=9)
    first_on_top(ax)
    half_framed(ax)


def whiskers(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> np.ndarray:
    """How far each interval reaches below and above its value: ``(2, n)``, as matplotlib takes errors."""
    low, high = np.array(intervals, np.float64).T
    return np.maximum([values - low, high - values], 0)


def first_on_top(ax: Axes) -> None:
    """List the names along the vertical axis from top to bottom; of axes that share it, once for all is enough."""
    if not ax.yaxis_inverted():
        ax.invert_yaxis()


def half_framed(ax: Axes) -> None:
    """Leave only the left and the lower edge of the frame."""
    ax.spines[["top", "right"]].set_visible(False)
