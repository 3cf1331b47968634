"""The grid pointing game, on colours that a model tells apart pixel by pixel; and the page, from a result by hand."""

import json

import numpy as np
import pytest

from mipin_keras.metrics import PositiveShare, centre_prior, positive_share
from reproduce_paper import __main__ as command
from reproduce_paper import gallery, grid, methods, report

from .colours import gallery as colours
from .colours import photographs
from .pages import mentions, row


def test_shrunk_and_tiled():
    pixels = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    small = grid.shrunk(pixels)
    means = pixels.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    assert small.dtype == np.uint8 and np.abs(small - means).max() <= 0.5
    with pytest.raises(ValueError, match="even height and width"):
        grid.shrunk(pixels[:, :3])
    tiles = np.arange(4, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 1, 2, 3, 3), np.uint8)
    image = grid.mosaics(tiles)
    assert image.shape == (1, 4, 6, 3)
    np.testing.assert_array_equal(image[0, ::2, ::3, 0], [[0, 1], [2, 3]])
    for i, mask in enumerate(grid.masks((4, 6))):
        np.testing.assert_array_equal(mask, image[0, ..., 0] == i)


def test_the_centre_prior_scores_chance_exactly():
    prior = centre_prior((16, 16))
    found = positive_share(np.stack([prior - prior.min()] * 4), grid.masks((16, 16)))
    np.testing.assert_allclose(found.per_image, 0.25)


def test_tiles_are_right_sure_and_of_different_classes():
    labels, rng = np.repeat(np.arange(6), 50), np.random.default_rng(0)
    sure, right = rng.random(300), rng.random(300) < 0.5
    right[labels == 5] = False
    scale = grid.Scale(mosaics=200, of_class=3)
    indices = grid.drawn(labels, sure, right, scale, 0)
    assert indices.shape == (200, 4) and right[indices].all()
    assert all(len(set(four)) == 4 for four in labels[indices])
    for label in range(5):
        best = np.sort(sure[right & (labels == label)])[-3:]
        np.testing.assert_array_equal(np.unique(sure[indices[labels[indices] == label]]), best)
    np.testing.assert_array_equal(indices, grid.drawn(labels, sure, right, scale, 0))
    with pytest.raises(ValueError, match="at least 4 classes.*received 3 among 300"):
        grid.drawn(labels, sure, right & (labels < 3), scale, 0)


def test_what_the_model_makes_of_tiles():
    subject = colours().subjects["VGG"]
    sure, right, whole = grid.confidences(subject, photographs(70))
    assert right.all() and whole == 1.0
    # Four small squares of the class's colour have the area of the large one, so that the model is as sure.
    scores = subject.outputs(photographs(70).pixels())
    np.testing.assert_allclose(sure, scores[np.arange(70), np.arange(70) % 5], rtol=1e-3)


def test_summary_is_over_mosaics_and_counts_what_is_undefined():
    ours = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    other = np.array([0.5, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan])
    found = {
        "MIP-IN": PositiveShare(0.5, ours, 0.25, 8, 0),
        "Grad-CAM": PositiveShare(0.5, other, 0.25, 1, 7),
    }
    rows = grid.summary(found, 0)
    assert rows["MIP-IN"]["share"] == 0.5 and rows["MIP-IN"]["interval"] == (0.0, 1.0)
    assert rows["Grad-CAM"]["share"] == 0.5 and rows["Grad-CAM"]["undefined"] == 7
    assert rows["Grad-CAM"]["beyond_mipin"] == (-0.5, -0.5)  # of the one mosaic where both have a share
    found["Grad-CAM"] = PositiveShare(np.nan, np.full(8, np.nan), np.nan, 0, 8)
    with pytest.raises(ValueError, match="maps of Grad-CAM and of MIP-IN .*received none"):
        grid.summary(found, 0)


def by_hand():
    def of(share, **changes):
        ends = {"interval": [share - 0.1, share + 0.1], "beyond_mipin": [0.05, 0.1], "undefined": 0}
        return {"share": share, "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5]} | ends | changes

    rows = {title: of(0.3) for title in methods.METHODS} | {"MIP-IN": of(0.5), "Grad-CAM": of(0.6, undefined=3)}
    about = {"photographs": 1000, "accuracy_whole": 0.6, "accuracy_tiles": 0.4, "tiles": 90, "classes": 20}
    about |= {"confidence": 0.9, "in_mosaic": 0.15, "top_in_mosaic": 0.7}
    rows[methods.CENTRE] = of(0.25)
    found = {"about": about, "methods": rows}
    result = {"data": "Photos", "scale": {"mosaics": 100}, "fit": {"MIP-IN": 4000}}
    return result | {"subjects": {"VGG": found}, "pictures": ["a.png", "b.png"]}


def test_the_page_says_who_leads():
    result = by_hand()
    text = grid.markdown(result)
    assert mentions(text, "Grad-CAM leads", "0.600", "MIP-IN does not", "0.500, place 2 of 9")
    assert mentions(text, "[0.050, 0.100], tells the two apart", "chance, or below it: Gradient, SmoothGrad")
    assert row(text, "Grad-CAM") == ["0.600 [0.500, 0.700]", "3"] and row(text, "MIP-IN")[1] == "0"
    assert "MIP-IN on 4,000" in text and "](b.png)" in text
    assert mentions(text, "60.0 %", "1,000", "40.0 %", "90 of", "20 classes", "100 mosaics", "0.90", "0.15", "70 %")
    rows = result["subjects"]["VGG"]["methods"]
    rows["MIP-IN"]["share"] = 0.7
    rows["Grad-CAM"]["beyond_mipin"] = [-0.2, 0.1]
    text = grid.markdown(result)
    assert mentions(text, "MIP-IN leads", "0.700", "Grad-CAM, 0.600, is next", "does not tell the two apart")


@pytest.mark.medium
def test_the_game_on_colours(tmp_path, monkeypatch):
    titles = ("Gradient", "Grad-CAM", "MIP-IN")
    monkeypatch.setattr(methods, "METHODS", {title: methods.METHODS[title] for title in titles})
    monkeypatch.setattr(gallery, "load", lambda args: colours())
    monkeypatch.setattr(grid, "QUICK", grid.Scale(mosaics=3))
    assert command.main(["grid", "--out", str(tmp_path), "--quick", "--verbose", "0"]) == 0
    result = json.loads((tmp_path / "grid-quick.json").read_text())
    assert list(result["subjects"]) == ["VGG", "ResNet"] and str(tmp_path) not in json.dumps(result)
    for found in result["subjects"].values():
        rows = found["methods"]
        assert list(rows) == [*methods.METHODS, methods.CENTRE]
        assert rows["Grad-CAM"]["share"] == pytest.approx(1.0, abs=1e-6)
        assert rows["MIP-IN"]["share"] > 0.5
        assert rows[methods.CENTRE]["share"] == pytest.approx(0.25)
        assert found["about"]["accuracy_tiles"] == 1.0 and found["about"]["tiles"] <= 12
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".png") == sorted(result["pictures"])
    assert len(result["pictures"]) == 3
    assert report.made_by(result) in (tmp_path / "grid-quick.md").read_text()
