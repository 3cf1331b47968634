"""The inverse of a class as a Keras model: it gives the source signals, saves, trains, and goes back."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras import InverseModel, NotFittedError, create_analyzer
from tests.networks import close, cnn, mlp, residual, samples, with_weights

L = keras.layers
IMAGE = (7, 6, 2)


@keras.saving.register_keras_serializable(package="test_inverse_model")
class Halve(L.Layer):
    """A user's layer, with an inverse that records something."""

    def call(self, x):
        return x / 2


@mipin_keras.register_inverse(Halve)
class HalveInverse(mipin_keras.Inverse):
    def record(self, x, y):
        return (tf.fill(tf.shape(y), tf.constant(2.0, y.dtype)), y > 1e9)

    def source(self, signal, record, weights):
        factor, never = record
        return tf.where(never, tf.zeros((), signal.dtype), signal * tf.cast(factor, signal.dtype))


@keras.saving.register_keras_serializable(package="test_inverse_model")
class Blend(L.Layer):
    """A user's layer of two tensors; its inverse gives the second one nothing."""

    def call(self, x, y):
        return x + 0 * y


@mipin_keras.register_inverse(Blend)
class BlendInverse(mipin_keras.Inverse):
    merges = True

    def carries(self, tensor_ids):
        return (tensor_ids[0], None)

    def source(self, signal, record, weights):
        return signal, None


def functional(layers_of, shape=IMAGE, units=3):
    x = keras.Input(shape, name="pixels")
    y = layers_of(x)
    y = y if len(y.shape) == 2 else L.Flatten(name="flat")(y)
    return with_weights(keras.Model(x, L.Dense(units, name="head")(y)))


def sequential(*layers, shape=IMAGE, units=3):
    def chain(x):
        for layer in layers:
            x = layer(x)
        return x

    return functional(chain, shape, units)


def gated():
    def layers_of(x):
        y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
        z = L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
        return L.Multiply(name="gate")([y, L.Conv2D(4, 1, activation="sigmoid", name="excite")(z)])

    return functional(layers_of)


def branches():
    def layers_of(x):
        y = L.Conv2D(3, 3, padding="same", activation="relu", name="one")(x)
        z = L.Conv2D(3, 1, activation="relu", name="two")(x)
        return L.Concatenate(name="join")([L.Maximum(name="most")([y, z]), z, L.Subtract(name="less")([y, z])])

    return functional(layers_of)


def nested():
    inner = keras.Sequential([keras.Input((12,)), L.Dense(12, "relu", name="deep")], name="inner")
    return functional(lambda x: inner(inner(x)), (12,))


def own():
    def layers_of(x):
        y = L.Dense(8, "relu", name="dense")(Halve(name="halve")(x))
        return Blend(name="blend")(y, L.Dense(8, name="beside")(x))

    return functional(layers_of, (12,))


def of_dtype(policy):
    def make():
        layers = [L.Conv2D(3, 3, activation="relu"), L.BatchNormalization(), L.MaxPooling2D(2), L.Flatten(), L.Dense(3)]
        for layer in layers:
            layer.dtype_policy = keras.dtype_policies.DTypePolicy(policy)
        model = keras.Sequential([keras.Input(IMAGE, dtype="float32"), *layers])
        return with_weights(model)

    return make


def kinds():
    return sequential(
        L.Rescaling(2.0, 0.5), L.ZeroPadding2D(1), L.Conv2D(4, 3, strides=2), L.BatchNormalization(), L.ReLU(),
        L.Dropout(0.5), L.DepthwiseConv2D(3, padding="same", depth_multiplier=2), L.UpSampling2D(2),
        L.AveragePooling2D(2), L.Conv2D(4, 3, padding="same", groups=2, activation="elu"), L.MaxPooling2D(2, 1),
        L.Conv2DTranspose(3, 2), L.LayerNormalization(), L.Permute((2, 1, 3)), L.Cropping2D(((0, 1), (0, 0))),
        L.Reshape((-1, 3)), L.Conv1D(4, 3, padding="causal", activation="tanh"), L.GroupNormalization(2),
        L.Dense(5, activation="relu"), L.GlobalAveragePooling1D(),
    )  # fmt: skip


def operations():
    def layers_of(x):
        y = keras.ops.relu(L.Conv2D(3, 3, name="conv")(x)) * 2.0 - 1.0
        return keras.ops.max(keras.ops.transpose(y, (0, 3, 1, 2)), axis=1) + 0.5

    return functional(layers_of)


def separable():
    return sequential(L.SeparableConv2D(4, 3, activation="relu", name="sep"), L.GlobalMaxPooling2D())


def fan_out():
    def layers_of(x):
        y = L.Dense(6, "relu", name="dense")(x)
        return L.Add(name="add")([y, L.Dense(6, name="side")(y), L.Dense(6, name="other")(x)])

    return functional(layers_of, (12,))


CASES = {
    "mlp": (mlp, {}),
    "softmax": (lambda: mlp(head="softmax"), {}),
    "global": (cnn, {"forward_relu": False}),
    "mask": (mlp, {"mask_input": True}),
    "cnn": (cnn, {}),
    "class": (cnn, {"samples": "class"}),
    "to a layer": (cnn, {"input_layer": "conv"}),
    "to a layer without its mask": (cnn, {"input_layer": "conv", "mask_input": False}),
    "of a layer": (mlp, {"output_layer": "dense2"}),
    "residual": (residual, {}),
    "residual full": (residual, {"merge": "full"}),
    "residual global": (residual, {"forward_relu": False}),
    "gated": (gated, {}),
    "gated global": (gated, {"forward_relu": False}),
    "branches": (branches, {}),
    "nested and shared": (nested, {}),
    "inside a nested model": (nested, {"input_layer": "inner"}),
    "own inverses": (own, {}),
    "float16": (of_dtype("float16"), {}),
    "mixed precision": (of_dtype("mixed_bfloat16"), {}),
    "kinds": (kinds, {}),
    "operations": (operations, {}),
    "separable": (separable, {}),
    "fan-out of the input": (fan_out, {"merge": "full"}),
    "a head that is no Dense layer": (lambda: with_weights(keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(3, 3, activation="relu", name="conv"), L.GlobalAveragePooling2D()])), {}),
}  # fmt: skip


def fitted(make, **options):
    model = make()
    x = samples(model.input_shape[1:], 40)
    options = {"verbose": 0, "neuron_selection_mode": "index", "classes": [1], "rows": None} | options
    return create_analyzer("mipin", model, **options).fit(x), x


@pytest.mark.filterwarnings("ignore:.*fewer than")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.few(7)
def test_it_gives_the_source_signal(case, tmp_path):
    make, options = CASES[case]
    analyzer, x = fitted(make, **options)
    wanted = analyzer.source_signal(x, 1)
    assert np.abs(wanted).max() > 1e-3
    model = analyzer.inverse_model(1)
    assert isinstance(model, InverseModel) and model.input_shape == (None, *x.shape[1:])
    assert model.output_shape == (None, *wanted.shape[1:])
    found = np.asarray(model(x))
    assert found.dtype == np.float32 and close(found, wanted, 1e-5)
    # Saved and loaded, it is the same.
    model.save(tmp_path / "inverse.keras")
    loaded = keras.models.load_model(tmp_path / "inverse.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert close(loaded(x), wanted, 1e-5)
    # At every layer.
    layers = analyzer.analyze_layers(x, 1)
    every = analyzer.inverse_model(1, outputs="all")(x)
    assert set(every) == set(layers)
    for name, at in layers.items():
        assert close(every[name], at.source_signal, 1e-5)
    # A saved analyzer gives the same model.
    again = mipin_keras.load_analyzer(analyzer.save(tmp_path / "fit.npz"), analyzer.model)
    assert close(again.inverse_model(1)(x), wanted, 1e-5)


@pytest.mark.parametrize(
    "case", ["residual", "gated", "nested and shared", pytest.param("kinds", marks=pytest.mark.medium)]
)
@pytest.mark.medium
def test_training_reaches_every_inverse_and_not_the_explained_model(case):
    make, options = CASES[case]
    analyzer, x = fitted(make, **options)
    explained, model = analyzer.model, analyzer.inverse_model(1)
    shared = {id(variable) for variable in explained.weights}
    assert not shared & {id(v) for v in model.trainable_weights} and shared < {id(v) for v in model.weights}
    assert not model.get_layer("explained").trainable_weights
    kept = explained.get_weights()
    old, trainable = model.inverse_weights(), [v.trainable for v in explained.weights]
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(x - model(x, training=True)))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    assert all(g is not None for g in gradients)
    losses = model.fit(x, x, epochs=4, batch_size=20, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0]
    for index, weights in model.inverse_weights().items():
        assert any((w != before).any() for w, before in zip(weights, old[index], strict=True))
    # The user's model is as it was: its weights, its statistics, what it trains.
    for variable, before, flag in zip(explained.weights, kept, trainable, strict=True):
        np.testing.assert_array_equal(variable, before)
        assert variable.trainable == flag
    assert explained.trainable and all(layer.trainable for layer in explained.layers)
    np.testing.assert_array_equal(model(x, training=True), model(x))  # dropout is off, statistics are those learned


def test_a_trained_model_goes_back_into_the_analyzer(tmp_path):
    analyzer, x = fitted(lambda: mlp(units=3), classes=[0, 1])
    others = analyzer.source_signal(x, 0)
    model = analyzer.inverse_model(1)
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(x, x, epochs=5, verbose=0)
    before = analyzer.source_signal(x, 1)
    report = analyzer.fit_report
    analyzer.set_inverse(1, model)
    trained = np.asarray(model(x))
    assert not close(before, trained, 0.01) and close(analyzer.source_signal(x, 1), trained, 1e-6)
    np.testing.assert_array_equal(analyzer.source_signal(x, 0), others)
    # The attribution by hand: the products of the trained kernels, masked by what the model's neurons did.
    net = analyzer.model
    one = np.maximum(x @ net.get_weights()[0] + net.get_weights()[1], 0)
    two = np.maximum(one @ net.get_weights()[2] + net.get_weights()[3], 0)
    logit = (two @ net.get_weights()[4] + net.get_weights()[5])[:, 1:2]
    kernels = {name: model.get_layer(f"{name}_inverse").weights[0].numpy() for name in ("head", "dense2", "dense1")}
    wanted = (((logit @ kernels["head"]) * (two != 0)) @ kernels["dense2"] * (one != 0)) @ kernels["dense1"]
    assert close(analyzer.analyze(x, 1), wanted, 1e-5)
    # The report says that the error of this class is not known, and that of the other is.
    for line, old in zip(analyzer.fit_report, report, strict=True):
        if line["class"] == 0:
            assert line == old
        else:
            assert np.isnan([line["mse"], line["relative"]]).all() and line["samples"] == old["samples"]
    assert analyzer.reconstruction_errors(x)[-1]["mse"] == pytest.approx(np.square(x - trained).mean(), rel=1e-4)
    again = mipin_keras.load_analyzer(analyzer.save(tmp_path / "fit.npz"), net)
    assert close(again.source_signal(x, 1), trained, 1e-6) and np.isnan(again.fit_report[-1]["mse"])


def test_an_untouched_model_changes_nothing(tmp_path):
    analyzer, x = fitted(cnn)
    report, wanted = analyzer.fit_report, analyzer.source_signal(x, 1)
    analyzer.inverse_model(1).save(tmp_path / "inverse.keras")
    analyzer.set_inverse(1, keras.models.load_model(tmp_path / "inverse.keras"))
    assert analyzer.fit_report == report
    np.testing.assert_array_equal(analyzer.source_signal(x, 1), wanted)


def test_names_are_those_of_the_layers():
    analyzer, _ = fitted(residual)
    names = [layer.name for layer in analyzer.inverse_model(1).layers]
    assert names[2:] == [
        "head_inverse", "flatten_inverse", "pool_inverse", "add_inverse", "conv2_relu_inverse", "conv2_inverse",
        "relu_merge_inverse", "relu_inverse", "bn_inverse", "conv_inverse",
    ]  # fmt: skip
    assert names[1] == "explained"
    analyzer, _ = fitted(nested)
    names = [layer.name for layer in analyzer.inverse_model(1).layers]
    assert names == ["pixels", "explained", "head_inverse", "inner_2_deep_relu_inverse", "inner_2_deep_inverse",
                     "inner_deep_relu_inverse", "inner_deep_inverse"]  # fmt: skip


def test_a_summary_and_a_plot(tmp_path, capsys):
    model = fitted(residual)[0].inverse_model(1)
    model.summary()
    assert "relu_merge_inverse" in capsys.readouterr().out
    try:
        keras.utils.plot_model(model, tmp_path / "model.png", show_shapes=True)
    except ImportError as problem:
        pytest.skip(str(problem))
    assert (tmp_path / "model.png").exists()


@pytest.mark.medium
def test_a_compiled_one_goes_on_training(tmp_path):
    analyzer, x = fitted(cnn)
    model = analyzer.inverse_model(1)
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(x, x, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "inverse.keras")
    loaded = keras.models.load_model(tmp_path / "inverse.keras")
    np.testing.assert_allclose(loaded.evaluate(x, x, verbose=0), model.evaluate(x, x, verbose=0), rtol=1e-5)
    histories = [each.fit(x, x, verbose=0, shuffle=False).history["loss"][0] for each in (model, loaded)]
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_an_explained_model_that_was_compiled(tmp_path):
    model = mlp()
    model.compile(keras.optimizers.Adam(), loss=lambda a, b: keras.ops.mean(a - b))  # Keras cannot save this loss
    x = samples((12,), 40)
    analyzer = create_analyzer("mipin", model, verbose=0, neuron_selection_mode="index", classes=1).fit(x)
    analyzer.inverse_model(1).save(tmp_path / "inverse.keras")
    assert close(keras.models.load_model(tmp_path / "inverse.keras")(x), analyzer.source_signal(x, 1), 1e-6)


@pytest.mark.medium
def test_another_process_loads_it(tmp_path):
    analyzer, x = fitted(own)
    analyzer.inverse_model(1).save(tmp_path / "inverse.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, json, numpy as np, keras, mipin_keras, tests.mipin.test_inverse_model\n"
        "folder = sys.argv[1]\n"
        "model = keras.models.load_model(folder + '/inverse.keras')\n"
        "print(json.dumps(np.asarray(model(np.load(folder + '/x.npy'))).tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert close(json.loads(done.stdout.splitlines()[-1]), analyzer.source_signal(x, 1), 1e-5)


# Bad input


@pytest.mark.parametrize("unit", [True, 1.0, "1", None, [1], [0, 1], (1,), 3, -1, np.array([1])])
@pytest.mark.few(3)
def test_a_unit_that_is_none(unit):
    analyzer, _ = fitted(cnn)
    model = analyzer.inverse_model(1)
    for call in (lambda: analyzer.inverse_model(unit), lambda: analyzer.set_inverse(unit, model)):
        with pytest.raises(ValueError, match="expected unit to be an int from 0 to 2, received"):
            call()


def test_numpy_integers_are_units():
    analyzer, x = fitted(cnn)
    assert close(analyzer.inverse_model(np.int64(1))(x), analyzer.source_signal(x, 1), 1e-6)


def test_before_a_fit_and_of_other_classes():
    analyzer, _ = fitted(cnn)
    model = analyzer.inverse_model(1)
    fresh = create_analyzer("mipin", cnn(), verbose=0)
    for call in (lambda: fresh.inverse_model(1), lambda: fresh.set_inverse(1, model)):
        with pytest.raises(NotFittedError, match="not fitted"):
            call()
    for call in (lambda: analyzer.inverse_model(2), lambda: analyzer.set_inverse(2, model)):
        with pytest.raises(NotFittedError, match=r"received classes \[2\]"):
            call()


@pytest.mark.parametrize("outputs", ["some", True, 0, ["all"]])
def test_other_outputs(outputs):
    with pytest.raises(ValueError, match="expected outputs to be one of"):
        fitted(mlp)[0].inverse_model(1, outputs)


def refused(analyzer, model, message, error=ValueError, unit=1):
    weights, report = analyzer.network.weights, analyzer.fit_report
    with pytest.raises(error, match=message):
        analyzer.set_inverse(unit, model)
    assert analyzer.network.weights is weights and analyzer.fit_report is report


def test_models_that_are_not_of_the_analyzer():
    analyzer, x = fitted(lambda: mlp(units=3), classes=[0, 1])
    refused(analyzer, analyzer.model, "expected an inverse model, received", TypeError)
    refused(analyzer, None, "expected an inverse model, received", TypeError)
    refused(analyzer, analyzer.inverse_model(0), "it is of class 0")
    other, _ = fitted(lambda: mlp(units=3, seed=9))
    refused(analyzer, other.inverse_model(1), "its weights are others")
    other, _ = fitted(lambda: mlp(units=3, activation="elu"))
    refused(analyzer, other.inverse_model(1), "it has other layers")
    other, _ = fitted(lambda: mlp(units=3), forward_relu=False)
    refused(analyzer, other.inverse_model(1), "it has forward_relu=False, the analyzer True")
    other, _ = fitted(lambda: mlp(units=3), mask_input=True, input_layer="dense1")
    refused(analyzer, other.inverse_model(1), "input_layer='dense1'")
    same, _ = fitted(lambda: mlp(units=3), ridge=5.0)  # the same model and structure, other weights of the inverse
    analyzer.set_inverse(1, same.inverse_model(1))
    assert close(analyzer.source_signal(x, 1), same.source_signal(x, 1), 1e-6)


def test_weights_that_are_no_inverse():
    analyzer, _ = fitted(mlp)
    model = analyzer.inverse_model(1)
    for variable in model.get_layer("dense2_inverse").weights:
        variable.assign(variable * np.nan)
    refused(analyzer, model, r"finite weights, received NaN or infinity in the inverses of \['dense2'\]")


def test_an_explained_model_that_changed():
    analyzer, _ = fitted(mlp)
    model = analyzer.inverse_model(1)
    kernel = analyzer.model.layers[0].kernel
    kernel.assign(kernel + 1)
    refused(analyzer, model, "weights have changed", NotFittedError)
    with pytest.raises(NotFittedError, match="weights have changed"):
        analyzer.inverse_model(1)


def test_a_layer_of_other_weights_is_refused():
    class Odd(mipin_keras.Inverse):
        def source(self, signal, record, weights):
            return 2 * signal

        def keras_layer(self, name):
            layer = L.Dense(12, name=name)
            layer.build((None, 12))
            return layer

    from mipin_keras.mipin import inverse

    kept = dict(inverse._INVERSES)
    try:
        mipin_keras.register_inverse(Halve)(Odd)
        analyzer, _ = fitted(own)
        with pytest.raises(ValueError, match="expected the Keras layer of Odd for 'halve' to hold weights"):
            analyzer.inverse_model(1)
    finally:
        inverse._INVERSES.clear()
        inverse._INVERSES.update(kept)
