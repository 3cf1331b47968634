"""Convolutions trained as in the paper come to what the closed form finds at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import balanced, cnn, mlp, samples, with_weights

X = samples((7, 6, 2), 64)


def error(epochs=None, **options):
    """The error of the convolution's inverse of class 1, and the analyzer."""
    name = "mipin" if epochs is None else "mipin.trained"
    options |= {} if epochs is None else {"epochs": epochs}
    analyzer = create_analyzer(name, cnn(), classes=1, verbose=0, neuron_selection_mode="index", **options)
    analyzer.fit(X, batch_size=8)
    assert analyzer.fit_report[-1]["layer"] == "conv"
    return analyzer.fit_report[-1]["mse"], analyzer


@pytest.mark.medium
def test_training_lowers_the_error_towards_the_closed_form():
    best, _ = error(rows=None, ridge=0.0)
    errors = [error(epochs)[0] for epochs in (1, 5, 30)]
    assert errors[0] > errors[1] > errors[2] > best
    assert errors[2] - best < 0.6 * (errors[0] - best)


@pytest.mark.medium
def test_long_training_arrives_at_the_closed_form():
    best, closed = error(rows=None, ridge=0.0)
    mse, trained = error(240)
    assert best * (1 - 1e-6) < mse < 1.01 * best
    found, wanted = trained.source_signal(X, 1), closed.source_signal(X, 1)
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


def test_the_reported_error_is_that_of_the_weights_that_are_kept():
    mse, analyzer = error(3)
    assert mse == pytest.approx(np.square(X - analyzer.source_signal(X, 1)).mean(), rel=1e-4)
    line = analyzer.fit_report[-1]
    assert (line["samples"], line["rows"]) == (64, 64 * 42)
    assert line["variance"] == pytest.approx(X.reshape(-1, 2).var(axis=0).mean(), rel=1e-4)


def test_only_convolutions_are_trained():
    _, closed = error(rows=None)
    _, trained = error(2)
    for line, other in zip(closed.fit_report[:-1], trained.fit_report[:-1], strict=True):
        assert line == other
    kernels = [analyzer.network.weights[1][0][0].numpy() for analyzer in (closed, trained)]
    assert kernels[0].shape == kernels[1].shape and not np.allclose(*kernels, rtol=0.01)


def test_seeds_and_epochs():
    weights = [error(2, seed=seed)[1].network.weights[1][0][0].numpy() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])


def test_classes_are_trained_each_on_its_own_samples():
    analyzer = create_analyzer(
        "mipin.trained", cnn(), samples="class", epochs=2, verbose=0, neuron_selection_mode="index"
    )
    analyzer.fit(X)
    top = cnn().predict(X, verbose=0).argmax(axis=1)
    assert [line["samples"] for line in analyzer.fit_report[-3:]] == np.bincount(top, minlength=3).tolist()
    alone = create_analyzer(
        "mipin.trained", cnn(), samples="class", epochs=2, classes=2, verbose=0, neuron_selection_mode="index"
    ).fit(X)
    np.testing.assert_allclose(alone.analyze(X, 2), analyzer.analyze(X, 2), rtol=1e-5, atol=1e-6)


def test_two_convolutions_one_above_the_other():
    layers = [keras.layers.Conv1D(3, 3, strides=2, padding="same", activation="relu"),
              keras.layers.Conv1D(2, 2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(2)]  # fmt: skip
    model = balanced(with_weights(keras.Sequential([keras.Input((9, 2)), *layers])))
    x = samples((9, 2), 64)
    analyzer = create_analyzer("mipin.trained", model, epochs=3, verbose=0).fit(x)
    assert [line["type"] for line in analyzer.fit_report] == ["Dense"] * 2 + ["Conv1D"] * 4
    assert np.isfinite(analyzer.analyze(x)).all() and analyzer.analyze(x).any()


def test_a_convolution_with_nothing_learned_above_it():
    layers = [keras.layers.Conv1D(3, 3, activation="relu"), keras.layers.GlobalAveragePooling1D()]
    model = with_weights(keras.Sequential([keras.Input((9, 2)), *layers]))
    x = samples((9, 2), 64)
    analyzer = create_analyzer("mipin.trained", model, epochs=2, verbose=0).fit(x)
    assert [line["type"] for line in analyzer.fit_report] == ["Conv1D"] * 3
    assert np.isfinite(analyzer.analyze(x)).all() and analyzer.analyze(x).any()


# Through Keras


class Seen(keras.callbacks.Callback):
    """Notes what Keras tells a callback, and the initial weights."""

    def __init__(self):
        super().__init__()
        self.trainings, self.models = [], []

    def on_train_begin(self, logs=None):
        self.trainings.append({"initial": self.model.get_weights(), "losses": [], "batches": 0})
        self.models.append(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.trainings[-1]["batches"] += 1

    def on_epoch_end(self, epoch, logs=None):
        self.trainings[-1]["losses"].append(logs["loss"])


def trained(*, classes=1, epochs=2, memory=2.0, batch_size=8, x=X, callbacks=None, **options):
    analyzer = create_analyzer(
        "mipin.trained", cnn(), classes=classes, epochs=epochs, neuron_selection_mode="index",
        **{"verbose": 0} | options,
    )  # fmt: skip
    return analyzer.fit(x, batch_size=batch_size, memory=memory, callbacks=callbacks)


def test_callbacks_see_every_training():
    seen = Seen()
    analyzer = trained(classes=[0, 2], epochs=3, callbacks=[seen])
    assert [(t["batches"], len(t["losses"])) for t in seen.trainings] == [(3 * 8, 3)] * 2
    model = seen.models[0]
    assert isinstance(model, keras.Sequential) and type(model.layers[-1]) is keras.layers.Conv2DTranspose
    assert (model.input_shape, model.output_shape) == ((None, 5, 4, 3), (None, 7, 6, 2))
    for training, line in zip(seen.trainings, analyzer.fit_report[-2:], strict=True):
        # Keras' loss is the mean over an epoch in which the weights get better.
        assert training["losses"][0] > training["losses"][1] > training["losses"][2] > line["mse"]
    # One alone is as good as a list.
    trained(callbacks=seen)
    assert len(seen.trainings) == 3


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_second_class_traces_nothing_anew(memory, monkeypatch):
    calls = []
    call = keras.layers.Conv2DTranspose.call
    monkeypatch.setattr(
        keras.layers.Conv2DTranspose, "call", lambda self, inputs: calls.append(1) or call(self, inputs)
    )
    counts = []
    for classes in (1, [0, 1, 2]):
        calls.clear()
        seen = Seen()
        trained(classes=classes, callbacks=[seen], memory=memory, x=X[:60])  # the last batch is smaller
        assert len({id(model) for model in seen.models}) == 1
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_it_is_a_plain_loop_of_keras_adam(memory):
    seen = Seen()
    analyzer = trained(classes=[0, 2], epochs=3, seed=4, x=X[:60], memory=memory, callbacks=[seen])
    plain = create_analyzer("mipin", cnn(), classes=[0, 2], verbose=0, neuron_selection_mode="index").fit(X[:60])
    for c, training in zip((0, 2), seen.trainings, strict=True):
        layer = keras.layers.Conv2DTranspose(
            2, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=4 + 1000003 * c)
        )
        layer.build((None, 5, 4, 3))
        for found, wanted in zip(training["initial"], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(found, wanted)
        signals = plain.analyze_layers(X[:60], c, layers=["conv"])["conv"].source_signal
        optimizer = keras.optimizers.Adam()
        for _ in range(3):
            for i in range(0, 60, 8):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(tf.square(X[:60][i : i + 8] - layer(signals[i : i + 8])))
                weights = layer.trainable_variables
                optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
        for found, wanted in zip(analyzer.network.weights[c][0], layer.get_weights(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error::UserWarning:keras")
@pytest.mark.parametrize("samples_", ["all", "class"])
def test_signals_that_do_not_fit_are_made_anew_with_the_same_numbers(samples_):
    kept, streamed = (trained(classes=[0, 1], samples=samples_, memory=memory) for memory in (2.0, 0.0))
    for c in (0, 1):
        for a, b in zip(kept.network.weights[c][0], streamed.network.weights[c][0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert [line["rows"] for line in kept.fit_report] == [line["rows"] for line in streamed.fit_report]


def test_a_callback_may_stop_a_training():
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e9, patience=1)
    seen = Seen()
    analyzer = trained(classes=[0, 1], epochs=9, callbacks=[stop, seen])
    assert [len(t["losses"]) for t in seen.trainings] == [2, 2]
    fewer = trained(classes=[0, 1], epochs=2)
    np.testing.assert_allclose(analyzer.network.weights[1][0][0], fewer.network.weights[1][0][0], rtol=1e-5)


def test_what_a_callback_changes_is_forgotten_before_the_next_class():
    fast = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 if epoch == 1 else rate)
    together, alone = trained(classes=[0, 1], callbacks=[fast]), trained(classes=1, callbacks=[fast])
    np.testing.assert_array_equal(together.network.weights[1][0][0], alone.network.weights[1][0][0])
    assert not np.allclose(alone.network.weights[1][0][0], trained(classes=1).network.weights[1][0][0], rtol=0.01)


def test_callbacks_with_nothing_to_train_are_refused():
    x = samples((12,), 20)
    for model, options, told in (
        (mlp(), {"conv_solver": "trained"}, "received 1 with a model without convolutions"),
        (cnn(), {}, "received 1 with conv_solver='closed_form'"),
    ):
        analyzer = create_analyzer("mipin", model, verbose=0, **options)
        with pytest.raises(ValueError, match=f"expected callbacks= together with something to train, {told}"):
            analyzer.fit(x if model.input_shape[1:] == (12,) else X, callbacks=[Seen()])
    for bad in ("loss", [Seen], [None], 3):
        with pytest.raises(TypeError, match=r"expected callbacks to be a list of keras\.callbacks\.Callback, received"):
            trained(callbacks=bad)
    trained(callbacks=[])


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_an_error_of_the_data_comes_through(memory):
    passes = []

    def batches():
        passes.append(1)
        yield X[:32]
        if len(passes) == 4:
            raise OSError("the disk is gone")
        yield X[32:]

    analyzer = create_analyzer("mipin.trained", cnn(), classes=1, epochs=3, verbose=0)
    if memory:
        analyzer.fit(batches, memory=memory)
        assert len(passes) < 4
    else:
        with pytest.raises(OSError, match="the disk is gone"):
            analyzer.fit(batches, memory=memory)
        assert not analyzer.fitted


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 2), (2, 2)])
def test_what_it_prints(verbose, lines, capsys):
    trained(verbose=verbose)
    out = capsys.readouterr().out
    assert out.count("Epoch ") == lines and ("mipin:   training class 1" in out) == (verbose > 0)
    assert out.count("loss: ") == lines  # a line an epoch, as there is no terminal


def test_a_checkpoint_belongs_to_its_callbacks(tmp_path):
    def fit(callbacks):
        analyzer = create_analyzer("mipin.trained", cnn(), classes=1, epochs=1, verbose=0)
        return analyzer.fit(X, checkpoint=tmp_path / "part", callbacks=callbacks)

    fit([Seen()])
    again = Seen()
    fit([again])
    assert not again.trainings  # all was learned before
    with pytest.raises(ValueError, match="callbacks"):
        fit(None)
