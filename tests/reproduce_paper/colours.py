"""Photographs of coloured squares, and a model that knows them without training: what it sees is known exactly."""

import pathlib

import keras
import numpy as np

from reproduce_paper.gallery import Gallery
from reproduce_paper.photo_models import Subject
from reproduce_paper.photographs import Photographs

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]])


def photograph(path):
    """A black image with a square of the colour that its number says."""
    number = int(pathlib.Path(path).stem)
    rng = np.random.default_rng(number)
    top, left = rng.integers(0, 9, 2) // 2 * 2
    image = np.zeros((16, 16, 3), np.uint8)
    image[top : top + 8, left : left + 8] = COLOURS[number % len(COLOURS)]
    return image


def photographs(count, first=0):
    paths = [pathlib.Path(f"{number}.jpg") for number in range(first, first + count)]
    labels = np.arange(first, first + count) % len(COLOURS)
    names = ["red", "green", "blue", "yellow", "magenta"]
    return Photographs(paths, labels, [np.zeros((0, 4), int)] * count, names, (16, 16), photograph)


def model():
    """A channel for each colour, 1 where it is seen in full, 0 where by half or less; their means decide."""
    layers = keras.layers
    found = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(5, 1, activation="relu", name="colour"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    signs = COLOURS.T / 255 * 2 - 1
    found.get_layer("colour").set_weights([2 * signs[None, None], 1 - 2 * signs.clip(0).sum(axis=0)])
    found.layers[-1].set_weights([40 * np.eye(5), np.zeros(5)])
    return found


def gallery(names=("VGG", "ResNet")):
    """Photographs of squares, and two of these models."""

    def preprocess(pixels):
        return pixels.astype(np.float32) / 255

    about = {"model": "colours", "accuracy": 1.0}
    subjects = {name: Subject(name, model(), "colour", preprocess, about) for name in names}
    return Gallery("coloured squares", photographs(40), photographs(60, first=100), subjects)
