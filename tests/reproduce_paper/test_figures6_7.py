"""Figures 6 and 7 on squares; the page, from a result made by hand."""

import copy
import json

import pytest

from reproduce_paper import figures6_7, gallery, methods

from . import squares
from .pages import mentions, row

RESULT = {
    **squares.ABOUT,
    "largest": 0.5,
    "classes": [
        {
            "name": "German shepherd",
            "shown": 8,
            "right": 8,
            "chance": 0.31,
            "inside": {"MIP-IN": 0.61, "Gradient": 0.4, "Deconvnet": None},
            "pictures": ["first.png", "second.png", "third.png"],
        }
    ],
}


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares.gallery)
    monkeypatch.setattr(methods, "BASELINES", ["Gradient", "PatternAttribution"])
    monkeypatch.setattr(figures6_7, "TITLES", ["MIP-IN", *methods.BASELINES])
    path = figures6_7.run(squares.arguments(tmp_path, classes=["Green_cat"]))
    result = json.loads((tmp_path / "figures6_7-quick.json").read_text())
    assert [of["name"] for of in result["classes"]] == ["green cat"]
    for of in result["classes"]:
        assert of["shown"] == of["right"] == 8 and of["chance"] == 0.25
        assert list(of["inside"]) == ["MIP-IN", *methods.BASELINES]
        assert of["inside"]["MIP-IN"] > 0.95 and of["inside"]["Gradient"] > 0.5
        assert len(of["pictures"]) == 3
    files = [file for of in result["classes"] for file in of["pictures"]]
    assert files == result["pictures"] and all((tmp_path / file).stat().st_size > 10000 for file in files)
    assert all(f"]({file})" in path.read_text() for file in files)


def test_a_class_without_such_photographs(tmp_path, monkeypatch):
    whole = squares.gallery()
    test = whole.test._replace(boxes=[box * 0 + [0, 0, 16, 16] for box in whole.test.boxes])
    monkeypatch.setattr(gallery, "load", lambda args: whole._replace(test=test))
    with pytest.raises(ValueError, match="expected photographs of 'red dog' with boxes below 0.5, received none"):
        figures6_7.run(squares.arguments(tmp_path, classes=["0"]))


def test_the_page_says_who_leads():
    text = figures6_7.markdown(RESULT)
    assert mentions(text, "German shepherd", "MIP-IN puts the largest share", "0.61", "Gradient) 0.40", "0.31")
    assert row(text, "Deconvnet") == ["-"] and row(text, "MIP-IN") == ["0.61"] and "](third.png)" in text
    behind = copy.deepcopy(RESULT)
    behind["classes"][0] |= {"inside": {"MIP-IN": 0.3, "Gradient": 0.4}, "right": 6}
    text = figures6_7.markdown(behind)
    assert mentions(text, "MIP-IN does not lead", "0.30", "Gradient) 0.40")
    assert mentions(text, "; 2 of those shown")
    behind["classes"][0]["inside"]["MIP-IN"] = None
    assert mentions(figures6_7.markdown(behind), "MIP-IN", "no positive attribution")
