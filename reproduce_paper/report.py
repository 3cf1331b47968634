"""What every experiment writes: JSON and Markdown, beside and renamed, with what made them."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import shlex
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mipin_keras
from mipin_keras.whole import written

RESULTS = pathlib.Path(__file__).parent / "results"


def environment() -> dict[str, str]:
    """Versions and machine, for the record of a result."""
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
    """Write a text file whole or not at all."""
    with written(path) as file:
        file.write(text.encode())
    return path


def command_line(program: str, argv: list[str]) -> str:
    """The command as a reader would type it, folders of this machine replaced by DIR."""
    folders = ("--data-dir", "--cache-dir", "--out")
    return f"{program} {shlex.join('DIR' if i and argv[i - 1] in folders else word for i, word in enumerate(argv))}"


def write_json(path: pathlib.Path, result: dict[str, Any]) -> pathlib.Path:
    """Write a result as JSON; NaN is written as null, which JSON has."""
    return write(path, json.dumps(_plain(result), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
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
