"""The labels of a fit: the data's, or the model's own decisions."""

from __future__ import annotations

from typing import Any

import numpy as np


def checked(given: Any, logits: np.ndarray, by_sign: bool) -> np.ndarray:
    """The labels of a fit, as the loss takes them.

    Args:
        given: As the user gave them; None for the model's own decisions.
        logits: The model's, ``(n, neurons)``.
        by_sign: Whether each logit is a decision by itself.

    Returns:
        int32 ``(n,)``, classes; with ``by_sign`` ``(n, neurons)``, 0 or 1.

    Raises:
        ValueError: For another length or shape, and for values that are no labels.
    """
    if given is None:
        return (logits > 0).astype("int32") if by_sign else logits.argmax(axis=1).astype("int32")
    n, neurons = logits.shape
    labels = np.asarray(given)
    shapes = [(n,), (n, 1), (n, neurons)] if not by_sign or neurons == 1 else [(n, neurons)]
    if labels.dtype.kind not in "fiub" or labels.shape not in shapes:
        raise ValueError(
            f"expected a label for each of the {n} inputs, of shape {' or '.join(map(str, shapes))}, received "
            f"shape {labels.shape} and dtype {labels.dtype}; give y in the order of X"
        )
    if by_sign:
        labels = labels.reshape(n, neurons)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("expected labels 0 and 1 for each output neuron, received others; give y as 0 and 1")
        return labels.astype("int32")
    if labels.ndim == 2 and labels.shape[1] == neurons and neurons > 1:
        if not np.allclose(labels.sum(axis=1), 1) or not np.isin(labels, (0, 1)).all():
            raise ValueError("expected one-hot labels, received others; give the classes' indices, (n,)")
        labels = labels.argmax(axis=1)
    labels = labels.reshape(n)
    whole = labels.astype("int32")
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= neurons:
        raise ValueError(
            f"expected classes from 0 to {neurons - 1}, received labels from {labels.min()} to {labels.max()}; "
            "count the classes as the model's output neurons"
        )
    return whole
