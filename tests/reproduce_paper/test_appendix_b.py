"""Appendix B: the page on a small model, and its conclusion on numbers made by hand."""

import numpy as np
import pytest

from mipin_keras.metrics import class_sensitivity
from reproduce_paper import appendix_b, digits
from tests import small_digits

from .by_hand import logit_gradients
from .pages import mentions


def test_cosine():
    maps = np.array([[1.0, 0.0], [3.0, 4.0]])
    assert appendix_b.mean_cosines(maps, maps * [[2], [-1]]) == pytest.approx([0, 1])
    assert appendix_b.mean_cosines(maps, np.array([[0.0, 1.0], [0.0, -1.0]])) == pytest.approx([-0.4, 0.4])


def test_run(tmp_path, monkeypatch):
    trained = small_digits.trained()
    monkeypatch.setattr(digits, "load", lambda name, args: trained)
    appendix_b.run(small_digits.arguments(tmp_path, images=50))
    result, page = small_digits.result(tmp_path, "appendix_b")
    assert sorted(np.ravel(result["pairs"])) == list(range(10)) and result["images"] == 50
    for found in result["methods"].values():
        low, high = found["interval"]
        assert low <= found["distance"] <= high
        assert found["unsigned"] <= found["distance"] and found["unsigned"] <= found["unsigned_interval"][1]
        assert found["distance"] == pytest.approx(np.mean(found["per_pair"]))
    chosen = np.array(result["pairs"]).T[:, np.arange(50) % len(result["pairs"])]
    first, second = (logit_gradients(trained.model, trained.test[:50], classes) for classes in chosen)
    expected = class_sensitivity(first, second).distance
    assert result["methods"]["Gradient"]["distance"] == pytest.approx(expected, rel=1e-4)
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
    ranks, order, alike, taylor = appendix_b.verdicts({"methods": found, "images": 10})
    assert "**so it is here**" in ranks and "not so" not in ranks
    places = [order.index(title) for title in sorted(appendix_b.PAPER, key=appendix_b.PAPER.get, reverse=True)]
    assert places == sorted(places) and order.count("number 5") == 3  # by distance, up to sign, and the paper
    assert alike.index("Gradient") < alike.index("0.28") < alike.index("PatternAttribution") < alike.index("0.91")
    assert mentions(taylor, " 2 of 10 ", " 1 ", " 7 ", "0.50")
    found["MIP-IN"] = method(2.1, 0.5)
    line = appendix_b.verdicts({"methods": found, "images": 10})[0]
    (by_interval, by_sign) = line.split("Up to sign")
    assert mentions(by_interval, "**it was not so here**", "MIP-IN not above Guided Backprop")
    assert "PatternAttribution." not in by_interval.split("not so here")[1] and "**so it is here**" in by_sign
