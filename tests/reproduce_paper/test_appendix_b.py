"""Appendix B: the page on a small model, and its conclusion on numbers made by hand."""

import numpy as np
import pytest

from reproduce_paper import appendix_b, digits
from tests import small_digits


def test_cosine():
    maps = np.array([[1.0, 0.0], [3.0, 4.0]])
    assert appendix_b.mean_cosines(maps, maps * [[2], [-1]]) == pytest.approx([0, 1])
    assert appendix_b.mean_cosines(maps, np.array([[0.0, 1.0], [0.0, -1.0]])) == pytest.approx([-0.4, 0.4])


@pytest.mark.medium
def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "load", lambda name, args: small_digits.trained(name))
    appendix_b.run(small_digits.arguments(tmp_path, images=50))
    result, page = small_digits.result(tmp_path, "appendix_b")
    assert sorted(np.ravel(result["pairs"])) == list(range(10)) and result["images"] == 50
    for found in result["methods"].values():
        low, high = found["interval"]
        assert low <= found["distance"] <= high
        assert found["unsigned"] <= found["distance"] and found["unsigned"] <= found["unsigned_interval"][1]
        assert found["distance"] == pytest.approx(np.mean(found["per_pair"]))
    rows = appendix_b.beside(result)
    assert {row.paper for row in rows} == {f"{value:.2f}" for value in appendix_b.PAPER.values()}
    assert all(row.ours in page or row.ours.split()[0] in page for row in rows)


def test_the_words_follow_the_numbers():
    def method(distance, cosine):
        return {
            "distance": distance,
            "interval": [distance - 0.1, distance + 0.1],
            "unsigned": distance,
            "unsigned_interval": [distance, distance],
            "cosine": [cosine, cosine],
            "distance_of_two": 0.5,
            "one_zero": 2,
            "both_zero": 1,
        }

    found = {title: method(value, 1 - value / 10) for title, value in appendix_b.PAPER.items()}
    lines = appendix_b.verdicts({"methods": found, "images": 10})
    assert (
        "**so it is here**" in lines[0]
        and "MIP-IN is number 5 of 8, up to sign number 5, in the paper number 5" in lines[1]
    )
    assert "most for Gradient" in lines[2] and "least for PatternAttribution" in lines[2]
    assert "for 2 of 10 images" in lines[3] and "for the other 7 the distance is 0.50" in lines[3]
    found["MIP-IN"] = method(2.1, 0.5)
    line = appendix_b.verdicts({"methods": found, "images": 10})[0]
    assert "**it was not so here**: MIP-IN not above Guided Backprop. Up to sign: **so it is here**." in line
