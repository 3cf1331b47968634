"""MIPIN: what it takes, what it gives, and what it refuses."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import NotFittedError, create_analyzer, load_analyzer
from mipin_keras.mipin import ridge
from mipin_keras.mipin.fitting import segments
from tests.networks import balanced, close, cnn, layers_of, mlp, samples, with_weights
from tests.reference import Algorithm1

L = keras.layers
X = samples((12,), 150)
IMAGES = samples((7, 6, 2), 60)


def mipin(model, **options):
    return create_analyzer("mipin", model, **{"verbose": 0, "neuron_selection_mode": "index", **options})


@pytest.fixture(scope="module")
def fitted():
    """Of an MLP, every class, on all samples."""
    return mipin(mlp()).fit(X)


@pytest.fixture(scope="module")
def fitted_cnn():
    return mipin(cnn(), rows=None).fit(IMAGES)


def maps(analyzer, x, unit=None, **options):
    return [analyzer.analyze(x, unit, **options), analyzer.source_signal(x, unit, **options)]


def same(one, other, tolerance=1e-5):
    return all(close(a, b, tolerance) for a, b in zip(one, other, strict=True))


# One sample, one batch, one order


@pytest.mark.parametrize("name", ["fitted", "fitted_cnn"])
def test_a_sample_alone_in_a_batch_and_in_another_order(name, request, rng):
    analyzer, x = request.getfixturevalue(name), X if name == "fitted" else IMAGES
    x, order = x[:20], rng.permutation(20)
    for chosen in (1, np.arange(20) % 3):
        per_sample = np.broadcast_to(chosen, 20)
        whole = maps(analyzer, x, chosen)
        alone = [maps(analyzer, x[[i]], int(per_sample[i])) for i in range(20)]
        assert same([np.concatenate(parts) for parts in zip(*alone, strict=True)], whole)
        assert same(maps(analyzer, x[order], per_sample[order]), [found[order] for found in whole])
        for size in (1, 3, 7, 20, 1000):
            assert same(maps(analyzer, x, chosen, batch_size=size), whole)


def test_maps_are_float32_like_the_input_and_differ_by_class(fitted, fitted_cnn):
    for analyzer, x in ((fitted, X), (fitted_cnn, IMAGES)):
        for found in maps(analyzer, x, 0):
            assert found.shape == x.shape and found.dtype == np.float32 and np.isfinite(found).all()
        assert not close(analyzer.analyze(x, 0), analyzer.analyze(x, 1), 0.1)
    assert (fitted.analyze(X, 0).std(axis=0) > 0).all()


# Fitting


def test_fit_returns_the_analyzer_and_leaves_the_model_alone():
    model = mlp(head="softmax")
    weights = model.get_weights()
    analyzer = mipin(model)
    assert not analyzer.fitted and analyzer.fit(X) is analyzer and analyzer.fitted
    analyzer.analyze(X, 0)
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
    assert model.layers[-1].activation is keras.activations.softmax


class Numbers(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[i * 40 : (i + 1) * 40], np.zeros(len(X[i * 40 : (i + 1) * 40]))


def endless():
    while True:
        for i in range(0, 150, 50):
            yield X[i : i + 50]


def in_batches():
    return (X[i : i + 64] for i in range(0, 150, 64))


def test_every_source_and_batch_size_gives_the_same_fit(fitted, tmp_path):
    np.save(tmp_path / "x.npy", X)
    fits = {
        "memmap": lambda a: a.fit(np.load(tmp_path / "x.npy", mmap_mode="r")),
        "tf.data": lambda a: a.fit(tf.data.Dataset.from_tensor_slices(X).batch(37)),
        "PyDataset": lambda a: a.fit(Numbers()),
        "callable": lambda a: a.fit(in_batches),
        "generator": lambda a: a.fit(endless(), steps=3),
        "fit_generator": lambda a: a.fit_generator(endless(), 3),
        "fit_generator of a callable": lambda a: a.fit_generator(in_batches),
        "one by one": lambda a: a.fit(X[:150], 1),
        "all at once": lambda a: a.fit(X, batch_size=150),
        "another order": lambda a: a.fit(X[::-1]),
        "float64": lambda a: a.fit(X.astype("float64")),
    }
    wanted = maps(fitted, X, 2)
    analyzer = mipin(mlp(), classes=2)
    for kind, fit in fits.items():
        fit(analyzer)
        assert same(maps(analyzer, X, 2), wanted), kind
        assert analyzer.fit_report[0]["samples"] == 150, kind


def test_batch_size_does_not_change_what_a_convolution_fits(fitted_cnn):
    for size in (7, 60):
        analyzer = mipin(cnn(), rows=None, classes=1).fit(IMAGES, batch_size=size)
        assert same(maps(analyzer, IMAGES, 1), maps(fitted_cnn, IMAGES, 1))


def test_the_fit_does_not_depend_on_the_classes_beside_it(fitted):
    analyzer = mipin(mlp(), classes=[3, 1, 3]).fit(X)
    assert analyzer.classes == [1, 3] and sorted(analyzer.network.weights) == [1, 3]
    for c in (1, 3):
        assert same(maps(analyzer, X, c), maps(fitted, X, c), 1e-6)
    one = mipin(mlp(), classes=np.int64(1)).fit(X)
    assert one.classes == [1] and same(maps(one, X, 1), maps(fitted, X, 1), 1e-6)


def test_as_many_classes_go_through_the_data_together_as_fit(fitted):
    alone = mipin(mlp()).fit(X, memory=0)
    for c in range(4):
        assert same(maps(alone, X, c), maps(fitted, X, c), 1e-6)
    assert [(e["layer"], e["class"]) for e in alone.fit_report] == [(e["layer"], e["class"]) for e in fitted.fit_report]


def test_analyzing_before_fitting_says_so():
    analyzer = mipin(mlp())
    for refused in (analyzer.analyze, analyzer.source_signal):
        with pytest.raises(NotFittedError, match=r"'mipin' analyzer, which is not fitted; call fit\(X\)"):
            refused(X, 0)
    with pytest.raises(NotFittedError, match="not fitted"):
        analyzer.reconstruction_errors(X)
    with pytest.raises(NotFittedError, match="not fitted"):
        analyzer.save("never.npz")


def test_a_class_that_was_not_fitted_is_named():
    analyzer = mipin(mlp(), classes=[1, 3]).fit(X)
    for refused in (analyzer.analyze, analyzer.source_signal):
        problem = r"are fitted, \[1, 3\], received classes \[0, 2\], which were not fitted; fit\(X, classes="
        with pytest.raises(NotFittedError, match=problem):
            refused(X[:4], [0, 1, 2, 3])
        refused(X[:2], [1, 3])


@pytest.mark.parametrize("wrong", [4, -1, [0, 4], [], "all", [0.0], [True], None.__class__, [None], 1.0])
def test_wrong_classes_are_refused(wrong):
    with pytest.raises(ValueError, match="expected classes to be ints from 0 to 3"):
        mipin(mlp(), classes=wrong)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("samples", "some"), ("samples", None), ("conv_solver", "adam"), ("forward_relu", 1), ("forward_relu", "yes"),
        ("mask_input", 0), ("mask_input", "no"), ("ridge", -1e-3), ("ridge", np.nan), ("ridge", np.inf), ("ridge", "1"),
        ("ridge", True), ("ridge", None), ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("rows", 0), ("rows", 10.0),
        ("finetune_epochs", -1), ("finetune_epochs", 1.0), ("finetune_epochs", True), ("finetune_epochs", None),
        ("seed", -1), ("seed", None), ("seed", 1.0), ("verbose", 3), ("verbose", True), ("verbose", None),
        ("neuron_selection_mode", "max"), ("output_layer", "nowhere"), ("input_layer", "nowhere"),
        ("input_layer", "head"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(option, wrong):
    layers = {"nowhere": "'nowhere'", "head": "before the explained output"}
    with pytest.raises(ValueError, match=layers.get(wrong, f"{option}.*received")) as refused:
        mipin(mlp(), **{option: wrong})
    assert "expected" in str(refused.value)


def test_a_mask_without_forward_relu_is_refused():
    with pytest.raises(ValueError, match="mask_input=True with forward_relu=True"):
        mipin(mlp(), mask_input=True, forward_relu=False)


def test_wrong_verbosity_of_a_fit_is_refused():
    with pytest.raises(ValueError, match="expected verbose to be one of .*received 7"):
        mipin(mlp()).fit(X, verbose=7)


def test_what_a_fit_says(capsys):
    model = mlp(head="softmax")
    mipin(model, classes=1).fit(X)
    assert capsys.readouterr().out == ""
    mipin(model, classes=1).fit(X, verbose=2)
    said = capsys.readouterr().out
    assert "logits before 'head/softmax'" in said and "class 1: error" in said
    assert all(f"layer {name} ({i} of 3)" in said for i, name in enumerate(["head", "dense2", "dense1"], 1))
    mipin(model, classes=1, verbose=1).fit(X)
    assert "reconstruction error" in capsys.readouterr().out


# Samples


def test_a_class_without_samples_of_its_own_is_named():
    model = mlp()
    kernel, bias = model.layers[-1].get_weights()
    bias[2] -= 1000
    model.layers[-1].set_weights([kernel, bias])
    with pytest.raises(ValueError, match="samples of class 2.*received none among 150.*leave it out of classes="):
        mipin(model, samples="class").fit(X)
    for options in ({"classes": [0, 1, 3], "samples": "class"}, {"samples": "all"}):
        analyzer = mipin(model, **options).fit(X)
        assert np.isfinite(analyzer.analyze(X, 1)).all()


def test_a_class_without_samples_is_named_for_trained_and_sampled_convolutions_too():
    model = cnn()
    model.layers[-1].set_weights([model.layers[-1].get_weights()[0], np.array([0, 1e4, 0])])
    for options in ({"rows": 100}, {"conv_solver": "trained", "epochs": 1}):
        with pytest.raises(ValueError, match="samples of class [02]"):
            mipin(model, samples="class", **options).fit(IMAGES)


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_samples_than_features(make, n):
    model = make()
    x = samples(model.input_shape[1:], 20)
    analyzer = mipin(model, classes=[0], rows=None).fit(x[:n])
    wanted = Algorithm1(layers_of(model), 0, x[:n])
    assert close(analyzer.source_signal(x, 0), wanted.source(x), 1e-4)
    if n > 1:
        assert close(analyzer.analyze(x, 0), wanted.attribution(x), 1e-4)
    else:  # one sample has no variance: the bias is all there is
        assert make is cnn or np.abs(analyzer.analyze(x, 0)).max() < 1e-6


def test_a_constant_feature_is_known_without_the_logit():
    x = X.copy()
    x[:, 4] = 0.6
    analyzer = mipin(mlp(), classes=1).fit(x)
    np.testing.assert_allclose(analyzer.source_signal(x, 1)[:, 4], 0.6, rtol=1e-5)
    assert np.abs(analyzer.analyze(x, 1)[:, 4]).max() < 1e-6 < np.abs(analyzer.analyze(x, 1)).max()


def test_a_dead_layer_explains_nothing():
    model = mlp()
    model.layers[0].set_weights([model.layers[0].get_weights()[0], np.full(10, -1e4)])
    analyzer = mipin(model).fit(X)
    assert not analyzer.analyze(X, 2).any()
    np.testing.assert_allclose(analyzer.source_signal(X, 2), np.tile(X.mean(axis=0), (150, 1)), rtol=1e-5)
    assert all(np.isfinite([line["mse"], line["variance"], line["relative"]]).all() for line in analyzer.fit_report)


def test_a_dead_unit_and_a_dead_filter_get_nothing():
    model = mlp()
    kernel, bias = model.layers[0].get_weights()
    bias[3] = -1e4
    model.layers[0].set_weights([kernel, bias])
    found = mipin(model, input_layer="dense1", mask_input=False).fit(X)
    assert np.abs(found.analyze(X, 0)[:, 3]).max() < 1e-6 < np.abs(found.analyze(X, 0)).max()
    model = cnn()
    kernel, bias = model.layers[0].get_weights()
    bias[1] = -1e4
    model.layers[0].set_weights([kernel, bias])
    analyzer = mipin(model, classes=0).fit(IMAGES)
    assert all(np.isfinite(found).all() and found.any() for found in maps(analyzer, IMAGES, 0))


def test_a_logit_that_is_always_zero_has_an_attribution_of_zero():
    model = mlp()
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 1], bias[1] = 0, 0
    model.layers[-1].set_weights([kernel, bias])
    analyzer = mipin(model).fit(X)
    assert not analyzer.analyze(X, 1).any()
    assert np.isfinite(analyzer.source_signal(X, 1)).all() and analyzer.analyze(X, 0).any()


def test_a_sample_whose_logit_is_zero_has_an_attribution_of_zero():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, use_bias=False)])
    model.set_weights([np.float32([[1, 1], [-1, 0], [0, 1]])])
    x = samples((3,), 50)
    x[7] = [1, 1, 0]
    found = mipin(model, classes=0).fit(x).analyze(x, 0)
    assert not found[7].any() and np.abs(found).max() > 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_whose_output_is_not_finite_is_refused(bad):
    model = mlp()
    kernel, bias = model.layers[-1].get_weights()
    bias[0] = bad
    model.layers[-1].set_weights([kernel, bias])
    analyzer = mipin(model)
    with pytest.raises(ValueError, match="finite"):
        analyzer.fit(X)
    assert not analyzer.fitted
    # weights that go bad after the fit
    model = mlp()
    analyzer = mipin(model).fit(X)
    model.layers[-1].set_weights([kernel, bias])
    with pytest.raises(ValueError, match="finite output of the model, received NaN or infinity"):
        analyzer.analyze(X, 0)


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16", "mixed_float16", "float16"])
def test_models_of_another_precision(precision):
    def model(policy):
        layers = [L.Dense(10, "relu", dtype=policy), L.Dense(4, dtype="float64" if policy == "float64" else "float32")]
        made = keras.Sequential([keras.Input((12,), dtype="float64" if policy == "float64" else None), *layers])
        return balanced(with_weights(made))

    found = maps(mipin(model(precision), ridge=1.0).fit(X), X, 1)
    wanted = maps(mipin(model("float32"), ridge=1.0).fit(X), X, 1)
    assert all(f.dtype == np.float32 and np.isfinite(f).all() for f in found)
    if precision == "float64":
        assert same(found, wanted, 1e-4)
    else:  # where a ReLU is near 0, rounding switches it
        assert all(np.corrcoef(f.ravel(), w.ravel())[0, 1] > 0.98 for f, w in zip(found, wanted, strict=True))


# Interruption


def interrupted(after):
    """Data that somebody stops with Ctrl-C after so many batches."""
    given = []

    def source():
        for i in range(0, 150, 50):
            if len(given) == after:
                raise KeyboardInterrupt
            given.append(i)
            yield X[i : i + 50]

    return source


@pytest.mark.parametrize("after", [0, 1, 4, 8])
def test_an_interrupted_fit_leaves_the_analyzer_unfitted(after):
    analyzer = mipin(mlp())
    with pytest.raises(KeyboardInterrupt):
        analyzer.fit(interrupted(after), memory=0)
    assert not analyzer.fitted and analyzer.fit_report == []
    with pytest.raises(NotFittedError, match="not fitted"):
        analyzer.analyze(X, 0)
    analyzer.fit(X)  # and it can still be fitted
    assert analyzer.fitted


def test_an_interrupted_or_failed_fit_keeps_the_one_before():
    analyzer = mipin(mlp()).fit(X)
    before, report = maps(analyzer, X, 1), analyzer.fit_report
    with pytest.raises(KeyboardInterrupt):
        analyzer.fit(interrupted(5))
    broken = X.copy()
    broken[140, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        analyzer.fit(broken)
    assert all((a == b).all() for a, b in zip(maps(analyzer, X, 1), before, strict=True))
    assert analyzer.fit_report is report


# Selection


def test_max_activation_is_the_largest_logit(fitted):
    analyzer = mipin(mlp(), neuron_selection_mode="max_activation").fit(X)
    top = mlp().predict(X, verbose=0).argmax(axis=1)
    assert len(set(top.tolist())) == 4
    assert same(maps(analyzer, X), maps(fitted, X, top), 1e-6)
    np.testing.assert_allclose(analyzer.logits(X), mlp().predict(X, verbose=0), rtol=1e-5, atol=1e-6)


def test_all_is_the_sum_of_attributions_and_the_mean_of_source_signals(fitted):
    analyzer = mipin(mlp(), neuron_selection_mode="all").fit(X)
    each = [maps(fitted, X, c) for c in range(4)]
    wanted = [np.sum([a for a, _ in each], axis=0), np.mean([s for _, s in each], axis=0)]
    assert same(maps(analyzer, X), wanted)


def test_a_callable_selects(fitted):
    analyzer = mipin(mlp(), neuron_selection_mode=lambda logits: logits.argmin(axis=1)).fit(X)
    lowest = mlp().predict(X, verbose=0).argmin(axis=1)
    assert same(maps(analyzer, X), maps(fitted, X, lowest), 1e-6)


def test_tied_logits_share():
    model = mlp()
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 3], bias[3] = kernel[:, 0], bias[0]
    model.layers[-1].set_weights([kernel, bias])
    top = model.predict(X, verbose=0).argmax(axis=1)
    x = X[top == 0]
    assert len(x) > 5
    by_index = mipin(model).fit(X)
    tied = mipin(model, neuron_selection_mode="max_activation").fit(X)
    both = [maps(by_index, x, c) for c in (0, 3)]
    assert same(maps(tied, x), [np.mean(parts, axis=0) for parts in zip(*both, strict=True)])


# Reports


def test_the_report_is_what_is_measured():
    model = mlp()
    analyzer = mipin(model).fit(X)
    assert [(e["layer"], e["class"]) for e in analyzer.fit_report] == [
        (name, c) for name in ("head", "dense2", "dense1") for c in range(4)
    ]
    # What a layer's inverse reconstructs, the explanation down to that layer shows, without the mask there.
    for layer, below in (("head", "dense2"), ("dense2", "dense1"), ("dense1", None)):
        options = {} if below is None else {"input_layer": below, "mask_input": False}
        x = X if below is None else keras.Model(model.inputs, model.get_layer(below).output).predict(X, verbose=0)
        partial = mipin(model, **options).fit(X)
        for line in analyzer.fit_report:
            if line["layer"] == layer:
                guess = partial.source_signal(X, line["class"])
                mse, variance = np.square(x.astype(float) - guess).mean(), x.var(axis=0).mean()
                assert line["mse"] == pytest.approx(mse, rel=1e-4)
                assert line["variance"] == pytest.approx(variance, rel=1e-4)
                assert line["relative"] == pytest.approx(mse / variance, rel=1e-4)
                assert (line["type"], line["samples"], line["rows"]) == ("Dense", 150, 150)


def test_the_report_of_a_convolution(fitted_cnn):
    line = fitted_cnn.fit_report[-2]
    assert (line["layer"], line["type"], line["class"]) == ("conv", "Conv2D", 1)
    assert (line["samples"], line["rows"]) == (60, 60 * 7 * 6)
    guess = fitted_cnn.source_signal(IMAGES, 1)
    assert line["mse"] == pytest.approx(np.square(IMAGES - guess).mean(), rel=1e-4)
    assert line["variance"] == pytest.approx(IMAGES.reshape(-1, 2).var(axis=0).mean(), rel=1e-4)


@pytest.mark.parametrize("samples_", ["all", "class"])
def test_reconstruction_errors_on_the_fits_data_are_the_report_and_on_other_data_what_they_are(samples_):
    analyzer = mipin(cnn(), rows=None, samples=samples_).fit(IMAGES)
    again = analyzer.reconstruction_errors(IMAGES, batch_size=17)
    assert len(again) == len(analyzer.fit_report)
    for found, line in zip(again, analyzer.fit_report, strict=True):
        for key, value in line.items():
            assert found[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), key
    other = samples((7, 6, 2), 40, seed=9)
    (line,) = [e for e in analyzer.reconstruction_errors(other) if (e["layer"], e["class"]) == ("conv", 2)]
    own = other if samples_ == "all" else other[cnn().predict(other, verbose=0).argmax(axis=1) == 2]
    assert line["samples"] == len(own) and 0 < len(own)
    assert line["mse"] == pytest.approx(np.square(own - analyzer.source_signal(own, 2)).mean(), rel=1e-4)


def test_sampled_rows_are_reported_and_come_close_to_all(fitted_cnn):
    every = {}
    for rows in (300, 1500):
        analyzer = mipin(cnn(), rows=rows, classes=1).fit(IMAGES)
        line = analyzer.fit_report[-1]
        assert line["layer"] == "conv" and line["samples"] == 60
        assert 0.5 * rows <= line["rows"] <= 1.5 * rows
        assert analyzer.fit_report[0]["rows"] == 60  # dense layers take every sample
        difference = analyzer.source_signal(IMAGES, 1) - fitted_cnn.source_signal(IMAGES, 1)
        every[rows] = np.linalg.norm(difference) / np.linalg.norm(fitted_cnn.source_signal(IMAGES, 1))
    assert 0 < every[1500] < every[300] < 0.3 and every[1500] < 0.1


@pytest.mark.parametrize("rows", [1, 3, 20, 42, 100])
def test_few_rows_still_fit(rows):
    analyzer = mipin(cnn(), rows=rows, classes=1).fit(IMAGES)
    # A random number of samples, and a whole number of positions from each
    assert 0.7 * rows <= analyzer.fit_report[-1]["rows"] <= 1.3 * rows + 4
    assert all(np.isfinite(found).all() and found.any() for found in maps(analyzer, IMAGES, 1))


def test_seeds(fitted_cnn):
    def fit(**options):
        return maps(mipin(cnn(), classes=1, **options).fit(IMAGES), IMAGES, 1)

    one, again, other = fit(rows=300, seed=3), fit(rows=300, seed=3), fit(rows=300, seed=4)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert not same(one, other, 1e-4)
    assert same(fit(rows=None, seed=3), maps(fitted_cnn, IMAGES, 1), 1e-6)  # nothing random is left


# Memory


def test_sums_and_batches_do_not_grow_with_the_samples(monkeypatch):
    sizes, alive, peaks = [], [0], []
    solve = ridge.Ridge.solve

    def solved(self, *args):
        sizes.append(self.nbytes)
        return solve(self, *args)

    monkeypatch.setattr(ridge.Ridge, "solve", solved)
    monkeypatch.setattr(segments, "UNIT_BYTES", 1)  # batches as they come

    def gone():
        alive[0] -= 1

    def data(n):
        def batches():
            for i in range(n):
                batch = IMAGES[i % 4 : i % 4 + 8].copy()
                weakref.finalize(batch, gone)
                alive[0] += 1
                peaks[-1] = max(peaks[-1], alive[0])
                yield batch
                del batch

        return batches

    found = []
    for n in (5, 40):
        sizes.clear()
        gc.collect()
        peaks.append(0)
        mipin(cnn(), classes=[0, 1]).fit(data(n), memory=0)
        found.append(list(sizes))
    assert found[0] == found[1] and len(found[0]) == 4
    assert 0 < peaks[1] <= peaks[0] + 2 < 10


# Trained convolutions


def test_mipin_trained_is_mipin_with_trained_convolutions():
    options = {"verbose": 0, "epochs": 1, "classes": 1, "neuron_selection_mode": "index"}
    analyzer = create_analyzer("mipin.trained", cnn(), **options)
    assert analyzer.name == "mipin.trained" and analyzer.options["conv_solver"] == "trained"
    assert isinstance(analyzer, type(mipin(cnn())))
    other = create_analyzer("mipin", cnn(), conv_solver="trained", seed=0, **options)
    assert same(maps(analyzer.fit(IMAGES), IMAGES, 1), maps(other.fit(IMAGES), IMAGES, 1), 1e-6)


def test_a_fit_comes_back_on_the_same_model_rebuilt_with_other_names(tmp_path):
    """Keras numbers layers without a name by what else the process has built: dense, dense_1, ..."""

    def build():
        layers = [keras.Input((12,)), L.Dense(6, activation="relu"), L.Dense(3)]
        return with_weights(keras.Sequential(layers), 3)

    analyzer = create_analyzer("mipin", build(), verbose=0).fit(X, checkpoint=tmp_path / "checkpoint")
    again = build()
    assert [layer.name for layer in again.layers] != [layer.name for layer in analyzer.model.layers]
    resumed = create_analyzer("mipin", again, verbose=0).fit(X, checkpoint=tmp_path / "checkpoint")
    for found in (load_analyzer(analyzer.save(tmp_path / "fit.npz"), again), resumed):
        np.testing.assert_array_equal(found.analyze(X[:5]), analyzer.analyze(X[:5]))
        assert {line["layer"] for line in found.fit_report} == {layer.name for layer in again.layers}
        without = [{key: value for key, value in line.items() if key != "layer"} for line in found.fit_report]
        assert without == [{k: v for k, v in line.items() if k != "layer"} for line in analyzer.fit_report]
        load_analyzer(found.save(tmp_path / "again.npz"), again)


@pytest.mark.parametrize("memory", [0, 2.0])
def test_batches_of_which_no_sample_is_drawn_do_no_harm(memory, monkeypatch):
    monkeypatch.setattr(segments, "UNIT_BYTES", 1)
    layers = [keras.layers.Conv2D(2, 3, name="a"), keras.layers.MaxPooling2D(), keras.layers.Conv2D(3, 2, name="head")]
    layers += [keras.layers.GlobalAveragePooling2D()]
    model = with_weights(keras.Sequential([keras.Input((7, 6, 2)), *layers]))
    analyzer = mipin(model, rows=60, classes=[0, 2]).fit(IMAGES, batch_size=2, memory=memory)
    assert {line["layer"]: line["rows"] for line in analyzer.fit_report}.keys() == {"a", "head"}
    assert all(0 < line["rows"] < 200 for line in analyzer.fit_report)
    assert all(np.isfinite(found).all() and found.any() for found in maps(analyzer, IMAGES, 2))


@pytest.mark.parametrize(("classes", "of"), [([1], "class 1"), ([0, 2], "one of the classes")])
def test_without_a_ridge_a_head_of_a_constant_logit_is_refused_by_its_layer(classes, of):
    model = mlp()
    model.layers[-1].set_weights([np.zeros((8, 4), np.float32), np.ones(4, np.float32)])
    with pytest.raises(ValueError, match=rf"1 features over 150 rows.*ridge=0.*larger ridge.*layer 'head', {of}"):
        mipin(model, ridge=0, classes=classes).fit(X)
    assert mipin(model, classes=classes).fit(X).fitted  # with one there is an answer: the mean


def test_without_a_ridge_collinear_signals_are_refused_by_their_layer():
    """Without masks all neurons of a layer get the one logit, times their weights; float32 would make it noise."""
    with pytest.raises(ValueError, match=r"8 features over 150 rows.*ridge=0.*layer 'dense2', class 1"):
        mipin(mlp(), ridge=0, forward_relu=False, classes=1).fit(X)
