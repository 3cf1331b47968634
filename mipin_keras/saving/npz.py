"""Files of arrays and JSON, checked when they are read: complete, unchanged, and no larger than they declare.

A file is an ``.npz`` of uncompressed members: ``header``, a JSON text, and
arrays. The header lists the arrays with their shapes and dtypes, and holds a
digest over itself and all their bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from .atomic import written

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class DamagedFileError(ValueError):
    """The error for a file that has changed since it was written, or that this package did not write."""


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that :class:`Reader` reads, atomically.

    Args:
        path: The file to write.
        header: A dict for JSON; ``members`` and ``digest`` are added.
        arrays: Arrays of numbers, by name.

    Raises:
        OSError: If the file cannot be written; an earlier file stays.
        TypeError: If JSON does not hold the header, or an array is of objects.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    odd = [name for name, array in arrays.items() if array.dtype.hasobject]
    if odd:
        raise TypeError(f"expected arrays of numbers, received objects in {odd}; convert them to arrays of numbers")
    members = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    full = json.loads(json.dumps(header | {"members": members}))
    full["digest"] = _digest(full, arrays)
    with written(path) as file:
        np.savez(file, header=np.array(json.dumps(full)), **arrays)  # type: ignore[arg-type]


def _digest(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The digest of the header without its digest, and of the names, dtypes, shapes and bytes of the arrays."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({k: v for k, v in header.items() if k != "digest"}, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Reader:
    """A file that is open for reading; its header is read, its arrays are not.

    Nothing is read before its size is known to fit: compressed members,
    members that overlap and shapes that the file is too short for are refused.

    Args:
        path: The file.
        header: Name of another member that may hold the JSON, as in files of
            version 0.1.

    Raises:
        OSError: If it cannot be opened.
        DamagedFileError: A ValueError that names the file, if it is damaged
            or not of this kind.

    Attributes:
        header: What the JSON holds, a dict.
    """

    def __init__(self, path: str | os.PathLike[str], header: str = "header"):
        self.path = pathlib.Path(path)
        if self.path.is_dir():
            raise DamagedFileError(f"expected a file that mipin_keras wrote, received a folder: {path}; give a file")
        self._file = open(self.path, "rb")
        try:
            with self._damage():
                self._archive = zipfile.ZipFile(self._file)
                self._members = self._listed()
                header = header if header in self._members else "header"
                text = self._array(header, None, (), "U")
                self.header: dict[str, Any] = json.loads(str(text[()]))
                if not isinstance(self.header, dict):
                    raise ValueError(f"its header is of type {type(self.header).__name__}")
            self._names = self._members.keys() - {header}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()

    def arrays(self, shapes: Mapping[str, tuple[int, ...]], dtype: str | None = "float32") -> dict[str, np.ndarray]:
        """All arrays of the file, checked before they are read.

        Args:
            shapes: The shape of each array that the file must hold, by its
                name; it must hold no other.
            dtype: The dtype of every array; None for the one that the header
                lists.

        Returns:
            The arrays, by name.

        Raises:
            DamagedFileError: If the file holds other arrays, if a dtype or
                shape differs, if a value is not finite, or if the digest in
                the header, where there is one, differs from that of the file.
        """
        with self._damage():
            if self._names != shapes.keys():
                missing, odd = sorted(shapes.keys() - self._names), sorted(self._names - shapes.keys())
                raise ValueError(f"arrays {missing[:3]} are missing, {odd[:3]} should not be there")
            listed = self.listed
            if ("digest" in self.header) != (listed is not None) or (listed and listed.keys() != shapes.keys()):
                raise ValueError("its header lists other arrays")
            found = {}
            for name, shape in shapes.items():
                wanted = dtype if dtype is not None or listed is None else listed[name][0]
                found[name] = array = self._array(name, wanted, tuple(shape))
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise ValueError(f"array {name!r} holds NaN or infinity")
            if listed is not None and self.header.get("digest") != _digest(self.header, found):
                raise ValueError("its content has changed since it was written")
        return found

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape that each array of the file declares, by its name."""
        with self._damage():
            return {name: self._declared(self._members[name])[0] for name in self._names}

    @property
    def listed(self) -> dict[str, tuple[str, tuple[int, ...]]] | None:
        """Dtype and shape of each array as the header lists them; None for a file of version 0.1."""
        if "members" not in self.header:
            return None
        with self._damage():
            return {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in self.header["members"].items()}

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(members) != len(infos) or any(not info.filename.endswith(".npy") for info in infos):
            raise ValueError("it has members that no save() writes")
        plain = all(
            i.compress_type == zipfile.ZIP_STORED and i.compress_size == i.file_size and not i.flag_bits & 1
            for i in infos
        )
        if not plain or sum(info.file_size for info in infos) > os.fstat(self._file.fileno()).st_size:
            raise ValueError("it has compressed or overlapping members, which no save() writes")
        return members

    def _array(self, name: str, dtype: str | None, shape: tuple[int, ...], dtype_kinds: str = "fiu") -> np.ndarray:
        """One member, read after its header: that must declare ``shape``, and ``dtype`` or a dtype of these kinds."""
        info = self._members[name]
        declared, fortran, found, start = self._declared(info)
        if found.hasobject or (found != np.dtype(dtype) if dtype is not None else found.kind not in dtype_kinds):
            raise ValueError(f"array {name!r} is of dtype {found}, expected {dtype or dtype_kinds}")
        if declared != shape:
            raise ValueError(f"array {name!r} is of shape {declared}, expected {shape}")
        size = math.prod(shape) * found.itemsize
        if start + size != info.file_size:
            raise ValueError(f"array {name!r} has another size than its shape says")
        with self._archive.open(info) as member:
            data = bytearray(member.read())
        array = np.frombuffer(data, found, offset=start) if size else np.empty(0, found)
        return array.reshape(shape, order="F" if fortran else "C")

    def _declared(self, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype, int]:
        """The header of a member: shape, whether in Fortran order, dtype; and the offset at which its numbers begin."""
        with self._archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version not in _HEADERS:
                raise ValueError(f"{info.filename} has a format {version} that no save() writes")
            return (*_HEADERS[version](member), member.tell())

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """A context in which every error becomes a DamagedFileError naming the file, as a file may hold anything."""
        try:
            yield
        except (DamagedFileError, MemoryError):
            raise
        except Exception as problem:
            raise DamagedFileError(
                f"expected a file that mipin_keras wrote, received {self.path}, which is none or is damaged: "
                f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}; fit again, or restore it from a "
                "copy"
            ) from problem
