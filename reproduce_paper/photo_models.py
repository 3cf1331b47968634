"""The models that the experiments on photographs explain: a VGG and a ResNet, trained here or those of ImageNet."""

from __future__ import annotations

import math
import os
import pathlib
import time
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mipin_keras.data.progress import keras_verbose

from . import model_cache
from .photographs import Photographs

#: Photographs that a model sees at once when its outputs are computed.
BATCH = 64


class Subject(NamedTuple):
    """A model of photographs, and what an experiment needs to know to explain it.

    Attributes:
        name: ``"VGG"``, ``"ResNet"``, ``"VGG19"`` or ``"ResNet50"``.
        model: It takes what ``preprocess`` makes of images.
        layer: Name of the layer whose output, a late feature map, MIP-IN's
            explanation ends at.
        preprocess: From uint8 ``(n, height, width, 3)`` to float32.
        about: How the model was made, and its accuracy.
    """

    name: str
    model: keras.Model
    layer: str
    preprocess: Callable[[np.ndarray], np.ndarray]
    about: dict[str, Any]

    def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """The model's outputs, float32 ``(n, classes)``, for uint8 ``(n, height, width, 3)``."""
        parts = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
        return np.concatenate([self.model.predict_on_batch(self.preprocess(part)) for part in parts])

    def predicted(self, photographs: Photographs) -> np.ndarray:
        """The class that the model takes each photograph for, int64 ``(n,)``; a batch is in memory at a time."""
        return np.concatenate([self.outputs(batch.pixels()).argmax(axis=1) for batch in photographs.batches(BATCH)])


def standardized(pixels: np.ndarray) -> np.ndarray:
    """uint8 ``(n, height, width, 3)`` as float32, ImageNet's mean taken off each channel, by its deviation."""
    return keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode="torch")


def centred(pixels: np.ndarray) -> np.ndarray:
    """uint8 ``(n, height, width, 3)`` as float32, blue first, ImageNet's mean taken off: for VGG19 and ResNet50."""
    return keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode="caffe")


def vgg(size: tuple[int, int] = (64, 64), classes: int = 20) -> keras.Model:
    """A small VGG: 8 convolutions of 3x3 in 4 blocks, a max-pooling each, two Dense layers; 2.0 M parameters."""
    layers = keras.layers
    stack = [keras.Input((*size, 3), name="image")]
    for block, (depth, channels) in enumerate([(1, 32), (2, 64), (2, 128), (3, 192)], 1):
        for i in range(1, depth + 1):
            name = f"block{block}_conv{i}"
            stack.append(
                layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)
            )
        stack.append(layers.MaxPooling2D(2, name=f"block{block}_pool"))
    stack += [
        layers.Flatten(name="flatten"),
        layers.Dropout(0.5, name="dropout1"),
        layers.Dense(256, activation="relu", kernel_initializer="he_normal", name="fc1"),
        layers.Dropout(0.5, name="dropout2"),
        layers.Dense(classes, activation="softmax", name="predictions"),
    ]
    return keras.Sequential(stack, name="vgg")


def resnet(size: tuple[int, int] = (64, 64), classes: int = 20) -> keras.Model:
    """A small ResNet: 6 blocks of two 3x3 convolutions with batch normalisation, a global mean; 0.7 M parameters."""
    layers = keras.layers

    def convolution(x: Any, channels: int, width: int, stride: int, name: str) -> Any:
        x = layers.Conv2D(
            channels, width, stride, "same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
        )(x)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)

    image = keras.Input((*size, 3), name="image")
    x = layers.ReLU(name="stem_relu")(convolution(image, 32, 5, 2, "stem"))
    for stage, channels in enumerate((32, 64, 128), 1):
        for block in (1, 2):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = layers.ReLU(name=f"{name}_relu1")(convolution(x, channels, 3, stride, f"{name}_1"))
            y = convolution(y, channels, 3, 1, f"{name}_2")
            if stride > 1:
                x = convolution(x, channels, 1, stride, f"{name}_shortcut")
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="predictions")(x), name="resnet")


class PhotoRecipe(NamedTuple):
    """How one of the small models is built and trained."""

    build: Callable[..., keras.Model]
    layer: str
    learning_rate: float
    epochs: int
    batch_size: int = 64
    weight_decay: float = 0.05
    label_smoothing: float = 0.1


RECIPES = {
    "VGG": PhotoRecipe(vgg, "block4_conv2", 1e-3, 20),
    "ResNet": PhotoRecipe(resnet, "stage3_block2_out", 3e-3, 20),
}


def augmented(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cut out, squeeze, mirror and brighten images at random, the size kept.

    Args:
        images: float32 or uint8 ``(n, height, width, 3)``.
        seed: Two integers; the same ones give the same images.

    Returns:
        float32 ``(n, height, width, 3)``: of each image 40 to 100 % of its
        area, with sides of a ratio of 3/4 to 4/3, half of them mirrored,
        brighter or darker by up to 20 %.
    """
    n, (height, width) = tf.shape(images)[0], images.shape[1:3]
    seeds = tf.unstack(tf.random.split(seed, 6))

    def drawn(i: int, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([n], seeds[i], low, high)

    area, stretch = drawn(0, 0.4, 1.0), tf.exp(drawn(1, math.log(3 / 4), math.log(4 / 3)))
    tall, wide = tf.minimum(tf.sqrt(area * stretch), 1.0), tf.minimum(tf.sqrt(area / stretch), 1.0)
    top, left = drawn(2, 0.0, 1.0) * (1 - tall), drawn(3, 0.0, 1.0) * (1 - wide)
    mirror = drawn(4, 0.0, 1.0) < 0.5
    x1, x2 = tf.where(mirror, left + wide, left), tf.where(mirror, left, left + wide)
    boxes = tf.stack([top, x1, top + tall, x2], axis=1)
    cut = tf.image.crop_and_resize(tf.cast(images, tf.float32), boxes, tf.range(n), (height, width))
    return tf.clip_by_value(cut * drawn(5, 0.8, 1.2)[:, None, None, None], 0.0, 255.0)


def trained(
    name: str,
    train: Photographs,
    test: Photographs,
    cache_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    train_samples: int | None = None,
    verbose: int = 2,
) -> Subject:
    """One of the small models, from the cache or trained and put there.

    Args:
        name: ``"VGG"`` or ``"ResNet"``.
        train, test: Photographs of one size, with the same classes.
        cache_dir: Folder of the cached models, made if it is not there.
        seed: Seeds the weights, the order of the images, augmentation and
            dropout.
        epochs: Instead of the recipe's.
        train_samples: Only so many training images, evenly of all classes.
        verbose: As for ``keras.Model.fit``.

    Returns:
        The subject; ``about`` has ``epochs``, ``train_samples``, ``seed``,
        the ``seconds`` of training and the ``accuracy`` on ``test``.

    Raises:
        ValueError: If there are no photographs to train or to test on.
    """
    recipe = RECIPES[name]
    if not train.paths or not test.paths:
        raise ValueError(
            f"expected photographs to train and to test on, received {len(train.paths)} and {len(test.paths)}; give "
            "some of each"
        )
    epochs = recipe.epochs if epochs is None else epochs
    if train_samples is not None:
        train = train.evenly(train_samples)
    n, classes = len(train.paths), len(train.names)
    path = pathlib.Path(cache_dir) / f"{name.lower()}-c{classes}-e{epochs}-n{n}-s{seed}.keras"
    cached = model_cache.load(path)
    if cached is not None:
        model, about = cached
        return Subject(name, model, recipe.layer, standardized, about)

    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = recipe.build(train.size, classes)
    steps = math.ceil(n / recipe.batch_size)
    warmup = steps * epochs // 20
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps * epochs - warmup, warmup_target=recipe.learning_rate, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    batches = _batches(train, recipe.batch_size, seed)
    model.fit(batches, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=keras_verbose(verbose))
    _, accuracy = model.evaluate(standardized(test.pixels()), np.eye(classes)[test.labels], batch_size=256, verbose=0)
    about = {"model": name, "epochs": epochs, "train_samples": n, "batch_size": recipe.batch_size, "seed": seed}
    about |= {"seconds": round(time.perf_counter() - start), "accuracy": float(accuracy)}
    model_cache.save(path, model, about)
    return Subject(name, model, recipe.layer, standardized, about)


def _batches(photographs: Photographs, batch_size: int, seed: int) -> tf.data.Dataset:
    """Augmented, standardised images and their one-hot labels, without end; each pass is shuffled and drawn anew."""
    classes = len(photographs.names)
    # What keras.applications calls the mode "torch", of tensors.
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    def prepared(i: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = augmented(batch[0], tf.stack([tf.cast(i, tf.int32), seed]))
        return (pixels / 255.0 - mean) / deviation, tf.one_hot(batch[1], classes)

    images = tf.data.Dataset.from_tensor_slices((photographs.pixels(), photographs.labels.astype(np.int32)))
    batches = images.shuffle(len(photographs.paths), seed=seed).batch(batch_size).repeat()
    return tf.data.Dataset.zip(tf.data.Dataset.counter(), batches).map(prepared).prefetch(2)


#: Of ``keras.applications``: what builds each, and its last feature map, 7x7; of VGG19 that of section 6.1.2.
APPLICATIONS = {
    "VGG19": (keras.applications.VGG19, "block5_pool"),
    "ResNet50": (keras.applications.ResNet50, "conv5_block3_out"),
}


def application(name: str, weights: str, photographs: Photographs, *, seed: int = 0) -> Subject:
    """A model of ``keras.applications``, its 1000 classes in the order of their sorted WNIDs.

    Args:
        name: ``"VGG19"`` or ``"ResNet50"``.
        weights: ``"imagenet"``, which Keras downloads unless it has them; a
            ``.h5``, ``.weights.h5`` or ``.keras`` file; or ``"random"``.
        photographs: Its accuracy is measured on all of these.
        seed: Seeds random weights.

    Returns:
        The subject; ``about`` has its ``weights``, and its ``accuracy`` on so
        many photographs, ``accuracy_samples``.

    Raises:
        FileNotFoundError: If the file is not there, or Keras could not
            download the weights.
        ValueError: If the file holds no weights of this model, or the
            photographs are of other classes.
    """
    build, layer = APPLICATIONS[name]
    if len(photographs.names) != 1000:
        raise ValueError(
            f"expected photographs of the 1000 classes of {name}, received photographs of {len(photographs.names)}; "
            "where only some are there, give the names of all classes in synset_words.txt"
        )
    keras.utils.set_random_seed(seed)
    if weights == "imagenet":
        try:
            model = build(weights="imagenet")
        except Exception as error:  # Keras raises a plain Exception where it cannot download
            raise FileNotFoundError(
                f"expected Keras to have or to download the weights of {name}, received an error ({error}); download "
                f"them elsewhere and give --weights {name}=FILE"
            ) from error
    else:
        model = build(weights=None)
    if weights not in ("imagenet", "random"):
        if not pathlib.Path(weights).is_file():
            raise FileNotFoundError(
                f"expected a file of the weights of {name}, received {weights}, where there is none; give its path"
            )
        try:
            model.load_weights(weights)
        except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"expected the weights of {name} with its 1000 classes in {weights}, received something else "
                f"({error}); give a file of this model"
            ) from error
    about = {"model": name, "weights": pathlib.Path(weights).name, "accuracy_samples": len(photographs.paths)}
    subject = Subject(name, model, layer, centred, about)
    about["accuracy"] = float(np.mean(subject.predicted(photographs) == photographs.labels))
    return subject
