"""Measures of attributions and source signals.

They take arrays and, where they must, a model's output or an analyzer's interface; none knows a method.
"""

from .completeness import ClassCompleteness, Completeness, average_percentage_change, completeness
from .localization import (
    BoxAccuracy,
    PositiveShare,
    bootstrap_interval,
    bounding_box_accuracy,
    centre_prior,
    positive_share,
)
from .perturbation import Curves, deletion, insertion
from .randomization import Similarity, cascading, independent, similarity
from .sensitivity import Sensitivity, class_sensitivity

__all__ = [
    "BoxAccuracy",
    "ClassCompleteness",
    "Completeness",
    "Curves",
    "PositiveShare",
    "Sensitivity",
    "Similarity",
    "average_percentage_change",
    "bootstrap_interval",
    "bounding_box_accuracy",
    "cascading",
    "centre_prior",
    "class_sensitivity",
    "completeness",
    "deletion",
    "independent",
    "insertion",
    "positive_share",
    "similarity",
]
