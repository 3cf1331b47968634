"""File input and output of the command line: reads models and arrays that the user gives, writes arrays."""

from __future__ import annotations

import pathlib
import re
import zipfile
import zlib

import keras
import numpy as np

from ..saving.atomic import written

# Keras before this version ignores safe_mode in files of the old format (CVE-2025-9905).
_SAFE = (3, 11, 3)


def load_model(path: pathlib.Path, *, trust: bool = False) -> keras.Model:
    """Load a model that Keras saved, uncompiled.

    Args:
        path: The file.
        trust: Whether code that the file holds, in Lambda layers, may be run.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If Keras cannot load the file, or might run its code.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a model file that Keras 3 saved (.keras), received {path}, where there is no file; check the "
            "path"
        )
    # The message of Keras itself is "File not found" here.
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(
            f"expected a model file that Keras 3 saved, received {path}, which is none or is truncated; save the "
            "model again"
        )
    if path.suffix != ".keras" and not trust and _version() < _SAFE:
        raise ValueError(
            f"expected a model file of the new format (.keras), as Keras {keras.__version__} runs the code that one "
            f"of the old format may hold, received {path}; update Keras to 3.11.3 or newer, save the model as .keras, "
            "or give --trust-model if you know who made it"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as problem:  # whatever a file can hold, and whatever its layers raise
        raise ValueError(f"expected a model file that Keras can load, received {path}: {_advice(problem)}") from problem


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", keras.__version__)[:3])


def _advice(problem: Exception) -> str:
    """The cause of an error of ``keras.models.load_model``, whose message can be pages long, and what to do."""
    message = " ".join(str(problem).split())
    unknown = ("register_keras_serializable", "Could not locate class", "Could not deserialize class")
    if any(words in message for words in unknown):
        return (
            "it has objects of your own; name the module that defines them, with "
            "@keras.saving.register_keras_serializable(), as --import MODULE"
        )
    if "safe_mode" in message:
        return (
            "it has a Lambda layer, which is code that the file holds; give the model a layer of your own instead, or "
            "give --trust-model if you know who made it"
        )
    short = message if len(message) < 300 else f"{message[:140]} ... {message[-140:]}"
    return f"{type(problem).__name__}: {short}; save the model again with this version of Keras"


# The first bytes of files that are mistaken for arrays.
_SIGNATURES = {
    b"\xff\xd8\xff": "a JPEG photograph", b"\x89PNG": "a PNG image", b"GIF8": "a GIF image", b"BM": "a BMP image",
    b"II*\x00": "a TIFF image", b"MM\x00*": "a TIFF image", b"\x89HDF": "an HDF5 file", b"\x80": "a pickle",
}  # fmt: skip


def _first(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


class _WrongKeyError(ValueError):
    """The error for a file that can be read, but holds no array of the name asked for."""


def read_array(path: pathlib.Path, key: str | None, flag: str, names: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """Read one array of an ``.npz`` or ``.npy`` file.

    Args:
        path: The file. An ``.npy`` is memory-mapped.
        key: The array's name in the ``.npz``; None for the only array, or the
            first of ``names`` that the file holds.
        flag: The command line's flag that gave the path, for messages.
        names: See ``key``.

    Returns:
        The array, and its name for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ``.npz`` or ``.npy`` file of numbers, or has
            no array of that name.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{flag}: expected an .npz or .npy file, received {path}, where there is no file; check the path"
        )
    begins = _first(path)
    if not begins.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        what = next((name for start, name in _SIGNATURES.items() if begins.startswith(start)), "something else")
        raise ValueError(
            f"{flag}: expected an .npz or .npy file of numbers, received {path}, which is {what}; read it, prepare it "
            "as the model takes it, and write it with numpy.save"
        )
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            if key is not None:
                raise _WrongKeyError(
                    f"{flag}-key: expected an .npz file, received {path}, an .npy of one array; leave out {flag}-key"
                )
            return loaded, str(path)
        with loaded as arrays:
            chosen = _choose(path, arrays.files, key, flag, names)
            return arrays[chosen], f"{path} ({chosen!r})"
    except _WrongKeyError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as problem:
        cause = f"{problem}; write it again with numpy.save"
        if "allow_pickle" in cause or "Python objects" in cause:  # NumPy's advice is to load it unsafely
            cause = "it holds Python objects, not numbers; write it again from an array of numbers"
        raise ValueError(f"{flag}: expected an .npz or .npy file of numbers, received {path}: {cause}") from problem


def _choose(path: pathlib.Path, held: list[str], key: str | None, flag: str, names: tuple[str, ...]) -> str:
    if key is not None:
        if key in held:
            return key
        raise _WrongKeyError(
            f"{flag}-key: expected one of the arrays {sorted(held)} of {path}, received {key!r}; name one of these"
        )
    for name in held if len(held) == 1 else names:
        if name in held:
            return name
    raise _WrongKeyError(
        f"{flag}: expected {path} to hold one array, or one named {' or '.join(names)}, received {sorted(held)}; "
        f"name the right one with {flag}-key"
    )


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an ``.npz`` file atomically: beside ``path``, then renamed."""
    with written(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
