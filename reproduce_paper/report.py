"""What every experiment writes: a result as JSON, a page as Markdown and pictures, each with the command behind it."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import re
import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras.plotting import plot
from mipin_keras.saving.atomic import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parent / "results"
QUICK = "A quick run: small models on few images. Its numbers say that the code runs, and nothing more."


class Beside(NamedTuple):
    """A number of the paper beside ours, for REPRODUCTION.md.

    Attributes:
        where: ``"Table 2"``, ``"Appendix B"``.
        what: ``"MIP-IN, VGG19"``.
        paper: As printed there; ``"-"`` where it gives none.
        ours: With its unit and, where there is one, its interval.
        setting: The data and model of ours, and what differs.
    """

    where: str
    what: str
    paper: str
    ours: str
    setting: str


class Experiment:
    """Writes ``NAME.json``, ``NAME.md`` and pictures of an experiment; ``NAME-quick.*`` of a quick run.

    Args:
        name: The name of the experiment.
        args: The command's arguments: ``quick``, ``seed``, ``out`` and
            ``command_line`` are read.

    Attributes:
        result: The result that is written as JSON. ``picture`` adds
            ``pictures`` to it, ``write`` adds ``seconds``.
    """

    def __init__(self, name: str, args: argparse.Namespace):
        self.name = f"{name}-quick" if args.quick else name
        self.out = pathlib.Path(args.out)
        self._start = time.perf_counter()
        self.result: dict[str, Any] = {
            "experiment": name,
            "quick": args.quick,
            "seed": args.seed,
            "command": args.command_line,
            "environment": environment(),
        }
        if args.quick:
            print(f"{name}: a QUICK run: small models on few images; its numbers mean nothing", flush=True)

    def log(self, text: str) -> None:
        """Print a line of progress, with the seconds since the start."""
        print(f"{self.name}: {text} ({time.perf_counter() - self._start:.0f} s)", flush=True)

    def picture(self, figure: Figure, suffix: str = "", dpi: float = 150) -> str:
        """Save a picture as ``NAME.png`` or ``NAME-SUFFIX.png``; returns the name of the file, for a link to it."""
        file = f"{self.name}-{suffix}.png" if suffix else f"{self.name}.png"
        plot.save(figure, self.out / file, dpi)
        self.result.setdefault("pictures", []).append(file)
        return file

    def write(self, markdown: str) -> pathlib.Path:
        """Write the result and its page; print the page.

        Args:
            markdown: The page, with its title in the first line. The
                command, versions and machine are added below it.
        """
        self.result["seconds"] = round(time.perf_counter() - self._start, 1)
        write_json(self.out / f"{self.name}.json", self.result)
        path = write(self.out / f"{self.name}.md", f"{markdown.rstrip()}\n\n{made_by(self.result)}\n")
        print(path.read_text(), flush=True)
        return path


def made_by(result: Mapping[str, Any]) -> str:
    """The last lines of a page: command, seed, time, versions and machine, and the result's ``note`` if it has one."""
    versions = ", ".join(f"{key} {value}" for key, value in result["environment"].items())
    text = f"Made by `{result['command']}`, seed {result['seed']}, in {result['seconds']:.0f} s; {versions}."
    text += f" {result['note']}" if "note" in result else ""
    return f"**{QUICK}** {text}" if result["quick"] else text


def environment() -> dict[str, str]:
    """The versions and the machine that a result was made with."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    return {
        "mipin_keras": mipin_keras.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {gpus} GPUs",
    }


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """Write a text file atomically."""
    with written(path) as file:
        file.write(text.encode())
    return path


def command_line(program: str, argv: list[str]) -> str:
    """The command as a reader would type it; ``DIR`` stands for the folders of this machine."""
    folders = ("--data-dir", "--cache-dir", "--out")
    words = ["DIR" if i and argv[i - 1] in folders else re.sub("=.*/", "=DIR/", word) for i, word in enumerate(argv)]
    return f"{program} {shlex.join(words)}"


def write_json(path: pathlib.Path, result: dict[str, Any]) -> pathlib.Path:
    """Write a result as JSON; NaN and infinity, which JSON does not have, are written as null."""
    return write(path, json.dumps(_plain(result), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table, columns aligned for reading as text too."""
    cells = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
