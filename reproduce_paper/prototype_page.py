"""The page of the few-shot experiment: its picture, its tables and what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mipin_keras.channels import resized
from mipin_keras.information import Decomposition
from mipin_keras.plotting import plot

from . import charts, phrases, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of an episode: classes, images that make a prototype, and queries of each class.
WAYS, SHOTS, QUERIES = 5, (1, 5), 15
#: The maps of the decomposition, and what the picture and the table call them.
MAPS = {"total": "total", "decision": "decision-related", "redundant": "redundant"}
#: Below this share of the total one's area, the decision's is called clearly smaller.
CLEARLY = 0.75


def picture(pixels: np.ndarray, found: Decomposition, titles: list[str]) -> Figure:
    """The photographs in a row, below them the three maps, one scale for the three of a photograph, and the mask."""
    names = ["photograph", *MAPS.values(), "mask λ"]
    n = len(pixels)
    figure, axes = charts.panels((1.4 + 1.2 * n, 1.35 * len(names)), len(names), n)
    for i in range(n):
        plot.image(pixels[i], axes[0, i], title=titles[i])
        maps = [getattr(found, name)[i] for name in MAPS]
        strongest = float(np.max(np.abs(maps))) or None
        for ax, one in zip(axes[1:4, i], maps, strict=True):
            plot.overlay(pixels[i], resized(one[None], pixels.shape[1:3])[0], ax, vmax=strongest)
            ax.set_xlabel(f"{one.sum():.1f} nats", fontsize=8, labelpad=2)
        plot.overlay(pixels[i], resized(found.mask[i][None], pixels.shape[1:3])[0], axes[4, i], "cividis", vmax=1.0)
        axes[4, i].set_xlabel(f"covers {found.mask[i].mean():.2f}", fontsize=8, labelpad=2)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def in_short(result: dict[str, Any]) -> list[str]:
    """How many are right, and how much the decision needs."""
    found, of = result["episodes"]["trained"], result["decomposition"]
    shots = phrases.and_list([f"{number}-shot {_percent(one)}" for number, one in found.items()])
    first = _first(of)
    maps = first["maps"]
    return [
        f"a prototype network on classes held out from its training, {WAYS}-way: {shots} right",
        f"of {maps['total']['sum']:.1f} nats that its embedding shares with the parts of a photograph, the nearest "
        f"prototype is left with {maps['decision']['sum']:.1f} {_accuracy(of)}",
    ]


def page(result: dict[str, Any]) -> str:
    """The accuracies, the decomposition and the picture."""
    model, classes, of = result["model"], result["classes"], result["decomposition"]
    height, width = of["feature_map"]
    pictures = "\n\n".join(
        f"![Photographs, their total, decision-related and redundant information, and the mask]({file})"
        for file in result["pictures"]
    )
    return f"""# Few-shot: what a prototype network's embedding knows

The draft of Gu's paper takes the embedding of a prototype network (Snell et al. 2017) apart, on birds (CUB), the
decision being the nearest prototype of a class. It shows pictures and gives no numbers. Ours is of Tiny ImageNet.

The embedding, four blocks of a 3x3 convolution, batch normalisation, ReLU and max-pooling and the mean over the
locations, {of["size"]} numbers, is trained on {model["train_samples"]:,} photographs of {model["classes"]} classes:
{phrases.and_list(classes["trained"])}; by {model["episodes"]:,} episodes of {model["ways"]} classes, {model["shots"]}
photographs a prototype and {model["queries"]} queries a class, in {model["seconds"] / 60:.0f} minutes. No photograph
of the {len(classes["held_out"])} classes that follow was seen in it: {phrases.and_list(classes["held_out"])}.

## Episodes of the held-out classes

The mean accuracy over {result["episodes"]["count"]:,} episodes of {WAYS} of these classes, {QUERIES} queries a class,
with its 95 % interval over the episodes; "untrained" is the same network with the weights that the training began with.

{_accuracies(result["episodes"])}

## Total, decision-related and redundant information

Of one episode, {of["support"]}-shot: {phrases.and_list(of["classes"])}. The nearest prototype p of an embedding z is
the largest logit 2 z·p - |p|², a Dense layer behind the embedding. The local parts are the {height}x{width} vectors of
`{of["layer"]}`; mask and critic are fitted on {of["fit"]:,} other photographs of these classes, without their labels:
the mask is to keep the network's own decision. The numbers are of {of["queries"]} validation photographs: the mean of a
map's sum over the locations, with its 95 % bootstrap interval over the photographs; of the mask its mean, the coverage.
The locations know the same in part, so that a sum is not what the embedding knows of the whole photograph. The area is
the share of locations above half of the map's largest value; the last column is the share of a map's positive values
that lies in the box, of the {of["boxed"]} photographs whose box leaves something out, beside that of a flat map.

{_maps(of)}

{pictures}

Red is information, blue below 0, on one scale for the three maps of a photograph; the mask's yellow is 1. Shown are
photographs that the network classifies rightly.

The mask's mean has a weight of {next(iter(of["weights"]))} beside the cross-entropy, as in the paper. With a larger one
less is left:

{_weights(of)}

"Right" is behind the mask, without it {100 * of["accuracy"]:.1f} %; "same" the share of photographs whose decision the
mask keeps; "above" that of the locations where decision-related exceeds total, which nothing in the method forbids.

{_verdict(of)}
"""


def _first(of: dict[str, Any]) -> dict[str, Any]:
    """The decomposition with the paper's weight of the mask."""
    return next(iter(of["weights"].values()))


def _accuracies(episodes: dict[str, Any]) -> str:
    header = [f"{WAYS}-way", *(f"{shots}-shot" for shots in SHOTS)]
    rows = [[name, *(_percent(episodes[name][str(shots)]) for shots in SHOTS)] for name in ("trained", "untrained")]
    rows.append(["chance", *([f"{100 / WAYS:.1f} %"] * len(SHOTS))])
    return report.table(header, rows)


def _maps(of: dict[str, Any]) -> str:
    rows = []
    for name, title in (*MAPS.items(), ("mask", "mask λ")):
        row = _first(of)["maps"][name]
        unit, form = ("", ".3f") if name == "mask" else (" nats", ".1f")
        total = f"{row['sum']:{form}}{unit} {phrases.bracketed(row['interval'], form)}"
        rows.append([title, total, f"{row['area']:.2f}", phrases.number(row["box"])])
    rows.append(["flat", "-", "1.00", f"{of['chance']:.2f}"])
    return report.table(["", "sum", "area", "in the box"], rows)


def _weights(of: dict[str, Any]) -> str:
    rows = [
        [
            weight,
            f"{found['maps']['mask']['sum']:.3f}",
            *(f"{found['maps'][name]['sum']:.1f}" for name in MAPS),
            *(f"{100 * found[name]:.1f} %" for name in ("masked_accuracy", "agreement", "above")),
        ]
        for weight, found in of["weights"].items()
    ]
    return report.table(["weight", "coverage", *MAPS.values(), "right", "same", "above"], rows)


def _verdict(of: dict[str, Any]) -> str:
    first = _first(of)
    total, decision = first["maps"]["total"], first["maps"]["decision"]
    larger = "the total is the larger" if total["sum"] > decision["sum"] else "the total is not the larger"
    kept = [weight for weight, one in of["weights"].items() if one["masked_accuracy"] > of["accuracy"] - 0.02]
    smaller = "so" if decision["area"] < CLEARLY * total["area"] else "not so"
    return f"""- On average {larger}: {total["sum"]:.1f} nats, of which the decision is left with \
{decision["sum"]:.1f} ({100 * decision["sum"] / total["sum"]:.0f} %).
- A location's mean on held-out photographs of the fit is {of["fitted"]["total"]:.2f} nats, decision-related
  {of["fitted"]["decision"]:.2f}; the bound's own limit there is {of["limit"]:.2f}.
- The accuracy {_accuracy(of)}. Of the weights, {phrases.and_list(kept)} of \
{phrases.and_list(list(of["weights"]))} keep it within 2 points.
- The draft finds the decision's area clearly smaller than the total one. Here it is {smaller}: \
{decision["area"]:.2f} and {total["area"]:.2f} of the locations."""


def _accuracy(of: dict[str, Any]) -> str:
    first = _first(of)
    return (
        f"behind the mask, which covers {first['maps']['mask']['sum']:.2f}: {100 * first['masked_accuracy']:.1f} % are "
        f"right, without it {100 * of['accuracy']:.1f} %"
    )


def _percent(of: dict[str, float]) -> str:
    return f"{100 * of['accuracy']:.1f} ± {100 * of['half']:.1f} %"
