"""The steps at the end of a graph that make a target's value, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import targets
from mipin_keras.graph import explained, propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import mlp, with_weights

L, K = keras.layers, keras.ops


def value(graph, x):
    return np.asarray(propagation.forward(graph, tf.constant(x))[graph.output], np.float64)


def logits_of(model, x):
    graph = ModelGraph(model)
    return value(graph, x)


def convolutional(pool=True, bias=True, groups=1, middle=()):
    """A convolution that makes the logits, averaged over space."""
    last = L.Conv2D(4, 2, strides=2, use_bias=bias, groups=groups, padding="same", name="logits")
    end = [L.GlobalAveragePooling2D(name="mean")] if pool else []
    return with_weights(keras.Sequential([keras.Input((6, 6, 4)), last, *middle, *end]))


def dense(bias=True, middle=()):
    layers = [L.Dense(5, activation="relu"), L.Dense(4, use_bias=bias, name="logits"), *middle]
    return with_weights(keras.Sequential([keras.Input((6,)), *layers]))


COMBINED = {
    "dense": dense,
    "dense without bias": lambda: dense(bias=False),
    "dense, dropout": lambda: dense(middle=[L.Dropout(0.5), L.Identity()]),
    "dense, softmax": lambda: dense(middle=[L.Softmax()]),
    "convolution": convolutional,
    "convolution without bias": lambda: convolutional(bias=False),
    "convolution, dropout": lambda: convolutional(middle=[L.Dropout(0.5)]),
}
SUMMED = {
    "dense, relu": lambda: dense(middle=[L.ReLU()]),
    "groups": lambda: convolutional(groups=2),
    "dense, normalization": lambda: dense(middle=[L.LayerNormalization()]),
}


@pytest.mark.parametrize("kind", [*COMBINED, *SUMMED])
@pytest.mark.parametrize(
    ("target", "weights"),
    [
        (targets.negative(2), [0, 0, -1, 0]), (targets.contrast(0, 3), [1, 0, 0, -1]),
        (targets.as_target(1), [0, 1, 0, 0]),
    ],
)  # fmt: skip
@pytest.mark.few(8)
def test_a_weighted_sum_is_one_neuron_where_the_layers_allow_it(kind, target, weights, rng):
    model = (COMBINED | SUMMED)[kind]()
    x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
    graph = ModelGraph(model, target=target)
    wanted = logits_of(model, x) @ np.float64(weights)
    assert graph.neurons == 1 and graph.taken_by_sign
    np.testing.assert_allclose(value(graph, x)[:, 0], wanted, rtol=1e-5, atol=1e-5)
    names = [step.name for step in graph.steps]
    if kind in COMBINED:
        assert "logits/target" in names and "logits" not in names
        step = next(step for step in graph.steps if step.name == "logits/target")
        kernel = np.float64(model.get_layer("logits").kernel)
        np.testing.assert_allclose(step.layer.kernel, kernel @ np.float64(weights)[:, None], rtol=1e-6)
        assert step.model_layer is model.get_layer("logits")
    else:
        assert "logits" in names and names[-1] == "target" and graph.steps[-1].linear
    assert [step.name for step in graph.all_steps] == [step.name for step in ModelGraph(model).all_steps]


def test_the_one_neuron_reads_the_models_weights_as_they_are(rng):
    model = dense()
    graph, x = ModelGraph(model, target=targets.negative(0)), rng.normal(size=(3, 6)).astype("float32")
    before = value(graph, x)
    layer = model.get_layer("logits")
    layer.kernel.assign(2 * layer.kernel)
    layer.bias.assign(2 * layer.bias)
    np.testing.assert_allclose(value(graph, x), 2 * before, rtol=1e-5)
    assert not [v for v in model.variables if "target" in v.path] and len(layer._inbound_nodes) == 1


# Functions


def test_a_function_is_given_probabilities_and_an_index_logits(rng):
    model = mlp(head="softmax")
    x = rng.normal(size=(4, 12)).astype("float32")
    logits = logits_of(model, x)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    graph = ModelGraph(model, target=targets.as_target(lambda y: y[:, 1]))
    np.testing.assert_allclose(value(graph, x)[:, 0], probabilities[:, 1], rtol=1e-5)
    graph = ModelGraph(model, target=targets.as_target(1))
    np.testing.assert_allclose(value(graph, x)[:, 0], logits[:, 1], rtol=1e-5)


def two(structure):
    """A model of a dense and an image output, each behind a head."""
    x = keras.Input((6,))
    units = L.Dense(3, activation="softmax", name="units")(x)
    image = L.Activation("sigmoid", name="image")(L.Reshape((2, 2, 1))(L.Dense(4)(x)))
    return with_weights(keras.Model(x, structure(units, image)))


@pytest.mark.parametrize(
    ("structure", "function"),
    [
        (lambda u, i: [u, i], lambda y: y[0][:, 1] + K.mean(y[1][..., 0], axis=(1, 2))),
        (lambda u, i: {"u": u, "i": i}, lambda y: y["u"][:, 1] + K.mean(y["i"][..., 0], axis=(1, 2))),
        (lambda u, i: {"z": u, "a": i}, lambda y: y["z"][:, 1] + K.mean(y["a"][..., 0], axis=(1, 2))),
    ],
    ids=["list", "dict", "dict in another order"],
)
def test_a_function_is_given_the_outputs_as_the_model_gives_them(structure, function, rng):
    model = two(structure)
    x = rng.normal(size=(4, 6)).astype("float32")
    graph = ModelGraph(model, target=targets.as_target(function))
    np.testing.assert_allclose(value(graph, x)[:, 0], function(model(x)), rtol=1e-5)
    # chosen, it is one tensor
    graph = ModelGraph(model, output=0, target=targets.as_target(lambda y: K.sum(y**2, axis=list(range(1, K.ndim(y))))))
    first = keras.tree.flatten(model(x))[0]
    np.testing.assert_allclose(value(graph, x)[:, 0], np.square(first).reshape(4, -1).sum(axis=1), rtol=1e-5)


def test_a_models_one_output_in_a_dict_is_a_dict(rng):
    x = keras.Input((6,))
    model = with_weights(keras.Model(x, {"only": L.Dense(3)(x)}))
    given = rng.normal(size=(4, 6)).astype("float32")
    graph = ModelGraph(model, target=targets.as_target(lambda y: y["only"][:, 2]))
    np.testing.assert_allclose(value(graph, given)[:, 0], model(given)["only"][:, 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: y, r"one number a sample, \(batch,\), received \(None, 4\)"),
        (lambda y: K.mean(y), r"one number a sample, \(batch,\), received \(\)"),
        (lambda y: y[:2, 0], r"one number a sample|expected"),
        (lambda y: K.argmax(y, axis=1), "floating-point numbers, received int"),
        (lambda y: y[:, 0] > 0, "floating-point numbers, received bool"),
    ],
)
def test_a_function_that_returns_something_else_is_refused_before_any_work(function, message):
    model = mlp()
    target = targets.as_target(function)
    if message.endswith("|expected"):  # it shows with samples alone
        graph = ModelGraph(model, target=target)
        with pytest.raises(ValueError, match="one number a sample"):
            propagation.forward(graph, tf.ones((4, 12)))
    else:
        with pytest.raises(ValueError, match=message):
            ModelGraph(model, target=target)


def segmenting():
    layers = [L.Conv2D(3, 3, padding="same", activation="relu"), L.Conv2D(2, 1, activation="softmax")]
    return with_weights(keras.Sequential([keras.Input((4, 5, 1)), *layers]))


def test_elements_and_regions_of_an_image_of_logits(rng):
    model, x = segmenting(), rng.normal(size=(3, 4, 5, 1)).astype("float32")
    region = rng.random((4, 5)) > 0.5
    step = ModelGraph(model, target=targets.as_target((1, 2, 0)))
    tensors = propagation.forward(step, tf.constant(x))
    logits = np.float64(tensors[step.steps[-1].inputs[0]])
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), model(x), rtol=1e-4)
    np.testing.assert_allclose(value(step, x)[:, 0], logits[:, 1, 2, 0], rtol=1e-5)
    graph = ModelGraph(model, target=targets.segmentation(region, 1))
    np.testing.assert_allclose(value(graph, x)[:, 0], logits[:, region, 1].mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (targets.negative(1), r"of shape \(batch, units\) for this target, received \(batch, 4, 5, 2\)"),
        (targets.segmentation(np.ones((5, 4), bool), 1), "give a mask of the output's spatial axes"),
        (targets.segmentation(np.ones((4, 5), bool), 2), "unit to be an int from 0 to 1, received 2"),
        (targets.as_target((1, 2)), "an index of one element of the output"),
        (targets.as_target((4, 0, 0)), "an index of one element of the output"),
    ],
)
def test_targets_that_do_not_fit_the_output_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        ModelGraph(segmenting(), target=target)


def test_an_output_without_units_asks_for_a_target():
    with pytest.raises(ValueError, match=r"received \(batch, 4, 5, 2\); give target="):
        ModelGraph(segmenting())


def test_units_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"from 0 to 3, received \[1, 4\]"):
        ModelGraph(mlp(), target=targets.contrast(4, 1))


def test_a_targets_step_is_no_part_of_the_model():
    graph = ModelGraph(mlp(), target=targets.as_target(lambda y: y[:, 0] ** 2))
    assert isinstance(graph.steps[-1].layer, explained.TargetValue)
    assert not [step for step in graph.all_steps if isinstance(step.layer, explained.TargetValue)]
