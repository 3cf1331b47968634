"""What Table 2 leaves open (layer, ReLU, samples, channels), swept once on training photographs."""

from __future__ import annotations

import argparse
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import mipin_keras
from mipin_keras.channels import reduced
from mipin_keras.metrics import bounding_box_accuracy, centre_prior

from . import gallery, methods, photo_models, report
from .methods import Reading
from .photo_models import Subject
from .photographs import Photographs

#: The feature maps tried, from the lowest up.
LAYERS = {
    "VGG": ["block3_pool", "block4_conv1", "block4_conv2", "block4_conv3", "block4_pool"],
    "ResNet": ["stage2_block2_out", "stage3_block1_out", "stage3_block2_out"],
}
SAMPLES = ("all", "class")
#: Of MIP-IN: for each way of fitting, how its attribution becomes a map.
READINGS = [
    Reading(samples, reduce, times)
    for samples, reduce, times in itertools.product(SAMPLES, ("relu_mean", "mean"), (False, True))
]
#: Of the channels of the other methods' maps. "sum" is left out: it ranks pixels as "mean" does.
CHANNELS = ("abs_mean", "max_abs", "mean", "relu_mean")
WHEN = {"relu_mean": "before", "mean": "after"}


class Scale(NamedTuple):
    """How many photographs, rows and noisy copies a run takes."""

    photographs: int = 500  # that maps are measured on
    fit_images: int = 2000  # that methods are fitted on: others
    rows: int = methods.ROWS  # of each convolution's regression
    noises: int = 32  # of SmoothGrad


QUICK = Scale(photographs=40, fit_images=200, rows=1 << 10, noises=2)


def split(train: Photographs, scale: Scale) -> tuple[Photographs, Photographs]:
    """Split training photographs into some with small boxes, to measure on, and others to fit on; both evenly drawn."""
    measured = train.with_small_boxes().evenly(scale.photographs)
    used = set(measured.paths)
    others = train.take([i for i, path in enumerate(train.paths) if path not in used])
    return measured, others.evenly(scale.fit_images)


def key(reading: Reading) -> str:
    """A reading's name in the result."""
    return f"{reading.samples}/{reading.reduce}/{'times feature' if reading.times_feature else 'alone'}"


def sweep_mipin(
    subject: Subject, samples: str, shown: Photographs, fitted: Photographs, scale: Scale, seed: int
) -> dict[str, dict[str, float]]:
    """MIP-IN's accuracy, ``{reading: {layer: accuracy}}``, for one way of fitting. One fit serves all layers."""
    layers = LAYERS[subject.name]
    features = methods.feature_maps(subject.model, layers)
    analyzer = methods.create(
        "MIP-IN", subject.model, layers[0],
        seed=seed, samples=samples, rows=scale.rows, classes=np.unique(shown.labels), verbose=2,
    )  # fmt: skip
    analyzer.fit(fitted.stream(subject.preprocess, 64))
    readings = [reading for reading in READINGS if reading.samples == samples]

    def explain(x: np.ndarray, labels: np.ndarray) -> dict[Any, np.ndarray]:
        found = analyzer.analyze_layers(x, labels, layers=layers)
        return {
            (key(reading), layer): methods.mipin_map(found[layer].attribution, values, reading, shown.size)
            for layer, values in zip(layers, features(x), strict=True)
            for reading in readings
        }

    scores: dict[str, dict[str, float]] = {}
    for (reading, layer), accuracy in accuracies(subject, shown, explain).items():
        scores.setdefault(reading, {})[layer] = accuracy
    return scores


def sweep_channels(
    title: str, subject: Subject, shown: Photographs, fitted: Photographs, scale: Scale, seed: int
) -> dict[str, float]:
    """The accuracy of one of the other methods, by how its channels are read."""
    options = {"augment_by_n": scale.noises} if title == "SmoothGrad" else {}
    analyzer = methods.create(title, subject.model, seed=seed, **options)
    if title in methods.LEARNED:
        analyzer.fit(fitted.stream(subject.preprocess, 64))

    def explain(x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        found = analyzer.analyze(x, labels)
        return {how: reduced(found, how, shown.size) for how in CHANNELS}

    return accuracies(subject, shown, explain)


def sweep_grad_cam(subject: Subject, shown: Photographs) -> dict[str, float]:
    """Grad-CAM's accuracy at every layer; its map has one value a pixel, so there are no channels to read."""
    analyzers = {
        layer: mipin_keras.create_analyzer("grad_cam", subject.model, layer=layer, neuron_selection_mode="index")
        for layer in LAYERS[subject.name]
    }
    return accuracies(
        subject,
        shown,
        lambda x, labels: {layer: methods.saliency("Grad-CAM", of, x, labels) for layer, of in analyzers.items()},
    )


def accuracies(subject: Subject, shown: Photographs, explain: Callable[..., dict[Any, np.ndarray]]) -> dict[Any, float]:
    """The mean bounding-box accuracy of each of the maps that ``explain`` makes."""
    found = methods.box_accuracies(shown, subject.preprocess, explain)
    return {name: float(each.mean()) for name, each in found.items()}


def choose(models: dict[str, Any]) -> dict[str, Any]:
    """Choose the reading that is best in the mean over the models, and for each model its best layer."""
    first = next(iter(models.values()))

    def mean(scores: list[float]) -> float:
        return sum(scores) / len(scores)

    def of_reading(reading: Reading) -> float:
        return mean([max(of["mipin"][key(reading)].values()) for of in models.values()])

    def of_channels(title: str, how: str) -> float:
        return mean([of["channels"][title][how] for of in models.values()])

    best = max(READINGS, key=of_reading)
    return {
        "mipin": best._asdict(),
        "accuracy": of_reading(best),
        "layers": {name: top(of["mipin"][key(best)]) for name, of in models.items()},
        "grad_cam_layers": {name: top(of["grad_cam"]) for name, of in models.items()},
        "channels": {title: top({how: of_channels(title, how) for how in CHANNELS}) for title in first["channels"]},
    }


def top(scores: dict[str, float]) -> str:
    """The name of the largest."""
    return max(scores, key=lambda name: scores[name])


def markdown(result: dict[str, Any]) -> str:
    """The whole sweep, and the choice."""
    models, choice = result["models"], result["choice"]
    fixed, names = Reading(**choice["mipin"]), list(models)
    mipin = [
        [r.samples, WHEN[r.reduce], "yes" if r.times_feature else "no"]
        + [f"{value:.3f}" for name in names for value in models[name]["mipin"][key(r)].values()]
        for r in READINGS
    ]
    places = [f"{name} {layer}" for name in names for layer in models[name]["grad_cam"]]
    channels = [
        [title, *(f"{models[name]['channels'][title][how]:.3f}" for name in names for how in CHANNELS)]
        for title in choice["channels"]
    ]
    cam = [f"{value:.3f}" for name in names for value in models[name]["grad_cam"].values()]
    known = [f"{100 * models[name]['right']:.1f} % ({name})" for name in names]
    readings = "; ".join(f"{title} `{how}`" for title, how in choice["channels"].items())
    return f"""# What Table 2 leaves open, chosen on training photographs

Bounding-box accuracy (section 6.3) on {result["photographs"]} training photographs of {result["title"]} whose boxes
cover less than 33 %, evenly drawn; chance is {result["chance"]:.3f}, the centre prior scores {result["centre"]:.3f}.
MIP-IN and PatternAttribution were fitted on {result["fitted"]:,} other training photographs; the models were trained on
both. The class explained is the photograph's label, which the box is of; the models rightly classify
{" and ".join(known)} of these photographs. No test photograph was looked at.{left_out(result)}

## MIP-IN: the layer, the samples, the ReLU, and the feature

Samples: `all` fit a class, or the `class`'s own. ReLU: before or after the mean over the channels. Times feature: the
attribution is multiplied by the feature map.

{report.table(["samples", "ReLU", "times feature", *places], mipin)}

**Chosen:** {fixed}: the best mean over the models, {choice["accuracy"]:.3f},
at the best layer of each: {layer_list(choice["layers"])}. {instead(models, choice)} Convolutions were fitted from about
{result["scale"]["rows"]:,} rows each.

## The other methods: how channels become one value

{report.table(["method", *(f"{name} {how}" for name in names for how in CHANNELS)], channels)}

**Chosen,** each method's best mean over the models: {readings}. `sum` is left out: it ranks pixels as `mean` does.

Grad-CAM's map has one value a pixel; its choice is the layer:

{report.table(["", *places], [["Grad-CAM", *cam]])}

**Chosen:** {layer_list(choice["grad_cam_layers"])}.

{"" if result["quick"] else agreement(choice)}
"""


def left_out(result: dict[str, Any]) -> str:
    """Say how many photographs were left out, of classes that a model takes no fitted photograph for."""
    short = {name: result["photographs"] - of["photographs"] for name, of in result["models"].items()}
    words = [f"{n} for {name}" for name, n in short.items() if n]
    return f"\nLeft out, of classes that no fitted photograph is taken for: {', '.join(words)}." if words else ""


def layer_list(layers: dict[str, str]) -> str:
    """``"`block4_pool` of VGG, `stage3_out` of ResNet"``."""
    return ", ".join(f"`{layer}` of {name}" for name, layer in layers.items())


def instead(models: dict[str, Any], choice: dict[str, Any]) -> str:
    """Say what the reading of section 6.1.2 gives at the chosen layers, if another reading was chosen."""
    fixed = Reading(**choice["mipin"])
    as_paper = fixed._replace(reduce="mean", times_feature=False)
    if fixed == as_paper:
        return "That reading is section 6.1.2's: the channels' mean, then ReLU."
    there = [f"{models[n]['mipin'][key(as_paper)][layer]:.3f} ({n})" for n, layer in choice["layers"].items()]
    return f"At these layers section 6.1.2's words, the channels' mean and then ReLU, give {' and '.join(there)}."


def agreement(choice: dict[str, Any]) -> str:
    """Whether the constants of `methods` and `photo_models` are what this run chose."""
    differ = differences(choice)
    if not differ:
        return "These choices are the defaults of every experiment on photographs."
    return f"The defaults of the experiments are **not** what this run chose: {'; '.join(differ)}."


def differences(choice: dict[str, Any]) -> list[str]:
    """Where the constants of `methods` and `photo_models` are not the choice, in words."""
    pairs = [("MIP-IN", methods.MIPIN._asdict(), choice["mipin"])]
    pairs += [(title, methods.READINGS[title], how) for title, how in choice["channels"].items()]
    for name in choice["layers"]:
        recipe = photo_models.RECIPES[name]
        pairs += [(f"layer of {name}", recipe.layer, choice["layers"][name])]
    return [f"{what}: {default} instead of {chosen}" for what, default, chosen in pairs if default != chosen]


add_arguments = gallery.add_arguments


def run(args: argparse.Namespace) -> pathlib.Path:
    """Sweep, choose; the choice is then fixed by hand in `methods` and `photo_models`."""
    scale = QUICK if args.quick else Scale()
    experiment = report.Experiment("sweep", args)
    photographs = gallery.load(args)
    unknown = [name for name in photographs.subjects if name not in LAYERS]
    if unknown:
        raise ValueError(f"expected models with layers to try, {list(LAYERS)}, received {unknown}; leave them out")
    shown, fitted = split(photographs.train, scale)
    masks = shown.masks()
    centre = np.broadcast_to(centre_prior(shown.size), masks.shape)
    result = experiment.result
    result |= {"title": photographs.title, "photographs": len(shown.paths), "fitted": len(fitted.paths)}
    result |= {"scale": scale._asdict(), "chance": float(masks.mean()), "models": {}}
    result["centre"] = bounding_box_accuracy(centre, masks).accuracy
    for name, subject in photographs.subjects.items():
        known = np.unique(subject.predicted(fitted))  # samples "class" has nothing to fit others from
        seen = shown.take(np.flatnonzero(np.isin(shown.labels, known)))
        right = float((subject.predicted(seen) == seen.labels).mean())
        found: dict[str, Any] = {"about": subject.about, "photographs": len(seen.paths), "right": right, "channels": {}}
        for title in methods.BASELINES:
            experiment.log(f"{name}: {title}")
            found["channels"][title] = sweep_channels(title, subject, seen, fitted, scale, args.seed)
        experiment.log(f"{name}: Grad-CAM")
        found["grad_cam"] = sweep_grad_cam(subject, seen)
        found["mipin"] = {}
        for samples in SAMPLES:
            experiment.log(f"{name}: MIP-IN, samples {samples}, at {len(LAYERS[name])} layers")
            found["mipin"] |= sweep_mipin(subject, samples, seen, fitted, scale, args.seed)
        result["models"][name] = found
    result["choice"] = choose(result["models"])
    return experiment.write(markdown(result))
