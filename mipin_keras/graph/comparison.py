"""The comparison of a model's steps with the model: what they make of an input must be the same."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from . import propagation
from .callable_graph import CallableGraph
from .model_graph import ModelGraph
from .reading import structure_of
from .steps import kept_states


def called(graph: ModelGraph, x: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
    """The model's own outputs, flattened, called as its user calls it at inference."""
    if isinstance(graph, CallableGraph):
        return propagation.model_outputs(graph, x)
    structure = structure_of(graph.model, "input")
    given = x[0] if len(x) == 1 and not isinstance(structure, dict) else keras.tree.pack_sequence_as(structure, list(x))
    with kept_states(graph.model):
        return keras.tree.flatten(graph.model(given, training=False))


def compared(graph: ModelGraph, x: tuple[tf.Tensor, ...]) -> tuple[float, float]:
    """How far the model's own output is from that of its steps, and how far it may be by rounding.

    Args:
        graph: The model's steps.
        x: Its inputs, ``(n, ...)`` each.

    Returns:
        The largest difference in multiples of the largest absolute value of an
        output; and its limit. 0 where both are not finite alike.
    """
    if isinstance(graph, CallableGraph):  # its one step is the model
        return 0.0, 0.0
    theirs, ours = called(graph, x), propagation.model_outputs(graph, x)
    difference = 0.0
    for here, there in zip(ours, theirs, strict=True):
        one, other = (np.asarray(tf.cast(t, tf.float64)) for t in (here, there))
        if one.shape != other.shape or (np.isfinite(one) != np.isfinite(other)).any():
            return math.inf, 0.0
        one, other = (np.nan_to_num(array, nan=0, posinf=0, neginf=0) for array in (one, other))
        difference = max(
            difference, float(np.abs(one - other).max(initial=0) / max(np.abs(other).max(initial=0), 1e-30))
        )
    return difference, 5e-2 if computes_in_halves(graph) else 1e-3 if "GPU" not in ours[0].device else 1e-2


def computes_in_halves(graph: ModelGraph) -> bool:
    """Whether a layer computes in half precision."""
    return any(getattr(step.layer, "compute_dtype", "") in ("float16", "bfloat16") for step in graph.all_steps)
