"""The page and the pictures of the sanity check, made from its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.plotting import plot

from . import charts, report
from .phrases import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The similarities that are drawn: name, colour (Okabe and Ito's, for any eyes), line, marker.
DRAWN = {
    "spearman": ("rank correlation, signed", "#0072B2", "-", "o"),
    "spearman_absolute": ("rank correlation, absolute", "#D55E00", "--", "s"),
    "ssim": ("SSIM", "#009E73", ":", "^"),
}
COLUMNS = 8  # of the picture of maps, the trained model's first
# What is known: Guided Backpropagation keeps most of its map while the upper half is randomised, the gradient does not.
KEEPS, APART = 0.5, 0.2


def upper(found: dict[str, Any], curve: str, measure: str = "spearman_absolute") -> float:
    """The mean similarity while the upper half of the layers is randomised, from the output down; NaN without maps."""
    after = found["curves"][curve]["after"]
    values = [stage[measure] for stage in after[: max(len(after) // 2, 1)] if stage[measure] is not None]
    return float(np.mean(values)) if values else float("nan")


def as_known(found: dict[str, Any]) -> bool:
    """Whether Guided Backpropagation fails and the gradient passes, as Adebayo et al. (2018) found."""
    guided, gradient = upper(found, "Guided Backprop"), upper(found, "Gradient")
    return guided >= KEEPS and gradient <= guided - APART


def verdict(found: dict[str, Any]) -> str:
    """One line: what is known, and whether this run shows it."""
    guided, gradient = upper(found, "Guided Backprop"), upper(found, "Gradient")
    return (
        f"{found['title']}: while the upper half of the layers is randomised, Guided Backprop's maps keep a "
        f"rank correlation of absolute values of {guided:.2f} with the trained model's, the gradient's {gradient:.2f}: "
        f"{'as' if found['as_known'] else 'NOT as'} is known"
    )


def short(layer: str) -> str:
    """A layer's name, short enough for an axis."""
    return layer.split("/")[-1].replace("block", "b").replace("stage", "s").replace("_conv", "c").replace(
        "predictions", "logits"
    )  # fmt: skip


def curves(found: dict[str, Any]) -> Figure:
    """A panel a method: each similarity after each layer, from the output down."""
    layers = [short(layer) for layer in found["layers"]]
    count = len(found["curves"])
    rows = -(-(count + 1) // 3)
    figure, grid = charts.panels((7.2, 1.95 * rows), rows, 3, sharex=True, sharey=True)
    axes = grid.ravel()
    for ax, (label, curve) in zip(axes, found["curves"].items(), strict=False):
        for measure, (name, color, line, marker) in DRAWN.items():
            values = np.array([stage[measure] for stage in curve["after"]], float)  # None, no maps, as NaN: a gap
            ax.plot(values, line, color=color, marker=marker, ms=4, label=name)
        if curve["other"]["spearman_absolute"] is not None:
            ax.axhline(curve["other"]["spearman_absolute"], color="0.5", lw=1, label="another image, absolute")
        ax.set_title(label, fontsize=9)
        ax.set_ylim(-0.3, 1.05)
        ax.grid(alpha=0.3)
        ax.set_xticks(range(len(layers)), layers, rotation=90, fontsize=8)
        ax.tick_params(axis="y", labelsize=8)
    for ax in axes[count:]:
        ax.axis("off")
    for ax in axes[max(count - 3, 0) : count]:
        ax.tick_params(labelbottom=True)
    axes[count].legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=8, frameon=False)
    figure.supylabel("similarity to the trained model's maps", fontsize=9)
    figure.supxlabel("layers randomised, from the output down to the one named", fontsize=9)
    return figure


def maps(found: dict[str, Any], shown: dict[str, list[np.ndarray]], pixels: np.ndarray) -> Figure:
    """A method a row: one sample's maps by the trained model and after layers were randomised."""
    stages = ["trained", *map(short, found["layers"])]
    chosen = np.unique(np.linspace(0, len(stages) - 1, min(len(stages), COLUMNS)).round().astype(int))
    rows = {label.replace(", ", ",\n"): [images[i] for i in chosen] for label, images in shown.items()}
    figure = plot.grid(rows, images=[pixels] * len(chosen), cell=0.85)
    columns = len(chosen)
    for ax in figure.axes[1:columns]:
        ax.set_visible(False)
    for ax, i in zip(figure.axes[columns : 2 * columns], chosen, strict=True):
        ax.set_title(stages[i], fontsize=9)
    return figure


def page(result: dict[str, Any]) -> str:
    """The page: what was done, what came out for each model, and what the two curves of a learned method say."""
    parts = [_INTRODUCTION]
    for name, found in result["models"].items():
        pictures = [file for file in result["pictures"] if file.split("sanity-", 1)[1].removeprefix("quick-") in
                    (f"{name}.png", f"{name}-maps.png")]  # fmt: skip
        parts += [f"## {found['title']}", setting(found), table(found), f"**{verdict(found)}.**", refitted(found)]
        parts += [place(found), *(f"![{_CAPTIONS[i]}: {found['title']}]({file})" for i, file in enumerate(pictures))]
    parts.append(_REFITTED)
    return "\n\n".join(parts)


def setting(found: dict[str, Any]) -> str:
    """Model, images and resolution, in words."""
    ends = f"at {found['feature_map']} for MIP-IN, at the last convolution for Grad-CAM, at the pixels for the others"
    if found["feature_map"] is None:
        ends = "at the pixels, but for Grad-CAM"
    return (
        f"{found['images']} test images of {found['shape'][0]}x{found['shape'][1]} pixels and {found['classes']} "
        f"classes, each explained for its label, {ends}. The trained model (test accuracy "
        f"{100 * found['model']['accuracy']:.1f} %) is right on {100 * found['right']:.0f} % of them. Layers, as they "
        f"are randomised: {', '.join(found['layers'])}."
    )


def table(found: dict[str, Any]) -> str:
    """The similarities of each curve: the mean over the upper half, after all layers, and of different images."""
    half = max(len(found["layers"]) // 2, 1)
    header = ["map", "rank corr.", "of abs. values", "SSIM", "cosine", "all random: abs.", "SSIM"]
    header += ["other image: abs.", "SSIM", "constant"]
    rows = []
    for label, curve in found["curves"].items():
        last, other = curve["after"][-1], curve["other"]
        cells = [upper(found, label, measure) for measure in ("spearman", "spearman_absolute", "ssim", "cosine")]
        cells += [one[measure] for one in (last, other) for measure in ("spearman_absolute", "ssim")]
        constant = sum(stage["constant"] for stage in curve["after"])
        rows.append([label, *map(number, cells), constant])
    return (
        f"{report.table(header, rows)}\n\nFirst four columns: mean over the first {half} of {len(found['layers'])} "
        'randomised layers, those nearest to the output. "Other image": two maps of different images by the trained '
        "model, which says how much is the images' and the method's common pattern. \"Constant\": pairs of maps, "
        f"of all {found['images'] * len(found['layers'])}, that were left out because one is constant: all zero, as "
        "Deep Taylor's is where the explained value is negative, PatternAttribution's where no image makes it positive."
    )


def refitted(found: dict[str, Any]) -> str:
    """What fitting anew changes, for the methods that learn."""
    lines = []
    for label, curve in found["curves"].items():
        kept = next((other for other in found["curves"] if other.startswith(f"{label}, ")), None)
        if kept is None:
            continue
        with_fit, without = upper(found, label), upper(found, kept)
        all_fit, all_without = (found["curves"][one]["after"][-1]["spearman_absolute"] for one in (label, kept))
        more = "more" if without > with_fit else "no more"
        lines.append(
            f"- {curve['method']} keeps {number(with_fit)} over the upper half if it is fitted anew after each layer, "
            f"and {number(without)} if not: what it learned of the trained model holds the map together {more} than "
            f"what it learns of a random one. With all layers random: {number(all_fit)} and {number(all_without)}, "
            f"between different images {number(curve['other']['spearman_absolute'])}."
        )
    return "\n".join(lines)


def place(found: dict[str, Any]) -> str:
    """Where MIP-IN, fitted anew, stands among the methods: the less is kept, the better the check is passed."""
    titles = [label for label, curve in found["curves"].items() if label == curve["method"]]
    titles = [label for label in titles if not np.isnan(upper(found, label))]
    order = sorted(titles, key=lambda label: upper(found, label))
    if "MIP-IN" not in order:
        return "MIP-IN has no maps that can be compared."
    at = order.index("MIP-IN") + 1
    standing = "it leads" if at == 1 else f"it does not lead: {order[0]} keeps least"
    return (
        f"Rank correlation of absolute values kept over the upper half, from least: "
        f"{', '.join(f'{label} {upper(found, label):.2f}' for label in order)}. MIP-IN is number {at} of {len(order)}; "
        f"{standing}. These values compare methods of one resolution; a map that comes from a small feature map is "
        "smooth, and smooth maps are alike more easily."
    )


_CAPTIONS = ("Similarity after each randomised layer", "Maps of one image after each randomised layer")

_INTRODUCTION = """# Sanity check: maps of a model that is randomised layer by layer

If a map explains what a model has learned, it must change when that is taken away. After Adebayo et al. (2018),
"Sanity Checks for Saliency Maps", the layers of a copy of the model are randomised one after the other, from the output
down, each by its own initialiser; after each, every method explains the same images for the same classes, and its maps
are compared with those of the trained model: by Spearman's rank correlation, of the values with their signs and of
absolute values, by SSIM (each map divided by its largest absolute value) and by the cosine. 1 is the same map. The
lower the curve, the better a method passes. The MIP-IN paper has no such check; what is known is that Guided
Backpropagation fails and the gradient passes, and an experiment that does not show it is wrong.

Signed values are the sums over a map's channels. The others are of one value a pixel as Table 2 reads each method
(absolute values for pixels; of MIP-IN's attribution at the feature map the mean of the positive part, but not times the
feature map, which changes by itself); on MNIST they are the same maps.
A random logit is often negative, and a method that starts from its value then gives the map with all signs turned. So
that this is not taken for a change, Guided Backprop and Deconvnet start from 1, as in their papers, and the maps of
LRP, PatternAttribution and MIP-IN, which are proportional to that value, are divided by its sign. LRP's maps have the
input as a factor, and keep its pattern, zeros included, whatever the model is."""

_REFITTED = """## Refitted and not refitted

PatternAttribution and MIP-IN learn from data, so there are two questions. *Refitted*: after each randomisation they
learn the network as it has become, as a user would who explains it. A map that stays then comes from the data and the
architecture, which the randomised network still has. *Not refitted*: what was learned of the trained model is used
with the randomised network's activations, masks and, in max-pooling, places of the maxima. A map that stays then comes
from the learned inverse, which still knows the trained model; what changes comes from the network that is explained.
With only the last layer random nothing changes for MIP-IN that is not refitted but the explained value, and its map
not at all. Whether a method that learns passes is said by its *refitted* curve."""
