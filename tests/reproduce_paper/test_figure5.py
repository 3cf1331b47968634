"""Figure 5: the regions of a digit, what lies there, and the page on a small model."""

import numpy as np
import pytest

from reproduce_paper import digits, figure5
from tests import small_digits

from .pages import mentions


def image():
    x = np.zeros((1, 9, 9))
    x[0, 4, 4], x[0, 4, 5] = 1, 0.2
    constant = np.zeros((9, 9), bool)
    constant[:, 0] = True
    return x, constant


def test_regions():
    found = {name: area[0] for name, area in figure5.regions(*image()).items()}
    assert list(zip(*np.nonzero(found["digit"]), strict=True)) == [(4, 4)]
    assert found["around"].sum() == 5 * 6 - 2 and found["around"][2, 2] and not found["around"][4, 5]
    assert found["constant"].sum() == 9 and found["background"].sum() == 79
    parts = sum(found[name].astype(int) for name in ("digit", "around", "far", "constant"))
    assert parts.max() == 1 and parts.sum() == 80  # all but the faint pixel
    edge = np.zeros((1, 3, 4), bool)
    edge[0, 0, 0] = True
    np.testing.assert_array_equal(figure5.grown(edge, 1)[0].astype(int), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_measure():
    areas = figure5.regions(*image())
    maps = np.where(areas["digit"], 4.0, np.where(areas["around"], -1.0, 0.0))
    found = figure5.measure(maps, areas, seed=0)
    assert found["mean"]["digit"] == pytest.approx([1, 1, 1])
    assert found["mean"]["around"] == pytest.approx([-0.25, -0.25, -0.25])
    assert found["share"]["digit"] == pytest.approx(4 / 32) and found["share"]["constant"] == 0


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "load", lambda name, args: small_digits.trained(name))
    monkeypatch.setattr(figure5, "SHOWN", (0, 4))
    monkeypatch.setattr(figure5, "TITLES", ["MIP-IN", "Gradient", "LRP-epsilon"])
    figure5.run(small_digits.arguments(tmp_path))
    result, page = small_digits.result(tmp_path, "figure5")
    assert list(result["methods"]) == figure5.TITLES and result["constant_pixels"] == 44
    share = {title: found["share"]["constant"] for title, found in result["methods"].items()}
    assert share["MIP-IN"] < 1e-6 < 0.05 < share["Gradient"]
    assert result["methods"]["MIP-IN"]["mean"]["digit"][0] > 0 and "All three together: " in page


def test_the_words_follow_the_numbers():
    def method(digit, around, constant):
        mean = {"digit": [digit] * 3, "around": [around] * 3}
        return {"mean": mean, "share": {"digit": 0.5, "constant": constant, "background": 0.3}}

    lines = figure5.verdicts({"methods": {"MIP-IN": method(1, 1, 0.0), "Gradient": method(1, -1, 0.2)}})
    assert lines[0].endswith("MIP-IN, Gradient.") and lines[1].endswith(": Gradient.")
    assert mentions(lines[3], "together: no method", "MIP-IN", "not what the paper says")
    lines = figure5.verdicts({"methods": {"MIP-IN": method(1, -1, 0.0), "Gradient": method(1, -1, 0.2)}})
    assert mentions(lines[3], "together: MIP-IN.") and "not" not in lines[3]
