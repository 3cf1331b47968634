"""What every analyzer of the registry keeps to. That each option changes the numbers is in test_registry.py."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import NotFittedError, analyzers, create_analyzer, load_analyzer, registry
from tests.networks import NEEDED, close, cnn, mlp, residual, samples

# Options that keep a fit short, where an analyzer has them.
QUICK = {"epochs": 1, "verbose": 0}
MODELS = {"cnn": cnn, "mlp": lambda: mlp(head="softmax"), "residual": residual}
OURS = [name for name in analyzers() if not name.startswith("innvestigate:")]
# One method of each family is tried on every model, the others, which differ from it in a rule, on the first.
FAMILIES = [
    "mipin", "mipin.trained", "gradient", "smoothgrad", "guided_backprop", "lrp.sequential_preset_b", "deep_taylor",
    "pattern.attribution", "grad_cam", "mi.total",
]  # fmt: skip
# They explain what a representation knows, and so no output neuron.
NO_NEURON = ("mi.total", "mi.decision", "mi.redundant")
# What a method is not made for, which is a test of its own.
NOT_FOR = {
    ("grad_cam", "mlp"): "'grad_cam' .*feature map.* no convolution",
    ("mi.total", "mlp"): "a feature map with several locations, received one without",
}
CASES = [pytest.param((name, "cnn"), id=f"{name}-cnn") for name in OURS]
CASES += [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=pytest.mark.medium)
    for kind in ("mlp", "residual")
    for name in FAMILIES
    if (name, kind) not in NOT_FOR
]
LEARNING = ("mipin", "mipin.trained", "pattern.net", "pattern.attribution", *NO_NEURON)


def made(name, model, **options):
    quick = {key: value for key, value in QUICK.items() if key in registry.options_of(name)}
    return create_analyzer(name, model, **(quick | NEEDED.get(name, {}) | options))


class Case:
    """A fitted analyzer, inputs, its maps of them, and what its file makes of itself for another selection."""

    def __init__(self, name, kind, folder):
        self.name, self.kind = name, kind
        self.model = MODELS[kind]()
        self.x = samples(self.model.input_shape[1:], 40)
        self.weights, self.layers = self.model.get_weights(), self.model.to_json()
        self.analyzer = made(name, self.model).fit(self.x)
        self.found = self.analyzer.analyze(self.x)
        self.path = self.analyzer.save(folder / "fit.npz")
        if name in NO_NEURON:
            return
        self.by_index = load_analyzer(self.path, self.model, neuron_selection_mode="index")
        self.single = [self.by_index.analyze(self.x, neuron) for neuron in range(self.analyzer.graph.neurons)]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    return Case(*request.param, tmp_path_factory.mktemp("case"))


def without_neuron(case):
    """Whether the method explains no output neuron, which it then says."""
    if case.name not in NO_NEURON:
        return False
    for call in (lambda: case.analyzer.analyze(case.x, 0), lambda: case.analyzer.analyze_class(case.x, 0)):
        with pytest.raises(ValueError, match="expected no neuron_selection, .* no output neuron, received 0"):
            call()
    with pytest.raises(TypeError, match="'neuron_selection_mode'"):
        made(case.name, case.model, neuron_selection_mode="index")
    return True


on_cnn = pytest.mark.parametrize("case", [(name, "cnn") for name in OURS], ids="-".join, indirect=True)


def test_maps_are_float32_finite_and_like_the_input(case):
    found = case.found
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == case.x.shape
    assert np.isfinite(found).all() and found.std() > 0
    assert case.analyzer.fitted


def test_one_sample_alone_in_a_batch_and_in_another_order(case):
    analyzer, x, found = case.analyzer, case.x, case.found
    assert close(np.concatenate([analyzer.analyze(x[[i]]) for i in range(5)]), found[:5], 1e-5)
    assert close(analyzer.analyze(x[::-1]), found[::-1], 1e-5)
    assert close(analyzer.analyze(x, batch_size=7), found, 1e-5)


def test_the_model_and_the_input_stay_as_they_are(case):
    assert case.analyzer.model is case.model and case.model.to_json() == case.layers
    assert all((a == b).all() for a, b in zip(case.weights, case.model.get_weights(), strict=True))
    fixed, before = case.x.copy(), case.x.copy()
    fixed.flags.writeable = False
    case.analyzer.analyze(fixed)
    np.testing.assert_array_equal(fixed, before)


def test_saved_and_loaded_it_gives_the_same_bits(case):
    loaded = load_analyzer(case.path, case.model)
    assert type(loaded) is type(case.analyzer) and loaded.options == case.analyzer.options
    np.testing.assert_array_equal(loaded.analyze(case.x), case.found)


def test_index_gives_what_max_activation_picks_and_neurons_differ(case):
    if without_neuron(case):
        return
    rows, top = np.arange(len(case.x)), case.analyzer.logits(case.x).argmax(axis=1)
    assert len(set(top)) > 1
    assert close(np.stack(case.single)[top, rows], case.found, 1e-5)
    assert not close(case.single[0], case.single[1], 1e-3)


def test_index_takes_a_neuron_a_sample(case):
    if without_neuron(case):
        return
    neurons = case.analyzer.graph.neurons
    chosen = [i % neurons for i in range(6)]
    wanted = [case.single[neuron][i] for i, neuron in enumerate(chosen)]
    assert close(case.by_index.analyze(case.x[:6], chosen), wanted, 1e-5)
    for wrong, message in {
        -1: f"expected neurons from 0 to {neurons - 1}, received .*-1",
        neurons: f"expected neurons from 0 to {neurons - 1}, received .*{neurons}",
        (0, 1): "an int or 6 of them, received 2",
        "0": "expected integers as neuron_selection, .*received '0'",
        1.0: r"expected integers as neuron_selection, .*received 1\.0",
        None: "neuron_selection_mode='index' .*neuron_selection",
    }.items():
        with pytest.raises(ValueError, match=message):
            case.by_index.analyze(case.x[:6], wrong)


# All neurons at once: the signals of all start together, so that methods whose steps are linear in the signal give the
# sum of the single neurons' maps. The others have ReLUs in the signal's way.
NOT_THE_SUM = ("deconvnet", "guided_backprop", "grad_cam")


def test_all_neurons_at_once(case):
    if without_neuron(case):
        return
    every = load_analyzer(case.path, case.model, neuron_selection_mode="all")
    found = every.analyze(case.x)
    total = np.sum(case.single, axis=0, dtype=np.float64)
    if case.name in NOT_THE_SUM:
        assert close(found, signal_of_all(case.name, case.kind, case.x), 1e-5) and not close(found, total, 1e-3)
    else:
        assert close(found, total, 1e-5)
    if hasattr(every, "source_signal"):
        singles = [case.by_index.source_signal(case.x, neuron) for neuron in range(every.graph.neurons)]
        assert close(every.source_signal(case.x), np.mean(singles, axis=0, dtype=np.float64), 1e-5)


def signal_of_all(name, kind, x):
    """What the papers' formulas say with every logit explained, from TensorFlow's own gradients."""
    model, x = MODELS[kind](), tf.constant(x)
    if name == "grad_cam":
        last = {"cnn": "conv", "residual": "add"}[kind]
        features, logits = (model.get_layer(layer).output for layer in (last, "head"))
        with tf.GradientTape() as tape:
            maps, logits = keras.Model(model.inputs, [features, logits])(x)
            total = tf.reduce_sum(logits)
        weights = tf.reduce_mean(tape.gradient(total, maps), [1, 2], keepdims=True)
        cam = tf.nn.relu(tf.reduce_sum(weights * maps, -1, keepdims=True))
        resized = tf.image.resize(cam, x.shape[1:3])
        return tf.repeat(resized, x.shape[-1], axis=-1)

    @tf.custom_gradient
    def rectifier(values):
        active = tf.cast(values > 0, values.dtype) if name == "guided_backprop" else 1.0
        return tf.nn.relu(values), lambda signal: tf.nn.relu(signal) * active

    for layer in model.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = rectifier
    if getattr(model.layers[-1], "activation", None) is keras.activations.softmax:
        model.layers[-1].activation = keras.activations.linear
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x, training=False)
        total = tf.reduce_sum(logits * tf.stop_gradient(logits))  # the signal that starts is the logits
    return tape.gradient(total, x)


# Its rules differ in nothing that a fit finds, so one model more is enough.
@pytest.mark.parametrize(
    "case", [(name, "residual") for name in FAMILIES if name in LEARNING], ids="-".join, indirect=True
)
@pytest.mark.medium
def test_another_fit_gives_the_same(case):
    assert close(made(case.name, case.model).fit(case.x).analyze(case.x), case.found, 1e-5)


@pytest.mark.parametrize(("name", "kind"), NOT_FOR)
def test_a_model_that_a_method_is_not_made_for_is_refused_at_once(name, kind):
    with pytest.raises(ValueError, match=NOT_FOR[name, kind]):
        made(name, MODELS[kind]())


@on_cnn
def test_a_map_is_reduced_to_pixels(case):
    found = case.analyzer.analyze(case.x, reduce="relu_mean", batch_size=7)
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == case.x.shape[:-1]
    assert close(found, np.maximum(case.found, 0).mean(axis=-1), 1e-5)
    with pytest.raises(ValueError, match="reduce.*'best'"):
        case.analyzer.analyze(case.x, reduce="best")


# What keeps nothing of the layers on its way, and says so.
NO_LAYERS = {"grad_cam", "integrated_gradients", "smoothgrad", *NO_NEURON}


@on_cnn
def test_layers_on_the_way(case):
    analyzer, x = case.analyzer, case.x[:9]
    if case.name in NO_LAYERS:
        with pytest.raises(NotImplementedError, match=f"'{case.name}'.*take"):
            analyzer.analyze_layers(x)
        return
    found = analyzer.analyze_layers(x, batch_size=4)
    first, *others = found
    assert others == ["conv", "pool", "flatten"]
    for name, entry in found.items():
        shape = analyzer.graph.shapes[analyzer.graph.tensor_after(name)]
        for part in entry:
            if part is not None:
                assert type(part) is np.ndarray and part.dtype == np.float32 and part.shape == (9, *shape)
                assert np.isfinite(part).all() and part.std() > 0
    assert close(found[first].attribution, case.found[:9], 1e-5)
    # The last layer before the head is the pooling's output in another shape, and so is the signal there.
    for pooled, flat in zip(found["pool"], found["flatten"], strict=True):
        assert (pooled is None) is (flat is None)
        assert pooled is None or close(pooled.reshape(9, -1), flat, 1e-5)
    if case.name in FAMILIES:  # an analyzer that stops there gives the same
        alone = made(case.name, case.model, input_layer="pool").fit(case.x).analyze(x)
        assert close(found["pool"].attribution, alone, 1e-5)


@on_cnn
def test_a_class_over_a_data_set(case):
    if without_neuron(case):
        return
    found = case.analyzer.analyze_class(case.x, 1, batch_size=7)
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == case.x.shape[1:]
    assert found.std() > 0 and close(found, case.single[1].mean(axis=0, dtype=np.float64), 1e-5)
    with pytest.raises(ValueError, match="expected neuron to be an int from 0 to 2, received 3"):
        case.analyzer.analyze_class(case.x, 3)


@on_cnn
def test_bad_input_is_refused(case):
    name, model, x = case.name, case.model, case.x
    for make, problem, message in (
        (lambda: made(name, "model"), TypeError, r"expected a Keras 3 model \(keras.Model\), received"),
        (lambda: made(name, keras.Sequential([keras.layers.Dense(2)])), ValueError, "expected a built model"),
        (lambda: made(name, model, output_layer="nowhere"), ValueError, "'nowhere'"),
        (
            lambda: made(name, model, neuron_selection_mode="best"),
            TypeError if name in NO_NEURON else ValueError,
            "neuron_selection_mode",
        ),
    ):
        with pytest.raises(problem, match=message):
            make()
    analyzer = made(name, model)
    assert analyzer.fitted is (name not in LEARNING)
    if name in LEARNING:
        for call in (analyzer.analyze, lambda x: analyzer.analyze_class(x, 0)):
            with pytest.raises(NotFittedError, match=f"'{name}' analyzer.* not fitted"):
                call(x)
        with pytest.raises(ValueError, match=r"expected input of shape \(batch, 7, 6, 2\), received \(40, 6, 6, 2\)"):
            analyzer.fit(x[:, 1:])
        assert not analyzer.fitted
    for bad, problem, message in (
        (x[0], ValueError, r"expected input of shape \(batch, 7, 6, 2\), received \(7, 6, 2\)"),
        (x[:0], ValueError, "expected at least one sample"),
        (x[..., :1], ValueError, r"expected input of shape \(batch, 7, 6, 2\), received \(40, 7, 6, 1\)"),
        (x.astype(str), TypeError, "expected an array of numbers, received strings"),
        (np.full_like(x, np.nan), ValueError, "finite.* received NaN"),
    ):
        with pytest.raises(problem, match=message):
            case.analyzer.analyze(bad)
    with pytest.raises(ValueError, match="expected no neuron_selection, as "):
        case.analyzer.analyze(x, 0)
    if name in LEARNING:
        assert analyzer.fit(x) is analyzer and analyzer.fitted


# What a user calls, in the order of use. The rest that is public is for those who write a method.
METHODS = (
    "known_options", "fit", "fit_generator", "analyze", "analyze_layers", "analyze_class", "source_signal", "logits",
    "reconstruction_errors", "save", "load",
)  # fmt: skip


def lacks(text, names):
    """Those of ``names`` that a docstring says nothing of."""
    return {name for name in names if not re.search(rf"\b{name}\b", text)}


@pytest.mark.parametrize("name", analyzers())
def test_what_is_public_is_documented(name):
    kind = registry.ANALYZERS[name]
    text = vars(kind).get("__doc__") or ""  # inspect.getdoc would take a base class's
    own = inspect.signature(vars(kind)["__init__"]).parameters.values() if "__init__" in vars(kind) else ()
    options = {each.name for each in own if each.kind is each.KEYWORD_ONLY}
    if getattr(kind, "preset", None) is not None:
        options = set(inspect.signature(kind.preset.composite).parameters)
    assert re.search("Args[:,]|see :class:", text) or (text and options), "no docstring of its own"
    assert not lacks(text, options)
    for base in kind.__mro__:
        for method in set(METHODS) & set(vars(base)):
            text = getattr(base, method).__doc__
            # One that overrides another may leave the words to it; one that names another, the words on its arguments.
            if text is None:
                assert any(getattr(other, method, None) for other in base.__mro__[1:]), method
            elif ":meth:" not in text:
                assert not lacks(text, set(inspect.signature(getattr(base, method)).parameters) - {"self"}), method
