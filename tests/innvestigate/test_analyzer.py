"""iNNvestigate on a tf-keras twin: the same model, the same numbers, and nothing of it left in eager Keras 3."""

import gc
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.innvestigate import analyzer as ours
from mipin_keras.innvestigate.analyzer import INNVESTIGATE, NAMES
from mipin_keras.innvestigate.twin import Twin
from tests.networks import close, cnn, mlp, samples, with_weights

pytest.importorskip("tf_keras")
pytest.importorskip("innvestigate", exc_type=Exception)
if not ours.legacy_keras():
    pytest.skip("tf.keras is not tf-keras", allow_module_level=True)

layers = keras.layers
NEEDED = {
    "lrp": {"rule": "Epsilon"},
    "lrp.alpha_beta": {"alpha": 1, "beta": 0},
    "deep_taylor.bounded": {"low": -1.0, "high": 4.0},
}


def make(name, model, **options):
    return INNVESTIGATE[f"innvestigate:{name}"](model, **(NEEDED.get(name, {}) | options))


def sequential(shape, *between, units=3):
    """A model of these layers, flattened, and a Dense head; weights and statistics that are not the defaults."""
    model = keras.Sequential([keras.Input(shape), *between, layers.Flatten(), layers.Dense(units, name="head")])
    with_weights(model)
    for layer in between:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.abs(layer.moving_variance) + 0.5)
    return model


def gradient_of(model, x, units):
    """The gradient of one logit of each sample, by a tape."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        explained = tf.gather(model(x), units, axis=1, batch_dims=1)
    return tape.gradient(explained, x).numpy()


# The twin

LINE, IMAGE, VOLUME = (9, 2), (8, 7, 2), (5, 6, 4, 2)
ZOO = {
    "dense": (LINE, [layers.Dense(4, "tanh"), layers.Dense(3, use_bias=False)]),
    "conv1d": (LINE, [layers.Conv1D(3, 3, 2, "same", activation="elu"), layers.Conv1D(2, 2, padding="causal")]),
    "conv1d dilated": (LINE, [layers.Conv1D(3, 3, dilation_rate=2, activation="selu"), layers.MaxPooling1D(2)]),
    "conv2d": (IMAGE, [layers.Conv2D(3, 3, activation="relu"), layers.Conv2D(2, (2, 3), (2, 1), "same")]),
    "conv3d": (VOLUME, [layers.Conv3D(3, 2, activation="relu"), layers.AveragePooling3D(2, padding="same")]),
    "depthwise": (IMAGE, [layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")]),
    "depthwise1d": (LINE, [layers.DepthwiseConv1D(3, activation="softplus")]),
    "separable": (IMAGE, [layers.SeparableConv2D(3, 3, strides=2, padding="same", activation="relu")]),
    "separable1d": (LINE, [layers.SeparableConv1D(3, 3)]),
    "transposed": (IMAGE, [layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")]),
    "transposed 1d 3d": (LINE, [layers.Conv1DTranspose(3, 3), layers.Reshape((11, 1, 3, 1)),
                                layers.Conv3DTranspose(2, 2, strides=2)]),
    "pooling": (IMAGE, [layers.MaxPooling2D(3, 2, "same"), layers.AveragePooling2D(2, 1)]),
    "pooling1d": (LINE, [layers.AveragePooling1D(2), layers.GlobalMaxPooling1D()]),
    "global": (IMAGE, [layers.GlobalAveragePooling2D(keepdims=True), layers.GlobalMaxPooling2D()]),
    "global3d": (VOLUME, [layers.MaxPooling3D(2), layers.GlobalAveragePooling3D()]),
    "batch norm": (IMAGE, [layers.BatchNormalization(epsilon=0.1), layers.ReLU(), layers.BatchNormalization(axis=1)]),
    "batch norm plain": (IMAGE, [layers.BatchNormalization(scale=False), layers.BatchNormalization(center=False)]),
    "layer norm": (IMAGE, [layers.LayerNormalization(), layers.LayerNormalization(axis=(1, 2), scale=False)]),
    "shapes": (IMAGE, [layers.Permute((2, 1, 3)), layers.Reshape((14, 8)), layers.Flatten(), layers.RepeatVector(2)]),
    "pads": (IMAGE, [layers.ZeroPadding2D(((1, 0), (2, 1))), layers.Cropping2D(((0, 1), (1, 0))),
                     layers.UpSampling2D((2, 1), interpolation="bilinear")]),
    "pads1d": (LINE, [layers.ZeroPadding1D(2), layers.Cropping1D((1, 0)), layers.UpSampling1D(2)]),
    "pads3d": (VOLUME, [layers.ZeroPadding3D(1), layers.Cropping3D(((0, 1), (1, 0), (0, 0))), layers.UpSampling3D(2)]),
    "noise": (IMAGE, [layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.GaussianNoise(1.0),
                      layers.GaussianDropout(0.5), layers.AlphaDropout(0.5), layers.ActivityRegularization(0.1),
                      layers.Identity()]),
    "activations": (LINE, [layers.LeakyReLU(0.3), layers.ELU(0.7), layers.PReLU(shared_axes=[1]), layers.Softmax(1),
                           layers.ReLU(2.0, 0.1, 0.05), layers.Activation("silu"), layers.Activation("gelu"),
                           layers.Activation("leaky_relu"), layers.Activation("relu6"), layers.Activation("mish")]),
    "own layers": (LINE, [layers.Dense(4, activation="relu6"), layers.Dense(4, activation="leaky_relu"),
                          layers.Dense(4, activation=layers.ReLU(1.0))]),
    "rescaling": (IMAGE, [layers.Rescaling(0.5, offset=-1.0), layers.Activation("exponential")]),
}  # fmt: skip


@pytest.mark.parametrize("case", ZOO)
@pytest.mark.few(7)
def test_the_twin_has_the_models_logits(case):
    shape, between = ZOO[case]
    between = [type(layer).from_config(layer.get_config()) for layer in between]
    model = sequential(shape, *between)
    x = samples(shape, 4) - 0.5
    assert close(Twin(ModelGraph(model)).logits(x), model.predict(x, verbose=0), 2e-5)


def branched():
    """Merges of all kinds, a nested model, a shared layer, operations, and a name of iNNvestigate's own."""
    a = keras.Input((6,), name="in.put")
    shared = layers.Dense(6, "relu", name="shared")
    inner_in = keras.Input((6,))
    inner = keras.Model(inner_in, layers.Dense(6, name="shared")(keras.ops.relu(inner_in)), name="inner")
    b = inner(shared(a))
    c = shared(b)
    d = layers.Add()([a, b, c]) + layers.Average()([a, c]) - b * c
    d = layers.Concatenate()([d, keras.ops.maximum(a, b), layers.Minimum()([a, c]), layers.Subtract()([a, b])])
    d = keras.ops.concatenate([d, layers.Multiply()([b, b]), layers.Maximum()([a, b])], axis=-1)
    d = keras.ops.leaky_relu(keras.ops.elu(keras.ops.tanh(d), 0.3), 0.25)
    d = keras.activations.relu(d, max_value=0.8)
    return with_weights(keras.Model(a, layers.Dense(3, "softmax", name="MaxNeuronSelection")(d)))


def test_nested_shared_merged_and_operations():
    model = branched()
    graph = ModelGraph(model)
    x = samples((6,), 5) - 0.5
    found = Twin(graph).logits(x)
    np.testing.assert_allclose(tf.nn.softmax(found), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
    head = keras.Model(model.inputs, model.layers[-1].input)
    wanted = head.predict(x, verbose=0) @ model.layers[-1].get_weights()[0] + model.layers[-1].get_weights()[1]
    assert close(found, wanted, 1e-5)


def test_a_built_in_activation_stays_in_its_layer():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, "relu"), layers.ReLU(), layers.Activation("relu"), layers.Dense(2, "relu")]
    )
    twin = Twin(ModelGraph(model))
    assert [type(layer).__name__ for layer in twin.model.layers] == [
        "InputLayer", "Dense", "ReLU", "Activation", "Dense",
    ]  # fmt: skip
    assert [layer.activation.__name__ for layer in twin.model.layers if hasattr(layer, "units")] == ["relu", "relu"]


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Named(layers.Dense):
    """Another name, the same computation."""


def test_a_subclass_that_computes_the_same_is_taken():
    model = sequential((4,), Named(3, "relu"))
    assert close(Twin(ModelGraph(model)).logits(samples((4,), 3)), model.predict(samples((4,), 3), verbose=0), 1e-5)


def test_layers_that_tf_keras_cannot_rebuild_are_refused_all_at_once():
    a = keras.Input((4,))
    b = Doubled(4, name="doubled")(a)
    b = layers.Lambda(lambda t: t + 1, output_shape=(4,), name="lambda")(b)
    b = layers.Activation("hard_sigmoid", name="other_formula")(b)
    b = layers.Dense(4, activation=lambda t: t * 2, name="own_activation")(b)
    b = layers.RMSNormalization(name="rms")(b) if hasattr(layers, "RMSNormalization") else b
    b = keras.ops.exp(b) + 1.0
    model = keras.Model(a, layers.Dense(3, name="head")(b))
    with pytest.raises(ValueError, match="that tf-keras can rebuild") as refused:
        make("gradient", model)
    for part in ("'doubled' (Doubled)", "'lambda' (Lambda)", "'other_formula' (Activation)", "own_activation", "(Exp)",
                 "(Add)", "does not begin with 'innvestigate:'"):  # fmt: skip
        assert part in str(refused.value)
    assert "'head'" not in str(refused.value)


def test_settings_that_tf_keras_lacks_are_refused():
    class Louder(layers.Dense):
        def get_config(self):
            return super().get_config() | {"loudness": 3}

    with pytest.raises(ValueError, match=r"'louder' \(Louder\): tf-keras has no loudness=3"):
        make("gradient", sequential((4,), Louder(3, name="louder")))


def test_a_twin_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(Twin, "logits", lambda self, x: np.zeros((2, 4), np.float32))
    with pytest.raises(RuntimeError, match="tf-keras computes something else than Keras 3"):
        make("gradient", mlp())


# The numbers


@pytest.mark.parametrize("model", [mlp, cnn])
def test_the_gradient_is_that_of_keras_3(model):
    model = model()
    x = samples(model.input_shape[1:], 5)
    wanted = gradient_of(model, x, model.predict(x, verbose=0).argmax(axis=1))
    assert close(make("gradient", model).analyze(x), wanted, 1e-5)


def test_the_gradient_of_a_deep_mixed_model():
    model = sequential(
        (8, 8, 2), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.ReLU(),
        layers.Dropout(0.5), layers.MaxPooling2D(2), layers.DepthwiseConv2D(2, activation="relu"),
    )  # fmt: skip
    x = samples((8, 8, 2), 4)
    analyzer = make("gradient", model, neuron_selection_mode="index")
    assert close(analyzer.analyze(x, [0, 1, 2, 0]), gradient_of(model, x, [0, 1, 2, 0]), 1e-5)


def test_the_names_are_those_of_innvestigate():
    assert list(NAMES) == list(ours.import_innvestigate().analyzers)
    assert all(kind.name == name and kind.__doc__ for name, kind in INNVESTIGATE.items())


QUICK = ("gradient", "lrp.epsilon", "deep_taylor")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.medium) for name in NAMES]
)
def test_every_analyzer_runs(name, capsys):
    analyzer = make(name, mlp())
    x = samples((12,), 3)
    found = analyzer.analyze(x)
    assert found.shape == x.shape and found.dtype == np.float32 and np.isfinite(found).all() and found.any()
    if name not in ("random", "smoothgrad"):
        alone = np.concatenate([analyzer.analyze(x[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-6)
    assert capsys.readouterr().out == ""


def test_lrp_and_deep_taylor_keep_the_relevance():
    model = with_weights(keras.Sequential([keras.Input((12,)), layers.Dense(8, "relu", use_bias=False),
                                           layers.Dense(3, use_bias=False)]))  # fmt: skip
    x = samples((12,), 6)
    top = model.predict(x, verbose=0).max(axis=1)
    np.testing.assert_allclose(make("lrp.z", model).analyze(x).sum(axis=1), top, rtol=1e-4)
    np.testing.assert_allclose(make("deep_taylor", model).analyze(x).sum(axis=1), np.maximum(top, 0), rtol=1e-4)


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "integrated_gradients"])
def test_the_neuron_selection_modes(name):
    model, x = mlp(), samples((12,), 4)
    top = model.predict(x, verbose=0).argmax(axis=1)
    index = make(name, model, neuron_selection_mode="index")
    named = index.analyze(x, top)
    assert np.abs(named).max(axis=1).all()
    assert close(make(name, model).analyze(x), named, 1e-5)
    called = make(name, model, neuron_selection_mode=lambda logits: logits.argmax(axis=1))
    assert close(called.analyze(x), named, 1e-5)
    for number in (2, [2], np.int64(2)):
        assert close(index.analyze(x, number), index.analyze(x, [2] * 4), 1e-6)
    assert index.analyze(x, 2).any(axis=1).all()  # with its own int it is 0 for all but the first
    assert close(index.analyze(x, [0, 1, 2, 3], batch_size=3), index.analyze(x, [0, 1, 2, 3]), 1e-5)


def test_all_neurons_at_once():
    model, x = mlp(), samples((12,), 4)
    wanted = sum(gradient_of(model, x, [unit] * 4) for unit in range(4))
    assert close(make("gradient", model, neuron_selection_mode="all").analyze(x), wanted, 1e-5)


def test_another_output_layer():
    model, x = mlp(), samples((12,), 4)
    wanted = gradient_of(keras.Model(model.inputs, model.get_layer("dense2").output), x, [1] * 4)
    analyzer = make("gradient", model, output_layer="dense2", neuron_selection_mode="index")
    assert close(analyzer.analyze(x, 1), wanted, 1e-5)


def test_options_reach_innvestigate():
    model, x = mlp(), samples((12,), 4)
    plain = make("gradient", model).analyze(x)
    np.testing.assert_allclose(make("gradient", model, postprocess="square").analyze(x), plain**2, rtol=1e-5)
    assert not close(make("lrp.epsilon", model, epsilon=1.0).analyze(x), make("lrp.epsilon", model).analyze(x), 1e-2)
    lists = make("lrp", model, rule=["Z", "Epsilon", "Flat"])
    assert lists.options["rule"] == ["Z", "Epsilon", "Flat"] and np.isfinite(lists.analyze(x)).all()


def test_no_known_option_is_one_that_innvestigate_has_not():
    """Each is passed on by itself: what a class has set for good would be said twice, what it lacks be unexpected."""
    analyzers, graph = ours.import_innvestigate().analyzers, ModelGraph(mlp())
    values = {"alpha": 2, "beta": 1, "low": -1, "high": 1, "rule": "Z", "bn_layer_fuse_mode": "one_linear",
              "neuron_selection_mode": "all", "bn_layer_rule": "Z", "augment_by_n": 3, "steps": 3, "epsilon": 0.1,
              "input_layer_rule": "Flat", "stddev": 1, "bias": True, "noise_scale": 2}  # fmt: skip
    twin = Twin(graph)
    for name in NAMES:
        for option in set(INNVESTIGATE[f"innvestigate:{name}"].known_options()) - {"output_layer"}:
            given = NEEDED.get(name, {}) | {option: values.get(option)}
            if option in ("alpha", "beta"):
                given |= {"alpha": 2, "beta": 1}
            with twin.inside():
                analyzers[name](twin.model, **given)


def test_a_changed_model_gets_a_new_twin():
    model, x = mlp(), samples((12,), 4)
    analyzer = make("gradient", model)
    analyzer.analyze(x)
    model.set_weights([2 * weight for weight in model.get_weights()])
    wanted = gradient_of(model, x, model.predict(x, verbose=0).argmax(axis=1))
    assert close(analyzer.analyze(x), wanted, 1e-5)


# What is refused


def test_without_innvestigate_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "innvestigate.analyzer", None)
    with pytest.raises(ImportError) as refused:
        make("gradient", mlp())
    for part in ("pip install 'mipin-keras[innvestigate]'", "--no-deps --ignore-requires-python innvestigate==2.1.2",
                 "TF_USE_LEGACY_KERAS=1 in the environment before"):  # fmt: skip
        assert part in str(refused.value)


def test_a_tf_keras_that_is_keras_3_is_refused(monkeypatch):
    monkeypatch.setattr(ours, "legacy_keras", lambda: False)
    with pytest.raises(ImportError, match=r"tf\.keras is not tf-keras.*set TF_USE_LEGACY_KERAS=1"):
        make("gradient", mlp())
    assert ours.import_innvestigate(check_keras=False).__name__ == "innvestigate.analyzer"


@pytest.mark.medium
def test_importing_the_module_imports_neither():
    code = (
        "import sys, os; os.environ.pop('TF_USE_LEGACY_KERAS', None)\n"
        "import mipin_keras.innvestigate as m\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tf_keras', 'innvestigate'}))\n"
        "assert len(m.INNVESTIGATE) == 28"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr[-2000:]


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(
        TypeError,
        match=r"options of 'innvestigate:gradient', \[.*'output_layer'.*\], received 'a', 'steps', which it has no",
    ):
        make("gradient", mlp(), steps=3, a=1)
    for name, fixed in (("lrp.epsilon", "rule"), ("lrp.z_plus", "alpha"), ("gradient", "_model_checks")):
        with pytest.raises(TypeError, match=f"received '{fixed}', which it has no option for"):
            make(name, mlp(), **{fixed: 1})


def test_what_innvestigate_refuses_is_said():
    softmax = sequential((4,), layers.Dense(4, "softmax"))
    with pytest.raises(
        ValueError,
        match="own gradient takes, received one that it refuses: This analysis method does not support softmax",
    ):
        make("gradient", softmax)
    with pytest.raises(ValueError, match="own lrp to run, received ValueError: Need LRP rule"):
        INNVESTIGATE["innvestigate:lrp"](mlp())
    with pytest.raises(
        ValueError, match="own deep_taylor.bounded to run, received ValueError: The low or high parameter"
    ):
        INNVESTIGATE["innvestigate:deep_taylor.bounded"](mlp())


@pytest.mark.filterwarnings("ignore:LRP is only tested")
def test_a_check_that_is_meant_to_warn_says_how_to_go_past_it():
    model = sequential((4,), layers.Dense(4), layers.ReLU())
    with pytest.raises(RuntimeError, match="disable_model_checks=True skips it"):
        make("lrp.epsilon", model)
    assert np.isfinite(make("lrp.epsilon", model, disable_model_checks=True).analyze(samples((4,), 3))).all()


def test_what_fails_in_innvestigate_is_chained():
    model = sequential((4,), layers.Dense(4), layers.ReLU())
    analyzer = make("deconvnet", model)
    with pytest.raises(
        RuntimeError, match="expected iNNvestigate's own deconvnet to run, received TypeError"
    ) as failed:
        analyzer.analyze(samples((4,), 3))
    assert isinstance(failed.value.__cause__, TypeError)


def test_neuron_selections_are_checked_by_us():
    model, x = mlp(), samples((12,), 3)
    index = make("gradient", model, neuron_selection_mode="index")
    for wrong, said in ((4, "neurons from 0 to 3"), (-1, "neurons from 0 to 3"), ([0, 1], "an int or 3 of them"),
                        (None, "needs neuron_selection"), (0.5, "integers")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            index.analyze(x, wrong)
    with pytest.raises(ValueError, match="only for neuron_selection_mode='index'"):
        make("gradient", model).analyze(x, 1)
    with pytest.raises(ValueError, match="expected neuron_selection_mode"):
        make("gradient", model, neuron_selection_mode="largest")
    with pytest.raises(ValueError, match="neurons from 0 to 3"):
        make("gradient", model, neuron_selection_mode=lambda logits: 9).analyze(x)


@pytest.mark.parametrize("mode", ["max_activation", "index", "all"])
def test_logits_that_are_not_finite_are_refused(mode):
    model = mlp()
    model.layers[-1].bias.assign([np.nan] * 4)
    analyzer = make("gradient", model, neuron_selection_mode=mode)
    with pytest.raises(ValueError, match="expected finite logits"):
        analyzer.analyze(samples((12,), 3), 1 if mode == "index" else None)


# Eager Keras 3 beside it


def state():
    from tf_keras.src import backend
    from tf_keras.src.engine import base_layer_utils

    session = getattr(backend._SESSION, "session", None)
    return base_layer_utils._UNSAFE_GRAPH_OP_LAYER_CREATION, session, tf.executing_eagerly()


def nodes(model):
    return [len(layer._inbound_nodes) for layer in model.layers]


def test_keras_3_is_left_as_it_was():
    model, x = cnn(), samples((7, 6, 2), 3)
    before = model.predict(x, verbose=0), model.get_weights(), nodes(model), state()
    for name in ("gradient", "smoothgrad", "lrp.epsilon"):
        make(name, model).analyze(x)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before[0])
    for found, wanted in zip(model.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert nodes(model) == before[2] and state() == before[3] and state()[2]
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.zeros((3, 3)))


def test_it_is_put_back_after_an_error_too():
    from tf_keras.src import backend

    mine = object()
    backend._SESSION.session = mine
    try:
        analyzer = make("deconvnet", sequential((4,), layers.Dense(4), layers.ReLU()))
        assert state() == (False, mine, True)
        with pytest.raises(RuntimeError, match="deconvnet.* TypeError"):
            analyzer.analyze(samples((4,), 3))
        assert state() == (False, mine, True)
        with analyzer._twin.inside():
            assert state()[0] is True and state()[1] is analyzer._twin._session and not state()[2]
        assert state() == (False, mine, True)
    finally:
        backend._SESSION.session = None


def test_two_analyzers_of_one_model_do_not_disturb_each_other():
    model, x = cnn(), samples((7, 6, 2), 3)
    alone = {name: make(name, model).analyze(x) for name in ("deep_taylor.bounded", "integrated_gradients")}
    together = {name: make(name, model) for name in alone}
    for name in (*alone, *reversed(alone)):
        np.testing.assert_allclose(together[name].analyze(x), alone[name], rtol=1e-5, atol=1e-7)


def test_nothing_keeps_an_analyzer_alive():
    analyzer = make("gradient", mlp())
    analyzer.analyze(samples((12,), 3))
    session = analyzer._twin._session
    kept = [weakref.ref(thing) for thing in (analyzer, analyzer._twin, analyzer._twin._graph)]
    del analyzer
    for _ in range(4):
        gc.collect()
    assert kept[0]() is None and kept[1]() is None
    with pytest.raises(RuntimeError, match="closed"):
        session.run(tf.constant(1))
    del session
    for _ in range(4):
        gc.collect()
    assert kept[2]() is None


# Files


def test_save_and_load(tmp_path):
    model, x = mlp(), samples((12,), 3)
    bounds = {"input_layer_rule": (-1.0, 4.0), "epsilon": 0.3, "neuron_selection_mode": "index"}
    one = make("lrp.sequential_preset_a", model, **bounds)
    path = one.save(tmp_path / "lrp.npz")
    again = type(one)(model, **one.options).load(path)
    assert again.options == one.options and one.options["input_layer_rule"] == [-1.0, 4.0]
    np.testing.assert_array_equal(again.analyze(x, 1), one.analyze(x, 1))
    with pytest.raises(ValueError, match="other options"):
        make("lrp.sequential_preset_a", model).load(path)


def test_numpys_numbers_are_saved_as_numbers(tmp_path):
    model, x = mlp(), samples((12,), 3)
    given = make("lrp.epsilon", model, epsilon=np.float32(0.5), bias=np.bool_(True))
    assert given.options["epsilon"] == 0.5 and type(given.options["epsilon"]) is float and given.options["bias"] is True
    plain = make("lrp.epsilon", model, epsilon=0.5, bias=True).load(given.save(tmp_path / "lrp.npz"))
    np.testing.assert_array_equal(plain.analyze(x), given.analyze(x))


def test_what_json_does_not_hold_cannot_be_saved(tmp_path):
    analyzer = make("deep_taylor.bounded", mlp(), low=np.zeros((1, 12), np.float32))
    with pytest.raises(ValueError, match=r"expected options that a file can hold, received \{'low'"):
        analyzer.save(tmp_path / "a.npz")


@pytest.mark.parametrize("mode", ["max_activation", "index", "all"])
def test_classes_pixels_and_no_layers(mode):
    model = cnn()
    x = samples((7, 6, 2), 7)
    analyzer = make("lrp.epsilon", model, neuron_selection_mode=mode)
    wanted = make("lrp.epsilon", model, neuron_selection_mode="index").analyze(x, 2)
    assert close(analyzer.analyze_class(x, 2, batch_size=3), wanted.mean(axis=0, dtype=np.float64), 1e-5)
    chosen = 2 if mode == "index" else None
    maps = analyzer.analyze(x, chosen)
    assert close(analyzer.analyze(x, chosen, reduce="mean", batch_size=3), maps.mean(axis=-1), 1e-5)
    with pytest.raises(
        NotImplementedError, match="received 'innvestigate:lrp.epsilon', which explains the model's input alone"
    ):
        analyzer.analyze_layers(x, chosen)
