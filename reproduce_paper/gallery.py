"""The photographs and the models that the experiments on photographs share: ``--photographs`` chooses them."""

from __future__ import annotations

import argparse
import pathlib
from typing import NamedTuple

from . import data, ilsvrc, photo_models
from .photo_models import Subject
from .photographs import Photographs, tiny_imagenet

#: Of a quick run: epochs and images of the models' training.
QUICK = {"epochs": 2, "train_samples": 2000}
#: Photographs of ILSVRC2012 that the accuracy of ImageNet's models is measured on, and those of a quick run.
MEASURED, QUICKLY = 500, 32


class Gallery(NamedTuple):
    """Photographs and models of them.

    Attributes:
        title: What they are, for captions.
        train: The photographs that methods are fitted on.
        test: Those that are explained and measured.
        subjects: The models, by name: a VGG and a ResNet, or one of them.
    """

    title: str
    train: Photographs
    test: Photographs
    subjects: dict[str, Subject]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every experiment on photographs."""
    parser.add_argument(
        "--photographs", choices=list(_GALLERIES), default="tiny-imagenet", help="the photographs, and their models"
    )
    parser.add_argument("--subjects", nargs="+", metavar="MODEL", help="only these: VGG, ResNet; VGG19, ResNet50")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="of VGG19 and ResNet50: a file that keras can load, or random, to try things out (default: imagenet, "
        "which keras downloads)",
    )


def load(args: argparse.Namespace) -> Gallery:
    """The photographs and models that the arguments ask for.

    Tiny ImageNet has a VGG and a ResNet of its own, trained if they are not
    cached: methods are fitted on its training photographs and measured on its
    validation photographs. ILSVRC2012 has VGG19 and ResNet50 of
    ``keras.applications``; its validation photographs serve for both, as in
    section 6.1.2.

    Raises:
        FileNotFoundError: If photographs or weights are not there, with what
            to do.
        ValueError: For a model that the photographs have not, weights that
            are another model's, and files that are not laid out as they
            should be.
    """
    return _GALLERIES[args.photographs](args)


def tiny_imagenet_of(args: argparse.Namespace) -> tuple[Photographs, Photographs]:
    """Tiny ImageNet's training and validation photographs.

    Args:
        args: The command's arguments: ``data_dir`` is read.

    Raises:
        FileNotFoundError: If they are not there, with what to do.
    """
    folder = _folder(
        args,
        "Tiny ImageNet",
        ("tiny-imagenet-200", "tiny-imagenet-20"),
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    )
    return tiny_imagenet(folder, "train"), tiny_imagenet(folder, "val")


def _tiny_imagenet(args: argparse.Namespace) -> Gallery:
    names = _chosen(args, photo_models.RECIPES)
    if args.weights:
        raise ValueError(
            f"expected --weights with --photographs ilsvrc alone, received {args.weights} for Tiny ImageNet, whose "
            "models are trained here; leave it out"
        )
    train, test = tiny_imagenet_of(args)
    less = QUICK if args.quick else {}
    subjects = {
        name: photo_models.trained(name, train, test, args.cache_dir, seed=args.seed, verbose=args.verbose, **less)
        for name in names
    }
    return Gallery(f"Tiny ImageNet, {len(train.names)} classes", train, test, subjects)


def _ilsvrc(args: argparse.Namespace) -> Gallery:
    names = _chosen(args, photo_models.APPLICATIONS)
    weights = dict.fromkeys(photo_models.APPLICATIONS, "imagenet")
    for given in args.weights:
        name, _, file = given.partition("=")
        if name not in weights or not file:
            raise ValueError(
                f"expected --weights {'=FILE '.join(weights)}=FILE, or one of them, received {given!r}; name the model"
            )
        weights[name] = file
    folder = _folder(
        args,
        "ILSVRC2012",
        ("ilsvrc2012", "ILSVRC2012"),
        "ILSVRC2012_img_val.tar, ILSVRC2012_bbox_val_v3.tgz and ILSVRC2012_devkit_t12.tar.gz of image-net.org",
    )
    photographs = ilsvrc.validation(folder)
    measured = photographs.evenly(QUICKLY if args.quick else MEASURED)
    subjects = {name: photo_models.application(name, weights[name], measured, seed=args.seed) for name in names}
    title = f"ILSVRC2012, {len(photographs.paths)} validation photographs, which methods are fitted on too"
    return Gallery(title, photographs, photographs, subjects)


_GALLERIES = {"tiny-imagenet": _tiny_imagenet, "ilsvrc": _ilsvrc}


def _chosen(args: argparse.Namespace, known: dict) -> list[str]:
    names = args.subjects or list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"expected --subjects of {', '.join(known)} for {args.photographs}, received {unknown[0]!r}; name one of "
            "these"
        )
    return names


def _folder(args: argparse.Namespace, what: str, names: tuple[str, ...], source: str) -> pathlib.Path:
    folder = data.find(args.data_dir, *names)
    if folder is None:
        raise FileNotFoundError(
            f"expected a folder {' or '.join(names)} in --data-dir or MIPIN_DATA_DIR, received none; {what} is not "
            f"downloaded: unpack {source} there"
        )
    return folder
