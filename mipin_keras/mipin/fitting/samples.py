"""What a fit sees of the data: for each learned node, batches of samples as looked at, anew or as kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...data.distribute import Replicas
from ..inverse import LearnedInverse, Record, Weights
from ..inverse_graph import Node
from ..network import ForwardPass, InverseNetwork, PartialWalk

# How many positions of one sample a sampled regression takes at least: enough
# that a forward pass pays, few enough that many samples have their say.
POSITIONS = 256
# And of how many samples, on average, so that few rows are not all of one, or by chance of none.
SAMPLES = 16


class Draw(NamedTuple):
    """Which rows a class' regression takes.

    Attributes:
        rate: Share of the samples.
        take: Positions of each.
    """

    rate: float
    take: int

    @classmethod
    def of(cls, inverse: LearnedInverse, limit: int | None, samples: int) -> Draw:
        """About ``limit`` rows of ``samples`` samples; None for every one."""
        if limit is None:
            return cls(1.0, inverse.positions)
        samples = max(samples, 1)
        least = min(POSITIONS, -(-limit // SAMPLES))
        take = min(inverse.positions, max(least, -(-limit // samples)))
        return cls(min(1.0, limit / take / samples), take)


class Part(NamedTuple):
    """Some samples of a batch, at one node.

    Attributes:
        signal: What the node takes: a tensor, or a tuple of those that meet.
        target: What it is to reconstruct.
        record: What its inverse needs of the forward pass.
        samples: Their numbers in the data.
    """

    signal: Any
    target: tf.Tensor
    record: Record
    samples: np.ndarray


class Batch:
    """Samples looked at for one node.

    Args:
        network: Who looks.
        forward_pass: What it saw.
        samples: The samples' numbers in the data.
        draws: Each one's, in [0, 1).
        partial: How far down each class' signal has been walked, for a batch
            that is kept; None for one that is not.
    """

    def __init__(
        self,
        network: InverseNetwork,
        forward_pass: ForwardPass,
        samples: np.ndarray,
        draws: np.ndarray,
        partial: dict[int, PartialWalk] | None = None,
    ):
        self.network, self.forward_pass, self.samples, self.draws, self.partial = (
            network,
            forward_pass,
            samples,
            draws,
            partial,
        )

    def at(self, node: Node, neuron: int, weights: dict[int, Weights], chosen: np.ndarray) -> Part:
        """The samples ``chosen``, with class ``neuron``'s signal where ``node`` takes it."""
        if self.partial is None:
            part = self.forward_pass.rows(chosen)
            signal = self.network.invert_down_to(part, neuron, node, weights)
        else:  # all of them: the next node may choose others
            partial = self.partial.setdefault(neuron, PartialWalk())
            signal = self.network.invert_down_to(self.forward_pass, neuron, node, weights, partial)
            only = ForwardPass(self.forward_pass.logits, {node.index: self.forward_pass.records.get(node.index, ())},
                        {node.index: self.forward_pass.targets[node.index]})  # fmt: skip
            part = only.rows(chosen)
            if part is not only:
                signal = tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), signal)
        return Part(signal, part.targets[node.index], part.records.get(node.index, ()), self.samples[chosen])


class Samples:
    """The data of a fit, looked at again for each learned node.

    Where all that a fit asks of the network fits into ``memory``, it is kept
    from the first pass on, and the walk down goes on where it stood; the
    numbers are the same up to rounding.

    Args:
        network: Who looks.
        passing: Gives one pass over the data, batches ``(n, ...)``.
        count: Samples a pass; None if unknown.
        replicas: Who looks at which of them.
        classes: How many classes are fitted.
        seed: Of the samples and positions that are drawn.
        memory: Bytes.

    Attributes:
        keeps: Whether what was looked at is kept.
    """

    def __init__(
        self,
        network: InverseNetwork,
        passing: Callable[[], Iterator[np.ndarray]],
        count: int | None,
        replicas: Replicas,
        classes: int,
        seed: int,
        memory: int,
    ):
        self.network, self.passing, self.replicas, self.seed = network, passing, replicas, seed
        alone = replicas.count == replicas.hosts == 1
        self.keeps = alone and count is not None and count * _bytes_a_sample(network, classes) <= memory
        self._kept: list[tuple[ForwardPass, np.ndarray, dict[int, PartialWalk]]] = []

    def batches(self, position: int, node: Node, rate: float) -> Iterator[list[Batch]]:
        """A random share ``rate`` of this host's samples, for the learned node at ``position``, by replica.

        Kept batches come whole.
        """
        choose = np.random.default_rng([self.seed, position])
        if not self.keeps:

            def forward(x: np.ndarray, draws: np.ndarray, samples: np.ndarray) -> Batch:
                return Batch(self.network, self.network.forward(x, node, (node,)), samples, draws)

            for i, arrays in enumerate(self._drawn(rate, choose)):
                if self.replicas.mine(i):
                    yield self.replicas.run(forward, *arrays)
            return
        if not self._kept:
            first = 0
            for x in self.passing():
                forward_pass = self.network.forward(x, None, tuple(self.network.learned))
                self._kept.append((forward_pass, np.arange(first, first + len(x)), {}))
                first += len(x)
        for forward_pass, samples, partial in self._kept:
            yield [Batch(self.network, forward_pass, samples, choose.random(len(samples)), partial)]

    def done(self, node: Node) -> None:
        """Let go of what only ``node`` needed."""
        for forward_pass, _, _ in self._kept:
            forward_pass.targets.pop(node.index, None)

    def positions(self, position: int, samples: np.ndarray, inverse: LearnedInverse, take: int) -> np.ndarray | None:
        """The positions to take of each sample, ``(n, take)``; a sample's are the same in every batch and fit."""
        if take >= inverse.positions:
            return None
        drawn = np.empty((len(samples), take), np.int64)
        for row, sample in zip(drawn, samples.tolist(), strict=True):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position], counter=[0, 0, 0, sample]))
            row[:] = rng.choice(inverse.positions, take, replace=False, shuffle=False)
        return drawn

    def _drawn(self, rate: float, choose: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """A random share of the samples in batches of the usual size: they, their draws, their numbers."""
        kept: list[tuple[np.ndarray, ...]] = []
        first = 0
        for x in self.passing():
            draws = choose.random(len(x))
            keep = draws < rate
            part = (x, draws, np.arange(first, first + len(x)))
            kept.append(part if keep.all() else tuple(array[keep] for array in part))
            first += len(x)
            if sum(len(part[0]) for part in kept) >= len(x):
                yield _joined(kept)
                kept = []
        if sum(len(part[0]) for part in kept):
            yield _joined(kept)


def _joined(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return parts[0] if len(parts) == 1 else tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _bytes_a_sample(network: InverseNetwork, classes: int) -> int:
    """About what a fit asks of one sample: targets, masks and switches, and a signal a class in float64."""
    shapes = network.graph.shapes
    sizes = [math.prod(shapes[node.output]) for node in network.nodes]
    targets = sum(math.prod(shapes[tensor_id]) for node in network.learned for tensor_id in node.needs)
    return 4 * targets + sum(sizes) + 8 * classes * 2 * max(sizes)
