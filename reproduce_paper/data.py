"""The data sets of the paper's experiments, as arrays ready for the models.

Each loader looks in ``data_dir``, then in the folder that the environment
variable ``MIPIN_DATA_DIR`` names, then asks Keras to download the data set.
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import keras
import numpy as np

SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


class Data(NamedTuple):
    """A data set split into training and test images.

    Images are float32 in [0, 1], labels int64 of shape ``(n,)``.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def find(data_dir: str | os.PathLike[str] | None, *names: str) -> pathlib.Path | None:
    """The first of the files or folders called ``names`` in ``data_dir``, or else in ``MIPIN_DATA_DIR``, or None.

    Raises:
        FileNotFoundError: If ``data_dir`` is named and is not a folder.
    """
    if data_dir is not None and not pathlib.Path(data_dir).is_dir():
        raise FileNotFoundError(
            f"expected --data-dir to be a folder, received {str(data_dir)!r}; give the one with the data sets"
        )
    for folder in (data_dir, os.environ.get("MIPIN_DATA_DIR")):
        for name in names:
            if folder and (pathlib.Path(folder) / name).exists():
                return pathlib.Path(folder) / name
    return None


def _images(images: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(
            f"expected uint8 images of shape {shape} in {where}, received {images.dtype} of shape {images.shape[1:]}; "
            "save them as keras.datasets returns them"
        )
    scaled = images.astype(np.float32)
    scaled /= 255.0
    return scaled


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Data:
    """MNIST or CIFAR-10.

    Args:
        name: ``"mnist"`` (images of shape ``(28, 28)``) or ``"cifar10"``
            (``(32, 32, 3)``).
        data_dir: A folder with ``mnist.npz`` or ``cifar10.npz``, holding the
            arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` as
            ``keras.datasets`` returns them.

    Raises:
        ValueError: For an unknown name, or a file of another layout.
        FileNotFoundError: If ``data_dir`` is not a folder; if there is no
            such file, and Keras cannot download it.
    """
    if name not in SHAPES:
        raise ValueError(f"expected one of {sorted(SHAPES)}, received {name!r}; name one of these")
    path = find(data_dir, name + ".npz")
    if path is None:
        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        except Exception as problem:  # Keras raises a plain Exception where it cannot download
            raise FileNotFoundError(
                f"expected {name}.npz in --data-dir or MIPIN_DATA_DIR, received none, and Keras cannot download it: "
                f"{' '.join(str(problem).split())}; put the file there"
            ) from problem
        where = f"keras.datasets.{name}"
    else:
        where = str(path)
        with np.load(path) as file:
            missing = {"x_train", "y_train", "x_test", "y_test"} - set(file.files)
            if missing:
                raise ValueError(
                    f"expected the arrays {sorted(missing)} in {path}, received only {sorted(file.files)}; save them "
                    "as keras.datasets returns them"
                )
            x_train, y_train, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    labels = [np.asarray(y).reshape(-1).astype(np.int64) for y in (y_train, y_test)]
    return Data(_images(x_train, SHAPES[name], where), labels[0], _images(x_test, SHAPES[name], where), labels[1])
