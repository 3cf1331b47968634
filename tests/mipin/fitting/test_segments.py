"""How a fit is cut into passes: whatever is kept, spilled or made anew, it finds the same."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.fitting import samples as streaming
from mipin_keras.mipin.fitting import segments
from mipin_keras.mipin.fitting.frontier import Frontier, Walk, taken
from mipin_keras.mipin.fitting.segments import Segment, Sizes, planned
from mipin_keras.mipin.network import InverseNetwork, PartialWalk
from tests.networks import balanced, close, cnn, residual, samples, with_weights

L = keras.layers
X = samples((7, 6, 2), 70)


def fitted(model, monkeypatch=None, x=X, batch_size=16, **options):
    """Maps and signals of two classes, and the segments of the fit."""
    memory = options.pop("memory", 2.0)
    made = []
    init = streaming.Samples.__init__

    def noted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        made.append(self)

    analyzer = create_analyzer("mipin", model, classes=[0, 2], verbose=0, neuron_selection_mode="index", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming.Samples, "__init__", noted)
        analyzer.fit(x, batch_size=batch_size, memory=memory)
    found = [f(X, c) for f in (analyzer.analyze, analyzer.source_signal) for c in (0, 2)]
    return found, made[0], analyzer


@pytest.mark.parametrize(
    ("options", "memory"),
    [
        ({}, 0.0), ({"rows": 500, "samples": "class"}, 0.0),
        *(pytest.param(options, memory, marks=pytest.mark.medium)
          for options in ({"samples": "class"}, {"rows": 900}, {"rows": 500, "samples": "class"})
          for memory in (1e-5, 2e-4, 4e-4)),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.medium
def test_memory_changes_the_passes_and_not_the_numbers(memory, options, monkeypatch):
    monkeypatch.setattr(segments, "UNIT_BYTES", 30_000)  # several units
    wanted, at_once, _ = fitted(residual(), **options)
    found, cut, _ = fitted(residual(), memory=memory, **options)
    assert len(at_once.segments) == 1 and at_once.segments[0].kept and not at_once.frontier.spilled
    assert len(cut.segments) > 1 or memory > 1e-4
    assert memory > 1e-4 or cut.frontier.spilled
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(b).max() > 1e-3 and close(a, b, 1e-4)


@pytest.mark.medium
def test_batches_change_nothing(monkeypatch):
    """Rows are drawn of the same samples and positions, whatever the batches and units."""
    monkeypatch.setattr(segments, "UNIT_BYTES", 1)
    wanted, _, _ = fitted(residual(), rows=900, batch_size=70)
    for size in (7, 32):
        found, _, _ = fitted(residual(), rows=900, batch_size=size)
        assert all(close(a, b, 1e-4) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("memory", [0.0, 2.0])
def test_an_endless_generator_of_one_batch_is_an_array(memory):
    """Signals are not carried from one pass to the next, whose samples may be others."""
    wanted, _, _ = fitted(cnn(), rows=None, batch_size=70)

    def endless():
        while True:
            yield X

    analyzer = create_analyzer("mipin", cnn(), classes=[0, 2], verbose=0, rows=None, neuron_selection_mode="index")
    analyzer.fit(endless(), steps=1, memory=memory)
    found = [f(X, c) for f in (analyzer.analyze, analyzer.source_signal) for c in (0, 2)]
    assert all(close(a, b, 1e-4) for a, b in zip(found, wanted, strict=True))


def test_a_pass_of_an_endless_generator_is_of_its_own_samples():
    """A fit that took its targets from one pass and its signals from another would find nothing."""
    rng = np.random.default_rng(0)

    def endless():
        while True:
            yield X[rng.permutation(70)]

    analyzer = create_analyzer("mipin", cnn(), classes=[0], verbose=0, rows=None)
    analyzer.fit(endless(), steps=1, memory=0.0)
    other = create_analyzer("mipin", cnn(), classes=[0], verbose=0, rows=None).fit(X)
    for a, b in zip(analyzer.fit_report, other.fit_report, strict=True):
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-3)


def sizes(model):
    graph = ModelGraph(model)
    return Sizes(InverseNetwork(graph, (graph.input,)))


def test_what_a_sample_takes():
    found = sizes(cnn())
    # In front of the head the logits wait, in front of the convolution its signal (5, 4, 3).
    assert found.waiting == [4 * 3, 4 * 60]
    # The head's target is the flat map; the convolution's the input, behind switches and a mask.
    assert found.reached == [4 * 12, 4 * 12 + 60 + 4 * 84]
    assert found.unit >= 1 and found.whole > 4 * (60 + 12 + 3)


def test_segments_fill_the_memory():
    found = sizes(residual())
    count = len(found.reached)
    whole = sum(found.reached)
    assert planned(found, lambda i: 1, whole, True) == [Segment(0, count, True)]
    for memory in (whole - 1, whole // 2, max(found.reached)):
        cut = planned(found, lambda i: 1, memory, True)
        assert [s.first for s in cut] == [0, *(s.last for s in cut[:-1])] and cut[-1].last == count
        assert len(cut) > 1
        for s in cut:
            assert not s.kept or sum(found.reached[s.first : s.last]) <= memory
    assert planned(found, lambda i: 1, 0, True) == [Segment(i, i + 1, False) for i in range(count)]
    # where signals are not carried on, one pass serves all nodes or one
    assert planned(found, lambda i: 1, whole - 1, False) == [Segment(i, i + 1, False) for i in range(count)]
    assert planned(found, lambda i: 1, whole, False) == [Segment(0, count, True)]
    # a node that few samples are drawn for takes less
    assert len(planned(found, lambda i: 0.4, whole // 2, True)) == 1


def test_signals_in_files_come_back(rng):
    frontier = Frontier(True)
    signals = {
        3: [tf.constant(rng.normal(size=(4, 2, 3)), tf.float32)],
        5: [tf.constant(rng.normal(size=(4, 6)), tf.float32), tf.constant(rng.normal(size=(4, 6)), tf.float32)],
    }
    walk = Walk(np.arange(4), PartialWalk(2, {n: list(parts) for n, parts in signals.items()}))
    for _ in range(2):
        frontier.put_away(walk)
        assert not any(isinstance(part, tf.Tensor) for parts in walk.partial.signals.values() for part in parts)
        frontier.at_hand(walk)
        for n, parts in signals.items():
            for a, b in zip(walk.partial.signals[n], parts, strict=True):
                np.testing.assert_array_equal(a, b)
    frontier.put_away(Walk(np.arange(0), PartialWalk()))  # nothing to write
    # A walk that has moved on is written anew.
    frontier.at_hand(walk)
    walk.partial.position, walk.partial.signals = 3, {7: [tf.ones((4, 5))]}
    frontier.put_away(walk)
    frontier.at_hand(walk)
    np.testing.assert_array_equal(walk.partial.signals[7][0], np.ones((4, 5)))
    assert walk.file.exists()
    frontier.close()
    assert not walk.file.parent.exists()


def test_rows_taken():
    x = tf.reshape(tf.range(12), (6, 2))
    for at in ([], [0], [0, 1, 2], [1, 4], [0, 2], list(range(6))):
        np.testing.assert_array_equal(taken(x, np.array(at, int)), x.numpy()[at])


def test_a_node_takes_samples_that_the_nodes_above_took_too():
    """Draws nest, so that what no layer below takes is not walked."""
    seen = []
    part = streaming.Samples.part

    def noted(self, unit, neuron, position, weights):
        found = part(self, unit, neuron, position, weights)
        rows = [] if found is None else unit.samples[found.rows].tolist()
        seen.append((position, set(rows), set(unit.samples[unit.walks[neuron].rows].tolist())))
        return found

    layers = [L.Conv2D(4, 3, padding="same"), L.ReLU(), L.Conv2D(4, 3, padding="same"), L.Flatten(), L.Dense(3)]
    model = balanced(with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming.Samples, "part", noted)
        create_analyzer("mipin", model, classes=1, verbose=0, rows=400).fit(X)
    by_position = {p: [s for q, *s in seen if q == p] for p in range(3)}
    assert len(by_position[0][0][0]) == 70
    for (_, above), (below, _) in itertools.pairwise(
        (set().union(*(s[0] for s in parts)), set().union(*(s[1] for s in parts))) for parts in by_position.values()
    ):
        assert below <= above or not above
    taken_below = set().union(*(s[0] for s in by_position[1]))
    assert 0 < len(taken_below) < 70
    assert set().union(*(s[0] for s in by_position[2])) == taken_below  # two alike layers take the same samples
