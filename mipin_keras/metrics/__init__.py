"""Measures of attributions and source signals.

They take arrays and, where they must, an analyzer's interface; none knows a method.
"""

from .completeness import ClassCompleteness, Completeness, average_percentage_change, completeness
from .perturbation import Curves, deletion, insertion

__all__ = [
    "ClassCompleteness",
    "Completeness",
    "Curves",
    "average_percentage_change",
    "completeness",
    "deletion",
    "insertion",
]
