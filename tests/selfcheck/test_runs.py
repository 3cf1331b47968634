"""analyzer.check(x): every row passes for a sound model, and fails for one that is made for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras import create_analyzer
from tests.networks import cnn, mlp, with_weights

L, K = keras.layers, keras.ops
NAMES = ["output", "gradient", "map", "alone", "completeness", "unchanged"]


def checked(name, model, x, **options):
    analyzer = create_analyzer(name, model, **options)
    return rows_of(analyzer.check(x))


def rows_of(report):
    assert [row.name for row in report] == NAMES
    return {row.name: row for row in report}


def failed(rows):
    return [name for name, row in rows.items() if row.passed is False]


def around(layer, units=3):
    """A layer of the user's between two Dense ones."""
    return with_weights(keras.Sequential([keras.Input((4,)), L.Dense(5), layer, L.Dense(units)]))


X = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")


class Own(L.Layer):
    """One of a user's, that computes what it is told."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


# Sound models


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient", {}), ("input_t_gradient", {}), ("smoothgrad", {"augment_by_n": 3}), ("integrated_gradients", {}),
        ("lrp.epsilon", {}), ("deep_taylor", {}), ("guided_backprop", {}), ("grad_cam", {}),
        ("pattern.attribution", {"verbose": 0}), ("mipin", {"verbose": 0}),
    ],
)  # fmt: skip
@pytest.mark.few(3)
def test_nothing_fails_for_a_sound_model(name, options, rng):
    model, x = cnn(), rng.random((40, 7, 6, 2)).astype("float32")
    analyzer = create_analyzer(name, model, **options).fit(x)
    report = analyzer.check(x)
    rows = rows_of(report)
    assert report.passed and report.samples == 32 and report.analyzer == name and not failed(rows)
    assert all(rows[name].passed for name in ("output", "gradient", "alone", "unchanged"))
    has_number = name in ("integrated_gradients", "mipin") or name.startswith("lrp")
    assert (rows["completeness"].value is not None) is has_number
    assert rows["completeness"].passed is (True if name == "integrated_gradients" else None)


def test_an_index_is_taken_as_analyze_takes_it(rng):
    analyzer = create_analyzer("lrp.epsilon", mlp(), neuron_selection_mode="index")
    x = rng.normal(size=(5, 12)).astype("float32")
    assert analyzer.check(x, 2).passed and analyzer.check(x, [0, 1, 2, 3, 0]).passed
    with pytest.raises(ValueError, match="neuron_selection"):
        analyzer.check(x)


def test_lrps_number_is_what_the_biases_keep(rng):
    model, x = mlp(), rng.normal(size=(7, 12)).astype("float32")
    analyzer = create_analyzer("lrp.epsilon", model)
    sums, top = analyzer.analyze(x).sum(axis=1, dtype=float), analyzer.logits(x).max(axis=1).astype(float)
    row = rows_of(analyzer.check(x))["completeness"]
    assert row.value == pytest.approx(np.median(np.abs(sums - top) / np.abs(top)), rel=1e-4) and row.value > 1e-3


def test_mipins_number_is_apc(rng):
    model, x = mlp(), rng.normal(size=(60, 12)).astype("float32")
    analyzer = create_analyzer("mipin", model, verbose=0).fit(x)
    row = rows_of(analyzer.check(x[:8]))["completeness"]
    logits, signals = (analyzer.logits(given).astype(float) for given in (x[:8], analyzer.source_signal(x[:8])))
    top = logits.argmax(axis=1)[:, None]
    here, there = (np.take_along_axis(y, top, 1) for y in (logits, signals))
    assert row.value == pytest.approx(np.mean(np.abs(here - there) / np.abs(here)), rel=1e-4)


def test_a_model_without_a_graph_is_called_as_it_is():
    rows = checked("integrated_gradients", lambda x: K.sum(x**2, axis=1, keepdims=True), X)
    assert not failed(rows) and rows["output"].passed is rows["gradient"].passed is None
    assert rows["completeness"].passed and rows["unchanged"].value == 0


def test_tokens_have_no_gradient_to_compare(rng):
    tokens = keras.Input((4,), dtype="int32")
    y = L.GlobalAveragePooling1D()(L.Embedding(9, 3, name="embedding")(tokens))
    model = with_weights(keras.Model(tokens, L.Dense(2)(y)))
    rows = checked("gradient", model, rng.integers(0, 9, (5, 4)).astype("int32"), input_layer="embedding")
    assert not failed(rows) and rows["gradient"].passed is None and rows["output"].passed


# Rows that fail


def test_output_fails_where_a_layer_does_something_else_later():
    sometimes = Own(lambda x: x * sometimes.factor)
    sometimes.factor = 1.0
    analyzer = create_analyzer("gradient", around(sometimes))
    assert analyzer.check(X).passed
    calls = iter([2.0, 1.0])
    sometimes.function = lambda x: x * (next(calls, 1.0))  # by the model, then by its steps
    rows = rows_of(analyzer.check(X))
    assert failed(rows)[0] == "output" and rows["output"].value > 0.1 > rows["output"].limit
    assert "the model's graph does not show" in rows["output"].text


def test_gradient_fails_where_a_layer_has_another_in_the_walk():
    calls = [0]

    @tf.custom_gradient
    def strange(x):
        calls[0] += 1
        factor = float(calls[0])
        return tf.identity(x), lambda signal: signal * factor

    rows = checked("gradient", around(Own(strange)), X)
    assert "gradient" in failed(rows) and "output" not in failed(rows)
    assert rows["gradient"].value > 0.1 and "report this model" in rows["gradient"].text


def test_map_fails_where_it_is_not_finite():
    model = keras.Sequential([keras.Input((4,)), Own(K.sqrt), L.Dense(3)])
    x = np.abs(X)
    x[1, 2] = 0  # the slope of a root is infinite there
    rows = checked("gradient", with_weights(model), x)
    assert rows["map"].passed is False and "NaN or infinity" in rows["map"].text
    x[1, 2] = 1
    assert not failed(checked("gradient", model, x))


def test_nan_is_no_agreement():
    calls = [0]

    @tf.custom_gradient
    def strange(x):
        calls[0] += 1
        factor = float("nan") if calls[0] % 2 else 1.0
        return tf.identity(x), lambda signal: signal * factor

    rows = checked("gradient", around(Own(strange)), X)
    assert "gradient" in failed(rows)


def test_maps_of_zeros_are_counted():
    model = mlp(units=1, head="sigmoid")
    analyzer = create_analyzer("deep_taylor", model)
    x = np.random.default_rng(0).normal(size=(20, 12)).astype("float32")
    negative = analyzer.logits(x)[:, 0] < 0
    assert 0 < negative.sum() < 20
    row = rows_of(analyzer.check(x))["map"]
    assert row.passed is None and row.value == negative.sum() and "targets.negative(unit)" in row.text
    other = create_analyzer("deep_taylor", model, target=mipin_keras.targets.negative(0))
    assert rows_of(other.check(x))["map"].value == (~negative).sum()


def test_alone_fails_where_a_layer_mixes_samples():
    rows = checked("gradient", around(Own(lambda x: x * K.mean(x, axis=0, keepdims=True))), X)
    assert "alone" in failed(rows) and "output" not in failed(rows)
    assert rows["alone"].value > 0.01 and "mixes samples" in rows["alone"].text


def test_alone_fails_where_a_layer_draws_at_random_at_inference():
    class Noisy(L.Layer):
        """With a seed that Keras knows of, whose state is put back: the same draws for each call, not each sample."""

        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(3)

        def call(self, x):
            return K.tanh(x * keras.random.normal(K.shape(x), seed=self.seeds))

    rows = checked("gradient", around(Noisy()), X)
    assert "alone" in failed(rows) and rows["unchanged"].passed


def test_a_layer_that_draws_anew_in_each_call_gives_no_report():
    with pytest.raises(ValueError, match="or draws at random at inference"):
        checked("gradient", around(Own(lambda x: x * tf.random.normal(tf.shape(x)))), X)


@pytest.mark.parametrize("hidden", ["python", "tf.Variable"])
def test_a_state_that_keras_is_not_told_of_gives_no_report(hidden):
    class Counting(L.Layer):
        def __init__(self):
            super().__init__()
            self.calls = [0.0] if hidden == "python" else [tf.Variable(0.0)]

        def call(self, x):
            if hidden == "python":
                self.calls[0] += 1.0
                return x * self.calls[0]
            return x * self.calls[0].assign_add(1.0)

    with pytest.raises(ValueError, match="does something that the model's graph does not show"):
        checked("gradient", around(Counting()), X)


def test_completeness_fails_with_too_few_steps():
    model = with_weights(keras.Sequential([keras.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(3)]))
    few = checked("integrated_gradients", model, 3 * X, steps=1)["completeness"]
    assert few.passed is False and few.value > few.limit and "take more steps=" in few.text
    many = checked("integrated_gradients", model, 3 * X, steps=200, riemann="middle")["completeness"]
    assert many.passed and many.value < 1e-3


def test_unchanged_fails_where_a_layer_changes_a_weight():
    class Learning(L.Layer):
        """Changes a variable that is trained, and so is no state, whenever it is called; the output is the same."""

        def build(self, shape):
            self.passes = self.add_weight(shape=(), initializer="zeros")

        def call(self, x):
            self.passes.assign_add(1.0)
            return x

    rows = checked("gradient", around(Learning()), X)
    assert failed(rows) == ["unchanged"] and rows["unchanged"].value == 1
    assert "Keras is not told of" in rows["unchanged"].text


def test_a_state_that_keras_knows_of_is_put_back():
    class Counting(L.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="ones", trainable=False)

        def call(self, x):
            self.calls.assign_add(1.0)
            return x * self.calls

    model = around(Counting())
    before = [np.array(v) for v in model.variables]
    assert not failed(checked("gradient", model, X))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
