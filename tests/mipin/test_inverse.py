"""Which inverse a layer gets, registering one's own, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.graph.model_graph import ModelGraph, Step
from mipin_keras.mipin import inverse as rules
from mipin_keras.mipin.layers.dense import DenseInverse
from mipin_keras.mipin.network import InverseNetwork
from tests.networks import close, fitted_weights, inverse_of, mlp, step_of, with_weights

L = keras.layers


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(rules, "_INVERSES", dict(rules._INVERSES))


class Scale(L.Layer):
    """y = 3 x + 1."""

    def call(self, x):
        return 3 * x + 1


class Louder(L.Dense):
    """Dense with another call()."""

    def call(self, x):
        return 2 * super().call(x)


class Blank(L.CenterCrop):
    """Cropping with another hook of an image layer."""

    def transform_images(self, images, transformation=None, training=True):
        return 0 * super().transform_images(images, transformation, training)


class Renamed(L.Dense):
    """Dense with another name."""


def found(layer):
    """The inverse for a layer, in a model or not."""
    return rules.find_inverse(Step(0, "name", layer, False, (0,), 1, ((3,),), (3,), ((), {})))


def test_a_users_own_layer(registry, rng):
    model = with_weights(keras.Sequential([keras.Input((4,)), Scale(name="scale"), L.Dense(3, name="head")]))
    x = rng.normal(size=(30, 4)).astype("float32")
    with pytest.raises(ValueError) as refused:
        mipin_keras.create_analyzer("mipin", model)
    for part in ("'scale'", "Scale", "@mipin_keras.register_inverse(Scale)", __name__, "input_layer"):
        assert part in str(refused.value)

    @mipin_keras.register_inverse(Scale)
    class ScaleInverse(mipin_keras.Inverse):
        def source(self, signal, record, weights):
            return (signal - 1) / 3

        def attribution(self, signal, record, weights):
            return signal / 3

    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0).fit(x)
    # the same as a model that sees the scaled input, in its own units
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    inner.set_weights(model.get_weights())
    other = mipin_keras.create_analyzer("mipin", inner, verbose=0).fit(3 * x + 1)
    np.testing.assert_allclose(analyzer.analyze(x), other.analyze(3 * x + 1) / 3, rtol=1e-5, atol=1e-6)
    wanted = (other.source_signal(3 * x + 1) - 1) / 3
    np.testing.assert_allclose(analyzer.source_signal(x), wanted, rtol=1e-5, atol=1e-6)


def test_a_record_of_ones_own_follows_its_sample(registry, rng):
    class Sign(L.Layer):
        def call(self, x):
            return x * x

    @mipin_keras.register_inverse(Sign)
    class SignInverse(mipin_keras.Inverse):
        def record(self, x, y):
            return (tf.sign(x),)

        def source(self, signal, record, weights):
            return tf.sqrt(tf.abs(signal)) * tf.cast(record[0], signal.dtype)

    model = with_weights(keras.Sequential([keras.Input((4,)), Sign(), L.Dense(3)]))
    x = rng.normal(size=(30, 4)).astype("float32")
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0, neuron_selection_mode="index").fit(x)
    both = analyzer.source_signal(x, np.arange(30) % 3)
    np.testing.assert_array_equal(np.sign(both), np.sign(x))
    np.testing.assert_allclose(analyzer.source_signal(x[4:5], 1), both[4:5], rtol=1e-5)


def test_a_subclass_that_keeps_its_call_is_covered_and_one_that_does_not_is_not(registry):
    assert found(Renamed(2)) is DenseInverse
    assert isinstance(inverse_of(Renamed(2), (3,)), DenseInverse)
    assert found(Louder(2)) is None
    with pytest.raises(ValueError, match=r"'loud' \(Louder\).*register_inverse\(Louder\)"):
        inverse_of(Louder(2, name="loud"), (3,))

    @mipin_keras.register_inverse(Louder)
    class LouderInverse(DenseInverse):
        pass

    assert type(inverse_of(Louder(2), (3,))) is LouderInverse
    assert found(Renamed(2)) is DenseInverse  # the nearest base, not the newest entry


@pytest.mark.skipif(not hasattr(L.CenterCrop, "transform_images"), reason="older Keras has no such hook")
def test_an_image_layer_with_a_hook_of_its_own_is_not_covered():
    assert found(Blank(2, 2)) is None and found(L.CenterCrop(2, 2)) is not None


def test_registering_again_replaces_and_several_types_share(registry):
    class A(L.Layer):
        pass

    class B(L.Layer):
        pass

    @mipin_keras.register_inverse(A, B)
    class First(mipin_keras.Inverse):
        pass

    @mipin_keras.register_inverse(B)
    class Second(mipin_keras.Inverse):
        pass

    assert found(A()) is First and found(B()) is Second


@pytest.mark.parametrize("wrong", [(), (3,), ("Dense",), (int,), (L.Dense(2),), (L.Dense, None)])
def test_wrong_layer_types_are_refused(wrong, registry):
    before = dict(rules._INVERSES)
    with pytest.raises(TypeError, match="register_inverse|subclasses of keras.layers.Layer"):
        mipin_keras.register_inverse(*wrong)
    assert rules._INVERSES == before


@pytest.mark.parametrize("wrong", [int, 3, lambda step: None, L.Dense])
def test_a_class_that_is_no_inverse_is_refused(wrong, registry):
    with pytest.raises(TypeError, match=r"expected a subclass of mipin_keras\.Inverse, received"):
        mipin_keras.register_inverse(Scale)(wrong)
    assert found(Scale()) is None


def test_an_inverse_without_source_says_so(registry):
    @mipin_keras.register_inverse(Scale)
    class Empty(mipin_keras.Inverse):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty to define source\(\)"):
        inverse_of(Scale(), (3,)).source(tf.ones((1, 3)), (), ())


@pytest.mark.parametrize(
    "layer",
    [
        L.LSTM(2), L.EinsumDense("abcd,de->abce", (6, 6, 3)), L.Bidirectional(L.GRU(2)),
        L.Lambda(lambda x: 2 * x, output_shape=lambda s: s),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_an_unknown_layer_is_refused_by_name_and_type(layer):
    shape = (6, 6, 2) if type(layer).__name__ not in ("LSTM", "Bidirectional") else (4, 3)
    with pytest.raises(ValueError, match=rf"'{layer.name}' \({type(layer).__name__}\).*register_inverse"):
        inverse_of(layer, shape)


def test_lambda_is_refused_with_what_to_write_instead():
    problem = r"'mine' \(Lambda\), which hides .*keras\.ops.*layer of your own.*register_inverse"
    with pytest.raises(ValueError, match=problem):
        inverse_of(L.Lambda(lambda x: 2 * x, output_shape=lambda s: s, name="mine"), (3,))


def functional(merge):
    a = keras.Input((4,))
    b, c = L.Dense(3, name="left")(a), L.Dense(3, name="right")(a)
    return keras.Model(a, L.Dense(2)(merge([b, c])))


def test_merges_that_have_no_inverse_are_refused_by_name():
    class Odd(L.Add):
        def call(self, inputs):
            return inputs[0] + 2 * inputs[1]

    for kind in (L.Multiply(name="joint"), L.Dot(1, name="joint"), Odd(name="joint")):
        graph = ModelGraph(functional(kind))
        with pytest.raises(ValueError, match=rf"'joint' \({type(kind).__name__}\).*register_inverse"):
            InverseNetwork(graph, (graph.input,))
        InverseNetwork(graph, (graph.tensor_after("joint"),))  # above it there is nothing to refuse


def test_operations_that_are_unknown_are_refused():
    a = keras.Input((4,))
    made = keras.ops.exp(a), keras.ops.cumsum(a, axis=1), keras.ops.concatenate([a, a], axis=0)
    for tensor in made:
        graph = ModelGraph(keras.Model(a, L.Dense(2)(tensor)))
        with pytest.raises(ValueError, match="knows an inverse for|joins samples|static shape"):
            InverseNetwork(graph, (graph.input,))


def test_all_problems_are_said_at_once_before_any_work():
    layers = [Scale(name="one"), L.EinsumDense("abcd,de->abce", (6, 6, 2), name="two"), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    with pytest.raises(ValueError) as refused:
        mipin_keras.create_analyzer("mipin", model)
    assert "'one' (Scale)" in str(refused.value) and "'two' (EinsumDense)" in str(refused.value)
    assert str(refused.value).count("input_layer=") >= 1


def test_an_open_axis_is_refused():
    model = keras.Sequential([keras.Input((None, 3)), L.Conv1D(2, 3, name="open"), L.GlobalMaxPooling1D(), L.Dense(2)])
    with pytest.raises(ValueError, match=r"'open' \(Conv1D\).*static shape.*\(None, 3\)"):
        mipin_keras.create_analyzer("mipin", model)


def test_keras_activation_operations_have_the_activations_inverse():
    a = keras.Input((4,))
    graph = ModelGraph(keras.Model(a, L.Dense(2)(keras.ops.relu(L.Dense(3)(a)))))
    network = InverseNetwork(graph, (graph.input,))
    assert [type(network.inverses[step.index]).__name__ for step in graph.steps] == [
        "DenseInverse", "ActivationInverse", "DenseInverse",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Dense(3), (4,)), (L.BatchNormalization(), (4, 3)), (L.Conv2D(2, 2), (4, 4, 3)), (L.ReLU(), (4,)),
        (L.MaxPooling2D(2), (4, 4, 1)), (L.MaxPooling2D(3, 1), (4, 4, 1)), (L.AveragePooling2D(2), (4, 4, 1)),
        (L.GlobalMaxPooling2D(), (4, 4, 1)), (L.GlobalAveragePooling2D(), (4, 4, 1)), (L.Flatten(), (4, 2)),
        (L.Permute((2, 1)), (4, 2)), (L.ZeroPadding2D(1), (4, 4, 1)), (L.Cropping2D(1), (4, 4, 1)),
        (L.UpSampling2D(2), (4, 4, 1)), (L.Dropout(0.5), (4,)), (L.LayerNormalization(), (4, 3)),
        (L.GroupNormalization(2), (3, 3, 4)), (L.UnitNormalization(), (4,)), (L.Rescaling(0.1, -1), (4, 4, 3)),
        (L.PReLU(), (4,)), (L.RepeatVector(3), (4,)), (L.Resizing(3, 5), (4, 4, 1)), (L.CenterCrop(2, 3), (4, 4, 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)  # fmt: skip
@pytest.mark.few(10)
def test_a_signal_keeps_its_dtype(layer, shape, dtype, rng):
    inverse = inverse_of(layer, shape)
    x = tf.constant(rng.normal(size=(5, *shape)), tf.float32)
    y = tf.convert_to_tensor(layer(x))
    weights = ()
    if inverse.learned:
        weights = tuple(w.astype(dtype) for w in fitted_weights(inverse, y, x, 1e-3, inverse.record(x, y)))
    signal = tf.cast(y, dtype)
    for apply in (inverse.source, inverse.attribution):
        found = apply(signal, inverse.record(x, y), weights)
        assert found.dtype == dtype and found.shape == x.shape
        other = "float64" if dtype == "float32" else "float32"
        again = apply(tf.cast(y, other), inverse.record(x, y), tuple(w.astype(other) for w in weights))
        assert close(found, again, 1e-5)


def test_what_an_inverse_knows():
    step = step_of(L.Dense(3), (4,))
    inverse = rules.make_inverse(step, forward_relu=False)
    assert (inverse.step, inverse.layer, inverse.input_shape, inverse.output_shape) == (step, step.layer, (4,), (3,))
    assert inverse.forward_relu is False and inverse.learned
    assert not mipin_keras.Inverse(step).learned and mipin_keras.Inverse(step).record(None, None) == ()


def test_the_head_of_a_model_reads_its_logit_alone():
    graph = ModelGraph(mlp())
    network = InverseNetwork(graph, (graph.input,))
    shapes = [network.regression(node).weight_shapes[0] for node in network.learned]
    assert shapes == [(1, 8), (8, 10), (10, 12)] and network.head.narrow
