"""The paper's models on MNIST and CIFAR-10 (Tables 3, 4 and 5), trained and cached."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from mipin_keras.data.progress import keras_verbose

from . import model_cache
from .data import Data

# The paper says that dropout was used in training, not where or how much:
# these places and rates are ours.


def mlp_m() -> keras.Model:
    """The MLP of Table 3: (28, 28) -> 512 -> 512 -> 10, softmax."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="dense1"),
            layers.Dropout(0.2, name="dropout1"),
            layers.Dense(512, activation="relu", name="dense2"),
            layers.Dropout(0.2, name="dropout2"),
            layers.Dense(10, activation="softmax", name="dense3"),
        ],
        name="mlp_m",
    )


def cnn_m() -> keras.Model:
    """The CNN of Table 4: (28, 28, 1), convolutions 16 5x5 and 64 3x3, 512, 10."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, activation="relu", name="conv1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="max1"),
            layers.Dropout(0.25, name="dropout1"),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="dense1"),
            layers.Dropout(0.5, name="dropout2"),
            layers.Dense(10, activation="softmax", name="dense2"),
        ],
        name="cnn_m",
    )


def cnn_c() -> keras.Model:
    """The CNN of Table 5: (32, 32, 3), convolutions 32, 64 and 64 3x3, 512, 10."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu", name="conv1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="max1"),
            layers.Dropout(0.25, name="dropout1"),
            layers.Conv2D(64, 3, activation="relu", name="conv3"),
            layers.MaxPooling2D(2, name="max2"),
            layers.Dropout(0.25, name="dropout2"),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="dense1"),
            layers.Dropout(0.5, name="dropout3"),
            layers.Dense(10, activation="softmax", name="dense2"),
        ],
        name="cnn_c",
    )


class Recipe(NamedTuple):
    """How one of the paper's models is built and trained."""

    build: Callable[[], keras.Model]
    data: str
    epochs: int
    batch_size: int = 128
    train_samples: int = 50000  # section 6.1.2, and all of CIFAR-10


RECIPES = {
    "MLP-M": Recipe(mlp_m, "mnist", 4),
    "CNN-M": Recipe(cnn_m, "mnist", 3),
    "CNN-C": Recipe(cnn_c, "cifar10", 8),
}


#: Of a quick run.
QUICK = {"epochs": 2, "train_samples": 6000}


def shape_for(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """``x`` with a channel axis added where the model wants one (a view)."""
    return x.reshape((len(x), *model.input_shape[1:]))


def trained(
    name: str,
    data: Data,
    cache_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    train_samples: int | None = None,
    verbose: int = 2,
) -> tuple[keras.Model, dict]:
    """One of the paper's models, from the cache or trained and put there.

    Args:
        name: ``"MLP-M"``, ``"CNN-M"`` or ``"CNN-C"``.
        data: What the recipe trains on.
        cache_dir: Folder of the cached models, made if it is not there.
        seed: Seeds the weights, the order of the samples and dropout.
        epochs: Instead of the recipe's.
        train_samples: Instead of the recipe's: the first so many training images.
        verbose: As for ``keras.Model.fit``.

    Returns:
        The model, and a dict with ``epochs``, ``train_samples``, ``seed`` and
        the ``accuracy`` on the test images.
    """
    recipe = RECIPES[name]
    epochs = recipe.epochs if epochs is None else epochs
    n = min(recipe.train_samples if train_samples is None else train_samples, len(data.x_train))
    about = {"model": name, "epochs": epochs, "train_samples": n, "batch_size": recipe.batch_size, "seed": seed}
    path = pathlib.Path(cache_dir) / f"{name.lower()}-e{epochs}-n{n}-s{seed}.keras"
    cached = model_cache.load(path)
    if cached is not None:
        return cached

    keras.utils.set_random_seed(seed)
    model = recipe.build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        shape_for(model, data.x_train[:n]),
        data.y_train[:n],
        batch_size=recipe.batch_size,
        epochs=epochs,
        verbose=keras_verbose(verbose),
    )
    _, accuracy = model.evaluate(shape_for(model, data.x_test), data.y_test, batch_size=256, verbose=0)
    about["accuracy"] = float(accuracy)
    model_cache.save(path, model, about)
    return model, about
