"""How well a fitted network reconstructs any data, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ...data.batches import Batches
from ..network import InverseNetwork, PartialWalk
from ..ridge import Squares
from .loop import Fitting, Options
from .results import error_line


def measure(network: InverseNetwork, batches: Batches, classes: list[int], samples: str) -> list[dict[str, Any]]:
    """The reconstruction errors of a fitted network on any data, every position counted.

    Returns:
        Entries as in a fit report, by layer from the top down, then by class.
    """
    nodes = tuple(network.learned)
    fitting = Fitting(network, batches, classes, Options(samples=samples), verbose=0)
    totals = {(node.index, c): Squares() for node in nodes for c in classes}
    for x in fitting.passing():
        forward_pass = network.forward(x, None, nodes)
        taken_for = fitting.members.taken_for(forward_pass.logits)
        for c in classes:
            chosen = np.flatnonzero(fitting.members.of(taken_for, c))
            if not len(chosen):
                continue
            part, partial = forward_pass.rows(chosen), PartialWalk()
            for node in nodes:
                inverse = network.regression(node)
                signal = network.invert_down_to(part, c, node, network.weights[c], partial, tf.float32)
                guess = inverse.source(signal, part.records.get(node.index, ()), network.weights[c][node.index])
                target = part.targets[node.index]
                totals[node.index, c].update(target.numpy(), inverse.reconstruction(guess).numpy())
    return [
        error_line(node, c, totals[node.index, c].samples, totals[node.index, c].rows, *totals[node.index, c].error())
        for node in nodes
        for c in classes
    ]
