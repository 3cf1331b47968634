"""The page and the pictures of the grid pointing game, made from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.plotting import plot

from . import charts, methods, phrases, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    figure, axes = charts.panels((7.5, 4.2), 1, len(subjects), sharex=True, sharey=True)
    for ax, (name, found) in zip(axes[0], subjects.items(), strict=True):
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
    axes[0, 0].set_yticks(range(len(found["methods"])), list(found["methods"]), fontsize=10)
    charts.first_on_top(axes[0, 0])
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
            cells += [phrases.with_interval(one["share"], one["interval"]), str(one["undefined"])]
        rows.append(cells)
    header = ["share in the own tile"] + [word for name in subjects for word in (name, "undefined")]
    page = ["# The grid pointing game\n", ABOUT.strip(), "", report.table(header, rows), ""]
    page += [f"- {verdict(name, found['methods'])}" for name, found in subjects.items()]
    page.append(f"\n![Box plots of the shares]({files[0]})\n\n## What the models see\n")
    fit = phrases.fitted_on(result["fit"])
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
    """Say who leads, where MIP-IN stands, and who is not above chance."""
    order = sorted(methods.METHODS, key=lambda title: (-rows[title]["share"], title != "MIP-IN"))
    place = order.index("MIP-IN") + 1
    text = f"**{name}**: {order[0]} leads with {rows[order[0]]['share']:.3f}"
    if place == 1:
        other = order[1]
        text += f"; {other}, {rows[other]['share']:.3f}, is next"
    else:
        other = order[0]
        text += f"; MIP-IN does not: {rows['MIP-IN']['share']:.3f}, place {place} of {len(order)}"
    difference = rows[other]["beyond_mipin"]
    interval, told = phrases.bracketed(difference), phrases.told_apart(difference)
    text += f"; the interval of their difference, mosaic by mosaic, {interval}, {told}."
    chance = [title for title in order if rows[title]["interval"][0] <= 0.25]
    return text + (f" Not told from chance, or below it: {phrases.and_list(chance)}." if chance else "")


def sight(name: str, about: Mapping[str, Any], count: int) -> str:
    """Say how well the model classifies photographs, tiles and mosaics."""
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
