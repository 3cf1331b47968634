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
import tensorflow as tf

import mipin_keras
from docs import situation_models as m
from mipin_keras import targets

PAGE = pathlib.Path(__file__).parent / "situations.md"
L = keras.layers

#: The methods asked, by the head of their column. What differs within a column is said for each.
COLUMNS = {
    "gradients": ["gradient", "integrated_gradients"],
    "LRP": ["lrp.epsilon"],
    "ReLU networks": ["deep_taylor", "pattern.attribution"],
    "MIP-IN": ["mipin"],
    "Grad-CAM": ["grad_cam"],
}
#: Silent fits; and a sum of enough terms, where the method has one.
QUICK = {"verbose": 0, "steps": 256, "riemann": "middle"}
#: The rows of a check that tell how good a map is by the method's own measure, not whether it is the method's map.
MEASURES = ("completeness", "conservation")


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


SITUATIONS: dict[str, list[Situation]] = {
    "Series and text": [
        Situation("A padded series: Masking, then attention", lambda: m.series(lambda x: m.attention(m.masked(x)))),
        Situation("A padded series: Masking, then LSTMs", lambda: m.series(
            lambda x: m.lstm(L.LSTM(3, return_sequences=True, name="first")(m.masked(x))))),
        Situation("A padded series: Masking, Dense and a mean", lambda: m.series(
            lambda x: m.averaged(L.Dense(4, activation="relu", name="hidden")(m.masked(x))))),
        Situation("Tokens and an Embedding", lambda: m.text(m.text_cnn), 'input_layer="embedding"'),
        Situation("The same, without a word on where to stop", lambda: m.text(m.text_cnn)),
        Situation("Tokens, one value a token", lambda: m.text(m.text_cnn), 'input_layer="embedding"',
            'x, reduce="sum"'),
        Situation("Tokens with mask_zero and an LSTM", lambda: m.text(m.lstm, mask_zero=True),
            'input_layer="embedding"'),
        Situation("The part of a model above an LSTM", lambda: m.series(m.lstm), 'input_layer="lstm"'),
        Situation("Series of any length", m.any_length),
        Situation("A 1D convolution over sensors", lambda: m.series(m.text_cnn)),
        Situation("A stateful LSTM", m.stateful),
        Situation("return_state", lambda: m.series(m.with_state)),
    ],
    "Heads and outputs": [
        Situation("activation=tf.nn.softmax at the head", lambda: m.table(activation=tf.nn.softmax)),
        Situation("A softmax of one's own at the head", lambda: m.table(activation=m.own_softmax)),
        Situation("A loss of logits: no softmax", lambda: m.table(activation=None)),
        Situation("Regression", lambda: m.table(units=1, activation=None)),
        Situation("One sigmoid unit: what speaks for it", lambda: m.table(units=1, activation="sigmoid")),
        Situation("One sigmoid unit: what speaks against it", lambda: m.table(units=1, activation="sigmoid"),
            "target=targets.negative(0)"),
        Situation("Several labels, each with its sigmoid", lambda: m.table(activation="sigmoid"),
            'neuron_selection_mode="index"', "x, 1"),
        Situation("Why class 0 rather than class 2", m.table, "target=targets.contrast(0, 2)"),
        Situation("An index that is one too high", m.table, 'neuron_selection_mode="index"', "x, 3"),
        Situation("Several outputs", m.two_heads),
        Situation("One of several outputs", m.two_heads, 'output="kind"'),
        Situation("Segmentation", m.u_net),
        Situation("Segmentation: a class in a region", m.u_net, "target=targets.segmentation(mask, 1)"),
        Situation("Segmentation: a class at a pixel", m.u_net, "target=(3, 2, 1)"),
        Situation("Segmentation: a function of the output", m.u_net,
            "target=lambda y: keras.ops.mean(y[:, 2:5, 1:4, 1], axis=(1, 2))"),
        Situation("An autoencoder: the size of what it gives back", m.autoencoder,
            "target=lambda y: keras.ops.sum(y ** 2, axis=1)"),
    ],
    "Inputs": [
        Situation("An image and clinical data, as a list", m.two_inputs, given="[picture, clinic]"),
        Situation("The same, by name", m.two_inputs, given='{"clinic": clinic, "picture": picture}'),
        Situation("The same, swapped", m.two_inputs, given="[clinic, picture]"),
        Situation("Two images and one encoder", m.siamese, given="[left, right]"),
        Situation("Images of uint8 and Rescaling", m.photographs, 'input_layer="scale"'),
        Situation("The same, without a word on where to stop", m.photographs),
        Situation("float64, integers, booleans", m.table, given="x.astype(int)"),
        Situation("The input in a list", m.table, given="[x]"),
        Situation("A tf.data.Dataset", m.table, given="tf.data.Dataset.from_tensor_slices(x).batch(4)"),
        Situation("A ragged tensor", m.table, given="tf.RaggedTensor.from_tensor(x)"),
        Situation("A sparse tensor", m.table, given="tf.sparse.from_dense(x)"),
        Situation("No batch axis", lambda: m.image(m.conv), given="x[0]"),
        Situation("Channels first in the data", lambda: m.image(m.conv), given="x.transpose(0, 3, 1, 2)"),
    ],
    "Layers": [
        Situation("activation=tf.nn.relu", lambda: m.image(lambda x: m.conv(x, tf.nn.relu))),
        Situation("activation=keras.ops.relu", lambda: m.image(lambda x: m.conv(x, keras.ops.relu))),
        Situation("ELU, tanh and other smooth activations", lambda: m.image(lambda x: m.conv(x, "elu"))),
        Situation("A nested base, frozen, and a new head", lambda: m.image(m.nested)),
        Situation("Augmentation and Normalization inside the model", lambda: m.image(m.augmented)),
        Situation("preprocess_input of VGG inside the model", lambda: m.image(m.caffe)),
        Situation("A convolution as the head, as MobileNet's", m.convolutional_head),
        Situation("Parts of a tensor: x[:, 1:5]", lambda: m.image(lambda x: m.conv(x[:, 1:5]))),
        Situation("keras.ops.split", lambda: m.image(m.halves)),
        Situation("A Lambda", lambda: m.made_table(lambda x: L.Lambda(lambda y: y * y, name="square")(x))),
        Situation("A layer that returns a dictionary", lambda: m.image(
            lambda x: m.conv(m.Named(name="own")(x)["features"]))),
        Situation("An inner model called by name", lambda: m.made_table(m.inner_by_name)),
        Situation("TimeDistributed: a video, frame by frame", m.film),
        Situation("mixed_float16", m.half_precision),
        Situation("13 bands of a satellite", lambda: m.image(m.conv, channels=13)),
        Situation('data_format="channels_first"', m.channels_first),
    ],
    "Models": [
        Situation("A subclassed model", m.subclassed),
        Situation("A function", m.function),
        Situation("A Sequential model that has seen no data", m.without_shape),
    ],
}  # fmt: skip


def outcome(situation: Situation, name: str, names: dict[str, Any]) -> tuple[str, str]:
    """What a method does, with a number for the words where there are some, and the words.

    Args:
        situation: What is asked.
        name: The method's.
        names: What the call of the situation needs: the model and its inputs.

    Raises:
        RuntimeError: If the map does not pass the analyzer's check.
    """
    names = names | {"keras": keras, "targets": targets, "tf": tf, "name": name}
    known = mipin_keras.options_of(name)
    quick = {key: value for key, value in QUICK.items() if key in known}
    names["create_analyzer"] = lambda name, model, **options: mipin_keras.create_analyzer(
        name, model, **quick | options
    )
    create, _, _ = situation.call.rpartition(".analyze(")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            analyzer = eval(create, names)
            given = eval(f"(lambda *given, **_: given)({situation.given})", names)
            if not analyzer.fitted:
                analyzer.fit(given[0])
            eval(f"analyzer.analyze({situation.given})", names | {"analyzer": analyzer})
        except (ValueError, TypeError, NotImplementedError) as problem:
            if "no convolution" in str(problem):
                return "no feature map", ""
            return "refused", f"{type(problem).__name__}: {plain(str(problem), name)}"
        words = [str(one.message) for one in said if "keras/src" not in one.filename and one.category is UserWarning]
        if not isinstance(given[0], tf.data.Dataset):
            report = analyzer.check(*given)
            failed = [row for row in report if row.passed is False]
            if any(row.name not in MEASURES for row in failed):
                raise RuntimeError(f"{situation.title}, {name}: the check does not pass\n{report}")
            words += [f"{row.name}, not within {row.limit:g}: {row.text}" for row in failed]
    return ("yes, but says", plain("; ".join(words), name)) if words else ("yes", "")


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
        keras.backend.clear_session()
        model, names = situation.build()
        for methods in COLUMNS.values():
            found: dict[str, list[str]] = {}
            for name in methods:
                kind, words = outcome(situation, name, names | {"model": model})
                number = f" ({notes.setdefault(words, len(notes) + 1)})" if words else ""
                found.setdefault(kind + number, []).append(name)
            shown = [key if len(found) == 1 else f"`{'`, `'.join(names)}`: {key}" for key, names in found.items()]
            cells.append("; ".join(shown))
        call = situation.call.replace("|", "\\|")
        lines.append(f"| {situation.title} | {' | '.join(cells)} | `{call}` |")
    return [f"## {title}", "", *lines, "", *(f"{number}. {words}" for words, number in notes.items()), ""]


def page() -> str:
    """The tables, each with its heading and its words."""
    return "\n".join(line for title, situations in SITUATIONS.items() for line in section(title, situations))


if __name__ == "__main__":
    from docs.make_situations import page  # so that a layer of this module has the module's own name in a message

    above, _, _ = PAGE.read_text(encoding="utf-8").partition(f"## {next(iter(SITUATIONS))}\n")
    above = re.sub(r"with Keras [\d.]+\)", f"with Keras {keras.__version__.rpartition('.')[0]})", above)
    PAGE.write_text(above + page(), encoding="utf-8")
    print(f"wrote {PAGE}")
