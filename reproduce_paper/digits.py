"""What the experiments on MNIST and CIFAR-10 share: a trained model with its images, and methods fitted to it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np

import mipin_keras

from . import data, methods, models

NAMES = {
    "mnist": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


class Trained(NamedTuple):
    """A model with the images that it was trained and is explained on.

    Attributes:
        name: ``"MLP-M"``, ``"CNN-M"`` or ``"CNN-C"``.
        model: The trained model; its last layer is a softmax.
        about: How the model was trained, and its test accuracy.
        names: The names of the classes.
        train: Training images as the model takes them, float32 in [0, 1].
        test: Test images, likewise.
        labels: Those of the test images, ``(n,)``.
        predicted: The classes that the model takes the test images for, ``(n,)``.
    """

    name: str
    model: keras.Model
    about: dict[str, Any]
    names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray

    def right(self, label: int | None = None) -> np.ndarray:
        """The indices of the test images that the model classifies rightly, of all classes or of one, in order."""
        chosen = self.predicted == self.labels
        return np.flatnonzero(chosen if label is None else chosen & (self.labels == label))

    def first(self, classes: Iterable[int]) -> np.ndarray:
        """The index of the first rightly classified test image of each class.

        Raises:
            ValueError: If the model classifies no image of a class rightly.
        """
        found = [self.right(label) for label in classes]
        if not all(map(len, found)):
            raise ValueError(
                f"expected {self.name} to be right on a test image of each class, received a class where it is right "
                "on none; train it longer"
            )
        return np.array([indices[0] for indices in found])


def load(name: str, args: argparse.Namespace) -> Trained:
    """Load one of the paper's models from the cache, or train it, with its data; ``args.quick`` trains it less."""
    recipe = models.RECIPES[name]
    images = data.load(recipe.data, args.data_dir)
    less = models.QUICK if args.quick else {}
    model, about = models.trained(name, images, args.cache_dir, seed=args.seed, verbose=args.verbose, **less)
    train, test = models.shape_for(model, images.x_train), models.shape_for(model, images.x_test)
    predicted = model.predict(test, batch_size=256, verbose=0).argmax(axis=1)
    return Trained(name, model, about, NAMES[recipe.data], train, test, images.y_test, predicted)


def fitted(
    title: str, trained: Trained, count: int, args: argparse.Namespace, log: Callable[[str], None], **options: Any
) -> mipin_keras.Analyzer:
    """A method's analyzer, fitted on the first ``count`` training images if it learns.

    Args:
        title: One of ``methods.METHODS``.
        trained: The model that it explains, and its images.
        count: The number of training images.
        args: The command's arguments: ``seed`` and ``verbose`` are read.
        log: Receives a line when the method is fitted.
        **options: More of the analyzer's options.
    """
    analyzer = methods.create(title, trained.model, seed=args.seed, verbose=args.verbose, **options)
    if title in methods.LEARNED:
        log(f"{trained.name}: {title} is fitted on {min(count, len(trained.train)):,} images")
        analyzer.fit(trained.train[:count], batch_size=256)
    return analyzer


def trained_on(about: dict[str, Any]) -> str:
    """A model's training, in words for a page."""
    return f"{100 * about['accuracy']:.1f} % right on test images, {about['epochs']} epochs on " + (
        f"{about['train_samples']:,} training images"
    )
