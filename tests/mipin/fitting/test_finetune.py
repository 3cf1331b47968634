"""Fine-tuning: all inverses of a class together, against Adam by hand in float64."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer
from mipin_keras.mipin.fitting import finetune
from mipin_keras.mipin.keras_walk import ExplainedModel
from tests.networks import close, cnn, mlp, residual, samples

X = samples((12,), 150)
NUMBERS = ("samples", "rows", "mse", "variance", "relative")
IMAGES = samples((7, 6, 2), 60)


def mipin(model, epochs, **options):
    options = {"verbose": 0, "neuron_selection_mode": "index"} | options
    return create_analyzer("mipin", model, finetune_epochs=epochs, **options)


def by_hand(model, c, start, batches, epochs):
    """The weights of :func:`tests.networks.mlp` from ``start`` on, by Adam in float64.

    Args:
        start: Kernel and bias of the inverses of the head, "dense2" and "dense1".
    """
    k1, b1, k2, b2, k3, b3 = (w.astype(float) for w in model.get_weights())
    variables = [tf.Variable(w, dtype=tf.float64) for w in start]
    means, squares = ([np.zeros(v.shape) for v in variables] for _ in range(2))
    rate, step = finetune.LEARNING_RATE, 0
    for _ in range(epochs):
        for given in batches:
            one = np.maximum(given @ k1 + b1, 0)
            two = np.maximum(one @ k2 + b2, 0)
            logit = (two @ k3 + b3)[:, c : c + 1]
            with tf.GradientTape() as tape:
                kernel, bias, kernel2, bias2, kernel1, bias1 = variables
                signal = (logit @ kernel + bias) * (two != 0)
                signal = (signal @ kernel2 + bias2) * (one != 0)
                loss = tf.reduce_mean(tf.square(given - signal @ kernel1 - bias1))
            step += 1
            for v, gradient, mean, square in zip(
                variables, tape.gradient(loss, variables), means, squares, strict=True
            ):
                mean += 0.1 * (gradient.numpy() - mean)
                square += 0.001 * (np.square(gradient.numpy()) - square)
                scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                v.assign_sub(scale * mean / (np.sqrt(square) + 1e-7))
    return [v.numpy() for v in variables]


def weights_of(analyzer, c):
    return [w.numpy() for node in analyzer.network.learned for w in analyzer.network.weights[c][node.index]]


@pytest.mark.parametrize("samples_", ["all", "class"])
@pytest.mark.medium
def test_it_is_adam_on_the_overall_objective(samples_, monkeypatch):
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e-2)  # so that a few steps matter
    model = mlp()
    closed = mipin(model, 0, samples=samples_).fit(X, batch_size=20)
    tuned = mipin(model, 3, samples=samples_).fit(X, batch_size=20)
    top = model.predict(X, verbose=0).argmax(axis=1)
    for c in (0, 2):
        start = weights_of(closed, c)
        batches = cut(np.ones(150, bool) if samples_ == "all" else top == c)
        assert len(batches) > 1  # on one alone the layers' own fit is the best already
        wanted = by_hand(model, c, start, batches, 3)
        for found, by_adam, before in zip(weights_of(tuned, c), wanted, start, strict=True):
            assert np.linalg.norm(found - by_adam) < 3e-3 * np.linalg.norm(found - before)


def cut(chosen):
    """Batches in float64 of the samples that are chosen, each as soon as it has 20."""
    batches, kept = [], []
    for i in range(0, len(X), 20):
        kept.extend(X[i : i + 20][chosen[i : i + 20]].astype(float))
        if len(kept) >= len(X[i : i + 20]):
            batches, kept = [*batches, np.array(kept)], []
    return [*batches, np.array(kept)] if kept else batches


def test_own_samples_fill_batches_in_the_datas_order():
    model = mlp()
    analyzer = mipin(model, 1, samples="class").fit(X)
    tuning = object.__new__(finetune._FineTuning)
    tuning.batches, tuning._sizes = analyzer.batches(X, None, 16), [16] * 9 + [6]
    own = {0: np.arange(0, 150, 3), 1: np.array([149]), 2: np.arange(150)}
    tuning._own = own
    for c, indices in own.items():
        batches = list(tuning._batches_of(c))
        np.testing.assert_array_equal(np.concatenate(batches), X[indices])
        assert all(len(batch) >= 6 for batch in batches[:-1]) and max(map(len, batches)) < 32
        assert tuning._steps(c) == len(batches)
    assert [len(batch) for batch in tuning._batches_of(2)] == [16] * 9 + [6]


@pytest.mark.medium
def test_the_report_has_the_error_before_and_after():
    model = mlp()
    closed, tuned = mipin(model, 0).fit(X), mipin(model, 30).fit(X)
    assert "mse_before" not in closed.fit_report[0]
    assert [(line["layer"], line["class"]) for line in tuned.fit_report] == [
        (line["layer"], line["class"]) for line in closed.fit_report
    ]
    now, before = tuned.reconstruction_errors(X), closed.reconstruction_errors(X)
    for line, measured, old in zip(tuned.fit_report, now, before, strict=True):
        assert [line[key] for key in NUMBERS] == pytest.approx([measured[key] for key in NUMBERS], rel=1e-5)
        assert line["mse_before"] == pytest.approx(old["mse"], rel=1e-5)
        assert line["relative_before"] == pytest.approx(old["relative"], rel=1e-5)
        ends = [np.square(X - each.source_signal(X, line["class"])).mean() for each in (closed, tuned)]
        assert [line["end_mse_before"], line["end_mse"]] == pytest.approx(ends, rel=1e-4)
        assert ends[1] < ends[0]


@pytest.mark.parametrize(
    ("make", "options"),
    [(cnn, {"samples": "class"}), (residual, {"input_layer": "relu"}), (residual, {"forward_relu": False}),
     (cnn, {"mask_input": True})],
)  # fmt: skip
@pytest.mark.few(2)
def test_it_lowers_the_error_where_the_explanation_ends(make, options, monkeypatch):
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e-4)  # few samples, near the best already
    model = make()
    closed, tuned = (mipin(model, n, classes=[1], **options).fit(IMAGES, batch_size=16) for n in (0, 15))
    end = IMAGES
    if "input_layer" in options:
        end = keras.Model(model.inputs, model.get_layer("relu").output).predict(IMAGES, verbose=0)
    chosen = model.predict(IMAGES, verbose=0).argmax(axis=1) == 1 if "samples" in options else slice(None)
    ends = [np.square(end - each.source_signal(IMAGES, 1))[chosen].mean() for each in (closed, tuned)]
    assert ends[1] < ends[0]
    line = tuned.fit_report[-1]
    assert [line["end_mse_before"], line["end_mse"]] == pytest.approx(ends, rel=1e-4)
    assert np.isfinite(tuned.analyze(IMAGES, 1)).all()
    assert not close(tuned.analyze(IMAGES, 1), closed.analyze(IMAGES, 1), 1e-4)


def test_a_class_does_not_depend_on_the_others_and_is_not_traced_anew(monkeypatch):
    calls = []
    call = ExplainedModel.call

    def counted(self, x, training=False):
        calls.append(1)
        return call(self, x, training)

    monkeypatch.setattr(ExplainedModel, "call", counted)
    model, traced, found = mlp(), [], []
    for classes in ([2], [0, 1, 2, 3]):
        calls.clear()
        analyzer = mipin(model, 2, classes=classes).fit(X, batch_size=40)  # of 150: batches of two sizes
        traced.append(len(calls))
        found.append(weights_of(analyzer, 2))
    assert traced[0] == traced[1] > 0
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_explained_model_stays_as_it_is():
    model = residual()
    kept = model.get_weights()
    analyzer = mipin(model, 2, classes=[0]).fit(IMAGES)
    assert all((a == b).all() for a, b in zip(model.get_weights(), kept, strict=True)) and model.trainable
    assert analyzer.fitted


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


@pytest.mark.medium
def test_interrupted_it_leaves_the_analyzer_as_it_was(tmp_path):
    model = mlp()
    analyzer = mipin(model, 2).fit(X)
    before, report = weights_of(analyzer, 1), analyzer.fit_report
    for after in (8, 20):  # the layers take 3 batches; then come 12 a class, and those that measure
        with pytest.raises(KeyboardInterrupt):
            analyzer.fit(interrupted(after))
        assert analyzer.fit_report is report
        assert all((a == b).all() for a, b in zip(weights_of(analyzer, 1), before, strict=True))


@pytest.mark.medium
def test_it_is_done_again_from_a_checkpoint(tmp_path):
    model = mlp()
    wanted = mipin(model, 2).fit(X, batch_size=50)
    with pytest.raises(KeyboardInterrupt):
        mipin(model, 2).fit(interrupted(8), checkpoint=tmp_path / "fit")
    again = mipin(model, 2).fit(interrupted(None), checkpoint=tmp_path / "fit")
    for c in range(4):
        for a, b in zip(weights_of(again, c), weights_of(wanted, c), strict=True):
            np.testing.assert_array_equal(a, b)
    assert again.fit_report == wanted.fit_report
    with pytest.raises(ValueError, match="options.finetune_epochs was 2, is 3 here"):
        mipin(model, 3).fit(interrupted(None), checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="options.finetune_epochs was 2, is nothing here"):
        mipin(model, 0).fit(interrupted(None), checkpoint=tmp_path / "fit")


def test_it_is_saved(tmp_path):
    model = mlp()
    analyzer = mipin(model, 2, classes=[1]).fit(X)
    again = load_analyzer(analyzer.save(tmp_path / "fit.npz"), model)
    assert again.options["finetune_epochs"] == 2 and again.fit_report == analyzer.fit_report
    np.testing.assert_array_equal(again.source_signal(X, 1), analyzer.source_signal(X, 1))
    more = again.fit(X, classes=[3])  # one class more, fine-tuned too
    assert sorted(more.network.weights) == [1, 3] and all("end_mse" in line for line in more.fit_report)


def test_what_it_says(capsys):
    model = mlp()
    mipin(model, 2, classes=[1]).fit(X)
    assert capsys.readouterr().out == ""
    mipin(model, 2, classes=[1], verbose=2).fit(X)
    said = capsys.readouterr().out
    assert "fine-tuning class 1 (1 of 1), 2 epochs" in said and "Epoch 2/2" in said
    assert "reconstruction error at the end" in said


def test_callbacks_are_kerass(monkeypatch):
    seen = []
    model = mlp()
    analyzer = mipin(model, 0, classes=[0, 1]).fit(X)
    fitting = finetune.Members(analyzer.network, analyzer.batches(X), "all", finetune.Replicas(), lambda: X, print)
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["loss"])))
    weights, report = finetune.finetune(
        analyzer.network, analyzer.network.weights, analyzer.batches(X), fitting, samples="all", epochs=2, verbose=0,
        log=lambda text: None, callbacks=[callback],
    )  # fmt: skip
    assert [epoch for epoch, _ in seen] == [0, 1] * 2 and seen[1][1] < seen[0][1]
    assert sorted(weights) == [0, 1] and len(report) == 6


def test_weights_that_diverge_are_an_error(monkeypatch):
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e30)
    analyzer = mipin(mlp(), 3, classes=[1])
    with pytest.raises(ValueError, match="expected the fine-tuning of class 1 to converge"):
        analyzer.fit(X)
    assert not analyzer.fitted


def test_a_generator_has_no_own_samples():
    def endless():
        while True:
            yield X[:50]

    assert mipin(mlp(), 1, classes=[1]).fit(endless(), steps=3).fitted
    with pytest.raises(ValueError, match="samples='class' expected data that starts again, received a generator"):
        mipin(mlp(), 1, classes=[1], samples="class").fit(endless(), steps=3)


@pytest.mark.medium
def test_several_replicas_are_refused():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert mipin(mlp(), 1, classes=[1]).fit(X).fitted  # one device
    finetune.check_alone(types.SimpleNamespace(count=1, hosts=1))
    for count, hosts in ((2, 1), (1, 2)):
        with pytest.raises(ValueError, match="finetune_epochs expected one device.*received 2 replicas"):
            finetune.check_alone(types.SimpleNamespace(count=count, hosts=hosts))
