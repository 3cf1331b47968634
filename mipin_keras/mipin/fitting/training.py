"""The paper's own way to fit a convolution's inverse: epochs of Adam on the mean squared error, by Keras' ``fit``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...data.progress import keras_verbose
from ..inverse import LearnedInverse
from ..ridge import Squares

#: A class, its signals at an inverse's output ``(n, *output_shape)`` and what they are to reconstruct, ``(n,
#: *input_shape)``, both float32.
TrainingBatch = tuple[int, tf.Tensor, tf.Tensor]
#: Starts a pass over the data, given classes and whether to show its progress: each batch once for each class.
EachBatch = Callable[[list[int], bool], Iterable[TrainingBatch]]
_Pairs = Iterable[tuple[tf.Tensor, tf.Tensor]]


class Trained(NamedTuple):
    """What training found for one class.

    Attributes:
        weights: float32, of the inverse's shapes.
        squares: The squared error that they leave, over all batches.
    """

    weights: tuple[np.ndarray, ...]
    squares: Squares


class Schedule(NamedTuple):
    """How to train: the options of :class:`mipin_keras.mipin.MIPIN` of the same names.

    Attributes:
        epochs: How many passes to train for.
        seed: Of the initial weights.
        callbacks: Keras', for the training of each inverse and class.
        verbose: 0 silent, 1 Keras' bars (a line an epoch where there is no
            terminal), 2 a line an epoch.
    """

    epochs: int
    seed: int
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 0


def train(
    inverse: LearnedInverse,
    samples: dict[int, int],
    each_batch: EachBatch,
    schedule: Schedule,
    *,
    memory: int,
    steps: int | None,
    log: Callable[[str], None],
) -> dict[int, Trained]:
    """Train an inverse for several classes, one after the other (section 6.1.2: E epochs).

    The batches are the data's, in its order. The paper names neither the
    optimizer nor its rate; these are Keras' Adam as it comes, from the
    initial weights of a Conv2DTranspose. One Keras model serves all classes,
    so that nothing is traced anew.

    Args:
        inverse: A trainable one.
        samples: The classes, and how many samples each has.
        each_batch: See :data:`EachBatch`.
        schedule: See :class:`Schedule`.
        memory: Bytes of signals and targets that may be kept. What does not
            fit is made anew in each epoch.
        steps: Batches a pass, where each of them has samples of each class;
            None where they are to be counted.
        log: Says a line.

    Returns:
        By class; one without samples has ``squares`` of no samples.
    """
    trainee = _Trainee(inverse, schedule)
    sizes = _sizes(inverse, samples)
    found: dict[int, Trained] = {}
    for group in _groups(sizes, memory):
        kept: dict[int, list[tuple[tf.Tensor, tf.Tensor]]] = {c: [] for c in group}
        fits = sizes[group[0]] <= memory
        for c, signal, x in each_batch(group, True) if fits else ():
            kept[c].append((signal, x))
        for c in group:
            own = kept.pop(c)
            if not samples[c]:
                found[c] = Trained(trainee.begin(c), Squares())
                continue
            log(f"  training class {c}")
            if fits:
                found[c] = trainee.train(c, functools.partial(iter, own), len(own))
            else:
                again = functools.partial(_again, each_batch, c)
                found[c] = trainee.train(c, again, sum(1 for _ in again()) if steps is None else steps)
    return found


def passes_of(inverse: LearnedInverse, samples: dict[int, int], memory: int, epochs: int) -> int:
    """How often :func:`train` starts a pass over the data."""
    sizes = _sizes(inverse, samples)
    return sum(1 if sizes[group[0]] <= memory else epochs + 1 for group in _groups(sizes, memory))


def _sizes(inverse: LearnedInverse, samples: dict[int, int]) -> dict[int, int]:
    """The bytes of each class' signals and targets."""
    shapes = (inverse.output_shape, inverse.input_shape)
    return {c: 4 * count * sum(int(np.prod(shape)) for shape in shapes) for c, count in samples.items()}


def _groups(sizes: dict[int, int], memory: int) -> Iterator[list[int]]:
    """The classes in groups whose sizes fit in ``memory`` together; one that does not fit is a group of its own."""
    group: list[int] = []
    for c, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > memory:
            yield group
            group = []
        group.append(c)
    if group:
        yield group


def _again(each_batch: EachBatch, c: int) -> _Pairs:
    """The signals and targets of a class, made anew, in silence: an epoch shows Keras' own bar."""
    return ((signal, x) for _, signal, x in each_batch([c], False))


class _Trainee:
    """The Keras model of an inverse, trained for one class after the other."""

    def __init__(self, inverse: LearnedInverse, schedule: Schedule):
        self._inverse, self._schedule = inverse, schedule
        layer = inverse.keras_layer(f"inverse_of_{inverse.layer.name}")
        self._model = keras.Sequential([keras.Input(inverse.output_shape, name="signal"), layer], name="inverse")
        # Without XLA, which compiles for each batch size, and on CPUs is slow at convolutions.
        self._model.compile(optimizer=keras.optimizers.Adam(), loss="mse", jit_compile=False)
        self._model.optimizer.build(self._model.trainable_variables)
        self._fresh = [np.asarray(keras.ops.convert_to_numpy(v)) for v in self._model.optimizer.variables]
        # Open in the batch axis, so that no batch size is traced twice.
        self._specs = tuple(tf.TensorSpec((None, *s), tf.float32) for s in (inverse.output_shape, inverse.input_shape))
        guess = tf.function(self._model.call, input_signature=self._specs[:1], autograph=False)
        self._guess: Callable = guess.get_concrete_function()

    def begin(self, neuron: int) -> tuple[np.ndarray, ...]:
        """Set the initial weights of a class, which it returns, and a fresh optimizer."""
        kernel, bias = self._inverse.weight_shapes
        initial = keras.initializers.GlorotUniform(seed=self._schedule.seed + 1000003 * neuron)
        self._model.set_weights([initial(kernel), np.zeros(bias, np.float32)])
        # The learning rate among them, which a callback may have changed.
        for variable, value in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        return tuple(np.array(w) for w in self._model.get_weights())

    def train(self, neuron: int, pairs: Callable[[], _Pairs], steps: int) -> Trained:
        """Train for a class from its initial weights, and measure the error of the last ones.

        Args:
            neuron: The class.
            pairs: Starts a pass over its signals and targets.
            steps: Batches a pass.
        """
        self.begin(neuron)
        self._fit(pairs, steps)
        squares = Squares()
        for signal, x in pairs():
            squares.update(np.asarray(x), self._guess(signal).numpy())
        return Trained(tuple(np.array(w) for w in self._model.get_weights()), squares)

    def _fit(self, pairs: Callable[[], _Pairs], steps: int) -> None:
        failures: list[BaseException] = []

        def rows() -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
            try:
                yield from pairs()
            except GeneratorExit:  # Keras has read enough
                raise
            except BaseException as problem:  # somebody's Ctrl-C too: TensorFlow would hand on its text alone
                failures.append(problem)
                raise

        dataset = tf.data.Dataset.from_generator(rows, output_signature=self._specs)
        # Keras warns of data of unknown length at their end.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
        schedule = self._schedule
        try:
            self._model.fit(
                dataset,
                epochs=schedule.epochs,
                callbacks=list(schedule.callbacks),
                verbose=keras_verbose(schedule.verbose),
                shuffle=False,
            )
        except Exception:
            if failures:
                raise failures[0] from None
            raise
