"""What representations know of photographs: the page from a result, a run on squares, and the numbers by hand."""

import argparse
import copy
import json
import math

import keras
import numpy as np
import pytest

from mipin_keras.information.results import Decomposition
from mipin_keras.metrics import bounding_box_accuracy
from reproduce_paper import __main__ as command
from reproduce_paper import gallery, information, information_page, lite0
from tests.reproduce_paper.test_gallery import ilsvrc_folder  # noqa: F401
from tests.reproduce_paper.test_ilsvrc import write_training

from . import squares
from .pages import mentions, row


def of(mean, half=0.03):
    return {"mean": mean, "low": mean - half, "high": mean + half}


@pytest.fixture
def result():
    """Sums of 8 locations: 2, 1.5 and 0.5 nats a location; one point lost."""
    rows = {"total": 0.5, "decision-related": 0.55, "redundant": 0.3, "mask λ": 0.52, "Grad-CAM": 0.6, "MIP-IN": 0.58}
    rows |= {information_page.FEATURE: 0.51, "centre prior": 0.41}
    return {
        "models": {
            "ResNet": {
                "photographs": 1000, "title": "Tiny ImageNet, 20 classes", "about": {}, "layer": "top", "locations": 8,
                "fit": {
                    "total": 1.9, "decision": 1.4, "limit": 7.33, "coverage": 0.57, "accuracy": 0.9,
                    "masked_accuracy": 0.885, "labels": "given", "samples": [800, 200], "seconds": 321.4, "epochs": 10,
                    "batch_size": 32, "analysis_limit": 6.93,
                    "history": {"critic": {"total": [1, 3.5], "decision": [1, 2.5]}},
                },
                "information": {"total": of(16.0), "decision": of(12.0), "redundant": of(4.0)},
                "coverage": of(0.58), "spread": 0.31,
                "accuracy": {"unmasked": of(0.73), "masked": of(0.72), "shuffled": of(0.5)},
                "kept": of(0.96), "difference": {"masked": of(-1.0), "shuffled": of(-23.0)},
                "above": 0.125, "above_in_sum": 0.02, "chance": 0.184,
                "boxes": {
                    "photographs": 263, "classes": 20, "rows": {title: of(mean) for title, mean in rows.items()},
                    "differences": {t: of(mean - 0.41) for t, mean in rows.items() if t != "centre prior"},
                },
                "picture": "information-resnet.png",
            }
        }
    }  # fmt: skip


def test_the_page_has_the_numbers(result):
    page = information_page.markdown(result)
    assert "](information-resnet.png)" in page and "publishes pictures and no numbers" in page
    of_parts, rest = page.split("| ", 1)[1].split("coverage, the mean of λ")
    assert row("| " + of_parts, "decision-related") == ["12.0 [12.0, 12.0]", "1.50"]
    assert row(rest, "difference behind the mask, points") == ["-1.0 [-1.0, -1.0]"]
    assert row(rest, "difference behind λ shuffled, points") == ["-23.0 [-23.0, -23.0]"]
    assert row(rest, "locations where decision-related exceeds total") == ["0.125"]
    assert row(rest, "Grad-CAM") == ["0.600 [0.570, 0.630]", "+0.190 [+0.160, +0.220]"]
    assert row(rest, "centre prior") == ["0.410 [0.380, 0.440]", "-"] and row(rest, "chance") == ["0.184", "-"]
    assert mentions(page, "The fit took 321 s: 10 epochs") and mentions(page, "800 photographs trained on and 200 held")
    assert mentions(page, "1.90 and decision-related 1.40 nats") and mentions(page, "3.50 and 2.50), the limit")
    assert mentions(page, "7.33; coverage") and mentions(page, "is 6.93")


def test_the_verdict_says_what_holds_and_what_does_not(result):
    (line,) = information.in_short(result)
    assert mentions(line, "ResNet: 2.00 nats a location in total, the larger on average, 1.50 decision", "0.50 redund")
    assert mentions(line, "exceeds total at 12.5 %", "changes by -1.0 points, within 2 (λ shuffled -23.0)")
    assert mentions(line, "decision-related finds the boxes best, 0.550; Grad-CAM 0.600, MIP-IN 0.580 and centre prior")
    worse = copy.deepcopy(result["models"]["ResNet"])
    worse["information"]["decision"], worse["difference"]["masked"] = of(17.0), of(-2.5)
    worse["boxes"]["rows"]["mask λ"] = of(0.57)
    line = information_page.verdict("ResNet", worse)
    assert mentions(line, "not the larger on average", "-2.5 points, not within 2", "mask λ finds the boxes best")


def test_the_numbers_of_a_decomposition():
    total = np.float32([[[1, 2], [3, 4]], [[0, 0], [0, 1]]])
    decision = np.float32([[[1, 3], [2, 2]], [[1, 0], [0, 1]]])
    mask = np.float32([[[0, 1], [1, 0]], [[1, 1], [1, 1]]])
    decisions = {"unmasked": np.array([1, 2]), "masked": np.array([1, 0]), "shuffled": np.array([0, 0])}
    found = information.measured(
        information.Explained(Decomposition(total, decision, total - decision, mask), decisions), np.array([1, 0]), 0
    )
    means = {part: found["information"][part]["mean"] for part in found["information"]}
    assert means == {"total": 5.5, "decision": 5.0, "redundant": 0.5}
    assert found["coverage"]["mean"] == 0.75 and found["spread"] == 0.25
    assert {how: of["mean"] for how, of in found["accuracy"].items()} == {
        "unmasked": 0.5, "masked": 1.0, "shuffled": 0.5
    }  # fmt: skip
    assert found["kept"]["mean"] == 0.5
    assert found["difference"]["masked"] == {"mean": 50.0, "low": 0.0, "high": 100.0}
    assert found["difference"]["shuffled"] == {"mean": 0.0, "low": -100.0, "high": 100.0}
    assert found["above"] == 2 / 8 and found["above_in_sum"] == 1 / 2


def test_the_picture_shows_each_part_from_its_smallest_value():
    shown = squares.photographs(2)
    rng = np.random.default_rng(0)
    total, decision, mask = (rng.random((2, 4, 4), np.float32) for _ in range(3))
    figure = information_page.picture(shown, Decomposition(total - 1, decision, total - 1 - decision, mask))
    axes = np.array(figure.axes).reshape(5, 2)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["photograph", "total", "decision-related", "redundant", "mask λ"]
    assert [ax.get_title() for ax in axes[0]] == ["red dog", "green cat"]
    assert axes[1, 0].get_xlabel() == f"{total[0].min() - 1:.1f} to {total[0].max() - 1:.1f} nats"
    for i in (0, 1):
        opacity = axes[1, i].images[1].get_array()[..., 3]
        # Linear interpolation to 16x16 keeps the corners' values.
        share = (total[i] - total[i].min()) / (total[i] - total[i].min()).max()
        assert opacity[0, 0] / opacity.max() == pytest.approx(
            share[0, 0] / information_page.resized(share[None], (16, 16)).max(), abs=1e-4
        )
        assert axes[4, i].images[0].get_clim() == (0, 1)


def squares_of_the_resnet(args):
    made = squares.gallery()
    assert args.photographs == "tiny-imagenet" and args.subjects == ["ResNet"] and args.weights == []
    return made._replace(subjects={"ResNet": made.subjects["ResNet"]})


def arguments(out, **more):
    given = {"models": ["ResNet"], "limit": None, "fit_images": None, "epochs": None, "verbose": 0}
    return squares.arguments(out, **(given | more))


@pytest.mark.medium
def test_a_run_on_squares(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", squares_of_the_resnet)
    args = arguments(tmp_path, limit=30, epochs=8)
    text = information.run(args).read_text()
    result = json.loads((tmp_path / "information-quick.json").read_text())
    (found,) = result["models"].values()
    assert found["photographs"] == found["boxes"]["photographs"] == 30 and found["boxes"]["classes"] == 3
    assert found["chance"] == 0.25 and found["locations"] == 256 and found["layer"] == "colour"
    fit = found["fit"]
    assert fit["labels"] == "given" and fit["samples"] == [48, 12] and fit["epochs"] == 8
    assert fit["limit"] == pytest.approx(math.log(11 * 256)) and fit["analysis_limit"] == pytest.approx(math.log(1024))
    assert len(fit["history"]["critic"]["total"]) == 8
    assert f"]({found['picture']})" in text and (tmp_path / found["picture"]).stat().st_size > 10000
    titles = [*information_page.PARTS.values(), "mask λ", "Grad-CAM", "MIP-IN", information_page.FEATURE]
    assert list(found["boxes"]["rows"]) == [*titles, "centre prior"] and list(found["boxes"]["differences"]) == titles
    # The colour is in the square alone: the feature map says where it is.
    assert found["boxes"]["rows"][information_page.FEATURE]["mean"] > 0.95
    assert found["accuracy"]["unmasked"]["mean"] == 1.0

    # The masked network and the maps by hand.
    subject, shown = squares.subject("ResNet"), squares.photographs(60, first=300).evenly(30)
    analyzer, _ = information.fitted(subject, squares.photographs(60), 8, args)
    x = subject.preprocess(shown.pixels())
    parts = analyzer.decompose(x)
    feature = keras.Model(subject.model.inputs, subject.model.get_layer("colour").output).predict(x, verbose=0)
    kernel, bias = subject.model.layers[-1].get_weights()
    masked = (feature * parts.mask[..., None]).mean(axis=(1, 2)) @ kernel + bias
    assert found["accuracy"]["masked"]["mean"] == pytest.approx(
        (masked.argmax(axis=1) == shown.labels).mean(), abs=0.04
    )
    assert found["coverage"]["mean"] == pytest.approx(parts.mask.mean(), abs=0.01)
    again = information.explained(analyzer, subject, shown, 0)
    np.testing.assert_array_equal(again.decisions["masked"], masked.argmax(axis=1))
    np.testing.assert_allclose(again.parts.total, parts.total, rtol=1e-4, atol=1e-4)
    accuracy = bounding_box_accuracy(parts.mask, shown.masks()).accuracy
    assert found["boxes"]["rows"]["mask λ"]["mean"] == pytest.approx(accuracy, abs=0.02)


def test_options_out_of_range_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "load", squares_of_the_resnet)
    given = ["information", "--quick", "--out", str(tmp_path), "--models", "ResNet", "--epochs", "0"]
    assert command.main(given) == 2
    assert "expected --epochs to be at least 1, received 0" in capsys.readouterr().err


def test_photographs_without_small_boxes_are_refused(tmp_path):
    made = squares.gallery()
    large = made.test._replace(boxes=[np.array([[0, 0, 16, 16]])] * 60)
    only = made._replace(test=large, subjects={"ResNet": made.subjects["ResNet"]})
    with pytest.raises(ValueError, match="expected test photographs with boxes under 33%"):
        information.run_model(only, arguments(tmp_path), print)


# EfficientNet-Lite0 and its photographs


def tiny(size=(224, 224, 3), classes=1000):
    layers = keras.layers
    return keras.Sequential([keras.Input(size), layers.GlobalAveragePooling2D(), layers.Dense(classes)])


@pytest.fixture
def places(ilsvrc_folder):  # noqa: F811
    """Eight validation photographs, three training ones, and a model of the name."""
    for wnid, number in (("n00000503", 1), ("n00000003", 7), ("n00000003", 2)):
        write_training(ilsvrc_folder / "imagenet-sample", wnid, number)
    cache = ilsvrc_folder / "models"
    cache.mkdir()
    tiny().save(cache / lite0.FILE)
    return argparse.Namespace(data_dir=ilsvrc_folder, cache_dir=cache)


def test_lite0_with_its_photographs(places, monkeypatch):
    monkeypatch.delenv("MIPIN_DATA_DIR", raising=False)
    found = information.load(lite0.NAME, places)
    assert found.title == "ImageNet, 1,000 classes" and len(found.test.paths) == 8 and len(found.train.paths) == 3
    assert found.train.labels.tolist() == [3, 3, 503] and found.test.labels.tolist() == [253, 503, 753, 3] * 2
    (subject,) = found.subjects.values()
    assert subject.layer == "top_relu" and subject.name == lite0.NAME
    assert subject.outputs(found.train.pixels()).shape == (3, 1000)
    given = subject.preprocess(np.uint8([127, 255, 0]))
    np.testing.assert_allclose(given, [0, 1, -127 / 128])
    assert given.dtype == np.float32


def test_what_lite0_lacks_is_said(places, monkeypatch):
    monkeypatch.delenv("MIPIN_DATA_DIR", raising=False)
    tiny(classes=10).save(places.cache_dir / lite0.FILE)
    with pytest.raises(ValueError, match=r"model of \(224, 224, 3\) to \(1000,\) .*received one .* to \(10,\)"):
        lite0.load(places)
    (places.data_dir / "imagenet-sample").rename(places.data_dir / "elsewhere")
    with pytest.raises(FileNotFoundError, match="folder imagenet-sample in --data-dir"):
        lite0.load(places)
    (places.cache_dir / lite0.FILE).unlink()
    with pytest.raises(FileNotFoundError, match="efficientnet-lite0.keras in --cache-dir.*--models"):
        lite0.load(places)


def test_the_fit_is_of_the_labels_of_the_data(tmp_path, monkeypatch):
    given = {}

    class Analyzer:
        cut = argparse.Namespace(shape=(4, 4, 3))

        def fit(self, inputs, labels):
            given["x"], given["labels"] = np.concatenate(list(inputs())), labels
            self.fit_report = argparse.Namespace(_asdict=lambda: {"samples": (10, 2), "total": 1.0})

    def create(name, model, **options):
        given["name"], given["options"] = name, options
        return Analyzer()

    monkeypatch.setattr(information, "mipin_keras", argparse.Namespace(create_analyzer=create))
    train, subject = squares.photographs(40), squares.subject("ResNet")
    _, said = information.fitted(subject, train, 3, arguments(tmp_path, seed=5))
    np.testing.assert_array_equal(given["labels"], train.labels)
    np.testing.assert_array_equal(given["x"], squares.preprocess(train.pixels()))
    assert given["name"] == "mi.total" and given["options"] == {
        "layer": "colour", "epochs": 3, "seed": 5, "verbose": 0
    }  # fmt: skip
    assert said["analysis_limit"] == pytest.approx(math.log(160)) and said["epochs"] == 3


def test_it_is_among_the_experiments():
    assert command.EXPERIMENTS["information"] is information
