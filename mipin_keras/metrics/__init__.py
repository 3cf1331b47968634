"""Measures of attributions and source signals.

They take arrays and, where they must, an analyzer's interface; none knows a method.
"""

from .completeness import ClassCompleteness, Completeness, average_percentage_change, completeness

__all__ = ["ClassCompleteness", "Completeness", "average_percentage_change", "completeness"]
