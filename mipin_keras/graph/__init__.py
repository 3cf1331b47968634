"""A Keras model as numbered steps, and the passes forward and back over them."""

from .model_graph import ModelGraph, Step

__all__ = ["ModelGraph", "Step"]
