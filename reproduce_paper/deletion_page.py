"""The page and the pictures of the deletion and insertion curves, made from their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import charts, methods, phrases, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The ranking that is drawn at random; like the centre prior it knows nothing of the model.
RANDOM = "random ranking"


def picture(measures: Mapping[str, Any]) -> Figure:
    """Draw the mean curves, a panel a measure. MIP-IN's is thick; those of rankings without the model are black."""
    lines = -(-len(measures) // 2)
    figure, axes = charts.panels((7.5, 3.0 * lines + 1.1), lines, 2, sharey=True)
    styles: dict[str, dict[str, Any]] = {
        "MIP-IN": {"color": "red", "linewidth": 2.5, "zorder": 3},
        RANDOM: {"color": "black", "linestyle": "--"},
        methods.CENTRE: {"color": "black", "linestyle": ":"},
    }
    others = [title for title in methods.METHODS if title not in styles]
    colors = ["C0", "C1", "C2", "C4", "C5", "C6", "C8", "C9"]
    styles |= {title: {"color": color, "linewidth": 1.2} for title, color in zip(others, colors, strict=False)}
    for ax, (name, found) in zip(axes.flat, measures.items(), strict=True):
        for title, one in found["rankings"].items():
            ax.plot(found["shares"], one["curve"], label=title, **styles[title])
        ax.set_title(name, fontsize=11)
        ax.set_xlabel(f"share of the pixels {'replaced' if name.startswith('deletion') else 'put back'}", fontsize=10)
        ax.set_xlim(0, 1)
        ax.grid(color="0.9")
    axes[0, 0].set_ylim(bottom=0)
    figure.get_layout_engine().set(wspace=0.06)
    figure.supylabel("probability of the class", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """Make the page: for each model the areas under the curves, the curves, and a verdict."""
    page = ["# Deletion and insertion curves\n", ABOUT.strip()]
    for (name, found), file in zip(result["subjects"].items(), result["pictures"], strict=True):
        measures, about = found["measures"], found["about"]
        page.append(
            f"\n## {name}, {found['data']}\n\nTest accuracy {100 * about['accuracy']:.1f} %; the first "
            f"{about['images']} images that it classifies rightly, of {about['looked_at']} looked at in an order drawn "
            f"by the seed or the data set's own. {result['scale']['steps']} steps. Fitted on training images: "
            f"{phrases.fitted_on(about['fit'])}.\n"
        )
        rows = []
        for title in next(iter(measures.values()))["rankings"]:
            found_of = [measure["rankings"][title] for measure in measures.values()]
            rows.append([title, *(phrases.with_interval(one["area"], one["interval"]) for one in found_of)])
        page += [report.table(["area under the curve", *measures], rows), ""]
        page += [f"- {verdict(measure, one['rankings'])}" for measure, one in measures.items()]
        page.append(f"\n![{name}: the mean curves of every ranking]({file})")
    return "\n".join(page)


ABOUT = """
The pixels of an image are ranked by a map, highest first. *Deletion* replaces the top share of them (Samek et al.
2016; Petsiuk et al. 2018): the sooner the probability of the class falls, the smaller the area under the curve, the
better. *Insertion* starts from what replaces them and puts them back: the larger the area, the better. The paper has
neither. The probability is the softmax of the label's class. Photographs are replaced by a Gaussian blur of
themselves, of a standard deviation of a tenth of their side, or by the mean of each of their channels, and digits by
0, their background. On photographs the maps are read as in Table 2: those of MIP-IN and Grad-CAM are of a
feature map, the others' of the pixels, absolute values. On digits all explain the
pixels, and these are ranked by the attribution itself with its sign. Ties are broken at random. Areas are means over
images, with 95 % bootstrap intervals. An image with pixels replaced is one that no model was trained on: a map of
single pixels (as of gradients) makes another pattern of holes than a smooth one, so both measures say as much about
the model beside its data as about the map, and the random ranking and the centre prior, which know nothing of the
model, show how much that alone does.
"""


def sign_of(measure: str) -> int:
    """1 for a deletion, where a smaller area is better; -1 for an insertion, where a larger one is."""
    return 1 if measure.startswith("deletion") else -1


def by_area(measure: str, rankings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The methods, the best area first; MIP-IN before those that it is level with."""
    sign = sign_of(measure)
    return sorted(methods.METHODS, key=lambda title: (sign * rankings[title]["area"], title != "MIP-IN"))


def verdict(measure: str, rankings: Mapping[str, Mapping[str, Any]]) -> str:
    """Say who leads, where MIP-IN stands, and who is no better than a ranking that knows nothing of the model."""
    sign = sign_of(measure)
    area = {title: rankings[title]["area"] for title in rankings}
    order = by_area(measure, rankings)
    word, place = "smallest" if sign > 0 else "largest", order.index("MIP-IN") + 1
    text = f"**{measure}**: the {word} area is that of {order[0]}, {area[order[0]]:.3f}"
    if place == 1:
        difference = rankings[order[1]]["beyond_mipin"]
        other = f"{order[1]}, {area[order[1]]:.3f}, is next"
    else:
        difference = rankings[order[0]]["beyond_mipin"]
        other = f"MIP-IN does not lead: {area['MIP-IN']:.3f}, place {place} of {len(order)}"
    interval, told = phrases.bracketed(difference), phrases.told_apart(difference)
    text += f"; {other}; the interval of their difference, image by image, {interval}, {told}."
    for title in (RANDOM, methods.CENTRE):
        worse = [one for one in order if sign * area[one] >= sign * area[title]]
        if worse:
            text += f" No better than the {title} ({area[title]:.3f}): {phrases.and_list(worse)}."
    return text


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    lines = []
    for name, found in result["subjects"].items():
        places = []
        for measure, one in found["measures"].items():
            order = by_area(measure, one["rankings"])
            first = "leads" if order[0] == "MIP-IN" else f"place {order.index('MIP-IN') + 1}, {order[0]} leads"
            places.append(f"{measure}: {first}")
        lines.append(f"{name}, MIP-IN among {len(methods.METHODS)} methods: {'; '.join(places)}.")
    return lines
