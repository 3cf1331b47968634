"""Figure 3: correlations on closed forms, and the page on a small model."""

import numpy as np
import pytest

from reproduce_paper import digits, figure3
from tests import small_digits


def test_correlations(rng):
    one = rng.normal(size=(1, 4, 4))
    assert figure3.between(one * np.array([1, 2, 5]).reshape(-1, 1, 1) + 3) == pytest.approx(1)
    assert figure3.own(one, -2 * one + 1) == pytest.approx(-1)
    maps = rng.normal(size=(5, 4, 4))
    every = np.corrcoef(maps.reshape(5, -1))
    assert figure3.between(maps) == pytest.approx(every[~np.eye(5, dtype=bool)].mean())
    assert figure3.own(maps, maps[::-1]) == pytest.approx(np.diag(every[::-1]).mean())
    with pytest.raises(ValueError, match="constant"):
        figure3.between(np.ones((2, 3, 3)))


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "load", lambda name, args: small_digits.trained(name))
    figure3.run(small_digits.arguments(tmp_path, digit=2))
    result, page = small_digits.result(tmp_path, "figure3")
    maps = result["maps"]
    assert maps["global"]["attribution"]["between"] == pytest.approx(1, abs=1e-4)
    assert maps["local"]["attribution"]["between"] < 0.999
    assert len(result["local_with_others"]) == 9 and 5 <= result["images"] <= 10
    assert "digit 2" in page and "**so it is here**" in page


def test_the_words_follow_the_numbers():
    same, apart = {"between": 0.999, "own": 0.3}, {"between": 0.6, "own": 0.5}
    result = {
        "maps": {
            "global": {"source signal": same, "attribution": same},
            "local": {"source signal": apart, "attribution": apart},
        },
        "local_with_global": 0.8,
        "local_with_others": {"1": 0.1, "7": 0.2},
    }
    assert all("**so it is here**" in line for line in figure3.verdicts(result))
    result["maps"] = {"global": result["maps"]["local"], "local": result["maps"]["global"]}
    result["local_with_others"]["7"] = 0.9
    lines = figure3.verdicts(result)
    assert all("**not so here**" in line for line in lines) and "0.900 (digit 7)" in lines[2]
