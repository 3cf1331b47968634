"""Photographs of one object each, with the boxes around it: Tiny ImageNet.

Images are read from their JPEG files when they are asked for, so that a data
set of any size costs the memory of the images in use.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# As in Table 2 of the paper, after Schulz et al. 2020: only objects that cover less of the image can be missed.
LARGEST_SHARE = 0.33


class Photographs(NamedTuple):
    """A set of labelled images with bounding boxes, read on demand.

    Attributes:
        paths: One JPEG file an image.
        labels: int64 ``(n,)``.
        boxes: For each image int64 ``(k, 4)``: the left, top, right and
            bottom edges of its boxes in pixels of the image as ``read``
            gives it; right and bottom lie one behind the last pixel.
        names: A short name for each class.
        size: Height and width of the images that ``read`` gives.
        read: From a path to one uint8 image ``(height, width, 3)``.
    """

    paths: list[pathlib.Path]
    labels: np.ndarray
    boxes: list[np.ndarray]
    names: list[str]
    size: tuple[int, int]
    read: Callable[[pathlib.Path], np.ndarray]

    def take(self, indices: Sequence[int] | np.ndarray) -> Photographs:
        """The images at ``indices``, in their order."""
        chosen = np.arange(len(self.paths))[list(indices)]
        return self._replace(
            paths=[self.paths[i] for i in chosen], labels=self.labels[chosen], boxes=[self.boxes[i] for i in chosen]
        )

    def evenly(self, n: int) -> Photographs:
        """``n`` of the images, evenly spaced over the whole set, whatever their classes; all if there are no more."""
        count = len(self.paths)
        return self if n >= count else self.take(np.linspace(0, count - 1, n).round().astype(int))

    def batches(self, size: int) -> Iterator[Photographs]:
        """All images in their order, at most ``size`` at a time."""
        for start in range(0, len(self.paths), size):
            yield self.take(range(start, min(start + size, len(self.paths))))

    def pixels(self) -> np.ndarray:
        """All images at once: uint8 ``(n, height, width, 3)``.

        Raises:
            ValueError: If an image has another size than ``size``, naming it.
        """
        images = np.empty((len(self.paths), *self.size, 3), np.uint8)  # filled in place: a stack would hold them twice

        def fill(i: int) -> None:
            found = self.read(self.paths[i])
            if found.shape != images.shape[1:]:
                raise ValueError(
                    f"expected shape {images.shape[1:]} of {self.paths[i]}, received {found.shape}; leave the image out"
                )
            images[i] = found

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(images))))
        return images

    def stream(
        self, preprocess: Callable[[np.ndarray], np.ndarray], batch_size: int = 32
    ) -> Callable[[], Iterator[np.ndarray]]:
        """A stream of batches for ``Analyzer.fit``, which reads the images again on each pass.

        Args:
            preprocess: From uint8 ``(b, height, width, 3)`` to what the
                model takes.
            batch_size: Images a batch.

        Returns:
            A function that returns a fresh iterator over all images, in
            their order.
        """

        def inputs() -> Iterator[np.ndarray]:
            for batch in self.batches(batch_size):
                yield preprocess(batch.pixels())

        return inputs

    def masks(self) -> np.ndarray:
        """Which pixels lie in a box: bool ``(n, height, width)``, the union of an image's boxes."""
        inside = np.zeros((len(self.paths), *self.size), bool)
        for mask, boxes in zip(inside, self.boxes, strict=True):
            for left, top, right, bottom in boxes:
                mask[top:bottom, left:right] = True
        return inside

    def shares(self) -> np.ndarray:
        """The share of each image that its boxes cover: float64 ``(n,)``, from 0 to 1. Holds one mask at a time."""
        return np.array([self.take([i]).masks().mean() for i in range(len(self.paths))], np.float64)

    def with_small_boxes(self) -> Photographs:
        """Only the images whose boxes cover something, and less than 33 % of it (section 6.3)."""
        shares = self.shares()
        return self.take(np.flatnonzero((shares > 0) & (shares < LARGEST_SHARE)))


def decoded(path: str | os.PathLike[str]) -> np.ndarray:
    """A JPEG file as uint8 ``(height, width, 3)``; grey ones get three equal channels.

    Raises:
        ValueError: If the file is no image that can be read, naming it.
    """
    try:
        return tf.io.decode_jpeg(tf.io.read_file(str(path)), channels=3).numpy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"expected a JPEG image in {path}, received a file that cannot be read ({error.message}); unpack it again"
        ) from error


def tiny_imagenet(folder: str | os.PathLike[str], split: str) -> Photographs:
    """Tiny ImageNet, or some of its classes, in its own layout.

    Args:
        folder: Holds ``wnids.txt``, ``words.txt``, ``train/WNID/images``,
            ``train/WNID/WNID_boxes.txt``, ``val/images`` and
            ``val/val_annotations.txt``. Classes are numbered in the order of
            their sorted WNIDs.
        split: ``"train"`` or ``"val"``.

    Raises:
        ValueError: For another split, or a line that is no annotation.
        FileNotFoundError: If a file of the layout is missing, naming it.
    """
    root = pathlib.Path(folder)
    if split not in ("train", "val"):
        raise ValueError(f"expected split to be 'train' or 'val', received {split!r}; name one of these")
    wnids = sorted(_text(root / "wnids.txt").split())
    words = dict(line.split("\t", 1) for line in _text(root / "words.txt").splitlines() if line)
    paths, labels, boxes = [], [], []
    for label, wnid in enumerate(wnids) if split == "train" else [(None, None)]:
        folder_of = root / ("val" if wnid is None else f"train/{wnid}")
        annotations = folder_of / ("val_annotations.txt" if wnid is None else f"{wnid}_boxes.txt")
        for line in _text(annotations).splitlines():
            try:
                name, *of_class, left, top, right, bottom = line.split("\t")
                edges = [int(left), int(top), int(right) + 1, int(bottom) + 1]
                number = wnids.index(of_class[0]) if wnid is None else label
            except (ValueError, IndexError):
                raise ValueError(
                    f"expected a file name and a box in each line of {annotations}, received {line!r}; unpack it again"
                ) from None
            paths.append(folder_of / "images" / name)
            labels.append(number)
            boxes.append(np.array([edges], np.int64))
    names = [words.get(wnid, wnid).split(",")[0] for wnid in wnids]
    return Photographs(paths, np.array(labels, np.int64), boxes, names, (64, 64), decoded)


def _text(path: pathlib.Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"expected {path}, received a folder without it; unpack all of Tiny ImageNet there")
    return path.read_text()
