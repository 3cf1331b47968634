"""What a fit is said to cost: passes as they are made, and a guess that grows as the work does."""

import warnings

import pytest

from mipin_keras import create_analyzer
from mipin_keras.mipin.fitting import cost
from mipin_keras.mipin.fitting import loop as fitting
from mipin_keras.mipin.fitting.training import passes_of
from tests.networks import cnn, mlp, samples

X = samples((12,), 60)


class Counting:
    """A function that returns an iterator, and counts how often it is read to its end."""

    def __init__(self, x, size=20):
        self.x, self.size, self.passes = x, size, 0

    def __call__(self):
        for i in range(0, len(self.x), self.size):
            yield self.x[i : i + self.size]
        self.passes += 1


@pytest.mark.parametrize(
    ("make", "options", "memory"),
    [
        (mlp, {}, 2.0),
        (mlp, {}, 0.0),  # a class at a time
        (mlp, {"classes": [0, 2]}, 1e-6),
        (cnn, {"conv_solver": "trained", "epochs": 3}, 2.0),
        (cnn, {}, 2.0),
    ],
)
def test_as_many_passes_as_are_said(make, options, memory):
    analyzer = create_analyzer("mipin", make(), verbose=0, **options)
    data = Counting(samples(analyzer.model.input_shape[1:], 60))
    made = []

    class Watched(fitting.Fitting):
        def _plan(self):
            made.append(super()._plan())
            return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mipin_keras.mipin.analyzer.Fitting", Watched)
        analyzer.fit(data, memory=memory)
    # One more to count samples of unknown number, where rows are drawn before the first pass has ended.
    assert data.passes in (made[0].passes, made[0].passes + 1)


def plan(model, classes, **options):
    network = create_analyzer("mipin", model).network
    return cost.Plan(network, classes, **{"passes": 3, "epochs": None, "rows": 1 << 17} | options)


def test_the_guess_grows_with_classes_samples_and_layers():
    small, large = plan(mlp(), 10), plan(mlp(12, (64, 64, 64)), 10)
    first = 0.1
    assert small.guess(first, 1000, 32) < small.guess(first, 100_000, 3200) < small.guess(first, 1_000_000, 32_000)
    assert plan(mlp(), 10).guess(first, 1000, 32) < plan(mlp(), 1000).guess(first, 1000, 32)
    assert small.guess(first, 1000, 32) < large.guess(first, 1000, 32)
    assert small.guess(0.1, 1000, 32) < small.guess(1.0, 1000, 32)
    assert plan(mlp(), 10, passes=1).guess(first, 1000, 32) < small.guess(first, 1000, 32)


def test_the_passes_of_a_training():
    # 1,000 samples of (5, 4, 3) signals and (7, 6, 2) targets are 576,000 bytes a class.
    network = create_analyzer("mipin", cnn()).network
    inverse, samples_of = network.regression(network.learned[-1]), dict.fromkeys(range(3), 1000)
    for memory, passes in ((3 * 576_000, 1), (3 * 576_000 - 1, 2), (576_000, 3), (576_000 - 1, 3 * (4 + 1))):
        assert passes_of(inverse, samples_of, memory, epochs=4) == passes


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "less than a minute"), (59, "less than a minute"), (61, "about 1 minute"), (300, "about 5 minutes"),
        (5000, "about 83 minutes"), (9 * 3600 + 60, "about 9 hours"), (47 * 3600, "about 47 hours"),
        (80 * 3600, "about 3 days"),
    ],
)  # fmt: skip
def test_lengths_of_time_in_words(seconds, words):
    assert cost.in_words(seconds) == words


def test_more_than_an_hour_is_a_warning(monkeypatch, capsys):
    monkeypatch.setattr(cost.Plan, "guess", lambda self, first, samples, batches: 9.2 * 3600)
    for verbose in (0, 1):
        analyzer = create_analyzer("mipin", mlp(), verbose=verbose)
        with pytest.warns(UserWarning, match="^4 classes x 3 layers, about 9 hours; name classes=, or stop at a feat"):
            analyzer.fit(X)
    assert "about 9 hours" not in capsys.readouterr().out
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        create_analyzer("mipin", mlp(), verbose=0).fit(X)
