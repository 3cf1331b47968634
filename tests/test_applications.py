"""The networks of keras.applications: their graphs, MIP-IN down to a layer in their middle, and every baseline.

Their weights are random, and such that what they make of the images differs
from image to image at every layer, as it does in a trained network.
"""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import analyzers, create_analyzer, options_of
from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from tests.networks import NEEDED, close

# Pixels a side, as few as a network takes, and the layer that MIP-IN goes down to.
SIZES = {
    "VGG16": (32, "block4_pool"),
    "VGG19": (32, "block4_pool"),
    "ResNet50": (32, "conv4_block6_out"),
    "ResNet50V2": (32, "conv4_block6_out"),
    "MobileNet": (32, "conv_pw_7_relu"),
    "MobileNetV2": (32, "block_9_add"),
    "DenseNet121": (32, "pool4_pool"),
    "InceptionV3": (75, "mixed7"),
    "Xception": (71, "add_7"),
    "EfficientNetB0": (32, "block5b_add"),
}
# What runs in every test; the others are slow.
OFTEN = ("VGG19", "ResNet50")
OFTEN_BASELINES = ("gradient", "guided_backprop", "lrp.epsilon", "deep_taylor")
# Where the default refuses other activations than ReLU.
OTHER_ACTIVATIONS = ("EfficientNetB0",)
BASELINES = [name for name in analyzers() if not name.startswith(("mipin", "mi.", "innvestigate:"))]
OPTIONS: dict[str, dict[str, Any]] = NEEDED | {
    "smoothgrad": {"augment_by_n": 4},
    "integrated_gradients": {"steps": 4},
    "deep_taylor.bounded": {"low": 0.0, "high": 1.0},
}
CLASSES = [1, 3]


class Network(NamedTuple):
    """One of them, with images and the layer in its middle."""

    name: str
    model: keras.Model
    x: np.ndarray
    layer: str


def images(n, size, seed=5):
    """Smooth random images of float32 in [0, 1], ``(n, size, size, 3)``."""
    coarse = np.random.default_rng(seed).random((n, 4, 4, 3), np.float32)
    return np.asarray(keras.ops.image.resize(coarse, (size, size), interpolation="bilinear"))


def standardized(model, x):
    """``model`` with each kernel and each batch normalisation scaled and moved to what ``x`` makes of them.

    Its logits are about 3, give or take 1.
    """
    graph = ModelGraph(model)
    tensors, last = {graph.input: tf.constant(x)}, [step for step in graph.steps if step.linear][-1]
    for step in graph.steps:
        found = np.asarray(step(tensors))
        axes = tuple(range(found.ndim - 1))
        if step.linear:
            step.layer.kernel.assign(step.layer.kernel / found.std())
            if step.layer.use_bias:
                step.layer.bias.assign(-found.mean(axis=axes) / found.std() + (3 if step is last else 0))
        elif isinstance(step.layer, keras.layers.BatchNormalization):
            before = np.asarray(tensors[step.inputs[0]])
            step.layer.moving_mean.assign(before.mean(axis=axes))
            step.layer.moving_variance.assign(before.var(axis=axes))
        tensors[step.output] = step(tensors)
    return model


def mark(name):
    return pytest.mark.medium if name in OFTEN else pytest.mark.slow


@functools.lru_cache(maxsize=len(OFTEN))
def made(name):
    """The network of a name; its layers' names do not depend on what was made before it."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    size, layer = SIZES[name]
    model = getattr(keras.applications, name)(weights=None, classes=5, input_shape=(size, size, 3))
    x = images(8, size)
    return Network(name, standardized(model, x), x, layer)


@pytest.fixture
def network(request):
    """The network of a name. Not a fixture of the module: pytest would make it anew for each of its analyzers."""
    return made(request.param)


@pytest.fixture(scope="module", autouse=True)
def let_go():
    yield
    made.cache_clear()


EACH = pytest.mark.parametrize("network", [pytest.param(name, marks=mark(name)) for name in SIZES], indirect=True)


@EACH
def test_the_walk_gives_what_the_model_predicts(network):
    graph = ModelGraph(network.model)
    logits = np.asarray(propagation.forward(graph, tf.constant(network.x))[graph.output])
    assert graph.stripped and logits.shape == (8, 5) and (logits.std(axis=0) > 0.1).all()
    # The logarithm of a softmax is the logits up to a constant. Both run operation by operation: so deep a random
    # network makes 1e-3 of a rounding in its first layers, and predict() adds in another order.
    found, wanted = logits, np.log(np.asarray(network.model(network.x, training=False)))
    assert close(*(y - y.mean(axis=1, keepdims=True) for y in (found, wanted)), 1e-5)


@EACH
def test_mipin_down_to_a_layer_in_the_middle(network):
    options = {"classes": CLASSES, "neuron_selection_mode": "index", "verbose": 0}
    analyzer = create_analyzer("mipin", network.model, input_layer=network.layer, **options).fit(network.x)
    assert {(line["class"], line["samples"]) for line in analyzer.fit_report} == {(c, 8) for c in CLASSES}
    assert all(np.isfinite(line["mse"]) for line in analyzer.fit_report)
    shape = network.model.get_layer(network.layer).output.shape[1:]
    few = network.x[:2]
    for c in CLASSES:
        for found in (analyzer.analyze(few, c), analyzer.source_signal(few, c)):
            assert found.shape == (2, *shape) and found.dtype == np.float32
            assert np.isfinite(found).all() and all(one.any() for one in found)
    assert not close(analyzer.analyze(few, CLASSES[0]), analyzer.analyze(few, CLASSES[1]), 1e-3)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        pytest.param(network, name, marks=mark(network) if name in OFTEN_BASELINES else pytest.mark.slow)
        for network in SIZES
        for name in BASELINES
    ],
    indirect=["network"],
)
def test_baselines(network, name):
    options = {"verbose": 0} | ({"activations": "any"} if network.name in OTHER_ACTIVATIONS else {})
    options = {key: value for key, value in options.items() if key in options_of(name)} | OPTIONS.get(name, {})
    analyzer = create_analyzer(name, network.model, **options)
    found = analyzer.fit(network.x).analyze(network.x[:2])
    assert found.shape == (2, *network.x.shape[1:]) and found.dtype == np.float32
    assert np.isfinite(found).all() and all(one.any() for one in found)
    if network.name in OTHER_ACTIVATIONS or name not in ("gradient", "lrp.epsilon"):
        return
    # With ReLUs, LRP of an epsilon near 0 is the input times the gradient.
    graph, x = ModelGraph(network.model), tf.constant(network.x[:2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        top = tf.reduce_max(propagation.forward(graph, x)[graph.output], axis=1)
    wanted = tape.gradient(top, x)
    # A rounding that turns one of many thousand ReLUs moves a map by some percent.
    assert close(found, wanted if name == "gradient" else x * wanted, 0.1)
