"""Taking over what a checkpoint holds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ...data.batches import Batches
from ...data.distribute import Replicas
from ..network import InverseNetwork
from .checkpoint import Checkpoint
from .members import Members
from .results import Results


def take_up(
    checkpoint: Checkpoint,
    network: InverseNetwork,
    results: Results,
    batches: Batches,
    members: Members,
    replicas: Replicas,
    log: Callable[[str], None],
) -> int:
    """Take over what a checkpoint holds: results, and what is known of the data.

    Returns:
        How many pieces it holds.

    Raises:
        ValueError: If a piece is no layer of this fit, or the checkpoint does
            not say which data it was learned from.
    """
    pieces = checkpoint.load()
    nodes = {node.index: node for node in network.learned}
    for key, (weights, lines) in pieces.items():
        node = nodes.get(int(key.split()[0]))
        shapes = None if node is None else network.regression(node).weight_shapes
        odd = any(tuple(w.shape for w in found) != shapes for found in weights.values())
        if node is None or odd or len(lines) != len(weights):
            raise ValueError(
                f"expected layers of this fit in {checkpoint.directory}, received {key!r}, which is no layer of this "
                "fit; delete it"
            )
        for (c, found), line in zip(sorted(weights.items()), lines, strict=True):
            results.weights[c][node.index] = tuple(tf.constant(w, tf.float32) for w in found)
            results.lines[node.index, c] = line | {"layer": node.name}  # a rebuilt model may have other names
    state = checkpoint.state()
    # All have read before one writes.
    replicas.agree("what was learned before", f"{sorted(pieces)} {json.dumps(state, sort_keys=True)}")
    batches.samples = state.get("samples", batches.samples)
    members.counts = None if state.get("counts") is None else np.asarray(state["counts"], int)
    if pieces:
        log(f"going on from {checkpoint.directory}: {len(pieces)} pieces were learned before")
        _expect(state.get("batches"), checkpoint, batches, replicas)
    return len(pieces)


def _expect(marks: str | None, checkpoint: Checkpoint, batches: Batches, replicas: Replicas) -> None:
    """Compare the passes to come with the batches that the checkpoint was learned from."""
    if marks is not None:
        batches.marks = [int(marks[i : i + 8], 16) for i in range(0, len(marks), 8)]
        batches.steps = batches.steps or len(batches.marks)
        batches.resumed = True
    elif not checkpoint.old:
        raise ValueError(
            f"expected a checkpoint that says which data it was learned from, received {checkpoint.directory}, which "
            "does not say; delete it"
        )
    elif batches.steps != 1 and replicas.chief:
        warnings.warn(
            f"{checkpoint.directory} was begun by version 0.1, which noted the first batch of its data only: that the "
            "others are the same is not checked",
            UserWarning,
            stacklevel=6,
        )
