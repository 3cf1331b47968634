"""Command-line arguments that several commands share."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterable


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-dir`` and ``--cache-dir``."""
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder with the data sets")
    parser.add_argument("--cache-dir", type=pathlib.Path, help="trained models (default: DATA_DIR/models)")


def cache_dir(args: argparse.Namespace) -> pathlib.Path:
    """The folder of trained models: ``--cache-dir``, or else ``models`` in ``--data-dir`` or in Keras' own folder."""
    if args.cache_dir is not None:
        return args.cache_dir
    return (args.data_dir or pathlib.Path.home() / ".keras" / "mipin_keras") / "models"


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=int, default=0)


def add_out(parser: argparse.ArgumentParser, default: pathlib.Path, what: str) -> None:
    """Add ``--out``, a folder of results; ``what`` is its help."""
    parser.add_argument("--out", type=pathlib.Path, default=default, help=what)


def add_quick(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the switch ``--quick``; ``what`` is its help."""
    parser.add_argument("--quick", action="store_true", help=what)


def add_models(parser: argparse.ArgumentParser, known: Iterable[str], default: Iterable[str] | None = None) -> None:
    """Add ``--models``: some of the ``known`` ones; those of ``default`` if it is not given, or all."""
    names = list(known)
    given = names if default is None else list(default)
    parser.add_argument("--models", nargs="+", choices=names, default=given, help="only these models")


def check_positive(args: argparse.Namespace, *names: str) -> None:
    """Raise ValueError if one of the options ``names`` is given and below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"expected {option} to be at least 1, received {value}; give a larger one")
