"""What the figures of photographs share, on squares whose colour a model knows."""

import numpy as np
import pytest

from reproduce_paper import explained, methods

from . import squares


def test_classes_by_name_or_number():
    assert explained.class_numbers(squares.NAMES, ["Green_cat", "0"]) == [1, 0]
    with pytest.raises(ValueError, match="number below 3 or name .*red dog.*received 'dog'"):
        explained.class_numbers(squares.NAMES, ["dog"])
    assert explained.first_known(squares.NAMES, [("ski", "red dog"), ("Blue bottle", "red dog")]) == [2, 0]
    assert explained.first_known(squares.NAMES, [("ski", "car")]) == [0, 1]


def test_candidates_are_of_the_class_with_small_boxes():
    photographs = squares.photographs(12)
    photographs.boxes[3] = np.array([[0, 0, 16, 16]])
    photographs.boxes[6] = np.zeros((0, 4), int)
    np.testing.assert_array_equal(explained.candidates(photographs, 0, 0.5), [0, 9])


def test_those_that_all_models_know_are_chosen_first():
    photographs = squares.photographs(30)
    photographs.labels[:20] = (photographs.labels[:20] + 1) % 3  # the models are wrong on these
    among, one = np.arange(5, 25), squares.subject()
    indices, right = explained.chosen([one, one], photographs, among, 8, np.random.default_rng(0))
    assert sorted(indices[:5]) == [20, 21, 22, 23, 24] and right.tolist() == [True] * 5 + [False] * 3
    again, _ = explained.chosen([one, one], photographs, among, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(indices, again)
    other = squares.subject(order=(1, 2, 0))
    assert not explained.chosen([one, other], photographs, among, 8, np.random.default_rng(0))[1].any()


def test_fitted_and_read(tmp_path):
    subject, said = squares.subject(), []
    titles = ["Gradient", "PatternAttribution", "Grad-CAM", "MIP-IN"]
    args = squares.arguments(tmp_path)
    analyzers = explained.fitted(titles, subject, squares.photographs(60), [2, 0, 2], args, said.append)
    assert list(analyzers) == titles and len(said) == 2 and analyzers["MIP-IN"].classes == [0, 2]
    photographs = squares.photographs(6, first=300)
    x = squares.preprocess(photographs.pixels())
    classes = photographs.labels * 0 + 2
    for title, analyzer in analyzers.items():
        found = explained.read(title, analyzer, x, classes)
        raw = analyzer.analyze(x, 2)
        np.testing.assert_allclose(found.drawn, methods.saliency(title, analyzer, x, classes))
        np.testing.assert_allclose(found.signed, raw.sum(axis=-1), rtol=1e-4, atol=1e-6)
        assert found.positive.min() >= 0 and found.drawn.shape == (6, 16, 16)
        if title in methods.BASELINES:
            np.testing.assert_allclose(found.positive, np.maximum(raw, 0).mean(axis=-1), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.drawn, np.abs(raw).mean(axis=-1), rtol=1e-4, atol=1e-6)


def test_a_sheet_has_each_photograph_above_its_maps():
    photographs = squares.photographs(5)
    maps = np.random.default_rng(0).random((5, 16, 16))
    maps[4] = 0  # an empty map is drawn white
    titles, captions = list("abcde"), {"one": list("12345")}
    rows = {"one": maps, "over it": maps}
    figure = explained.sheet(
        photographs.pixels(), photographs.boxes, rows, titles=titles, captions=captions, over=["over it"], columns=3
    )
    axes = np.array(figure.axes).reshape(6, 3)
    assert [ax.get_title() for ax in axes[[0, 3]].ravel()] == [*"abcde", ""]
    assert [ax.get_xlabel() for ax in axes[[1, 4]].ravel()] == [*"12345", ""]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["photograph", "one", "over it"] * 2
    assert not axes[5, 2].axison and axes[4, 1].images[0].get_array().max() == 0
    box = axes[1, 1].patches[0]
    left, top, right, bottom = photographs.boxes[1][0]
    assert box.get_bbox().bounds == (left - 0.5, top - 0.5, right - left, bottom - top)
    assert len(axes[0, 0].images) == 1 and len(axes[2, 0].images) == 2


def test_a_sheet_takes_the_strongest_colour_s_values():
    photographs = squares.photographs(2)
    maps = np.random.default_rng(0).uniform(0.1, 1, (2, 16, 16))
    tops = {"one": [2.0, 4.0], "over it": [1.0, 2.0]}
    rows = {"one": maps, "over it": maps}
    figure = explained.sheet(photographs.pixels(), photographs.boxes, rows, over=["over it"], tops=tops)
    axes = np.array(figure.axes).reshape(3, 2)
    assert [ax.images[0].get_clim() for ax in axes[1]] == [(0, 2), (0, 4)]
    for ax, values, top in zip(axes[2], maps, tops["over it"], strict=True):
        np.testing.assert_allclose(ax.images[1].get_array()[..., 3], 0.9 * values / top)  # its opacity
