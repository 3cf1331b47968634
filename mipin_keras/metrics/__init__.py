"""Measures of attributions and source signals.

They take arrays and, where they must, an analyzer's interface; none knows a method.
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
from .sensitivity import Sensitivity, class_sensitivity

__all__ = [
    "BoxAccuracy",
    "ClassCompleteness",
    "Completeness",
    "PositiveShare",
    "Sensitivity",
    "average_percentage_change",
    "bootstrap_interval",
    "bounding_box_accuracy",
    "centre_prior",
    "class_sensitivity",
    "completeness",
    "positive_share",
]
