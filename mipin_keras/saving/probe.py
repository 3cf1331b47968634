"""The probe: a model's outputs on fixed samples, which show differences that no configuration, code or weights hold."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import propagation
from ..graph.model_graph import ModelGraph

# The number of outputs that are kept of each sample.
_OUTPUTS = 1024


def probe(graph: ModelGraph) -> dict[str, Any] | None:
    """The model's outputs on three fixed samples: normal, between 0 and 1, and between 0 and 255.

    Args:
        graph: The model's steps.

    Returns:
        A dict for JSON: ``outputs``, the logits, at most 1,024 of each sample;
        ``exact``, whether they were computed in full precision, so that
        elsewhere they differ by float32's rounding only. None where the model
        does not take such samples.
    """
    try:
        logits = propagation.forward(graph, _samples(graph))[graph.output]
        outputs = np.asarray(tf.cast(logits, tf.float32))
    except Exception:  # a model of the user's may refuse in any way what it was not made for
        return None
    neurons = np.unique(np.linspace(0, outputs.shape[1] - 1, _OUTPUTS).round().astype(int))
    exact = "GPU" not in logits.device and logits.dtype.size >= 4
    return {"outputs": outputs[:, neurons].tolist(), "exact": exact}


def agree(found: dict[str, Any] | None, here: dict[str, Any] | None) -> bool:
    """Whether two probes can be of one model, up to rounding; True where one of them is missing."""
    if found is None or here is None:
        return True
    one, other = np.asarray(found["outputs"], float), np.asarray(here["outputs"], float)
    # Half precision, and the TF32 of GPUs, keep three digits.
    tolerance = 1e-4 if found.get("exact") and here.get("exact") else 2e-2
    if one.shape != other.shape or one.ndim != 2 or (np.isfinite(one) != np.isfinite(other)).any():
        return False
    one, other = np.nan_to_num(one, posinf=0, neginf=0), np.nan_to_num(other, posinf=0, neginf=0)
    # Each sample by itself: a difference on small inputs would be lost beside the outputs on large ones.
    return bool((np.abs(one - other).max(axis=1) <= tolerance * np.abs(other).max(axis=1)).all())


def _samples(graph: ModelGraph) -> tuple[tf.Tensor, ...]:
    """Three samples of each input; as many more as a model of a fixed batch size takes, the last one again."""
    rng = np.random.default_rng(20210715)
    tables = [s.layer.input_dim for s in graph.all_steps if isinstance(s.layer, keras.layers.Embedding)]
    found = []
    for tensor_id in graph.inputs:
        shape = [size or 64 for size in graph.shapes[tensor_id]]
        if (tables and len(graph.inputs) == 1) or not graph.floating(tensor_id):
            samples = rng.integers(0, min([*tables, 128]), (3, *shape))
        else:
            samples = np.stack([rng.normal(size=shape), rng.random(shape), 255 * rng.random(shape)])
        samples = samples.astype(graph.dtypes[tensor_id])
        found.append(tf.constant(samples[np.minimum(np.arange(graph.batch or 3), 2)]))
    return tuple(found)
