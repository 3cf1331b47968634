"""Networks with planted information: which parts of the input the representation reads is known."""

import keras
import numpy as np

L = keras.layers


@keras.saving.register_keras_serializable("tests")
class Where(L.Layer):
    """Adds to each location of a 4x4 map which half of the rows and of the columns it lies in."""

    def call(self, x):
        halves = np.array([-1, -1, 1, 1], np.float32)
        ones = keras.ops.ones_like(x[..., :1])
        return keras.ops.concatenate([x, ones * halves[:, None, None], ones * halves[None, :, None]], axis=-1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] + 2)


def quadrants(second=False):
    """Its representation is the first quadrant, with ``second`` the one beside it too; its head reads the first alone.

    The classes are told by the first channel of the first quadrant, summed.
    """
    x = keras.Input((4, 4, 4))
    feature = Where(name="feature")(x)

    def quadrant(left):
        return L.Flatten()(L.Cropping2D(((0, 2), (left, 2 - left)))(feature))

    z = L.Concatenate(name="z")([quadrant(0), quadrant(2)]) if second else L.Identity(name="z")(quadrant(0))
    model = keras.Model(x, L.Dense(2, name="head", activation="softmax")(z))
    kernel = np.zeros(model.get_layer("head").kernel.shape, np.float32)
    kernel[0:24:6] = [-2, 2]
    model.get_layer("head").set_weights([kernel, np.zeros(2, np.float32)])
    return model


def noise(n=1500, seed=0):
    """Inputs of :func:`quadrants`."""
    return np.random.default_rng(seed).normal(size=(n, 4, 4, 4)).astype("float32")


def small(head="softmax", units=3):
    """A CNN with batch normalisation, a shortcut and global average pooling."""
    x = keras.Input((8, 6, 2))
    y = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x))
    y = L.MaxPooling2D(2, name="pool")(y)
    y = L.Add(name="add")([y, L.Conv2D(4, 3, padding="same", activation="relu", name="side")(y)])
    y = L.GlobalAveragePooling2D(name="mean")(y)
    return keras.Model(x, L.Dense(units, head, name="head")(y))


def tokens():
    """A model of tokens: (batch, tokens, channels) all the way."""
    x = keras.Input((6, 3))
    y = L.Dense(5, "relu", name="tokens")(x)
    y = L.Add()([y, L.MultiHeadAttention(2, 3)(y, y)])
    y = L.GlobalAveragePooling1D(name="mean")(L.LayerNormalization(name="last")(y))
    return keras.Model(x, L.Dense(3, name="head")(y))
