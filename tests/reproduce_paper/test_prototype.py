"""Few-shot: prototypes and episodes beside NumPy, what is trained on, the page, and a run on generated photographs."""

import json
import pathlib

import keras
import numpy as np
import pytest

from mipin_keras.information import Decomposition
from reproduce_paper import __main__ as command
from reproduce_paper import few_shot, gallery, prototype, prototype_page
from reproduce_paper.photographs import Photographs

from .pages import mentions, row

CLASSES = 13


def photographs(each, split, classes=CLASSES):
    """Dim noise with a square of the class's colour."""
    labels = np.repeat(np.arange(classes), each)
    colours = np.random.default_rng(0).integers(80, 256, (classes, 3))

    def box(i):
        return [2 * (i % 7), 3 * (i % 5), 2 * (i % 7) + 12, 3 * (i % 5) + 12]

    def read(path):
        i = int(path.stem)
        image = np.random.default_rng([i, len(split)]).integers(0, 60, (32, 32, 3), np.uint8)
        left, top, right, bottom = box(i)
        image[top:bottom, left:right] = colours[labels[i]]
        return image

    paths = [pathlib.Path(split) / f"{i}.jpeg" for i in range(len(labels))]
    boxes = [np.array([box(i)]) for i in range(len(labels))]
    return Photographs(paths, labels, boxes, [f"class {i}" for i in range(classes)], (32, 32), read)


def distances(z, prototypes):
    """Squared, each z to each prototype."""
    return ((z[:, None].astype(np.float64) - prototypes[None]) ** 2).sum(axis=-1)


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


# Prototypes


def test_the_dense_head_is_the_nearest_prototype(rng):
    model = few_shot.embedding((32, 32), (4, 4, 4, 6))
    x = rng.normal(size=(9, 32, 32, 3)).astype("float32")
    z = model.predict(x, verbose=0)
    prototypes = rng.normal(size=(5, 6)).astype("float32") + z.mean(axis=0)
    logits = few_shot.classifier(model, prototypes).predict(x, verbose=0)
    np.testing.assert_allclose(
        log_softmax(logits.astype(np.float64)), log_softmax(-distances(z, prototypes)), rtol=1e-4, atol=1e-4
    )
    assert model.get_layer(few_shot.FEATURE).output.shape == (None, 2, 2, 6)


def test_an_episodes_logits_beside_numpy(rng):
    z = rng.normal(size=(3 * (2 + 4), 5)).astype("float32")
    logits = keras.ops.convert_to_numpy(few_shot.EpisodeLogits(3, 2)(z))
    of_classes = z.reshape(3, 6, 5)
    queries = np.concatenate([of[2:] for of in of_classes])
    expected = -distances(queries, np.stack([of[:2].mean(axis=0) for of in of_classes]))
    np.testing.assert_allclose(log_softmax(logits), log_softmax(expected), rtol=1e-4, atol=1e-5)


# Episodes


def test_training_episodes_lay_each_class_out():
    given = photographs(6, "train", 4)
    made = {"ways": 3, "shots": 1, "queries": 2, "count": 2}
    drawn = few_shot.TrainingEpisodes(given, **made, seed=0)
    x, y = drawn[0]
    assert len(drawn) == 2 and x.shape == (9, 32, 32, 3) and y.tolist() == [0, 0, 1, 1, 2, 2]
    again = few_shot.TrainingEpisodes(given, **made, seed=0)
    np.testing.assert_array_equal(x, again[0][0])
    assert not np.array_equal(x, drawn[1][0])
    assert not np.array_equal(x, few_shot.TrainingEpisodes(given, **made, seed=1)[0][0])
    drawn.on_epoch_end()
    assert not np.array_equal(x, drawn[0][0])


def test_an_episode_is_of_different_classes_and_images(rng):
    labels = np.arange(40) % 4
    for _ in range(20):
        chosen = few_shot.episode(few_shot.members(labels), 3, 7, rng)
        assert (labels[chosen] == labels[chosen][:, :1]).all() and len(set(labels[chosen][:, 0])) == 3
        assert len(np.unique(chosen)) == 21


def test_accuracies_of_known_embeddings(rng):
    labels = np.arange(400) % 8
    options = {"count": 60, "seed": 0}
    apart = 10 * np.eye(8)[labels] + rng.normal(size=(400, 8))
    assert (few_shot.accuracies(apart, labels, shots=1, **options) == 1).all()
    chance = few_shot.accuracies(rng.normal(size=(400, 8)), labels, shots=5, **options)
    assert chance.shape == (60,) and abs(chance.mean() - 0.2) < 0.03
    # One bit: the k classes of a half are right in 1 of k, so that two halves give 2 of 5.
    near = np.where(labels < 4, 0.0, 10.0)[:, None] + rng.normal(size=(400, 1)) * 1e-3
    one, five = (few_shot.accuracies(near, labels, shots=shots, **options).mean() for shots in (1, 5))
    assert abs(one - 0.4) < 0.03 and abs(five - 0.4) < 0.03


def test_accuracies_beside_distances(rng):
    z, labels = rng.normal(size=(120, 3)), np.arange(120) % 6
    z += labels[:, None] * 0.3
    found = few_shot.accuracies(z, labels, shots=2, count=5, seed=3, ways=4, queries=7)
    draws, expected = np.random.default_rng(3), []
    for _ in range(5):
        of = z[few_shot.episode(few_shot.members(labels), 4, 9, draws)]
        nearest = distances(of[:, 2:].reshape(-1, 3), of[:, :2].mean(axis=1)).argmin(axis=1)
        expected.append((nearest == np.repeat(np.arange(4), 7)).mean())
    np.testing.assert_allclose(found, expected)
    assert 0.25 < np.mean(expected) < 1


def test_two_in_five_classes_are_held_out():
    assert few_shot.held_out(20).sum() == 8 and few_shot.held_out(200).sum() == 80
    assert np.flatnonzero(few_shot.held_out(10)).tolist() == [2, 4, 7, 9]


@pytest.mark.medium
def test_the_embedding_learns_and_is_cached(tmp_path):
    given = photographs(12, "train", 6)
    how = {"episodes": 8, "epochs": 2, "verbose": 0}
    subject = few_shot.trained(given, tmp_path, **how)
    assert subject.about["ways"] == 6 and subject.about["episodes"] == 16 and subject.about["train_samples"] == 72
    assert subject.about["accuracy"] > 0.6  # of 6 classes told by a colour
    again = few_shot.trained(given, tmp_path, **how)
    assert again.about == subject.about
    np.testing.assert_array_equal(again.outputs(given.pixels()), subject.outputs(given.pixels()))


# What is measured, and the page


def test_what_is_measured_of_the_maps():
    total = np.array([[[4.0, 1.0], [1.0, 2.5]], [[0.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]], "float32")
    decision = np.array([[[4.5, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 0.0]]], "float32")
    mask = np.full((3, 2, 2), 0.5, "float32")
    boxes = np.zeros((3, 2, 2), bool)
    boxes[:, 0, 0], boxes[2] = True, True
    assert prototype.partly(boxes).tolist() == [True, True, False]
    maps = prototype.measured(Decomposition(total, decision, total - decision, mask), boxes)
    assert maps["total"]["sum"] == pytest.approx((8.5 + 2 + 1) / 3)
    assert maps["decision"]["sum"] == pytest.approx((4.5 + 0 + 1) / 3)
    assert maps["redundant"]["sum"] == pytest.approx((4 + 2 + 0) / 3) and maps["mask"]["sum"] == pytest.approx(0.5)
    low, high = maps["total"]["interval"]
    assert 1 <= low < maps["total"]["sum"] < high <= 8.5
    assert maps["total"]["area"] == pytest.approx(4 / 12) and maps["decision"]["area"] == pytest.approx(3 / 12)
    # Of the two photographs that are partly covered.
    assert maps["decision"]["box"] == pytest.approx((1 + 0) / 2) and maps["mask"]["box"] == pytest.approx(0.25)


@pytest.fixture
def result():
    def of(mean, **more):
        return {"sum": mean, "interval": [mean - 0.1, mean + 0.1], "box": 0.4, "area": 0.3} | more

    def shots(one, five):
        return {"1": {"accuracy": one, "half": 0.008}, "5": {"accuracy": five, "half": 0.006}}

    def weighed(decision, coverage, above):
        maps = {"total": of(9.0), "decision": of(decision, area=0.1), "redundant": of(9 - decision)}
        maps |= {"mask": of(coverage)}
        return {"maps": maps, "above": above, "masked_accuracy": 0.652, "agreement": 0.93}

    return {
        "classes": {"trained": ["goldfish", "bee"], "held_out": ["koala", "monarch"]},
        "model": {
            "train_samples": 6000, "classes": 12, "episodes": 600, "ways": 10, "shots": 5, "queries": 5, "seconds": 540,
        },
        "episodes": {"trained": shots(0.45, 0.63), "untrained": shots(0.28, 0.35), "count": 600},
        "decomposition": {
            "weights": {"0.5": weighed(3.0, 0.25, 0.125), "1": weighed(2.0, 0.15, 0.05)}, "chance": 0.5, "boxed": 239,
            "layer": "block4_pool", "feature_map": [4, 4], "size": 128, "classes": ["koala"], "support": 5,
            "fit": 2475, "queries": 250, "limit": 6.2, "fitted": {"total": 0.5, "decision": 0.2}, "accuracy": 0.66,
        },
        "pictures": ["prototype.png"],
    }  # fmt: skip


def test_the_page_says_what_was_found(result):
    page = prototype.markdown(result)
    assert row(page, "trained") == ["45.0 ± 0.8 %", "63.0 ± 0.6 %"] and row(page, "chance") == ["20.0 %"] * 2
    assert row(page, "decision-related") == ["3.0 nats [2.9, 3.1]", "0.10", "0.40"]
    assert row(page, "flat")[-1] == "0.50"
    assert row(page, "mask λ")[0] == "0.250 [0.150, 0.350]" and "](prototype.png)" in page
    assert row(page, "0.5") == ["0.250", "9.0", "3.0", "6.0", "65.2 %", "93.0 %", "12.5 %"]
    assert row(page, "1")[:4] == ["0.150", "9.0", "2.0", "7.0"]
    assert mentions(page, "goldfish and bee") and mentions(page, "koala and monarch") and "no numbers" in page
    assert mentions(page, "the total is the larger", "9.0", "3.0", "33 %") and mentions(
        page, "Here it is so", "0.10 and 0.30"
    )
    assert mentions(page, "covers 0.25", "65.2 %", "66.0 %")
    assert mentions(page, "weights, 0.5 and 1 of 0.5 and 1")
    result["decomposition"]["weights"]["1"]["masked_accuracy"] = 0.63
    result["decomposition"]["weights"]["0.5"]["maps"]["decision"] |= {"sum": 9.5, "area": 0.4}
    page = prototype.markdown(result)
    assert mentions(page, "the total is not the larger") and mentions(page, "Here it is not so")
    assert mentions(page, "weights, 0.5 of 0.5 and 1")


def test_in_short(result):
    accuracy, information = prototype.in_short(result)
    assert "1-shot 45.0 ± 0.8 %" in accuracy and "5-shot 63.0" in accuracy
    assert "9.0 nats" in information and "left with 3.0" in information and "65.2 %" in information


def test_the_picture_has_the_photographs_in_a_row(rng):
    maps = [rng.normal(size=(3, 2, 2)).astype("float32") for _ in range(3)]
    found = Decomposition(*maps, rng.random((3, 2, 2)).astype("float32"))
    pixels = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    figure = prototype_page.picture(pixels, found, ["a", "b", "c"])
    axes = np.array(figure.axes).reshape(5, 3)
    assert [ax.get_title() for ax in axes[0]] == ["a", "b", "c"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["photograph", "total", "decision-related", "redundant", "mask λ"]
    assert axes[1, 1].get_xlabel() == f"{maps[0][1].sum():.1f} nats"
    # One scale for the three: only the strongest of them is opaque.
    opaque = [axes[line, 2].images[1].get_array()[..., 3].max() for line in (1, 2, 3)]
    top = [np.abs(of[2]).max() for of in maps]
    np.testing.assert_allclose(opaque, 0.9 * np.array(top) / max(top), rtol=1e-5)


# A run


def run(folder, *options):
    return command.main(["prototype", "--quick", "--out", str(folder), "--cache-dir", str(folder), *options])


@pytest.mark.medium
def test_a_run_on_generated_photographs(tmp_path, monkeypatch):
    train, test = photographs(30, "train"), photographs(10, "val")
    monkeypatch.setattr(gallery, "tiny_imagenet_of", lambda args: (train, test))
    scale = prototype.Scale(train=80, episodes=3, epochs=2, held=1000, measured=20, fit_epochs=2)
    monkeypatch.setattr(prototype, "QUICK", scale)
    trained, seen = few_shot.trained, []
    monkeypatch.setattr(
        few_shot, "trained", lambda given, *of, **how: (seen.append(given.labels), trained(given, *of, **how))[1]
    )
    assert run(tmp_path) == 0
    result = json.loads((tmp_path / "prototype-quick.json").read_text())
    held = [2, 4, 7, 9, 12]
    assert result["classes"]["held_out"] == [f"class {i}" for i in held] == result["decomposition"]["classes"]
    assert not set(seen[0].tolist()) & set(held) and len(seen[0]) == 80  # none is trained on
    for of in (result["episodes"]["trained"], result["episodes"]["untrained"]):
        assert 0.2 < of["1"]["accuracy"] <= 1 and 0.2 < of["5"]["accuracy"] <= 1
    of = result["decomposition"]
    assert of["fit"] == 5 * 30 - 25 and of["queries"] == 50 and of["feature_map"] == [2, 2] and of["size"] == 128
    assert list(of["weights"]) == ["0.5", "1", "2"]
    for found in of["weights"].values():
        maps = found["maps"]
        assert maps["redundant"]["sum"] == pytest.approx(maps["total"]["sum"] - maps["decision"]["sum"], abs=1e-4)
        assert 0 < maps["mask"]["sum"] < 1 and 0 <= found["masked_accuracy"] <= 1
    assert maps["mask"]["sum"] < of["weights"]["0.5"]["maps"]["mask"]["sum"]
    assert (tmp_path / "prototype-quick.png").stat().st_size > 20_000
    assert "QUICK" in (tmp_path / "prototype-quick.md").read_text().upper()


def test_too_few_classes_are_refused(tmp_path, monkeypatch, capsys):
    few = [photographs(2, split, 12) for split in ("train", "val")]
    monkeypatch.setattr(gallery, "tiny_imagenet_of", lambda args: few)
    assert run(tmp_path) == 2
    assert "expected Tiny ImageNet with 5 held-out classes" in capsys.readouterr().err
