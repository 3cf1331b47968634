"""Files of others, for the command line: models and arrays in, arrays out."""

from __future__ import annotations

import pathlib
import zipfile
import zlib

import keras
import numpy as np

from .whole import written


def load_model(path: pathlib.Path) -> keras.Model:
    """A model that Keras saved, uncompiled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If Keras cannot load it, with what to do.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a model file that Keras 3 saved (.keras), found none: {path}")
    # Keras itself says "File not found" here.
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"expected a model file that Keras 3 saved, received {path}, which is none or is truncated")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as problem:  # whatever a file can hold, and whatever its layers raise
        raise ValueError(f"Keras cannot load {path}: {_advice(problem)}") from problem


def _advice(problem: Exception) -> str:
    """What to do about an error of ``keras.models.load_model``, which can be pages long."""
    said = " ".join(str(problem).split())
    unknown = ("register_keras_serializable", "Could not locate class", "Could not deserialize class")
    if any(words in said for words in unknown):
        return (
            "it has objects of your own; name the module that defines them, with "
            "@keras.saving.register_keras_serializable(), as --import MODULE"
        )
    if "safe_mode" in said:
        return "it has a Lambda layer, which is code that the file brings; give the model a layer of your own instead"
    return f"{type(problem).__name__}: {said if len(said) < 300 else f'{said[:140]} ... {said[-140:]}'}"


class _Choice(ValueError):
    """The file is good, the choice of the array is not."""


def read_array(path: pathlib.Path, key: str | None, flag: str, names: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """One array of an ``.npz`` or ``.npy`` file.

    Args:
        path: The file. An ``.npy`` is memory-mapped.
        key: Its name in the ``.npz``; None for the only one, or the first of
            ``names`` that is there.
        flag: The option that gave the path, for messages.
        names: See ``key``.

    Returns:
        The array, and what to call it in messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, or has no array of that name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{flag}: expected an .npz or .npy file, found none: {path}")
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            if key is not None:
                raise _Choice(f"{flag}-key is for .npz files, received it for {path}")
            return loaded, str(path)
        with loaded as arrays:
            chosen = _choose(path, arrays.files, key, flag, names)
            return arrays[chosen], f"{path} ({chosen!r})"
    except _Choice:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as problem:
        raise ValueError(f"{flag}: expected an .npz or .npy file of numbers, received {path}: {problem}") from problem


def _choose(path: pathlib.Path, held: list[str], key: str | None, flag: str, names: tuple[str, ...]) -> str:
    if key is not None:
        if key in held:
            return key
        raise _Choice(f"{flag}-key: expected one of the arrays {sorted(held)} of {path}, received {key!r}")
    for name in held if len(held) == 1 else names:
        if name in held:
            return name
    raise _Choice(
        f"{flag}: expected {path} to hold one array, or one named {' or '.join(names)}, found {sorted(held)}; "
        f"name the right one with {flag}-key"
    )


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays beside ``path`` and rename: the file is whole or not there."""
    with written(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
