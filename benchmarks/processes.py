"""Peak memory: what is measured runs in a process of its own, so that nothing else has raised the peak before."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def peak_memory() -> int:
    """The most resident memory that this process has taken so far, in bytes."""
    # ru_maxrss counts in KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def in_own_process(benchmark: str, **options: Any) -> Any:
    """Run a benchmark in a process of its own.

    Args:
        benchmark: The benchmark's name on the command line.
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
    return json.loads(output_of(argv).strip().splitlines()[-1])


def output_of(argv: list[str]) -> str:
    """What ``python -m benchmarks`` prints with the arguments ``argv``."""
    command = [sys.executable, "-m", "benchmarks", *argv]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as problem:
        problem.add_note(problem.stderr)
        raise
