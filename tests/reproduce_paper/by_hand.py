"""What the tests compute without the package, to compare the package's maps with."""

import keras
import tensorflow as tf


def logit_gradients(model, x, classes):
    """The gradients of the classes' logits, of a model whose last layer is Dense, with a softmax or not."""
    last = model.layers[-1]
    features = keras.Model(model.inputs, last.input)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.gather(features(x) @ last.kernel + last.bias, classes, batch_dims=1)
    return tape.gradient(logits, x).numpy()
