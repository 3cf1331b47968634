"""The photographs of ILSVRC2012 and the boxes in its validation ones, in the layouts of image-net.org and of Kaggle."""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import tensorflow as tf

from .photographs import Photographs, decoded

#: Pixels of the shorter side after resizing, and of both after cropping.
SHORTER, CROP = 256, 224

# The folders that may hold each kind of file, in the order in which they are searched.
IMAGES = ("", "val/", "val/n*/", "ILSVRC2012_img_val/", "Data/CLS-LOC/val/", "ILSVRC/Data/CLS-LOC/val/")
BOXES = ("", "val/", "bbox/", "bbox/val/", "Annotations/CLS-LOC/val/", "ILSVRC/Annotations/CLS-LOC/val/")
TEXTS = ("", "data/", "ILSVRC2012_devkit_t12/data/")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# What name the classes, and their lines: "n02119789 1 kit_fox" or "n02119789 kit fox, Vulpes macrotis".
CLASSES = {
    "map_clsloc.txt": r"(n\d{8})\s+(\d+)\s+(\S.*)",
    "synset_words.txt": r"(n\d{8})\s+()(\S.*)",
    "LOC_synset_mapping.txt": r"(n\d{8})\s+()(\S.*)",
}


class Annotation(NamedTuple):
    """What an XML file says of an image.

    Attributes:
        wnid: Of the objects.
        size: Height and width in pixels.
        boxes: int64 ``(k, 4)``: left, top, right and bottom edges in pixels;
            right and bottom lie one behind the last pixel.
    """

    wnid: str
    size: tuple[int, int]
    boxes: np.ndarray


def validation(folder: str | os.PathLike[str]) -> Photographs:
    """The validation photographs in ``folder``, all 50,000 or some, resized and cropped when they are read.

    The shorter side is resized to 256 pixels, and the 224x224 in the centre
    are kept; so are the parts of the boxes that lie there.

    The files, in ``folder`` itself or in the folders that their archives make:

    - ``ILSVRC2012_val_00000001.JPEG`` ... of ``ILSVRC2012_img_val.tar``; also
      sorted into a folder ``val/WNID`` for each class;
    - ``ILSVRC2012_val_00000001.xml`` ... of ``ILSVRC2012_bbox_val_v3.tgz``,
      one for each image. An image's class is the one that its XML names;
    - ``ILSVRC2012_validation_ground_truth.txt`` of the development kit, if it
      is there: line i holds image i's class by ILSVRC's own number, 1 to 1000.
      What WNID a number stands for is in ``map_clsloc.txt`` of the later
      kits (that of 2012 has it in a MATLAB file alone); without it each
      number must go with one WNID throughout. The classes in the XML files
      are checked against it;
    - ``synset_words.txt``, Kaggle's ``LOC_synset_mapping.txt`` or
      ``map_clsloc.txt``, for the classes' names. Without them the classes are
      those of the images that are there, which for all 50,000 are all 1000.

    Classes are numbered in the order of their sorted WNIDs, as the outputs of
    ``keras.applications`` are.

    Raises:
        FileNotFoundError: If there are no images, or no XML file for one.
        ValueError: If an image's class is not what the ground truth says or
            is none of the classes; if a file is not laid out as it should be.
            Each names the file.
    """
    root = pathlib.Path(folder)
    paths = sorted(_found(root, IMAGES, ".JPEG"), key=lambda path: path.name)
    annotated = {path.stem: path for path in _found(root, BOXES, ".xml")}
    missing = [path.stem for path in paths if path.stem not in annotated]
    if missing:
        raise FileNotFoundError(
            f"expected an XML file for each image, received none for {len(missing)}, the first {missing[0]}.xml; "
            "unpack ILSVRC2012_bbox_val_v3.tgz there"
        )
    annotations = [annotation(annotated[path.stem]) for path in paths]
    names, numbers = _classes(root)
    _check_truth(root, {path.name: a.wnid for path, a in zip(paths, annotations, strict=True)}, numbers)

    labels = {wnid: i for i, wnid in enumerate(sorted(names or {a.wnid for a in annotations}))}
    for path, a in zip(paths, annotations, strict=True):
        if a.wnid not in labels:
            raise ValueError(
                f"expected one of the {len(labels)} classes in the XML file of {path.name}, received {a.wnid}; give "
                "the names of all classes"
            )
    return Photographs(
        paths,
        np.array([labels[a.wnid] for a in annotations], np.int64),
        [cropped(a.boxes, a.size) for a in annotations],
        [names.get(wnid, wnid) for wnid in labels],
        (CROP, CROP),
        functools.partial(_read, sizes={path: a.size for path, a in zip(paths, annotations, strict=True)}),
    )


def training(folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> Photographs:
    """The training photographs in ``folder``, all or some, without boxes, resized and cropped as the validation ones.

    The name of each file begins with the WNID of its class, as
    ``n01440764_10026.JPEG`` does.

    Args:
        folder: Holds the files, itself or sorted into a folder for each class.
        root: As for :func:`validation`, whose classes they have: one of the
            files of names must be there.

    Raises:
        FileNotFoundError: If there are no such files, or no file of names.
        ValueError: For a class that has no name there, naming the file.
    """
    names, _ = _classes(pathlib.Path(root))
    if not names:
        raise FileNotFoundError(
            f"expected {', '.join(CLASSES)}, or one of them, in {root}, received none; put it there: it numbers the "
            "classes"
        )
    paths = sorted(pathlib.Path(folder).rglob("n[0-9]*_*.JPEG"), key=lambda path: path.name)
    if not paths:
        raise FileNotFoundError(f"expected files WNID_*.JPEG in {folder}, received none; unpack them there")
    labels = {wnid: i for i, wnid in enumerate(sorted(names))}
    wnids = [path.name.partition("_")[0] for path in paths]
    for path, wnid in zip(paths, wnids, strict=True):
        if wnid not in labels:
            raise ValueError(
                f"expected the name of {path} to begin with one of the {len(labels)} WNIDs named in {root}, received "
                f"{wnid}; leave the file out, or give the names of all classes"
            )
    return Photographs(
        paths,
        np.array([labels[wnid] for wnid in wnids], np.int64),
        [np.zeros((0, 4), np.int64)] * len(paths),
        [names[wnid] for wnid in labels],
        (CROP, CROP),
        lambda path: _centre(decoded(path)),
    )


def annotation(path: pathlib.Path) -> Annotation:
    """Read an XML file, in which pixels are counted from 1 and the last one of a box is given, as in PASCAL VOC."""
    try:
        root = ElementTree.parse(path).getroot()
        height, width = (int(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
        boxes = [
            [int(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")] for box in root.iter("bndbox")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(
            f"expected an image's size and boxes in {path}, received none ({error}); unpack the file again"
        ) from None
    wnids = {entry.findtext("name") or "" for entry in root.iter("object")}
    edges = np.array(boxes, np.int64).reshape(-1, 4) - [1, 1, 0, 0]
    if len(wnids) != 1 or wnids == {""} or min(height, width) < 1 or (edges[:, :2] >= edges[:, 2:]).any():
        raise ValueError(
            f"expected objects of one class in {path}, boxes and image not empty, received {sorted(wnids)}, boxes "
            f"{boxes}, height {height} and width {width}; unpack the file again"
        )
    return Annotation(wnids.pop(), (height, width), edges)


def resized(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image of ``size`` when its shorter side is resized to 256 pixels."""
    height, width = (max(SHORTER, round(side * SHORTER / min(size))) for side in size)
    return height, width


def cropped(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes of an image of ``size`` as they lie in its resized and cropped centre, to whole pixels.

    Args:
        boxes: int64 ``(k, 4)``, as an :class:`Annotation` has them.
        size: Height and width of the image.

    Returns:
        int64 ``(at most k, 4)``: those of which something is left.
    """
    height, width = resized(size)
    scale = np.array([width / size[1], height / size[0]] * 2)
    corner = np.array([(width - CROP) // 2, (height - CROP) // 2] * 2)
    edges = np.clip(np.rint(boxes * scale).astype(np.int64) - corner, 0, CROP)
    return edges[(edges[:, :2] < edges[:, 2:]).all(axis=1)]


def _read(path: pathlib.Path, sizes: Mapping[pathlib.Path, tuple[int, int]]) -> np.ndarray:
    """One image, resized and cropped: uint8 ``(224, 224, 3)``."""
    image = decoded(path)
    if image.shape[:2] != sizes[path]:
        raise ValueError(
            f"expected {sizes[path]} rows and columns of {path}, as its XML file says, received {image.shape[:2]}; "
            "take both from the archives of one release"
        )
    return _centre(image)


def _centre(image: np.ndarray) -> np.ndarray:
    """The centre of an image, resized and cropped: uint8 ``(224, 224, 3)``."""
    height, width = resized(image.shape[:2])
    top, left = (height - CROP) // 2, (width - CROP) // 2
    larger = tf.image.resize(image, (height, width), antialias=True)[top : top + CROP, left : left + CROP]
    return tf.cast(tf.clip_by_value(tf.round(larger), 0, 255), tf.uint8).numpy()


def _found(root: pathlib.Path, places: tuple[str, ...], ending: str) -> list[pathlib.Path]:
    for place in places:
        if found := list(root.glob(f"{place}ILSVRC2012_val_[0-9]*{ending}")):
            return found
    raise FileNotFoundError(
        f"expected files ILSVRC2012_val_*{ending} in {root}, or in one of its folders {', '.join(places[1:])}, "
        "received none; unpack them there"
    )


def _classes(root: pathlib.Path) -> tuple[dict[str, str], dict[int, str]]:
    """The short name of each WNID, and the WNID of each of ILSVRC's own numbers, where the files say."""
    names: dict[str, str] = {}
    numbers: dict[int, str] = {}
    for path in (root / place / file for file in CLASSES for place in TEXTS):
        for line in path.read_text().strip().splitlines() if path.is_file() else []:
            parts = re.fullmatch(CLASSES[path.name], line)
            if parts is None:
                raise ValueError(
                    f"expected lines of a WNID and a name in {path}, received {line!r}; write a class a line"
                )
            wnid, number, words = parts.groups()
            names[wnid] = words.split(",")[0].replace("_", " ").strip()
            if number:
                numbers[int(number)] = wnid
    return names, numbers


def _check_truth(root: pathlib.Path, wnids: dict[str, str], numbers: dict[int, str]) -> None:
    """Refuse an image whose WNID is not the one that its number in the ground truth stands for."""
    path = next((root / place / TRUTH for place in TEXTS if (root / place / TRUTH).is_file()), None)
    if path is None:
        return
    truth = path.read_text().split()
    number_of = {wnid: number for number, wnid in numbers.items()}
    for name, wnid in wnids.items():
        image = int(re.findall(r"\d+", name)[1])
        if not 1 <= image <= len(truth) or not truth[image - 1].isdecimal():
            received = repr(truth[image - 1]) if 1 <= image <= len(truth) else f"{len(truth)} lines"
            raise ValueError(
                f"expected the class of {name}, a number, in line {image} of {path}, received {received}; take the "
                "file of the development kit"
            )
        number = int(truth[image - 1])
        if numbers.setdefault(number, wnid) != wnid or number_of.setdefault(wnid, number) != number:
            raise ValueError(
                f"expected {name} to be of class {number}, {numbers[number]}, as the ground truth says, received {wnid}"
                + (f", class {number_of[wnid]}," if wnid in number_of else "")
                + " in its XML file; take both from one release"
            )
