"""Measures of attributions and source signals.

They take arrays and, where they must, a model or an analyzer's interface; none knows a method.
"""

from .completeness import ClassCompleteness, Completeness, average_percentage_change, completeness
from .randomization import Similarity, cascading, independent, similarity

__all__ = [
    "ClassCompleteness",
    "Completeness",
    "Similarity",
    "average_percentage_change",
    "cascading",
    "completeness",
    "independent",
    "similarity",
]
