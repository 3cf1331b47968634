"""What the experiments compute from maps, and the phrases that their pages are made of."""

import numpy as np
import pytest

from reproduce_paper import maps, phrases


def test_cosines_and_means():
    one = np.array([[[1.0, 0.0]], [[2.0, 2.0]], [[0.0, 0.0]]])
    other = np.array([[[0.0, 3.0]], [[-5.0, -5.0]], [[1.0, 1.0]]])
    np.testing.assert_allclose(maps.cosines(one, other), [0, -1, np.nan])
    assert maps.defined_mean(maps.cosines(one, other)) == pytest.approx(-0.5)
    assert maps.defined_mean(np.array([np.nan])) is None


def test_scaled():
    given = np.array([[1, -4], [0, 0], [6, 3]])
    np.testing.assert_allclose(maps.scaled(given), [[0.25, -1], [0, 0], [1, 0.5]])


def test_phrases():
    assert [phrases.number(value) for value in (None, float("nan"), 0.126)] == ["-", "-", "0.13"]
    assert phrases.with_interval(0.5, (0.41234, 0.6)) == "0.500 [0.412, 0.600]"
    assert phrases.with_interval(-0.5, (-0.6, 0.0), "+.1f") == "-0.5 [-0.6, +0.0]"
    assert [phrases.and_list(list(names)) for names in ("", "a", "ab", "abc")] == ["none", "a", "a and b", "a, b and c"]
    assert phrases.fitted_on({"MIP-IN": 4000, "other": 5}) == "MIP-IN on 4,000, other on 5"


@pytest.mark.parametrize(("difference", "apart"), [((0.1, 0.2), True), ((-0.2, -0.1), True), ((-0.1, 0.2), False)])
def test_told_apart(difference, apart):
    assert phrases.told_apart(difference) == ("tells" if apart else "does not tell") + " the two apart"
