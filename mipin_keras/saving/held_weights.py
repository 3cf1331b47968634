"""HeldWeights: a model's weights as they were, to detect at little cost that they have changed."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph.model_graph import ModelGraph

_to_dlpack = tf.experimental.dlpack.to_dlpack
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class HeldWeights:
    """Holds the values that variables have now, and tells later whether they have changed.

    TensorFlow writes into a variable's memory only where nobody else holds
    it; else it takes new memory (copy on write). So while the values read
    here are held, a variable that still reads from the same address has not
    changed; the comparison takes microseconds, whatever the variable's size. A
    variable at another address is compared by a hash of its values.

    The values that are held are the variables' own, no copies. Only once a
    variable has changed do the old values take memory of their own, until the
    change is noticed.

    Args:
        variables: Keras variables, such as ``model.weights``, or TensorFlow's.
    """

    def __init__(self, variables: Iterable[Any]):
        self.variables = list(variables)
        values = self.read()
        self._held: list[tf.Tensor | None] = list(values)
        self._addresses = [_address(value) for value in values]
        # Of the variables that change: one that is set back to its old values then counts as unchanged.
        self._digests: dict[int, str] = {}

    def read(self) -> list[tf.Tensor]:
        """The variables' values now; in a traced function, the values that each call will read."""
        return [_tensorflow_variable(variable).read_value() for variable in self.variables]

    def changed(self, values: Sequence[tf.Tensor] | None = None) -> list[str]:
        """The names of the variables whose values are not those held.

        Args:
            values: The values that :meth:`read` returned; None to read them
                now.
        """
        values = self.read() if values is None else values
        found = []
        for i, (value, address) in enumerate(zip(values, self._addresses, strict=True)):
            if address is not None and address == _address(value):
                continue
            if self._digest(i) != _hash(value):
                found.append(getattr(self.variables[i], "path", self.variables[i].name))
                self._held[i] = self._addresses[i] = None  # an address says nothing once its memory is freed
            else:
                self._held[i], self._addresses[i] = value, _address(value)
        return found

    def _digest(self, i: int) -> str:
        held = self._held[i]
        if i not in self._digests and held is not None:
            self._digests[i] = _hash(held)
        return self._digests[i]


def is_keras_variable(value: Any) -> bool:
    """Whether ``value`` is a variable of Keras; by its type's name, as those of Keras 3.5 are no ``keras.Variable``."""
    return type(value).__name__ == "Variable" and type(value).__module__.startswith("keras.")


def _tensorflow_variable(variable: Any) -> Any:
    return variable.value if is_keras_variable(variable) else variable


def _address(tensor: tf.Tensor) -> int | None:
    """The address of a tensor's memory, on any device; None where it is not known."""
    try:
        capsule = _to_dlpack(tensor)
        # The first field of a DLManagedTensor is its DLTensor, whose first field is the address.
        return ctypes.c_void_p.from_address(_pointer(capsule, b"dltensor")).value
    except Exception:  # a dtype or a device that DLPack does not know
        return None


def _hash(tensor: tf.Tensor) -> str:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(tensor))
    return hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=16).hexdigest()


def variables(graph: ModelGraph) -> list[Any]:
    """The variables that a model's outputs depend on: its weights, and those that a user's layer hides from Keras.

    Returns:
        Keras variables, those of ``model.weights`` first, and TensorFlow's.
    """
    found = {id(variable): variable for variable in graph.model.weights}
    own = {id(variable.value) for variable in found.values()}
    visited: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in visited:
            return
        visited.add(id(value))
        if is_keras_variable(value) or isinstance(value, tf.Variable):
            if id(value) not in own and id(getattr(value, "value", None)) not in own:
                found.setdefault(id(value), value)
        elif isinstance(value, keras.layers.Layer):
            for attribute in list(vars(value).values()):
                visit(attribute)
        elif isinstance(value, list | tuple | dict):
            for entry in value.values() if isinstance(value, dict) else value:
                visit(entry)

    for step in graph.all_steps:
        visit(step.model_layer)
    return list(found.values())
