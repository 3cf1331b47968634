"""Figure 8 on squares; the page, from a result made by hand."""

import copy
import json

import numpy as np
import pytest
import tensorflow as tf

from reproduce_paper import figure8, gallery

from . import squares
from .pages import mentions, row


def method(own, cosine, interval=(0.4, 0.9)):
    return {"right": [1 - own, own], "own": own, "interval": interval, "samples": 50} | {
        "cosine": {"drawn": cosine, "signed": cosine - 0.1}
    }


RESULT = {
    **squares.ABOUT,
    "classes": ["German shepherd", "Egyptian cat"],
    "images": 50,
    "composed": True,
    "confidence": [0.4, 0.5],
    "least": 0.21,
    "pictures": ["a.png", "b.png"],
    "methods": {
        "MIP-IN": method(0.8, 0.3, (0.75, 0.85)),
        "Gradient": method(0.6, 0.6, (0.58, 0.62)),
        "Deep Taylor": method(0.5, 0.97),
        "Guided Backprop": method(0.5, 0.95),
        "PatternAttribution": method(0.5, 0.96),
    },
}


def test_halves():
    one, other = (np.full((2, 4, 8, 3), value, np.uint8) * np.arange(1, 9)[:, None] for value in (1, 10))
    image = figure8.halves(one.astype(np.uint8), other.astype(np.uint8))
    assert image.shape == (2, 4, 8, 3)
    np.testing.assert_array_equal(image[0, 0, :, 0], [3, 4, 5, 6, 30, 40, 50, 60])


def test_squared_takes_the_centre():
    image = np.zeros((10, 40, 3), np.uint8)
    image[:, 15:25] = 200
    np.testing.assert_array_equal(figure8.squared(image, (5, 5)), np.full((5, 5, 3), 200))
    assert figure8.squared(image[:, :9], (6, 3)).shape == (6, 3, 3)


def test_composed_where_the_model_is_surest_of_both(tmp_path):
    subject, test = squares.subject(), squares.photographs(30)
    said = []
    pixels = figure8.composed(subject, test, [0, 2], squares.arguments(tmp_path), said.append)
    assert pixels.shape == (figure8.QUICK_MEASURED, 16, 16, 3) and "pairs of photographs are tried" in said[0]
    left, right = pixels[:, :, :8], pixels[:, :, 8:]
    assert (left[..., 0] == 250).any(axis=(1, 2)).all() and not (left[..., 2] == 250).any()
    assert (right[..., 2] == 250).any(axis=(1, 2)).all() and not (right[..., 0] == 250).any()
    smaller = subject.model.predict_on_batch(subject.preprocess(pixels))[:, [0, 2]].min(axis=1)
    assert smaller[0] == smaller.max() > 0.4
    each, times = np.unique(left, axis=0, return_counts=True)
    assert times.max() <= figure8.TIMES


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares.gallery)
    monkeypatch.setattr(figure8, "TITLES", ["MIP-IN", "Gradient", "PatternAttribution"])
    path = figure8.run(squares.arguments(tmp_path, classes=["red dog", "green cat"], image=None))
    result = json.loads((tmp_path / "figure8-quick.json").read_text())
    assert list(result["methods"]) == figure8.TITLES and len(result["pictures"]) == 2
    ours = result["methods"]["MIP-IN"]
    assert ours["right"][0] < 0.1 and ours["right"][1] > 0.9 and ours["own"] > 0.9  # a colour a class
    assert ours["cosine"]["drawn"] < 0.2 and ours["interval"][0] <= ours["own"] <= ours["interval"][1]
    assert all(f"]({file})" in path.read_text() for file in result["pictures"])

    file = tmp_path / "given.jpg"
    both = np.concatenate([squares.photograph("3.jpg"), squares.photograph("4.jpg")], axis=1)
    file.write_bytes(tf.io.encode_jpeg(both).numpy())
    monkeypatch.setattr(figure8, "TITLES", ["MIP-IN", "Gradient"])
    text = figure8.run(squares.arguments(tmp_path, classes=["0", "1"], image=file)).read_text()
    assert mentions(text, "one image that was given") and "own half" not in text and str(tmp_path) not in text


def test_a_given_image_needs_its_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares.gallery)
    with pytest.raises(ValueError, match="expected --classes with --image"):
        figure8.run(squares.arguments(tmp_path, image=tmp_path / "a.jpg"))


def test_the_page_says_what_the_numbers_show():
    text = figure8.markdown(RESULT)
    assert mentions(text, "Deep Taylor (0.97), PatternAttribution (0.96) and Guided Backprop (0.95)", "most alike")
    assert mentions(text, "MIP-IN", "the most of the 5", "0.30")
    assert mentions(text, "MIP-IN puts 0.800", " above the 0.5", "more than any baseline", "Gradient 0.600")
    assert row(text, "MIP-IN") == ["0.20", "0.80", "0.80", "0.75 to 0.85", "0.30", "0.20"] and "](b.png)" in text
    worse = copy.deepcopy(RESULT)
    worse["methods"]["MIP-IN"] = method(0.52, 0.7, (0.45, 0.55))
    text = figure8.markdown(worse)
    assert mentions(text, "MIP-IN", "the 2nd most")
    assert mentions(text, "not reliably above the 0.5", "not the most", "Gradient 0.600")
    worse["methods"]["MIP-IN"]["interval"] = [0.45, 0.59]
    assert mentions(figure8.markdown(worse), "not told apart from the best baseline", "Gradient")
