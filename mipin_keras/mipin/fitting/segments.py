"""In how many passes over the data a fit is done: learned layers whose results fit into memory share one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..inverse import Inverse
from ..inverse_graph import Node
from ..network import InverseNetwork

# Small batches are put together until what the network makes of them takes about so many bytes: the calls cost less.
UNIT_BYTES = 64 << 20


class Segment(NamedTuple):
    """Learned nodes that are fitted after one pass over the data.

    Attributes:
        first, last: Positions of the first and behind the last one among the
            learned nodes.
        kept: Whether what the network makes of the data is kept. Otherwise
            there is one node, and a pass over the data for each group of
            classes.
    """

    first: int
    last: int
    kept: bool


class Sizes:
    """What a fit holds of one sample, in bytes.

    Args:
        network: The inverse network.
    """

    def __init__(self, network: InverseNetwork):
        self.network = network
        shapes = network.graph.shapes
        # Of a step split in two the parts count both: more than there is at once.
        self.whole = 4 * sum(math.prod(size or 1 for size in shapes[step.output]) for step in network.graph.steps)
        #: By learned position: the signals that wait in front of that node, of one class.
        self.waiting = self._waiting()
        #: By learned position: the node's target, and the records on the way down to it from the learned node above.
        self.reached = self._reached()

    @property
    def unit(self) -> int:
        """How many samples go through the network together."""
        return max(1, UNIT_BYTES // max(self.whole, 1))

    def _waiting(self) -> list[int]:
        shapes = self.network.graph.shapes
        found, alive = [], {self.network.graph.output: 1}
        for node in self.network.nodes:
            if node.inverse.learned:
                found.append(4 * sum(count * math.prod(shapes[tensor]) for tensor, count in alive.items()))
            alive.pop(node.output)
            for tensor in node.inputs:
                if tensor is not None:
                    alive[tensor] = alive.get(tensor, 0) + 1
        return found

    def _reached(self) -> list[int]:
        shapes = self.network.graph.shapes
        found, records = [], 0
        for node in self.network.nodes:
            records += _record(node)
            if node.inverse.learned:
                found.append(records + 4 * sum(math.prod(shapes[tensor]) for tensor in node.needs))
                records = 0
        return found


def _record(node: Node) -> int:
    """About how many bytes: a mask takes one an element, a switch or a factor four."""
    if node.step is None or type(node.inverse).record is Inverse.record:
        return 0
    if node.inverse.merges:
        return 4 * sum(math.prod(shape) for shape in node.step.input_shapes if shape != node.step.output_shape) or (
            len(node.step.inputs) * math.prod(node.step.output_shape)
        )
    masked = math.prod(node.step.input_shape) == math.prod(node.step.output_shape)
    return (1 if masked else 4) * math.prod(node.step.output_shape)


def planned(sizes: Sizes, samples: Callable[[int], float], memory: int, carried: bool) -> list[Segment]:
    """The segments of a fit.

    Args:
        sizes: Of the network.
        samples: How many samples the learned nodes from a position on need.
        memory: Bytes for what is kept.
        carried: Whether signals are carried from one segment to the next.
            Where they are not, as the data go on, a pass serves all or one.
    """
    count = len(sizes.reached)
    segments: list[Segment] = []
    first, held = 0, 0.0
    for position in range(count):
        needed = samples(0 if not carried else first) * sizes.reached[position]
        if position > first and held + needed > memory:
            segments.append(Segment(first, position, True))
            first, held = position, 0.0
            needed = samples(first) * sizes.reached[position]
        if needed > memory:
            segments.append(Segment(position, position + 1, False))
            first, held = position + 1, 0.0
        else:
            held += needed
    if first < count:
        segments.append(Segment(first, count, True))
    if not carried and len(segments) > 1:
        return [Segment(position, position + 1, False) for position in range(count)]
    return segments
