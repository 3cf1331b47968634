"""Layer-wise relevance propagation, and the rules that its option ``rules`` takes."""

from .analyzer import LRP
from .rules import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z

__all__ = ["LRP", "AlphaBeta", "AlphaBetaX", "Epsilon", "Flat", "Gamma", "Rule", "WSquare", "Z"]
