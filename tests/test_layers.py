"""Explanations that end at a layer, of every layer on the way, and of a class: against tapes and models cut in two."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import LayerExplanation, NotFittedError, create_analyzer
from tests.networks import NEEDED, close, cnn, mlp, residual, samples, with_weights

L = keras.layers
X = samples((7, 6, 2), 9)


def tape(model, layer, x, times=False):
    """The gradient of each sample's largest logit at a layer's output, perhaps times that output."""
    both = keras.Model(model.inputs, [layer, *model.outputs])
    with tf.GradientTape() as recorded:
        recorded.watch(x := tf.constant(x))
        feature, logits = both(x, training=False)
        largest = tf.reduce_max(logits, axis=1)
    found = recorded.gradient(largest, feature)
    return np.asarray(found * feature if times else found)


def branches():
    """Two ways from "stem" to "sum", one through "left", one through "right"."""
    x = keras.Input((6,), name="image")
    y = L.Dense(5, activation="relu", name="stem")(x)
    left, right = (L.Dense(4, activation="relu", name=name)(y) for name in ("left", "right"))
    return with_weights(keras.Model(x, L.Dense(3, name="head")(L.Add(name="sum")([left, right, left]))))


# input_layer


@pytest.mark.parametrize("layer", ["relu", "conv2", "pool"])
@pytest.mark.parametrize("name", ["input_t_gradient", "guided_backprop", "lrp.epsilon", "deep_taylor"])
@pytest.mark.few(3)
def test_down_to_a_layer_it_is_the_explanation_of_the_model_above(name, layer):
    model = residual()
    feature = model.get_layer(layer).output
    found = create_analyzer(name, model, input_layer=layer).analyze(X, batch_size=4)
    assert found.shape == (9, *feature.shape[1:]) and found.dtype == np.float32 and found.any()
    if layer == "conv2":  # in a branch: only what depends on it is walked
        merged = create_analyzer(name, model, input_layer="add").analyze(X)
        first, second = keras.Model(model.inputs, [model.get_layer("relu").output, feature])([X])
        if name == "lrp.epsilon":
            wanted = merged * second / np.maximum(first + second, 1e-30)  # the sum's share
        else:
            wanted = tape(model, feature, X, times=True) if name == "input_t_gradient" else merged
        assert close(found, wanted, 1e-5)
        return
    above = keras.Model(feature, model.output)
    features = np.asarray(keras.Model(model.inputs, feature)([X]))
    assert close(found, create_analyzer(name, above).analyze(features), 1e-5)


@keras.saving.register_keras_serializable("tests")
class Unknown(keras.layers.Layer):
    def call(self, x):
        return tf.abs(x)


@pytest.mark.parametrize("name", ["lrp.epsilon", "deep_taylor", "guided_backprop"])
def test_rules_are_asked_for_walked_steps_only(name):
    x = keras.Input((6,))
    y = L.Dense(5, activation="relu", name="stem")(Unknown(name="below")(x))
    left, right = L.Dense(4, activation="relu", name="left")(y), Unknown(name="aside")(L.Dense(4)(y))
    model = with_weights(keras.Model(x, L.Dense(3)(L.Add()([left, right]))))
    data = samples((6,), 5)
    assert create_analyzer(name, model, input_layer="left").analyze(data).shape == (5, 4)
    for layer, named in (("stem", "'aside' .Unknown.;"), (None, "'below' .Unknown., 'aside' .Unknown.;")):
        with pytest.raises(ValueError, match=f"defined for, received layer {named}"):
            create_analyzer(name, model, input_layer=layer)


def test_the_mean_of_noisy_gradients_at_a_layer():
    model = residual()
    few = {"augment_by_n": 5, "noise": 0.2}
    found = create_analyzer("smoothgrad", model, input_layer="pool", **few).analyze(X, batch_size=12)
    spread = X.max(axis=(1, 2, 3), keepdims=True) - X.min(axis=(1, 2, 3), keepdims=True)
    rng, chosen = np.random.default_rng(0), np.asarray(model(X)).argmax(axis=1)
    by_index = create_analyzer("gradient", model, input_layer="pool", neuron_selection_mode="index")
    noisy = [X + np.float32(0.2) * spread * rng.standard_normal((7, 6, 2), np.float32) for _ in range(5)]
    assert close(found, np.mean([by_index.analyze(x, chosen) for x in noisy], axis=0), 1e-5)


@pytest.mark.parametrize("name", ["deep_taylor.bounded", "grad_cam"])
def test_methods_of_the_models_input_have_no_such_option(name):
    with pytest.raises(TypeError, match="received 'input_layer', which it has no option for"):
        create_analyzer(name, cnn(), input_layer="conv", **NEEDED.get(name, {}))
    assert "input_layer" not in create_analyzer(name, cnn(), **NEEDED.get(name, {})).options
    with pytest.raises(TypeError, match="input_layer"):
        type(create_analyzer(name, cnn(), **NEEDED.get(name, {})))(cnn(), input_layer="conv")


def test_bounds_are_the_inputs():
    with pytest.raises(ValueError, match="low and high are the bounds of.*received input_layer"):
        create_analyzer("lrp.z", cnn(), input_layer="conv", input_layer_rule=(0, 1))


@pytest.mark.parametrize(("layer", "problem"), [("nowhere", "unknown layer name"), ("head", "before the explained")])
def test_a_layer_that_is_not_before_the_output_is_refused(layer, problem):
    with pytest.raises(ValueError, match=problem):
        create_analyzer("gradient", cnn(), input_layer=layer)


# analyze_layers


@pytest.mark.parametrize("name", ["gradient", "deconvnet", "lrp.z_plus", "deep_taylor"])
def test_at_each_layer_it_is_what_an_analyzer_of_that_layer_gives(name):
    model = residual()
    analyzer = create_analyzer(name, model)
    found = analyzer.analyze_layers(X, batch_size=4)
    assert list(found)[1:] == ["conv", "bn", "relu", "conv2", "add", "pool", "flatten"]
    for entry in found.values():
        assert isinstance(entry, LayerExplanation) and entry.source_signal is None
        assert entry.attribution.dtype == np.float32 and entry.attribution.any()
    assert close(next(iter(found.values())).attribution, analyzer.analyze(X), 1e-6)
    for layer in ("conv2", "add"):
        alone = create_analyzer(name, model, input_layer=layer)
        assert close(found[layer].attribution, alone.analyze(X), 1e-6)


@pytest.mark.parametrize("times", [False, True])
def test_every_layer_against_a_tape(times):
    for model, x in ((residual(), X), (branches(), samples((6,), 8)), (mlp(head="softmax"), samples((12,), 8))):
        plain = keras.models.clone_model(model)
        plain.set_weights(model.get_weights())
        plain.get_layer("head").activation = keras.activations.linear
        found = create_analyzer("input_t_gradient" if times else "gradient", model).analyze_layers(x)
        names = [layer.name for layer in model.layers if not isinstance(layer, L.InputLayer)][:-1]
        assert list(found)[1:] == names
        for name in names:
            assert close(found[name].attribution, tape(plain, plain.get_layer(name).output, x, times), 1e-5)


def test_names_of_nested_and_shared_layers_and_an_end_on_the_way():
    inner_in = keras.Input((5,))
    layer = L.Dense(5, activation="relu", name="twice")
    inner = keras.Model(inner_in, L.Dense(5, name="last")(layer(layer(inner_in))), name="inner")
    x = keras.Input((6,), name="image")
    model = with_weights(keras.Model(x, L.Dense(3, name="head")(inner(L.Dense(5, name="first")(x)))))
    data = samples((6,), 5)
    analyzer = create_analyzer("gradient", model)
    found = analyzer.analyze_layers(data)
    assert set(found) == {"image", "first", "inner/twice", "inner/twice#2", "inner/last", "inner"}
    np.testing.assert_array_equal(found["inner"].attribution, found["inner/last"].attribution)
    kernel = np.asarray(model.get_layer("head").kernel)
    chosen = np.asarray(model(data)).argmax(axis=1)
    assert close(found["inner"].attribution, kernel.T[chosen], 1e-6)
    # named: in that order, under the names given; a short name is enough
    some = analyzer.analyze_layers(data, layers=["last", "image"])
    assert list(some) == ["last", "image"]
    assert close(some["last"].attribution, found["inner"].attribution, 1e-6)
    assert list(analyzer.analyze_layers(data, layers="first")) == ["first"]
    above = create_analyzer("gradient", model, input_layer="inner/twice")
    assert list(above.analyze_layers(data)) == ["inner/twice", "inner/twice#2", "inner/last", "inner"]


def test_the_neurons_and_one_trace_for_all_batches(monkeypatch):
    analyzer = create_analyzer("gradient", branches(), neuron_selection_mode="index")
    x = samples((6,), 7)
    traced, walk = [], analyzer._walk
    monkeypatch.setattr(analyzer, "_walk", lambda *given: traced.append(1) or walk(*given))
    single = [analyzer.analyze_layers(x, unit, layers=["sum"])["sum"].attribution for unit in range(3)]
    chosen = [0, 2, 1, 1, 0, 2, 0]
    found = analyzer.analyze_layers(x, chosen, layers=["sum"], batch_size=3)["sum"].attribution
    np.testing.assert_array_equal(found, [single[unit][i] for i, unit in enumerate(chosen)])
    assert len(traced) == 1


@pytest.mark.parametrize("layers", [["head"], ["below"], [], ["sum", "left", "nowhere"]])
def test_layers_that_are_not_on_the_way_are_refused(layers):
    x = keras.Input((6,), name="image")
    y = L.Dense(6, name="below")(x)
    model = keras.Model(x, branches()(y))
    analyzer = create_analyzer("gradient", model, input_layer="stem")
    with pytest.raises(ValueError, match=r"expected layers from .*\['functional.*/stem'|unknown layer name 'nowhere'"):
        analyzer.analyze_layers(samples((6,), 3), layers=layers)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("integrated_gradients", "take 'gradient'"), ("smoothgrad", "take 'gradient'"), ("grad_cam", "as layer=")],
)
def test_methods_without_layers_say_so(name, advice):
    with pytest.raises(NotImplementedError, match=f"'{name}', .*{advice}"):
        create_analyzer(name, cnn()).analyze_layers(X)


def test_bounds_are_checked_for_layers_too():
    for name, options in (("deep_taylor.bounded", {"low": 0, "high": 1}), ("lrp.z", {"input_layer_rule": (0, 1)})):
        with pytest.raises(ValueError, match="expected input between the bounds"):
            create_analyzer(name, cnn(), **options).analyze_layers(X * 10)


@pytest.mark.parametrize("name", ["pattern.net", "pattern.attribution"])
def test_patterns_give_layers_after_a_fit_and_anew_after_another(name):
    model = cnn()
    analyzer = create_analyzer(name, model, verbose=0)
    for call in (lambda: analyzer.analyze_layers(X), lambda: analyzer.analyze_class(X, 0)):
        with pytest.raises(NotFittedError, match="call fit"):
            call()
    first = analyzer.fit(samples((7, 6, 2), 40)).analyze_layers(X)
    alone = create_analyzer(name, model, verbose=0, input_layer="pool").fit(samples((7, 6, 2), 40))
    assert len(alone.patterns) == 1 and close(first["pool"].attribution, alone.analyze(X), 1e-6)
    second = analyzer.fit(samples((7, 6, 2), 40, seed=5) - 1).analyze_layers(X)
    assert not close(second["conv"].attribution, first["conv"].attribution, 1e-3)


# analyze_class


@pytest.mark.parametrize("mode", ["max_activation", "index", "all", lambda logits: 1])
@pytest.mark.parametrize("source", ["array", "dataset", "generator"])
@pytest.mark.few(3)
def test_a_class_is_the_mean_of_its_maps(mode, source):
    model = residual()
    analyzer = create_analyzer("input_t_gradient", model, neuron_selection_mode=mode, input_layer="pool")
    data, options = {
        "array": (X, {"batch_size": 4}),
        "dataset": (tf.data.Dataset.from_tensor_slices((X, np.zeros(9))).batch(2), {}),
        "generator": (itertools.repeat(X[:3]), {"steps": 3}),
    }[source]
    used = np.tile(X[:3], (3, 1, 1, 1)) if source == "generator" else X
    wanted = create_analyzer(
        "input_t_gradient", model, neuron_selection_mode="index", input_layer="pool"
    ).analyze(used, 2).astype(np.float64).mean(axis=0)
    found = analyzer.analyze_class(data, 2, **options)
    assert found.dtype == np.float32 and found.shape == (3, 3, 3) and close(found, wanted, 1e-6)
    assert analyzer.neuron_selection_mode == mode and analyzer.options["neuron_selection_mode"] == mode


def test_the_mean_of_a_class_is_taken_in_double_precision(monkeypatch):
    analyzer = create_analyzer("gradient", mlp())
    big = np.float32([1e8, 1.0])
    monkeypatch.setattr(type(analyzer), "_analyze", lambda self, x, unit: np.tile(big, (len(x), 1)) * x[:, :1])
    x = np.ones((1000, 12), np.float32)
    x[::2] = -1
    x[0] = 1
    found = analyzer.analyze_class(x, 0, batch_size=1)
    np.testing.assert_allclose(found, [2e5, 2e-3], rtol=1e-6)


def test_two_classes_are_one_trace():
    analyzer = create_analyzer("gradient", cnn())
    one, other = analyzer.analyze_class(X, 0), analyzer.analyze_class(X, 1)
    assert not close(one, other, 0.05) and len(analyzer._traces) == 1


@pytest.mark.parametrize("neuron", [-1, 3, True, 1.0, "0", None, [0]])
def test_no_such_neuron(neuron):
    with pytest.raises(ValueError, match="expected neuron to be an int from 0 to 2, received"):
        create_analyzer("gradient", cnn()).analyze_class(X, neuron)


def test_samples_of_other_shapes_have_no_mean():
    x = keras.Input((None, 2))
    model = with_weights(keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.Conv1D(3, 1)(x)))))
    analyzer = create_analyzer("gradient", model)
    with pytest.raises(ValueError, match="maps of one shape"):
        analyzer.analyze_class(lambda: iter([np.ones((2, 5, 2)), np.ones((2, 1, 2))]), 0)


def test_what_a_class_says(capsys):
    analyzer = create_analyzer("gradient", cnn())
    analyzer.analyze_class(X, 0, batch_size=3)
    assert capsys.readouterr().out == ""
    analyzer.analyze_class(X, 0, batch_size=3, verbose=2)
    assert "3/3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="verbose to be one of"):
        analyzer.analyze_class(X, 0, verbose=3)
