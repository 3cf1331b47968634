"""FolderLock: one process at a time writes in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import types
import uuid
from collections.abc import Iterator
from typing import Any, Self

fcntl: types.ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "in-use.lock"
#: The seconds without a touch after which a lock of another host counts as left by a process that is gone.
SILENT = 3600.0
# The seconds between two touches.
_EVERY = 30.0

_held: set[str] = set()
_holding = threading.Lock()


class FolderLock:
    """A lock file that names the process, and its host, that works in a folder.

    A process that was killed leaves its lock. The next process takes it over
    when that process is gone: on this host, when no process has its id, or one
    that began at another time; on another host, when the lock has not been
    touched for an hour.

    Args:
        folder: An existing folder.

    Raises:
        ValueError: On entering, if another process, or another thread of this
            one, works there; the message names it.
    """

    def __init__(self, folder: pathlib.Path):
        self.path = folder / NAME
        self._key = str(folder.resolve() / NAME)
        self._touched = 0.0

    def __enter__(self) -> Self:
        with _holding:
            if self._key in _held:
                raise self._in_use("another fit of this process")
            self._take()
            _held.add(self._key)
        return self

    def __exit__(self, *problem: object) -> None:
        with _holding:
            _held.discard(self._key)
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Show other hosts that this process is alive; the file is touched at most twice a minute."""
        if time.monotonic() > self._touched + _EVERY:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _take(self) -> None:
        own = {"pid": os.getpid(), "host": socket.gethostname(), "began": _began(os.getpid())}
        with _alone(self.path.parent):
            if self._is_stale(own):
                self.path.unlink(missing_ok=True)
            try:
                with open(self.path, "x") as file:
                    json.dump(own, file)
            except FileExistsError:  # where _alone keeps nobody out
                raise self._in_use("another process, which has just begun") from None

    def _is_stale(self, own: dict[str, Any]) -> bool:
        """Whether there is no lock, or the lock of a process that is gone; raise if that process works still."""
        try:
            text = self.path.read_text(errors="replace")
            silent = _now_of(self.path.parent) - self.path.stat().st_mtime
        except FileNotFoundError:
            return True
        try:
            other = json.loads(text)
            pid, host, began = int(other["pid"]), str(other["host"]), other["began"]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # it was killed, or is about to write
            if silent < _EVERY:
                raise self._in_use("another process, which has just begun") from None
            return True
        here = host == own["host"]
        gone = (pid == own["pid"] or _began(pid) != began) if here else silent > SILENT
        if not gone:
            raise self._in_use(f"process {pid}{'' if here else f' on host {host}'}")
        return True

    def _in_use(self, who: str) -> ValueError:
        return ValueError(
            f"expected a folder that nobody else writes in, received {self.path.parent}, in use by {who}; wait for it, "
            f"give another folder, or, if it is gone, delete {self.path}"
        )


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """A context in which no other process reads the folder's lock, so that only one of several takes over a stale one.

    The operating system releases this when a process ends. It keeps nobody out
    on systems and file systems that cannot lock a folder.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _began(pid: int) -> str | None:
    """The time at which a process began, in the system's own unit; "" if unknown, None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b")", 1)[1].split()[19].decode()
    except (OSError, IndexError):
        pass
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it is another user's
        pass
    return ""


def _now_of(folder: pathlib.Path) -> float:
    """The time in seconds by the clock of the folder's file system, which may be another host's."""
    mark = folder / f".{NAME}.{uuid.uuid4().hex}.partial"
    try:
        mark.touch()
        return mark.stat().st_mtime
    finally:
        mark.unlink(missing_ok=True)
