"""analyzer.check(x): what a careful person would try; and the comparison that every analyzer makes by itself."""

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer
from tests.networks import cnn, mlp, residual, samples, with_weights
from tests.wild.common import FAMILIES, each, fitted, made

L = keras.layers
X = samples((7, 6, 2), 12)


def rows(report):
    return {row.name: row for row in report}


@pytest.mark.parametrize("name", each([*FAMILIES, "grad_cam", "lrp.z"]))
@pytest.mark.few(2)
def test_a_right_analyzer_passes(name, capsys):
    fine = {"steps": 300, "riemann": "middle"} if name == "integrated_gradients" else {}
    report = fitted(name, residual(), X, **fine).check(X[:4])
    assert report.passed is True
    for row in report:
        assert row.passed in (True, None) and row.name and row.text
        if row.passed is not None and row.limit is not None and row.value is not None:
            assert row.value <= row.limit
    print(report)
    shown = capsys.readouterr().out
    assert all(row.name in shown for row in report) and "None" not in shown


def test_the_gradient_is_held_against_a_tape():
    found = rows(made("gradient", cnn()).check(X))
    assert any("tape" in name or "gradient" in name for name in found)


@pytest.mark.parametrize("name", ["lrp.epsilon", "integrated_gradients", "mipin"])
def test_the_residual_is_said(name):
    report = fitted(name, cnn(), X).check(X[:4])
    words = "conserv|complete"
    assert any(word in row.name + row.text for row in report for word in words.split("|"))
    residual_of = [row for row in report if any(word in row.name + row.text for word in words.split("|"))]
    assert all(np.isfinite(row.value) for row in residual_of if row.value is not None)


class Moody(L.Layer):
    """A layer that does another thing at each call, by a number that it keeps in Python."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x * float(self.calls)


def moody():
    x = keras.Input((6,))
    return with_weights(keras.Model(x, L.Dense(2)(Moody(name="moody")(x))))


def test_a_model_that_the_walk_does_not_follow_is_an_error():
    # Each call gives another output: no map of it can be right.
    with pytest.raises(ValueError, match="model"):
        create_analyzer("gradient", moody()).analyze(samples((6,), 3))


def test_the_first_batch_is_compared_once(monkeypatch):
    model = mlp()
    analyzer = made("gradient", model)
    x = samples((12,), 5)
    calls = []
    call = type(model).__call__
    monkeypatch.setattr(type(model), "__call__", lambda self, *a, **k: (calls.append(1), call(self, *a, **k))[1])
    analyzer.analyze(x)
    first = len(calls)
    analyzer.analyze(x)
    assert first <= 1 and len(calls) == first


def test_a_check_needs_a_fit_and_samples():
    with pytest.raises(RuntimeError, match="fit"):
        made("mipin", cnn()).check(X)
    with pytest.raises(ValueError, match="at least one"):
        made("gradient", cnn()).check(X[:0])


def test_a_check_leaves_everything_as_it_is():
    model = cnn()
    analyzer, before = made("lrp.epsilon", model), model.get_weights()
    first = analyzer.analyze(X)
    analyzer.check(X)
    np.testing.assert_array_equal(analyzer.analyze(X), first)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
