"""MIP-IN end to end against a plain float64 implementation of the paper's Algorithm 1."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.graph import propagation
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.forward_pass import ForwardPasses
from mipin_keras.mipin.network import InverseNetwork
from tests.networks import close, cnn, layers_of, mlp, residual, samples, with_weights
from tests.reference import Algorithm1

L = keras.layers
TOLERANCE = 1e-5


def agrees(model, x, units, wanted, **options):
    """Fit MIP-IN on ``x``; its maps of other samples are those of ``wanted(unit)``."""
    analyzer = mipin_keras.create_analyzer(
        "mipin", model, neuron_selection_mode="index", rows=None, verbose=0, classes=units, **options
    )
    analyzer.fit(x)
    other = samples(x.shape[1:], 9, seed=5)
    for unit in units:
        reference = wanted(unit)
        for z in (x, other):
            assert np.abs(reference.attribution(z)).max() > 1e-3  # there is something to compare
            assert close(analyzer.analyze(z, unit), reference.attribution(z), TOLERANCE)
            assert close(analyzer.source_signal(z, unit), reference.source(z), TOLERANCE)


@pytest.mark.parametrize("samples_", ["all", "class"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("head", [None, "softmax"])
@pytest.mark.few(2)
def test_an_mlp(samples_, relu, head):
    model, x = mlp(head=head), samples((12,), 200)
    layers = layers_of(model)
    agrees(model, x, [0, 1, 2, 3], lambda c: Algorithm1(layers, c, x, own=samples_ == "class", relu=relu),
           samples=samples_, forward_relu=relu)  # fmt: skip


def test_an_mlp_of_another_ridge():
    model, x = mlp(), samples((12,), 100)
    agrees(model, x, [2], lambda c: Algorithm1(layers_of(model), c, x, penalty=3.0), ridge=3.0)


def test_the_mask_on_the_input():
    model, x = mlp(), samples((12,), 100)
    layers = layers_of(model)
    assert 0.1 < (x == 0).mean() < 0.5
    agrees(model, x, [1], lambda c: Algorithm1(layers, c, x, mask=True), mask_input=True)
    agrees(model, x, [1], lambda c: Algorithm1(layers, c, x, mask=False), mask_input=None)


def test_down_to_a_layer():
    model, x = mlp(), samples((12,), 100)
    layers = layers_of(model)

    def reference(mask):
        # The reference's maps at the output of "dense1", its ReLU included.
        return lambda c: Algorithm1(layers, c, x, stop=2, mask=mask)

    agrees(model, x, [1], reference(True), input_layer="dense1")  # the mask acts there too
    agrees(model, x, [1], reference(False), input_layer="dense1", mask_input=False)


def test_down_to_a_layer_without_masks():
    model, x = mlp(), samples((12,), 100)
    layers = layers_of(model)
    agrees(
        model, x, [1], lambda c: Algorithm1(layers, c, x, stop=2, relu=False), input_layer="dense1", forward_relu=False
    )


def test_the_output_of_a_hidden_layer():
    model, x = mlp(), samples((12,), 200)
    layers = layers_of(model)[:4]  # up to dense2 with its ReLU
    agrees(model, x, [0, 3], lambda c: Algorithm1(layers, c, x), output_layer="dense2")


def test_from_one_layer_to_another():
    model, x = mlp(hidden=(10, 8, 6)), samples((12,), 200)
    layers = layers_of(model)[:6]
    agrees(model, x, [0, 5], lambda c: Algorithm1(layers, c, x, stop=2, mask=True), input_layer="dense1",
           output_layer="dense3")  # fmt: skip


@pytest.mark.parametrize("samples_", ["all", "class"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.few(2)
def test_a_cnn(samples_, relu):
    model, x = cnn(), samples((7, 6, 2), 60)
    layers = layers_of(model)
    agrees(model, x, [0, 2], lambda c: Algorithm1(layers, c, x, own=samples_ == "class", relu=relu),
           samples=samples_, forward_relu=relu)  # fmt: skip


@pytest.mark.parametrize(("layer", "stop"), [("conv", 2), ("pool", 3), ("flatten", 4)])
def test_a_cnn_down_to_a_feature_map(layer, stop):
    model, x = cnn(), samples((7, 6, 2), 60)
    layers = layers_of(model)
    agrees(model, x, [1], lambda c: Algorithm1(layers, c, x, stop=stop, mask=True), input_layer=layer)


def test_nested_and_shared_layers_are_as_if_written_out():
    inner = keras.Sequential([keras.Input((12,)), L.Dense(12, "relu", name="deep")], name="inner")
    a = keras.Input((12,))
    model = with_weights(keras.Model(a, L.Dense(3, name="head")(inner(inner(a)))))
    deep, bias, head, offset = model.get_weights()
    layers = [("dense", deep, bias), ("relu",), ("dense", deep, bias), ("relu",), ("dense", head, offset)]
    x = samples((12,), 150)
    agrees(model, x, [1], lambda c: Algorithm1(layers, c, x))


def test_a_deeper_network_of_every_kind_of_layer_runs_and_reconstructs():
    model = with_weights(
        keras.Sequential(
            [
                keras.Input((12, 10, 2)), L.ZeroPadding2D(1), L.Conv2D(6, 3, strides=2), L.BatchNormalization(),
                L.ReLU(),
                L.Dropout(0.3), L.Conv2D(6, 3, padding="same", dilation_rate=2, activation="elu"), L.UpSampling2D(2),
                L.AveragePooling2D(2), L.Conv2D(6, 3, activation="relu"), L.MaxPooling2D(2, 1),
                L.Permute((2, 1, 3)), L.Cropping2D(((0, 1), (0, 0))), L.Reshape((-1, 6)),
                L.Conv1D(4, 3, padding="causal", activation="tanh"), L.Dense(5, activation="relu"),
                L.GlobalAveragePooling1D(), L.Dense(3, activation="softmax"),
            ]
        )
    )  # fmt: skip
    model.set_weights(
        [np.abs(w) if "var" in v.path else w for v, w in zip(model.weights, model.get_weights(), strict=True)]
    )
    x = samples((12, 10, 2), 80)
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0, classes=[0, 1, 2]).fit(x)
    for found in (analyzer.analyze(x), analyzer.source_signal(x)):
        assert found.shape == x.shape and np.isfinite(found).all() and found.std() > 0
    assert [line["type"] for line in analyzer.fit_report[::3]] == [
        "Dense", "Dense", "Conv1D", "Conv2D", "Conv2D", "BatchNormalization", "Conv2D",
    ]  # fmt: skip
    assert all(0 < line["relative"] < 1.001 for line in analyzer.fit_report)


# Parts


def test_look_keeps_what_was_asked_for():
    model, x = cnn(), samples((7, 6, 2), 5)
    graph = ModelGraph(model)
    network = InverseNetwork(graph, (graph.input,))
    head, _, pool, relu, conv = network.nodes
    seen = network.forward(x)
    np.testing.assert_allclose(seen.logits, model(x), rtol=1e-5)
    assert seen.targets == {} and set(seen.records) == {node.index for node in network.nodes}
    seen = network.forward(x, pool, (head, conv))
    assert set(seen.records) == {node.index for node in network.nodes[:3]}
    assert set(seen.targets) == {head.index, conv.index}
    np.testing.assert_array_equal(seen.targets[conv.index], x)
    part = network.forward(x).rows(np.array([3, 1]))
    np.testing.assert_array_equal(part.logits, np.asarray(seen.logits)[[3, 1]])
    np.testing.assert_array_equal(
        part.records[relu.index][0], np.asarray(network.forward(x).records[relu.index][0])[[3, 1]]
    )


def filled(network, unit):
    """Weights of one class, all 0.1."""
    network.weights[unit] = {
        node.index: tuple(tf.fill(shape, 0.1) for shape in network.regression(node).weight_shapes)
        for node in network.learned
    }
    return network.weights[unit]


def test_no_batch_size_is_traced_twice(monkeypatch):
    traced = []
    concrete = tf.function

    def counted(function=None, **options):
        return lambda f: traced.append(f.__name__) or concrete(f, **options)

    monkeypatch.setattr(tf, "function", counted)
    graph = ModelGraph(residual())
    network = InverseNetwork(graph, (graph.input,))
    filled(network, 0)
    for n in (1, 2, 5, 3):
        assert network.source(network.forward(samples((7, 6, 2), n)), 0)[network.start].shape == (n, 7, 6, 2)
    assert [name for name in traced if not name.startswith("_")] == ["forward", "walk"]  # Keras traces some of its own


@pytest.mark.parametrize("make", [cnn, residual])
@pytest.mark.medium
def test_pieces_change_nothing(make, monkeypatch):
    """The walk of a fit, in pieces, passes by what the one of an analysis does at once."""
    graph, x = ModelGraph(make()), samples((7, 6, 2), 4)
    found = []
    for piece in (1, 2, 3, 100):
        monkeypatch.setattr(ForwardPasses, "piece", piece)
        network = InverseNetwork(graph, (graph.input,))
        weights = filled(network, 1)
        signals = []
        for node in network.learned:
            seen = network.forward(x, node, (node,))
            tensor = propagation.forward(graph, tf.constant(x))
            np.testing.assert_allclose(seen.targets[node.index], node.target(tensor), rtol=1e-5, atol=1e-6)
            signals += tf.nest.flatten(network.invert_down_to(seen, 1, node, weights))
        found.append(signals)
    for signals in found[1:]:
        for a, b in zip(signals, found[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_fits_walk_is_in_float64_and_the_analysis_in_float32():
    graph = ModelGraph(mlp())
    network = InverseNetwork(graph, (graph.input,))
    seen = network.forward(samples((12,), 3))
    weights = filled(network, 1)
    for dtype in (tf.float64, tf.float32):
        for node in (network.nodes[0], network.nodes[-1]):
            assert network.invert_down_to(seen, 1, node, weights, dtype=dtype).dtype == dtype
    assert network.invert_down_to(seen, 1, network.nodes[-1], weights).dtype == tf.float64
    for found in (network.source(seen, 1), network.attribution(seen, 1, np.ones(3))):
        assert found[network.start].dtype == tf.float32


@pytest.mark.parametrize(("ridge", "dtype"), [(1e-3, tf.float32), (1e-9, tf.float64)])
def test_a_fit_walks_in_float64_where_little_damps_rounding_and_keeps_float32(ridge, dtype, monkeypatch):
    walked = []
    invert_down_to = InverseNetwork.invert_down_to

    def noted(self, *args):
        walked.append(invert_down_to(self, *args))
        return walked[-1]

    monkeypatch.setattr(InverseNetwork, "invert_down_to", noted)
    analyzer = mipin_keras.create_analyzer("mipin", mlp(), verbose=0, classes=1, ridge=ridge).fit(samples((12,), 20))
    assert len(walked) == 3 and {signal.dtype for signal in walked} == {dtype}
    assert {w.dtype for ws in analyzer.network.weights[1].values() for w in ws} == {tf.float32}
