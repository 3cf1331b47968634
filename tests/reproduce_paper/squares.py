"""Photographs of a coloured square with its box, and a model that knows the colours without training."""

import argparse
import pathlib

import keras
import numpy as np

from reproduce_paper.gallery import Gallery
from reproduce_paper.photo_models import Subject
from reproduce_paper.photographs import Photographs

NAMES = ["red dog", "green cat", "blue bottle"]
#: What a result made by hand says of photographs, model and fit: as `explained.about` does.
ABOUT = {
    "photographs": "Tiny ImageNet",
    "model": {"model": "VGG", "accuracy": 0.7},
    "layer": "block4_conv3",
    "reading": "samples `all`",
    "fit": {"MIP-IN": 4000, "PatternAttribution": 1500},
}


def square(number):
    """Where the square of a photograph is: left, top, right, bottom."""
    left, top = 2 * np.random.default_rng(number).integers(0, 5, 2)
    return [left, top, left + 8, top + 8]


def photograph(path):
    """Dim noise, with a square of the class's colour."""
    number = int(pathlib.Path(path).stem)
    image = np.random.default_rng(number).integers(0, 20, (16, 16, 3), np.uint8)
    left, top, right, bottom = square(number)
    image[top:bottom, left:right, number % 3] = 250
    return image


def photographs(count, first=0):
    numbers = range(first, first + count)
    paths = [pathlib.Path(f"{number}.jpg") for number in numbers]
    boxes = [np.array([square(number)]) for number in numbers]
    return Photographs(paths, np.array(numbers) % 3, boxes, NAMES, (16, 16), photograph)


def model(order=(0, 1, 2)):
    """Each class's output grows with the mean of a colour; another ``order`` of them is wrong."""
    layers = keras.layers
    found = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(3, 1, activation="relu", name="colour"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found.get_layer("colour").set_weights([np.eye(3)[None, None], np.full(3, -0.1)])
    found.layers[-1].set_weights([20 * np.eye(3)[:, list(order)] - 5, np.zeros(3)])
    return found


def preprocess(pixels):
    return pixels.astype(np.float32) / 255


def subject(name="VGG", order=(0, 1, 2)):
    return Subject(name, model(order), "colour", preprocess, {"model": name, "accuracy": 1.0})


def gallery(args=None):
    subjects = {name: subject(name) for name in ("VGG", "ResNet")}
    return Gallery("coloured squares", photographs(60), photographs(60, first=300), subjects)


def arguments(out, **more):
    """What the command hands to ``run``."""
    given = {"out": out, "quick": True, "seed": 0, "verbose": 0, "command_line": "squares", "classes": None}
    return argparse.Namespace(**(given | more))
