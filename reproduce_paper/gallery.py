"""The photographs and the models that the experiments on photographs share: ``--photographs`` chooses them."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import NamedTuple

from . import photo_models
from .photo_models import Subject
from .photographs import Photographs, tiny_imagenet

#: Of a quick run: epochs and images of the models' training.
QUICK = {"epochs": 2, "train_samples": 2000}


class Gallery(NamedTuple):
    """Photographs and models of them.

    Attributes:
        title: What they are, for captions.
        train: The photographs that methods are fitted on.
        test: Those that are explained and measured.
        subjects: The models, by name: a VGG and a ResNet.
    """

    title: str
    train: Photographs
    test: Photographs
    subjects: dict[str, Subject]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every experiment on photographs."""
    parser.add_argument(
        "--photographs", choices=["tiny-imagenet"], default="tiny-imagenet", help="the photographs, and their models"
    )


def load(args: argparse.Namespace) -> Gallery:
    """The photographs and models that the arguments ask for; models that are not cached are trained.

    Raises:
        FileNotFoundError: If the photographs are not there, with what to do.
    """
    folder = _folder(args, ("tiny-imagenet-200", "tiny-imagenet-20"))
    train, test = tiny_imagenet(folder, "train"), tiny_imagenet(folder, "val")
    less = QUICK if args.quick else {}
    subjects = {
        name: photo_models.trained(name, train, test, args.cache_dir, seed=args.seed, verbose=args.verbose, **less)
        for name in photo_models.RECIPES
    }
    return Gallery(f"Tiny ImageNet, {len(train.names)} classes", train, test, subjects)


def _folder(args: argparse.Namespace, names: tuple[str, ...]) -> pathlib.Path:
    for base in (args.data_dir, os.environ.get("MIPIN_DATA_DIR")):
        for name in names:
            if base and (pathlib.Path(base) / name).is_dir():
                return pathlib.Path(base) / name
    raise FileNotFoundError(
        f"expected a folder {' or '.join(names)} in --data-dir or MIPIN_DATA_DIR; Tiny ImageNet is not downloaded: "
        "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip there"
    )
