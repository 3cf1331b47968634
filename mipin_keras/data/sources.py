"""Sources: where batches come from, and how a pass over each kind of source starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from .arrays import as_array, check_shape
from .given import is_sequence, sequence_length, shape_as_given
from .inputs import Inputs, InputSpec

_ENDLESS = "expected a data set that ends, received one that never does; give steps=, the batches a pass"

#: What to do about a source whose next pass differs, by the source's type.
ADVICE = {
    "array": "leave the array, or its file, as it is until the work is done",
    "tf.data": "use shuffle(..., reshuffle_each_iteration=False) or none, and no random augmentation",
    "sequence": "let each item depend on its index alone",
    "function": "let the function return a fresh iterator each time, with random numbers that it seeds anew",
    "generator": "choose steps= so that each pass has as many samples",
}


class Source(NamedTuple):
    """A source that can be read.

    Attributes:
        type: The name of its type.
        steps: The number of its batches; None if that is not known.
        samples: The number of its samples; None if that is not known.
        start: Starts a pass: returns the parts of each batch, one for each
            input, not yet checked.
    """

    type: str
    steps: int | None
    samples: int | None
    start: Callable[[], Iterable[Sequence[Any]]]


def opened(source: Any, inputs: Inputs, batch_size: int, steps: int | None) -> Source:
    """``source``, looked at but not read.

    Args:
        source: As :class:`mipin_keras.data.batches.Batches` takes it.
        inputs: What the model takes.
        batch_size: Samples a batch of an array.
        steps: Batches a pass; None for all there are.

    Raises:
        TypeError, ValueError: See :class:`mipin_keras.data.batches.Batches`.
    """
    if isinstance(source, tf.data.Dataset):
        size = int(source.cardinality())
        if steps is None and size == tf.data.INFINITE_CARDINALITY:
            raise ValueError(_ENDLESS)
        inputs.check_spec(source.element_spec)
        return Source("tf.data", size if size >= 0 else None, None, lambda: map(inputs.of_item, source))
    if is_sequence(source):
        known = sequence_length(source)
        most = steps or known
        if most is None:
            raise ValueError(_ENDLESS)
        return Source("sequence", known, None, lambda: (inputs.of_item(source[i]) for i in range(most)))
    if callable(source) and not hasattr(source, "__array__"):
        return Source("function", None, None, lambda: map(inputs.of_item, _iterator(source())))
    if hasattr(source, "__next__"):
        if steps is None:
            raise ValueError(
                "expected data that can be read several times, received a generator, which can be read only once; "
                "a fit passes over its data several times: give steps= for one that never ends, or a function "
                "that returns a fresh generator"
            )
        return Source("generator", None, None, lambda: map(inputs.of_item, source))
    parts = inputs.parts(inputs.of_source(source))
    arrays = [_sliceable(part, spec, inputs) for part, spec in zip(parts, inputs.specs, strict=True)]
    inputs.check_counts([array.shape[0] for array in arrays])
    samples = arrays[0].shape[0]
    starts = range(0, samples, batch_size)
    return Source(
        "array",
        len(starts),
        min(samples, (steps or samples) * batch_size),
        lambda: ([array[i : i + batch_size] for array in arrays] for i in starts),
    )


def _sliceable(x: Any, spec: InputSpec, inputs: Inputs) -> Any:
    """An array of which a batch at a time can be taken, its dtype and shape checked before any work."""
    if hasattr(x, "toarray") and hasattr(x, "tocsr"):  # sparse: some of its rows at a time become dense
        x = x.tocsr()
    # What as_array makes of others would read all of a file. A column of pandas is sliced by its index, not by rows.
    sliced = isinstance(getattr(x, "dtype", None), np.dtype) and isinstance(x.shape, tuple) and not hasattr(x, "iloc")
    array = x if sliced and not isinstance(x, np.ma.MaskedArray) else as_array(x, inputs.label(spec))
    check_shape(array, shape_as_given(array.shape, spec.shape), inputs.label(spec))
    return array


def _iterator(made: Any) -> Iterable:
    if not hasattr(made, "__iter__"):
        raise TypeError(
            f"expected the function to return an iterator of batches, received {type(made).__name__}; "
            "return one, as iter([x1, x2]) or a generator does"
        )
    return made
