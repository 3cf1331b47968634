"""Serialization: an analyzer is saved to one ``.npz`` file of arrays and JSON, and loaded from it."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from .._version import __version__
from ..graph.model_graph import ModelGraph
from . import fingerprint, legacy, npz, probe
from .identity import ModelIdentity
from .npz import DamagedFileError

#: The mark in the header by which a file of an analyzer is recognised, and the version of its layout.
MAGIC = "mipin_keras analyzer"
FORMAT = 2
# The layout of version 0.1: without digests, and with a fingerprint that does not depend on some settings.
_OLD_FORMAT = 1


class Serializable:
    """The part of an analyzer that is saved to a file, and loaded from it onto the same model.

    Attributes:
        name: The analyzer's name in the registry.
        options: The options that the analyzer was created with.
        graph: The model's steps.
        identity: The model that the fit belongs to, as it was then; None
            before a fit, and for a method that needs none.
    """

    name: str
    options: dict[str, Any]
    graph: ModelGraph
    identity: ModelIdentity | None = None
    #: Options that change how an analysis reads a fit, and may differ from the file's on loading.
    _loose: ClassVar[frozenset[str]] = frozenset({"neuron_selection_mode", "verbose"})

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The result of a fit: float32 arrays by name, and a dict for JSON."""
        return {}, {}

    def _shapes(self, about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the arrays that :meth:`_state` gives beside this dict."""
        return {}

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Take over the arrays and the dict that :meth:`_state` gave."""

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the analyzer to one ``.npz`` file of arrays and JSON.

        The file is written beside ``path`` and renamed, so that a file of
        that name is always complete; several processes may write it at once.
        It holds a fingerprint of the model, not the model.

        Returns:
            The path.

        Raises:
            NotFittedError: Before a fit, and if the model has changed since.
            OSError: If the file cannot be written; an earlier file stays.
            ValueError: If an option is a callable or another object that
                JSON does not hold.
        """
        try:
            json.dumps(self.options)
        except TypeError as problem:
            odd = {name: value for name, value in self.options.items() if not _is_json(value)}
            raise ValueError(
                f"expected options that a file can hold, received {odd}; give names and numbers in place of functions "
                "and objects"
            ) from problem
        arrays, about = self._state()
        if self.identity is not None:
            self.identity.check_structure()
        belongs = ModelIdentity(self.graph) if self.identity is None else self.identity
        header = {
            "magic": MAGIC,
            "format": FORMAT,
            "version": __version__,
            "name": self.name,
            "options": self.options,
            "fingerprint": belongs.fingerprint,
            "probe": belongs.probe,
            "about": about,
        }
        path = pathlib.Path(path)
        npz.write(path, header, {f"array/{name}": array for name, array in arrays.items()})
        return path

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Take over a fit that :meth:`save` wrote, of the same method and model.

        Returns:
            The analyzer.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or not of this package, of
                another layout, method, model or options.
        """
        with open_file(path) as file:
            self._take_over(file)
        return self

    def _take_over(self, file: npz.Reader) -> None:
        header = file.header
        if header["name"] != self.name:
            raise ValueError(
                f"expected a file of {self.name!r}, received one of {header['name']!r}: {file.path}; load it with "
                "mipin_keras.load_analyzer(path, model)"
            )
        differing = [
            f"{key}={value!r} in the file, {self.options.get(key)!r} here"
            for key, value in header["options"].items()
            if key not in self._loose and self.options.get(key) != value
        ]
        if differing:
            raise ValueError(
                f"expected a fit with the options given here, received {file.path} with other options: "
                f"{', and '.join(differing)}; create the analyzer with the options of the file"
            )
        identity = ModelIdentity(self.graph)
        try:
            differing = model_differences(header, self.graph, identity)
        except ValueError as problem:
            raise ValueError(f"{file.path}: {problem}") from problem
        if differing:
            raise ValueError(
                f"expected a fit to this model, received {file.path}, which was fitted to another model, or to other "
                f"weights of this one ({'; '.join(differing)}); load it onto the model it was fitted to, or fit again"
            )
        about = header["about"]
        shapes = _checked(file.path, self.name, lambda: self._shapes(about))
        arrays = file.arrays({f"array/{name}": shape for name, shape in shapes.items()})
        found = {name.removeprefix("array/"): array for name, array in arrays.items()}
        _checked(file.path, self.name, lambda: self._restore(found, about))
        self.identity = identity if found else None


def _checked(path: pathlib.Path, name: str, take: Callable[[], Any]) -> Any:
    """The result of ``take()``, which reads a file's JSON; as that may hold anything, an error is one of the file."""
    try:
        return take()
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError, RecursionError) as problem:
        raise DamagedFileError(
            f"expected a file of a fit of {name!r}, received {path}, which does not hold what a fit of {name!r} is "
            f"made of: {problem!r}; fit and save again"
        ) from problem


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def model_differences(header: dict[str, Any], graph: ModelGraph, identity: ModelIdentity) -> list[str]:
    """The differences, in words, between the model that a file or a checkpoint was fitted to and the model here.

    Args:
        header: The header of the file, with the ``fingerprint`` and the
            ``probe``.
        graph: The steps of the model here.
        identity: The identity of the model here.

    Returns:
        One clause for each difference; none where the models are the same.

    Raises:
        ValueError: If version 0.1 wrote the file, and the file does not hold
            enough to tell.
    """
    stored = header.get("fingerprint")
    if isinstance(stored, str):  # of version 0.1
        if stored != legacy.fingerprint(graph):
            return ["it has other layers, settings or weights"]
        if not legacy.suffices(graph):
            raise ValueError(
                "expected a file that tells its model from all others, received one made by version 0.1, whose files "
                "do not say enough of the model: fit again"
            )
        return []
    if not isinstance(stored, dict):
        return ["the file does not say which"]
    found = fingerprint.differences(stored, identity.fingerprint)
    if not found and not _agree(header.get("probe"), identity.probe):
        found = ["it computes something else on the same input"]
    return found


def _agree(found: Any, here: dict[str, Any] | None) -> bool:
    try:
        return probe.agree(found, here)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # not what a probe is
        return False


def open_file(path: str | os.PathLike[str]) -> npz.Reader:
    """Open a file that :meth:`Serializable.save` wrote, and check its header.

    Returns:
        The open file; its arrays are not read yet.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, not of this package, or of a
            layout that this version does not know.
    """
    file = npz.Reader(path)
    try:
        header = file.header
        if header.get("magic") != MAGIC:
            raise DamagedFileError(
                f"expected a file that an analyzer's save() wrote, received {path}, which is none; give the path that "
                "save() returned"
            )
        if header.get("format") not in (FORMAT, _OLD_FORMAT):
            raise ValueError(
                f"expected a file of layout {_OLD_FORMAT} or {FORMAT}, which this version ({__version__}) reads, "
                f"received {path}, which has layout {header.get('format')} of mipin_keras {header.get('version')}; "
                "fit again, or install the version that wrote it"
            )
        # A file of version 0.1 has no digest to compare with; a file of today's layout must have one.
        types = {"name": str, "options": dict, "about": dict, "version": str}
        wrong = [key for key, expected in types.items() if not isinstance(header.get(key), expected)]
        if wrong or (header["format"] == FORMAT) != ("digest" in header):
            raise DamagedFileError(
                f"expected a file that an analyzer's save() wrote, received {path}, which is damaged: its header lacks "
                f"{wrong or ['digest']}; fit and save again"
            )
    except BaseException:
        file.__exit__()
        raise
    return file
