"""The head: the same maps from the explained channel alone as from all channels, of which the others are 0."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin import head
from mipin_keras.mipin.explanation import Explanation
from mipin_keras.mipin.network import InverseNetwork
from tests.networks import close, mlp, samples, with_weights
from tests.reference import Algorithm1

L, K = keras.layers, keras.ops
UNITS = 4
IMAGES = samples((7, 6, 2), 60)


def squeezed(activation="relu", **settings):
    """As SqueezeNet ends: a convolution to the classes, ReLU, the mean over space."""
    layers = [
        L.Conv2D(3, 3, activation="relu", name="conv"),
        L.Conv2D(UNITS, 1, activation=activation, name="classes", **settings), L.GlobalAveragePooling2D(name="mean"),
    ]  # fmt: skip
    return with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers]))


def mobile():
    """As MobileNet ends: the mean over space, a convolution to the classes, a reshape, softmax."""
    layers = [
        L.Conv2D(5, 3, activation="relu", name="conv"), L.GlobalAveragePooling2D(keepdims=True), L.Dropout(0.2),
        L.Conv2D(UNITS, 1, name="classes"), L.Reshape((UNITS,), name="flat"), L.Activation("softmax"),
    ]  # fmt: skip
    return with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers]))


def switched():
    """Every switch and mask in the head: overlapping max pooling, padding, upsampling, a maximum over all."""
    layers = [
        L.Conv2D(3, 3, activation="relu", name="conv"), L.Conv2D(UNITS, 2, padding="same", strides=(1, 2)),
        L.MaxPooling2D(3, 1, "same", name="pool"), L.LeakyReLU(name="leaky"), L.ZeroPadding2D(1), L.Permute((2, 1, 3)),
        L.Cropping2D(((0, 1), (1, 0))), L.UpSampling2D(2, name="larger"), L.MaxPooling2D(2, name="tiles"),
        L.AveragePooling2D(2, 1, name="average"), L.ReLU(name="relu"), L.GlobalMaxPooling2D(),
    ]  # fmt: skip
    return with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers]))


def rows():
    """A Dense layer over positions, reduced by keras.ops."""
    x = keras.Input((7, 6, 2))
    y = L.Dense(UNITS, activation="relu", name="classes")(L.Conv2D(3, 3, activation="relu", name="conv")(x))
    return with_weights(keras.Model(x, K.squeeze(K.max(K.mean(y, axis=1, keepdims=True), axis=2), axis=1)))


def three():
    layers = [L.Conv3D(UNITS, 2, activation="relu", name="classes"), L.MaxPooling3D(2, name="pool")]
    return with_weights(keras.Sequential([keras.Input((4, 4, 4, 2)), *layers, L.Flatten(name="flat")]))


HEADS = {"squeezed": squeezed, "mobile": mobile, "switched": switched, "rows": rows, "three": three}
EACH = pytest.mark.parametrize("name", HEADS)


def mipin(model, **options):
    return create_analyzer("mipin", model, **{"verbose": 0, "neuron_selection_mode": "index", **options})


def wide(monkeypatch):
    """Nothing keeps channels apart: signals start in all of them, as before there was a head."""
    monkeypatch.setattr(head, "_length", lambda nodes, channels: None)


def data(model):
    return samples(model.input_shape[1:], 60)


def maps(analyzer, x, unit):
    return [analyzer.analyze(x, unit), analyzer.source_signal(x, unit)]


def same(one, other, tolerance=1e-5):
    return all(close(a, b, tolerance) and np.abs(b).max() > 1e-4 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("relu", [True, False])
def test_a_convolution_under_a_mean_is_algorithm_1(relu):
    model, x = squeezed(), IMAGES
    (conv, bias), (classes, offset) = (layer.get_weights() for layer in model.layers[:2])
    layers = [("conv", conv, bias), ("relu",), ("conv", classes, offset), ("relu",), ("mean",)]
    analyzer = mipin(model, rows=None, classes=[1, 3], forward_relu=relu).fit(x)
    for unit in (1, 3):
        wanted = Algorithm1(layers, unit, x, relu=relu)  # on signals of all channels
        assert same(maps(analyzer, x, unit), [wanted.attribution(x), wanted.source(x)])


def test_a_convolution_under_max_pooling_is_algorithm_1():
    layers = [L.Conv2D(3, 3, activation="relu"), L.Conv2D(UNITS, 2), L.MaxPooling2D((4, 3)), L.Flatten()]
    model = with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers]))
    (conv, bias), (classes, offset) = (layer.get_weights() for layer in model.layers[:2])
    layers = [("conv", conv, bias), ("relu",), ("conv", classes, offset), ("maxpool", (4, 3)), ("flatten",)]
    analyzer = mipin(model, rows=None, classes=[0, 2]).fit(IMAGES)
    for unit in (0, 2):
        wanted = Algorithm1(layers, unit, IMAGES)
        assert same(maps(analyzer, IMAGES, unit), [wanted.attribution(IMAGES), wanted.source(IMAGES)])


@EACH
@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(o, marks=pytest.mark.medium) for o in ({"samples": "class"}, {"forward_relu": False}))],
    ids=str,
)
@pytest.mark.few(2)
def test_the_maps_are_those_of_all_channels(name, options, monkeypatch):
    model = HEADS[name]()
    x = data(model)
    top = np.bincount(np.asarray(model(x)).argmax(axis=1), minlength=UNITS).argmax()
    options |= {"classes": [int(top), 1, 2] if options.get("samples") != "class" else [int(top)]}
    narrow = mipin(model, **options).fit(x)
    assert narrow.network.head.narrow
    assert 1 in narrow.network.regression(narrow.network.learned[0]).weight_shapes[0]
    wide(monkeypatch)
    before = mipin(model, **options).fit(x)
    assert not before.network.head.narrow
    for unit in narrow.classes:
        assert same(maps(narrow, x[:9], unit), maps(before, x[:9], unit), 1e-4)
    assert len(narrow.fit_report) == len(before.fit_report)
    for line, other in zip(narrow.fit_report, before.fit_report, strict=True):
        assert line["mse"] == pytest.approx(other["mse"], rel=1e-4)
        assert {**line, "mse": 0, "relative": 0} == {
            **other, "mse": 0, "relative": 0, "variance": pytest.approx(other["variance"], rel=1e-6)
        }  # fmt: skip
    errors = narrow.reconstruction_errors(x[:30])
    assert [e["mse"] for e in errors] == pytest.approx([e["mse"] for e in before.reconstruction_errors(x[:30])], 1e-4)


@pytest.mark.parametrize("name", ["squeezed", pytest.param("switched", marks=pytest.mark.medium)])
def test_both_ways_through_the_data_give_the_same(name):
    model = HEADS[name]()
    x = data(model)
    kept, anew = mipin(model, classes=1).fit(x), mipin(model, classes=1).fit(x, memory=0)
    assert same(maps(anew, x, 1), maps(kept, x, 1))


@EACH
@pytest.mark.few(2)
def test_layers_in_the_head_have_zeros_beside_the_explained_channel(name, monkeypatch):
    model = HEADS[name]()
    x = data(model)
    analyzer = mipin(model, classes=[0, 2]).fit(x)
    found = analyzer.analyze_layers(x[:7], np.array([0, 2, 2, 0, 2, 0, 0]))
    shapes = {n: analyzer.graph.shapes[analyzer.graph.tensor_after(n)] for n in found}
    wide(monkeypatch)
    wanted = mipin(model, classes=[0, 2]).fit(x).analyze_layers(x[:7], np.array([0, 2, 2, 0, 2, 0, 0]))
    assert found.keys() == wanted.keys() and len(found) >= 2
    for layer in found:
        for one, other in zip(found[layer], wanted[layer], strict=True):
            assert one.shape == (7, *shapes[layer]) and close(one, other, 1e-4), layer


@pytest.mark.medium
def test_a_layer_in_the_head_is_what_an_explanation_that_ends_there_gives():
    model = switched()
    found = mipin(model, classes=1).fit(IMAGES).analyze_layers(IMAGES, 1)
    for layer in ("relu", "tiles", "pool"):
        alone = mipin(model, classes=1, input_layer=layer).fit(IMAGES)
        assert not alone.network.head.narrow  # nothing is learned above it
        assert same(maps(alone, IMAGES, 1), [found[layer].attribution, found[layer].source_signal])


def test_trained_convolutions_read_one_channel():
    analyzer = mipin(squeezed(), classes=1, conv_solver="trained", epochs=3).fit(IMAGES)
    assert analyzer.network.weights[1][analyzer.network.learned[0].index][0].shape == (1, 1, 3, 1)
    assert all(np.isfinite(found).all() and found.any() for found in maps(analyzer, IMAGES, 1))


# What is no head


def ending(*layers, shape=(6, 6, 2)):
    return keras.Sequential([keras.Input(shape), *layers])


def shared():
    x = keras.Input((6, 6, 2))
    y = L.Conv2D(UNITS, 1)(x)
    return keras.Model(x, L.Add()([L.GlobalAveragePooling2D()(y), L.GlobalMaxPooling2D()(y)]))


def one_made_twice():
    x = keras.Input((6, 6, 2))
    y = L.Conv2D(UNITS, 1)(x)
    return keras.Model(x, L.GlobalMaxPooling2D()(L.Concatenate(axis=1)([y, y])))


def crossed(function):
    x = keras.Input((UNITS, 2))
    return keras.Model(x, function(L.Conv1D(UNITS, 1)(x)))


NO_HEADS = {
    "a bias a channel": lambda: ending(L.Conv2D(UNITS, 1), L.BatchNormalization(), L.GlobalMaxPooling2D()),
    "an offset a channel": lambda: ending(L.Conv2D(UNITS, 1), L.Rescaling(2.0, 1.0), L.GlobalMaxPooling2D()),
    "groups": lambda: ending(L.Conv2D(UNITS, 1, groups=2), L.GlobalMaxPooling2D()),
    "depthwise": lambda: ending(L.DepthwiseConv2D(2, depth_multiplier=2), L.GlobalMaxPooling2D()),
    "transposed": lambda: ending(L.Conv2DTranspose(UNITS, 2), L.GlobalMaxPooling2D()),
    "positions among the outputs": lambda: ending(L.Conv2D(2, 3), L.Flatten()),
    "two readers": shared,
    "read twice": one_made_twice,
    "axes that change places": lambda: crossed(lambda y: K.mean(K.transpose(y, (0, 2, 1)), axis=1)),
    "a mean over channels": lambda: crossed(lambda y: K.mean(y, axis=2)),
    "nothing learned": lambda: ending(L.ReLU(), L.GlobalMaxPooling2D()),
}


@pytest.mark.parametrize("name", NO_HEADS)
def test_what_mixes_or_fills_channels_is_no_head(name):
    graph = ModelGraph(NO_HEADS[name]())
    network = InverseNetwork(graph, (graph.input,))
    assert not network.head.narrow and network.head.learned is None
    forward_pass = network.forward(samples(graph.shapes[graph.input], 3))
    signal = network.signal(forward_pass, 1).numpy()
    assert signal.shape == (3, graph.neurons) and not np.delete(signal, 1, axis=1).any()


def test_a_users_own_inverse_ends_the_head(monkeypatch):
    from mipin_keras.mipin import inverse

    monkeypatch.setattr(inverse, "_INVERSES", dict(inverse._INVERSES))

    class Mixing(head.structural.ActivationInverse):
        def source(self, signal, record, weights):
            return tf.reverse(signal, [-1])

    inverse.register_inverse(L.ReLU)(Mixing)
    graph = ModelGraph(ending(L.Conv2D(UNITS, 1), L.ReLU(), L.GlobalMaxPooling2D()))
    assert not InverseNetwork(graph, (graph.input,)).head.narrow


def test_a_dense_head_is_as_before():
    graph = ModelGraph(mlp())
    network = InverseNetwork(graph, (graph.input,))
    forward_pass = network.forward(samples((12,), 3))
    assert network.head.narrow and network.signal(forward_pass, 1).shape == (3, 1)
    assert network.head.records(forward_pass.records, 1) is forward_pass.records


# Files


@pytest.mark.parametrize("name", ["squeezed", "rows", pytest.param("switched", marks=pytest.mark.medium)])
def test_a_file_of_all_channels_is_read(name, monkeypatch, tmp_path):
    model = HEADS[name]()
    x = data(model)
    with monkeypatch.context() as old:
        wide(old)
        state = Explanation._state
        old.setattr(Explanation, "_state", lambda self: (state(self)[0], without(state(self)[1])))
        before = mipin(model, classes=[1, 2]).fit(x)
        before.save(tmp_path / "old.npz")
        wanted = {c: maps(before, x, c) for c in (1, 2)}
    found = load_analyzer(tmp_path / "old.npz", model)
    assert found.network.head.narrow
    again = load_analyzer(found.save(tmp_path / "new.npz"), model)
    for c in (1, 2):
        assert same(maps(found, x, c), wanted[c], 1e-6)
        assert all((a == b).all() for a, b in zip(maps(again, x, c), maps(found, x, c), strict=True))


def without(about):
    """What an earlier version wrote beside the arrays."""
    return {key: value for key, value in about.items() if key != "channels"}


def test_a_file_that_reads_otherwise_is_refused(monkeypatch, tmp_path):
    analyzer = mipin(squeezed(), classes=1).fit(IMAGES)
    state = Explanation._state
    monkeypatch.setattr(Explanation, "_state", lambda self: (state(self)[0], state(self)[1] | {"channels": 2}))
    with pytest.raises(ValueError, match="reads one channel, received one of 2; fit again"):
        load_analyzer(analyzer.save(tmp_path / "odd.npz"), analyzer.model)


def test_a_checkpoint_of_all_channels_is_refused(monkeypatch, tmp_path):
    with monkeypatch.context() as old:
        wide(old)
        mipin(squeezed(), classes=1).fit(IMAGES, checkpoint=tmp_path)
    analyzer = mipin(squeezed(), classes=1)
    with pytest.raises(ValueError, match=r"classes.*is no layer of this fit; delete it"):
        analyzer.fit(IMAGES, checkpoint=tmp_path)
    assert not analyzer.fitted
