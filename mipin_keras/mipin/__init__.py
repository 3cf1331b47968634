"""MIP-IN: the inverse of a network, learned layer by layer from a logit down."""

from .analyzer import MIPIN, TrainedMIPIN
from .inverse import Inverse, LearnedInverse, register_inverse
from .inverse_model import InverseModel
from .layers import (  # each registers its inverses
    affine,
    conv,
    dense,
    indexing,
    normalization,
    pooling,
    structural,
    target,
)
from .layers.unpooling import MaxSwitches, MaxUnpooling

__all__ = [
    "MIPIN",
    "Inverse",
    "InverseModel",
    "LearnedInverse",
    "MaxSwitches",
    "MaxUnpooling",
    "TrainedMIPIN",
    "affine",
    "conv",
    "dense",
    "indexing",
    "normalization",
    "pooling",
    "register_inverse",
    "structural",
    "target",
]
