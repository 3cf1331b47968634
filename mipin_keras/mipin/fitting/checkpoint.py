"""Checkpoint: a folder that holds what a fit has learned so far, so that a second one goes on from there."""

from __future__ import annotations

import hashlib
import json
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from ...saving import lock, npz
from ...saving.atomic import written
from ...saving.npz import DamagedFileError

HEADER, STATE = "fit.json", "state.json"
#: The layout of the folder; version 0.1 wrote none.
FORMAT = 2

Arrays = dict[int, tuple[np.ndarray, ...]]


class Checkpoint:
    """The finished pieces of one fit, in files that are complete or not there.

    ``fit.json`` holds what the fit depends on, ``state.json`` what it has
    counted so far, and each ``layer-*.npz`` holds one learned thing:
    arrays and JSON, never a pickle. Each file carries a mark of ``fit.json``,
    so that one of another fit is noticed, and a digest of what it holds.
    Killed at any point, a fit leaves a folder that a second one can go on from.

    It is a context: within it no other process writes in the folder.

    Args:
        directory: The folder; made if missing.
        header: What the learned numbers depend on, for JSON: two fits of equal
            headers learn the same. Entries that are dicts are compared entry
            by entry.
        model: Says in words what differs between the model here and that of a
            header, which is then not compared by ``fingerprint`` and
            ``probe``.
        writes: False for all processes of a fit but one: these read alone, and
            nothing is made.

    Raises:
        TypeError: If JSON does not hold ``header``.
        ValueError: If the folder belongs to another fit, naming what differs;
            if it is no checkpoint and not empty; if it is a file; on entering,
            if another process writes there.

    Attributes:
        old: Whether version 0.1 began it, whose files hold less.
    """

    def __init__(
        self,
        directory: Any,
        header: dict[str, Any],
        *,
        model: Callable[[dict[str, Any]], list[str]] | None = None,
        writes: bool = True,
    ):
        self.directory = pathlib.Path(directory)
        self.writes = writes
        self.old = False
        self._model = model
        self._lock: lock.FolderLock | None = None
        text = json.dumps(header, sort_keys=True)
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(
                f"expected a folder for the checkpoint, received a file: {self.directory}; give another path"
            )
        own = {lock.NAME, *(path.name for path in self._partial())}
        if (self.directory / HEADER).exists():
            text = self._check(json.loads(text))
        elif held := sorted({path.name for path in self.directory.glob("*")} - own):
            raise ValueError(
                f"expected an empty folder or one that a fit wrote ({HEADER}), received {self.directory}, which holds "
                f"{held[:3]}; give another folder"
            )
        elif writes:
            with written(self.directory / HEADER) as file:
                file.write(text.encode())
        self._text = text
        self._mark = hashlib.sha256(text.encode()).hexdigest()

    def __enter__(self) -> Self:
        if self.writes:
            entered = lock.FolderLock(self.directory).__enter__()
            try:
                if json.dumps(self._read(self.directory / HEADER), sort_keys=True) != self._text:
                    raise ValueError(
                        f"expected the checkpoint {self.directory} of this fit, received that of another fit, which "
                        "began meanwhile; give another folder"
                    )
                for path in self._partial():
                    path.unlink(missing_ok=True)
            except BaseException:
                entered.__exit__()
                raise
            self._lock = entered
        return self

    def __exit__(self, *problem: object) -> None:
        if self._lock is not None:
            self._lock.__exit__()
            self._lock = None

    def touch(self) -> None:
        """Show other hosts that the fit goes on."""
        if self._lock is not None:
            self._lock.touch()

    def _partial(self) -> list[pathlib.Path]:
        """What a fit leaves that is killed as it writes."""
        names = (HEADER, STATE, "layer-*.npz", lock.NAME)
        return [path for name in names for path in self.directory.glob(f".{name}.*.partial")]

    def _check(self, header: dict[str, Any]) -> str:
        """The header that is there, an equal one (1 is 1.0), as it is written."""
        path = self.directory / HEADER
        anew = "give another folder, or delete this one to fit anew"
        found = self._read(path, anew)
        self.old = "format" not in found and str(found.get("version", "")).startswith("0.1.")
        apart = {"version", "format"} if self.old else set()
        if self._model is not None:
            apart |= {"fingerprint", "probe"}
        kept, here = ({k: v for k, v in one.items() if k not in apart} for one in (found, header))
        differing = list(_differing(kept, here))
        if self._model is not None:
            differing += self._model(found)
        if differing:
            raise ValueError(
                f"expected a checkpoint of this fit, received {self.directory}, which is of another fit: "
                f"{'; '.join(differing)}; {anew}"
            )
        return json.dumps(found, sort_keys=True)

    def _read(self, path: pathlib.Path, advice: str = "delete it, and what it held is fitted again") -> dict[str, Any]:
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as problem:
            raise self._foreign(path, advice) from problem
        if not isinstance(found, dict):
            raise self._foreign(path, advice)
        return found

    def _foreign(self, path: pathlib.Path, advice: str = "delete it, and what it held is fitted again") -> ValueError:
        return DamagedFileError(
            f"expected a file that this fit wrote, received {path}, which is of another one or is damaged; {advice}"
        )

    def load(self) -> dict[str, tuple[Arrays, list[dict[str, Any]]]]:
        """All finished pieces: by key, the weights by class, and the lines of the report.

        Raises:
            ValueError: If a file is damaged or of another fit, naming it.
        """
        pieces = {}
        for path in sorted(self.directory.glob("*.npz")):
            try:
                with npz.Reader(path, *(("about",) if self.old else ())) as file:
                    about = file.header
                    sizes = {int(c): int(size) for c, size in about["classes"].items()}
                    if sum(sizes.values()) != len(file.shapes) or not isinstance(about["report"], list):
                        raise self._foreign(path)
                    names = {f"{c}/{i}" for c, size in sizes.items() for i in range(size)}
                    shapes = file.shapes
                    arrays = file.arrays({name: shapes[name] for name in names}, None)
                    if file.listed is None and not self.old:
                        raise self._foreign(path)
                weights = {c: tuple(arrays[f"{c}/{i}"] for i in range(size)) for c, size in sizes.items()}
                mark, key, report = about["mark"], about["key"], about["report"]
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
                raise self._foreign(path) from problem
            if mark != self._mark or path.name != _file_of(str(key)):
                raise self._foreign(path)
            pieces[key] = weights, report
        return pieces

    def write(self, key: str, weights: Arrays, report: list[dict[str, Any]]) -> None:
        """Write one finished piece, instead of one of the same key.

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
        npz.write(self.directory / _file_of(key), json.loads(json.dumps(about, default=_plain)), arrays)
        self.touch()

    def state(self) -> dict[str, Any]:
        """What :meth:`note` noted; empty before.

        Raises:
            ValueError: If the file is damaged or of another fit.
        """
        path = self.directory / STATE
        if not path.exists():
            return {}
        found = self._read(path)
        state = found.get("state")
        digested = self._digest(state) == found.get("digest") or (self.old and "digest" not in found)
        if found.get("mark") != self._mark or not isinstance(state, dict) or not digested:
            raise self._foreign(path)
        return state

    def note(self, known: dict[str, Any]) -> None:
        """Keep small things for :meth:`state`, beside those noted before."""
        if not self.writes:
            return
        state = json.loads(json.dumps(self.state() | known, default=_plain))
        text = json.dumps({"mark": self._mark, "state": state, "digest": self._digest(state)})
        with written(self.directory / STATE) as file:
            file.write(text.encode())

    def _digest(self, state: Any) -> str:
        return hashlib.sha256(json.dumps([self._mark, state], sort_keys=True).encode()).hexdigest()


def _file_of(key: str) -> str:
    """A file name for any key: readable, short, and another one for each key on any file system."""
    name = urllib.parse.quote(key, safe=" ")[:80]
    return f"layer-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON holds them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected what JSON holds, received {type(value).__name__}; give plain numbers and text")


# What a differing entry is called where its values mean nothing to a reader.
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
