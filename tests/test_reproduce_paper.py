"""The scripts that rebuild the paper: loaders on small files of the real layout, Table 1 on a handful of images."""

import json
import types

import keras
import numpy as np
import pytest

import mipin_keras
from reproduce_paper import __main__ as command
from reproduce_paper import data, models, report, table1


def write(folder, name, n=64, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays["x_" + split] = rng.integers(0, 256, (n, *data.SHAPES[name]), np.uint8)
        arrays["y_" + split] = rng.integers(0, 10, (n, 1) if name == "cifar10" else n, np.uint8)
    arrays |= changes
    np.savez(folder / f"{name}.npz", **{key: value for key, value in arrays.items() if value is not None})
    return arrays


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_load(tmp_path, monkeypatch, name, where):
    arrays = write(tmp_path, name)
    if where == "environment":
        monkeypatch.setenv("MIPIN_DATA_DIR", str(tmp_path))
    loaded = data.load(name, tmp_path if where == "argument" else None)
    assert loaded.x_train.dtype == np.float32 and loaded.y_test.shape == (64,)
    np.testing.assert_allclose(loaded.x_test, arrays["x_test"] / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(loaded.y_train, arrays["y_train"].reshape(-1))


def test_load_refuses(tmp_path):
    with pytest.raises(ValueError, match="expected one of .*'mnist'.*received 'fashion'"):
        data.load("fashion", tmp_path)
    with pytest.raises(FileNotFoundError, match="--data-dir"):
        data.load("mnist", tmp_path / "missing")
    write(tmp_path, "mnist", x_test=None)
    with pytest.raises(ValueError, match="expected the arrays .*x_test.* received only"):
        data.load("mnist", tmp_path)
    write(tmp_path, "mnist", x_train=np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(28, 28\).*received uint8 of shape \(32, 32, 3\)"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (models.mlp_m, {"dense1": (512,), "dense2": (512,), "dense3": (10,)}),
        (models.cnn_m, {"conv1": (24, 24, 16), "conv2": (22, 22, 64), "max1": (11, 11, 64), "flatten": (7744,)}),
        (models.cnn_c, {"conv2": (28, 28, 64), "max1": (14, 14, 64), "conv3": (12, 12, 64), "flatten": (2304,)}),
    ],
    ids=["Table 3", "Table 4", "Table 5"],
)
def test_the_models_are_the_papers(build, shapes):
    model = build()
    for name, shape in shapes.items():
        assert tuple(model.get_layer(name).output.shape[1:]) == shape
    # What the paper's tables leave to the forward pass: ReLU behind each hidden layer, a softmax, no dropout.
    x = np.random.default_rng(0).random((3, *model.input_shape[1:]), np.float32)
    ends = [layer for layer in model.layers if layer.weights]
    outputs = keras.Model(model.inputs, [layer.output for layer in ends])(x, training=False)
    for found in outputs[:-1]:
        assert np.min(found) == 0 < np.mean(found)
    np.testing.assert_allclose(np.sum(outputs[-1], axis=1), 1, rtol=1e-5)
    by_hand = x
    for layer in model.layers:
        by_hand = by_hand if isinstance(layer, keras.layers.Dropout) else layer(by_hand)
    np.testing.assert_allclose(outputs[-1], by_hand, rtol=1e-5)


class Halved:
    """An "analyzer" of images of one pixel a class: the source signal is half of the image, plus 1 at each pixel."""

    def logits(self, x):
        return x.reshape(len(x), -1)

    def source_signal(self, x):
        return x / 2 + 1


def test_table1_measures_with_and_without_the_mask_on_the_pixels():
    x = np.array([[4.0, 0.0], [8.0, -10.0], [0.0, 6.0]])
    found = table1.measure(Halved(), x)
    # Logits 4, 8 and 6; those of the source signals 3, 5 and 4, whatever the mask does to the zeros.
    assert found["unmasked"]["apc"] == found["masked"]["apc"] == pytest.approx(100 * ((1 / 4 + 3 / 8) / 2 + 1 / 3) / 2)
    assert found["unmasked"]["samples"] == 3 and "per_class" not in found["masked"]
    zero = table1.measure(Halved(), np.array([[-4.0, 0.0], [0.0, 6.0]]))  # the class's own pixel is masked
    assert zero["unmasked"]["undefined"] == zero["masked"]["undefined"] == 1


@pytest.mark.medium
def test_table1_on_a_handful_of_images(tmp_path, monkeypatch, capsys):
    labels = np.arange(200, dtype=np.uint8) % 10
    bars = np.zeros((200, 28, 28), np.uint8)  # a bar at a height of its own for each class: learned in an epoch
    for image, label in zip(bars, labels, strict=True):
        image[2 * label : 2 * label + 2] = 200 + image[:2]
    bars[:, :, 20:] = np.random.default_rng(0).integers(0, 50, (200, 28, 8), np.uint8)
    write(tmp_path, "mnist", x_train=bars, y_train=labels, x_test=bars[::-1], y_test=labels[::-1])
    scale = table1.Scale(epochs=20, train_samples=200, fit_samples=100, trained_samples=20, finetuned_samples=60,
                         finetune_epochs=2, measured=20)  # fmt: skip
    monkeypatch.setattr(table1, "QUICK", scale)
    arguments = ["table1", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--quick", "--models", "MLP-M"]
    assert command.main(arguments) == 0
    assert "QUICK" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "table1-quick.json").read_text())
    assert result["quick"] and result["seed"] == 0 and str(tmp_path) not in json.dumps(result)
    rows = result["models"]["MLP-M"]["rows"]
    assert [(row["options"]["samples"], row["options"].get("finetune_epochs"), row["fit_samples"]) for row in rows] == [
        ("all", None, 100), ("class", None, 100), ("all", 0, 60), ("class", 0, 60), ("all", 2, 60), ("class", 2, 60),
    ]  # fmt: skip
    assert rows[2]["test"] != rows[4]["test"] and len(table1.of_the_paper(result["models"]["MLP-M"])) == 2
    for row in rows:
        numbers = row["test"]["unmasked"]
        assert 0 <= numbers["positive_apc"] <= numbers["apc"] and numbers["samples"] + numbers["undefined"] == 20
    text = (tmp_path / "out" / "table1-quick.md").read_text()
    assert text.count("| mipin, fine-tuned |") == 4 and "for 2 epochs of" in text
    assert "A quick run" in text and "10.1 %" in text
    assert [path.name for path in (tmp_path / "models").iterdir() if "partial" in path.name] == []
    model, about = models.trained("MLP-M", data.load("mnist", tmp_path), tmp_path / "models", epochs=20)
    assert about == result["models"]["MLP-M"]["trained"]  # from the cache
    assert not (tmp_path / "out" / "table1-quick.unfinished.json").exists()

    # Interrupted in its fourth row: the three before are kept, and not made again.
    made = []

    def create(*args, **kwargs):
        made.append(kwargs)
        if len(made) == 4:
            raise KeyboardInterrupt
        return mipin_keras.create_analyzer(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(table1, "mipin_keras", types.SimpleNamespace(create_analyzer=create))
        with pytest.raises(KeyboardInterrupt):
            command.main(arguments)
        assert command.main([*arguments, "--seed", "1", "--resume"]) == 2  # another run's rows
        assert "leave out --resume" in capsys.readouterr().err
        assert command.main([*arguments, "--resume"]) == 0
    assert len(made) == 3 + 1 + 3
    again = json.loads((tmp_path / "out" / "table1-quick.json").read_text())
    assert "3 of its rows" in again["note"]
    again = again["models"]["MLP-M"]["rows"]
    for row in (*rows, *again):
        del row["fit_seconds"]
    assert again == rows


def test_what_is_missing_is_said(tmp_path, capsys):
    assert command.main(["table1", "--data-dir", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert "--data-dir" in capsys.readouterr().err


def test_json_has_no_nan(tmp_path):
    path = report.write_json(tmp_path / "a.json", {"apc": float("nan"), "rows": [{"x": (1.5, float("inf"))}]})
    assert json.loads(path.read_text()) == {"apc": None, "rows": [{"x": [1.5, None]}]}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_without_data_and_network_it_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://storage.example/mnist.npz: None\n -- unreachable")

    monkeypatch.delenv("MIPIN_DATA_DIR", raising=False)
    for name in data.SHAPES:
        monkeypatch.setattr(f"keras.datasets.{name}.load_data", fail)
    for experiment in ("table1", "figure3", "figure5", "appendix_b"):
        assert command.main([experiment, "--quick", "--cache-dir", str(tmp_path), "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("reproduce_paper: error: expected mnist.npz in --data-dir") and said.count("\n") == 1
        assert "cannot download it: URL fetch failure" in said and "put the file there" in said
