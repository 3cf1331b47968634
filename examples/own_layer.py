"""A layer of your own, and its inverse: ``python -m examples.own_layer``.

MIP-IN refuses a layer that it does not know. ``register_inverse`` tells it
how to reconstruct the layer's input from the signal at its output.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import mipin_keras
from mipin_keras.metrics import Completeness, completeness


@keras.saving.register_keras_serializable(package="examples")
class Standardize(keras.layers.Layer):
    """``y = (x - mean) / deviation``, with the mean and deviation of the data."""

    def __init__(self, mean: float, deviation: float, **kwargs):
        super().__init__(**kwargs)
        self.mean, self.deviation = mean, deviation

    def call(self, x):
        return (x - self.mean) / self.deviation

    def get_config(self):
        return super().get_config() | {"mean": self.mean, "deviation": self.deviation}


@mipin_keras.register_inverse(Standardize)
class StandardizeInverse(mipin_keras.Inverse):
    """``x = y * deviation + mean``."""

    def source(self, signal: tf.Tensor, record: tuple, weights: tuple) -> tf.Tensor:
        return signal * self.layer.deviation + self.layer.mean

    def attribution(self, signal: tf.Tensor, record: tuple, weights: tuple) -> tf.Tensor:
        return signal * self.layer.deviation  # the linear part alone: attributions carry no biases


def main(epochs: int = 15, verbose: int = 1) -> Completeness:
    """Explain a network with the layer; returns the completeness on its test images."""
    digits = load_digits()
    x = digits.images.astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            Standardize(float(np.mean(x)), float(np.std(x))),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1500], digits.target[:1500], epochs=epochs, verbose=0)
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=verbose).fit(x[:1500], batch_size=128)
    found = completeness(analyzer, x[1500:])
    print(found)
    return found


if __name__ == "__main__":
    main()
