"""Twin: a tf-keras copy of a Keras 3 model, in a TensorFlow graph and session of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import re
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import activations
from ..graph.model_graph import ModelGraph, Step

# The layers of Keras 3 that tf-keras has under the same name and that compute the same there.
_SPATIAL = (
    "Conv", "MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "ZeroPadding", "Cropping",
    "UpSampling", "SpatialDropout",
)  # fmt: skip
LAYERS = frozenset(
    {f"{name}{rank}D" for name in _SPATIAL for rank in (1, 2, 3)}
    | {
        "Dense", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D",
        "SeparableConv1D", "SeparableConv2D", "BatchNormalization", "LayerNormalization", "Flatten", "Reshape",
        "Permute", "RepeatVector", "Rescaling", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
        "ActivityRegularization", "Identity", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
        "Concatenate", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax",
    }
)  # fmt: skip

#: keras.ops (and +, -, * between tensors) that stand for a layer.
_OPERATIONS = frozenset({"Add", "Subtract", "Multiply", "Maximum", "Minimum", "Concatenate"})

#: Functions of keras.activations, and tf-keras' names for them. Not hard_sigmoid, which has another formula there.
_ACTIVATIONS = {
    name: name
    for name in ("elu", "exponential", "gelu", "linear", "mish", "relu", "selu", "sigmoid", "softmax", "softplus",
                 "softsign", "tanh")
} | {"silu": "swish"}  # fmt: skip

# The activations that tf-keras has as a layer only.
_ACTIVATION_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu6": ("ReLU", {"max_value": 6.0}),
    "leaky_relu": ("LeakyReLU", {"alpha": 0.2}),
}

# The entries of a layer's get_config that change nothing at inference, or that the twin sets itself.
_NEEDLESS = frozenset(
    {
        "name", "trainable", "dtype", "seed", "activation", "lora_rank", "lora_alpha", "quantization_config",
        "renorm_clipping", "renorm_momentum",
    }
)  # fmt: skip
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}


class _RefusedError(Exception):
    """The error for a step that tf-keras cannot rebuild; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One layer of the twin, before it is built.

    Attributes:
        step: The step of the Keras 3 model.
        layer_type: The name of the layer's class in tf-keras.
        arguments: The arguments of that class.
        weights: float32 arrays in the order of ``set_weights``.
        inputs: The ids of the input tensors, as in :class:`ModelGraph`.
        output: The id of the output tensor.
    """

    step: Step
    layer_type: str
    arguments: dict[str, Any]
    weights: list[np.ndarray]
    inputs: tuple[int, ...]
    output: int


def recipes(graph: ModelGraph) -> list[Recipe]:
    """The layers of the twin of ``graph``: one for each step; a built-in activation stays in its layer.

    Raises:
        ValueError: If tf-keras cannot rebuild some steps; one message names
            all of them.
    """
    found, refused, skip = [], [], -1
    for step in graph.steps:
        if step.index == skip:
            continue
        activation, output = "linear", step.output
        if step.linear and step.index + 1 < len(graph.steps):
            follower = graph.steps[step.index + 1]
            name = _ACTIVATIONS.get(activations.plain_name(step.layer.activation))
            own = getattr(follower.layer, "activation", None) is step.layer.activation
            if name not in (None, "linear") and own and follower.inputs == (step.output,):
                activation, output, skip = str(name), follower.output, follower.index
        try:
            layer_type, arguments, weights = _recipe(step, activation)
            found.append(Recipe(step, layer_type, arguments, weights, step.inputs, output))
        except _RefusedError as why:
            refused.append(f"{step}: {why}")
    if refused:
        raise _cannot_rebuild(refused)
    return found


def _cannot_rebuild(refused: list[str]) -> ValueError:
    return ValueError(
        f"expected a model that tf-keras can rebuild for iNNvestigate, received {', and '.join(refused)}; take an "
        "analyzer whose name does not begin with 'innvestigate:', which runs on the Keras 3 model itself"
    )


def _recipe(step: Step, activation: str) -> tuple[str, dict[str, Any], list[np.ndarray]]:
    layer = step.layer
    args, kwargs = step.arguments
    if not step.linear and any(value is not None for key, value in kwargs.items() if key not in ("training", "axis")):
        raise _RefusedError(f"called with {sorted(kwargs)}")
    if not isinstance(layer, keras.layers.Layer):
        return (*_operation(step), [])
    if isinstance(layer, keras.layers.Lambda) and activations.activation_name(layer):
        return (*_activation(activations.plain_name(activations.function_of(layer))), [])
    base = next((base for base in type(layer).__mro__ if getattr(keras.layers, base.__name__, None) is base), None)
    if base is None or base.__name__ not in LAYERS or not hasattr(_tf_keras().layers, base.__name__):
        raise _RefusedError("no such layer in tf-keras, or none that computes the same")
    if activations.overrides_call(layer, base):
        raise _RefusedError("a subclass with a call of its own")
    layer_type = base.__name__
    if layer_type == "Activation":
        return (*_activation(activations.plain_name(layer.activation)), [])
    arguments = _arguments(layer, base)
    if step.linear:
        arguments["activation"] = activation
    elif hasattr(layer, "activation"):
        name = activations.plain_name(layer.activation)
        if name not in _ACTIVATIONS:
            raise _RefusedError(f"tf-keras has no activation {name or layer.activation!r} that computes the same")
        arguments["activation"] = _ACTIVATIONS[name]
    return layer_type, arguments, [np.asarray(weight, np.float32) for weight in layer.get_weights()]


def _activation(name: str) -> tuple[str, dict[str, Any]]:
    if name in _ACTIVATION_LAYERS:
        return _ACTIVATION_LAYERS[name]
    if name not in _ACTIVATIONS:
        shown = repr(name) if name else "for what is none of keras.activations, or with other settings,"
        raise _RefusedError(f"tf-keras has no activation {shown} that computes the same")
    return "Activation", {"activation": _ACTIVATIONS[name]}


def _operation(step: Step) -> tuple[str, dict[str, Any]]:
    """The layer that stands for a ``keras.ops`` call."""
    layer, operation = step.layer, type(step.layer).__name__
    name = activations.activation_name(layer)
    given = keras.tree.flatten(step.arguments[0])
    constant = any(isinstance(leaf, int | float | np.ndarray | tf.Tensor) for leaf in given)
    if name is not None:
        if name == "leaky_relu":
            return "LeakyReLU", {"alpha": layer.negative_slope}
        if name == "elu":
            return "ELU", {"alpha": layer.alpha}
        if name == "relu" and hasattr(layer, "negative_slope"):
            return "ReLU", {key: getattr(layer, key) for key in ("negative_slope", "max_value", "threshold")}
        if name == "softmax":
            return "Softmax", {"axis": layer.axis}
        if name == "gelu" and layer.approximate:
            raise _RefusedError("tf-keras has no layer for the approximate gelu")
        return _activation(name)
    if operation not in _OPERATIONS or constant or not type(layer).__module__.startswith("keras."):
        raise _RefusedError("an operation that tf-keras has no layer for")
    if operation == "Concatenate":
        return operation, {"axis": layer.axis}
    if len(set(step.input_shapes)) != 1 or len(step.inputs) != 2:
        raise _RefusedError("an operation on other than two tensors of one shape")
    return operation, {}


def _arguments(layer: Any, base: type) -> dict[str, Any]:
    """The layer's settings under the names of tf-keras' class."""
    layer_type = base.__name__
    theirs, ours = _parameters(getattr(_tf_keras().layers, layer_type)), _parameters(base)
    arguments = {}
    try:
        config = layer.get_config()
    except TypeError as problem:  # a functools.partial among its settings, which Keras cannot write
        raise _RefusedError("a layer whose get_config() fails") from problem
    for key, value in config.items():
        if key in _NEEDLESS or key.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        name = _RENAMED.get((layer_type, key), key)
        if name in theirs:
            arguments[name] = value
        elif not (key == "data_format" or value in (None, False) or (key in ours and ours[key] == value)):
            raise _RefusedError(f"tf-keras has no {key}={value!r}")
    return arguments


def _parameters(layer_class: type) -> dict[str, Any]:
    """The arguments of a layer class and their defaults, without those that every layer has."""
    found: dict[str, Any] = {}
    for base in layer_class.__mro__:
        if base.__name__ in ("Layer", "Module", "object"):
            break
        if "__init__" in vars(base):
            found = {p.name: p.default for p in inspect.signature(vars(base)["__init__"]).parameters.values()} | found
    return found


def _tf_keras() -> Any:
    return importlib.import_module("tf_keras")


class Twin:
    """A tf-keras model that computes the logits of ``graph``, with a graph and session that nothing else uses.

    Args:
        graph: The Keras 3 model. Its weights are read here, once.

    Raises:
        ValueError: For layers that tf-keras cannot rebuild; one message names
            all of them.

    Attributes:
        model: The tf-keras model, for use within :meth:`inside` only.
    """

    def __init__(self, graph: ModelGraph):
        made = recipes(graph)  # reads the weights: within the other graph Keras 3 can read none
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        closing = weakref.finalize(self, self._session.close)
        closing.atexit = False
        with self.inside():
            self.model = self._build(graph, made)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """A context in which tf-keras works in the twin's graph and session; no Keras 3 model may be used in it.

        While it lasts, tf-keras' private ``_UNSAFE_GRAPH_OP_LAYER_CREATION``
        is set; it is reset after. iNNvestigate calls raw TensorFlow
        operations on Keras tensors; without the flag tf-keras searches the
        whole graph at each of them, which takes minutes on a deep network.
        """
        utils: Any = importlib.import_module("tf_keras.src.engine.base_layer_utils")
        backend: Any = importlib.import_module("tf_keras.src.backend")
        flag, session = utils._UNSAFE_GRAPH_OP_LAYER_CREATION, getattr(backend._SESSION, "session", None)
        with self._graph.as_default(), self._session.as_default(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`Model.state_updates`", UserWarning)  # tf-keras about its own lines
            try:
                utils._UNSAFE_GRAPH_OP_LAYER_CREATION = True
                backend.set_session(self._session)
                yield
            finally:
                utils._UNSAFE_GRAPH_OP_LAYER_CREATION = flag
                backend._SESSION.session = session

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The twin's own logits, float32 ``(n, neurons)``; also initialises its variables."""
        with self.inside():
            return np.asarray(self.model.predict_on_batch(x), np.float32)

    def _build(self, graph: ModelGraph, made: list[Recipe]) -> Any:
        tf_keras = _tf_keras()
        taken: set[str] = set()
        x = tf_keras.Input(graph.shapes[graph.input], name=_name("input", taken))
        tensors, refused = {graph.input: x}, []
        weights: list[tuple[Any, np.ndarray]] = []
        for recipe in made:
            try:
                layer = getattr(tf_keras.layers, recipe.layer_type)(
                    name=_name(recipe.step.name, taken), **recipe.arguments
                )
                if recipe.layer_type == "BatchNormalization":
                    layer.trainable = False  # its moving statistics, as predict() takes them
                inputs = [tensors[tensor_id] for tensor_id in recipe.inputs]
                tensors[recipe.output] = layer(inputs if len(inputs) > 1 else inputs[0])
                shapes, given = ([tuple(w.shape) for w in some] for some in (layer.weights, recipe.weights))
                if shapes != given:
                    raise ValueError(f"its weights have the shapes {shapes}, not {given}")
                weights += zip(layer.weights, recipe.weights, strict=True)
            except (TypeError, ValueError, NotImplementedError) as problem:
                refused.append(f"{recipe.step}: tf-keras raises {type(problem).__name__}: {problem}")
                break
        if refused:
            raise _cannot_rebuild(refused)
        if graph.output == graph.input:
            raise ValueError(
                "expected a model with at least one layer before its softmax, received none; there is nothing to "
                "explain"
            )
        tf_keras.backend.batch_set_value(weights)  # all at once: layer by layer is slow on a deep model
        return tf_keras.Model(x, tensors[graph.output], name="twin")


def _name(wanted: str, taken: set[str]) -> str:
    """A name like ``wanted`` for TensorFlow, unlike those of the twin's other layers; added to ``taken``."""
    # The prefix keeps the name apart from those that tf-keras gives the layers that iNNvestigate adds, such as
    # "activation": two layers of one name are an error.
    base = "twin_" + re.sub(r"[^A-Za-z0-9_.-]", "_", wanted)
    name, count = base, 1
    while name.lower() in {other.lower() for other in taken}:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name
