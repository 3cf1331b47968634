"""The rules of LRP under the name that they had in version 0.1: see :mod:`mipin_keras.baselines.lrp`."""

from .lrp.named_rules import RULES
from .lrp.rules import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z

__all__ = ["RULES", "AlphaBeta", "AlphaBetaX", "Epsilon", "Flat", "Gamma", "Rule", "WSquare", "Z"]
