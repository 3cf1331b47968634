"""A gallery of a few generated photographs and two tiny models, for the tests of experiments on photographs."""

import pathlib

import keras
import numpy as np

from reproduce_paper.gallery import Gallery
from reproduce_paper.photo_models import Subject, standardized
from reproduce_paper.photographs import Photographs

SIZE = (16, 16)


def photographs(n, split, classes=3):
    """Noise with a bright square in the box, in the channel of the class; every fifth box is too large to count."""
    labels = np.arange(n) % classes

    def box(i):
        left, top = 1 + i % 6, 2 + i % 5
        return [0, 0, 16, 12] if i % 5 == 4 else [left, top, left + 6, top + 5]

    def read(path):
        i = int(path.stem)
        image = np.random.default_rng([i, len(split)]).integers(0, 60, (*SIZE, 3), np.uint8)
        left, top, right, bottom = box(i)
        image[top:bottom, left:right, labels[i]] += 180
        return image

    paths = [pathlib.Path(split) / f"{i}.jpeg" for i in range(n)]
    boxes = [np.array([box(i)]) for i in range(n)]
    return Photographs(paths, labels, boxes, ["red", "green", "blue"][:classes], SIZE, read)


def model(seed=0, classes=3):
    """Two convolutions and a Dense layer, untrained."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(classes, activation="softmax", name="predictions"),
        ]
    )


def shelf(train=60, test=24, names=("VGG", "ResNet")):
    """The gallery."""
    about = {"accuracy": 0.5, "epochs": 1, "train_samples": train}
    subjects = {name: Subject(name, model(i), "conv2", standardized, about) for i, name in enumerate(names)}
    return Gallery("squares, 3 classes", photographs(train, "train"), photographs(test, "test"), subjects)
