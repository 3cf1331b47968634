"""The methods that the paper compares, by the names its tables give them, and how their maps are made and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

import mipin_keras
from mipin_keras.channels import reduced
from mipin_keras.metrics import bounding_box_accuracy

from .photographs import Photographs

#: Analyzers by the paper's names, in the order of Table 2.
METHODS = {
    "Gradient": "gradient",
    "SmoothGrad": "smoothgrad",
    "LRP-epsilon": "lrp.epsilon",
    "Deep Taylor": "deep_taylor",
    "Deconvnet": "deconvnet",
    "Guided Backprop": "guided_backprop",
    "PatternAttribution": "pattern.attribution",
    "Grad-CAM": "grad_cam",
    "MIP-IN": "mipin",
}
#: Section 6.1.1's seven: all but Grad-CAM and MIP-IN.
BASELINES = [title for title in METHODS if title not in ("Grad-CAM", "MIP-IN")]
LEARNED = ("PatternAttribution", "MIP-IN")
#: The ranking of pixels by their distance from the centre, which knows neither the model nor the image.
CENTRE = "centre prior"


class Reading(NamedTuple):
    """What section 6.1.2 leaves open of MIP-IN's maps of photographs, besides the layer.

    Attributes:
        samples: What fits a class: see the analyzer.
        reduce: ``"relu_mean"``, ReLU before the mean over the channels, or
            ``"mean"``, ReLU after it.
        times_feature: Whether the attribution is multiplied by the feature
            map that it is of.
    """

    samples: str
    reduce: str
    times_feature: bool

    def __str__(self) -> str:
        when = "before" if self.reduce == "relu_mean" else "after"
        product = "times the feature map" if self.times_feature else "alone"
        return f"samples `{self.samples}`, ReLU {when} the mean over the channels, the attribution {product}"


# The two below were chosen by ``python -m reproduce_paper sweep``, on training photographs; so was each `layer` in
# `photo_models.RECIPES`.
MIPIN = Reading("all", "relu_mean", True)
#: How a map's channels become one value a pixel of a photograph: see `Analyzer.analyze(reduce=)`.
READINGS = {
    "Gradient": "abs_mean",
    "SmoothGrad": "max_abs",
    "LRP-epsilon": "max_abs",
    "Deep Taylor": "abs_mean",
    "Deconvnet": "max_abs",
    "Guided Backprop": "max_abs",
    "PatternAttribution": "abs_mean",
    "Grad-CAM": "mean",  # its channels are alike
    "MIP-IN": MIPIN.reduce,
}
#: Of each convolution's regression, where MIP-IN explains photographs: as many as the sweep was run with.
ROWS = 1 << 13


def create(
    title: str, model: keras.Model, layer: str | None = None, *, seed: int = 0, verbose: int = 0, **options: Any
) -> mipin_keras.Analyzer:
    """Make a method's analyzer; the caller fits those of ``LEARNED``.

    Args:
        title: One of ``METHODS``.
        model: What it explains; the class is selected by its index.
        layer: The feature map where MIP-IN's explanation ends, as in section
            6.1.2, fitted as ``MIPIN`` and ``ROWS`` say; None for pixels.
            Grad-CAM weighs the last convolution's, which is what the sweep
            found best for it.
        seed, verbose: For the methods that have them.
        **options: More of the analyzer's options.
    """
    name = METHODS[title]
    if layer is not None and title == "MIP-IN":
        options = {"input_layer": layer, "samples": MIPIN.samples, "rows": ROWS} | options
    known = mipin_keras.options_of(name)
    options |= {key: value for key, value in (("seed", seed), ("verbose", verbose)) if key in known}
    return mipin_keras.create_analyzer(name, model, neuron_selection_mode="index", **options)


def saliency(
    title: str, analyzer: mipin_keras.Analyzer, x: np.ndarray, classes: int | np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """A method's maps of photographs with one value a pixel, read as Table 2 does.

    Args:
        title: One of ``METHODS``.
        analyzer: What :func:`create` made, fitted.
        x: What the model takes, ``(n, height, width, channels)``.
        classes: The class to explain, for all or for each.

    Returns:
        float32 ``(n, height, width)``.
    """
    if title != "MIP-IN":
        return analyzer.analyze(x, classes, batch_size=batch_size, reduce=READINGS[title])
    classes, parts = np.broadcast_to(classes, len(x)), []
    features = feature_maps(analyzer.model, [analyzer.options["input_layer"]]) if MIPIN.times_feature else None
    for i in range(0, len(x), batch_size):
        part = slice(i, i + batch_size)
        found = analyzer.analyze(x[part], classes[part])
        values = found if features is None else features(x[part])[0]
        parts.append(mipin_map(found, values, MIPIN, x.shape[1:3]))
    return np.concatenate(parts)


def feature_maps(model: keras.Model, layers: Sequence[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from what the model takes to the outputs of some of its layers."""
    part = keras.Model(model.inputs, [model.get_layer(name).output for name in layers])
    return lambda x: keras.tree.flatten(part.predict_on_batch(x))


def mipin_map(attribution: np.ndarray, features: np.ndarray, reading: Reading, size: tuple[int, int]) -> np.ndarray:
    """MIP-IN's attribution at a feature map as a map of the photograph.

    Args:
        attribution, features: ``(n, height, width, channels)`` of the layer.
        reading: Its ``samples`` are not looked at.
        size: Height and width of the photograph.

    Returns:
        float32 ``(n, *size)``, nowhere negative.
    """
    values = attribution * features if reading.times_feature else attribution
    return np.maximum(reduced(values, reading.reduce, size), 0)


def box_accuracies(
    photographs: Photographs,
    preprocess: Callable[[np.ndarray], np.ndarray],
    explain: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """Measure how well maps find the boxes of photographs; only a batch of these is in memory.

    Args:
        photographs: With boxes.
        preprocess: A function from uint8 pixels to what the model takes.
        explain: A function from what the model takes and the labels to maps
            ``(b, height, width)``, by name.
        batch_size: How many photographs are read at once.

    Returns:
        By name, each photograph's bounding-box accuracy: float64 ``(n,)``.
    """
    found: dict[str, list[np.ndarray]] = {}
    for batch in photographs.batches(batch_size):
        for name, maps in explain(preprocess(batch.pixels()), batch.labels).items():
            found.setdefault(name, []).append(bounding_box_accuracy(maps, batch.masks()).per_image)
    return {name: np.concatenate(each) for name, each in found.items()}
