"""Which output neurons an analysis explains: a weight for each sample and neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

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
