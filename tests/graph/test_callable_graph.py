"""Models without a graph, and functions, as the gradient methods take them: against a tape, and what is refused."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.graph.callable_graph import CallableGraph
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import mlp

L, K = keras.layers, keras.ops
METHODS = ["gradient", "input_t_gradient", "integrated_gradients", "smoothgrad"]


class Own(keras.Model):
    """Subclassed: no graph."""

    def __init__(self, units=3, head=None):
        super().__init__()
        self.one, self.two = L.Dense(5, activation="tanh"), L.Dense(units, activation=head)

    def call(self, x):
        return self.two(self.one(x))


def built(model, shape=(4,)):
    """With weights that are the same for every version."""
    model(np.zeros((1, *shape), np.float32))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def by_hand(model, x):
    """The gradient of the largest output of :class:`Own`, in float64."""
    k, b, k2, b2 = (w.astype(float) for w in model.get_weights())
    hidden = np.tanh(x @ k + b)
    top = (hidden @ k2 + b2).argmax(axis=1)
    return ((1 - hidden**2) * k2[:, top].T) @ k.T


def test_the_gradient_of_a_subclassed_model(rng):
    model, x = built(Own()), rng.normal(size=(6, 4)).astype("float32")
    wanted = by_hand(model, x.astype(float))
    np.testing.assert_allclose(create_analyzer("gradient", model).analyze(x), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(create_analyzer("input_t_gradient", model).analyze(x), x * wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(create_analyzer("gradient", model).logits(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.few(2)
def test_a_function_around_a_model_is_explained_as_the_model(name, rng):
    model, x = mlp(), rng.normal(size=(5, 12)).astype("float32")
    options = {"steps": 5} if name == "integrated_gradients" else {"augment_by_n": 4} if name == "smoothgrad" else {}
    found = create_analyzer(name, lambda x: model(x), **options).analyze(x)
    wanted = create_analyzer(name, model, **options).analyze(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_several_inputs_come_as_they_are_given(rng):
    a, b = (rng.normal(size=(3, n)).astype("float32") for n in (4, 2))
    weigh = np.float32([[1, 2], [3, 4], [5, 6], [7, 8]])
    listed = create_analyzer("gradient", lambda x: K.sum(K.matmul(x[0], weigh) * x[1], axis=1, keepdims=True))
    named = create_analyzer("gradient", lambda x: K.sum(K.matmul(x["a"], weigh) * x["b"], axis=1, keepdims=True))
    of_list, of_dict = listed.analyze([a, b]), named.analyze({"b": b, "a": a})
    assert isinstance(of_list, list) and sorted(of_dict) == ["a", "b"]
    for found in (of_list, [of_dict["a"], of_dict["b"]]):
        np.testing.assert_allclose(found[0], b.astype(float) @ weigh.T, rtol=1e-5)
        np.testing.assert_allclose(found[1], a.astype(float) @ weigh, rtol=1e-5, atol=1e-6)


def test_samples_of_another_shape_are_met_anew(rng):
    analyzer = create_analyzer("gradient", lambda x: K.sum(x**2, axis=(1, 2))[:, None])
    for shape in ((3, 4, 2), (5, 2, 6), (3, 4, 2)):
        x = rng.normal(size=shape).astype("float32")
        np.testing.assert_allclose(analyzer.analyze(x), 2 * x, rtol=1e-6)


def test_what_is_known_once_samples_were_met():
    graph = CallableGraph(lambda x: x["b"][:, :2] + K.sum(x["a"], axis=1, keepdims=True))
    x = {"b": np.zeros((3, 4), np.float32), "a": np.zeros((3, 2), np.float64)}
    assert not graph.steps and graph.meet(x) and not graph.meet(x)
    assert graph.input_names == ["a", "b"] and [graph.shapes[n] for n in graph.inputs] == [(2,), (4,)]
    assert graph.neurons == 2 and graph.shapes[graph.output] == (2,) and len(graph.steps) == 1
    assert graph.meet(x | {"a": np.zeros((3, 5))}) and graph.shapes[0] == (5,)


def test_a_target_makes_one_number_of_an_image(rng):
    x = rng.normal(size=(3, 4, 4, 1)).astype("float32")
    found = create_analyzer("gradient", lambda x: x**2, target=(1, 2, 0)).analyze(x)
    assert np.count_nonzero(found) == 3
    np.testing.assert_allclose(found[:, 1, 2, 0], 2 * x[:, 1, 2, 0], rtol=1e-6)
    found = create_analyzer("gradient", lambda x: [x**2, x**3], target=lambda y: K.mean(y[1][:, 1, :, 0], axis=1))
    wanted = np.zeros(x.shape)
    wanted[:, 1] = 3 * x[:, 1].astype(float) ** 2 / 4
    np.testing.assert_allclose(found.analyze(x), wanted, rtol=1e-5)


@pytest.mark.parametrize("outputs", [lambda x: {"squares": x**2, "cubes": x**3}, lambda x: {"cubes": x**3}])
def test_a_target_is_given_the_outputs_as_the_function_gives_them(outputs, rng):
    x = rng.normal(size=(3, 4)).astype("float32")
    found = create_analyzer("gradient", outputs, target=lambda y: K.sum(y["cubes"], axis=1)).analyze(x)
    np.testing.assert_allclose(found, 3 * x**2, rtol=1e-5)


def test_probabilities_are_warned_of(rng):
    x = rng.normal(size=(10, 4)).astype("float32")
    for head in ("softmax", "sigmoid"):
        model = built(Own(units=3 if head == "softmax" else 1, head=head))
        with pytest.warns(UserWarning, match="look like probabilities"):
            create_analyzer("gradient", model).analyze(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            create_analyzer("gradient", model, target=lambda y: y[:, 0]).analyze(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_analyzer("gradient", built(Own())).analyze(x)


def test_a_state_is_put_back(rng):
    class Counting(Own):
        def __init__(self):
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x):
            self.calls.assign_add(1.0)
            return super().call(x) * self.calls

    model = built(Counting())
    model.calls.assign(2.0)
    x = rng.normal(size=(4, 4)).astype("float32")
    first = create_analyzer("gradient", model).analyze(x)
    assert float(model.calls) == 2.0
    np.testing.assert_array_equal(create_analyzer("gradient", model).analyze(x), first)


# What is refused

X = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("function", "x", "error", "message"),
    [
        (lambda x: x, X.astype("int32"), TypeError, r"floating-point samples .*received \['int32'\]"),
        (lambda x: tf.sign(tf.stop_gradient(x)), X, ValueError, "through which no gradient comes"),
        (lambda x: tf.stop_gradient(x), X, ValueError, "through which no gradient comes"),
        (lambda x: np.zeros((3, 2)), X, TypeError, "convert nothing to NumPy"),
        (lambda x: x[:, :, None], X, ValueError, r"one output of shape \(batch, units\).*give target="),
        (lambda x: [x, x], X, ValueError, r"one output of shape \(batch, units\).*give target="),
        (lambda x: K.sum(x, axis=1), X, ValueError, r"one output of shape \(batch, units\).*give target="),
    ],
    ids=["tokens", "signs", "stopped", "NumPy", "image", "two outputs", "no units"],
)
def test_what_has_no_gradient_or_no_units_is_refused(function, x, error, message):
    with pytest.raises(error, match=message):
        create_analyzer("gradient", function).analyze(x)


@pytest.mark.parametrize("model", [3, "model", None, L.Dense, Own], ids=str)
def test_what_cannot_be_called_is_refused(model):
    with pytest.raises(TypeError, match="expected"):
        create_analyzer("gradient", model)


@pytest.mark.parametrize("option", [{"output_layer": "two"}, {"output": 0}, {"input_layer": "one"}], ids=str)
def test_options_that_name_layers_are_refused(option):
    with pytest.raises(ValueError, match="expected a Sequential or functional model, whose layers"):
        create_analyzer("gradient", built(Own()), **option)


def test_no_file_is_written(tmp_path):
    with pytest.raises(ValueError, match="to save an analyzer of, received Own"):
        create_analyzer("gradient", built(Own())).save(tmp_path / "gradient.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lrp.epsilon", "deep_taylor", "guided_backprop", "pattern.net", "grad_cam", "mipin"])
def test_methods_that_walk_layers_say_which_do_not(name):
    with pytest.raises(ValueError, match="'gradient', 'input_t_gradient', 'integrated_gradients' or 'smoothgrad'"):
        create_analyzer(name, built(Own()))


def test_a_functional_model_is_read_as_a_graph():
    assert type(create_analyzer("gradient", mlp()).graph) is ModelGraph
