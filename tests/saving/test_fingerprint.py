"""What tells one model from another: pairs that must differ, and pairs that must not."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.saving import fingerprint, legacy, probe
from tests.networks import cnn, mlp, with_weights

L, ops = keras.layers, keras.ops


def print_of(model):
    return fingerprint.fingerprint(ModelGraph(model))


def model_of(build, shape=(4, 4, 3)):
    """A model around what ``build`` makes of an input, with weights that only the shapes tell."""
    x = keras.Input(shape)
    y = build(x)
    return with_weights(keras.Model(x, L.Dense(2)(L.Flatten()(y))))


@keras.saving.register_keras_serializable("fingerprint tests")
class Power(L.Layer):
    """A layer with an attribute in its configuration."""

    def __init__(self, power, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def call(self, x):
        return x**self.power

    def get_config(self):
        return super().get_config() | {"power": self.power}


class Hidden(L.Layer):
    """A layer whose configuration leaves out what it computes with."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


class Coded(L.Layer):
    """A layer of the user's."""

    def call(self, x):
        return x + 1


class CodedOtherwise(L.Layer):
    """The same with other code."""

    def call(self, x):
        return x + 2


CodedOtherwise.__name__ = "Coded"


def square(x):
    return x * x


def cube(x):
    return x * x * x


def scaled_by(factor):
    return lambda x: x * factor


def leaning(x, slope=0.1):
    return ops.maximum(x, slope * x)


DIFFER = {
    "cropping": (L.Cropping2D(((1, 0), (0, 0))), L.Cropping2D(((0, 1), (0, 0)))),
    "padding": (L.ZeroPadding2D(((1, 0), (0, 0))), L.ZeroPadding2D(((0, 1), (0, 0)))),
    "softmax": (L.Softmax(axis=-1), L.Softmax(axis=1)),
    "normalization axis": (L.BatchNormalization(axis=1), L.BatchNormalization(axis=2)),
    "center or scale": (L.BatchNormalization(center=False), L.BatchNormalization(scale=False)),
    "transpose": (lambda x: ops.transpose(x, (0, 2, 1, 3)), lambda x: ops.transpose(x, (0, 1, 2, 3))),
    "mean": (lambda x: ops.mean(x, 1), lambda x: ops.mean(x, 2)),
    "max": (lambda x: ops.max(x, 1), lambda x: ops.max(x, 2)),
    "pad": (
        lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0))),
        lambda x: ops.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))),
    ),
    "pad mode": (
        lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), mode="reflect"),
        lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), mode="symmetric"),
    ),
    "side of a constant": (lambda x: x - 1, lambda x: 1 - x),
    "order of tensors": (lambda x: ops.subtract(x, x * 2), lambda x: ops.subtract(x * 2, x)),
    "slice": (lambda x: x[:, 0:2], lambda x: x[:, 1:3]),
    "einsum": (lambda x: ops.einsum("bijc,bijc->bic", x, x), lambda x: ops.einsum("bijc,bijc->bjc", x, x)),
    "clip": (lambda x: ops.clip(x, 0, 1), lambda x: ops.clip(x, 0, 2)),
    "option of an operation": (
        lambda x: keras.activations.relu(x, negative_slope=0.1),
        lambda x: keras.activations.relu(x, negative_slope=0.2),
    ),
    "configuration": (Power(2), Power(3)),
    "activation": (L.Dense(3, activation=square), L.Dense(3, activation=cube)),
    "closure": (L.Activation(scaled_by(2.0)), L.Activation(scaled_by(3.0))),
    "partial": (
        L.Activation(functools.partial(leaning, slope=0.1)),
        L.Activation(functools.partial(leaning, slope=0.2)),
    ),
    "lambda": (L.Lambda(lambda x: x + 1), L.Lambda(lambda x: x + 2)),
    "code of a layer": (Coded(), CodedOtherwise()),
    "tf function": (L.Activation(tf.nn.relu), L.Activation(tf.nn.relu6)),
    "inner layer": (L.TimeDistributed(L.Softmax(axis=-1)), L.TimeDistributed(L.Softmax(axis=1))),
    "dtype": (L.Dense(3, dtype="float32"), L.Dense(3, dtype="mixed_float16")),
    "call": (
        lambda x: L.MultiHeadAttention(1, 2)(x[:, 0], x[:, 1], use_causal_mask=True),
        lambda x: L.MultiHeadAttention(1, 2)(x[:, 0], x[:, 1]),
    ),
}


@pytest.mark.parametrize("name", DIFFER)
def test_pairs_that_compute_something_else_differ(name):
    one, other = (print_of(model_of(build)) for build in DIFFER[name])
    assert fingerprint.differences(one, other) != []
    assert one["weights"] == other["weights"]  # they could not tell


@pytest.mark.parametrize("name", DIFFER)
def test_the_same_model_built_twice_does_not_differ(name):
    for build in DIFFER[name]:
        again = type(build).from_config(build.get_config()) if name == "configuration" else build
        assert print_of(model_of(build)) == print_of(model_of(again))


def test_names_batch_sizes_compiling_and_training_settings_do_not_differ():
    def model(**options):
        layers = [L.Dense(5, "relu", kernel_initializer="zeros", name="a", **options), L.Dropout(0.5, seed=3)]
        return layers

    plain = with_weights(keras.Sequential([keras.Input((6,)), *model(), L.Dense(2)]))
    renamed = with_weights(
        keras.Sequential(
            [keras.Input((6,), name="in"), L.Dense(5, "relu"), L.Dropout(0.5), L.Dense(2, name="z")], name="o"
        )
    )
    regular = with_weights(
        keras.Sequential([keras.Input((6,)), L.Dense(5, "relu", kernel_regularizer="l2"), L.Dropout(0.5), L.Dense(2)])
    )
    sized = with_weights(
        keras.Sequential([keras.Input(batch_shape=(4, 6)), L.Dense(5, "relu"), L.Dropout(0.5), L.Dense(2)])
    )
    compiled = with_weights(keras.Sequential([keras.Input((6,)), *model(), L.Dense(2)]))
    compiled.compile("adam", "mse", metrics=["mae"])
    compiled.optimizer.build(compiled.trainable_variables)
    frozen = with_weights(keras.Sequential([keras.Input((6,)), *model(trainable=False), L.Dense(2)]))
    for other in (renamed, regular, sized, compiled, frozen):
        assert fingerprint.differences(print_of(plain), print_of(other)) == []


SAVED = {
    "functional": lambda: model_of(lambda x: ops.max(1 - L.Conv2D(3, 2, strides=2, activation="relu")(x) * 2.0, 1)),
    "custom": lambda: model_of(Power(3)),
    "augmented": lambda: model_of(lambda x: L.Dropout(0.2)(L.RandomFlip()(L.Rescaling([1.0, 2, 3])(x)))),
    "attention": lambda: model_of(lambda x: L.MultiHeadAttention(1, 2)(x[:, 0], x[:, 1], use_causal_mask=True)),
    "recurrent": lambda: model_of(L.Bidirectional(L.LSTM(3)), (4, 3)),
    "constants": lambda: model_of(lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0))) + ops.ones((1, 5, 4, 3))),
    "separable": lambda: model_of(L.SeparableConv2D(4, 2, padding="same", activation="relu6")),
    "lambda": lambda: model_of(L.Lambda(scaled_by(3.0))),
}


# The old format holds no operations with several arguments.
OLD_FORMAT = ["custom", "augmented", "recurrent", "separable", "lambda"]


@pytest.mark.parametrize(
    ("name", "ending"), [(name, "keras") for name in SAVED] + [(name, "h5") for name in OLD_FORMAT]
)
def test_a_model_saved_and_loaded_does_not_differ(name, ending, tmp_path):
    model = SAVED[name]()
    model.save(tmp_path / f"model.{ending}")
    loaded = keras.models.load_model(tmp_path / f"model.{ending}", safe_mode=False)
    found = fingerprint.differences(print_of(model), print_of(loaded))
    assert found == [] and probe.agree(probe.probe(ModelGraph(model)), probe.probe(ModelGraph(loaded)))


def test_what_no_configuration_says_shows_on_the_probe():
    one, other = (ModelGraph(model_of(Hidden(factor))) for factor in (2.0, 2.001))
    assert fingerprint.differences(fingerprint.fingerprint(one), fingerprint.fingerprint(other)) == []
    probes = [probe.probe(graph) for graph in (one, one, other)]
    assert probes[0] == probes[1] and probe.agree(probes[0], probes[1])
    assert not probe.agree(probes[0], probes[2])


def test_a_probe_is_of_the_logits_on_three_samples_and_within_what_the_model_takes():
    model = mlp(head="softmax")
    found = probe.probe(ModelGraph(model))
    assert np.shape(found["outputs"]) == (3, 4) and found["exact"]
    assert np.abs(np.sum(found["outputs"], axis=1) - 1).min() > 1e-3  # before the softmax
    tokens = keras.Input((5,))
    text = keras.Model(tokens, L.Dense(2)(L.GlobalAveragePooling1D()(L.Embedding(7, 3)(tokens))))
    assert np.isfinite(probe.probe(ModelGraph(text))["outputs"]).all()
    assert np.shape(probe.probe(ModelGraph(mlp(units=3000)))["outputs"]) == (3, 1024)


def test_probes_agree_up_to_rounding_and_on_what_is_not_finite():
    one = {"outputs": [[1.0, -200.0]], "exact": True}
    near, far = {"outputs": [[1.01, -200.0]], "exact": True}, {"outputs": [[1.1, -200.0]], "exact": True}
    assert probe.agree(one, near) and not probe.agree(one, far)
    assert probe.agree(one, far | {"exact": False})  # on a GPU
    odd = {"outputs": [[np.nan, -200.0]], "exact": True}
    assert probe.agree(odd, odd) and not probe.agree(one, odd)
    assert not probe.agree(one, {"outputs": [[1.0]], "exact": True})
    assert probe.agree(None, one) and probe.agree(one, None)


def test_code_that_another_python_compiled_is_left_to_the_probe():
    one, other = (print_of(model_of(build)) for build in DIFFER["lambda"])
    assert fingerprint.differences(one | {"python": "cpython-310"}, other) == []


def test_a_function_that_calls_itself_and_one_that_reads_a_module_have_a_fingerprint():
    def recursive(x, depth=2):
        return x if depth == 0 else recursive(np.pi * x, depth - 1)

    assert print_of(model_of(L.Activation(recursive))) == print_of(model_of(L.Activation(recursive)))


def test_a_fingerprint_is_of_weights_and_architecture_and_not_of_names():
    one = print_of(mlp(seed=1))
    assert one == print_of(mlp(seed=1)) and all(isinstance(part, str) for part in one.values())
    assert one != print_of(mlp(seed=2))
    assert one != print_of(mlp(seed=1, activation="tanh"))
    other = keras.Sequential([keras.Input((12,)), L.Dense(10, "relu"), L.Dense(8, "relu"), L.Dense(4)], name="other")
    other.set_weights(mlp(seed=1).get_weights())
    assert print_of(other) == one
    weights = other.get_weights()
    weights[-1][0] = np.nextafter(weights[-1][0], 2, dtype="float32")  # the last bit of one bias
    other.set_weights(weights)
    assert print_of(other) != one


@pytest.mark.parametrize("end", [0, -1])
def test_a_fingerprint_sees_every_end_of_every_weight_that_changes_behind_the_graph(end):
    model = mlp()
    graph = ModelGraph(model)
    seen = {fingerprint.fingerprint(graph)["weights"]}
    for i, weight in enumerate(model.get_weights()):
        weight.flat[end] += 1
        model.set_weights([weight if i == j else old for j, old in enumerate(mlp().get_weights())])
        seen.add(fingerprint.fingerprint(graph)["weights"])
    assert len(seen) == 1 + len(model.weights)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (L.LeakyReLU(0.1), L.LeakyReLU(0.2)),
        (L.ReLU(6.0), L.ReLU()),
        (L.ReLU(threshold=0.5), L.ReLU()),
        (L.ELU(0.5), L.ELU()),
        (L.Conv2D(3, 3, padding="same", dilation_rate=2), L.Conv2D(3, 3, padding="same")),
        (L.BatchNormalization(epsilon=0.1), L.BatchNormalization()),
        (L.Conv2DTranspose(3, 2, strides=3), L.Conv2DTranspose(3, 2, strides=3, output_padding=1)),
        (L.Rescaling(2.0), L.Rescaling(3.0)),
        (L.Rescaling(2.0, offset=[1.0, 2.0, 3.0]), L.Rescaling(2.0, offset=[1.0, 2.0, 4.0])),
        (L.Normalization(axis=None, mean=1.0, variance=2.0), L.Normalization(axis=None, mean=2.0, variance=2.0)),
        (L.LayerNormalization(axis=1), L.LayerNormalization(axis=2)),
    ],
    ids=range(11),
)
def test_a_fingerprint_sees_settings_that_change_neither_weights_nor_shapes(one, other):
    prints = []
    for layer in (one, other, type(one).from_config(one.get_config())):
        model = keras.Sequential([keras.Input((5, 5, 3)), layer, L.Flatten(), L.Dense(2)])
        prints.append(print_of(with_weights(model)))
    assert prints[0] == prints[2] != prints[1]


def test_a_fingerprint_sees_constants_and_how_channels_are_multiplied():
    def model(build):
        x = keras.Input((5, 5, 3))
        return str(print_of(with_weights(keras.Model(x, L.Dense(2)(L.Flatten()(build(x)))))))

    constants = [lambda x: x * 2.0, lambda x: x * 3.0, lambda x: x * np.array([2.0, 2, 2]), lambda x: x + 2.0]
    constants.append(lambda x: x * keras.ops.convert_to_tensor([2.0, 2, 3]))
    assert len({model(build) for build in constants}) == len(constants)
    assert model(constants[0]) == model(lambda x: x * 2.0)
    assert model(L.DepthwiseConv2D(1, depth_multiplier=2)) == model(L.DepthwiseConv2D(1, depth_multiplier=2))
    assert model(L.DepthwiseConv2D(1, depth_multiplier=2)) != model(L.DepthwiseConv2D(1))


def test_the_fingerprint_of_version_0_1_is_what_it_was():
    """So that what was saved then still loads."""
    layers = [
        keras.Input((6, 6, 2)), L.Conv2D(3, 3, strides=2, padding="same", activation="relu"), L.BatchNormalization(),
        L.LeakyReLU(0.1), L.MaxPooling2D(2), L.Flatten(), L.Dense(2),
    ]  # fmt: skip
    graph = ModelGraph(with_weights(keras.Sequential(layers)))
    assert legacy.fingerprint(graph) == "ad653c06a3f1943b8580b51f2cf70f1b" and legacy.suffices(graph)


def test_a_fingerprint_sees_layers_without_weights():
    def model(pooling, order=(1, 2, 3)):
        layers = [keras.Input((4, 4, 2)), pooling, L.Permute(order), L.Flatten(), L.Dense(2)]
        return print_of(with_weights(keras.Sequential(layers)))

    assert model(L.MaxPooling2D(2)) == model(L.MaxPooling2D(2))
    assert model(L.MaxPooling2D(2)) != model(L.AveragePooling2D(2))


def test_saved_and_loaded_models_have_one_fingerprint(tmp_path):
    model = cnn()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert print_of(loaded) == print_of(model)


def shared(first):
    """Two layers of one shape, one of them called twice, and which one it is."""
    x = keras.Input((4,))
    one, other = L.Dense(4), L.Dense(4)
    y = other(one(x))
    return with_weights(keras.Model(x, L.Dense(2)((one if first else other)(y))))


def test_which_layer_is_shared_is_seen_and_version_0_1_did_not():
    graphs = [ModelGraph(shared(first)) for first in (True, False)]
    prints = [fingerprint.fingerprint(graph) for graph in graphs]
    assert prints[0]["weights"] == prints[1]["weights"] and fingerprint.differences(*prints)
    assert legacy.fingerprint(graphs[0]) == legacy.fingerprint(graphs[1])
    assert not any(legacy.suffices(graph) for graph in graphs)
    half = ModelGraph(with_weights(keras.Sequential([keras.Input((4,)), L.Dense(2, dtype="mixed_float16")])))
    assert not legacy.suffices(half)


def with_attribute(value):
    class Attributed(L.Layer):
        FACTOR = value

        def call(self, x):
            return x * keras.ops.convert_to_tensor(self.FACTOR, "float32")

    return Attributed()


def with_list(values):
    return L.Activation(lambda x: x * values[0] + values[1])


def with_inner(value):
    namespace = {"FACTOR": value}
    exec("def activation(x):\n    def inner(y):\n        return y * FACTOR\n    return inner(x)", namespace)
    return L.Activation(namespace["activation"])


@pytest.mark.parametrize(
    "build",
    [
        with_attribute,
        lambda value: with_attribute([value]),
        lambda value: with_list([value, 1.0]),
        with_inner,
    ],
)
def test_constants_that_code_reads_are_part_of_it(build):
    one, again, other = (print_of(model_of(build(value))) for value in (2.0, 2.0, 2.001))
    assert fingerprint.differences(one, again) == []
    assert fingerprint.differences(one, other) == ["a function or layer of your own has other code"]


def test_each_sample_of_a_probe_is_held_against_its_own_size():
    one = {"outputs": [[1.0, 2.0], [100.0, 200.0]], "exact": True}
    assert not probe.agree(one, {"outputs": [[1.01, 2.0], [100.0, 200.0]], "exact": True})
    assert probe.agree(one, {"outputs": [[1.0, 2.0], [100.01, 200.0]], "exact": True})
