"""A fit belongs to its model: one that has changed is refused; a method without a fit goes on with what is there."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras import NotFittedError, create_analyzer, load_analyzer
from mipin_keras.baselines.lrp.input_bounds import InputBounds
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.graph.step_types import first_kernel_steps
from mipin_keras.saving import fingerprint, held_weights
from tests.networks import NEEDED, close, cnn, mlp, samples, with_weights

L = keras.layers
LEARNED = ["mipin", "mipin.trained", "pattern.net", "pattern.attribution", "mi.total", "mi.decision", "mi.redundant"]
WITHOUT_FIT = [name for name in mipin_keras.analyzers() if name not in LEARNED and not name.startswith("innvestigate:")]
X = samples((7, 6, 2), 40)
STALE = "the model's weights have changed since the fit"


def made(name, model, **options):
    quiet = {"verbose": 0} if "verbose" in mipin_keras.options_of(name) else {}
    if name.startswith("mipin"):
        quiet |= {"rows": 500}
    if name == "mipin.trained":
        quiet |= {"epochs": 1}
    return create_analyzer(name, model, **NEEDED.get(name, {}) | quiet | options)


def train(model):
    model.compile("adam", "mse")
    model.fit(X, np.ones((len(X), model.output_shape[-1])), verbose=0)


@pytest.mark.parametrize(
    "name", ["mipin", "pattern.net", *(pytest.param(f"{kind}", marks=pytest.mark.medium)
                                       for kind in ("mipin.trained", "pattern.attribution"))]
)  # fmt: skip
@pytest.mark.medium
def test_a_fit_does_not_outlive_its_weights(name, tmp_path):
    model = cnn()
    analyzer = made(name, model).fit(X)
    before, weights = analyzer.analyze(X), model.get_weights()
    train(model)
    calls = [lambda: analyzer.analyze(X), lambda: analyzer.save(tmp_path / "fit.npz")]
    calls += [lambda: analyzer.analyze_layers(X), lambda: analyzer.analyze_class(X, 0)]
    if name.startswith("mipin"):
        calls += [lambda: analyzer.source_signal(X), lambda: analyzer.fit(X, classes=[0])]
        calls += [lambda: analyzer.reconstruction_errors(X)]
    for call in calls:
        with pytest.raises(NotFittedError, match=STALE):
            call()
    assert not list(tmp_path.iterdir())
    model.set_weights(weights)  # those of the fit
    assert analyzer.analyze(X).tobytes() == before.tobytes()
    assert analyzer.save(tmp_path / "fit.npz").is_file()
    train(model)
    again = analyzer.fit(X).analyze(X)
    assert close(again, made(name, model).fit(X).analyze(X), 1e-5) and not close(again, before, 1e-3)


@pytest.mark.parametrize("name", ["mipin", "pattern.net"])
def test_a_loaded_fit_does_not_outlive_its_weights(name, tmp_path):
    model = cnn()
    path = made(name, model).fit(X).save(tmp_path / "fit.npz")
    analyzer = load_analyzer(path, model)
    train(model)
    with pytest.raises(NotFittedError, match=STALE):
        analyzer.analyze(X)
    with pytest.raises(ValueError, match="fitted to another model, or to other weights of this one .its weights are"):
        load_analyzer(path, model)


def test_weights_that_change_within_a_fit_are_noticed():
    model = cnn()
    analyzer = made("mipin", model)

    def changing():
        for i in range(4):
            yield X[10 * i : 10 * i + 10]
        model.layers[-1].bias.assign_add(np.ones(3, "float32"))

    with pytest.raises(NotFittedError, match="changed while it was fitted"):
        analyzer.fit(changing)
    assert not analyzer.fitted


def test_settings_that_change_are_noticed_when_it_is_saved(tmp_path):
    layers = [keras.Input((7, 6, 2)), L.LeakyReLU(0.1, name="leaky"), L.Flatten(), L.Dense(3)]
    model = with_weights(keras.Sequential(layers))
    analyzer = made("mipin", model).fit(X)
    model.get_layer("leaky").negative_slope = 0.3
    with pytest.raises(NotFittedError, match="a layer has another setting"):
        analyzer.save(tmp_path / "fit.npz")
    model.get_layer("leaky").negative_slope = 0.1
    analyzer.save(tmp_path / "fit.npz")


def test_a_new_variable_is_noticed():
    model = mlp()
    analyzer = made("mipin", model).fit(samples((12,), 40))
    model.layers[0].enable_lora(2)
    with pytest.raises(NotFittedError, match="other variables than when it was fitted"):
        analyzer.analyze(samples((12,), 4))


def test_what_no_fingerprint_sees_is_refused_on_loading(tmp_path):
    class Hidden(L.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return super().get_config()

    def model(factor):
        x = keras.Input((7, 6, 2))
        return with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(Hidden(factor)(L.Conv2D(3, 3)(x))))))

    path = create_analyzer("gradient", model(2.0)).save(tmp_path / "fit.npz")
    assert load_analyzer(path, model(2.0)).fitted
    with pytest.raises(ValueError, match="it computes something else on the same input"):
        load_analyzer(path, model(2.5))


# Methods without a fit


@pytest.mark.parametrize("name", WITHOUT_FIT)
@pytest.mark.few(8)
def test_a_method_without_a_fit_goes_on_with_the_new_weights(name):
    model = cnn()
    analyzer = made(name, model)
    before = analyzer.analyze(X)
    with_weights(model, 11)
    found = analyzer.analyze(X)
    assert close(found, made(name, model).analyze(X), 1e-5)
    assert not close(found, before, 1e-3)


def normalized_first():
    layers = [keras.Input((7, 6, 2)), L.BatchNormalization(), L.Conv2D(3, 3, activation="relu")]
    layers += [L.Flatten(), L.Dense(3)]
    return with_weights(keras.Sequential(layers))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deep_taylor.bounded", {"low": 0.0, "high": 10.0}),
        ("lrp.epsilon", {"input_layer_rule": (0.0, 10.0)}),
        ("lrp.sequential_preset_a", {"input_layer_rule": (0.0, 10.0)}),
    ],
)
def test_bounds_follow_a_normalisation(name, options):
    model = normalized_first()
    analyzer = create_analyzer(name, model, **options)
    before = analyzer.analyze(X)
    model.layers[0].set_weights([2 * w + 1 for w in model.layers[0].get_weights()])
    found = analyzer.analyze(X)
    assert close(found, create_analyzer(name, model, **options).analyze(X), 1e-6) and not close(found, before, 1e-2)


def test_the_bounds_themselves_follow_it():
    model = normalized_first()
    graph = ModelGraph(model)
    bounds, (step,) = InputBounds(graph, 0.0, 10.0), first_kernel_steps(graph, graph.steps)
    traced = tf.function(lambda: bounds.at(step))
    traced()
    gamma, beta, mean, variance = ([3.0, -2.0], [1.0, 0.0], [0.5, 0.5], [4.0, 1.0])
    model.layers[0].set_weights([np.array(values) for values in (gamma, beta, mean, variance)])
    factor = np.array(gamma) / np.sqrt(np.array(variance) + model.layers[0].epsilon)
    ends = [factor * (end - np.array(mean)) + beta for end in (0.0, 10.0)]
    low, high = traced()
    np.testing.assert_allclose(low[0, 0], np.minimum(*ends), rtol=1e-5)
    np.testing.assert_allclose(high[0, 0], np.maximum(*ends), rtol=1e-5)


def adapted():
    layer = L.Normalization(name="normalization")
    layer.adapt(X)
    layers = [keras.Input((7, 6, 2)), layer, L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(3)]
    return with_weights_but(keras.Sequential(layers), layer)


def with_weights_but(model, layer):
    kept = layer.get_weights()
    with_weights(model)
    layer.set_weights(kept)
    layer.finalize_state()
    return model


ADAPTED = [
    ("gradient", {}), ("integrated_gradients", {"steps": 4}), ("smoothgrad", {"augment_by_n": 4}),
    ("lrp.epsilon", {}), ("grad_cam", {}), ("deep_taylor", {}), ("mipin", {"rows": None}), ("pattern.attribution", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ADAPTED)
@pytest.mark.few(2)
def test_a_normalisation_that_is_adapted_anew_is_taken_as_it_is_then(name, options):
    """Keras keeps its mean and variance as constants, which a trace would keep too."""
    model = adapted()
    analyzer = made(name, model, **options).fit(X)
    analyzer.analyze(X)
    logits = analyzer.logits(X)
    model.get_layer("normalization").adapt(3 * X + 1)
    if name in LEARNED:
        with pytest.raises(NotFittedError, match=STALE):
            analyzer.analyze(X)
    other = made(name, model, **options).fit(X)
    assert close(analyzer.fit(X).analyze(X), other.analyze(X), 1e-5)
    assert close(analyzer.logits(X), other.logits(X), 1e-6) and not close(analyzer.logits(X), logits, 1e-2)


def test_the_gradient_behind_a_normalisation_that_is_adapted_anew_is_a_tapes():
    model = adapted()
    analyzer = create_analyzer("gradient", model, neuron_selection_mode="index")
    analyzer.analyze(X, 1)
    model.get_layer("normalization").adapt(3 * X + 1)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)[:, 1]
    assert close(analyzer.analyze(X, 1), tape.gradient(y, x), 1e-5)


# Files of version 0.1

OLD = pathlib.Path(__file__).parents[1] / "data" / "version-0.1"


@pytest.mark.parametrize("name", ["mipin", "pattern.net"])
def test_a_file_of_version_0_1_loads_where_its_fingerprint_suffices(name):
    found = load_analyzer(OLD / f"{name}.npz", mlp(), verbose=0)
    wanted = np.load(OLD / f"{name}-map.npy")
    np.testing.assert_allclose(found.analyze(samples((12,), 60)[:2]), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="fitted to another model"):
        load_analyzer(OLD / f"{name}.npz", mlp(seed=5))
    with pytest.raises(ValueError, match="fitted to another model"):
        load_analyzer(OLD / f"{name}.npz", mlp(hidden=(10, 9)))


def test_a_file_of_version_0_1_is_refused_where_it_does_not_say_enough():
    for cropping in (((1, 0), (0, 0)), ((0, 1), (0, 0))):  # one of them was fitted
        x = keras.Input((4, 4, 2))
        model = with_weights(keras.Model(x, L.Dense(2)(L.Flatten()(L.Cropping2D(cropping)(x)))))
        with pytest.raises(
            ValueError,
            match=r"cropping\.npz: expected .* received one made by version 0\.1, whose files do not say enough",
        ):
            load_analyzer(OLD / "cropping.npz", model)


def test_a_file_of_version_0_1_is_saved_with_all_that_this_version_says(tmp_path):
    analyzer = load_analyzer(shutil.copy(OLD / "mipin.npz", tmp_path / "old.npz"), mlp())
    path = analyzer.save(tmp_path / "old.npz")
    assert load_analyzer(path, mlp()).identity.fingerprint == fingerprint.fingerprint(ModelGraph(mlp()))


# Variables and attributes that a layer keeps to itself


class Keeping(L.Layer):
    """A layer with a variable that Keras does not list, and an attribute that its configuration leaves out."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.own = [tf.Variable(1.0)]
        self.offset = 0.0

    def call(self, x):
        return x * self.own[0] + self.offset

    def get_config(self):
        return super().get_config()


def keeping():
    return with_weights(keras.Sequential([keras.Input((7, 6, 2)), L.Conv2D(3, 3), Keeping(), L.Flatten(), L.Dense(3)]))


@pytest.fixture
def own_inverse(monkeypatch):
    """An inverse of that layer, forgotten after the test."""
    monkeypatch.setattr("mipin_keras.mipin.inverse._INVERSES", dict(mipin_keras.mipin.inverse._INVERSES))

    @mipin_keras.register_inverse(Keeping)
    class Halving(mipin_keras.Inverse):
        def source(self, signal, record, weights):
            return signal


def test_a_variable_that_keras_does_not_list_belongs_to_the_model(own_inverse, tmp_path):
    model = keeping()
    assert [v.name for v in held_weights.variables(ModelGraph(model))[len(model.weights) :]] == ["Variable:0"]
    analyzer = made("mipin", model).fit(X)
    path = analyzer.save(tmp_path / "fit.npz")
    model.layers[1].own[0].assign(-3.0)
    with pytest.raises(NotFittedError, match=STALE):
        analyzer.analyze(X)
    with pytest.raises(ValueError, match="its weights are others"):
        load_analyzer(path, model)
    model.layers[1].own[0].assign(1.0)
    assert analyzer.analyze(X).tobytes() == load_analyzer(path, model).analyze(X).tobytes()


def test_a_saved_fit_has_the_probe_of_its_fit(own_inverse, tmp_path):
    model = keeping()
    analyzer = made("mipin", model).fit(X)
    model.layers[1].offset = 5.0
    for call in (lambda: analyzer.save(tmp_path / "fit.npz"), lambda: analyzer.fit(X, classes=[0])):
        with pytest.raises(NotFittedError, match="it computes something else on the same input"):
            call()
    model.layers[1].offset = 0.0
    assert analyzer.save(tmp_path / "fit.npz").is_file()
