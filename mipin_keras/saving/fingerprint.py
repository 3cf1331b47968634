"""The fingerprint of a model: hashes of its architecture and settings, of its own functions' code, of its weights.

Some things are in none of these, such as an attribute of a layer that its
``get_config()`` leaves out. They show in what the model computes: so the
outputs on a fixed probe are kept beside the fingerprint.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import activations
from ..graph.model_graph import ModelGraph, Step, TensorId
from .held_weights import is_keras_variable, variables

# The libraries whose functions and classes are hashed by their names, not by their code.
_LIBRARIES = frozenset({"builtins", "functools", "keras", "math", "numpy", "operator", "tensorflow", "tf_keras"})
# The entries of a layer's configuration that change nothing at inference once its weights are there, or that the
# fingerprint holds elsewhere; and the bookkeeping attributes of an operation of keras.ops.
_NEEDLESS = frozenset({"name", "trainable", "dtype", "seed", "quantization_config", "data_format", "batch_shape"})
_NEEDLESS_ENDS = ("_initializer", "_regularizer", "_constraint")
_SERIALIZED = frozenset({"module", "registered_name", "build_config", "shared_object_id"})
_BOOKKEEPING = frozenset({"name", "built", "data_format"})


def fingerprint(graph: ModelGraph) -> dict[str, str]:
    """Hashes that tell a model from others that compute something else.

    They do not depend on the names of layers, the batch size, and the
    optimizer and loss of a compiled model; nor on those settings of Keras' own
    layers that have their default values, so that a version of Keras that adds
    a setting changes nothing.

    Args:
        graph: The model's steps.

    Returns:
        For JSON: hashes of the ``"architecture"`` (steps, settings, calls), of
        the ``"code"`` of the model's own functions and classes, and of the
        ``"weights"``; and the ``"python"`` that compiled that code, which
        another one compiles to something else.
    """
    weights = hashlib.blake2b(digest_size=16)
    for variable in variables(graph):
        array = np.ascontiguousarray(np.asarray(keras.ops.convert_to_numpy(variable)))
        weights.update(repr((array.shape, array.dtype.str)).encode())
        weights.update(array.reshape(-1).view(np.uint8).data)
    return structure(graph) | {"weights": weights.hexdigest()}


def structure(graph: ModelGraph) -> dict[str, str]:
    """The :func:`fingerprint` without the weights; it takes little time, as no weights are read."""
    described = _Description(graph)
    model = [part for n in graph.inputs for part in (graph.shapes[n], graph.dtypes[n])]
    architecture = [described.plain(model), *map(described.step, graph.all_steps)]
    return {
        "architecture": _hash(architecture),
        "code": _hash(described.code),
        "python": sys.implementation.cache_tag or sys.version,
    }


def differences(found: dict[str, str], here: dict[str, str]) -> list[str]:
    """The differences between two fingerprints, of the model of a fit and of the model here, a clause for each."""
    clauses = {
        "architecture": "it has other layers, or a layer has another setting",
        "code": "a function or layer of your own has other code",
        "weights": "its weights are others",
    }
    compiled_alike = found.get("python") == here.get("python")
    return [
        clause
        for key, clause in clauses.items()
        if found.get(key) != here.get(key) and (key != "code" or compiled_alike)
    ]


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


class _Description:
    """Describes steps as values for JSON, and collects the code that they call.

    Attributes:
        code: Descriptions of the functions and classes that are no library's.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.code: list[Any] = []
        self._weights = {id(variable): i for i, variable in enumerate(graph.model.weights)}
        self._calls: dict[int, int] = {}
        self._function_ids: dict[int, int] = {}
        self._alive: list[Any] = []  # an id() is only unique as long as its object lives

    def step(self, step: Step) -> list[Any]:
        layer = step.layer
        args, kwargs = step.arguments
        given = {key: value for key, value in kwargs.items() if value is not None and key != "training"}
        own = [self._weights.get(id(variable)) for variable in getattr(layer, "weights", ())]
        first = self._calls.setdefault(id(layer), step.index)  # of a shared layer, the first call
        # Of a step with several outputs or padding masks, these too; of others nothing, so that they keep their hash.
        more = [] if step.part is None and not step.masks else [[step.part, sorted(step.masks.items())]]
        return [
            type(layer).__name__,
            [step.linear, step.built_in, list(step.inputs), self.plain(step.output_shape), own, first],
            self.settings(getattr(layer, "separable_layer", layer)),
            self.plain([list(args), given]),
            *more,
        ]

    def settings(self, layer: Any) -> Any:
        """The settings of a layer or an operation."""
        own = _library(type(layer)) != "keras"
        if own:
            self._class(type(layer))
        if not isinstance(layer, keras.layers.Layer):
            kept = {k: v for k, v in vars(layer).items() if not k.startswith("_") and k not in _BOOKKEEPING}
            return self.plain({key: value for key, value in kept.items() if value is not None})
        found = {}
        defaults = _defaults(type(layer))
        for key, value in _config(layer).items():
            if key in _NEEDLESS or (not own and key.endswith(_NEEDLESS_ENDS)):
                continue
            attribute = getattr(layer, key, None)
            # The function itself: its text in get_config() may hold the number of the line it was written in.
            described = self.plain(_as_loaded(key, attribute) if _is_function(attribute) else value)
            if key not in defaults or described != self.plain(defaults[key]):
                found[key] = described
        return [str(layer.compute_dtype), str(layer.variable_dtype), found]

    def plain(self, value: Any) -> Any:
        """Any value as JSON holds it: the same for every version of Keras, before and after saving the model."""
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float | np.number):
            return repr(float(value)) if abs(float(value)) < 2**53 else str(value)
        if isinstance(value, TensorId):
            return ["tensor", value.tensor_id]
        if isinstance(value, list | tuple):
            return [self.plain(entry) for entry in value]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(json.dumps(self.plain(entry), sort_keys=True) for entry in value)]
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, slice):
            return ["slice", *map(self.plain, (value.start, value.stop, value.step))]
        if _is_function(value):
            return self._function(value)
        if isinstance(value, keras.Operation):  # a layer among a layer's settings
            return [type(value).__name__, self.settings(value)]
        if is_keras_variable(value) or isinstance(value, np.ndarray | tf.Tensor | tf.Variable):
            return self._array(np.asarray(keras.ops.convert_to_numpy(value)))
        return [type(value).__name__, str(value) if isinstance(value, tf.DType | np.dtype | bytes) else None]

    def _array(self, array: np.ndarray) -> Any:
        if not array.ndim and array.dtype.kind in "biuf":
            return self.plain(array.item())
        wide = array.astype(np.float64) if array.dtype.kind in "biuf" else array
        text = repr(array.tolist()).encode() if wide.dtype.hasobject else np.ascontiguousarray(wide).tobytes()
        return ["array", list(array.shape), hashlib.blake2b(text, digest_size=16).hexdigest()]

    def _dict(self, value: dict) -> Any:
        if "class_name" not in value or not isinstance(value.get("config"), dict):
            return {str(key): self.plain(entry) for key, entry in value.items()}
        if value["class_name"] == "__lambda__":
            return "function"
        # A layer, or another object of Keras, as get_config() writes it.
        kept = {k: v for k, v in value.items() if k not in _SERIALIZED and k != "config"}
        inner = value["config"].items()
        if "DTypePolicy" not in str(value["class_name"]):
            inner = {k: v for k, v in inner if k not in ("name", "trainable", "seed")}.items()
        return {str(k): self.plain(v) for k, v in (*kept.items(), ("config", dict(inner)))}

    # Code

    def _function(self, function: Any) -> Any:
        """A library's function by its name; any other as "function", with its code added to :attr:`code`."""
        if isinstance(function, functools.partial):
            return ["partial", self._function(function.func), self.plain([function.args, function.keywords])]
        function = getattr(function, "python_function", function)  # of a tf.function
        name = _library(function)
        if name is not None:
            return [name, getattr(function, "__name__", "")]
        self.code.append(self._code_of(inspect.unwrap(getattr(function, "__func__", function))))
        return "function"

    def _code_of(self, function: Any) -> Any:
        code = getattr(function, "__code__", None)
        if code is None:
            return getattr(function, "__name__", type(function).__name__)
        if id(function) in self._function_ids:  # it calls itself, or is used twice
            return self._function_ids[id(function)]
        self._function_ids[id(function)] = len(self._function_ids)
        self._alive.append(function)
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        known = function.__globals__
        named = [known[name] for name in _names(code) if name in known]
        read = [value for value in (*cells, *named) if _is_constant(value)]
        return [_compiled(code), self.plain([function.__defaults__, function.__kwdefaults__, read])]

    def _class(self, owner: type) -> None:
        """Add the code of a class of the user's, and of its bases that are no library's, to :attr:`code`."""
        for base in owner.__mro__:
            if _library(base) is not None or base.__module__.startswith("mipin_keras."):
                break
            for name, member in sorted(vars(base).items()):
                if not name.startswith("__") and _is_constant(member) and not _is_function(member):
                    self.code.append([name, self.plain(member)])
                member = getattr(member, "__func__", member)  # of a static or class method
                member = getattr(member, "fget", member)  # of a property
                if name not in ("get_config", "from_config") and _is_function(member) and _library(member) is None:
                    self.code.append([name, self._code_of(inspect.unwrap(member))])


def _config(layer: Any) -> dict[str, Any]:
    """The layer's configuration, and the attributes named as Keras' own arguments that it leaves out.

    Keras 3.5 leaves out the ``output_padding`` of transposed convolutions.
    Where ``get_config()`` fails, the attributes named as any argument of the
    layer stand for it.
    """
    names = _defaults(type(layer))
    try:
        found = layer.get_config()
    except Exception:  # it has arguments or activations that Keras cannot write, each in a way of its own
        found, names = {}, {name: None for base in type(layer).__mro__ for name in _parameters(base)}
    return {name: getattr(layer, name) for name in names if hasattr(layer, name)} | found


def _as_loaded(name: str, function: Any) -> Any:
    """A function as a model that is saved and loaded has it: Keras loads ``tf.nn.relu`` as its own ``relu``."""
    known = activations.plain_name(function) if name == "activation" and _library(function) == "tensorflow" else ""
    return getattr(keras.activations, known) if known else function


@functools.lru_cache(maxsize=512)
def _parameters(owner: type) -> dict[str, Any]:
    """The arguments that a class itself names, and their defaults."""
    if "__init__" not in vars(owner) or owner is object:
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind in named and p.name != "self"}


def _defaults(owner: type) -> dict[str, Any]:
    """The defaults of the arguments of a class that are Keras' own."""
    found: dict[str, Any] = {}
    for base in owner.__mro__:
        if _library(base) == "keras":
            found = _parameters(base) | found
    return {name: default for name, default in found.items() if default is not inspect.Parameter.empty}


def _library(value: Any) -> str | None:
    """The library that a function or class is of; None for one of the user's."""
    if getattr(value, "__name__", "") == "<lambda>":  # one that Keras loads from a file looks like Keras' own
        return None
    name = str(getattr(value, "__module__", "")).split(".")[0]
    return name if name in _LIBRARIES else None


def _is_function(value: Any) -> bool:
    return not isinstance(value, keras.Operation | type) and (
        inspect.isroutine(value) or isinstance(value, functools.partial) or hasattr(value, "python_function")
    )


def _is_constant(value: Any, depth: int = 4) -> bool:
    """Whether a value that a function reads from outside can be hashed: numbers, text, arrays, functions and so on."""
    if isinstance(value, tuple | list | dict):
        held = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_constant(entry, depth - 1) for entry in held)
    plain = (bool, int, float, str, np.number, np.ndarray, tf.Tensor, tf.Variable)
    return value is None or isinstance(value, plain) or is_keras_variable(value) or _is_function(value)


def _names(code: types.CodeType) -> list[str]:
    """The names that a function, or one within it, may read from its module."""
    inner = [name for value in code.co_consts if isinstance(value, types.CodeType) for name in _names(value)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _compiled(code: types.CodeType) -> list[Any]:
    """The compiled code of a function, without the file and line it stands in."""
    constants: list[Any] = []
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            constants.append(_compiled(value))
        elif isinstance(value, frozenset):  # its order differs from process to process
            constants.append(sorted(map(repr, value)))
        else:
            constants.append(repr(value))
    return [code.co_code.hex(), constants, list(code.co_names), code.co_argcount, code.co_kwonlyargcount]
