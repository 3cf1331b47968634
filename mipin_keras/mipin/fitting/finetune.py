"""Fine-tuning: the paper's overall objective, min ||X - g_1(g_2(... g_L(Y)))||², from a layerwise fit on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...data.batches import Batches
from ...data.distribute import Replicas
from ...data.inputs import count, joined, take
from ...data.progress import keras_verbose
from ..inverse import Weights
from ..keras_walk import FrozenModel, Walk
from ..network import InverseNetwork
from .measuring import measure
from .members import Members

#: Adam's, Keras' own default.
LEARNING_RATE = 1e-3

AllWeights = dict[int, dict[int, Weights]]


def check_alone(replicas: Replicas) -> None:
    """Raise ValueError where several replicas would share the fine-tuning."""
    if (replicas.count, replicas.hosts) != (1, 1):
        raise ValueError(
            "finetune_epochs expected one device, as it goes through its batches one after the other, received "
            f"{replicas.count * replicas.hosts} replicas; fit outside of the strategy's scope, or take "
            "finetune_epochs=0"
        )


def finetune(
    network: InverseNetwork,
    weights: AllWeights,
    batches: Batches,
    members: Members,
    *,
    samples: str,
    epochs: int,
    verbose: int,
    log: Callable[[str], None],
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> tuple[AllWeights, list[dict[str, Any]]]:
    """Train all inverses of each class together (Eq. 3's objective, which Algorithm 1 solves layer by layer).

    X is the tensor where the explanation ends, and the reconstruction is
    masked there as the analyzer masks. One model serves all classes; for each
    its weights are set and the optimizer starts anew, so that nothing is
    traced again and no class depends on another. The batches come in the
    data's order; of a class' own samples they are filled up to the size of the
    data's. Nothing is random: the same data give the same weights.

    Args:
        network: The inverse network; it is not changed.
        weights: What was fitted, by class and node index.
        batches: The fit's data, streamed.
        members: Which samples fit which class.
        samples: ``"all"`` or ``"class"``.
        epochs: How many passes to train for, a class.
        verbose: As of a fit.
        log: Says a line.
        callbacks: Of Keras, for each class' training.

    Returns:
        The trained weights, float32, and a fit report: every layer's error
        before and after, as :func:`mipin_keras.mipin.fitting.measuring.measure`
        measures it, and the error at the end of the explanation.

    Raises:
        ValueError: If the training diverges; for a generator with a class'
            own samples.
    """
    classes = sorted(weights)
    tuning = _FineTuning(network, batches, members, samples == "all", classes)
    trained: AllWeights = {}
    ends: dict[int, tuple[float, float]] = {}
    for position, c in enumerate(classes):
        log(f"fine-tuning class {c} ({position + 1} of {len(classes)}), {epochs} epochs")
        trained[c], ends[c] = tuning.train(c, weights[c], epochs, verbose, callbacks)
        log(f"  reconstruction error at the end {ends[c][0]:.4g}, now {ends[c][1]:.4g}")
    before, after = copy.copy(network), copy.copy(network)
    before.weights, after.weights = weights, trained
    report = []
    for old, new in zip(*(measure(each, batches, classes, samples) for each in (before, after)), strict=True):
        end_before, end = ends[new["class"]]
        own = {"mse_before": old["mse"], "relative_before": old["relative"]}
        report.append(new | own | {"end_mse_before": end_before, "end_mse": end})
    return trained, report


class _FineTuning:
    """One model, from the input to ``S - X`` where the explanation ends, for all classes."""

    def __init__(self, network: InverseNetwork, batches: Batches, members: Members, every: bool, classes: list[int]):
        self.network, self.batches = network, batches
        self._sizes: list[int] = []
        self._own = None if every else self._own_samples(members, classes)
        self._unit = tf.Variable(0, dtype=tf.int32, trainable=False)
        masks = set(network.starts) if network.mask_input else set()
        self._walk = Walk(network, self._unit, masks, set())
        lacking = [
            keras.layers.Subtract(dtype="float32", name="reconstruction_minus_input" + (f"_{i}" if i else ""))(
                [self._walk.signals[start], self._walk.ends[start]]
            )
            for i, start in enumerate(network.starts)
        ]
        self._model = FrozenModel(self._walk.input, lacking if len(lacking) > 1 else lacking[0])
        self._optimizer = keras.optimizers.Adam(LEARNING_RATE)
        losses = [_mean_square] * len(lacking) if len(lacking) > 1 else _mean_square
        self._model.compile(self._optimizer, loss=losses, jit_compile=False)
        self._optimizer.build(self._model.trainable_variables)
        self._fresh = [np.array(keras.ops.convert_to_numpy(v)) for v in self._optimizer.variables]
        self._problem: BaseException | None = None

    def train(
        self, neuron: int, weights: dict[int, Weights], epochs: int, verbose: int, callbacks: Any
    ) -> tuple[dict[int, Weights], tuple[float, float]]:
        """A class' trained weights, and the mean squared error at the end before and after."""
        self._unit.assign(neuron)
        self._walk.assign(weights)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        data = self._data(neuron)
        shown = keras_verbose(verbose)
        try:
            before = self._error(data)
            self._model.fit(data, epochs=epochs, verbose=shown, callbacks=callbacks, shuffle=False)
            after = self._error(data)
        except tf.errors.OpError:
            if self._problem is not None:  # what the data raised, as it was
                raise self._problem from None
            raise
        found = self._walk.weights()
        if not all(np.isfinite(w).all() for ws in found.values() for w in ws):
            raise ValueError(
                f"expected the fine-tuning of class {neuron} to converge, received weights that are not finite; take "
                "finetune_epochs=0, or scale the model's input"
            )
        return {i: tuple(tf.constant(w, tf.float32) for w in ws) for i, ws in found.items()}, (before, after)

    def _error(self, data: tf.data.Dataset) -> float:
        """The mean squared error where the explanation ends; of several inputs the sum of theirs."""
        found = self._model.evaluate(data, verbose=0)
        return float(found[0] if isinstance(found, list | tuple) else found)

    def _data(self, neuron: int) -> tf.data.Dataset:
        """A class' samples in batches, with something for Keras in the place of labels."""
        graph = self.network.graph
        given = tuple(tf.TensorSpec((None, *graph.shapes[n]), graph.dtypes[n]) for n in graph.inputs)
        labels = (tf.TensorSpec((None, 1), tf.float32),) * len(self.network.starts)
        signature = tuple(specs if len(specs) > 1 else specs[0] for specs in (given, labels))

        def streamed() -> Iterator[tuple[Any, Any]]:
            try:
                for x in self._batches_of(neuron):
                    nothing = (np.zeros((count(x), 1), np.float32),) * len(labels)
                    yield x, nothing if len(nothing) > 1 else nothing[0]
            except GeneratorExit:  # Keras has read enough
                raise
            except BaseException as problem:  # somebody's Ctrl-C too: TensorFlow would hand on its text alone
                self._problem = problem
                raise

        data = tf.data.Dataset.from_generator(streamed, output_signature=signature)
        # Of data of unknown length Keras looks for one batch more each epoch, which the optimizer counts as a step.
        return data.apply(tf.data.experimental.assert_cardinality(self._steps(neuron)))

    def _steps(self, neuron: int) -> int:
        """How many batches a pass of a class has."""
        if self._own is None:
            self.batches.count()  # which finds out how many batches there are
            return int(self.batches.steps or 0)
        steps = kept = first = 0
        for size in self._sizes:
            low, high = np.searchsorted(self._own[neuron], [first, first + size])
            first, kept = first + size, kept + high - low
            if kept >= size:
                steps, kept = steps + 1, 0
        return steps + bool(kept)

    def _batches_of(self, neuron: int) -> Iterator[Any]:
        if self._own is None:
            yield from self.batches
            return
        own, kept, first = self._own[neuron], [], 0
        for x in self.batches:
            low, high = np.searchsorted(own, [first, first + count(x)])
            kept.append(take(x, own[low:high] - first))
            first += count(x)
            if sum(map(count, kept)) >= count(x):
                yield joined(kept)
                kept = []
        if sum(map(count, kept)):
            yield joined(kept)

    def _own_samples(self, members: Members, classes: list[int]) -> dict[int, np.ndarray]:
        """The indices of each class' samples in the data, int ``(n,)``, in their order."""
        if self.batches.source_type == "generator":
            raise ValueError(
                "finetune_epochs with samples='class' expected data that starts again, received a generator, which "
                "goes on where it stands; give an array, a data set, or a function that returns a fresh generator"
            )
        parts: dict[int, list[np.ndarray]] = {c: [] for c in classes}
        first = 0
        for x in self.batches:
            taken_for = members.taken_for(self.network.forward(x, self.network.nodes[0]).logits)
            for c in classes:
                parts[c].append(first + np.flatnonzero(members.of(taken_for, c)))
            first += count(x)
            self._sizes.append(count(x))
        return {c: np.concatenate(found) for c, found in parts.items()}


def _mean_square(nothing: Any, lacking: Any) -> Any:
    """The mean over a sample's elements of the squared difference that the model gives; the labels say nothing."""
    axes = tuple(range(1, len(lacking.shape)))
    return keras.ops.mean(keras.ops.square(lacking), axis=axes)
