"""Writes the tables of docs/layers.md: ``python -m docs.make_layers``.

Every example below is built, each method is asked for its rules, and what
comes back is described. The text above the tables stays as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras.baselines.lrp import rules

PAGE = pathlib.Path(__file__).parent / "layers.md"
SHAPES = {
    "flat": (6,), "series": (8, 2), "image": (8, 8, 2), "picture": (8, 8, 3), "volume": (4, 4, 4, 2),
    "film": (2, 3, 3, 3, 2),
}  # fmt: skip

# Called on one of the SHAPES. ``other`` is a tensor of the same shape, ``gate`` one number a channel.
LAYERS = {
    "Layers with weights": """
        Dense(3)(flat)
        Conv1D(3, 3)(series); Conv2D(3, 3)(image); Conv3D(3, 3)(volume)
        DepthwiseConv1D(3)(series); DepthwiseConv2D(3)(image)
        SeparableConv1D(3, 3)(series); SeparableConv2D(3, 3)(image)
        Conv1DTranspose(3, 3)(series); Conv2DTranspose(3, 3)(image); Conv3DTranspose(3, 3)(volume)
        EinsumDense("ab,bc->ac", output_shape=3)(flat); SpectralNormalization(Dense(3))(flat)
        Embedding(5, 2)(flat); ReversibleEmbedding(5, 2)(flat)
    """,
    "Normalisation and scaling": """
        BatchNormalization()(image)
        LayerNormalization()(image); GroupNormalization(2)(image)
        RMSNormalization()(image); UnitNormalization()(image)
        Rescaling(1 / 255)(image); Normalization(mean=[0.5, 0.5], variance=[2.0, 2.0])(image)
    """,
    "Activations": """
        ReLU()(image); LeakyReLU()(image); ELU()(image); PReLU()(image); Softmax()(image)
        Activation("relu")(image); Activation("relu6")(image); Activation("sigmoid")(image); Activation("tanh")(image)
        Activation("silu")(image); Activation("gelu")(image); Activation("softmax")(image)
    """,
    "Pooling": """
        MaxPooling1D()(series); MaxPooling2D()(image); MaxPooling3D()(volume)
        GlobalMaxPooling1D()(series); GlobalMaxPooling2D()(image); GlobalMaxPooling3D()(volume)
        AveragePooling1D(2)(series); AveragePooling2D(2)(image); AveragePooling3D(2)(volume)
        GlobalAveragePooling1D()(series); GlobalAveragePooling2D()(image); GlobalAveragePooling3D()(volume)
        AdaptiveMaxPooling1D(2)(series); AdaptiveMaxPooling2D(2)(image); AdaptiveMaxPooling3D(2)(volume)
        AdaptiveAveragePooling1D(2)(series); AdaptiveAveragePooling2D(2)(image); AdaptiveAveragePooling3D(2)(volume)
    """,
    "Several inputs": """
        Add()([image, other]); Average()([image, other]); Subtract()([image, other])
        Concatenate()([image, other]); Maximum()([image, other]); Minimum()([image, other])
        Multiply()([image, gate]); Multiply()([image, other]); Dot(1)([flat, other])
    """,
    "Shape": """
        Flatten()(image); Reshape((-1, 2))(image); Permute((2, 1, 3))(image); RepeatVector(3)(flat)
        ZeroPadding1D()(series); ZeroPadding2D()(image); ZeroPadding3D()(volume)
        Cropping1D()(series); Cropping2D()(image); Cropping3D()(volume); CenterCrop(4, 4)(image)
        UpSampling1D()(series); UpSampling2D()(image); UpSampling3D()(volume); Resizing(5, 5)(image)
    """,
    "Nothing at inference": """
        Identity()(image); Dropout(0.5)(image); SpatialDropout1D(0.5)(series); SpatialDropout2D(0.5)(image)
        SpatialDropout3D(0.5)(volume); AlphaDropout(0.5)(image); GaussianDropout(0.5)(image)
        GaussianNoise(0.5)(image); ActivityRegularization()(image)
        AugMix()(picture); CutMix()(picture); MixUp()(picture); RandAugment()(picture); RandomBrightness(0.5)(picture)
        RandomColorDegeneration(0.5)(picture); RandomColorJitter()(picture); RandomContrast(0.5)(picture)
        RandomCrop(8, 8)(picture); RandomElasticTransform()(picture); RandomErasing()(picture); RandomFlip()(picture)
        RandomGaussianBlur()(picture); RandomGrayscale()(picture); RandomHue(0.5)(picture); RandomInvert()(picture)
        RandomPerspective()(picture); RandomPosterization(4)(picture); RandomRotation(0.5)(picture)
        RandomSaturation(0.5)(picture); RandomSharpness(0.5)(picture); RandomShear()(picture)
        RandomTranslation(0.5, 0.5)(picture); RandomZoom(0.5)(picture); Solarization()(picture)
    """,
    "Other preprocessing": """
        AutoContrast()(picture); ContrastLimitedAdaptiveHistogramEqualization()(picture)
        Masking()(series); Discretization([0.0, 1.0])(flat)
        MelSpectrogram(4, 4, 2)(flat); STFTSpectrogram("log", 4, 2, 4)(series)
    """,
    "Recurrence, attention, wrappers": """
        SimpleRNN(3)(series); GRU(3)(series); LSTM(3)(series); RNN(SimpleRNNCell(3))(series)
        Bidirectional(LSTM(3))(series); ConvLSTM1D(3, 2)(image); ConvLSTM2D(3, 2)(volume); ConvLSTM3D(3, 2)(film)
        TimeDistributed(Dense(3))(series)
        Attention()([series, other]); AdditiveAttention()([series, other])
        MultiHeadAttention(2, 3)(series, other); GroupQueryAttention(3, 2, 1)(series, other)
        Lambda(lambda x: 2 * x)(flat)
    """,
}
OPERATIONS = """
    relu(image); relu6(image); leaky_relu(image); silu(image); gelu(image); sigmoid(image); softmax(image)
    reshape(image, (-1, 64, 2)); transpose(image, (0, 2, 1, 3)); expand_dims(image, 1)
    squeeze(expand_dims(image, 1), 1)
    pad(image, ((0, 0), (1, 1), (1, 1), (0, 0))); image[:, :4]
    split(image, 2, axis=1)[0]; unstack(image, axis=1)[0]; flip(image, axis=1); stack([image, other], axis=1)
    mean(image, (1, 2)); sum(image, (1, 2)); max(image, (1, 2)); amax(image, (1, 2)); min(image, (1, 2))
    image + other; image - other; concatenate([image, other], -1); maximum(image, other); minimum(image, other)
    image * gate; image * other
    image + 1.0; image - 1.0; image * 2.0; image / 2.0; -image
    maximum(image, 0.0); clip(image, 0.0, 1.0); abs(image); exp(image); square(image); matmul(flat, ones((6, 2)))
"""
# What the page has no row for: bases and cells, other frameworks, inputs that are no floats, and Equalization, which
# Keras leaves out of a functional model.
WITHOUT_A_ROW = """
    Layer Wrapper InputLayer Pipeline SimpleRNNCell GRUCell LSTMCell StackedRNNCells
    FlaxLayer JaxLayer TorchModuleWrapper TFSMLayer
    CategoryEncoding HashedCrossing Hashing IntegerLookup StringLookup TextVectorization MaxNumBoundingBoxes
    Equalization
""".split()

# What the rule objects are called here, by how their names begin.
NAMES = {
    "vjp": "gradient",
    "pass_through": "keep",
    "in_equal_parts": "equal parts",
    "past_gate.": "signal takes all",
    "Gated(": "signal takes all",
    "Deconvnet.rectified": "rectified",
    "GuidedBackprop.rectified": "rectified",
    "_where_active": "where active",
    "PatternNet._through_pattern": "pattern",
    "PatternNet._through_factor": "1 / factor",
    "Z(": "Z",
    "AlphaBeta(": "z+",
    "Standardized(shares=True)": "Z, divisor held",
    "Standardized(shares=False)": "gradient, divisor held",
}


@dataclasses.dataclass(frozen=True)
class Given(rules.Rule):
    """Stands for the rule that an option of LRP gives; is never called."""

    option: str


METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "Deconvnet, Guided Backpropagation": [("deconvnet", {}), ("guided_backprop", {})],
    "LRP": [("lrp", {"rule": Given("rule"), "bn_layer_rule": Given("bn_layer_rule")})],
    "deep Taylor": [("deep_taylor", {})],
    "PatternNet, PatternAttribution": [("pattern.net", {}), ("pattern.attribution", {})],
}
COLUMNS = ["MIP-IN", "gradients", *METHODS]


def built(example: str) -> tuple[keras.Model, str]:
    """A small model of the example, and the name of its layer or operation."""
    keras.utils.set_random_seed(0)
    given = next(name for name in SHAPES if re.search(rf"\b{name}\b", example))
    x = keras.Input(SHAPES[given], name="input")
    names: dict[str, Any] = vars(keras.layers) | vars(keras.ops) | {given: x}
    if "other" in example or "gate" in example:
        names["other"] = keras.layers.Dense(SHAPES[given][-1], name="other")(x)
    if "gate" in example:
        names["gate"] = keras.layers.GlobalAveragePooling2D(keepdims=True, name="gate")(names["other"])
    y = eval(example, names)
    operation = y._keras_history.operation
    y = keras.layers.Flatten(name="flatten")(y) if len(y.shape) > 2 else y
    return keras.Model(x, keras.layers.Dense(2, name="head")(y)), operation.name


def row(example: str) -> list[str]:
    """What each method does for an example, in the order of :data:`COLUMNS`."""
    model, name = built(example)
    x = tf.constant(np.random.default_rng(0).random((2, *model.input_shape[1:])), "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(model(x, training=False) ** 2)
    gradient = tape.gradient(y, x)
    cells = [of_mipin(model, name), "yes" if gradient is not None and np.any(gradient) else "zero"]
    for methods in METHODS.values():
        cells.append(all_of([of_baseline(method, model, name, options) for method, options in methods]))
    return cells


# What is said of a model whose output depends on no floating-point input: behind a layer such as Discretization.
NOTHING_ARRIVES = "expected an input layer before the explained output"


def refused(problem: ValueError, name: str) -> str:
    if repr(name) not in str(problem) and NOTHING_ARRIVES not in str(problem):
        raise problem
    return "refused"


def of_mipin(model: keras.Model, name: str) -> str:
    try:
        network = mipin_keras.create_analyzer("mipin", model, verbose=0).network
    except ValueError as problem:
        return refused(problem, name)
    found = []
    for node in reversed(network.nodes):
        if node.step is not None and belongs(node.name, name):
            summary = inspect.getdoc(type(node.inverse)).splitlines()[0].rstrip(".").replace("``", "`")
            found.append(f"learned: {summary}" if node.inverse.learned else summary)
    return all_of(found)


def of_baseline(method: str, model: keras.Model, name: str, options: dict[str, Any]) -> str:
    try:
        analyzer = mipin_keras.create_analyzer(method, model, **options)
    except ValueError as problem:
        if "activations='any'" not in str(problem):
            return refused(problem, name)
        allowed = of_baseline(method, model, name, options | {"activations": "any"})
        return f'{refused(problem, name)}; with "any": {allowed}'
    return all_of([described(analyzer.rules[step.index]) for step in analyzer.steps if belongs(step.name, name)])


def all_of(found: list[str]) -> str:
    if not found:  # what lies above it is explained
        return "ends here"
    return "; ".join(dict.fromkeys(found))


def belongs(step: str, layer: str) -> bool:
    """Whether the step is the layer's, or a part of it, as of a separable convolution."""
    return step.split("/")[0] == layer


def described(rule: Any) -> str:
    rule = inspect.unwrap(rule)  # PatternNet's are wrapped in what damps them
    if isinstance(rule, Given):
        return f"`{rule.option}`"
    key = getattr(rule, "__qualname__", None) or repr(rule)
    (name,) = (name for start, name in NAMES.items() if key.startswith(start))
    return name


def examples(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split("; ")]


def label(example: str) -> str:
    """The layer's name."""
    name = example.split("(")[0]
    if name == "Activation":
        return f"`{example.removesuffix('(image)')}`"
    return f"{name} by a gate" if "gate" in example else f"{name} of any two" if name == "Multiply" else name


def tables() -> dict[str, dict[str, list[str]]]:
    """The rows of each table, by what stands in the first column, of what this Keras has."""
    found = {}
    for title, text in LAYERS.items():
        known = [example for example in examples(text) if hasattr(keras.layers, example.split("(")[0])]
        found[title] = {label(example): row(example) for example in known}
    return found | {"keras.ops": {f"`{example}`": row(example) for example in examples(OPERATIONS)}}


def joined(rows: dict[str, list[str]]) -> list[str]:
    """Lines of a table; neighbours that differ in nothing share one."""
    lines: list[tuple[list[str], list[str]]] = []
    for name, cells in rows.items():
        if lines and lines[-1][1] == cells:
            lines[-1][0].append(name)
        else:
            lines.append(([name], cells))
    return [f"| {' | '.join([', '.join(names), *cells])} |" for names, cells in lines]


def page() -> str:
    """The tables, each with its heading."""
    found = []
    for title, rows in tables().items():
        head = ["operation" if title == "keras.ops" else "layer", *COLUMNS]
        found += [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *joined(rows), ""]
    return "\n".join(found)


if __name__ == "__main__":
    above, _, _ = PAGE.read_text(encoding="utf-8").partition(f"## {next(iter(LAYERS))}\n")
    above = re.sub(r"with Keras [\d.]+\)", f"with Keras {keras.__version__.rpartition('.')[0]})", above)
    PAGE.write_text(above + page(), encoding="utf-8")
    print(f"wrote {PAGE}")
