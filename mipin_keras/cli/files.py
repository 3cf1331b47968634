"""Files of others, for the command line: models and arrays in, arrays out."""

from __future__ import annotations

import pathlib
import re
import zipfile
import zlib

import keras
import numpy as np

from ..saving.atomic import written

# Keras before this one ignores safe_mode in files of the old format (CVE-2025-9905).
_SAFE = (3, 11, 3)


def load_model(path: pathlib.Path, *, trust: bool = False) -> keras.Model:
    """A model that Keras saved, uncompiled.

    Args:
        path: The file.
        trust: Whether code that the file brings, in Lambda layers, may be run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If Keras cannot load it, or might run its code, with what
            to do.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a model file that Keras 3 saved (.keras), found none: {path}")
    # Keras itself says "File not found" here.
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"expected a model file that Keras 3 saved, received {path}, which is none or is truncated")
    if path.suffix != ".keras" and not trust and _version() < _SAFE:
        raise ValueError(
            f"Keras {keras.__version__} runs the code that a model file of the old format may bring, and {path} is "
            "one: update Keras to 3.11.3 or newer, save it as .keras, or give --trust-model if you know who made it"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as problem:  # whatever a file can hold, and whatever its layers raise
        raise ValueError(f"Keras cannot load {path}: {_advice(problem)}") from problem


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", keras.__version__)[:3])


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
        return (
            "it has a Lambda layer, which is code that the file brings; give the model a layer of your own instead, or "
            "give --trust-model if you know who made it"
        )
    return f"{type(problem).__name__}: {said if len(said) < 300 else f'{said[:140]} ... {said[-140:]}'}"


# How files that are mistaken for arrays begin.
_OTHERS = {
    b"\xff\xd8\xff": "a JPEG photograph", b"\x89PNG": "a PNG image", b"GIF8": "a GIF image", b"BM": "a BMP image",
    b"II*\x00": "a TIFF image", b"MM\x00*": "a TIFF image", b"\x89HDF": "an HDF5 file", b"\x80": "a pickle",
}  # fmt: skip


def _first(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


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
    begins = _first(path)
    if not begins.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        what = next((name for start, name in _OTHERS.items() if begins.startswith(start)), "something else")
        raise ValueError(
            f"{flag}: expected an .npz or .npy file of numbers, received {path}, which is {what}; read it, prepare it "
            "as the model takes it, and write it with numpy.save"
        )
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
        said = str(problem)
        if "allow_pickle" in said or "Python objects" in said:  # NumPy's advice is to load it unsafely
            said = "it holds Python objects, not numbers; write it anew from an array of numbers"
        raise ValueError(f"{flag}: expected an .npz or .npy file of numbers, received {path}: {said}") from problem


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
