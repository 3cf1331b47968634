"""The paper's own way to fit a convolution's inverse: epochs of Adam on the mean squared error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from .plan import Node
from .ridge import Squares
from .rules import LearnedInverse

if TYPE_CHECKING:
    from .fitting import Fitting


def train(fitting: Fitting, node: Node, inverse: LearnedInverse, classes: list[int]) -> None:
    """Train a node's inverse for every class of a fit (section 6.1.2: E epochs).

    The batches are the data's, in its order. The paper names neither the
    optimizer nor its rate; these are Keras' Adam as it comes, from the
    initial weights of a Conv2DTranspose.

    Raises:
        ValueError: If a class has no samples.
    """
    network, options = fitting.network, fitting.options
    models = {c: _Trainee(inverse, options.seed + 1000003 * c) for c in classes}

    def each_batch() -> Any:
        for x in fitting.passing():
            seen = network.look(x, node, (node,))
            for c in classes:
                chosen = np.flatnonzero(fitting.members(seen, c))
                if len(chosen):
                    part = seen.rows(chosen)
                    signal = network.descend(part, c, node, fitting.fitted(c), dtype=tf.float32)
                    yield c, signal, tf.cast(part.targets[node.index], tf.float32)

    for epoch in range(options.epochs):
        losses = [float(models[c].fit(signal, x)) for c, signal, x in each_batch()]
        if losses:
            fitting.say(f"  epoch {epoch + 1} of {options.epochs}: mean squared error {np.mean(losses):.4g}")
    squares = {c: Squares() for c in classes}
    for c, signal, x in each_batch():
        squares[c].update(x.numpy(), models[c].guess(signal).numpy())
    for c in classes:
        if not squares[c].samples:
            raise ValueError(fitting.empty(c))
        fitting.keep(node, c, models[c].weights, *squares[c].error(), squares[c].rows)


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
