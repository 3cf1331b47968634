"""The methods that MIP-IN is compared with, under iNNvestigate's names."""

from __future__ import annotations

from ..analyzer import Analyzer
from . import averaged, deep_taylor, grad_cam, gradient, rectified
from .lrp import analyzer as lrp
from .patterns import analyzer as patterns

_METHODS: tuple[type[Analyzer], ...] = (
    gradient.Gradient,
    gradient.InputTimesGradient,
    averaged.IntegratedGradients,
    averaged.SmoothGrad,
    rectified.Deconvnet,
    rectified.GuidedBackprop,
    *lrp.ANALYZERS.values(),
    deep_taylor.DeepTaylor,
    deep_taylor.BoundedDeepTaylor,
    patterns.PatternNet,
    patterns.PatternAttribution,
    grad_cam.GradCAM,
)
#: The methods by name.
BASELINES: dict[str, type[Analyzer]] = {method.name: method for method in _METHODS}

__all__ = ["BASELINES"]
