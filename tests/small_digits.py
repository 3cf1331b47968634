"""A model that tells ten bars apart, in the place of the paper's, for the experiments on MNIST and CIFAR-10."""

import argparse
import json

import keras
import numpy as np

from reproduce_paper import digits


def trained(name="MLP-M", channels=0):
    """Images of a bright row for each of ten classes, a constant frame around them, and a model that reads them."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 10
    images = np.zeros((100, 12, 12), np.float32)
    images[:, 1:11, 1:11] = rng.random((100, 10, 10)) * (rng.random((100, 10, 10)) < 0.1)
    images[np.arange(100), 1 + labels, 1:11] = rng.uniform(0.8, 1, (100, 10))
    if channels:
        images = np.repeat(images[..., None], channels, axis=-1)
    dense = keras.layers.Dense
    hidden = [keras.Input(images.shape[1:]), keras.layers.Flatten(), dense(64, "relu"), dense(48, "relu")]
    features = keras.Sequential(hidden)(images).numpy()
    targets = np.eye(10, dtype=np.float32)[labels] * 9 - 1
    bias = targets.mean(axis=0)
    weights = np.linalg.lstsq(features, targets - bias, rcond=None)[0]
    model = keras.Sequential([*hidden, dense(10, name="logits")])
    model.get_layer("logits").set_weights([weights, bias])
    about = {"model": name, "epochs": 1, "train_samples": 100, "batch_size": 32, "seed": 0, "accuracy": 1.0}
    predicted = model(images).numpy().argmax(axis=1)
    names = tuple("0123456789")
    return digits.Trained(name, model, about, names, images, images, labels, predicted)


def arguments(folder, **more):
    """What the command would pass."""
    return argparse.Namespace(
        data_dir=None, cache_dir=None, out=folder, seed=0, quick=True, verbose=0, command_line="test", **more
    )


def result(folder, name):
    """The JSON of a quick run; its picture and page must be there too."""
    found = json.loads((folder / f"{name}-quick.json").read_text())
    page = (folder / f"{name}-quick.md").read_text()
    for picture in found["pictures"]:
        assert (folder / picture).stat().st_size > 1000 and f"]({picture})" in page
    return found, page
