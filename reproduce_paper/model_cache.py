"""Trained models in a folder: each is a ``.keras`` file with a ``.json`` file beside it that says how it was made."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import keras

from . import report


def load(path: pathlib.Path) -> tuple[keras.Model, dict[str, Any]] | None:
    """The model at ``path`` and its record; None unless both files are there. The folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_suffix(".json")
    if not (path.is_file() and record.is_file()):
        return None
    return keras.models.load_model(path), json.loads(record.read_text())


def save(path: pathlib.Path, model: keras.Model, about: dict[str, Any]) -> None:
    """Save a model and its record; whatever interrupts it leaves no part of a model behind."""
    # Keras decides by a file's name how it saves a model, so it needs a name of its own to write to.
    partial = path.with_name(f"partial-{path.name}")
    try:
        model.save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    report.write_json(path.with_suffix(".json"), about)
