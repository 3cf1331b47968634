"""Table 2: its page from a result, and a run on generated photographs and tiny models."""

import json

import numpy as np
import pytest

from mipin_keras.metrics import bounding_box_accuracy
from reproduce_paper import __main__ as command
from reproduce_paper import gallery, methods, table2
from tests.shelf import photographs, shelf

from .by_hand import logit_gradients
from .pages import mentions, row


def of(mean, half=0.03, of_right=None):
    return {"mean": mean, "low": mean - half, "high": mean + half, "of_right": mean if of_right is None else of_right}


@pytest.fixture
def result():
    """MIP-IN leads on the VGG and not on the ResNet."""
    models = {}
    for name, mipin in (("VGG", 0.62), ("ResNet", 0.45)):
        scores = dict.fromkeys([*methods.METHODS, methods.CENTRE], 0.44) | {"Grad-CAM": 0.55, "Deconvnet": 0.25}
        rows = {title: of(score) for title, score in scores.items()} | {"MIP-IN": of(mipin, of_right=0.7)}
        models[name] = {
            "about": {}, "layer": "top", "right": 0.9, "rows": rows,
            "differences": {title: of(mipin - score) for title, score in scores.items() if title != "MIP-IN"},
        }  # fmt: skip
    return {
        "title": "Tiny ImageNet, 20 classes", "photographs": 263, "chance": 0.184, "fit_images": 10000,
        "pattern_images": 2000, "reading": methods.MIPIN._asdict(), "pictures": ["table2.png"], "models": models,
    }  # fmt: skip


def test_the_page_says_where_mipin_leads_and_where_not(result):
    page = table2.markdown(result)
    vgg, resnet = (line for line in page.splitlines() if line.startswith("- "))
    assert mentions(vgg, "VGG", "MIP-IN leads", "0.620", "above Gradient") and "below" not in vgg
    assert mentions(resnet, "MIP-IN does not lead", "Grad-CAM has 0.550", "MIP-IN 0.450", "place 2 of 9")
    assert mentions(resnet, "above Deconvnet; below Grad-CAM; not told apart from Gradient, SmoothGrad")
    assert mentions(resnet, "rightly", "MIP-IN has 0.700", "Grad-CAM 0.550")
    assert "](table2.png)" in page and "263" in page and result["title"] in page
    areas, differences = page.split("](table2.png)")
    assert row(areas, "MIP-IN") == ["0.620 [0.590, 0.650]", "0.648", "0.450 [0.420, 0.480]", "0.662"]
    assert row(areas, "PatternAttribution")[-1] == "-"  # the paper has none for ResNet50
    assert row(areas, "chance") == ["0.184", "-"] * 2 and row(areas, "centre prior")[1] == "-"
    assert row(differences, "Grad-CAM") == ["+0.070 [+0.040, +0.100]", "-0.100 [-0.130, -0.070]"]


def test_beside_has_every_number_of_the_paper(result):
    rows = table2.beside(result)
    assert len(rows) == 18 and {r.where for r in rows} == {"Table 2"}
    found = {r.what: (r.paper, r.ours) for r in rows}
    assert found["MIP-IN, VGG19"] == ("0.648", "0.620 [0.590, 0.650]")
    assert found["PatternAttribution, ResNet50"][0] == "-"
    assert "263" in rows[0].setting and "VGG" in rows[0].setting
    assert list(table2.PAPER) == list(methods.METHODS)


def test_the_picture_has_a_bar_a_method(result):
    figure = table2.draw(result)
    assert [ax.get_title() for ax in figure.axes] == ["VGG", "ResNet"]
    for ax, of in zip(figure.axes, result["models"].values(), strict=True):
        assert [bar.get_width() for bar in ax.patches] == [of["rows"][title]["mean"] for title in methods.METHODS]


def test_groups_of_classes_cover_all_photographs():
    shown = photographs(20, "test").take(np.random.default_rng(0).permutation(20))
    for size, count in ((None, 1), (1, 3), (2, 2), (5, 1)):
        groups = list(table2.groups(shown, size))
        assert len(groups) == count
        assert sorted(np.concatenate(groups)) == list(range(20))
        assert all(len(set(shown.labels[group])) <= (size or 3) for group in groups)


def run(folder, *options):
    assert command.main(["table2", "--quick", "--out", str(folder), *options]) == 0
    return json.loads((folder / "table2-quick.json").read_text())


def test_a_run_on_tiny_models(tmp_path, monkeypatch):
    titles = ("Gradient", "PatternAttribution", "MIP-IN")
    monkeypatch.setattr(methods, "METHODS", {title: methods.METHODS[title] for title in titles})
    monkeypatch.setattr(gallery, "load", lambda args: shelf())
    whole = run(tmp_path, "--batch-size", "7")
    assert whole["photographs"] == 20 and whole["fit_images"] == 60
    assert whole["chance"] == pytest.approx(30 / 256)
    assert (tmp_path / "table2-quick.png").stat().st_size > 5000
    for of in whole["models"].values():
        assert list(of["rows"]) == [*titles, "centre prior"] and list(of["differences"]) == [
            *titles[:2],
            "centre prior",
        ]
        for title, found in of["rows"].items():
            assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
            if title != "MIP-IN":
                difference = of["rows"]["MIP-IN"]["mean"] - found["mean"]
                assert of["differences"][title]["mean"] == pytest.approx(difference)
    # The gradient's by hand.
    shown, subject = shelf().test.with_small_boxes(), shelf().subjects["VGG"]
    maps = logit_gradients(subject.model, subject.preprocess(shown.pixels()), shown.labels)
    expected = bounding_box_accuracy(np.abs(maps).mean(axis=-1), shown.masks()).accuracy
    assert whole["models"]["VGG"]["rows"]["Gradient"]["mean"] == pytest.approx(expected, abs=0.01)
    assert whole["models"]["VGG"]["rows"]["Gradient"] != whole["models"]["ResNet"]["rows"]["Gradient"]


def test_the_options_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", {"MIP-IN": "mipin"})
    monkeypatch.setattr(gallery, "load", lambda args: shelf(names=["VGG"]))
    options = ["--limit", "10", "--fit-images", "30"]
    less, grouped = run(tmp_path, *options), run(tmp_path, *options, "--classes-at-once", "2")
    assert less["photographs"] == 10 and less["fit_images"] == less["pattern_images"] == 30
    for result in (less, grouped):  # in groups the same, rounding apart
        result["mean"] = result["models"]["VGG"]["rows"]["MIP-IN"]["mean"]
    assert grouped["mean"] == pytest.approx(less["mean"], abs=0.01)


def test_options_out_of_range_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "load", lambda args: shelf())
    assert command.main(["table2", "--quick", "--out", str(tmp_path), "--limit", "0"]) == 2
    assert "expected --limit to be at least 1, received 0" in capsys.readouterr().err
