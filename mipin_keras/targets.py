"""What an analysis explains: a weight for each sample and output neuron, or a target made of the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .checks import index, integer, is_integer
from .graph.explained import Target

#: The names of the neuron selection modes.
MODES = ("max_activation", "index", "all")
#: The message of the error for logits that are not finite.
NOT_FINITE = "expected finite logits, received NaN or infinity; look for the cause in the model's weights"


def check_mode(mode: Any) -> None:
    """Raise unless ``mode`` is a known neuron selection mode.

    Raises:
        ValueError: For anything but the names in ``MODES`` or a callable.
    """
    if not (callable(mode) or mode in MODES):
        raise ValueError(f"expected neuron_selection_mode to be one of {MODES} or a callable, received {mode!r}")


def check_superfluous(mode: str | Callable, neuron_selection: Any) -> None:
    """Raise ValueError if ``neuron_selection`` is given in a mode that does not take it."""
    if mode != "index" and neuron_selection is not None:
        raise ValueError(
            f"expected no neuron_selection, as it is only for neuron_selection_mode='index' and the mode is {mode!r}, "
            f"received {neuron_selection!r}; leave it out, or create the analyzer with that mode"
        )


def check_count(count: int, n: int) -> None:
    """Raise ValueError unless ``count`` neurons can be one for all of ``n`` samples, or one for each."""
    if count not in (1, n):
        raise ValueError(
            f"expected neuron_selection to be an int or {n} of them, received {count}; give one for all samples, or "
            "one for each"
        )


def largest(logits: tf.Tensor) -> tf.Tensor:
    """The weight of each neuron where the largest output is explained; ties share equally, as in iNNvestigate.

    Args:
        logits: Shape ``(n, neurons)``, finite.

    Returns:
        float32 of shape ``(n, neurons)``; the weights of a sample sum to 1.
    """
    tops = tf.cast(logits == tf.reduce_max(logits, axis=1, keepdims=True), tf.float32)
    return tops / tf.reduce_sum(tops, axis=1, keepdims=True)


def fixed(mode: str, neuron_selection: Any, n: int, neurons: int) -> np.ndarray:
    """The weight of each neuron in the modes that do not depend on the outputs.

    Args:
        mode: ``"index"`` or ``"all"``.
        neuron_selection: For ``"index"`` an int for all samples, or ``n`` of them.
        n: The number of samples.
        neurons: The number of output neurons.

    Returns:
        float32 of shape ``(n, neurons)``: 1 for the neurons explained, else 0.

    Raises:
        ValueError: If ``neuron_selection`` is missing, not of integers, of
            the wrong size or out of range.
    """
    if mode == "all":
        return np.ones((n, neurons), np.float32)
    if neuron_selection is None:
        raise ValueError(
            "expected an int or one for each sample, as neuron_selection_mode='index' needs neuron_selection, received "
            "None; give the index of the output neuron to explain"
        )
    try:
        chosen = np.asarray(neuron_selection)
    except ValueError:  # lists of unequal lengths
        chosen = np.empty(0, object)
    if chosen.dtype.kind not in "iu" or chosen.ndim > 2 or (chosen.ndim == 2 and chosen.shape[1] != 1):
        raise ValueError(
            f"expected integers as neuron_selection, one or a list of one a sample, received {neuron_selection!r}; "
            "give indices of output neurons"
        )
    chosen = chosen.reshape(-1)
    check_count(chosen.size, n)
    if chosen.min() < 0 or chosen.max() >= neurons:
        raise ValueError(
            f"expected neurons from 0 to {neurons - 1}, received {sorted(set(chosen.tolist()))}; count the output "
            "neurons from 0"
        )
    weights = np.zeros((n, neurons), np.float32)
    weights[np.arange(n), np.broadcast_to(chosen, n)] = 1.0
    return weights


def select(logits: np.ndarray, mode: str | Callable, neuron_selection: Any = None) -> np.ndarray:
    """The weight of each output neuron in the explanation of each sample.

    Args:
        logits: Shape ``(n, neurons)``.
        mode: ``"max_activation"``: the neuron with the largest output, ties
            sharing equally, as in iNNvestigate; ``"index"``: those that
            ``neuron_selection`` names; ``"all"``: every neuron at once; a
            callable gets ``logits`` and returns indices as for ``"index"``.
        neuron_selection: For ``"index"`` an int for all samples, or ``n`` of
            them; None otherwise.

    Returns:
        float32 of shape ``(n, neurons)``.

    Raises:
        ValueError: If the logits are not finite, or ``neuron_selection`` is
            missing, superfluous, not of integers, of the wrong size or out of
            range.
    """
    check_mode(mode)
    check_superfluous(mode, neuron_selection)
    if not np.isfinite(logits).all():
        raise ValueError(NOT_FINITE)
    if mode == "max_activation":
        return largest(tf.convert_to_tensor(logits)).numpy()
    if not isinstance(mode, str):
        chosen = mode(logits)
        if chosen is None:
            raise ValueError(
                "expected the neuron_selection_mode that you gave to return indices, received None; return one index a "
                "sample, as logits.argmax(axis=1)"
            )
        return fixed("index", chosen, *logits.shape)
    return fixed(mode, neuron_selection, *logits.shape)


# Targets: what is explained instead of an output neuron


def negative(unit: int) -> Target:
    """Minus a logit: what speaks against the class, and the other side of a single sigmoid unit.

    Args:
        unit: The output neuron.

    Returns:
        For ``target=`` of :func:`mipin_keras.create_analyzer`.

    Raises:
        ValueError: If ``unit`` is no integer of at least 0.
    """
    unit = integer("unit", unit, 0)
    return _weighted({unit: -1.0}, {"negative": unit})


def contrast(a: int, b: int) -> Target:
    """The difference of two logits: why the model says ``a`` rather than ``b``.

    Args:
        a, b: The output neurons, two different ones.

    Returns:
        For ``target=`` of :func:`mipin_keras.create_analyzer`.

    Raises:
        ValueError: If they are no integers of at least 0, or the same.
    """
    a, b = integer("a", a, 0), integer("b", b, 0)
    if a == b:
        raise ValueError(f"expected two different output neurons, received {a} twice; their difference is 0")
    return _weighted({a: 1.0, b: -1.0}, {"contrast": [a, b]})


def segmentation(mask: Any, unit: int) -> Target:
    """The mean logit of a class over a region of the output's pixels.

    Args:
        mask: Booleans of the shape of the output's spatial axes: True in the
            region.
        unit: The class: an index along the output's last axis.

    Returns:
        For ``target=`` of :func:`mipin_keras.create_analyzer`.

    Raises:
        ValueError: If the mask is not of booleans, or has none that is True.
    """
    unit = integer("unit", unit, 0)
    region = np.asarray(mask)
    if region.dtype != bool or not region.any():
        raise ValueError(
            f"expected mask to be an array of booleans, True somewhere, received dtype {region.dtype} and "
            f"{int(np.count_nonzero(region))} entries that are not 0; give one such as labels == {unit}"
        )

    def mean(y: tf.Tensor) -> tf.Tensor:
        if tuple(y.shape[1:-1]) != region.shape:
            raise ValueError(
                f"expected an output of shape (batch, {', '.join(map(str, region.shape))}, classes), as the mask says, "
                f"received {tuple(y.shape)}; give a mask of the output's spatial axes"
            )
        index("unit", unit, y.shape[-1])
        share = tf.constant(region / np.count_nonzero(region), y.dtype)
        return tf.reduce_sum(y[..., unit] * share, axis=list(range(1, region.ndim + 1)))

    about = {"shape": list(region.shape), "region": np.flatnonzero(region).tolist(), "unit": unit}
    return Target(mean, True, about={"segmentation": about})


def _weighted(weights: dict[int, float], about: Any) -> Target:
    def of(units: int) -> np.ndarray:
        if max(weights) >= units:
            raise ValueError(
                f"expected output neurons from 0 to {units - 1}, received {sorted(weights)}; count the output neurons "
                "from 0"
            )
        found = np.zeros(units, np.float32)
        found[list(weights)] = list(weights.values())
        return found

    return Target(lambda y: tf.linalg.matvec(y, tf.constant(of(y.shape[-1]), y.dtype)), True, of, about)


def _indexed(index: tuple[int, ...]) -> Target:
    if len(index) == 1:
        return _weighted({index[0]: 1.0}, {"index": list(index)})

    def pick(y: tf.Tensor) -> tf.Tensor:
        shape = tuple(y.shape[1:])
        if len(shape) != len(index) or any(s is not None and i >= s for i, s in zip(index, shape, strict=True)):
            raise ValueError(
                f"expected target to be an index of one element of the output (batch, "
                f"{', '.join(map(str, shape))}), received {index}; give a number for each axis but the batch's"
            )
        return y[(slice(None), *index)]

    return Target(pick, True, about={"index": list(index)})


#: What stands in a file for a function of the user's.
FUNCTION = "function"


def as_target(value: Any) -> Target | None:
    """What an analyzer's option ``target`` says.

    Args:
        value: None; a :class:`Target`; a function from the model's own output
            (or outputs, as the model gives them) to one number a sample; an
            index of one element of the output without its batch axis, an int
            or several; or what a file holds of one.

    Raises:
        TypeError: For anything else.
        ValueError: For an index below 0; for a file of a function's fit, where
            the function is not given again.
    """
    if value is None or isinstance(value, Target):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, about),) = value.items()
        if name == "segmentation":
            region = np.zeros(about["shape"], bool)
            region.reshape(-1)[about["region"]] = True
            return segmentation(region, about["unit"])
        made = {"negative": negative, "contrast": lambda ab: contrast(*ab), "index": lambda i: _indexed(tuple(i))}
        if name in made:
            return made[name](about)
    if value == FUNCTION:
        raise ValueError(
            "expected the function that this fit explains as target=, which no file holds, received none; give it: "
            "load_analyzer(path, model, target=function)"
        )
    if callable(value):
        return Target(value, False)
    parts = value if isinstance(value, tuple | list) else (value,)
    if not parts or not all(is_integer(part) for part in parts):
        raise TypeError(
            "expected target to be a function of the model's output, an index such as (row, column, class), or one of "
            f"mipin_keras.targets, received {value!r}; give one of these"
        )
    return _indexed(tuple(integer("target", part, 0) for part in parts))


def as_option(target: Target | None) -> Any:
    """A target as the options of an analyzer, and so its file, hold it."""
    return None if target is None else FUNCTION if target.about is None else target.about
