"""What a model takes: one input or several, given as arrays, lists, dicts, data frames or data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..checks import batch_shape
from .arrays import as_array, checked, is_frame
from .given import LONG, described, is_sequence, rank, sequence_length, shape_as_given, warn_of_length

#: A batch: an array for a model of one input, a tuple of arrays for one of several.
Batch = np.ndarray | tuple[np.ndarray, ...]


class InputSpec(NamedTuple):
    """One input of a model: its name, the shape of one sample, and its dtype; None in a shape matches any size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Inputs:
    """The inputs of a model, and how samples for them are given.

    **One input.** An array, a list of samples, or anything else that
    :func:`mipin_keras.data.arrays.as_array` takes; also ``[X]``, a list of one
    array that has the batch axis already (its rank tells it from a list of one
    sample), and ``{"name": X}``.

    **Several inputs.** A list or tuple of as many, in the order of ``specs``;
    a dict by the inputs' names, in any order; or a data frame whose columns
    have these names, where each input is one number a sample.

    **One number a sample.** For an input of shape ``(1,)``, ``n`` values of
    shape ``(n,)`` are ``n`` samples; for one of shape ``()``, those of shape
    ``(n, 1)`` are.

    Args:
        specs: The model's inputs, in its order.

    Attributes:
        specs: The same, as a tuple.
        names: Their names.
    """

    def __init__(self, specs: Sequence[InputSpec]):
        self.specs = tuple(specs)
        self.names = [spec.name for spec in self.specs]

    def __len__(self) -> int:
        return len(self.specs)

    # From what is given to arrays

    def arrays(self, X: Any, *, first: int | None = None) -> tuple[np.ndarray, ...]:
        """``X`` as checked arrays, one an input.

        Args:
            X: As the class says; also a batched ``tf.data.Dataset`` or a
                ``keras.utils.PyDataset`` of such, or of tuples ``(x, y)`` or
                ``(x, y, sample_weight)``, whose first entries are taken. It
                is read as a whole.
            first: For one batch of the data: the index of its first sample in
                the data, for messages.

        Returns:
            Arrays in the order of ``specs``, of their dtypes, all with the
            same number of samples; not copied where they have the dtype.

        Raises:
            TypeError: For a generator, a function, and what holds no numbers.
            ValueError: For another number of inputs, other names, different
                numbers of samples, a data set that is endless or not batched,
                and as :func:`mipin_keras.data.arrays.checked`.
        """
        if isinstance(X, tf.data.Dataset):
            self.check_spec(X.element_spec)
            cardinality = int(X.cardinality())
            return self._read(X, None if cardinality == tf.data.INFINITE_CARDINALITY else cardinality)
        if is_sequence(X):
            size = sequence_length(X)
            return self._read(() if size is None else (X[i] for i in range(size)), size)
        if not hasattr(X, "__array__") and (callable(X) or hasattr(X, "__next__")):
            raise TypeError(
                f"expected samples, received a {type(X).__name__}, of which each call takes some away or makes others; "
                "take one batch of it, as next(iter(...)), or put its batches together with np.concatenate"
            )
        return self.checked(self.parts(X), first=first)

    def _read(self, items: Iterable, size: int | None) -> tuple[np.ndarray, ...]:
        """All batches of a data set of ``size`` batches, put together; None where it never ends."""
        if size is None:
            raise ValueError("expected a data set that ends, received one that never does; take some: dataset.take(10)")
        batches: list[tuple[np.ndarray, ...]] = []
        samples = 0
        for item in items:
            batches.append(self.checked(self.of_item(item), first=samples))
            samples += len(batches[-1][0])
            if len(batches) == LONG and size < 0:
                warn_of_length("take some: dataset.take(10)", stacklevel=5)
        if not batches:
            raise ValueError("expected at least one sample, received no data; look at what the source gives")
        found = []
        for spec, parts in zip(self.specs, zip(*batches, strict=True), strict=True):
            shapes = list(dict.fromkeys(part.shape[1:] for part in parts))
            if len(shapes) > 1:
                raise ValueError(
                    f"expected batches of samples of one shape{self._of(spec)}, received {shapes[0]} and {shapes[1]}; "
                    "pad all of them to one shape, as with padded_batch(..., padded_shapes=...), or give one batch at "
                    "a time"
                )
            found.append(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return tuple(found)

    def checked(self, parts: Sequence[Any], *, first: int | None = None) -> tuple[np.ndarray, ...]:
        """One part an input, in their order, as checked arrays; ``first`` and errors as for :meth:`arrays`."""
        found = []
        for part, spec in zip(parts, self.specs, strict=True):
            array = as_array(part, self.label(spec))
            if shape_as_given(array.shape, spec.shape) != spec.shape:
                array = array.reshape(len(array), *spec.shape)
            found.append(checked(array, spec.shape, spec.dtype, first=first, name=self.label(spec)))
        self.check_counts([len(array) for array in found])
        return tuple(found)

    def check_counts(self, counts: Sequence[int]) -> None:
        """Raise ValueError unless all inputs have the same number of samples."""
        if len(set(counts)) > 1:
            received = ", ".join(f"{count} of {name!r}" for name, count in zip(self.names, counts, strict=True))
            raise ValueError(
                f"expected the same number of samples of each input, received {received}; give each sample's inputs at "
                "the same index"
            )

    def check_spec(self, element_spec: Any) -> None:
        """Refuse a ``tf.data.Dataset`` of other shapes before it is read, where it says its shapes.

        Raises:
            ValueError: For another shape or structure than the model takes,
                and for samples that are not batched.
        """
        for part, spec in zip(self.of_item(element_spec), self.specs, strict=True):
            if not isinstance(part, tf.TensorSpec) or part.shape.is_compatible_with((None, *spec.shape)):
                continue
            rank = part.shape.rank
            if spec.shape == (1,) and rank == 1 and part.shape[0] != 1 or spec.shape == () and part.shape[1:] == (1,):
                continue
            batch = "batch the data set: dataset.batch(32)"
            hint = batch if rank == len(spec.shape) else "map its items to the model's input shape"
            raise ValueError(
                f"expected a data set of batches of shape {batch_shape(spec.shape)}{self._of(spec)}, received "
                f"{part.shape}; {hint}"
            )

    # Structures

    def parts(self, X: Any) -> list[Any]:
        """What ``X`` holds for each input, in the order of ``specs``; nothing is read or checked but the structure.

        Raises:
            ValueError: For another number of inputs, and for other names.
        """
        layout = self._layout(X)
        if layout is None:
            return [X]
        return list(X) if isinstance(layout, int) else [X[name] for name in self.names]

    def _layout(self, X: Any) -> list[str] | int | None:
        """How X holds the inputs: a list of names, in its order; the number of a list's; None: it is the one input."""
        if isinstance(X, Mapping):
            self._check_names(list(X), "a dict")
            return list(X)
        listed = isinstance(X, list | tuple)
        if len(self) == 1:
            return 1 if listed and len(X) == 1 and rank(X[0]) in (None, len(self.specs[0].shape) + 1) else None
        if is_frame(X):
            self._check_names(list(X.columns), "a data frame")
            for spec in self.specs:
                if spec.shape not in ((), (1,)):
                    raise ValueError(
                        f"expected samples of shape {spec.shape} of input {spec.name!r}, received a column of a data "
                        "frame, which is one number a sample; give a dict of arrays by the inputs' names"
                    )
            return list(X.columns)
        if not listed or len(X) != len(self):
            received = f"a {type(X).__name__} of {len(X)}" if listed else described(X)
            raise ValueError(
                f"expected {len(self)} inputs, in a list in the order of {self.names} or a dict by these names, "
                f"received {received}; give one array for each"
            )
        return len(X)

    def _check_names(self, names: list[Any], what: str) -> None:
        unknown = [name for name in names if name not in self.names]
        missing = [name for name in self.names if name not in names]
        if unknown or missing:
            reasons = [f"the model has no input {', '.join(map(repr, unknown))}"] if unknown else []
            reasons += [f"{', '.join(map(repr, missing))} {'is' if len(missing) == 1 else 'are'} missing"] * bool(
                missing
            )
            raise ValueError(
                f"expected {what} of the model's inputs by name, {self.names}, received one of {names}: "
                f"{' and '.join(reasons)}; pick and name the inputs, of a data set as in dataset.map(lambda item: "
                f"{{{self.names[0]!r}: item[...]}})"
            )

    def of_item(self, item: Any) -> list[Any]:
        """The parts of one batch of a source, in the order of ``specs``: of the inputs, or of a tuple with labels.

        Args:
            item: Inputs; or a tuple or list that begins with them, ``(x, y)``
                or ``(x, y, sample_weight)``. For one input, the first entry of
                a tuple or list is taken. For several, a tuple of as many
                arrays is the inputs themselves; one whose first entry is a
                dict, or a list or tuple of as many arrays, begins with them.
                The arrays' rank tells ``(a, b)`` of two lists of samples from
                ``([a, b], y)``. Where that leaves both open, as for inputs of
                shape ``(1,)``, a list of arrays is inputs, and a list of
                numbers or lists is samples. Also the specification of such an
                item.

        Raises:
            ValueError: If it is none of these.
        """
        return self.parts(self._inputs_of(item))

    def _inputs_of(self, item: Any) -> Any:
        if not isinstance(item, tuple | list):
            return item
        if not item:
            raise ValueError(f"expected inputs, received an empty {type(item).__name__}; look at what the source gives")
        if len(self) == 1 or (len(item) <= 3 and self._holds_all(item[0])):
            return item[0]
        if len(item) == len(self):
            return item
        raise ValueError(
            f"expected {len(self)} inputs, as a tuple in the order of {self.names}, a dict by these names, or a tuple "
            f"that begins with either, as (inputs, labels), received a {type(item).__name__} of {len(item)}; map the "
            "items to one of these"
        )

    def of_source(self, source: Any) -> Any:
        """Of the arrays given to a fit, the inputs: of ``(x, y)`` the first, otherwise all of them."""
        if len(self) > 1:
            return self._inputs_of(source)
        if isinstance(source, tuple) and source:
            x, batched = source[0], len(self.specs[0].shape) + 1
            alone = isinstance(x, list | tuple) and len(x) == 1 and rank(x[0]) == batched
            return x if isinstance(x, Mapping) or rank(x) == batched or alone else source
        return source

    def _holds_all(self, first: Any) -> bool:
        """Whether the first entry of a tuple holds all of several inputs, and not only the first of them."""
        if isinstance(first, Mapping):
            return True
        if is_frame(first):
            return set(self.names) <= set(first.columns)
        if not isinstance(first, list | tuple) or len(first) != len(self):
            return False
        if isinstance(first[0], tf.TypeSpec):  # in a specification a list of samples is one tensor
            return True
        found, shape = rank(first[0]), self.specs[0].shape
        if hasattr(first[0], "shape"):  # arrays, unless each is one sample
            return found != len(shape) or shape == (1,)
        return found == len(shape) + 1

    def pack(self, parts: Sequence[Any], like: Any) -> Any:
        """One part an input, in the structure in which the inputs were given.

        Args:
            parts: In the order of ``specs``.
            like: What :meth:`arrays` took.

        Returns:
            For a list or tuple of inputs a list; for a dict, or a data frame
            of several inputs, a dict with its keys in its order; for a data
            set the structure of the inputs of its items; otherwise the one
            part alone.
        """
        if isinstance(like, tf.data.Dataset):
            like = self._inputs_of(like.element_spec)
        elif is_sequence(like):
            like = self._inputs_of(like[0])
        layout = self._layout(like)
        if layout is None:
            return parts[0]
        if isinstance(layout, int):
            return list(parts)
        by_name = dict(zip(self.names, parts, strict=True))
        return {name: by_name[name] for name in layout}

    # Words

    def label(self, spec: InputSpec) -> str:
        """What messages call an input: by its name where there are several."""
        return "input" if len(self) == 1 else f"input {spec.name!r}"

    def _of(self, spec: InputSpec) -> str:
        return "" if len(self) == 1 else f" of {self.label(spec)}"


def count(batch: Batch) -> int:
    """The number of samples of a batch: of an array, or of a tuple of arrays."""
    return len(batch[0] if isinstance(batch, tuple) else batch)


def take(batch: Batch, rows: Any) -> Batch:
    """Some samples of a batch, by a slice or an array of indices or booleans; an array or a tuple as it is."""
    return tuple(array[rows] for array in batch) if isinstance(batch, tuple) else batch[rows]


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches as one: arrays, or tuples of one for each input."""
    if isinstance(batches[0], tuple):
        return tuple(np.concatenate(each) for each in zip(*batches, strict=True))
    return np.concatenate(batches)
