"""Deletion and insertion of all methods, on colours that a model tells apart; and the page, from a result by hand."""

import json

import keras
import numpy as np
import pytest

from mipin_keras.metrics import Curves
from reproduce_paper import __main__ as command
from reproduce_paper import data, deletion, deletion_page, gallery, methods, models, report

from .colours import gallery as colours
from .pages import mentions, row


def test_rightly_takes_the_first_that_are_right():
    labels = np.arange(250) % 5
    scores = np.eye(5)[np.where(np.arange(250) % 3, labels, (labels + 1) % 5)]  # every third is wrong
    asked = []

    def batches(part):
        asked.append(part)
        return scores[part]

    indices, looked = deletion.rightly(np.asarray, batches, labels, 10)
    np.testing.assert_array_equal(indices, [i for i in range(15) if i % 3])
    assert looked == 15 and len(asked) == 1
    indices, looked = deletion.rightly(np.asarray, batches, labels, 1000)
    assert looked == 250 and len(indices) == 166
    with pytest.raises(ValueError, match="received none among 250"):
        deletion.rightly(lambda x: np.eye(5)[(labels[:100][: len(x)] + 1) % 5], lambda part: labels[part], labels, 3)


def test_summary_puts_batches_together():
    shares = np.array([0.0, 0.5, 1.0])

    def batch(*rows):
        return {"deletion": {"MIP-IN": Curves(shares, np.array(rows)), "other": Curves(shares, np.array(rows) / 2)}}

    found = deletion.summary([batch([1.0, 0.5, 0.0]), batch([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])], 0)["deletion"]
    ours, other = found["rankings"]["MIP-IN"], found["rankings"]["other"]
    assert ours["area"] == 0.5 and other["area"] == 0.25 and found["shares"] == [0, 0.5, 1]
    np.testing.assert_allclose(ours["curve"], [2 / 3, 0.5, 1 / 3])
    assert ours["interval"] == (0.0, 1.0) and ours["beyond_mipin"] == (0.0, 0.0)
    assert other["beyond_mipin"] == (-0.5, 0.0)


def by_hand():
    def of(area, **changes):
        numbers = {"area": area, "interval": [area - 0.1, area + 0.1], "beyond_mipin": [-0.05, -0.01]}
        return numbers | {"curve": [1.0, area, 0.0]} | changes

    rows = {title: of(0.5 + i / 100) for i, title in enumerate(methods.METHODS)}
    rows |= {"MIP-IN": of(0.4), "Grad-CAM": of(0.3), deletion_page.RANDOM: of(0.545), methods.CENTRE: of(0.9)}
    measures = {name: {"shares": [0.0, 0.5, 1.0], "rankings": rows} for name in deletion.PHOTOGRAPHS}
    found = {
        "about": {"accuracy": 0.6, "images": 100, "looked_at": 170, "fit": {"MIP-IN": 4000}},
        "data": "Photos",
        "measures": measures,
    }
    return {"scale": {"steps": 16}, "subjects": {"VGG": found}, "pictures": ["deletion-VGG.png"]}


def test_the_page_says_who_leads():
    result = by_hand()
    text = deletion.markdown(result)
    deleted, inserted = (f"**{name}, blurred**" for name in ("deletion", "insertion"))
    assert mentions(text, deleted, "smallest", "Grad-CAM, 0.300", "MIP-IN does not lead", "0.400, place 2 of 9")
    assert mentions(text, deleted, "random ranking (0.545): Guided Backprop and PatternAttribution.")
    assert mentions(text, inserted, "largest", "PatternAttribution, 0.560", "MIP-IN does not lead")
    assert mentions(text, deleted, "[-0.050, -0.010], tells the two apart") and "](deletion-VGG.png)" in text
    assert "MIP-IN on 4,000" in text and row(text, "Grad-CAM") == ["0.300 [0.200, 0.400]"] * 4
    rows = result["subjects"]["VGG"]["measures"]["deletion, blurred"]["rankings"]
    rows["MIP-IN"]["area"], rows["Grad-CAM"]["beyond_mipin"] = 0.2, [-0.1, 0.2]
    text = deletion_page.verdict("deletion, blurred", rows)
    assert mentions(text, "MIP-IN, 0.200", "Grad-CAM, 0.300, is next", "does not tell the two apart")
    assert "does not lead" not in text and "centre prior" not in text


def digits(monkeypatch):
    """Noise for MNIST, and for its model a small one, untrained, whose classes are the labels."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 5, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    images = np.random.default_rng(0).random((60, 28, 28), np.float32)
    labels = model.predict_on_batch(images[..., None]).argmax(axis=1)
    monkeypatch.setattr(data, "load", lambda name, data_dir: data.Data(images, labels, images, labels))
    monkeypatch.setattr(models, "trained", lambda *args, **options: (model, {"accuracy": 1.0}))


@pytest.mark.medium
def test_the_curves_on_colours(tmp_path, monkeypatch):
    digits(monkeypatch)
    titles = ("Gradient", "Grad-CAM", "MIP-IN")
    monkeypatch.setattr(methods, "METHODS", {title: methods.METHODS[title] for title in titles})
    monkeypatch.setattr(gallery, "load", lambda args: colours(["VGG"]))
    monkeypatch.setattr(deletion, "QUICK", deletion.Scale(photographs=55, digits=5, fit_digits=50, steps=4))
    assert command.main(["deletion", "--out", str(tmp_path), "--quick", "--verbose", "0"]) == 0
    result = json.loads((tmp_path / "deletion-quick.json").read_text())
    assert list(result["subjects"]) == ["VGG", "CNN-M"]
    squares = result["subjects"]["VGG"]
    assert squares["about"]["images"] == 55 and list(squares["measures"]) == list(deletion.PHOTOGRAPHS)
    for found in result["subjects"].values():
        for measure in found["measures"].values():
            assert list(measure["rankings"]) == [*methods.METHODS, deletion_page.RANDOM, methods.CENTRE]
            ends = np.array([[one["curve"][0], one["curve"][-1]] for one in measure["rankings"].values()])
            np.testing.assert_allclose(ends, np.broadcast_to(ends[:1], ends.shape), rtol=1e-4)
    # The square, a quarter of the image, is all that the model sees: Grad-CAM's map is that square.
    colour = {name: one["rankings"] for name, one in squares["measures"].items()}
    for name, sign in (("deletion, mean colour", 1), ("insertion, mean colour", -1)):
        assert sign * colour[name]["Grad-CAM"]["area"] < sign * colour[name][deletion_page.RANDOM]["area"] - 0.05
    assert len(result["pictures"]) == 2 and all((tmp_path / file).is_file() for file in result["pictures"])
    assert report.made_by(result) in (tmp_path / "deletion-quick.md").read_text()
