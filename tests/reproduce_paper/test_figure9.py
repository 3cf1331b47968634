"""Figure 9 on squares; the page, from a result made by hand."""

import copy
import json

import numpy as np
import pytest

from reproduce_paper import figure9, gallery, methods

from . import squares
from .pages import mentions, row

DISTANCES = {
    "Gradient": 7.0, "SmoothGrad": 6.5, "LRP-epsilon": 6.9, "Deep Taylor": 3.0, "Deconvnet": 2.0,
    "Guided Backprop": 1.5, "PatternAttribution": 1.0, "Grad-CAM": 9.0, "MIP-IN": 8.0,
}  # fmt: skip


def of(distance, **more):
    numbers = {"distance": distance, "interval": [distance - 0.1, distance + 0.1], "cosine": 1 - distance / 10}
    return {"samples": 1000, "drawn": numbers | {"identical": 0, "empty": 0} | more, "signed": numbers}


RESULT = {
    **squares.ABOUT,
    "pairs": [["bee", "lemon"], ["pizza", "goldfish"]],
    "pictures": ["bars.png"],
    "methods": {title: of(distance) for title, distance in DISTANCES.items()},
}


@pytest.mark.medium
def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares.gallery)
    path = figure9.run(squares.arguments(tmp_path))
    result = json.loads((tmp_path / "figure9-quick.json").read_text())
    assert list(result["methods"]) == list(methods.METHODS) and len(result["pairs"]) == figure9.PAIRS
    assert all(len(set(pair)) == 2 for pair in result["pairs"])
    for title, found in result["methods"].items():
        assert found["samples"] == (figure9.QUICK_SMOOTHGRAD if title == "SmoothGrad" else 60)
        for name in figure9.READINGS:
            low, high = found[name]["interval"]
            assert 0 <= low <= found[name]["distance"] <= high
    assert result["methods"]["Gradient"]["signed"]["distance"] > 1 and f"]({result['pictures'][0]})" in path.read_text()

    monkeypatch.setattr(methods, "METHODS", {"Gradient": "gradient", "Deep Taylor": "deep_taylor"})
    monkeypatch.setattr(figure9, "PAPER_LARGER", [("Deep Taylor", "Gradient")])
    figure9.run(squares.arguments(tmp_path, classes=["2", "red dog"]))
    result = json.loads((tmp_path / "figure9-quick.json").read_text())
    assert result["pairs"] == [["blue bottle", "red dog"]]


def test_each_photograph_has_its_pair():
    """An analyzer whose map of a class is that class alone: the distance says which pair was taken."""

    class Ones:
        def analyze(self, x, classes, batch_size):
            maps = np.zeros((len(x), 2, 2, 1), np.float32)
            maps[:, 0, 0] = 1
            maps[np.asarray(classes) == 2, 1, 1] = -1
            maps[np.asarray(classes) == 1] = 0
            return maps

    photographs = squares.photographs(70)
    photographs = photographs._replace(size=(2, 2), read=lambda path: np.zeros((2, 2, 3), np.uint8))
    pairs = np.array([[0, 0], [0, 2], [0, 1]])
    found = figure9.measured("Gradient", Ones(), squares.subject(), photographs, pairs)
    counts = np.bincount(np.arange(70) % 3)
    assert found["samples"] == 70 and found["drawn"]["identical"] == counts[0] and found["drawn"]["empty"] == counts[2]
    assert found["drawn"]["distance"] == pytest.approx((counts[1] + counts[2]) / 70)
    np.testing.assert_allclose(found["drawn"]["cosine"], (counts[0] + counts[1] / 2**0.5) / (counts[0] + counts[1]))


def test_bars():
    figure = figure9.bars(RESULT["methods"])
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == list(DISTANCES.values()) and len(right.patches) == 9
    assert [label.get_text() for label in left.get_yticklabels()] == list(DISTANCES)


def test_the_page_says_whether_the_papers_order_holds():
    text = figure9.markdown(RESULT)
    order = sorted(DISTANCES, key=DISTANCES.get, reverse=True)
    assert mentions(text, "as drawn, 11 of 11", ", ".join(f"{title} {DISTANCES[title]:.2f}" for title in order))
    assert "bee and lemon; pizza and goldfish" in text
    assert row(text, "Gradient")[:4] == ["1,000", "7.00", "6.90 to 7.10", "0.30"]
    worse = copy.deepcopy(RESULT)
    worse["methods"] |= {"MIP-IN": of(0.5), "Deep Taylor": of(2.5, identical=400, empty=500)}
    text = figure9.markdown(worse)
    fails = [f"MIP-IN over {other}" for other in ("Deconvnet", "Guided Backprop", "PatternAttribution")]
    assert mentions(text, "8 of 11", ", ".join(fails))
    assert mentions(text, "Deep Taylor", " 400 ", " 500 of 1,000")
