"""Atomic writes: a file is complete or not there, as it is written beside its path and then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import time
import uuid
from collections.abc import Iterator
from typing import IO

#: The age in seconds at which an unchanged partial file counts as left by a killed writer.
ABANDONED = 3600.0
# A file name may have 255 bytes; a partial file's name adds 43 to the path's own.
_LONGEST = 200


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes ``path``'s name once it is complete; missing folders are made.

    Whatever interrupts the writing leaves the earlier file at ``path``, and
    nothing beside it. Each writer has a file of its own, so that several may
    write one path at once: the file of the last to finish stays. The partial
    file of a killed writer of the same path is removed when it is an hour old.

    Args:
        path: The file to write.

    Yields:
        The open file.

    Raises:
        OSError: If the file cannot be written; the message names the path.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{_stem(path)}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in leftovers(path):
            left.unlink(missing_ok=True)
        try:
            with open(partial, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as problem:
        raise _naming(path, problem) from problem


def leftovers(path: pathlib.Path) -> list[pathlib.Path]:
    """The partial files of killed writers of ``path``: those that have not changed for an hour."""
    # Version 0.1 wrote the id of the process where the name has random digits now.
    name = re.compile(rf"\.{re.escape(_stem(path))}\.([0-9a-f]{{32}}|[0-9]+)\.partial")
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if name.fullmatch(entry.name) and entry.stat().st_mtime < time.time() - ABANDONED:
                found.append(path.with_name(entry.name))
    return found


def _stem(path: pathlib.Path) -> str:
    """The path's name, or its hash where the name has no room for more."""
    name = path.name
    return name if len(os.fsencode(name)) <= _LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()


def _naming(path: pathlib.Path, problem: OSError) -> OSError:
    """The same error with the path in it: that of a full disk names no path, and NumPy's has no error number either."""
    if problem.errno is None:
        return OSError(f"cannot write {path}: {problem}")
    return type(problem)(problem.errno, f"cannot write: {problem.strerror}", str(path))
