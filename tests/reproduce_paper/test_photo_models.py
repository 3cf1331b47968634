"""The models of photographs: how the small ones are trained and cached, and how those of ImageNet are loaded."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from reproduce_paper import photo_models
from reproduce_paper.photographs import Photographs


def photographs(n=8, size=16, classes=2):
    """Photographs that are drawn, not read: grey ones, darker or brighter by their class."""
    labels = np.arange(n) % classes

    def read(i):
        noise = np.random.default_rng(i).integers(0, 40, (size, size, 3))
        return (200 // classes * labels[i] + noise).astype(np.uint8)

    boxes = [np.array([[0, 0, 4, 4]])] * n
    return Photographs(list(range(n)), labels, boxes, [f"class {i}" for i in range(classes)], (size, size), read)


def test_standardized_is_what_keras_calls_torch():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(photo_models.standardized(pixels), expected, atol=1e-5)
    assert photo_models.standardized(pixels).dtype == np.float32


@pytest.mark.parametrize("module", ["vgg19", "resnet50"])
def test_centred_is_what_keras_applications_does(module):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    given = pixels.copy()
    expected = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    np.testing.assert_array_equal(photo_models.centred(pixels), expected)
    np.testing.assert_array_equal(pixels, given)


@pytest.mark.parametrize("name", photo_models.RECIPES)
def test_the_small_models(name):
    recipe = photo_models.RECIPES[name]
    model = recipe.build((64, 64), 20)
    assert model.output_shape == (None, 20) and tuple(model.get_layer(recipe.layer).output.shape[1:3]) == (8, 8)
    assert model.layers[-1].activation is keras.activations.softmax
    assert {"VGG": 1.9e6, "ResNet": 0.6e6}[name] < model.count_params() < {"VGG": 2.1e6, "ResNet": 0.8e6}[name]


def test_augmentation_is_seeded_and_keeps_size_and_range():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 24, 3), np.uint8)
    once, again, other = (photo_models.augmented(tf.constant(images), [1, seed]).numpy() for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert once.shape == images.shape and once.dtype == np.float32 and once.min() >= 0 and once.max() <= 255
    for i in range(6):
        assert not np.allclose(once[i], other[i]) and not np.allclose(once[i], images[i])


def test_half_of_the_augmented_are_mirrored_and_none_is_stretched_far():
    n, size = 400, 32
    rows, columns = np.mgrid[:size, :size] / (size - 1)
    image = np.stack([100 * columns, 100 * rows, np.full((size, size), 100)], axis=-1)
    cut = photo_models.augmented(tf.constant(np.repeat(image[None], n, axis=0), tf.float32), [3, 4]).numpy()
    bright = cut[..., 2].mean(axis=(1, 2)) / 100
    assert 0.8 <= bright.min() < 0.85 and 1.15 < bright.max() <= 1.2
    # How far the gradients run from edge to edge is how much of the image was kept.
    wide = (cut[:, :, -1, 0] - cut[:, :, 0, 0]).mean(axis=1) / 100 / bright
    tall = (cut[:, -1, :, 1] - cut[:, 0, :, 1]).mean(axis=1) / 100 / bright
    assert 0.42 < (wide < 0).mean() < 0.58 and (tall > 0).all()
    area, ratio = np.abs(wide) * tall, tall / np.abs(wide)
    assert 0.4 - 0.01 <= area.min() < 0.45 and 0.9 < area.max() <= 1.001
    assert 3 / 4 - 0.01 <= ratio.min() and ratio.max() <= 4 / 3 + 0.01


@pytest.fixture
def small(monkeypatch):
    """A model that is built and trained in no time in place of the ResNet."""

    def build(size, classes):
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((*size, 3)),
                layers.Conv2D(4, 3, activation="relu", name="stage3_block2_out"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(classes, activation="softmax"),
            ]
        )

    monkeypatch.setitem(photo_models.RECIPES, "ResNet", photo_models.RECIPES["ResNet"]._replace(build=build))


def test_training_is_cached(tmp_path, capsys, small):
    data = photographs()
    subject = photo_models.trained("ResNet", data, data, tmp_path, epochs=1, seed=3, verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resnet-c2-e1-n8-s3.json", "resnet-c2-e1-n8-s3.keras"]
    assert subject.name == "ResNet" and subject.layer == "stage3_block2_out"
    about = subject.about
    assert (about["epochs"], about["train_samples"], about["seed"]) == (1, 8, 3) and 0 <= about["accuracy"] <= 1
    assert json.loads((tmp_path / "resnet-c2-e1-n8-s3.json").read_text()) == about
    x = subject.preprocess(data.pixels())
    again = photo_models.trained("ResNet", data, data, tmp_path, epochs=1, seed=3, verbose=2)
    assert again.about == about and "Epoch" not in capsys.readouterr().out
    np.testing.assert_allclose(again.model.predict_on_batch(x), subject.model.predict_on_batch(x), rtol=1e-5)


def test_training_on_fewer_photographs_takes_them_evenly(tmp_path, monkeypatch, small):
    seen = []
    monkeypatch.setattr(photo_models, "_batches", lambda train, *rest: seen.append(train.paths) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        photo_models.trained("ResNet", photographs(), photographs(), tmp_path, epochs=1, train_samples=3)
    assert seen == [[0, 4, 7]]


def test_an_interrupted_training_leaves_nothing(tmp_path, monkeypatch, small):
    def interrupted(model, path):
        open(path, "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", lambda *args, **options: None)
    monkeypatch.setattr(keras.Model, "evaluate", lambda *args, **options: (0.0, 0.0))
    monkeypatch.setattr(keras.Model, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        photo_models.trained("ResNet", photographs(), photographs(), tmp_path, epochs=1, verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_training_refuses_no_photographs(tmp_path):
    some, none = photographs(), photographs().take([])
    for train, test in ((none, some), (some, none)):
        with pytest.raises(ValueError, match="photographs to train and to test on, received"):
            photo_models.trained("VGG", train, test, tmp_path)
    assert list(tmp_path.iterdir()) == []


def built(units=1000):
    """A model in place of one of ImageNet's, which takes hundreds of MB."""

    def build(weights):
        assert weights is None
        layers = [keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(units, "softmax")]
        return keras.Sequential(layers)

    return build


def test_application_loads_a_file(tmp_path, monkeypatch):
    data = photographs(classes=1000)
    monkeypatch.setitem(photo_models.APPLICATIONS, "VGG19", (built(), "layer"))
    random = photo_models.application("VGG19", "random", data, seed=5)
    other = photo_models.application("VGG19", "random", data, seed=6)
    x = random.preprocess(data.pixels())
    assert random.about["weights"] == "random" and random.about["accuracy_samples"] == 8
    assert random.about["accuracy"] == (random.model.predict_on_batch(x).argmax(1) == data.labels).mean()
    assert not np.allclose(random.model.predict_on_batch(x), other.model.predict_on_batch(x))
    random.model.save_weights(tmp_path / "mine.weights.h5")
    random.model.save(tmp_path / "mine.keras")
    for file in ("mine.weights.h5", "mine.keras"):
        subject = photo_models.application("VGG19", str(tmp_path / file), data, seed=6)
        assert subject.about["weights"] == file and subject.layer == "layer"
        np.testing.assert_allclose(subject.model.predict_on_batch(x), random.model.predict_on_batch(x), rtol=1e-5)


def test_application_says_what_is_wrong(tmp_path, monkeypatch):
    data = photographs(classes=1000)
    with pytest.raises(ValueError, match="the 1000 classes of ResNet50, received .* of 2; .*synset_words.txt"):
        photo_models.application("ResNet50", "random", photographs())

    def offline(weights):
        raise Exception("URL fetch failure on https://...")

    monkeypatch.setitem(photo_models.APPLICATIONS, "ResNet50", (offline, "layer"))
    with pytest.raises(FileNotFoundError, match="weights of ResNet50, .*URL fetch failure.*--weights ResNet50=FILE"):
        photo_models.application("ResNet50", "imagenet", data)
    monkeypatch.setitem(photo_models.APPLICATIONS, "ResNet50", (built(), "layer"))
    with pytest.raises(FileNotFoundError, match="weights of ResNet50, received .*none.weights.h5, where there is none"):
        photo_models.application("ResNet50", str(tmp_path / "none.weights.h5"), data)
    built(10)(None).save_weights(tmp_path / "ten.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "weights.txt").write_text("no weights")
    for file in ("ten.weights.h5", "text.weights.h5", "text.keras", "weights.txt"):
        with pytest.raises(ValueError, match=f"weights of ResNet50 with its 1000 classes in .*{file}"):
            photo_models.application("ResNet50", str(tmp_path / file), data)
