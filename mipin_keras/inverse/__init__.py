"""MIP-IN: the inverse of a network, learned layer by layer from a logit down."""

from . import affine, conv, dense, normalization, pooling, structural  # each registers its inverses
from .analyzer import MIPIN, TrainedMIPIN
from .rules import Inverse, LearnedInverse, register_inverse

__all__ = [
    "MIPIN",
    "Inverse",
    "LearnedInverse",
    "TrainedMIPIN",
    "affine",
    "conv",
    "dense",
    "normalization",
    "pooling",
    "register_inverse",
    "structural",
]
