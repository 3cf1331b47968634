"""The methods that MIP-IN is compared with, under iNNvestigate's names."""

from __future__ import annotations

from ..analyzer import Analyzer
from . import deep_taylor, gradcam, gradient, lrp, pattern, rectified, relevance
from .innvestigate import INNVESTIGATE

#: The methods by name.
BASELINES: dict[str, type[Analyzer]] = {
    kind.name: kind
    for kind in (
        gradient.Gradient,
        gradient.InputTimesGradient,
        gradient.IntegratedGradients,
        gradient.SmoothGrad,
        rectified.Deconvnet,
        rectified.GuidedBackprop,
        lrp.LRP,
        relevance.LRPZ,
        relevance.LRPEpsilon,
        relevance.LRPWSquare,
        relevance.LRPFlat,
        relevance.LRPAlphaBeta,
        relevance.LRPAlpha2Beta1,
        relevance.LRPAlpha2Beta1IgnoreBias,
        relevance.LRPAlpha1Beta0,
        relevance.LRPAlpha1Beta0IgnoreBias,
        relevance.LRPZPlus,
        relevance.LRPZPlusFast,
        relevance.LRPSequentialPresetA,
        relevance.LRPSequentialPresetB,
        relevance.LRPSequentialPresetAFlat,
        relevance.LRPSequentialPresetBFlat,
        relevance.LRPSequentialPresetBFlatUntilIdx,
        deep_taylor.DeepTaylor,
        deep_taylor.BoundedDeepTaylor,
        pattern.PatternNet,
        pattern.PatternAttribution,
        gradcam.GradCAM,
    )
} | INNVESTIGATE

__all__ = ["BASELINES"]
