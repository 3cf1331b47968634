"""Activations by name: which function an activation layer or operation computes, however it is written."""

from __future__ import annotations

import functools
import warnings
import weakref
from typing import Any

import keras

from .recognition import Recognised, gives_probabilities, recognise

# Elementwise functions of keras.activations, PReLU, and a ReLU with a cap or threshold of its own ("rectifier"): an
# output element depends on one input element alone.
ELEMENTWISE = frozenset(
    {
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
        "leaky_relu", "linear", "log_sigmoid", "mish", "prelu", "rectifier", "relu", "relu6", "selu", "sigmoid", "silu",
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
        A name such as ``"relu"`` or ``"softmax"``, as of
        :func:`function_name`; ``""`` for an activation layer around a
        function that is none of them; None for a layer that is no activation.
        A Lambda layer is one where its function has a name.
    """
    return _named(layer, lambda function: _recognised(function).name)


def keras_name(layer: Any) -> str | None:
    """As :func:`activation_name`, with names for the objects of ``keras.activations`` only, as version 0.1 had it."""
    return _named(layer, _own_name) if not isinstance(layer, keras.layers.Lambda) else None


def _named(layer: Any, name_of: Any) -> str | None:
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
    function = function_of(layer)
    if function is not None:
        return name_of(function) or ("" if isinstance(layer, layers.Activation) else None)
    if isinstance(layer, layers.Activation):
        return ""
    if not isinstance(layer, keras.layers.Layer) and type(layer).__module__.startswith("keras."):
        # keras.ops between layers: an Operation of Keras named in camel case.
        wanted = type(layer).__name__.lower()
        for name in ELEMENTWISE | HEADS:
            if name.replace("_", "") == wanted:
                return name
    return None


def function_of(layer: Any) -> Any:
    """The function that an Activation or Lambda layer applies; None for other layers."""
    if isinstance(layer, keras.layers.Activation) and not overrides_call(layer, keras.layers.Activation):
        return layer.activation
    if isinstance(layer, keras.layers.Lambda) and not overrides_call(layer, keras.layers.Lambda):
        if not layer.arguments:
            return layer.function
        if layer not in _partials:
            _partials[layer] = functools.partial(layer.function, **layer.arguments)
        return _partials[layer]
    return None


# One object a Lambda layer with arguments, so that it is recognised once.
_partials: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def function_name(function: Any) -> str:
    """The name of an activation function, however it is written.

    An object of ``keras.activations`` has its own name. Any other is
    recognised by what it computes (:mod:`~.recognition`): ``tf.nn.relu``,
    ``keras.ops.relu`` and ``lambda x: tf.maximum(x, 0.0)`` are ``"relu"``. A
    name says what kind of function it is, not with which settings:
    ``functools.partial(tf.nn.leaky_relu, alpha=0.1)`` is ``"leaky_relu"``.

    Returns:
        The name, ``"linear"`` for None, and ``""`` for any other function.
    """
    return _recognised(function).name


def plain_name(function: Any) -> str:
    """As :func:`function_name`, with ``""`` for a function with other settings than that one's defaults.

    Where another function is to stand for ``function``, by its name.
    """
    found = _recognised(function)
    return found.name if found.default and found.axis in (None, -1) else ""


def softmax_axis(layer: Any) -> int:
    """The axis of a layer or operation that computes a softmax; -1 for other activations."""
    function = function_of(layer)
    if function is None:
        return getattr(layer, "axis", -1)
    axis = _recognised(function).axis
    return -1 if axis is None else axis


def _own_name(function: Any) -> str:
    if function is None:
        return "linear"
    name = getattr(function, "__name__", "")
    return name if name and getattr(keras.activations, name, None) is function else ""


def _recognised(function: Any) -> Recognised:
    name = _own_name(function)
    if name or isinstance(function, keras.Operation | type):
        return Recognised(name)
    return recognise(function, _KNOWN)


_KNOWN = tuple(sorted(ELEMENTWISE | HEADS))


def step_suffix(activation: Any) -> str:
    """What the name of a built-in activation's step ends in: its name, that of its layer, or of the user's function.

    Args:
        activation: A layer.
    """
    name = activation_name(activation)
    if name or not isinstance(activation, keras.layers.Activation):
        return name or str(getattr(activation, "name", "activation"))
    own = str(getattr(activation.activation, "__name__", ""))
    return own if own.isidentifier() else "activation"


def warn_of_probabilities(step: Any) -> None:
    """Warn if the last step makes probabilities in a way that is not known, so that it cannot be left off.

    Args:
        step: A :class:`~.model_graph.Step`, or None.
    """
    if step is None or step.linear:
        return
    layer = step.layer
    function = function_of(layer)
    if function_name(function):  # as it is of None
        function = None
        if isinstance(layer, keras.layers.Layer) and activation_name(layer) is None:
            own = not type(layer).__module__.startswith("keras.")
            if own or function_name(getattr(layer, "activation", None)) != "linear":
                function = layer.call
    if function is not None and gives_probabilities(function, step.input_shape):
        warnings.warn(
            f"the model ends with step {step.name!r}, which makes probabilities in a way that cannot be left off "
            "exactly, such as a softmax with a temperature: these probabilities are explained, not logits. To explain "
            "logits, compute them in a layer without activation, put any scaling into a layer of its own, and end the "
            "model with keras.layers.Softmax() or keras.layers.Activation('sigmoid'); or name the layer that makes the "
            "logits as output_layer=",
            UserWarning,
            stacklevel=2,
        )
