"""The paper's own way to fit a convolution's inverse: epochs of Adam on the mean squared error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..inverse import LearnedInverse
from ..ridge import Squares

#: A class, its signals at an inverse's output ``(n, *output_shape)`` and what they are to reconstruct, ``(n,
#: *input_shape)``, both float32.
TrainingBatch = tuple[int, tf.Tensor, tf.Tensor]


class Trained(NamedTuple):
    """What training found for one class.

    Attributes:
        weights: float32, of the inverse's shapes.
        squares: The squared error that they leave, over all batches.
    """

    weights: tuple[np.ndarray, ...]
    squares: Squares


def train(
    inverse: LearnedInverse,
    classes: list[int],
    each_batch: Callable[[], Iterable[TrainingBatch]],
    *,
    epochs: int,
    seed: int,
    log: Callable[[str], None],
) -> dict[int, Trained]:
    """Train an inverse for several classes (section 6.1.2: E epochs).

    The batches are the data's, in its order. The paper names neither the
    optimizer nor its rate; these are Keras' Adam as it comes, from the
    initial weights of a Conv2DTranspose.

    Args:
        inverse: A trainable one.
        classes: Those that the batches are of.
        each_batch: Starts a pass over the data: each batch once a class.
        epochs: How many passes to train for; one more measures the error.
        seed: Of the initial weights.
        log: Says a line.

    Returns:
        By class; one that no batch was of has ``squares`` of no samples.
    """
    models = {c: _Trainee(inverse, seed + 1000003 * c) for c in classes}
    for epoch in range(epochs):
        losses = [float(models[c].fit(signal, x)) for c, signal, x in each_batch()]
        if losses:
            log(f"  epoch {epoch + 1} of {epochs}: mean squared error {np.mean(losses):.4g}")
    squares = {c: Squares() for c in classes}
    for c, signal, x in each_batch():
        squares[c].update(x.numpy(), models[c].guess(signal).numpy())
    return {c: Trained(models[c].weights, squares[c]) for c in classes}


class _Trainee:
    """One class' weights in training."""

    def __init__(self, inverse: LearnedInverse, seed: int):
        initial = keras.initializers.GlorotUniform(seed=seed)
        kernel, bias = inverse.weight_shapes
        self._variables = [keras.Variable(initial(kernel)), keras.Variable(np.zeros(bias, np.float32))]
        optimizer = keras.optimizers.Adam()
        optimizer.build(self._variables)
        # Open in the batch axis, so that no batch size is traced twice.
        spec = [tf.TensorSpec((None, *shape), tf.float32) for shape in (inverse.output_shape, inverse.input_shape)]

        def guess(signal: tf.Tensor) -> tf.Tensor:
            return inverse.source(signal, (), tuple(v.value for v in self._variables))

        def fit(signal: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            values = [v.value for v in self._variables]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(x - guess(signal)))
            optimizer.apply(tape.gradient(loss, values), self._variables)
            return loss

        # Traced here and now: TensorFlow warns of retracing where many functions come from one line.
        self.fit: Callable = tf.function(fit, input_signature=spec, autograph=False).get_concrete_function()
        self.guess: Callable = tf.function(guess, input_signature=spec[:1], autograph=False).get_concrete_function()

    @property
    def weights(self) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(keras.ops.convert_to_numpy(v)) for v in self._variables)
