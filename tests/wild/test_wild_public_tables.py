"""Tables, of kinds that people ask about in public: regression, normalised columns, classes as columns."""

import itertools

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer, load_analyzer
from tests.networks import mlp, samples, with_weights
from tests.wild.common import (
    FAMILIES,
    GRADIENTS,
    LEARNING,
    OURS,
    RULED,
    agree,
    by_tape,
    conserved,
    each,
    fitted,
    largest,
    made,
    maps,
    without_biases,
)

L = keras.layers
X = samples((6,), 40)
BOTH = [*GRADIENTS, *RULED]


def called(model):
    return lambda x: model(x, training=False)


def table(*layers, units=1, head=None, seed=3):
    return with_weights(keras.Sequential([keras.Input((6,)), *layers, L.Dense(units, activation=head)]), seed)


# 22. Linear regression: the map is the input times the coefficients, whichever method is asked that promises so.


@pytest.mark.parametrize("name", ["input_t_gradient", "integrated_gradients", "lrp.z", "lrp.epsilon"])
def test_a_linear_model_has_its_coefficients(name):
    model = table(units=1)
    model.layers[-1].set_weights([np.array([[2.0], [-1.0], [0.5], [0.0], [3.0], [1.0]]), np.zeros(1)])
    x = np.array([[1.0, 2.0, 4.0, 5.0, 0.0, -1.0]], "float32")
    agree(maps(name, model, x), [[2.0, -2.0, 2.0, 0.0, 0.0, -1.0]], 1e-5)
    agree(maps("gradient", model, x), [[2.0, -1.0, 0.5, 0.0, 3.0, 1.0]])


def test_a_relu_network_by_hand():
    # Two hidden units: the second is off. LRP-z shares 6 = 1 * (2 * 1 + 1 * 4) as 2 and 4; deep Taylor as well.
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="relu"), L.Dense(1)])
    model.set_weights([np.array([[2.0, -3.0], [1.0, -1.0]]), np.zeros(2), np.array([[1.0], [5.0]]), np.zeros(1)])
    x = np.array([[1.0, 4.0]], "float32")
    for name in ("lrp.z", "lrp.z_plus", "deep_taylor", "input_t_gradient"):
        agree(maps(name, model, x), [[2.0, 4.0]], 1e-5)
    agree(maps("integrated_gradients", model, x, riemann="right"), [[2.0, 4.0]], 1e-5)
    agree(maps("gradient", model, x), [[2.0, 1.0]])


# 23. Batch normalisation as the first layer, of raw columns.


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_raw_columns_normalised_first(name):
    model = table(L.BatchNormalization(), L.Activation("relu"), L.Dense(5), L.BatchNormalization(), L.ReLU(), units=2)
    agree(maps(name, model, X), by_tape(name, largest(called(model), X), X))


def test_lrp_of_columns_normalised_first():
    # Scaled only: then the sum is the logit, and the map the input times the gradient.
    model = without_biases(table(L.BatchNormalization(), L.Dense(5, activation="relu"), units=2))
    found = maps("lrp.z", model, X)
    conserved(found, np.asarray(model(X)).max(1))
    agree(found, by_tape("input_t_gradient", largest(called(model), X), X), 1e-4)


def test_normalization_adapted_to_the_columns():
    layer = L.Normalization()
    layer.adapt(50 * X + 3)
    model = table(layer, L.Dense(4, activation="relu"), units=2)
    raw = 50 * X + 3
    for name in GRADIENTS:
        agree(maps(name, model, raw), by_tape(name, largest(called(model), raw), raw), 1e-4)
    # LRP keeps what arrives at a scaling: it is the map of the columns as the network reads them.
    above = keras.Sequential([keras.Input((6,)), *model.layers[1:]])
    agree(maps("lrp.epsilon", model, raw), maps("lrp.epsilon", above, np.asarray(layer(raw))), 1e-4)


# 24. Activations that people choose for tables.


@pytest.mark.parametrize("activation", ["elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus", "leaky_relu"])
@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.few(4)
def test_smooth_activations(name, activation):
    model = table(L.Dense(5, activation=activation), L.Dense(4, activation=activation), units=2)
    agree(maps(name, model, X[:5]), by_tape(name, largest(called(model), X[:5]), X[:5]), 1e-4)


@pytest.mark.parametrize("activation", ["elu", "tanh", "leaky_relu"])
def test_lrp_through_activations_that_keep_zero_conserves(activation):
    model = without_biases(table(L.Dense(5, activation=activation), L.Dense(4, activation=activation), units=2))
    conserved(maps("lrp.z", model, X), np.asarray(model(X)).max(1))
    for name in ("deep_taylor", "guided_backprop", "pattern.attribution"):
        with pytest.raises(ValueError, match="activations='any'"):
            made(name, model)
        assert maps(name, model, X, activations="any").any()


# 25. A Sequential model that first saw its shape when it was called or fitted.


@pytest.mark.parametrize("name", each(BOTH))
def test_a_model_without_an_input_layer(name):
    late = keras.Sequential([L.Dense(5, activation="relu"), L.Dense(2, activation="softmax")])
    with pytest.raises(ValueError, match="not built"):
        made(name, late)
    late(X)
    early = keras.Sequential([keras.Input((6,)), L.Dense(5, activation="relu"), L.Dense(2, activation="softmax")])
    with_weights(late, 4)
    early.set_weights(late.get_weights())
    agree(maps(name, late, X), maps(name, early, X), 1e-6)


# 26. After more training: methods that learn nothing explain the new weights, the others ask for another fit.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.few(2)
def test_after_more_training(name, tmp_path):
    model, other = mlp(), mlp(seed=8)
    x = samples((12,), 30)
    analyzer = fitted(name, model, x)
    path = analyzer.save(tmp_path / "fit.npz")
    analyzer.analyze(x)
    model.set_weights(other.get_weights())
    if name in LEARNING:
        with pytest.raises(RuntimeError, match="weights.*fit again|fit"):
            analyzer.analyze(x)
        with pytest.raises(ValueError, match="weights|another model"):
            load_analyzer(path, model)
        analyzer.fit(x)
    agree(analyzer.analyze(x), maps(name, other, x), 1e-5)


# 27. Columns of classes as floats beside numbers, one-hot inside the model.


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_classes_one_hot_inside_the_model(name):
    # The one-hot of a column has no gradient: its map is zero there, as the tape's, and right in the other columns.
    x = keras.Input((6,))
    kind = keras.ops.one_hot(keras.ops.cast(keras.ops.abs(x[:, 0]), "int32"), 4)
    y = L.Dense(5, activation="relu")(L.Concatenate()([kind, x[:, 1:]]))
    model = with_weights(keras.Model(x, L.Dense(2)(y)), 2)
    data = X[:6].copy()
    data[:, 0] = [0, 1, 2, 3, 1, 2]
    found = maps(name, model, data)
    assert not found[:, 0].any()
    logits = largest(called(model), data)
    agree(found, by_tape(name, logits, data))


# 28. Residual connections and shared layers in tables.


@pytest.mark.parametrize("name", each(BOTH))
def test_a_shared_layer_is_two_layers_of_the_same_weights(name):
    def built(shared):
        x = keras.Input((6,))
        first = L.Dense(6, activation="relu", name="first")
        second = first if shared else L.Dense(6, activation="relu", name="second")
        model = keras.Model(x, L.Dense(2, name="head")(second(first(x))))
        rng = np.random.default_rng(2)
        first.set_weights([rng.normal(size=(6, 6)) / 2, rng.normal(size=6) / 5])
        if not shared:
            second.set_weights(first.get_weights())
        model.get_layer("head").set_weights([rng.normal(size=(6, 2)), np.zeros(2)])
        return model

    agree(maps(name, built(True), X), maps(name, built(False), X), 1e-4)


# 29. A hidden unit instead of an output.


@pytest.mark.parametrize("name", each(BOTH))
def test_a_hidden_unit(name):
    model = mlp(head="softmax")
    x = samples((12,), 40)
    alone = keras.Model(model.inputs, model.get_layer("dense2").output)
    agree(
        maps(name, model, x, output_layer="dense2", selection=3, neuron_selection_mode="index"),
        maps(name, alone, x, selection=3, neuron_selection_mode="index"),
        1e-6,
    )


# 30. Many rows at once are those rows one by one, and a row has the same map wherever it stands.


@pytest.mark.parametrize("name", each([name for name in OURS if name != "grad_cam"]))
def test_rows_do_not_know_each_other(name):
    model = mlp()
    x = samples((12,), 40)
    analyzer = fitted(name, model, x)
    found = analyzer.analyze(x)
    order = np.random.default_rng(0).permutation(40)
    agree(analyzer.analyze(x[order], batch_size=7), found[order], 1e-5)
    agree(np.concatenate(list(itertools.islice((analyzer.analyze(row[None]) for row in x), 3))), found[:3], 1e-5)


# 31. The sign of a class: what speaks for one of two classes speaks against the other.


@pytest.mark.parametrize("name", ["gradient", "input_t_gradient", "integrated_gradients", "lrp.epsilon", "lrp.z"])
def test_two_classes_that_differ_in_sign(name):
    model = table(L.Dense(5, activation="relu"), units=2)
    kernel = np.random.default_rng(0).normal(size=(5, 1))
    model.layers[-1].set_weights([np.hstack([kernel, -kernel]), np.zeros(2)])
    analyzer = made(name, model, neuron_selection_mode="index")
    agree(analyzer.analyze(X, 0), -analyzer.analyze(X, 1), 1e-5)


# 32. A baseline that is not zero: the mean of the data, as people take it for tables.


def test_integrated_gradients_from_the_mean():
    model = table(L.Dense(5, activation="tanh"), units=1)
    mean = X.mean(0)
    analyzer = create_analyzer("integrated_gradients", model, reference_inputs=mean, steps=200, riemann="middle")
    found = analyzer.analyze(X)
    conserved(found, np.asarray(model(X) - model(mean[None]))[:, 0], 1e-3)
    assert not analyzer.analyze(mean[None]).any()
    with pytest.raises(ValueError, match="reference_inputs"):
        create_analyzer("integrated_gradients", model, reference_inputs=X)
