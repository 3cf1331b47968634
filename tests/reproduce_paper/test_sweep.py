"""The sweep: what it measures on, what it chooses, and that the defaults are what was chosen."""

import json
import pathlib

import numpy as np
import pytest

from reproduce_paper import __main__ as command
from reproduce_paper import gallery, methods, photo_models, sweep
from reproduce_paper.methods import Reading
from tests.shelf import photographs, shelf

from .pages import mentions, row


def found(best, layers, channels, right=0.5):
    """A model's part of a result: the reading `best` scores what `layers` say, the others 0.1 less."""
    mipin = {
        sweep.key(r): {layer: value - (0 if r == best else 0.1) for layer, value in layers.items()}
        for r in sweep.READINGS
    }
    return {
        "about": {}, "right": right, "photographs": 500, "mipin": mipin,
        "grad_cam": {layer: 1 - value for layer, value in layers.items()},
        "channels": {"Gradient": dict(zip(sweep.CHANNELS, channels, strict=True))},
    }  # fmt: skip


@pytest.fixture
def models():
    return {
        "VGG": found(Reading("all", "mean", True), {"block4_conv1": 0.4, "block4_pool": 0.5}, (0.4, 0.3, 0.2, 0.1)),
        "ResNet": found(Reading("class", "mean", False), {"stage3_block1_out": 0.9}, (0.1, 0.3, 0.5, 0.1)),
    }


def test_one_reading_is_chosen_for_all_models_and_a_layer_for_each(models):
    models["ResNet"]["mipin"][sweep.key(Reading("all", "mean", True))]["stage3_block1_out"] = 0.85
    choice = sweep.choose(models)
    assert choice["mipin"] == {"samples": "all", "reduce": "mean", "times_feature": True}
    assert choice["accuracy"] == pytest.approx((0.5 + 0.85) / 2)
    assert choice["layers"] == {"VGG": "block4_pool", "ResNet": "stage3_block1_out"}
    assert choice["grad_cam_layers"] == {"VGG": "block4_conv1", "ResNet": "stage3_block1_out"}
    assert choice["channels"] == {"Gradient": "mean"}  # 0.35 a model; 0.25 and 0.3 are those of the first two


def test_the_page_says_what_was_chosen_and_whether_it_is_the_default(monkeypatch, models):
    models["ResNet"]["mipin"][sweep.key(Reading("class", "mean", False))]["stage3_block1_out"] = 0.95
    result = {
        "models": models, "choice": sweep.choose(models), "photographs": 500, "fitted": 2000, "title": "Tiny ImageNet",
        "chance": 0.182, "centre": 0.401, "scale": sweep.Scale()._asdict(), "quick": False,
    }  # fmt: skip
    choice = result["choice"]
    page = sweep.markdown(result)
    assert mentions(page, "**Chosen:**", str(Reading("class", "mean", False)))
    assert mentions(page, "`block4_pool` of VGG, `stage3_block1_out` of ResNet")
    assert mentions(page, "0.182", "0.401") and "2,000" in page and mentions(page, "50.0 % (VGG) and 50.0 % (ResNet)")
    assert row(page, "Gradient") == ["0.400", "0.300", "0.200", "0.100", "0.100", "0.300", "0.500", "0.100"]
    assert "Left out" not in page
    models["VGG"]["photographs"] = 470
    assert mentions(sweep.markdown(result), "Left out", "30 for VGG.")
    monkeypatch.setattr(methods, "MIPIN", Reading("all", "relu_mean", False))
    assert mentions(sweep.markdown(result), "**not** what this run chose", "MIP-IN")
    monkeypatch.setattr(methods, "MIPIN", Reading(**choice["mipin"]))
    monkeypatch.setitem(methods.READINGS, "Gradient", choice["channels"]["Gradient"])
    for name, layer in choice["layers"].items():
        monkeypatch.setitem(photo_models.RECIPES, name, photo_models.RECIPES[name]._replace(layer=layer))
    assert sweep.differences(choice) == []
    assert "These choices are the defaults" in sweep.markdown(result)


def test_the_defaults_are_among_the_options():
    assert methods.MIPIN in sweep.READINGS
    assert methods.READINGS["MIP-IN"] == methods.MIPIN.reduce
    for name, recipe in photo_models.RECIPES.items():
        assert recipe.layer in sweep.LAYERS[name]
        names = [layer.name for layer in recipe.build().layers]
        assert [name for name in names if name in sweep.LAYERS[name_of(recipe)]] == sweep.LAYERS[name_of(recipe)]
    assert {methods.READINGS[title] for title in methods.BASELINES} <= set(sweep.CHANNELS)


def name_of(recipe):
    return next(name for name, other in photo_models.RECIPES.items() if other is recipe)


def test_the_defaults_are_what_the_sweep_chose():
    path = pathlib.Path(sweep.__file__).parent / "results" / "sweep.json"
    if not path.is_file():
        pytest.skip("no result of the sweep is kept")
    result = json.loads(path.read_text())
    assert not result["quick"]
    assert sweep.choose(result["models"]) == result["choice"]
    assert sweep.differences(result["choice"]) == []
    for name, layer in result["choice"]["grad_cam_layers"].items():  # which Grad-CAM takes by itself
        analyzer = methods.create("Grad-CAM", photo_models.RECIPES[name].build())
        assert analyzer.start == analyzer.graph.tensor_after(layer)


def test_photographs_to_measure_on_are_not_those_to_fit_on():
    shown, fitted = sweep.split(photographs(100, "train"), sweep.Scale(photographs=20, fit_images=50))
    assert len(shown.paths) == 20 and len(fitted.paths) == 50
    assert not set(shown.paths) & set(fitted.paths)
    assert (shown.shares() < 0.33).all() and (fitted.shares() > 0.33).any()


@pytest.mark.medium
def test_a_sweep_of_tiny_models(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "load", lambda args: shelf())
    monkeypatch.setattr(sweep, "LAYERS", {name: ["conv1", "conv2"] for name in ("VGG", "ResNet")})
    monkeypatch.setattr(sweep, "QUICK", sweep.Scale(photographs=20, fit_images=30, rows=256, noises=2))
    monkeypatch.setattr(methods, "BASELINES", ["Gradient", "SmoothGrad", "PatternAttribution"])
    assert command.main(["sweep", "--quick", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "sweep-quick.json").read_text())
    assert result["photographs"] == 20 and result["fitted"] == 30 and 0 < result["chance"] < 0.33
    assert result["choice"] == sweep.choose(result["models"])
    for of in result["models"].values():
        assert set(of["mipin"]) == {sweep.key(reading) for reading in sweep.READINGS}
        scores = [value for by_layer in of["mipin"].values() for value in by_layer.values()]
        assert len(scores) == 16 and len(set(scores)) > 8 and all(0 <= value <= 1 for value in scores)
        assert len(set(of["channels"]["Gradient"].values())) > 1
    # A layer on the way has what an analyzer that ends there has.
    (subject,), reading = shelf(names=["VGG"]).subjects.values(), Reading("all", "mean", True)
    shown, fitted = sweep.split(shelf().train, sweep.QUICK)
    shown = shown.take(np.flatnonzero(np.isin(shown.labels, subject.predicted(fitted))))
    assert len(shown.paths) == result["models"]["VGG"]["photographs"] > 0
    analyzer = methods.create("MIP-IN", subject.model, "conv2", rows=256)
    analyzer.fit(fitted.stream(subject.preprocess, 64), verbose=0)
    monkeypatch.setattr(methods, "MIPIN", reading)
    maps = methods.box_accuracies(
        shown, subject.preprocess, lambda x, labels: {"": methods.saliency("MIP-IN", analyzer, x, labels)}
    )
    assert result["models"]["VGG"]["mipin"][sweep.key(reading)]["conv2"] == pytest.approx(maps[""].mean(), abs=0.01)


def test_a_gallery_of_other_models_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "load", lambda args: shelf(names=("VGG19",)))
    assert command.main(["sweep", "--quick", "--out", str(tmp_path)]) == 2
    assert "layers to try, ['VGG', 'ResNet'], received ['VGG19']" in capsys.readouterr().err
