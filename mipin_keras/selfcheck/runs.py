"""The checks of ``analyzer.check(x)``."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.inputs import count, take
from ..graph import comparison, propagation
from ..graph.callable_graph import CallableGraph
from ..graph.steps import states_within
from .report import CheckReport, CheckRow

#: The most samples that are checked.
MOST = 32
#: How far a sample's map may be from its map in a batch, as a share of its largest value.
ALONE = 1e-3


def run(analyzer: Any, X: Any, neuron_selection: Any = None) -> CheckReport:
    """Check an analyzer on samples.

    Args:
        analyzer: A fitted :class:`mipin_keras.Analyzer`.
        X: Samples as its ``analyze`` takes them; at most the first 32 are used.
        neuron_selection: As ``analyze`` takes it.

    Returns:
        The report.
    """
    analyzer._meet(X)
    x = analyzer._input(X)
    n = min(MOST, count(x))
    x = take(x, slice(0, n))
    if neuron_selection is not None and np.size(neuron_selection) > 1:
        neuron_selection = np.asarray(neuron_selection).reshape(-1)[:n]
    before = _values(analyzer)
    given = list(x) if isinstance(x, tuple) else x
    maps = analyzer.analyze(given, neuron_selection)
    maps = maps if isinstance(maps, list) else [maps]
    rows = [
        _steps(analyzer, x),
        _gradient(analyzer, x),
        _finite(maps),
        _alone(analyzer, x, neuron_selection, maps),
        _completeness(analyzer, given, neuron_selection, maps),
        _unchanged(analyzer, before),
    ]
    return CheckReport(analyzer.name, n, rows)


def _row(name: str, value: float, limit: float, text: str, advice: str) -> CheckRow:
    passed = bool(value <= limit)
    return CheckRow(name, passed, value, limit, text if passed else f"{text}; {advice}")


def _larger(one: float, other: float) -> float:
    """The larger of two numbers; NaN, which is no agreement, if one of them is."""
    return float(np.maximum(one, other))


def _batch(analyzer: Any, x: Any) -> tuple[tf.Tensor, ...]:
    """The samples as tensors, as many as a fixed batch size wants."""
    if analyzer.graph.batch is not None:
        x = take(x, np.arange(analyzer.graph.batch) % count(x))
    return tuple(map(tf.convert_to_tensor, x if isinstance(x, tuple) else (x,)))


def _steps(analyzer: Any, x: Any) -> CheckRow:
    if isinstance(analyzer.graph, CallableGraph):
        return CheckRow("output", None, None, None, "the model has no graph: it is called as it is")
    difference, limit = comparison.compared(analyzer.graph, _batch(analyzer, x))
    text = "the model's output by its steps, against model(x, training=False), in shares of the largest value"
    return _row("output", difference, limit, text, "a layer does something that the model's graph does not show")


def _gradient(analyzer: Any, x: Any) -> CheckRow:
    graph, given = analyzer.graph, _batch(analyzer, x)
    floating = [i for i, n in enumerate(graph.inputs) if graph.floating(n)]
    if isinstance(graph, CallableGraph) or not floating:
        why = "has no graph" if floating else "has no floating-point input, and at tokens there is no gradient"
        return CheckRow("gradient", None, None, None, f"not compared: the model {why}")
    rng = np.random.default_rng(0)
    watched = [given[i] for i in floating]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(watched)
        outputs = comparison.called(graph, given)
        chosen = [(n, y) for n, y in zip(graph.model_outputs, outputs, strict=True) if y.dtype.is_floating]
        weights = {n: tf.constant(rng.normal(size=y.shape), y.dtype) for n, y in chosen}
        total = tf.add_n([tf.cast(tf.reduce_sum(y * weights[n]), tf.float64) for n, y in chosen])
    theirs = tape.gradient(total, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    ours = propagation.gradients(graph, given, weights)
    difference = 0.0
    for i, there in zip(floating, theirs, strict=True):
        here = ours.get(graph.inputs[i], tf.zeros_like(there))
        one, other = (np.asarray(tf.cast(t, tf.float64)) for t in (here, there))
        with np.errstate(invalid="ignore"):
            difference = _larger(difference, float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30)))
    halves = comparison.computes_in_halves(graph)
    text = "the gradient of the output by the walk, against a tape over the model, in shares of the largest value"
    return _row("gradient", difference, 0.1 if halves else 1e-3, text, "report this model: the walk is wrong for it")


def _finite(maps: list[np.ndarray]) -> CheckRow:
    flat = sum(int((array.reshape(len(array), -1) == 0).all(axis=1).sum()) for array in maps)
    if not all(np.isfinite(array).all() for array in maps):
        return CheckRow("map", False, None, None, "the maps hold NaN or infinity; look at the model's weights")
    text = "maps that are zero everywhere, and say nothing"
    advice = "; for a negative logit, explain the other side with target=mipin_keras.targets.negative(unit)"
    return CheckRow("map", None if flat else True, float(flat), None, text + (advice if flat else ""))


def _alone(analyzer: Any, x: Any, neuron_selection: Any, maps: list[np.ndarray]) -> CheckRow:
    last = count(x) - 1
    own = take(x, slice(last, last + 1))
    if neuron_selection is not None and np.size(neuron_selection) > 1:
        neuron_selection = int(np.asarray(neuron_selection).reshape(-1)[last])
    found = analyzer.analyze(list(own) if isinstance(own, tuple) else own, neuron_selection)
    found = found if isinstance(found, list) else [found]
    difference = 0.0
    for alone, array in zip(found, maps, strict=True):
        largest = max(float(np.abs(array[last]).max()), 1e-30)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, which is no agreement
            difference = _larger(difference, float(np.abs(alone[0] - array[last]).max()) / largest)
    text = "the map of one sample by itself, against its map in the batch, in shares of its largest value"
    return _row("alone", difference, ALONE, text, "a layer mixes samples, or draws at random at inference")


def _completeness(analyzer: Any, given: Any, neuron_selection: Any, maps: list[np.ndarray]) -> CheckRow:
    found = analyzer.completeness_residual(given, maps, neuron_selection)
    if found is None:
        return CheckRow("completeness", None, None, None, "the method's maps do not sum to the output")
    value, limit, text = found
    if limit is None:
        return CheckRow("completeness", None, value, None, text)
    return _row("completeness", value, limit, text, "take more steps=")


def _values(analyzer: Any) -> list[np.ndarray]:
    model = analyzer.model
    if not isinstance(model, keras.layers.Layer):
        return []
    return [keras.ops.convert_to_numpy(variable) for variable in [*model.variables, *states_within(model)]]


def _unchanged(analyzer: Any, before: list[np.ndarray]) -> CheckRow:
    after = _values(analyzer)
    changed = sum(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    text = f"variables of the model that the analysis changed, of {len(before)}"
    return _row("unchanged", float(changed), 0.0, text, "a layer of your own keeps a state that Keras is not told of")
