"""The file that an analyzer is saved to: arrays and JSON in one ``.npz``."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
import zlib
from typing import Any, ClassVar, Self

import numpy as np

from . import whole
from ._version import __version__
from .graph import ModelGraph

# What a file says it is, and the version of its layout.
MAGIC = "mipin_keras analyzer"
FORMAT = 1


class Archived:
    """What can be saved to a file, and loaded from it onto the same model.

    Attributes:
        name: The name in the catalogue.
        options: What it was made with.
        graph: The model's steps.
    """

    name: str
    options: dict[str, Any]
    graph: ModelGraph
    #: Options that change how an analysis reads a fit, and may differ from the file's on loading.
    _loose: ClassVar[frozenset[str]] = frozenset({"neuron_selection_mode", "verbose"})

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a fit found: arrays by name, and JSON."""
        return {}, {}

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Take back what :meth:`_state` gave."""

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the analyzer to one ``.npz`` file of arrays and JSON.

        The file is written beside ``path`` and renamed, so that a file of
        that name is always whole. It carries a fingerprint of the model, not
        the model.

        Returns:
            The path.

        Raises:
            ValueError: If an option is a callable or another object that
                JSON does not hold.
        """
        try:
            json.dumps(self.options)
        except TypeError as problem:
            odd = {name: value for name, value in self.options.items() if not _is_json(value)}
            raise ValueError(f"expected options that a file can hold, received {odd}") from problem
        arrays, about = self._state()
        header = {
            "magic": MAGIC,
            "format": FORMAT,
            "version": __version__,
            "name": self.name,
            "options": self.options,
            "fingerprint": self.graph.fingerprint(),
            "about": about,
        }
        path = pathlib.Path(path)
        named: dict[str, Any] = {f"array/{k}": v for k, v in arrays.items()}
        with whole.written(path) as file:
            np.savez(file, header=np.array(json.dumps(header)), **named)
        return path

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Take over a fit that :meth:`save` wrote, of the same method and model.

        Returns:
            The analyzer.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is truncated or not of this package, of
                another layout, method, model or options.
        """
        header, arrays = read_file(path)
        if header["name"] != self.name:
            raise ValueError(f"expected a file of {self.name!r}, received one of {header['name']!r}: {path}")
        differing = [
            f"{key}={value!r} in the file, {self.options.get(key)!r} here"
            for key, value in header["options"].items()
            if key not in self._loose and self.options.get(key) != value
        ]
        if differing:
            raise ValueError(f"{path} was fitted with other options: {'; '.join(differing)}")
        check_fingerprint(header, self.graph, path)
        try:
            self._restore(arrays, header["about"])
        except (KeyError, TypeError, IndexError, ValueError) as problem:
            raise ValueError(f"{path} does not hold what a fit of {self.name!r} is made of: {problem!r}") from problem
        return self


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def check_fingerprint(header: dict[str, Any], graph: ModelGraph, path: Any) -> None:
    """Raise ValueError unless a file was fitted to this model with these weights."""
    if header["fingerprint"] != graph.fingerprint():
        raise ValueError(
            f"{path} was fitted to another model, or to other weights of this one; load it onto the model it was "
            "fitted to, or fit again"
        )


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and arrays of a file that :meth:`Analyzer.save` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, not of this package, or of a
            layout that this version does not know.
    """
    foreign = f"expected a file that an analyzer's save() wrote, received {path}, which is none or is truncated"
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"][()]))
            arrays = {key.removeprefix("array/"): file[key] for key in file.files if key != "header"}
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, IndexError, OSError, EOFError, TypeError, AttributeError) as problem:
        raise ValueError(foreign) from problem
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as problem:
        raise ValueError(foreign) from problem
    if not isinstance(header, dict) or header.get("magic") != MAGIC:
        raise ValueError(foreign)
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has layout {header.get('format')} of mipin_keras {header.get('version')}; this version "
            f"({__version__}) reads layout {FORMAT}: fit again, or install the version that wrote it"
        )
    if not (header.keys() >= {"name", "options", "fingerprint", "about"} and isinstance(header["options"], dict)):
        raise ValueError(foreign)
    return header, arrays
