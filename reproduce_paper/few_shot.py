"""Prototype networks (Snell et al. 2017): an embedding, trained by episodes, and the class of the nearest prototype."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mipin_keras.data.progress import keras_verbose

from . import model_cache
from .photo_models import Subject, augmented, standardized
from .photographs import Photographs

#: The last feature map, and the layer whose output is the embedding.
FEATURE, EMBEDDING = "block4_pool", "embedding"
#: Of a training episode: classes, and of each the images of the prototype and those that are classified.
TRAINING = {"ways": 10, "shots": 5, "queries": 5}
LEARNING_RATE = 2e-3


def held_out(classes: int) -> np.ndarray:
    """Which classes are held out from the embedding's training: two in five, bool ``(classes,)``.

    They are spread over the order of the WNIDs, where related classes stand
    side by side: animals first, then things.
    """
    return np.isin(np.arange(classes) % 5, (2, 4))


def embedding(size: tuple[int, int] = (64, 64), channels: tuple[int, ...] = (32, 64, 64, 128)) -> keras.Model:
    """The paper's four blocks: a convolution of 3x3, batch normalisation, ReLU, max-pooling.

    All blocks of the paper have 64 channels, and it flattens the last feature
    map. Here the first has half of them, which takes half the time, the last
    twice as many, and the embedding is the mean over the locations: one that
    listed them all would know each location alike.

    Args:
        size: Height and width of the images.
        channels: Of each block.

    Returns:
        From standardised images to the embeddings, ``(n, channels[-1])``.
    """
    layers = keras.layers
    image = x = keras.Input((*size, 3), name="image")
    for i, width in enumerate(channels, 1):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"block{i}_conv")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"block{i}_bn")(x)
        x = layers.ReLU(name=f"block{i}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"block{i}_pool")(x)
    return keras.Model(image, layers.GlobalAveragePooling2D(name=EMBEDDING)(x), name="prototype")


def head(prototypes: np.ndarray) -> list[np.ndarray]:
    """The weights of a Dense layer whose largest logit is the nearest prototype's.

    The negative squared distance is -|z - p|² = 2 z·p - |p|² - |z|², and the
    last term is the same for all classes: a softmax does not change without it.

    Args:
        prototypes: ``(classes, size)``.

    Returns:
        Kernel ``(size, classes)`` and bias ``(classes,)``, float32.
    """
    return [np.float32(2 * prototypes.T), np.float32(-(prototypes.astype(np.float64) ** 2).sum(axis=1))]


def classifier(model: keras.Model, prototypes: np.ndarray) -> keras.Model:
    """The embedding with the nearest prototype as its head: logits :func:`head`, without softmax."""
    dense = keras.layers.Dense(len(prototypes), name="nearest_prototype")
    classified = keras.Model(model.input, dense(model.output), name="nearest_prototype_of")
    dense.set_weights(head(prototypes))
    return classified


class EpisodeLogits(keras.layers.Layer):
    """From the embeddings of an episode's images to the logits of its queries.

    Args:
        ways, shots: As of :class:`TrainingEpisodes`, which lays the images out.

    Call arguments:
        z: ``(ways * (shots + queries), size)``, class by class, in each the
            images of the prototype first.

    Returns:
        ``(ways * queries, ways)``, class by class: :func:`head`'s logits.
    """

    def __init__(self, ways: int, shots: int, **options: Any):
        super().__init__(**options)
        self.ways, self.shots = ways, shots

    def call(self, z: Any) -> Any:
        ops, size = keras.ops, z.shape[-1]
        z = ops.reshape(z, (self.ways, -1, size))
        prototypes = ops.mean(z[:, : self.shots], axis=1)
        queries = ops.reshape(z[:, self.shots :], (-1, size))
        return 2 * ops.matmul(queries, ops.transpose(prototypes)) - ops.sum(prototypes**2, axis=1)


class TrainingEpisodes(keras.utils.PyDataset):
    """Episodes of augmented images, each drawn by the seed, its epoch and its number.

    Args:
        photographs: Of several classes.
        ways: Classes an episode.
        shots, queries: Images of each class that make its prototype, and that
            are classified.
        count: Episodes an epoch.
        seed: Of all draws.
    """

    def __init__(self, photographs: Photographs, *, ways: int, shots: int, queries: int, count: int, seed: int):
        super().__init__()
        self._pixels = photographs.pixels()
        self._members = members(photographs.labels)
        self._ways, self._shots, self._queries = ways, shots, queries
        self._count, self._seed, self._epoch = count, seed, 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number = self._epoch * self._count + index
        rng = np.random.default_rng([self._seed, number])
        chosen = episode(self._members, self._ways, self._shots + self._queries, rng).reshape(-1)
        images = augmented(tf.constant(self._pixels[chosen]), tf.constant([number, self._seed]))
        return standardized(images.numpy()), np.repeat(np.arange(self._ways), self._queries)

    def on_epoch_end(self) -> None:
        self._epoch += 1


def members(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each class's images."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def episode(classes: list[np.ndarray], ways: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """Draw classes, and images of each: indices ``(ways, images)``."""
    chosen = rng.choice(len(classes), ways, replace=False)
    return np.stack([rng.choice(classes[i], images, replace=False) for i in chosen])


def accuracies(
    z: np.ndarray, labels: np.ndarray, *, shots: int, count: int, seed: int, ways: int = 5, queries: int = 15
) -> np.ndarray:
    """The accuracy of each of many test episodes: the share of queries that are nearest to their own prototype.

    Args:
        z: The embeddings of all images, ``(n, size)``.
        labels: Their classes, ``(n,)``.
        shots, ways, queries: Images of a prototype, classes, and queries a class.
        count: Episodes.
        seed: Of the draws.

    Returns:
        float64 ``(count,)``.
    """
    rng, classes = np.random.default_rng(seed), members(labels)
    z = z.reshape(len(z), -1).astype(np.float64)
    found = np.empty(count)
    for i in range(count):
        drawn = z[episode(classes, ways, shots + queries, rng)]
        kernel, bias = head(drawn[:, :shots].mean(axis=1))
        nearest = (drawn[:, shots:] @ kernel + bias).argmax(axis=-1)
        found[i] = (nearest == np.arange(ways)[:, None]).mean()
    return found


def trained(
    train: Photographs,
    cache_dir: str | os.PathLike[str],
    *,
    episodes: int,
    epochs: int,
    seed: int = 0,
    verbose: int = 2,
) -> Subject:
    """The embedding, from the cache or trained and put there.

    It is trained by episodes alone, as in the paper: cross-entropy of the
    softmax over negative squared distances to the episode's prototypes.

    Args:
        train: Photographs of the training classes.
        cache_dir: Folder of the cached models, made if it is not there.
        episodes: An epoch.
        epochs: How many.
        seed: Of the weights, the episodes and the augmentation.
        verbose: As for ``keras.Model.fit``.

    Returns:
        The subject, whose outputs are embeddings; ``about`` has ``classes``,
        ``train_samples``, ``episodes`` in all, ``seed``, and of the training
        its ``seconds`` and the ``accuracy`` of the last epoch's episodes.
    """
    n, classes = len(train.paths), len(np.unique(train.labels))
    path = pathlib.Path(cache_dir) / f"prototype-c{classes}-e{episodes * epochs}-n{n}-s{seed}.keras"
    cached = model_cache.load(path)
    if cached is not None:
        return Subject("prototype", cached[0], FEATURE, standardized, cached[1])
    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = embedding(train.size)
    how = TRAINING | {"ways": min(TRAINING["ways"], classes)}
    learning = keras.Model(model.input, EpisodeLogits(how["ways"], how["shots"])(model.output))
    learning.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, episodes * epochs)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    drawn = TrainingEpisodes(train, **how, count=episodes, seed=seed)
    history = learning.fit(drawn, epochs=epochs, shuffle=False, verbose=keras_verbose(verbose)).history
    about = {"model": "prototype", "classes": classes, "train_samples": n, "episodes": episodes * epochs, "seed": seed}
    about |= how | {"seconds": round(time.perf_counter() - start), "accuracy": float(history["accuracy"][-1])}
    model_cache.save(path, model, about)
    return Subject("prototype", model, FEATURE, standardized, about)
