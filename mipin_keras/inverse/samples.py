"""What a fit sees of the data: for each learned node, batches of samples as looked at, anew or as kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from .network import Begun, InverseNetwork, Seen
from .plan import Node
from .replicas import Replicas
from .rules import LearnedInverse, Record, Weights

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
        seen: What it saw.
        samples: The samples' numbers in the data.
        luck: Each one's, in [0, 1).
        begun: How far down each class' signal has been walked, for a batch
            that is kept; None for one that is not.
    """

    def __init__(
        self,
        network: InverseNetwork,
        seen: Seen,
        samples: np.ndarray,
        luck: np.ndarray,
        begun: dict[int, Begun] | None = None,
    ):
        self.network, self.seen, self.samples, self.luck, self.begun = network, seen, samples, luck, begun

    def at(self, node: Node, unit: int, weights: dict[int, Weights], chosen: np.ndarray) -> Part:
        """The samples ``chosen``, with class ``unit``'s signal where ``node`` takes it."""
        if self.begun is None:
            part = self.seen.rows(chosen)
            signal = self.network.descend(part, unit, node, weights)
        else:  # all of them: the next node may choose others
            begun = self.begun.setdefault(unit, Begun())
            signal = self.network.descend(self.seen, unit, node, weights, begun)
            only = Seen(self.seen.logits, {node.index: self.seen.records.get(node.index, ())},
                        {node.index: self.seen.targets[node.index]})  # fmt: skip
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
        self._kept: list[tuple[Seen, np.ndarray, dict[int, Begun]]] = []

    def batches(self, number: int, node: Node, rate: float) -> Iterator[list[Batch]]:
        """A random share ``rate`` of this host's samples, for learned node ``number``: what each replica has looked at.

        Kept batches come whole.
        """
        choose = np.random.default_rng([self.seed, number])
        if not self.keeps:

            def look(x: np.ndarray, luck: np.ndarray, samples: np.ndarray) -> Batch:
                return Batch(self.network, self.network.look(x, node, (node,)), samples, luck)

            for i, arrays in enumerate(self._lucky(rate, choose)):
                if self.replicas.mine(i):
                    yield self.replicas.run(look, *arrays)
            return
        if not self._kept:
            first = 0
            for x in self.passing():
                seen = self.network.look(x, None, tuple(self.network.learned))
                self._kept.append((seen, np.arange(first, first + len(x)), {}))
                first += len(x)
        for seen, samples, begun in self._kept:
            yield [Batch(self.network, seen, samples, choose.random(len(samples)), begun)]

    def done(self, node: Node) -> None:
        """Let go of what only ``node`` needed."""
        for seen, _, _ in self._kept:
            seen.targets.pop(node.index, None)

    def positions(self, number: int, samples: np.ndarray, inverse: LearnedInverse, take: int) -> np.ndarray | None:
        """The positions to take of each sample, ``(n, take)``; a sample's are the same in every batch and fit."""
        if take >= inverse.positions:
            return None
        drawn = np.empty((len(samples), take), np.int64)
        for row, sample in zip(drawn, samples.tolist(), strict=True):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, sample]))
            row[:] = rng.choice(inverse.positions, take, replace=False, shuffle=False)
        return drawn

    def _lucky(self, rate: float, choose: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """A random share of the samples in batches of the usual size: they, their luck, their numbers."""
        kept: list[tuple[np.ndarray, ...]] = []
        first = 0
        for x in self.passing():
            luck = choose.random(len(x))
            keep = luck < rate
            part = (x, luck, np.arange(first, first + len(x)))
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
    targets = sum(math.prod(shapes[number]) for node in network.learned for number in node.needs)
    return 4 * targets + sum(sizes) + 8 * classes * 2 * max(sizes)
