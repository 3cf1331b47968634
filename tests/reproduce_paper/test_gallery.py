"""The galleries: photographs and models as the arguments choose them, and ILSVRC2012 with both models of ImageNet."""

import argparse

import keras
import numpy as np
import pytest

from reproduce_paper import data, gallery, methods, photo_models, report
from tests.reproduce_paper.test_ilsvrc import write, write_words
from tests.reproduce_paper.test_photographs import folder as tiny_folder  # noqa: F401

SIZES = [(256, 320), (300, 240), (480, 360), (375, 500), (224, 224), (500, 333), (240, 400), (256, 256)]


def arguments(*given, data_dir=None, cache_dir=None, quick=True):
    parser = argparse.ArgumentParser()
    gallery.add_arguments(parser)
    options = {"data_dir": data_dir, "cache_dir": cache_dir, "quick": quick, "seed": 0, "verbose": 0}
    return argparse.Namespace(**vars(parser.parse_args(given)), **options)


@pytest.fixture
def ilsvrc_folder(tmp_path):
    """Eight photographs of four of 1000 classes, and their XML files."""
    root = tmp_path / "ilsvrc2012"
    wnids = [f"n{i:08d}" for i in range(1000)]
    for i, (height, width) in enumerate(SIZES, 1):
        box = (width // 3, height // 3, 2 * width // 3, height // 2)
        write(root, i, wnids[250 * (i % 4) + 3], height, width, [box], images="val", xml="bbox")
    write_words(root, {wnid: f"thing {wnid}, object" for wnid in wnids})
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{900 - i % 4}\n" for i in range(1, 9)))
    return tmp_path


def test_tiny_imagenet(tiny_folder, tmp_path, monkeypatch):  # noqa: F811
    calls = []

    def trained(name, train, test, cache_dir, **options):
        calls.append((name, len(train.paths), len(test.paths), cache_dir, options))
        return name

    monkeypatch.setattr(photo_models, "trained", trained)
    base = tmp_path / "data"
    base.mkdir()
    (base / "tiny-imagenet-20").symlink_to(tiny_folder, target_is_directory=True)
    full = gallery.load(arguments(data_dir=base, cache_dir="cache", quick=False))
    assert full.title == "Tiny ImageNet, 2 classes" and full.subjects == {"VGG": "VGG", "ResNet": "ResNet"}
    assert calls[0] == ("VGG", 4, 2, "cache", {"seed": 0, "verbose": 0})
    monkeypatch.setenv("MIPIN_DATA_DIR", str(base))
    quick = gallery.load(arguments("--subjects", "ResNet", cache_dir="cache"))
    assert list(quick.subjects) == ["ResNet"] and calls[-1][-1] == {"seed": 0, "verbose": 0} | gallery.QUICK


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((), FileNotFoundError, "tiny-imagenet-200 or tiny-imagenet-20 in --data-dir .*tiny-imagenet-200.zip"),
        (("--photographs", "ilsvrc"), FileNotFoundError, "folder ilsvrc2012 .*ILSVRC2012_bbox_val_v3.tgz"),
        (("--subjects", "VGG19"), ValueError, "--subjects of VGG, ResNet for tiny-imagenet, received 'VGG19'"),
        (("--weights", "VGG=a.h5"), ValueError, "expected --weights with .* ilsvrc alone, received .'VGG=a.h5'.*leave"),
        (("--photographs", "ilsvrc", "--weights", "a.h5"), ValueError, "VGG19=FILE ResNet50=FILE, .*received 'a.h5'"),
        (("--photographs", "ilsvrc", "--subjects", "VGG"), ValueError, "VGG19, ResNet50 for ilsvrc, received 'VGG'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, monkeypatch, given, error, message):
    monkeypatch.delenv("MIPIN_DATA_DIR", raising=False)
    with pytest.raises(error, match=message):
        gallery.load(arguments(*given, data_dir=tmp_path))


def test_find(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "b").mkdir(parents=True)
    first.mkdir()
    monkeypatch.setenv("MIPIN_DATA_DIR", str(second))
    assert data.find(first, "a", "b") == data.find(None, "b") == second / "b"
    (first / "b").write_text("")
    assert data.find(first, "a", "b") == first / "b"
    assert data.find(first, "c") is None
    with pytest.raises(FileNotFoundError, match="--data-dir to be a folder"):
        data.find(tmp_path / "third", "b")


def test_a_file_of_weights_is_recorded_without_its_folder():
    line = report.command_line("program", ["table2", "--data-dir", "/home/me", "--weights", "VGG19=/home/me/a.h5"])
    assert line == "program table2 --data-dir DIR --weights VGG19=DIR/a.h5"


def small(weights):
    """In the place of ResNet50: a thousand classes and a feature map of 7x7."""
    layers = keras.layers
    stack = [layers.AveragePooling2D(32), layers.Conv2D(4, 1, activation="relu", name="conv5_block3_out")]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(1000, activation="softmax")]
    return keras.Sequential([keras.Input((224, 224, 3)), *stack])


def test_ilsvrc_on_a_small_model(ilsvrc_folder, monkeypatch):
    monkeypatch.setitem(photo_models.APPLICATIONS, "ResNet50", (small, "conv5_block3_out"))
    saved, file = small(None), ilsvrc_folder / "small.weights.h5"
    conv, dense = saved.get_layer("conv5_block3_out"), saved.layers[-1]
    kernel = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    conv.set_weights([np.eye(3, 4, dtype=np.float32)[None, None] / 100, np.full(4, 2, np.float32)])
    dense.set_weights([kernel, np.zeros(1000, np.float32)])
    saved.save_weights(file)
    options = ("--photographs", "ilsvrc", "--subjects", "ResNet50", "--weights", f"ResNet50={file}")
    found = gallery.load(arguments(*options, data_dir=ilsvrc_folder))
    assert found.train is found.test and found.test.labels.tolist() == [253, 503, 753, 3] * 2
    assert "8 validation photographs" in found.title
    subject, x = found.subjects["ResNet50"], photo_models.centred(found.test.pixels())
    np.testing.assert_allclose(subject.outputs(found.test.pixels()), saved.predict_on_batch(x), rtol=1e-5)
    assert subject.about["weights"] == "small.weights.h5" and subject.about["accuracy_samples"] == 8

    analyzer = methods.create("Grad-CAM", subject.model, subject.layer)
    cam = methods.saliency("Grad-CAM", analyzer, x, 253)
    features = np.maximum(x.reshape(8, 7, 32, 7, 32, 3).mean(axis=(2, 4)) / 100 + 2, 0)
    weighed = features @ kernel[:3, 253] + 2 * kernel[3, 253]
    expected = np.maximum(weighed, 0)
    corners = cam[:, ::223, ::223] / np.abs(cam).max()
    np.testing.assert_allclose(corners, expected[:, ::6, ::6] / expected.max(), atol=1e-3)
    mipin = methods.create("MIP-IN", subject.model, subject.layer, classes=253)
    mipin.fit(found.train.stream(subject.preprocess, 4))
    maps = methods.saliency("MIP-IN", mipin, x, 253)
    features = np.append(features, np.full((8, 7, 7, 1), 2, np.float32), axis=-1)
    expected = methods.mipin_map(mipin.analyze(x, 253), features, methods.MIPIN, (224, 224))
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-7)
    assert (maps.std(axis=(1, 2)) > 0).all()


@pytest.mark.medium
@pytest.mark.parametrize("name", photo_models.APPLICATIONS)
def test_the_models_of_imagenet(ilsvrc_folder, name):
    options = ("--photographs", "ilsvrc", "--subjects", name, "--weights", f"{name}=random")
    found = gallery.load(arguments(*options, data_dir=ilsvrc_folder))
    subject = found.subjects[name]
    assert subject.about["weights"] == "random" and subject.model.output_shape == (None, 1000)
    assert subject.model.get_layer(subject.layer).output.shape[1:3] == (7, 7)

    two = found.test.take([0, 4])  # of one class
    x = subject.preprocess(two.pixels())
    for method in ("Gradient", "Grad-CAM", "MIP-IN"):
        options = {"classes": 253} if method == "MIP-IN" else {}
        analyzer = methods.create(method, subject.model, subject.layer, **options)
        analyzer.fit(found.train.stream(subject.preprocess, 4))
        maps = methods.saliency(method, analyzer, x, 253)
        assert maps.shape == (2, 224, 224) and maps.dtype == np.float32
        assert np.isfinite(maps).all() and maps.std() > 0
