"""mi.total, mi.decision and mi.redundant: planted information, the network as it was, files, labels, bad input."""

import re

import keras
import numpy as np
import pytest

from mipin_keras import NotFittedError, create_analyzer, load_analyzer
from mipin_keras.information import Decomposition, InformationReport
from mipin_keras.information.estimate import split
from tests.information.networks import noise, quadrants, small, tokens
from tests.networks import samples, with_weights

NAMES = ("mi.total", "mi.decision", "mi.redundant")
L = keras.layers
X = samples((8, 6, 2), 60)


def quick(model, name="mi.total", x=X, y=None, **options):
    options = {"epochs": 2, "verbose": 0} | options
    return create_analyzer(name, model, **options).fit(x, y, batch_size=16)


@pytest.fixture(scope="module")
def fitted():
    return quick(with_weights(small(), 1))


# Planted


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, marks=pytest.mark.medium), True],
    ids=["one quadrant", "two quadrants"],
)
def planted(request):
    options = {"layer": "feature", "representation": "z", "learning_rate": 1e-2, "epochs": 12, "verbose": 0}
    analyzer = create_analyzer("mi.total", quadrants(request.param), **options).fit(noise())
    return request.param, analyzer, analyzer.decompose(noise(400, seed=1))


def of_quadrants(maps):
    """The sum over each quadrant, of the mean map."""
    return maps.mean(axis=0).reshape(2, 2, 2, 2).sum(axis=(1, 3))


def test_information_lies_where_the_representation_reads(planted):
    second, _, found = planted
    share = of_quadrants(found.total) / of_quadrants(found.total).sum()
    if second:
        assert share[0].sum() > 0.85 and share[0].min() > 0.2
    else:
        assert share[0, 0] > 0.9 - 0.05  # see the test with the author's number of epochs below


def test_what_the_head_ignores_is_redundant(planted):
    second, analyzer, found = planted
    total, decision, redundant = map(of_quadrants, (found.total, found.decision, found.redundant))
    assert decision[0, 0] > 0.85 * decision.sum() and decision[0, 0] > 0.8 * total[0, 0]
    assert redundant[0, 0] < 0.2 * total[0, 0]
    if second:
        assert decision[0, 1] < 0.15 * total[0, 1] and redundant[0, 1] > 0.85 * total[0, 1]
    mask = of_quadrants(found.mask) / 4
    assert mask[0, 0] > 0.9 and np.delete(mask.reshape(-1), 0).max() < 0.1
    report = analyzer.fit_report
    assert isinstance(report, InformationReport) and report.samples == (1200, 300) and report.labels == "decisions"
    assert report.accuracy == 1 and report.masked_accuracy > 0.95 and 0.2 < report.coverage < 0.3
    assert report.limit == pytest.approx(np.log(31 * 16))
    masked = analyzer.masked_logits(noise(400, seed=1)).argmax(axis=1)
    assert (masked == analyzer.logits(noise(400, seed=1)).argmax(axis=1)).mean() > 0.95


@pytest.mark.medium
def test_nine_tenths_of_the_information_are_in_the_quadrant_that_is_read():
    options = {"layer": "feature", "representation": "z", "learning_rate": 1e-2, "epochs": 12, "verbose": 0}
    found = create_analyzer("mi.total", quadrants(), **options).fit(noise(6000)).decompose(noise(400, seed=1))
    share = of_quadrants(found.total) / of_quadrants(found.total).sum()
    assert share[0, 0] > 0.9


# The interface


def test_the_three_are_one_fit(fitted, tmp_path):
    found = fitted.decompose(X)
    assert isinstance(found, Decomposition) and found.total.shape == (60, 4, 3)
    np.testing.assert_allclose(found.redundant, found.total - found.decision, atol=1e-6)
    assert (found.mask >= 0).all() and (found.mask <= 1).all() and found.mask.std() > 0
    assert {one.dtype for one in found} == {np.dtype("float32")}
    sums = found.sums
    np.testing.assert_allclose(sums["total"], found.total.sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(sums["coverage"], found.mask.mean(axis=(1, 2)), rtol=1e-6)
    for name in NAMES:
        other = fitted.as_part(name)
        assert other.name == name and other.fitted
        flat = create_analyzer(name, fitted.model, **other.options | {"resize": False})
        flat.load(other.save(tmp_path / "fit.npz"))
        np.testing.assert_array_equal(flat.analyze(X), getattr(found, name.split(".")[1]))
    with pytest.raises(ValueError, match="'mi.all'"):
        fitted.as_part("mi.all")


def test_maps_are_of_the_images_size(fitted):
    maps = fitted.analyze(X)
    assert maps.shape == X.shape and maps.dtype == np.float32
    np.testing.assert_array_equal(maps[..., 0], maps[..., 1])
    total = fitted.decompose(X).total
    # Linear between the centres: the corners are the corner's own value.
    np.testing.assert_allclose(maps[:, 0, 0, 0], total[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(maps[:, -1, -1, 0], total[:, -1, -1], rtol=1e-5)


def test_an_input_does_not_depend_on_its_batch(fitted):
    found = fitted.decompose(X)
    for other, wanted in (
        (fitted.decompose(X, batch_size=7).total, found.total),
        (fitted.decompose(X[::-1]).total, found.total[::-1]),
        (fitted.decompose(X[[3]]).decision, found.decision[[3]]),
    ):
        np.testing.assert_allclose(other, wanted, atol=1e-3)


def test_bits_are_nats_by_log_2(fitted, tmp_path):
    bits = load_analyzer(fitted.save(tmp_path / "fit.npz"), fitted.model, unit="bits")
    for nats, other in zip(fitted.decompose(X)[:3], bits.decompose(X)[:3], strict=True):
        np.testing.assert_allclose(other * np.log(2), nats, rtol=1e-4, atol=1e-5)


def test_a_file_gives_the_same_bits(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    loaded = load_analyzer(path, fitted.model)
    for one, other in zip(fitted.decompose(X), loaded.decompose(X), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.fit_report == fitted.fit_report and loaded.options == fitted.options
    with pytest.raises(ValueError, match="another model|other weights"):
        load_analyzer(path, with_weights(small(), 2))


@pytest.mark.medium
def test_seeds():
    model = with_weights(small(), 1)
    one, same, other = (quick(model, seed=seed).decompose(X[:8]) for seed in (0, 0, 1))
    np.testing.assert_allclose(one.total, same.total, atol=1e-3)
    assert np.abs(one.total - other.total).max() > 1e-2


def test_no_neuron_is_selected(fitted):
    with pytest.raises(ValueError, match="expected no neuron_selection"):
        fitted.analyze(X, 0)
    with pytest.raises(TypeError, match="'neuron_selection_mode'"):
        create_analyzer("mi.total", fitted.model, neuron_selection_mode="index")


# The network


def test_the_network_stays_as_it_is():
    model = with_weights(small(), 1)
    model.compile("adam", "sparse_categorical_crossentropy")
    weights, moving = model.get_weights(), [w.trainable for w in model.weights]
    state = model.get_layer("norm").moving_mean.numpy().copy()
    analyzer = quick(model, y=np.arange(60) % 3, epochs=3)
    analyzer.analyze(X)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean.numpy(), state)
    assert moving == [w.trainable for w in model.weights]


@pytest.mark.medium
def test_other_weights_are_noticed(fitted):
    model = with_weights(small(), 1)
    analyzer = quick(model)
    model.get_layer("conv").bias.assign_add([1.0, 0, 0, 0])
    for call in (analyzer.analyze, analyzer.decompose, analyzer.masked_logits):
        with pytest.raises(NotFittedError, match="weights have changed"):
            call(X)


def test_a_mask_of_ones_is_the_network(fitted):
    # Through a shortcut too: what the rest of the network reads beside the feature map is that of the same input.
    model = with_weights(small(), 1)
    analyzer = quick(model, layer="side", epochs=1)
    weights = analyzer._found.mask.get_weights()
    analyzer._found.mask.set_weights([*weights[:-1], np.full_like(weights[-1], 50)])
    np.testing.assert_allclose(analyzer.masked_logits(X), analyzer.logits(X), rtol=1e-5, atol=1e-6)
    analyzer._found.mask.set_weights([*weights[:-1], np.full_like(weights[-1], -50)])
    bare = keras.Model(model.inputs, model.get_layer("pool").output)(X)
    kernel, bias = model.get_layer("head").get_weights()
    np.testing.assert_allclose(analyzer.masked_logits(X), np.asarray(bare).mean(axis=(1, 2)) @ kernel + bias, atol=1e-5)


# Tokens, heads and labels


def test_tokens():
    x = samples((6, 3), 60)
    analyzer = quick(with_weights(tokens(), 1), x=x)
    found = analyzer.decompose(x)
    assert found.total.shape == found.mask.shape == (60, 6) and found.total.std() > 0
    assert analyzer.analyze(x).shape == x.shape
    assert analyzer.cut.shape == (6, 5) and analyzer.cut.size == 5


@pytest.mark.parametrize(("head", "units"), [("sigmoid", 1), ("softmax", 3), ("sigmoid", 3), (None, 1)])
@pytest.mark.medium
def test_heads_and_labels(head, units):
    model = with_weights(small(head, units), 1)
    own = quick(model, y=None).fit_report
    assert own.labels == "decisions" and own.accuracy == 1
    by_sign = head == "sigmoid" or units == 1
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, units)) if by_sign else rng.integers(0, units, 60)
    found = quick(model, y=labels).fit_report
    assert found.labels == "given" and found.accuracy < 1
    logits = create_analyzer("gradient", model).logits(X)
    held, _ = split(60, 0.2, 16, 0, "inputs")
    right = (logits > 0) == labels if by_sign else logits.argmax(axis=1) == labels
    assert found.accuracy == pytest.approx(right[held].mean())
    other = None if by_sign and units > 1 else labels[:, 0] if by_sign else np.eye(units)[labels]
    if other is not None:  # the same labels in another form
        again = quick(model, y=other).fit_report
        np.testing.assert_allclose(again.history["mask"]["loss"], found.history["mask"]["loss"], rtol=1e-4)


@pytest.mark.medium
def test_one_head_of_two():
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    mean = L.GlobalAveragePooling2D()(y)
    model = with_weights(keras.Model(x, [L.Dense(2, name="one")(mean), L.Dense(3, name="other")(mean)]), 1)
    assert quick(model, output="other").masked_logits(X).shape == (60, 3)
    with pytest.raises(ValueError, match="choose one by output="):
        quick(model)


@pytest.mark.medium
def test_a_head_that_is_a_convolution():
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = L.GlobalAveragePooling2D()(L.Conv2D(3, 1, name="head")(y))
    analyzer = quick(with_weights(keras.Model(x, y), 1))
    assert (
        analyzer.cut.shape == (6, 4, 4) and analyzer.cut.size == 4 and analyzer.decompose(X).total.shape == (60, 6, 4)
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.medium
def test_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        analyzer = quick(with_weights(small(), 1))
        found = analyzer.decompose(X)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.total.dtype == np.float32 and np.isfinite(found.total).all() and found.total.std() > 0


@pytest.mark.medium
def test_features_that_do_not_fit_in_memory_go_to_files():
    model = with_weights(small(), 1)
    options = {"epochs": 1, "verbose": 0}
    analyzer = create_analyzer("mi.total", model, **options).fit(X, batch_size=16, memory=0)
    np.testing.assert_allclose(analyzer.decompose(X).total, quick(model, epochs=1).decompose(X).total, atol=1e-3)


def test_callbacks_and_what_is_printed(capsys):
    epochs = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(set(logs)))
    analyzer = create_analyzer("mi.total", with_weights(small(), 1), epochs=1, verbose=2)
    assert analyzer.fit(X, batch_size=16, callbacks=callback) is analyzer
    assert [sorted(logs)[0] for logs in epochs] == ["accuracy", "decision"]
    said = capsys.readouterr().out
    assert "the mask module, on 48 inputs, 12 held out" in said and "mi.total: the critic" in said


def test_interrupted_it_stays_as_it_was(fitted):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    analyzer = create_analyzer("mi.total", with_weights(small(), 1), epochs=1, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        analyzer.fit(X, batch_size=16, callbacks=[Stop()])
    assert not analyzer.fitted and analyzer.identity is None
    with pytest.raises(NotFittedError, match="'mi.total'"):
        analyzer.analyze(X)


# Bad input


def beside():
    """A representation that does not read the feature map "unread"."""
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    unread = L.Conv2D(3, 3, name="unread")(x)
    z = L.GlobalAveragePooling2D(name="z")(y)
    return keras.Model(x, L.Dense(2, name="head")(L.Concatenate()([z, L.GlobalAveragePooling2D()(unread)])))


def flat():
    x = keras.Input((8,))
    return keras.Model(x, L.Dense(2)(L.Dense(4, "relu", name="hidden")(x)))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (beside, {"layer": "unread", "representation": "z"}, "a representation that depends on the local parts"),
        (small, {"layer": "nowhere"}, "unknown layer name 'nowhere'"),
        (small, {"representation": "nowhere"}, "unknown layer name 'nowhere'"),
        (small, {"layer": "mean"}, r"\(batch, \*one to three spatial axes, channels\)"),
        (small, {"layer": "head"}, "floating-point output"),
        (small, {"representation": "conv", "layer": "pool"}, "depends on the local parts"),
        (flat, {}, "a feature map with several locations"),
        (small, {"critic": "best"}, "critic to be one of"),
        (small, {"unit": "decibels"}, "unit to be one of"),
        (small, {"epochs": 0}, "epochs"),
        (small, {"mask_weight": -1}, "mask_weight"),
        (small, {"validation_split": 0}, "validation_split"),
        (small, {"seed": -1}, "seed"),
    ],
)
def test_bad_options(make, options, message):
    with pytest.raises(ValueError, match=message) as problem:
        create_analyzer("mi.total", make(), **options)
    assert re.search("expected|received", str(problem.value))


def test_a_feature_map_of_one_location():
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(4, (8, 6), name="whole")(x)
    model = keras.Model(x, L.Dense(2, name="head")(L.Flatten()(y)))
    with pytest.raises(ValueError, match="several locations, received 'whole'"):
        create_analyzer("mi.total", model, layer="whole")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 1}, "batch_size to be an integer of at least 2"),
        ({"y": 1}, "batch_size to be an integer of at least 2"),
        ({"batch_size": 50}, "2 inputs or more to hold out and a batch of 50"),
        ({"y": np.zeros(59)}, r"a label for each of the 60 inputs, of shape \(60,\)"),
        ({"y": np.zeros((60, 2))}, "received shape \\(60, 2\\)"),
        ({"y": np.full(60, 3)}, "classes from 0 to 2"),
        ({"y": np.full(60, 0.5)}, "classes from 0 to 2"),
        ({"y": np.full((60, 3), 0.3)}, "one-hot"),
        ({"y": np.array(["cat"] * 60)}, "a label for each"),
        ({"X": X[:0]}, "at least one sample"),
        ({"X": np.full_like(X, np.nan)}, "finite"),
        ({"X": X[:, 1:]}, "expected input of shape"),
    ],
)
def test_bad_data(given, message):
    analyzer = create_analyzer("mi.total", with_weights(small(), 1), epochs=1, verbose=0)
    with pytest.raises(ValueError, match=message):
        analyzer.fit(**{"X": X, "batch_size": 16} | given)
    assert not analyzer.fitted
