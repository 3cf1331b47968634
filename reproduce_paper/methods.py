"""The methods that the paper compares, by the names its tables give them, and how their maps are made and read."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import mipin_keras

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

#: How a map's channels become one value a pixel of a photograph: see `Analyzer.analyze(reduce=)`.
READINGS = dict.fromkeys(METHODS, "abs_mean") | {"Grad-CAM": "mean", "MIP-IN": "relu_mean"}


def create(
    title: str, model: keras.Model, layer: str | None = None, *, seed: int = 0, verbose: int = 0, **options: Any
) -> mipin_keras.Analyzer:
    """Make a method's analyzer; those of ``LEARNED`` then want ``fit``.

    Args:
        title: One of ``METHODS``.
        model: What it explains; the class is selected by its index.
        layer: The feature map where MIP-IN's explanation ends, as in section
            6.1.2, and that Grad-CAM weighs; None for pixels, and Grad-CAM's own.
        seed, verbose: For the methods that have them.
        **options: More of the analyzer's options.
    """
    name = METHODS[title]
    if layer is not None and title in ("MIP-IN", "Grad-CAM"):
        options["input_layer" if title == "MIP-IN" else "layer"] = layer
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
    return analyzer.analyze(x, classes, batch_size=batch_size, reduce=READINGS[title])
