"""Checkpoint: a folder that holds what a fit has learned so far, so that a second one goes on from there."""

from __future__ import annotations

import hashlib
import json
import pathlib
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..whole import written

HEADER, STATE = "fit.json", "state.json"

# What reading a truncated or foreign file can raise.
_UNREADABLE: tuple[type[Exception], ...] = (ValueError, KeyError, IndexError, OSError, EOFError, TypeError)
_UNREADABLE += (AttributeError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)

Arrays = dict[int, tuple[np.ndarray, ...]]


class Checkpoint:
    """The finished pieces of one fit, in files that are whole or not there.

    ``fit.json`` says which fit the folder belongs to, ``state.json`` the small
    things that it knows, and each ``layer-*.npz`` holds one learned thing:
    arrays and JSON, never a pickle. Each file carries a mark of ``fit.json``,
    so that one of another fit is noticed. Killed at any point, a fit leaves a
    folder that a second one can go on from; two at once in one folder are not
    foreseen.

    Args:
        directory: The folder; made if missing.
        header: What the learned numbers depend on, for JSON: two fits of equal
            headers learn the same. Entries that are dicts are compared entry
            by entry.
        writes: False for all processes of a fit but one: these read alone, and
            nothing is made.

    Raises:
        TypeError: If JSON does not hold ``header``.
        ValueError: If the folder belongs to another fit, naming what differs;
            if it is no checkpoint and not empty; if it is a file.
    """

    def __init__(self, directory: Any, header: dict[str, Any], *, writes: bool = True):
        self.directory = pathlib.Path(directory)
        self.writes = writes
        text = json.dumps(header, sort_keys=True)
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(f"expected a folder for the checkpoint, received a file: {self.directory}")
        if (self.directory / HEADER).exists():
            text = self._check(json.loads(text))
        elif held := sorted({path.name for path in self.directory.glob("*")} - {path.name for path in self._partial()}):
            raise ValueError(
                f"expected an empty folder or one that a fit wrote ({HEADER}), received {self.directory}, which holds "
                f"{held[:3]}: give another folder"
            )
        elif writes:
            with written(self.directory / HEADER) as file:
                file.write(text.encode())
        self._mark = hashlib.sha256(text.encode()).hexdigest()
        if writes:
            for path in self._partial():
                path.unlink(missing_ok=True)

    def _partial(self) -> list[pathlib.Path]:
        """What a fit leaves that is killed as it writes."""
        names = (HEADER, STATE, "layer-*.npz")
        return [path for name in names for path in self.directory.glob(f".{name}.*.partial")]

    def _check(self, header: dict[str, Any]) -> str:
        """The header that is there, an equal one (1 is 1.0), as it is written."""
        path = self.directory / HEADER
        try:
            found = json.loads(path.read_bytes())
            differing = list(_differing(found, header))
        except _UNREADABLE as problem:
            raise self._foreign(path, "give another folder, or delete this one to fit anew") from problem
        if differing:
            raise ValueError(
                f"the checkpoint {self.directory} is of another fit: {'; '.join(differing)}; give another folder, or "
                "delete this one to fit anew"
            )
        return json.dumps(found, sort_keys=True)

    def _foreign(self, path: pathlib.Path, advice: str = "delete it, and what it held is fitted again") -> ValueError:
        return ValueError(
            f"expected a file that this fit wrote, received {path}, which is of another one or is truncated; {advice}"
        )

    def load(self) -> dict[str, tuple[Arrays, list[dict[str, Any]]]]:
        """All finished pieces: by key, the weights by class, and the lines of the report.

        Raises:
            ValueError: If a file is truncated or of another fit, naming it.
        """
        pieces = {}
        for path in sorted(self.directory.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as file:
                    about = json.loads(str(file["about"][()]))
                    weights = {
                        int(c): tuple(file[f"{c}/{i}"] for i in range(size)) for c, size in about["classes"].items()
                    }
                mark, key, report = about["mark"], about["key"], about["report"]
            except _UNREADABLE as problem:
                raise self._foreign(path) from problem
            if mark != self._mark or path.name != _file_of(key):
                raise self._foreign(path)
            pieces[key] = weights, report
        return pieces

    def write(self, key: str, weights: Arrays, report: list[dict[str, Any]]) -> None:
        """Keep one finished piece, in place of one of the same key.

        Args:
            key: Any text, such as a layer's name.
            weights: By class, arrays (or what NumPy makes arrays of).
            report: For JSON; NumPy's numbers are taken too.

        Raises:
            OSError: If it cannot be written; what stood there before stays.
        """
        if not self.writes:
            return
        arrays = {f"{c}/{i}": np.asarray(w) for c, ws in weights.items() for i, w in enumerate(ws)}
        classes = {int(c): len(ws) for c, ws in weights.items()}
        about = {"mark": self._mark, "key": key, "classes": classes, "report": report}
        text = np.array(json.dumps(about, default=_plain))
        with written(self.directory / _file_of(key)) as file:
            np.savez(file, about=text, **arrays)  # type: ignore[arg-type]

    def state(self) -> dict[str, Any]:
        """What :meth:`note` noted; empty before.

        Raises:
            ValueError: If the file is truncated or of another fit.
        """
        path = self.directory / STATE
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_bytes())
            mark, state = found["mark"], found["state"]
        except _UNREADABLE as problem:
            raise self._foreign(path) from problem
        if mark != self._mark:
            raise self._foreign(path)
        return state

    def note(self, known: dict[str, Any]) -> None:
        """Keep small things for :meth:`state`, beside those noted before."""
        if not self.writes:
            return
        text = json.dumps({"mark": self._mark, "state": self.state() | known}, default=_plain)
        with written(self.directory / STATE) as file:
            file.write(text.encode())


def _file_of(key: str) -> str:
    """A file name for any key: readable, short, and another one for each key on any file system."""
    name = urllib.parse.quote(key, safe=" ")[:80]
    return f"layer-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON holds them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected what JSON holds, received {type(value).__name__}")


# How a differing entry is called, where its values say nothing.
_NAMES = {
    "fingerprint": "it has another model, or other weights of this one",
    "data.first": "its data began with another batch",
}


def _differing(found: dict[str, Any], here: dict[str, Any], within: str = "") -> Iterator[str]:
    """What differs between two headers, in words."""
    missing = object()
    for name in sorted(found.keys() | here.keys()):
        a, b = found.get(name, missing), here.get(name, missing)
        name = within + name
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differing(a, b, f"{name}.")
        elif a != b:
            a, b = ("nothing" if value is missing else repr(value) for value in (a, b))
            yield _NAMES.get(name, f"{name} was {a}, is {b} here")
