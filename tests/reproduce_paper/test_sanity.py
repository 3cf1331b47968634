"""The sanity check: its page from numbers made by hand, and the experiment on tiny models."""

import json
import pathlib

import keras
import numpy as np
import pytest

from mipin_keras.metrics import cascading, similarity
from reproduce_paper import __main__ as command
from reproduce_paper import data, gallery, methods, models, report, sanity, sanity_page
from reproduce_paper.photo_models import Subject, standardized
from reproduce_paper.photographs import Photographs
from tests.networks import with_weights

from .by_hand import logit_gradients
from .pages import mentions, row

MEASURES = ("spearman", "spearman_absolute", "ssim", "cosine", "cosine_absolute")


def by_hand(**upper):
    """Four layers; every curve keeps 0.3 in the upper half and 0.1 below, but those that ``upper`` names."""

    def curve(label, title):
        value = upper.get(label.replace(" ", "_").replace(",", "").replace("-", "_"), 0.3)
        stages = [dict.fromkeys(MEASURES, v) | {"constant": i} for i, v in enumerate((value, value, 0.1, 0.1))]
        return {"method": title, "other": dict.fromkeys(MEASURES, 0.05), "after": stages}

    curves = {label: curve(label, title) for label, title, _ in sanity.CURVES}
    return {
        "title": "VGG, hand-made", "model": {"accuracy": 0.625}, "images": 8, "shape": [64, 64, 3], "classes": 4,
        "feature_map": "last", "layers": ["out", "fc", "block2_conv1", "block1_conv1"], "curves": curves,
        "right": 0.75, "sample": 0,
    }  # fmt: skip


def test_the_curves_are_all_methods_and_the_learned_ones_twice():
    assert [title for _, title, kept in sanity.CURVES if not kept] == list(methods.METHODS)
    assert [label for label, _, kept in sanity.CURVES if kept] == [
        "PatternAttribution, not refitted", "MIP-IN, not refitted",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("guided", "gradient", "known"), [(0.9, 0.3, True), (0.9, 0.8, False), (0.4, 0.1, False), (0.2, 0.9, False)]
)
def test_the_verdict_comes_from_the_numbers(guided, gradient, known):
    found = by_hand(Guided_Backprop=guided, Gradient=gradient)
    assert sanity_page.as_known(found) is known
    found["as_known"] = known
    text = sanity_page.verdict(found)
    assert f"{guided:.2f}" in text and f"{gradient:.2f}" in text and ("NOT as is known" in text) is not known


def test_the_page():
    found = by_hand(Guided_Backprop=0.9, Gradient=0.25, MIP_IN=0.2, MIP_IN_not_refitted=0.7)
    found["as_known"] = True
    result = {"models": {"photographs": found}, "pictures": ["sanity-photographs.png", "sanity-photographs-maps.png"]}
    page = sanity.markdown(json.loads(json.dumps(result)))
    assert "62.5 %" in page and "75 %" in page and ", ".join(found["layers"]) in page
    assert page.count("![") == 2 and "](sanity-photographs.png)" in page
    assert row(page, "MIP-IN, not refitted") == ["0.70"] * 4 + ["0.10"] * 2 + ["0.05"] * 2 + ["6"]
    assert mentions(page, "MIP-IN keeps 0.20", "0.70 if not", "together more")
    assert mentions(page, "number 1 of 9", "it leads")
    found = by_hand(MIP_IN=0.4) | {"as_known": False}
    page = sanity.markdown(result | {"models": {"photographs": found}})
    assert "it does not lead" in page and "NOT as is known" in page and "together no more" in page


def test_the_pictures():
    found = by_hand()
    figure = sanity_page.curves(found)
    drawn = [ax for ax in figure.axes if ax.lines]
    assert [ax.get_title() for ax in drawn] == list(found["curves"])
    assert drawn[0].lines[0].get_ydata().tolist() == [0.3, 0.3, 0.1, 0.1]
    layers = [f"l{i}" for i in range(11)]
    found |= {"layers": layers}
    shown = {label: [np.full((4, 4), i) for i in range(12)] for label in ("MIP-IN", "Gradient")}
    figure = sanity_page.maps(found, shown, np.zeros((4, 4)))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == sanity_page.COLUMNS and titles[0] == "trained" and titles[-1] == "l10"


def test_evenly_by_class():
    labels = np.array([2, 0, 1, 0, 2, 1, 0, 1, 2])
    assert labels[sanity.evenly_by_class(labels, 3)].tolist() == [0, 1, 2]
    assert sorted(sanity.evenly_by_class(labels, 50).tolist()) == list(range(9))


def tiny(shape, units):
    layers = keras.layers
    stack = [layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1"), layers.MaxPooling2D(2)]
    stack += [layers.Conv2D(4, 3, padding="same", activation="relu", name="conv2"), layers.MaxPooling2D(2)]
    stack += [layers.Flatten(), layers.Dense(units, activation="softmax", name="out")]
    return with_weights(keras.Sequential([keras.Input(shape), *stack]))


def test_what_was_learned_is_carried_over(rng):
    model, x = tiny((12, 12, 1), 3), rng.normal(size=(9, 12, 12, 1)).astype(np.float32)
    case = sanity.Case("", model, None, x, np.arange(9) % 3, x, x, dict.fromkeys(methods.METHODS, "sum"), {})
    for title in methods.LEARNED:
        trained = sanity.analyzer_of(title, model, case, sanity.QUICK, 0)
        trained.fit(x)
        _, copy = next(iter(cascading(model)))
        carried = sanity.analyzer_of(title, copy, case, sanity.QUICK, 0)
        sanity.carry(trained, carried)
        before, after = sanity.maps_of(title, trained, case), sanity.maps_of(title, carried, case)
        if title == "MIP-IN":  # only the logit, where it starts, is another
            signs = [np.sign(one.logits(x)[range(9), case.classes]) for one in (trained, carried)]
            assert (signs[0] != signs[1]).any() and not np.allclose(after.signed, before.signed)
            np.testing.assert_allclose(similarity(after.signed, before.signed).cosine, 1, atol=1e-5)
        copy.set_weights(model.get_weights())  # the traced functions read the weights as they are
        np.testing.assert_allclose(sanity.maps_of(title, carried, case).signed, before.signed, rtol=1e-4, atol=1e-6)


def run(folder, model):
    """A quick run on one of the models; what was checked of every curve, and the model's part of the result."""
    assert command.main(["sanity", "--models", model, "--out", str(folder), "--quick", "--verbose", "0"]) == 0
    result = json.loads((folder / "sanity-quick.json").read_text())
    (found,) = result["models"].values()
    assert result["as_known"] == found["as_known"] == sanity_page.as_known(found)
    assert found["layers"] == ["out", "conv2", "conv1"] and found["images"] == 4
    assert list(found["curves"]) == [label for label, _, _ in sanity.CURVES]
    for curve in found["curves"].values():
        assert [set(stage) for stage in curve["after"]] == [{*MEASURES, "constant"}] * 3
        assert all(-1 <= (stage[key] or 0) <= 1.001 for stage in curve["after"] for key in MEASURES)
        # what a tiny model with a negative logit leaves without a map is counted
        assert all((stage["ssim"] is None) == (stage["constant"] == 4) for stage in curve["after"])
    assert len(result["pictures"]) == 2 and all((folder / file).is_file() for file in result["pictures"])
    page = (folder / "sanity-quick.md").read_text()
    assert page.count("![") == 2 and report.QUICK in page
    return found


@pytest.mark.medium
def test_the_experiment_on_digits(tmp_path, monkeypatch):
    titles = ("Gradient", "Guided Backprop")
    monkeypatch.setattr(methods, "METHODS", {title: methods.METHODS[title] for title in titles})
    monkeypatch.setattr(sanity, "CURVES", [curve for curve in sanity.CURVES if curve[1] in titles])
    monkeypatch.setattr(sanity, "QUICK", sanity.Scale(4, 4, 8, 8, 2, 200))
    digits, labels = np.random.default_rng(0).uniform(size=(12, 12, 12)).astype(np.float32), np.arange(12) % 3
    net = tiny((12, 12, 1), 3)
    monkeypatch.setattr(data, "load", lambda name, folder: data.Data(digits, labels, digits, labels))
    monkeypatch.setattr(models, "trained", lambda *_, **__: (net, {"accuracy": 0.5}))
    found = run(tmp_path, "mnist")
    # The gradient's maps by hand, of the trained model and of its copy whose layers are all random.
    chosen = sanity.evenly_by_class(labels, 4)
    *_, (_, copy) = cascading(net, 0)
    first, last = (logit_gradients(model, digits[chosen, ..., None], labels[chosen]) for model in (net, copy))
    expected = similarity(last.sum(axis=-1), first.sum(axis=-1))
    stage = found["curves"]["Gradient"]["after"][-1]
    for measure in ("spearman", "ssim"):
        assert stage[measure] == pytest.approx(getattr(expected, measure).mean(), abs=1e-3)


@pytest.mark.medium
def test_the_experiment_on_photographs(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    paths = [pathlib.Path(str(i)) for i in range(12)]
    boxes = [np.array([[2, 2, 8, 8]])] * 12
    shown = Photographs(paths, np.arange(12) % 3, boxes, list("abc"), (16, 16), lambda path: images[int(path.name)])
    subject = Subject("VGG", tiny((16, 16, 3), 3), "conv2", standardized, {"accuracy": 0.3})
    monkeypatch.setattr(gallery, "load", lambda args: gallery.Gallery("noise", shown, shown, {"VGG": subject}))
    monkeypatch.setattr(sanity, "QUICK", sanity.Scale(4, 4, 8, 8, 2, 200))
    found = run(tmp_path, "photographs")
    # Of MIP-IN, not refitted, only the logit is another while the last layer alone is random.
    assert found["curves"]["MIP-IN, not refitted"]["after"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert found["curves"]["Gradient"]["after"][0]["cosine"] < 0.99
