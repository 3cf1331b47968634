"""Figure 10 on squares; the page, from a result made by hand."""

import json

from reproduce_paper import figure10, gallery

from . import squares
from .pages import mentions, row


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares.gallery)
    path = figure10.run(squares.arguments(tmp_path))
    result = json.loads((tmp_path / "figure10-quick.json").read_text())
    assert sorted(result["classes"]) == sorted(squares.NAMES) and result["right"] == [True] * 3
    assert result["chance"] == 0.25 and list(result["models"]) == ["VGG", "ResNet"]
    for of in result["models"].values():
        assert all(len(values) == 3 for values in of["accuracy"].values())
        assert min(of["accuracy"]["MIP-IN"]) == 1.0 and f"]({of['picture']})" in path.read_text()
        assert (tmp_path / of["picture"]).stat().st_size > 10000


def test_the_page_says_who_leads():
    models = {
        "VGG": {"MIP-IN": [0.8, 0.6], "Grad-CAM": [0.5, 0.7]},
        "ResNet": {"MIP-IN": [0.4, 0.4], "Grad-CAM": [0.4, 0.5]},
    }
    result = {
        "photographs": "Tiny ImageNet",
        "classes": ["bee", "lemon"],
        "right": [True, False],
        "chance": 0.2,
        "reading": "samples `all`",
        "models": {
            name: {"about": {"accuracy": 0.75}, "layer": "block", "accuracy": accuracy, "picture": f"{name}.png"}
            for name, accuracy in models.items()
        },
    }
    text = figure10.markdown(result)
    assert mentions(text, "VGG (75.0 %", "MIP-IN leads", "on 1, less on 1 of 2", "0.70 and 0.60")
    assert mentions(text, "ResNet (75.0 %", "MIP-IN does not lead", "on 0, less on 1 of 2", "0.40 and 0.45")
    assert row(text, "bee") == ["0.80", "0.50", "0.40", "0.40"]
    assert row(text, "**mean**") == ["0.70", "0.60", "0.40", "0.45"]
    assert "(1 of them are not" in text and "](ResNet.png)" in text
