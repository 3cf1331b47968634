"""The models and inputs of docs/situations.md: small ones of the kinds that people have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

L = keras.layers


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32) + np.float32(0.1)


def weighted(model: Any) -> Any:
    """``model`` with weights of NumPy's, and a head of high enough bias that its logits are positive."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        new = rng.standard_normal(variable.shape) / np.sqrt(max(1, np.prod(variable.shape[:-1])))
        name = variable.path.rsplit("/", 1)[-1]
        variable.assign({"moving_variance": 1 + np.abs(new), "bias": 0.3 + 0 * new}.get(name, new))
    return model


def made(inputs: Any, body: Callable, units: int = 3, activation: Any = "softmax") -> Any:
    return weighted(keras.Model(inputs, L.Dense(units, activation=activation, name="head")(body(inputs))))


def series(body: Callable, **head: Any) -> tuple[Any, dict[str, Any]]:
    x = numbers(8, 5, 2)
    x[0, 3:] = 0
    return made(keras.Input((5, 2), name="series"), body, **head), {"x": x}


def image(body: Callable, channels: int = 3, **head: Any) -> tuple[Any, dict[str, Any]]:
    return made(keras.Input((8, 6, channels), name="image"), body, **head), {"x": numbers(8, 8, 6, channels)}


def table(hidden: Any = "relu", **head: Any) -> tuple[Any, dict[str, Any]]:
    body = lambda x: L.Dense(5, activation=hidden, name="hidden")(x)  # noqa: E731
    return made(keras.Input((6,), name="table"), body, **head), {"x": numbers(8, 6)}


def conv(x: Any, activation: Any = "relu", name: str = "conv") -> Any:
    return L.Flatten(name="flatten")(L.Conv2D(3, 3, activation=activation, name=name)(x))


def masked(x: Any) -> Any:
    return L.Masking(name="masking")(x)


def averaged(x: Any) -> Any:
    return L.GlobalAveragePooling1D(name="mean")(x)


def attention(x: Any) -> Any:
    return averaged(L.MultiHeadAttention(2, 3, name="attention")(x, x))


def lstm(x: Any, **options: Any) -> Any:
    return L.LSTM(3, name="lstm", **options)(x)


def text(body: Callable, dtype: str = "int32", **embedding: Any) -> tuple[Any, dict[str, Any]]:
    x = keras.Input((5,), dtype=dtype, name="tokens")
    y = L.Embedding(9, 3, name="embedding", **embedding)(x)
    model = weighted(keras.Model(x, L.Dense(2, activation="softmax", name="head")(body(y))))
    return model, {"x": np.array([[3, 1, 4, 0, 0], [2, 7, 0, 5, 1]] * 4, "int32")}


def text_cnn(x: Any) -> Any:
    return L.GlobalMaxPooling1D(name="max")(L.Conv1D(4, 2, activation="relu", name="conv")(x))


def any_length() -> tuple[Any, dict[str, Any]]:
    return made(keras.Input((None, 2), name="series"), text_cnn), {"x": numbers(8, 5, 2)}


def stateful() -> tuple[Any, dict[str, Any]]:
    x = keras.Input(batch_shape=(2, 5, 2), name="series")
    return made(x, lambda y: lstm(y, stateful=True)), {"x": numbers(2, 5, 2)}


def with_state(x: Any) -> Any:
    y, hidden, cell = lstm(x, return_state=True)
    return L.Concatenate(name="concatenate")([y, hidden, cell])


def own_softmax(x: Any) -> Any:
    powers = keras.ops.exp(x - keras.ops.max(x, axis=-1, keepdims=True))
    return powers / keras.ops.sum(powers, axis=-1, keepdims=True)


def made_table(body: Callable) -> tuple[Any, dict[str, Any]]:
    return made(keras.Input((6,), name="table"), body), {"x": numbers(8, 6)}


def two_heads() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((6,), name="table")
    y = L.Dense(5, activation="relu", name="hidden")(x)
    heads = [L.Dense(1, name="age")(y), L.Dense(3, activation="softmax", name="kind")(y)]
    return weighted(keras.Model(x, heads)), {"x": numbers(8, 6)}


def u_net() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((8, 6, 3), name="image")
    top = L.Conv2D(3, 3, padding="same", activation="relu", name="down")(x)
    low = L.Conv2D(4, 3, padding="same", activation="relu", name="low")(L.MaxPooling2D(2, name="pool")(top))
    y = L.Concatenate(name="skip")([top, L.UpSampling2D(2, name="up")(low)])
    model = weighted(keras.Model(x, L.Conv2D(3, 1, activation="softmax", name="classes")(y)))
    mask = np.zeros((8, 6), bool)
    mask[2:5, 1:4] = True
    return model, {"x": numbers(8, 8, 6, 3), "mask": mask}


def autoencoder() -> tuple[Any, dict[str, Any]]:
    model, names = table(units=6, activation=None)
    return model, names


def two_inputs() -> tuple[Any, dict[str, Any]]:
    picture, clinic = keras.Input((8, 6, 3), name="picture"), keras.Input((3,), name="clinic")
    y = L.Concatenate(name="concatenate")([conv(picture), L.Dense(4, activation="relu", name="hidden")(clinic)])
    model = weighted(keras.Model([picture, clinic], L.Dense(2, activation="softmax", name="head")(y)))
    return model, {"picture": numbers(8, 8, 6, 3), "clinic": numbers(8, 3, seed=1)}


def siamese() -> tuple[Any, dict[str, Any]]:
    inner = keras.Input((8, 6, 3), name="view")
    encoder = keras.Model(inner, L.Dense(4, name="code")(conv(inner)), name="encoder")
    left, right = keras.Input((8, 6, 3), name="left"), keras.Input((8, 6, 3), name="right")
    apart = L.Subtract(name="difference")([encoder(left), encoder(right)])
    model = weighted(keras.Model([left, right], L.Dense(1, activation="sigmoid", name="head")(apart)))
    return model, {"left": numbers(8, 8, 6, 3), "right": numbers(8, 8, 6, 3, seed=1)}


def photographs() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((8, 6, 3), dtype="uint8", name="photo")
    model = made(x, lambda y: conv(L.Rescaling(1 / 255, name="scale")(y)))
    return model, {"x": np.random.default_rng(0).integers(0, 256, (8, 8, 6, 3), dtype="uint8")}


@keras.saving.register_keras_serializable("docs")
class Named(L.Layer):
    """A layer of a user's, which returns a dictionary."""

    def call(self, x: Any) -> dict[str, Any]:
        return {"features": 2 * x}


def caffe(x: Any) -> Any:
    return conv(keras.applications.vgg16.preprocess_input(255 * x))


def halves(x: Any) -> Any:
    left, right = keras.ops.split(x, 2, axis=1)
    return conv(keras.ops.concatenate([right, left], axis=1))


def nested(x: Any) -> Any:
    inner = keras.Input((8, 6, 3), name="view")
    y = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="conv1")(inner))
    y = L.Conv2D(4, 3, activation="relu", name="conv2")(L.ReLU(name="relu")(y))
    base = keras.Model(inner, y, name="base")
    base.trainable = False
    return L.GlobalAveragePooling2D(name="pool")(base(x, training=False))


def augmented(x: Any) -> Any:
    y = L.RandomRotation(0.2, name="rotate")(L.RandomFlip(name="flip")(x))
    return conv(L.Normalization(mean=0.5, variance=0.1, name="normalization")(y))


def convolutional_head() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((8, 6, 3), name="image")
    y = L.Conv2D(4, 3, activation="relu", name="last")(x)
    y = L.Conv2D(3, 1, name="conv_preds")(L.GlobalAveragePooling2D(keepdims=True, name="pool")(y))
    model = keras.Model(x, L.Activation("softmax", name="softmax")(L.Flatten(name="flatten")(y)))
    return weighted(model), {"x": numbers(8, 8, 6, 3)}


def film() -> tuple[Any, dict[str, Any]]:
    inner = keras.Sequential([keras.Input((8, 6, 3)), L.Conv2D(2, 3, name="conv"), L.GlobalMaxPooling2D(name="max")])
    body = lambda x: lstm(L.TimeDistributed(inner, name="frames")(x))  # noqa: E731
    return made(keras.Input((3, 8, 6, 3), name="film"), body), {"x": numbers(4, 3, 8, 6, 3)}


def half_precision() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((8, 6, 3), name="image")
    y = L.Conv2D(3, 3, activation="relu", dtype="mixed_float16", name="conv")(x)
    y = L.Flatten(dtype="mixed_float16", name="flatten")(y)
    model = weighted(keras.Model(x, L.Dense(3, activation="softmax", dtype="float32", name="head")(y)))
    return model, {"x": numbers(8, 8, 6, 3)}


def inner_by_name(x: Any) -> Any:
    a, b = keras.Input((3,), name="IT"), keras.Input((3,), name="IS")
    code = L.Concatenate(name="concatenate")([L.Dense(2, name="of_it")(a), L.Dense(2, name="of_is")(b)])
    inner = keras.Model([a, b], code, name="inner")
    return inner({"IT": L.Dense(3, name="first")(x), "IS": L.Dense(3, activation="relu", name="second")(x)})


class Subclassed(keras.Model):
    """A model with a call of its own."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.hidden, self.out = L.Dense(5, activation="relu", name="hidden"), L.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        return self.out(self.hidden(x))


def subclassed() -> tuple[Any, dict[str, Any]]:
    model, x = Subclassed(), numbers(8, 6)
    model(x)
    return weighted(model), {"x": x}


def function() -> tuple[Any, dict[str, Any]]:
    weights = tf.constant(numbers(6, 3))
    return (lambda x: tf.tanh(x) @ weights), {"x": numbers(8, 6)}


def without_shape() -> tuple[Any, dict[str, Any]]:
    layers = [L.Dense(5, activation="relu", name="hidden"), L.Dense(3, name="head")]
    return keras.Sequential(layers, name="late"), {"x": numbers(8, 6)}


def channels_first() -> tuple[Any, dict[str, Any]]:
    body = lambda x: L.Flatten(name="flatten")(L.Conv2D(2, 3, data_format="channels_first", name="conv")(x))  # noqa: E731
    return made(keras.Input((3, 8, 6), name="image"), body), {"x": numbers(8, 3, 8, 6)}
