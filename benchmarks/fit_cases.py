"""The networks that fits are timed on: the paper's CNN, an EfficientNet, a SqueezeNet and a ResNet50."""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from reproduce_paper import arguments, data, ilsvrc, models
from reproduce_paper.lite0 import inputs as lite0_inputs

from .processes import forget_peak, peak_memory

#: GiB that a fit may take, beside the package's own default.
LARGE_MEMORY = 8.0


class Loaded(NamedTuple):
    """A model, the samples to fit from, and a few words on both."""

    model: keras.Model
    x: np.ndarray
    about: str


class Case(NamedTuple):
    """A fit to time.

    Attributes:
        load: Makes the model and the samples from the command's arguments.
        classes: The output neurons to fit; None for all.
        input_layer: As :class:`mipin_keras.MIPIN` takes it.
        at_most: For each setting of ``memory=`` (None is the default) the
            CPU seconds that the fit may take, in multiples of version 0.1's.
        files: What ``load`` needs of ``--data-dir``, a path or several that
            it may have there.
        batch: Samples a batch.
        threads: Of NumPy and TensorFlow each; None for one a core.
        seconds: The wall time that the fit may take on two cores.
        before: Whether the other package is timed too.
        predict: Whether ``model.predict`` is timed on the same samples.
    """

    load: Callable[[argparse.Namespace], Loaded]
    classes: list[int] | None
    input_layer: str | None = None
    at_most: dict[float | None, float | None] = {None: None}
    files: tuple[tuple[str, ...], ...] = ()
    batch: int = 32
    threads: int | None = 1
    seconds: float | None = None
    before: bool = True
    predict: bool = False


# What the cases load

PHOTOGRAPHS = ("ilsvrc2012", "ILSVRC2012")
LITE0 = ("models/efficientnet-lite0.keras", "efficientnet-lite0.keras")
SQUEEZENET = ("models/squeezenet.keras", "squeezenet.keras")


def cnn(args: argparse.Namespace) -> Loaded:
    """The CNN of Table 4 and 5,000 images: trained on MNIST where that is there, or else both random."""
    if data.find(args.data_dir, "mnist.npz") is not None:
        images = data.load("mnist", args.data_dir)
        model, about = models.trained("CNN-M", images, arguments.cache_dir(args), seed=args.seed, verbose=0)
        words = f"the CNN of Table 4 (accuracy {about['accuracy']:.4f}), images of MNIST"
        return Loaded(model, models.shape_for(model, images.x_train[:5000]), words)
    keras.utils.set_random_seed(args.seed)
    model = models.cnn_m()
    x = np.random.default_rng(args.seed).random((5000, *model.input_shape[1:]), np.float32)
    return Loaded(model, x, "the CNN of Table 4, random weights and images")


def resnet50(args: argparse.Namespace) -> Loaded:
    """ResNet50 and 16 images, random."""
    keras.utils.set_random_seed(args.seed)
    model = keras.applications.ResNet50(weights=None)
    x = np.random.default_rng(args.seed).random((16, *model.input_shape[1:]), np.float32)
    return Loaded(model, x, "ResNet50, random weights and images")


def squeezenet_inputs(pixels: np.ndarray) -> np.ndarray:
    """float32 ``(n, height, width, 3)`` of 0 to 255 as SqueezeNet takes them: blue first, the mean taken off."""
    return pixels[..., ::-1] - np.float32([104, 117, 123])


def photographs(
    names: tuple[str, ...], count: int, inputs: Callable[[np.ndarray], np.ndarray]
) -> Callable[[argparse.Namespace], Loaded]:
    """What loads the ``.keras`` file of one of the ``names``, and ``count`` photographs for it.

    Args:
        names: Of the file in ``--data-dir``.
        count: Of the photographs of ILSVRC2012, evenly spaced.
        inputs: From float32 ``(n, height, width, 3)`` of 0 to 255, red
            first, to what the model takes.
    """

    def load(args: argparse.Namespace) -> Loaded:
        model = keras.models.load_model(found(args.data_dir, names), compile=False)
        chosen = ilsvrc.validation(found(args.data_dir, PHOTOGRAPHS)).evenly(count)
        x = np.empty((len(chosen.paths), *model.input_shape[1:]), np.float32)  # filled in place: held once
        start = 0
        for batch in chosen.batches(32):
            pixels = tf.image.resize(batch.pixels(), model.input_shape[1:3]).numpy()
            x[start : start + len(pixels)] = inputs(pixels)
            start += len(pixels)
        return Loaded(model, x, f"{pathlib.Path(names[-1]).stem}, photographs of ILSVRC2012")

    return load


def found(folder: pathlib.Path | None, names: tuple[str, ...]) -> pathlib.Path:
    """The first of the files or folders ``names`` in the data's folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = data.find(folder, *names)
    if path is None:
        raise FileNotFoundError(
            f"expected {' or '.join(names)} in --data-dir or MIPIN_DATA_DIR, received "
            f"{'neither' if folder is None else str(folder)} without it; give the folder that holds it, or leave the "
            "case out"
        )
    return path


CNN_CASES = ("cnn-1", "cnn-10")

#: The limits are those that the present fit is held to, against commit fb8da57 (version 0.1.0).
CASES = {
    "cnn-1": Case(cnn, [0], at_most={None: 0.75}),
    "cnn-10": Case(cnn, None, at_most={None: 0.67}),
    "squeezenet-fire9": Case(
        photographs(SQUEEZENET, 200, squeezenet_inputs), [0, 1], "fire9", {None: 0.55}, (SQUEEZENET, PHOTOGRAPHS)
    ),
    "lite0-block14": Case(
        photographs(LITE0, 200, lite0_inputs), [0, 1], "block14_add", {None: 0.42}, (LITE0, PHOTOGRAPHS)
    ),
    "lite0-block10": Case(
        photographs(LITE0, 200, lite0_inputs), [0, 1], "block10_add", {None: 0.06, LARGE_MEMORY: 0.12},
        (LITE0, PHOTOGRAPHS),
    ),
    "resnet50-pixels": Case(resnet50, [0], at_most={None: 0.04, LARGE_MEMORY: 0.42}, batch=4),
    "lite0-head": Case(
        photographs(LITE0, 1000, lite0_inputs), None, "top_relu", {None: 0.60}, (LITE0, PHOTOGRAPHS), predict=True
    ),
    "lite0-20": Case(
        photographs(LITE0, 1000, lite0_inputs), list(range(20)), "block14_add", {None: None}, (LITE0, PHOTOGRAPHS),
        threads=None, seconds=480.0, before=False,
    ),
}  # fmt: skip


def prepare(names: list[str], args: argparse.Namespace) -> None:
    """Find what the cases need before anything is measured, and train the CNN if it is not in the cache yet.

    Raises:
        FileNotFoundError: If a file of one of the cases is not there.
    """
    for name in names:
        for files in CASES[name].files:
            found(args.data_dir, files)
    if not set(CNN_CASES).isdisjoint(names):
        cnn(args)


def analyzer_of(package: Any, case: Case, model: keras.Model, seed: int) -> Any:
    """The analyzer of a case, made by this package or by the one before."""
    return package.create_analyzer(
        "mipin", model, classes=case.classes, input_layer=case.input_layer, seed=seed, verbose=0
    )


def measure(package: Any, name: str, memory: float | None, args: argparse.Namespace) -> dict[str, Any]:
    """Fit once, in a process in which nothing was fitted before; what TensorFlow traces for it is part of the fit.

    Args:
        package: This package or another version of it.
        name: Of the case.
        memory: GiB that the fit may take; None for the package's default.
        args: The command's arguments: where the data is, and the seed.

    Returns:
        ``about``, ``samples``, ``classes``; ``cpu`` and ``wall`` seconds of
        ``fit`` alone; ``above``, the peak of the resident memory above what
        it was before the fit, in bytes; ``errors``, of each layer and class
        the name, the class and the relative error of ``fit_report``; and
        ``predict``, the CPU seconds of ``model.predict`` on the same samples,
        traced before, or None.
    """
    case = CASES[name]
    model, x, about = case.load(args)
    analyzer = analyzer_of(package, case, model, args.seed)
    options = {} if memory is None else {"memory": memory}
    before = forget_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    analyzer.fit(x, batch_size=case.batch, **options)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    above = max(0, peak_memory() - before)
    return {
        "about": about,
        "samples": len(x),
        "classes": len(analyzer.classes),
        "cpu": cpu,
        "wall": wall,
        "above": above,
        "errors": [[entry["layer"], entry["class"], float(entry["relative"])] for entry in analyzer.fit_report],
        "predict": _predict(model, x, case.batch) if case.predict else None,
    }


def _predict(model: keras.Model, x: np.ndarray, batch: int) -> float:
    """CPU seconds of ``model.predict``, without its tracing."""
    model.predict(x[:batch], batch_size=batch, verbose=0)
    start = time.process_time()
    model.predict(x, batch_size=batch, verbose=0)
    return time.process_time() - start
