"""Checks of what a fit is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from .network import InverseNetwork


def checked_classes(classes: Any, neurons: int) -> list[int]:
    """Output neurons to fit, sorted, each once; all of them for None.

    Raises:
        ValueError: Unless they are ints from 0 to below ``neurons``, at least
            one.
    """
    if classes is None:
        return list(range(neurons))
    listed = list(classes) if isinstance(classes, Iterable) and getattr(classes, "shape", None) != () else [classes]
    bad = [c for c in listed if isinstance(c, bool) or not isinstance(c, int | np.integer)]
    bad += [c for c in listed if c not in bad and not 0 <= c < neurons]
    if bad or not listed:
        raise ValueError(
            f"expected classes to be ints from 0 to {neurons - 1}, at least one, received {classes!r}; None is for all"
        )
    return sorted({int(c) for c in listed})


def checked_callbacks(
    callbacks: Any, network: InverseNetwork, options: dict[str, Any]
) -> list[keras.callbacks.Callback]:
    """Keras' callbacks as a list; empty for None.

    Args:
        callbacks: One, several or None.
        network: The inverse network that is fitted.
        options: Of :class:`mipin_keras.mipin.MIPIN`.

    Raises:
        TypeError: Unless it is one of Keras' callbacks or several.
        ValueError: If nothing is trained.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.Callback):
        listed = [] if callbacks is None else [callbacks]
    else:
        listed = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    odd = [each for each in listed if not isinstance(each, keras.callbacks.Callback)]
    if odd:
        raise TypeError(
            f"expected callbacks to be a list of keras.callbacks.Callback, received {odd[0]!r}; derive it from that "
            "class"
        )
    trained = options["conv_solver"] == "trained"
    trains = trained and any(network.regression(node).trainable for node in network.learned)
    if listed and not trains and not options["finetune_epochs"]:
        reason = "a model without convolutions" if trained else "conv_solver='closed_form'"
        raise ValueError(
            f"expected callbacks= together with something to train, received {len(listed)} with {reason}, where "
            "nothing is trained; leave them out, or take conv_solver='trained' or finetune_epochs="
        )
    return listed
