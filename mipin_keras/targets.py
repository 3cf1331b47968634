"""Which output neurons an analysis explains, as one weight a sample and neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

MODES = ("max_activation", "index", "all")
NOT_FINITE = "expected finite logits, received NaN or infinity: look at the model's weights first"


def check_mode(mode: Any) -> None:
    """Raise unless ``mode`` is a known neuron selection mode.

    Raises:
        ValueError: For anything but the names in ``MODES`` or a callable.
    """
    if not (callable(mode) or mode in MODES):
        raise ValueError(f"expected neuron_selection_mode to be one of {MODES} or a callable, received {mode!r}")


def check_superfluous(mode: str | Callable, neuron_selection: Any) -> None:
    """Raise ValueError if ``neuron_selection`` is given where the mode does not ask for it."""
    if mode != "index" and neuron_selection is not None:
        raise ValueError(
            f"neuron_selection is only for neuron_selection_mode='index'; the mode is {mode!r} and it was "
            f"{neuron_selection!r}"
        )


def largest(logits: tf.Tensor) -> tf.Tensor:
    """The weight of each neuron where the largest output is explained; ties share equally, as in iNNvestigate.

    Args:
        logits: Shape ``(n, units)``.

    Returns:
        float32 of shape ``(n, units)``.
    """
    tops = tf.cast(logits == tf.reduce_max(logits, axis=1, keepdims=True), tf.float32)
    return tops / tf.reduce_sum(tops, axis=1, keepdims=True)


def fixed(mode: str, neuron_selection: Any, n: int, units: int) -> np.ndarray:
    """The weight of each neuron in the modes that do not look at the outputs.

    Args:
        mode: ``"index"`` or ``"all"``.
        neuron_selection: For ``"index"`` an int for all samples, or ``n`` of them.
        n, units: How many samples and output neurons there are.

    Returns:
        float32 of shape ``(n, units)``.

    Raises:
        ValueError: If ``neuron_selection`` is missing, not of integers, of
            the wrong size or out of range.
    """
    if mode == "all":
        return np.ones((n, units), np.float32)
    if neuron_selection is None:
        raise ValueError("neuron_selection_mode='index' needs neuron_selection: an int, or one for each sample")
    try:
        chosen = np.asarray(neuron_selection)
    except ValueError:  # lists of unequal lengths
        chosen = np.empty(0, object)
    if chosen.dtype.kind not in "iu" or chosen.ndim > 2 or (chosen.ndim == 2 and chosen.shape[1] != 1):
        raise ValueError(
            f"expected integers as neuron_selection, one or a list of one a sample, received {neuron_selection!r}"
        )
    chosen = chosen.reshape(-1)
    if chosen.size not in (1, n):
        raise ValueError(f"expected neuron_selection to be an int or {n} of them, received {chosen.size}")
    if chosen.min() < 0 or chosen.max() >= units:
        raise ValueError(f"expected neurons from 0 to {units - 1}, received {sorted(set(chosen.tolist()))}")
    weights = np.zeros((n, units), np.float32)
    weights[np.arange(n), np.broadcast_to(chosen, n)] = 1.0
    return weights


def select(logits: np.ndarray, mode: str | Callable, neuron_selection: Any = None) -> np.ndarray:
    """The weight of each output neuron in the explanation of each sample.

    Args:
        logits: Shape ``(n, units)``.
        mode: ``"max_activation"``: the neuron with the largest output, ties
            sharing equally, as in iNNvestigate; ``"index"``: those that
            ``neuron_selection`` names; ``"all"``: every neuron at once; a
            callable gets ``logits`` and returns indices as for ``"index"``.
        neuron_selection: For ``"index"`` an int for all samples, or ``n`` of
            them; None otherwise.

    Returns:
        float32 of shape ``(n, units)``.

    Raises:
        ValueError: If the logits are not finite, or ``neuron_selection`` is missing, superfluous, not of
            integers, of the wrong size or out of range.
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
            raise ValueError("expected the neuron_selection_mode that you gave to return indices, received None")
        return fixed("index", chosen, *logits.shape)
    return fixed(mode, neuron_selection, *logits.shape)
