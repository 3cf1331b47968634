"""Activations by name: which function an activation layer or operation computes, however it is written."""

from __future__ import annotations

from typing import Any

import keras

# Elementwise functions of keras.activations, and PReLU: an output element depends on one input element alone.
ELEMENTWISE = frozenset(
    {
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
        "leaky_relu", "linear", "log_sigmoid", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu",
        "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh",
        "tanh_shrink", "threshold",
    }
)  # fmt: skip
HEADS = frozenset({"softmax", "log_softmax", "sigmoid"})


def overrides_call(layer: Any, base: type) -> bool:
    """Whether ``layer``'s class computes something else than ``base``, in any method that Keras calls for it."""
    methods = ("__call__", "call", "convolution_op", "_merge_function", "transform_images")
    return any(getattr(type(layer), name, None) is not getattr(base, name, None) for name in methods)


def activation_name(layer: Any) -> str | None:
    """The name in ``keras.activations`` of what an activation layer or operation computes.

    Returns:
        A name such as ``"relu"`` or ``"softmax"``, ``""`` for an activation
        layer around a function that is not Keras' own, and None for a layer
        that is no activation.
    """
    layers = keras.layers
    own = {
        layers.ReLU: "relu",
        layers.LeakyReLU: "leaky_relu",
        layers.ELU: "elu",
        layers.PReLU: "prelu",  # no function of keras.activations: its slopes are weights
        layers.Softmax: "softmax",
    }
    for base, name in own.items():
        if isinstance(layer, base):
            return "" if overrides_call(layer, base) else name
    if isinstance(layer, layers.Activation):
        return "" if overrides_call(layer, layers.Activation) else function_name(layer.activation)
    if not isinstance(layer, keras.layers.Layer) and type(layer).__module__.startswith("keras."):
        # keras.ops between layers: an Operation of Keras named in camel case.
        wanted = type(layer).__name__.lower()
        for name in ELEMENTWISE | HEADS:
            if name.replace("_", "") == wanted:
                return name
    return None


def function_name(function: Any) -> str:
    """The name of a function of ``keras.activations``, or ``""`` for any other."""
    if function is None:
        return "linear"
    name = getattr(function, "__name__", "")
    return name if name and getattr(keras.activations, name, None) is function else ""
