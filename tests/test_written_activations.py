"""However an activation is written, every method gives the map of the model with Keras' own: exactly, or by a tape."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras import create_analyzer
from tests.networks import close, samples, with_weights

L = keras.layers


def rectified(x):
    return tf.maximum(x, 0.0)


RELUS = {
    "tf.nn": lambda layer, y: layer(activation=tf.nn.relu)(y),
    "keras.ops": lambda layer, y: layer(activation=keras.ops.relu)(y),
    "lambda": lambda layer, y: layer(activation=lambda x: x * tf.cast(x > 0, x.dtype))(y),
    "own function": lambda layer, y: L.Activation(rectified)(layer()(y)),
    "Lambda": lambda layer, y: L.Lambda(tf.nn.relu)(layer()(y)),
}


def network(relu, head=None):
    """A convolution and a Dense layer, each with a ReLU; ``relu`` puts it behind a layer."""
    x = keras.Input((7, 6, 2))
    y = relu(functools.partial(L.Conv2D, 3, 3, name="conv"), x)
    y = relu(functools.partial(L.Dense, 8, name="dense"), L.Flatten()(L.MaxPooling2D(2)(y)))
    y = L.Dense(3, name="head")(y)
    return with_weights(keras.Model(x, y if head is None else head(y)), 5)


def plain(built_in):
    """Keras' own relu in the same places."""
    if built_in:
        return network(lambda layer, y: layer(activation="relu")(y))
    return network(lambda layer, y: L.Activation("relu")(layer()(y)))


METHODS = {
    "lrp.epsilon": {}, "lrp.alpha_2_beta_1": {}, "deep_taylor": {}, "guided_backprop": {}, "deconvnet": {},
    "pattern.net": {"verbose": 0}, "mipin": {"verbose": 0, "classes": [0, 2], "neuron_selection_mode": "index"},
}  # fmt: skip


def map_of(model, method):
    analyzer = create_analyzer(method, model, **METHODS[method])
    x = samples((7, 6, 2), 24, seed=2)
    return analyzer.fit(x).analyze(x[:5], *([2] if method == "mipin" else []))


@functools.cache
def wanted(method, built_in):
    return map_of(plain(built_in), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", RELUS)
@pytest.mark.few(9)
def test_a_relu_is_a_relu_however_it_is_written(kind, method):
    found = map_of(network(RELUS[kind]), method)
    assert found.any()
    np.testing.assert_array_equal(found, wanted(method, kind in ("tf.nn", "keras.ops", "lambda")))


HEADS = {
    "tf.nn.softmax": L.Activation(tf.nn.softmax),
    "tf.nn.sigmoid": L.Activation(tf.nn.sigmoid),
    "keras.ops.softmax": L.Activation(keras.ops.softmax),
    "lambda": L.Activation(lambda x: tf.nn.softmax(x, axis=-1)),
    "written out": L.Activation(lambda x: 1 / (1 + tf.exp(-x))),
    "Lambda": L.Lambda(tf.nn.softmax),
}


@pytest.mark.parametrize("method", ["gradient", "lrp.epsilon"])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.few(3)
def test_logits_are_explained(kind, method):
    linear = plain(True)
    model = network(lambda layer, y: layer(activation="relu")(y), HEADS[kind])
    x = samples((7, 6, 2), 6, seed=2)
    found = create_analyzer(method, model).analyze(x)
    np.testing.assert_array_equal(found, create_analyzer(method, linear).analyze(x))
    if method == "gradient":
        with tf.GradientTape() as tape:
            tape.watch(given := tf.constant(x))
            top = tf.reduce_max(linear(given, training=False), axis=1)
        assert close(found, tape.gradient(top, given), 1e-6)


@pytest.mark.parametrize("kind", ["tf.nn.softmax", "Lambda"])
def test_a_softmax_as_a_dense_layers_own(kind):
    function = tf.nn.softmax if kind == "tf.nn.softmax" else (lambda x: keras.ops.softmax(x))
    dense = [keras.Sequential([keras.Input((5,)), L.Dense(4, activation=a)]) for a in (None, function)]
    linear, model = (with_weights(each) for each in dense)
    x = samples((5,), 7)
    found = create_analyzer("gradient", model).analyze(x)
    np.testing.assert_allclose(found, linear.get_weights()[0].T[linear.predict(x, verbose=0).argmax(axis=1)], rtol=1e-6)


SLOPES = {
    "partial": functools.partial(tf.nn.leaky_relu, alpha=0.1),
    "Lambda": L.Lambda(lambda x, alpha: tf.nn.leaky_relu(x, alpha), arguments={"alpha": 0.1}),
    "Keras": L.LeakyReLU(negative_slope=0.1),
}


@pytest.mark.parametrize("method", ["gradient", "lrp.epsilon", "lrp.alpha_2_beta_1", "guided_backprop", "mipin"])
@pytest.mark.parametrize("kind", ["partial", "Lambda"])
@pytest.mark.few(3)
def test_a_slope_of_ones_own_stays_what_it_is(kind, method):
    options = METHODS.get(method, {}) | ({"activations": "any"} if method == "guided_backprop" else {})
    x = samples((7, 6, 2), 24, seed=2)
    found = []
    for each in (kind, "Keras"):
        function = SLOPES[each]
        layer = function if isinstance(function, L.Layer) else L.Activation(function)
        model = network(lambda make, y, layer=layer: layer(make()(y)))
        analyzer = create_analyzer(method, model, **options).fit(x)
        found.append(analyzer.analyze(x[:4], *([2] if method == "mipin" else [])))
    assert close(*found, 1e-5)


def test_a_fit_is_saved_and_loaded_however_the_relu_is_written(tmp_path):
    x = samples((7, 6, 2), 24, seed=2)
    model = network(RELUS["tf.nn"])
    analyzer = create_analyzer("mipin", model, **METHODS["mipin"]).fit(x)
    path = analyzer.save(tmp_path / "fit.npz")
    found = analyzer.analyze(x[:3], 0)
    again = mipin_keras.load_analyzer(path, model, neuron_selection_mode="index")
    np.testing.assert_array_equal(again.analyze(x[:3], 0), found)
    # Keras loads it with its own relu: the same model
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("conv").activation is keras.activations.relu
    again = mipin_keras.load_analyzer(path, loaded, neuron_selection_mode="index")
    np.testing.assert_array_equal(again.analyze(x[:3], 0), found)
    # and a leaky one is another
    leaky = network(lambda layer, y: layer(activation=tf.nn.leaky_relu)(y))
    with pytest.raises(ValueError, match="another model"):
        mipin_keras.load_analyzer(path, leaky)


def test_innvestigates_twin_takes_what_tf_keras_has_and_refuses_other_slopes():
    twin = pytest.importorskip("mipin_keras.innvestigate.twin")
    pytest.importorskip("tf_keras")
    from mipin_keras.graph.model_graph import ModelGraph

    kinds = [(r.layer_type, r.arguments.get("activation")) for r in twin.recipes(ModelGraph(network(RELUS["tf.nn"])))]
    assert kinds == [(r.layer_type, r.arguments.get("activation")) for r in twin.recipes(ModelGraph(plain(True)))]
    kinds = [(r.layer_type, r.arguments.get("activation")) for r in twin.recipes(ModelGraph(network(RELUS["Lambda"])))]
    assert kinds == [(r.layer_type, r.arguments.get("activation")) for r in twin.recipes(ModelGraph(plain(False)))]
    sloped = network(lambda make, y: make(activation=SLOPES["partial"])(y))
    with pytest.raises(ValueError, match="none of keras.activations, or with other settings"):
        twin.recipes(ModelGraph(sloped))
