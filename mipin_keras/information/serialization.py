"""What of a fit of the information analyzers stands in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..checks import integer
from .fitting import new_networks
from .parts import Cut
from .results import Fitted, InformationReport


def state(found: Fitted) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A fit as float32 arrays by name, and a dict for JSON."""
    weights = {"mask": found.mask.get_weights(), "critic": found.critic.get_weights()}
    arrays = {f"{name}/{i}": weight for name, of in weights.items() for i, weight in enumerate(of)}
    arrays |= {f"bank/{i}": tensor.numpy() for i, tensor in enumerate(found.bank)}
    return arrays, {"report": found.report._asdict(), "negatives": int(found.bank[0].shape[0])}


def shapes(cut: Cut, options: dict[str, Any], about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the arrays of a fit with these options, and this dict for JSON."""
    mask, critic = new_networks(cut, options)
    weights = {"mask": mask.weights, "critic": critic.weights}
    found = {f"{name}/{i}": tuple(weight.shape) for name, of in weights.items() for i, weight in enumerate(of)}
    size = integer("negatives", about["negatives"], 1)
    return found | {f"bank/{i}": (size, cut.shape[-1]) for i in range(2)}


def restored(cut: Cut, options: dict[str, Any], arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Fitted:
    """The fit that :func:`state` gave."""
    mask, critic = new_networks(cut, options)
    mask.set_weights([arrays[f"mask/{i}"] for i in range(len(mask.weights))])
    critic.set_weights([arrays[f"critic/{i}"] for i in range(len(critic.weights))])
    bank = tf.constant(arrays["bank/0"]), tf.constant(arrays["bank/1"])
    report = about["report"] | {"samples": tuple(about["report"]["samples"])}
    return Fitted(mask, critic, bank, InformationReport(**report))
