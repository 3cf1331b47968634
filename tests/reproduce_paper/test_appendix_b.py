"""Appendix B: the page on a small model, and its conclusion on numbers made by hand."""

import numpy as np
import pytest

from reproduce_paper import appendix_b, digits
from tests import small_digits


def test_cosine():
    maps = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert appendix_b.cosine(maps, maps * [[2], [-1], [1]]) == pytest.approx(0)
    assert appendix_b.cosine(maps, maps[::-1] * [[1], [5], [1]]) == pytest.approx(1)
    assert appendix_b.cosine(maps[2:], maps[:1]) is None


@pytest.mark.medium
def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "load", lambda name, args: small_digits.trained(name))
    appendix_b.run(small_digits.arguments(tmp_path, images=50))
    result, page = small_digits.result(tmp_path, "appendix_b")
    assert sorted(np.ravel(result["pairs"])) == list(range(10)) and result["images"] == 50
    for found in result["methods"].values():
        low, high = found["interval"]
        assert low <= found["distance"] <= high
        assert found["distance"] == pytest.approx(np.mean(found["per_pair"]))
    rows = appendix_b.beside(result)
    assert {row.paper for row in rows} == {f"{value:.2f}" for value in appendix_b.PAPER.values()}
    assert all(row.ours in page or row.ours.split()[0] in page for row in rows)


def test_the_words_follow_the_numbers():
    def method(distance, cosine):
        return {
            "distance": distance,
            "interval": [distance - 0.1, distance + 0.1],
            "cosine": cosine,
            "identical": 3,
            "empty": 2,
        }

    found = {title: method(value, 1 - value / 10) for title, value in appendix_b.PAPER.items()}
    lines = appendix_b.verdicts({"methods": found, "images": 10})
    assert "**so it is here**" in lines[0] and "MIP-IN is 5th of 8 here and 5th there" in lines[1]
    assert "most for Gradient" in lines[2] and "least for PatternAttribution" in lines[2]
    assert "for 3 of 10 images" in lines[3] and "for 2; 5 are in neither" in lines[3]
    found["MIP-IN"] = method(2.1, 0.5)
    line = appendix_b.verdicts({"methods": found, "images": 10})[0]
    assert line.endswith("**it was not so here**: MIP-IN not above Guided Backprop.")
