"""Writes the tables of docs/situations.md: ``python -m docs.make_situations``.

Every situation below is a small model and some inputs. Each method is called
on it as the table says, and what comes back is described: a map that passes
the analyzer's own check, a map and a warning, or an error with its words. The
text above the tables stays as it is.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras import targets

PAGE = pathlib.Path(__file__).parent / "situations.md"
L = keras.layers

#: The methods asked, by the head of their column. What differs within a column is said for each.
COLUMNS = {
    "gradients": ["gradient", "input_t_gradient", "integrated_gradients", "smoothgrad"],
    "LRP": ["lrp.epsilon", "lrp.sequential_preset_b"],
    "ReLU networks": ["deep_taylor", "guided_backprop", "pattern.attribution"],
    "MIP-IN": ["mipin"],
    "Grad-CAM": ["grad_cam"],
}
#: Options that keep a method short, where it has them.
QUICK = {"verbose": 0, "steps": 8, "augment_by_n": 4}


@dataclasses.dataclass(frozen=True)
class Situation:
    """A model and inputs, and how they are given.

    Attributes:
        title: What people have.
        build: Makes the model and the names that ``given`` needs.
        options: What ``create_analyzer`` is called with behind the model.
        given: What ``analyze`` is called with, an expression.
    """

    title: str
    build: Callable[[], tuple[Any, dict[str, Any]]]
    options: str = ""
    given: str = "x"

    @property
    def call(self) -> str:
        """The call that the table shows, and that is made."""
        return f"create_analyzer(name, model{', ' * bool(self.options)}{self.options}).analyze({self.given})"


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


SITUATIONS: dict[str, list[Situation]] = {
    "Series and text": [
        Situation("A padded series: Masking, then attention", lambda: series(lambda x: attention(masked(x)))),
        Situation("A padded series: Masking, then LSTMs", lambda: series(
            lambda x: lstm(L.LSTM(3, return_sequences=True, name="first")(masked(x))))),
        Situation("A padded series: Masking, Dense and a mean", lambda: series(
            lambda x: averaged(L.Dense(4, activation="relu", name="hidden")(masked(x))))),
        Situation("Tokens and an Embedding", lambda: text(text_cnn), 'input_layer="embedding"'),
        Situation("The same, without a word on where to stop", lambda: text(text_cnn)),
        Situation("Tokens, one value a token", lambda: text(text_cnn), 'input_layer="embedding"', 'x, reduce="sum"'),
        Situation("Tokens with mask_zero and an LSTM", lambda: text(lstm, mask_zero=True), 'input_layer="embedding"'),
        Situation("The part of a model above an LSTM", lambda: series(lstm), 'input_layer="lstm"'),
        Situation("Series of any length", any_length),
        Situation("A 1D convolution over sensors", lambda: series(text_cnn)),
        Situation("A stateful LSTM", stateful),
        Situation("return_state", lambda: series(with_state)),
    ],
    "Heads and outputs": [
        Situation("activation=tf.nn.softmax at the head", lambda: table(activation=tf.nn.softmax)),
        Situation("A softmax of one's own at the head", lambda: table(activation=own_softmax)),
        Situation("A loss of logits: no softmax", lambda: table(activation=None)),
        Situation("Regression", lambda: table(units=1, activation=None)),
        Situation("One sigmoid unit: what speaks for it", lambda: table(units=1, activation="sigmoid")),
        Situation("One sigmoid unit: what speaks against it", lambda: table(units=1, activation="sigmoid"),
            "target=targets.negative(0)"),
        Situation("Several labels, each with its sigmoid", lambda: table(activation="sigmoid"),
            'neuron_selection_mode="index"', "x, 1"),
        Situation("Why class 0 rather than class 2", table, "target=targets.contrast(0, 2)"),
        Situation("An index that is one too high", table, 'neuron_selection_mode="index"', "x, 3"),
        Situation("Several outputs", two_heads),
        Situation("One of several outputs", two_heads, 'output="kind"'),
        Situation("Segmentation", u_net),
        Situation("Segmentation: a class in a region", u_net, "target=targets.segmentation(mask, 1)"),
        Situation("Segmentation: a class at a pixel", u_net, "target=(3, 2, 1)"),
        Situation("Segmentation: a function of the output", u_net,
            "target=lambda y: keras.ops.mean(y[:, 2:5, 1:4, 1], axis=(1, 2))"),
        Situation("An autoencoder's error", autoencoder, "target=lambda y: keras.ops.mean((y - x) ** 2, axis=1)"),
    ],
    "Inputs": [
        Situation("An image and clinical data, as a list", two_inputs, given="[picture, clinic]"),
        Situation("The same, by name", two_inputs, given='{"clinic": clinic, "picture": picture}'),
        Situation("The same, swapped", two_inputs, given="[clinic, picture]"),
        Situation("Two images and one encoder", siamese, given="[left, right]"),
        Situation("Images of uint8 and Rescaling", photographs, 'input_layer="scale"'),
        Situation("The same, without a word on where to stop", photographs),
        Situation("float64, integers, booleans", table, given="x.astype(int)"),
        Situation("The input in a list", table, given="[x]"),
        Situation("A tf.data.Dataset", table, given="tf.data.Dataset.from_tensor_slices(x).batch(4)"),
        Situation("A ragged tensor", table, given="tf.RaggedTensor.from_tensor(x)"),
        Situation("A sparse tensor", table, given="tf.sparse.from_dense(x)"),
        Situation("No batch axis", lambda: image(conv), given="x[0]"),
        Situation("Channels first in the data", lambda: image(conv), given="x.transpose(0, 3, 1, 2)"),
    ],
    "Layers": [
        Situation("activation=tf.nn.relu", lambda: image(lambda x: conv(x, tf.nn.relu))),
        Situation("activation=keras.ops.relu", lambda: image(lambda x: conv(x, keras.ops.relu))),
        Situation("ELU, tanh and other smooth activations", lambda: image(lambda x: conv(x, "elu"))),
        Situation("A nested base, frozen, and a new head", lambda: image(nested)),
        Situation("Augmentation and Normalization inside the model", lambda: image(augmented)),
        Situation("preprocess_input of VGG inside the model", lambda: image(caffe)),
        Situation("A convolution as the head, as MobileNet's", convolutional_head),
        Situation("Parts of a tensor: x[:, 1:5]", lambda: image(lambda x: conv(x[:, 1:5]))),
        Situation("keras.ops.split", lambda: image(halves)),
        Situation("A Lambda", lambda: made_lambda()),
        Situation("A layer that returns a dictionary", lambda: image(lambda x: conv(Named(name="own")(x)["features"]))),
        Situation("An inner model called by name", lambda: made_table(inner_by_name)),
        Situation("TimeDistributed: a video, frame by frame", film),
        Situation("mixed_float16", half_precision),
        Situation("13 bands of a satellite", lambda: image(conv, channels=13)),
        Situation('data_format="channels_first"', channels_first),
    ],
    "Models": [
        Situation("A subclassed model", subclassed),
        Situation("A function", function),
        Situation("A Sequential model that has seen no data", without_shape),
    ],
}  # fmt: skip


def made_table(body: Callable) -> tuple[Any, dict[str, Any]]:
    return made(keras.Input((6,), name="table"), body), {"x": numbers(8, 6)}


def made_lambda() -> tuple[Any, dict[str, Any]]:
    return made_table(lambda x: L.Lambda(lambda y: y * y, name="square")(x))


def outcome(situation: Situation, name: str) -> tuple[str, str]:
    """What a method does: "yes", "warns" or "refused", and the words."""
    keras.backend.clear_session()
    model, names = situation.build()
    names = names | {"keras": keras, "targets": targets, "tf": tf, "name": name, "model": model}
    known = mipin_keras.options_of(name)
    quick = {key: value for key, value in QUICK.items() if key in known}
    names["create_analyzer"] = lambda name, model, **options: mipin_keras.create_analyzer(name, model, **quick | options)
    create, _, _ = situation.call.rpartition(".analyze(")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            analyzer = eval(create, names)
            given = eval(f"(lambda x, *_, **__: x)({situation.given})", names)
            if not analyzer.fitted:
                analyzer.fit(given)
            eval(f"analyzer.analyze({situation.given})", names | {"analyzer": analyzer})
        except (ValueError, TypeError, NotImplementedError) as problem:
            return "refused", f"{type(problem).__name__}: {plain(str(problem), name)}"
        if not isinstance(given, tf.data.Dataset):
            report = analyzer.check(given)
            if not report.passed:
                raise RuntimeError(f"{situation.title}, {name}: the check does not pass\n{report}")
    words = [str(one.message) for one in said if "keras/src" not in one.filename and one.category is UserWarning]
    return ("warns", plain(words[0], name)) if words else ("yes", "")


def plain(words: str, name: str) -> str:
    """A message as every method of its kind says it, on one line of a table's note."""
    words = words.replace(repr(name), "NAME")
    return re.sub(r"\s+", " ", re.sub(r" at 0x[0-9a-f]+", "", words)).replace("|", "\\|")


def section(title: str, situations: list[Situation]) -> list[str]:
    """A table and the words below it, which it refers to by numbers."""
    notes: dict[str, int] = {}
    lines = ["| situation | " + " | ".join(COLUMNS) + " | call |", "|---" * (len(COLUMNS) + 2) + "|"]
    for situation in situations:
        cells = []
        for methods in COLUMNS.values():
            found: dict[str, list[str]] = {}
            for name in methods:
                kind, words = outcome(situation, name)
                number = f" ({notes.setdefault(words, len(notes) + 1)})" if words else ""
                found.setdefault(f"yes, and warns{number}" if kind == "warns" else kind + number, []).append(name)
            shown = [key if len(found) == 1 else f"`{'`, `'.join(names)}`: {key}" for key, names in found.items()]
            cells.append("; ".join(shown))
        call = situation.call.replace("|", "\\|")
        lines.append(f"| {situation.title} | {' | '.join(cells)} | `{call}` |")
    return [f"## {title}", "", *lines, "", *(f"{number}. {words}" for words, number in notes.items()), ""]


def page() -> str:
    """The tables, each with its heading and its words."""
    return "\n".join(line for title, situations in SITUATIONS.items() for line in section(title, situations))


if __name__ == "__main__":
    above, _, _ = PAGE.read_text(encoding="utf-8").partition(f"## {next(iter(SITUATIONS))}\n")
    above = re.sub(r"with Keras [\d.]+\)", f"with Keras {keras.__version__.rpartition('.')[0]})", above)
    PAGE.write_text(above + page(), encoding="utf-8")
    print(f"wrote {PAGE}")
