"""Peak memory: what is measured runs in a process of its own, so that nothing else has raised the peak before."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

#: What limits the threads of NumPy's products and of TensorFlow; they read it when they are imported.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

_STATUS = pathlib.Path("/proc/self/status")
_FORGET = pathlib.Path("/proc/self/clear_refs")


def peak_memory() -> int:
    """The most resident memory that this process has taken so far, in bytes."""
    # On Linux, ru_maxrss counts in what the process that started this one had taken when it did so.
    if (found := _status("VmHWM")) is not None:
        return found
    # ru_maxrss counts in KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def forget_peak() -> int:
    """Let :func:`peak_memory` count from here on alone, where the system can do that.

    Returns:
        The memory to subtract from a later peak, in bytes: what is resident
        now, or, where the peak stays as it was, that peak.
    """
    try:
        _FORGET.write_text("5")
    except OSError:  # no Linux, or one that does not let us
        return peak_memory()
    return _status("VmRSS") or peak_memory()


def _status(name: str) -> int | None:
    """A number of bytes that Linux tells of this process; None elsewhere."""
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB
    return None


def with_threads(count: int | None) -> dict[str, str]:
    """The environment of this process, for one that takes ``count`` threads; None for as many as there are cores."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    return environment if count is None else environment | dict.fromkeys(THREADS, str(count))


def in_own_process(benchmark: str, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
    """Run a benchmark in a process of its own.

    Args:
        benchmark: The benchmark's name on the command line.
        environment: Of the process; None for that of this one.
        **options: Its options, ``fit_to=path`` for ``--fit-to PATH``; a list
            for an option that takes several words.

    Returns:
        What the last line that it prints holds as JSON.

    Raises:
        subprocess.CalledProcessError: If the process fails, with what it
            printed as a note and in ``stderr``.
    """
    argv = [benchmark]
    for name, value in options.items():
        words = value if isinstance(value, list | tuple) else [value]
        argv += [f"--{name.replace('_', '-')}", *map(str, words)]
    printed = output_of(argv) if environment is None else output_of(argv, environment)
    return json.loads(printed.strip().splitlines()[-1])


def output_of(argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What ``python -m benchmarks`` prints with the arguments ``argv``, in the environment that is given."""
    command = [sys.executable, "-m", "benchmarks", *argv]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    except subprocess.CalledProcessError as problem:
        problem.add_note(problem.stderr)
        raise
