"""What kind of thing each step does, and what follows from it: signs, and which layers are the first."""

import keras
import numpy as np
import pytest

from mipin_keras.graph import linear, propagation, step_types
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.graph.step_types import first_kernel_steps, not_negative
from tests.networks import with_weights

L, ops = keras.layers, keras.ops
ROW, ROWS, IMAGE, VOLUME = (6,), (6, 4), (6, 4, 2), (4, 4, 4, 2)


def graph_of(shape, build):
    """The graph of ``build`` on an input of this shape, with a Flatten and a Dense layer on it."""
    x = keras.Input(shape)
    y = build(x)
    return ModelGraph(keras.Model(x, L.Dense(2, name="_head")(L.Flatten(name="_flat")(y))))


def last_step(graph):
    """The step whose output the Flatten reads."""
    number = next(step for step in graph.steps if step.name == "_flat").inputs[0]
    return next(step for step in graph.steps if step.output == number)


LAYERS = [
    *((step_types.KERNEL, layer, shape) for layer, shape in [
        (L.Dense(3), ROW), (L.Dense(3), ROWS), (L.Conv1D(2, 2), ROWS), (L.Conv2D(2, 2), IMAGE),
        (L.Conv3D(2, 2), VOLUME), (L.DepthwiseConv1D(2), ROWS), (L.DepthwiseConv2D(2), IMAGE),
        (L.SeparableConv1D(2, 2), ROWS), (L.SeparableConv2D(2, 2), IMAGE), (L.Conv1DTranspose(2, 2), ROWS),
        (L.Conv2DTranspose(2, 2), IMAGE), (L.Conv3DTranspose(2, 2), VOLUME),
    ]),
    *((step_types.NORMALIZATION, L.BatchNormalization(axis=axis), IMAGE) for axis in (-1, 1)),
    *((step_types.AFFINE, layer, IMAGE) for layer in [
        L.Rescaling(0.5), L.Rescaling(1 / 127.5, offset=-1.0), L.Rescaling([0.5, 2.0]), L.Normalization(),
        L.Normalization(mean=[1.0, 2.0], variance=[2.0, 3.0]), L.Normalization(axis=(1, 3)),
        L.Normalization(axis=None, mean=1.0, variance=2.0, invert=True),
    ]),
    *((step_types.STANDARDIZATION, layer, IMAGE) for layer in [
        L.LayerNormalization(), L.LayerNormalization(axis=[1, 2, 3]), L.GroupNormalization(2),
        L.GroupNormalization(1, axis=1), L.UnitNormalization(), L.UnitNormalization(axis=[1, 3]),
        *([L.RMSNormalization()] if hasattr(L, "RMSNormalization") else []),
    ]),
    *((step_types.IDENTITY, layer, ROWS) for layer in [
        L.Dropout(0.5), L.AlphaDropout(0.5), L.GaussianDropout(0.5), L.GaussianNoise(0.5),
        L.ActivityRegularization(), L.Identity(), L.Activation("linear"),
    ]),
    *((step_types.IDENTITY, layer, shape) for layer, shape in [
        (L.SpatialDropout1D(0.5), ROWS), (L.SpatialDropout2D(0.5), IMAGE), (L.SpatialDropout3D(0.5), VOLUME),
    ]),
    *((step_types.STRUCTURE, layer, shape) for layer, shape in [
        (L.Flatten(), IMAGE), (L.Reshape((8, 3)), ROWS), (L.Permute((2, 1)), ROWS), (L.RepeatVector(2), ROW),
        (L.ZeroPadding1D(1), ROWS), (L.ZeroPadding2D(1), IMAGE), (L.ZeroPadding3D(1), VOLUME),
        (L.Masking(), ROWS), (L.Cropping1D(1), ROWS), (L.Cropping2D(1), IMAGE), (L.Cropping3D(1), VOLUME),
        (L.UpSampling1D(2), ROWS), (L.UpSampling2D(2), IMAGE), (L.UpSampling3D(2), VOLUME),
    ]),
    *((step_types.STRUCTURE, layer, IMAGE) for layer in [
        L.Resizing(3, 5), L.Resizing(3, 5, interpolation="nearest", pad_to_aspect_ratio=True), L.CenterCrop(3, 3),
    ]),
    *((step_types.MAX, layer, shape) for layer, shape in [
        (L.MaxPooling1D(2), ROWS), (L.MaxPooling2D(2), IMAGE), (L.MaxPooling3D(2), VOLUME),
        (L.GlobalMaxPooling1D(), ROWS), (L.GlobalMaxPooling2D(), IMAGE), (L.GlobalMaxPooling3D(), VOLUME),
    ]),
    *((step_types.AVERAGE, layer, shape) for layer, shape in [
        (L.AveragePooling1D(2), ROWS), (L.AveragePooling2D(2), IMAGE), (L.AveragePooling3D(2), VOLUME),
        (L.GlobalAveragePooling1D(), ROWS), (L.GlobalAveragePooling2D(), IMAGE), (L.GlobalAveragePooling3D(), VOLUME),
    ]),
    *((step_types.RECTIFIER, layer, ROW) for layer in [
        L.ReLU(), L.ReLU(max_value=2.0), L.ReLU(threshold=0.5), L.ReLU(max_value=2.0, threshold=1.0),
        L.Activation("relu"), L.Activation("relu6"), L.Activation(keras.activations.relu),
    ]),
    *((step_types.ACTIVATION, layer, ROW) for layer in [
        L.ReLU(negative_slope=0.1), L.LeakyReLU(), L.LeakyReLU(negative_slope=0.0), L.ELU(),
        L.Activation("tanh"), L.Activation("sigmoid"), L.Activation("leaky_relu"), L.Activation("gelu"),
        L.Activation("softplus"), L.PReLU(),
    ]),
    *((None, layer, shape) for layer, shape in [
        (L.Softmax(), ROW), (L.Activation("softmax"), ROW), (L.Activation("log_softmax"), ROW),
        (L.Activation(keras.ops.sin), ROW), (L.SimpleRNN(3), ROWS), (L.Lambda(lambda x: 2 * x), ROW),
        (L.UnitNormalization(axis=0), ROW),
        (L.Resizing(5, 5, pad_to_aspect_ratio=True, fill_value=1.0), IMAGE), (L.RandomCrop(3, 3), IMAGE),
    ]),
]  # fmt: skip
MERGES = [
    (step_types.ADD, L.Add()), (step_types.ADD, L.Average()), (step_types.SUBTRACT, L.Subtract()),
    (step_types.MAX, L.Maximum()),
    (step_types.MAX, L.Minimum()), (step_types.CONCATENATE, L.Concatenate()),
    (step_types.CONCATENATE, L.Concatenate(axis=1)),
    (step_types.GATE, L.Multiply()), (None, L.Dot(axes=2)),
    (None, L.Concatenate(axis=0)),
]  # fmt: skip
OPERATIONS = [
    (step_types.RECTIFIER, ops.relu),
    (step_types.RECTIFIER, ops.relu6),
    (step_types.ACTIVATION, ops.tanh),
    (step_types.ACTIVATION, ops.sigmoid),
    (step_types.ACTIVATION, ops.leaky_relu),
    (step_types.ACTIVATION, ops.elu),
    (None, ops.softmax),
    (None, ops.exp),
    (None, ops.square),
    (step_types.AFFINE, ops.negative),
    (None, ops.abs),
    (step_types.STRUCTURE, lambda x: ops.reshape(x, (-1, 4, 6))),
    (step_types.STRUCTURE, lambda x: ops.transpose(x, (0, 2, 1))),
    (step_types.STRUCTURE, lambda x: ops.expand_dims(x, 1)),
    (step_types.STRUCTURE, lambda x: ops.squeeze(L.Reshape((6, 1, 4))(x), 2)),
    (step_types.ADD, lambda x: ops.add(x, L.Dense(4)(x))),
    (step_types.ADD, lambda x: x + L.Dense(4)(x)),
    (step_types.SUBTRACT, lambda x: x - L.Dense(4)(x)),
    (step_types.MAX, lambda x: ops.maximum(x, L.Dense(4)(x))),
    (step_types.MAX, lambda x: ops.minimum(x, L.Dense(4)(x))),
    (step_types.CONCATENATE, lambda x: ops.concatenate([x, L.Dense(4)(x)], axis=-1)),
    (step_types.GATE, lambda x: x * L.Dense(4)(x)),
    (None, lambda x: x * x),
    (None, lambda x: L.Multiply()([x, L.Dense(4)(x), L.Dense(4)(x)])),
    (None, lambda x: ops.divide(x, L.Dense(4)(x))),
    (None, lambda x: ops.matmul(x, L.Permute((2, 1))(x))),
    # With a number in a tensor's place they are no sums of two tensors.
    (step_types.AFFINE, lambda x: x + 1.0),
    (step_types.AFFINE, lambda x: 1.0 - x),
    (step_types.AFFINE, lambda x: x * np.array([1.0, 2.0, 3.0, 4.0], "float32")),
    (step_types.AFFINE, lambda x: x * np.float32(2.0)),
    (step_types.AFFINE, lambda x: x + ops.ones((1, 6, 4))),
    (step_types.AFFINE, lambda x: x / 2.0),
    (None, lambda x: 2.0 / x),
    (None, lambda x: ops.maximum(x, 0.0)),
    (None, lambda x: x**2),
    # What differs from sample to sample, or makes others of them.
    (None, lambda x: x * ops.ones((5, 6, 4))),
    (None, lambda x: ops.transpose(ops.transpose(x, (1, 0, 2)), (1, 0, 2))),
    (None, lambda x: ops.transpose(ops.transpose(x))),
    (None, lambda x: ops.reshape(x, (-1, 12))),
    (None, lambda x: ops.squeeze(ops.expand_dims(x, 0), 0)),
    (None, lambda x: ops.squeeze(L.Reshape((6, 1, 4))(x))),
    (None, lambda x: ops.concatenate([x, L.Dense(4)(x)], axis=0)),
    (None, lambda x: ops.mean(x, axis=0)),
    (None, lambda x: ops.max(x, axis=(0, 1))),
    (None, lambda x: ops.pad(x, [[1, 1], [0, 0], [0, 0]])),
    (None, lambda x: ops.pad(x, 1)),
    (None, lambda x: x * ops.mean(x, axis=1)),
    (None, lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0]], constant_values=1.0)),
    (None, lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0]], mode="reflect")),
    (step_types.STRUCTURE, lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0]])),
    (step_types.STRUCTURE, lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0]], constant_values=0.0)),
    (step_types.AVERAGE, lambda x: ops.mean(x, axis=1)),
    (step_types.SUM, lambda x: ops.sum(x, axis=(-1, -2), keepdims=True)),
    (step_types.MAX, lambda x: ops.max(x, axis=1)),
    (step_types.MAX, lambda x: ops.amin(x, axis=[1, 2], keepdims=True)),
    (None, lambda x: ops.max(x, axis=1, initial=0.0)),
    (step_types.CONCATENATE, lambda x: ops.stack([x, L.Dense(4)(x)], axis=1)),
    (step_types.STRUCTURE, lambda x: x[:, ::-1, 1:3]),
    (step_types.STRUCTURE, lambda x: x[..., 1:2]),
    (step_types.STRUCTURE, lambda x: ops.flip(x, axis=-1)),
    (step_types.STRUCTURE, lambda x: ops.split(x, 2, axis=-1)[1]),
    (step_types.STRUCTURE, lambda x: ops.unstack(x, axis=1)[2]),
    (None, lambda x: ops.flip(x, axis=0)),
    (None, lambda x: ops.square(x)),
]


def described(value):
    if isinstance(value, L.Layer):
        return type(value).__name__
    return str(value) if value is None or isinstance(value, str) else ""


@pytest.mark.parametrize(("kind", "layer", "shape"), LAYERS, ids=described)
def test_layers(kind, layer, shape):
    assert step_types.of(last_step(graph_of(shape, layer))) == kind


@pytest.mark.parametrize(("kind", "layer"), MERGES, ids=described)
def test_merges(kind, layer):
    assert step_types.of(last_step(graph_of(ROWS, lambda x: layer([x, L.Dense(4)(x)])))) == kind


@pytest.mark.parametrize(("kind", "operation"), OPERATIONS, ids=described)
def test_operations(kind, operation):
    assert step_types.of(last_step(graph_of(ROWS, operation))) == kind


@pytest.mark.parametrize("kind", step_types.AUGMENTATIONS, ids=described)
def test_an_augmentation_returns_its_input_at_inference(kind, rng):
    """Also where it lies outside of the range of images; else the layer is not of the kind."""
    layer = kind(*AUGMENTED.get(kind.__name__, ()))
    x = keras.Input((6, 7, 3))
    graph = ModelGraph(keras.Model(x, L.Dense(2)(L.Flatten(name="_flat")(layer(x)))))
    assert step_types.of(last_step(graph)) == step_types.IDENTITY
    for image in (rng.uniform(size=(2, 6, 7, 3)), 300 * rng.normal(size=(2, 6, 7, 3))):
        image = image.astype("float32")
        np.testing.assert_array_equal(propagation.forward(graph, image)[last_step(graph).output], image)


# What the layers that need it are made with.
AUGMENTED = {
    "RandomBrightness": (0.3,), "RandomContrast": (0.3,), "RandomRotation": (0.2,), "RandomTranslation": (0.2, 0.2),
    "RandomZoom": (0.2,), "RandomCrop": (6, 7), "RandomPosterization": (4,), "RandomColorDegeneration": (0.5,),
    "RandomGrayscale": (0.5,), "RandomHue": (0.5,), "RandomSaturation": (0.5,), "RandomSharpness": (0.5,),
}  # fmt: skip


def test_a_subclass_of_an_augmentation_is_of_no_kind():
    class Own(L.RandomFlip):
        pass

    assert step_types.of(last_step(graph_of(IMAGE, Own()))) is None


def test_the_tables_are_tested_whole():
    cases = [getattr(case, "values", case) for case in LAYERS + MERGES]
    tested = {type(layer) for _, layer, *_ in cases}
    known = {base for bases in step_types._LAYER_TYPES.values() for base in bases}
    assert known - set(step_types.AUGMENTATIONS) <= tested


def test_a_built_in_activation_is_a_step_of_its_own():
    graph = graph_of(ROW, lambda x: L.Dense(3, activation="tanh")(L.Dense(3, activation="relu")(x)))
    found = [step_types.of(step) for step in graph.steps]
    head = [step_types.STRUCTURE, step_types.KERNEL]
    assert found == [step_types.KERNEL, step_types.RECTIFIER, step_types.KERNEL, step_types.ACTIVATION, *head]


@pytest.mark.parametrize(
    ("activation", "kind"),
    [(L.ReLU(max_value=1.0), step_types.RECTIFIER), (L.LeakyReLU(), step_types.ACTIVATION), (L.Softmax(), None)],
    ids=described,
)
def test_a_layer_as_an_activation(activation, kind):
    assert step_types.of(last_step(graph_of(ROW, L.Dense(3, activation=activation)))) == kind


OWN_CALLS = [
    (L.Dense, {"units": 4}, ROWS), (L.Conv1D, {"filters": 2, "kernel_size": 2}, ROWS), (L.BatchNormalization, {}, ROWS),
    (L.ReLU, {}, ROWS), (L.Activation, {"activation": "relu"}, ROWS), (L.Dropout, {"rate": 0.5}, ROWS),
    (L.Flatten, {}, ROWS), (L.MaxPooling1D, {"pool_size": 2}, ROWS), (L.AveragePooling1D, {"pool_size": 2}, ROWS),
]  # fmt: skip


@pytest.mark.parametrize(("base", "settings", "shape"), OWN_CALLS, ids=described)
def test_a_subclass_with_its_own_call_is_unknown_and_one_without_is_its_base(base, settings, shape):
    class Own(base):
        def call(self, x, **rest):
            return 2 * super().call(x, **rest)

    class Kept(base):
        pass

    assert step_types.of(last_step(graph_of(shape, Own(**settings)))) is None
    known = step_types.of(last_step(graph_of(shape, base(**settings))))
    assert step_types.of(last_step(graph_of(shape, Kept(**settings)))) == known is not None


def test_a_layer_or_operation_of_someone_elses_is_unknown():
    class Relu(L.Layer):
        def call(self, x):
            return ops.relu(x)

    class Add(keras.Operation):
        def call(self, a, b):
            return a + b

        def compute_output_spec(self, a, b):
            return keras.KerasTensor(a.shape, a.dtype)

    assert step_types.of(last_step(graph_of(ROW, Relu()))) is None
    assert step_types.of(last_step(graph_of(ROW, lambda x: Add()(x, L.Dense(6)(x))))) is None


# Signs

RELU = {"activation": "relu"}
NEVER_NEGATIVE = {
    "relu": lambda x: L.Conv2D(3, 2, **RELU)(x),
    "relu6": lambda x: ops.relu6(x),
    "capped": lambda x: L.ReLU(max_value=1.0, threshold=0.5)(x),
    "sigmoid": lambda x: L.Activation("sigmoid")(x),
    "softplus": lambda x: L.Activation("softplus")(x),
    "exponential": lambda x: L.Activation("exponential")(x),
    "moved": lambda x: L.Permute((2, 1, 3))(L.ZeroPadding2D(1)(L.ReLU()(x))),
    "dropped": lambda x: L.Dropout(0.5)(L.ReLU()(x)),
    "pooled": lambda x: L.AveragePooling2D(2, padding="same")(L.MaxPooling2D(2, strides=1)(L.ReLU()(x))),
    "added": lambda x: L.Add()([L.Conv2D(2, 1, **RELU)(x), L.ReLU()(x)]),
    "concatenated": lambda x: L.Concatenate()([L.Conv2D(2, 1, **RELU)(x), L.ReLU()(x)]),
    "bilinear": lambda x: L.UpSampling2D(2, interpolation="bilinear")(L.ReLU()(x)),
    "relu of anything": lambda x: L.ReLU()(L.LayerNormalization()(x)),
}
PERHAPS_NEGATIVE = {
    "input": lambda x: L.MaxPooling2D(2)(x),
    "linear": lambda x: L.Conv2D(3, 2)(L.ReLU()(x)),
    "normalized": lambda x: L.BatchNormalization()(L.ReLU()(x)),
    "leaky": lambda x: L.LeakyReLU()(x),
    "slope": lambda x: L.ReLU(negative_slope=0.2)(x),
    "tanh": lambda x: L.Activation("tanh")(L.ReLU()(x)),
    "subtracted": lambda x: L.Subtract()([L.ReLU()(x), L.Conv2D(2, 1, **RELU)(x)]),
    "added to the input": lambda x: L.Add()([x, L.ReLU()(x)]),
    "bicubic": lambda x: L.UpSampling2D(2, interpolation="bicubic")(L.ReLU()(x)),
    "standardized": lambda x: L.LayerNormalization()(L.ReLU()(x)),
    "scaled": lambda x: L.ReLU()(x) - 1.0,
    "unknown": lambda x: L.Lambda(lambda y: y - 1)(L.ReLU()(x)),
    "gated": lambda x: L.Multiply()([x, L.Conv2D(2, 1, activation="sigmoid")(x)]),
}


@pytest.mark.parametrize("name", NEVER_NEGATIVE)
def test_what_holds_no_negative_value(name, rng):
    graph = graph_of(IMAGE, NEVER_NEGATIVE[name])
    with_weights(graph.model)
    number = last_step(graph).output
    assert number in not_negative(graph)
    found = propagation.forward(graph, keras.ops.convert_to_tensor(rng.normal(size=(8, *IMAGE)), "float32"))[number]
    assert found.numpy().min() >= 0


@pytest.mark.parametrize("name", PERHAPS_NEGATIVE)
def test_what_may_hold_one(name):
    graph = graph_of(IMAGE, PERHAPS_NEGATIVE[name])
    assert last_step(graph).output not in not_negative(graph)
    assert graph.input not in not_negative(graph)


# The first layers with weights


def first(graph):
    return [step.name for step in first_kernel_steps(graph, graph.steps)]


FIRST = {
    "plain": (["a"], lambda x: L.Conv2D(2, 2, name="b")(L.Conv2D(2, 2, name="a")(x))),
    "padding": (["a"], lambda x: L.Conv2D(2, 2, name="a")(L.ZeroPadding2D(1)(x))),
    "moved": (["a"], lambda x: L.Dense(2, name="a")(L.Reshape((8, 6))(L.Permute((2, 1, 3))(x)))),
    "dropout": (["a"], lambda x: L.Conv2D(2, 2, name="a")(L.GaussianNoise(0.1)(L.Dropout(0.5)(x)))),
    "normalized": (["a"], lambda x: L.Conv2D(2, 2, name="a")(L.BatchNormalization()(x))),
    "branches": (["a", "b"], lambda x: L.Add()([L.Conv2D(2, 2, name="a")(x), L.Conv2D(2, 2, name="b")(x)])),
    "second branch": (
        ["a", "b"],
        lambda x: L.Concatenate()([L.Conv2D(2, 1, name="b")(L.ZeroPadding2D(0)(x)), L.Conv2D(2, 1, name="a")(x)]),
    ),
    "shortcut": (["a"], lambda x: L.Conv2D(2, 2, name="b")(L.Add()([x, L.Conv2D(2, 1, name="a")(x)]))),
    "concatenated input": (["a"], lambda x: L.Conv2D(2, 2, name="a")(L.Concatenate()([x, L.Permute((1, 2, 3))(x)]))),
    "dense net": (["a"], lambda x: L.Conv2D(2, 2, name="b")(L.Concatenate()([x, L.Conv2D(2, 1, name="a")(x)]))),
    "behind a pooling": ([], lambda x: L.Conv2D(2, 2, name="a")(L.AveragePooling2D(2, strides=1)(x))),
    "behind a relu": ([], lambda x: L.Conv2D(2, 2, name="a")(L.ReLU()(x))),
    "scaled": (["a"], lambda x: L.Conv2D(2, 2, name="a")(1.0 - L.Normalization()(L.Rescaling(0.5)(x)))),
    "augmented": (["a"], lambda x: L.Conv2D(2, 2, name="a")(L.RandomZoom(0.1)(L.RandomFlip()(L.Resizing(8, 8)(x))))),
    "depthwise": (["a/depthwise"], lambda x: L.SeparableConv2D(2, 2, name="a")(x)),
    "behind a standardization": ([], lambda x: L.Conv2D(2, 2, name="a")(L.LayerNormalization()(x))),
    "behind the unknown": ([], lambda x: L.Conv2D(2, 2, name="a")(L.Lambda(lambda y: 2 * y)(x))),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_kernels(name):
    wanted, build = FIRST[name]
    assert sorted(first(graph_of(IMAGE, build))) == wanted


def test_the_head_is_the_first_where_nothing_is_before_it():
    assert first(graph_of(IMAGE, lambda x: x)) == ["_head"]


def test_first_kernels_of_a_nested_model():
    inner = keras.Input(IMAGE)
    y = L.Conv2D(2, 2, name="b")(L.Conv2D(2, 2, name="a")(L.ZeroPadding2D(1)(inner)))
    nested = keras.Model(inner, y, name="nest")
    assert first(graph_of(IMAGE, lambda x: nested(L.Dropout(0.5)(x)))) == ["nest/a"]


def test_a_shared_layer_is_first_only_where_it_reads_the_input():
    shared = L.Dense(6, name="a")
    graph = graph_of(ROW, lambda x: shared(L.ReLU()(shared(x))))
    assert first(graph) == ["a"]
    assert [step.name for step in graph.steps if step.layer is shared] == ["a", "a#2"]
    shared = L.Dense(3, name="b")
    graph = graph_of(IMAGE, lambda x: L.Add()([shared(x), shared(L.Permute((1, 2, 3))(x))]))
    assert first(graph) == ["b", "b#2"]


def test_only_the_steps_given_are_looked_at():
    graph = graph_of(ROW, lambda x: L.Dense(3, name="b")(L.Dense(3, name="a")(x)))
    assert [step.name for step in first_kernel_steps(graph, graph.steps[1:])] == []
    assert [step.name for step in graph.steps if step_types.keeps_input(step)] == ["_flat"]


def kind_behind(build):
    """The kind of the last step before the head, of ``build`` on a Dense layer with a ReLU."""
    x = keras.Input((4,))
    y = build(L.Dense(3, activation="relu")(x))
    return step_types.of(ModelGraph(keras.Model(x, L.Dense(2)(y))).steps[-2])


@pytest.mark.parametrize(
    "build",
    [
        lambda y: L.Maximum()([y, np.zeros((1, 3), "float32")]),
        lambda y: L.Add()([y, np.full((1, 3), -1, "float32")]),
        lambda y: keras.ops.maximum(y, 0.0),
        lambda y: keras.ops.cast(keras.ops.cast(y, "int32"), "float32"),
    ],
)
def test_a_merge_with_a_constant_or_a_cast_to_integers_is_of_no_kind(build):
    x = keras.Input((4,))
    y = build(L.Dense(3, activation="relu")(x))
    graph = ModelGraph(keras.Model(x, L.Dense(2)(y)))
    assert None in [step_types.of(step) for step in graph.steps]


def test_a_subclass_that_changes_what_a_layer_computes_is_of_no_kind():
    class Rectified(L.Add):
        def _merge_function(self, inputs):
            return keras.ops.relu(super()._merge_function(inputs))

    class Doubled(L.Dense):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    class Standardized(L.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))

    assert kind_behind(lambda y: Rectified()([y, L.Dense(3)(y)])) is None
    assert not linear.is_kernel_layer(Doubled(3)) and not linear.is_kernel_layer(Standardized(3, 2))


def test_bicubic_upsampling_leaves_the_bounds():
    x = keras.Input((4, 4, 1))
    y = L.Flatten()(L.Conv2D(2, 2)(L.UpSampling2D(2, interpolation="bicubic")(x)))
    graph = ModelGraph(keras.Model(x, L.Dense(2)(y)))
    assert step_types.first_kernel_steps(graph, graph.steps) == []


# Gates


SQUEEZED = {"keepdims": True}
GATES = {
    "squeeze and excitation": lambda x: [x, L.Dense(2, activation="tanh")(L.GlobalAveragePooling2D(**SQUEEZED)(x))],
    "spatial": lambda x: [x, L.Conv2D(1, 1)(x)],
    "sigmoid": lambda x: [x, L.Conv2D(2, 1, activation="sigmoid")(x)],
    "hard sigmoid": lambda x: [x, L.Activation("hard_sigmoid")(L.Conv2D(2, 1)(x))],
    "softmax": lambda x: [x, L.Softmax()(L.Conv2D(2, 1)(x))],
    "moved": lambda x: [x, L.Dropout(0.5)(L.Permute((2, 1, 3))(ops.sigmoid(L.Permute((2, 1, 3))(x))))],
}
NO_GATES = {
    "linear": lambda x: [x, L.Conv2D(2, 1)(x)],
    "tanh": lambda x: [x, L.Conv2D(2, 1, activation="tanh")(x)],
    "both": lambda x: [ops.sigmoid(x), L.Conv2D(2, 1, activation="sigmoid")(x)],
    "scaled": lambda x: [x, 2.0 * ops.sigmoid(x)],
    "both broadcast": lambda x: [ops.mean(x, axis=1, keepdims=True), ops.mean(x, axis=2, keepdims=True)],
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("multiply", [lambda pair: L.Multiply()(pair), lambda pair: pair[0] * pair[1]])
def test_the_gate_of_a_product(name, turned, multiply):
    graph = graph_of(IMAGE, lambda x: multiply(GATES[name](x)[:: -1 if turned else 1]))
    product = last_step(graph)
    assert step_types.of(product) == step_types.GATE
    assert step_types.gates(graph) == {product.index: product.inputs[0 if turned else 1]}


@pytest.mark.parametrize("name", NO_GATES)
def test_a_product_without_a_gate(name):
    graph = graph_of(IMAGE, lambda x: L.Multiply()(NO_GATES[name](x)))
    assert step_types.of(last_step(graph)) == step_types.GATE and step_types.gates(graph) == {}
    assert step_types.unknown(graph, graph.steps) == [last_step(graph)]


def test_a_network_of_keras_applications_is_known():
    """The one with most kinds: scaling and normalisation first, depthwise convolutions, squeeze and excitation."""
    graph = ModelGraph(keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classes=3))
    assert step_types.unknown(graph, graph.steps) == []
    assert len(step_types.gates(graph)) == 16
    assert [step.name for step in first_kernel_steps(graph, graph.steps)] == ["stem_conv"]
