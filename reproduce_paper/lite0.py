"""EfficientNet-Lite0 and photographs of ImageNet: training ones to fit on, validation ones with boxes."""

from __future__ import annotations

import argparse

import keras
import numpy as np

from . import data, ilsvrc
from .gallery import Gallery
from .photo_models import Subject

#: The model's name, its file in the folder of models, and its last feature map, 7x7.
NAME, FILE, LAYER = "EfficientNet-Lite0", "efficientnet-lite0.keras", "top_relu"
VALIDATION, TRAINING = ("ilsvrc2012", "ILSVRC2012"), "imagenet-sample"


def inputs(pixels: np.ndarray) -> np.ndarray:
    """Photographs ``(n, height, width, 3)`` of 0 to 255 as EfficientNet-Lite0 takes them: float32."""
    return (pixels.astype(np.float32) - 127.0) / 128.0


def load(args: argparse.Namespace) -> Gallery:
    """The model with the photographs: a gallery of one subject, without its accuracy.

    Args:
        args: The command's arguments: ``data_dir`` and ``cache_dir`` are
            read. The first has the validation photographs, as
            :func:`ilsvrc.validation` reads them, and training photographs in
            a folder ``imagenet-sample``, as :func:`ilsvrc.training` does; the
            second has the model, a Keras file.

    Raises:
        FileNotFoundError: If one of these is not there, with what to do.
        ValueError: If the file holds another model, or the photographs are
            of other classes.
    """
    path = args.cache_dir / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {FILE} in --cache-dir, received {args.cache_dir} without it; {NAME} is not trained here: put a "
            "Keras file of it there, or leave it out with --models"
        )
    folders = [data.find(args.data_dir, *names) for names in (VALIDATION, (TRAINING,))]
    for folder, name in zip(folders, (VALIDATION[0], TRAINING), strict=True):
        if folder is None:
            raise FileNotFoundError(
                f"expected a folder {name} in --data-dir or MIPIN_DATA_DIR, received none; ImageNet is not downloaded: "
                f"unpack photographs of it there, or leave {NAME} out with --models"
            )
    test = ilsvrc.validation(folders[0])
    train = ilsvrc.training(folders[1], folders[0])
    model = keras.models.load_model(path, compile=False)
    taken, given = model.input_shape[1:], model.output_shape[1:]
    if taken != (*test.size, 3) or given != (len(test.names),):
        raise ValueError(
            f"expected a model of {(*test.size, 3)} to {(len(test.names),)} in {path}, as photographs and classes "
            f"are, received one of {taken} to {given}; give another file, or the names of all classes"
        )
    title = f"ImageNet, {len(test.names):,} classes"
    return Gallery(title, train, test, {NAME: Subject(NAME, model, LAYER, inputs, {"model": NAME, "file": FILE})})
