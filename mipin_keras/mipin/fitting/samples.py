"""Streams batches to the node that is being fitted, recomputing forward passes or keeping them."""

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

# A sampled regression takes at least so many positions of each sample that it uses: a forward pass should pay.
POSITIONS = 256
# It uses at least so many samples on average: few rows should not all come from one sample, or by chance from none.
SAMPLES = 16


class Draw(NamedTuple):
    """How many rows a class' regression draws from the data.

    Attributes:
        rate: The share of the samples that it uses, in (0, 1].
        take: How many positions it takes of each of them.
    """

    rate: float
    take: int

    @classmethod
    def of(cls, inverse: LearnedInverse, limit: int | None, samples: int) -> Draw:
        """A draw of about ``limit`` rows from ``samples`` samples; of every row if ``limit`` is None."""
        if limit is None:
            return cls(1.0, inverse.positions)
        samples = max(samples, 1)
        least = min(POSITIONS, -(-limit // SAMPLES))
        take = min(inverse.positions, max(least, -(-limit // samples)))
        return cls(min(1.0, limit / take / samples), take)


class Part(NamedTuple):
    """What a node's regression reads of some samples of a batch.

    Attributes:
        signal: The source signal at the node's output, ``(n, ...)``; where
            several signals meet, a tuple of them.
        target: What the node's inverse is to reconstruct, ``(n, ...)``.
        record: What the inverse needs of the forward pass.
        samples: The samples' indices in the data, int ``(n,)``.
    """

    signal: Any
    target: tf.Tensor
    record: Record
    samples: np.ndarray


class Batch:
    """A batch after its forward pass, for one node.

    Args:
        network: The inverse network.
        forward_pass: What the forward pass left of the batch.
        samples: The samples' indices in the data, int ``(n,)``.
        draws: A uniform draw from [0, 1) for each sample: a class that uses a
            share of the samples takes those whose draw lies below it.
        partial: For a batch that is kept, how far down each class' signal has
            been inverted; None for one that is not kept.
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
        """What ``node`` reads of some samples of the batch for one class.

        Args:
            node: A learned node.
            neuron: The class.
            weights: What is fitted of the class so far, by the node's index.
            chosen: Indices of the samples within the batch.
        """
        if self.partial is None:
            part = self.forward_pass.rows(chosen)
            signal = self.network.invert_down_to(part, neuron, node, weights)
        else:  # The signal of all samples is kept, as the next node may choose others.
            partial = self.partial.setdefault(neuron, PartialWalk())
            signal = self.network.invert_down_to(self.forward_pass, neuron, node, weights, partial)
            only = ForwardPass(self.forward_pass.logits, {node.index: self.forward_pass.records.get(node.index, ())},
                        {node.index: self.forward_pass.targets[node.index]})  # fmt: skip
            part = only.rows(chosen)
            if part is not only:
                signal = tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), signal)
        return Part(signal, part.targets[node.index], part.records.get(node.index, ()), self.samples[chosen])


class Samples:
    """Streams the data of a fit to each learned node in turn.

    Where the forward passes of all samples and the signals of all classes fit
    into ``memory``, they are kept from the first pass on, and a signal is
    inverted further from where it stands. Elsewhere each node passes over the
    data again and runs the network anew. The numbers are the same up to
    rounding.

    Args:
        network: The inverse network.
        passing: Starts a pass over the data, batches ``(n, ...)``.
        count: How many samples a pass has; None if unknown.
        replicas: The devices and hosts that share the batches.
        classes: How many classes are fitted.
        seed: Of the samples and positions that are drawn.
        memory: Bytes that may be kept.

    Attributes:
        keeps: Whether forward passes are kept.
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
        """A random share of this host's samples after their forward passes: each time a list of one batch a replica.

        Args:
            position: Position of the node among the learned ones.
            node: The node.
            rate: The share of the samples. Batches that are kept come with
                all of their samples.
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
        """Free what only ``node`` needed."""
        for forward_pass, _, _ in self._kept:
            forward_pass.targets.pop(node.index, None)

    def positions(self, position: int, samples: np.ndarray, inverse: LearnedInverse, take: int) -> np.ndarray | None:
        """The positions to take of each sample, int ``(n, take)``; None for all.

        They depend on the seed, the node and the sample alone, not on batches,
        classes or hosts.
        """
        if take >= inverse.positions:
            return None
        drawn = np.empty((len(samples), take), np.int64)
        for row, sample in zip(drawn, samples.tolist(), strict=True):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position], counter=[0, 0, 0, sample]))
            row[:] = rng.choice(inverse.positions, take, replace=False, shuffle=False)
        return drawn

    def _drawn(self, rate: float, choose: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """A random share of the samples in batches of the usual size: the samples, their draws and their indices."""
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
    """About how many bytes are kept of one sample: targets, masks and switches, and a float64 signal for each class."""
    shapes = network.graph.shapes
    sizes = [math.prod(shapes[node.output]) for node in network.nodes]
    targets = sum(math.prod(shapes[tensor_id]) for node in network.learned for tensor_id in node.needs)
    return 4 * targets + sum(sizes) + 8 * classes * 2 * max(sizes)
