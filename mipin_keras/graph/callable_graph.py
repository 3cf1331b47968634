"""CallableGraph: a model without a graph, or any function, as the one step that it is to the gradient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..checks import not_keras
from . import explained
from .model_graph import ModelGraph
from .steps import Step, TensorId, kept_states


class Whole:
    """What the one step calls: the model, on its inputs as they were given.

    Args:
        model: A Keras model or layer, or a function of the inputs.
        structure: The inputs as they were given, for their structure; None
            for one tensor.
    """

    def __init__(self, model: Any, structure: Any = None):
        self.model, self.structure = model, structure
        self.name = getattr(model, "name", getattr(model, "__name__", type(model).__name__))

    def __call__(self, *x: tf.Tensor) -> Any:
        given = x[0] if self.structure is None else keras.tree.pack_sequence_as(self.structure, list(x))
        if isinstance(self.model, keras.layers.Layer):
            with kept_states(self.model):
                return self.model(given, training=False)
        return self.model(given)


class CallableGraph(ModelGraph):
    """A subclassed model, or any function from inputs to outputs, of which only the gradient is known.

    What it takes and gives is known once it has met samples (:meth:`meet`).
    A final softmax cannot be left off; outputs that look like probabilities
    are warned of.

    Args:
        model: A Keras model or layer, or a function.
        target: See :class:`~.model_graph.ModelGraph`.

    Raises:
        TypeError: If it cannot be called.
    """

    def __init__(self, model: Any, target: explained.Target | None = None):
        old = any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)
        if not callable(model) or isinstance(model, type) or old:
            raise not_keras(model)
        self.model, self.target = model, target
        self.stripped, self.batch, self.taken_by_sign = None, None, target is not None
        self.names: list[str] = ["input"]
        self.shapes: list[tuple[int, ...]] = []
        self.dtypes: list[str] = []
        self.steps: list[Step] = []
        self.all_steps: list[Step] = []
        self.ends: dict[str, int] = {}
        self.inputs, self.model_outputs = (0,), ()
        self.input = self.output = 0
        self._met: Any = None

    @property
    def input_names(self) -> list[str]:
        """The keys of a dict, or made up."""
        return self.names

    def meet(self, X: Any) -> bool:
        """Take the structure, shapes and dtypes of samples; whether they are others than before.

        Args:
            X: An array or tensor ``(n, ...)``, or a list or dict of them.

        Raises:
            TypeError: For samples that are not floating.
            ValueError: For an output that is not ``(batch, units)`` where there is no target.
        """
        structured = isinstance(X, Mapping) or (isinstance(X, list | tuple) and np.ndim(X[0]) > 0 and _are_arrays(X))
        given = keras.tree.flatten(dict(X) if isinstance(X, Mapping) else X) if structured else [X]
        arrays = [np.asarray(part) for part in given]
        if any(array.dtype.kind != "f" for array in arrays):
            raise TypeError(
                "expected floating-point samples for a model without a graph, received "
                f"{[str(array.dtype) for array in arrays]}: of tokens and other whole numbers there is no gradient; "
                "convert images with astype('float32'), or build the model as keras.Model(inputs, outputs), which is "
                "explained behind its embedding"
            )
        met = ([array.shape[1:] for array in arrays], sorted(X) if isinstance(X, Mapping) else structured)
        if met == self._met:
            return False
        names = sorted(X) if isinstance(X, Mapping) else [f"input{i or ''}" for i in range(len(arrays))]
        self._open([array.shape[1:] for array in arrays], names, X if structured else None)
        self._met = met
        return True

    def _open(self, shapes: Sequence[tuple[int, ...]], names: list[str], structure: Any) -> None:
        whole = Whole(self.model, structure)
        dtype = "float64" if getattr(self.model, "compute_dtype", None) == "float64" else "float32"
        specs = [tf.TensorSpec((None, *shape), dtype) for shape in shapes]
        found: list[Any] = []
        made: list[Any] = []

        gradients: list[Any] = []

        def call(*x: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                tape.watch(x)
                made[:] = [whole(*x)]  # a model that builds itself is called twice
                found[:] = keras.tree.flatten(made[0])
            gradients[:] = tape.gradient(found, list(x)) if all(map(tf.is_tensor, found)) else x

        tf.function(call, autograph=False).get_concrete_function(*specs)
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"expected a function whose output depends on its input, received {whole.name!r}, through which no "
                "gradient comes: it rounds, looks up or leaves TensorFlow on its way; explain the part behind that"
            )
        if any(not isinstance(tensor, tf.Tensor) for tensor in found):
            raise TypeError(
                f"expected a function that returns tensors, received one that returns {[type(t) for t in found]}; "
                "write it with keras.ops or TensorFlow, and convert nothing to NumPy"
            )
        count = len(specs)
        self.names, self.inputs = names, tuple(range(count))
        self.shapes, self.dtypes = [tuple(shape) for shape in shapes], [dtype] * count
        self.ends = dict(zip(names, self.inputs, strict=True))
        arguments: Any = (tuple(map(TensorId, self.inputs)), {})
        self.steps = []
        for part, tensor in enumerate(found):
            self._add(whole, whole.name, self.inputs, tensor, arguments, None if tf.is_tensor(made[0]) else part)
        self.model_outputs = tuple(step.output for step in self.steps)
        self.all_steps = list(self.steps)
        if self.target is not None:
            as_given = None if tf.is_tensor(made[0]) else made[0]
            value = explained.TargetValue(self.target, [[] for _ in found], as_given)
            ends = tuple(map(TensorId, self.model_outputs))
            self._add(value, value.name, self.model_outputs, tf.zeros((1, 1)), (ends, {}), None)
        elif len(found) != 1 or found[0].shape.rank != 2 or found[0].shape[1] is None:
            received = [tuple(tensor.shape) for tensor in found]
            raise ValueError(
                f"expected one output of shape (batch, units) to explain, received {received}; give target=, a "
                "function from the outputs to one number a sample"
            )
        self.output = self.steps[-1].output

    def _add(
        self, layer: Any, name: str, inputs: tuple[int, ...], tensor: tf.Tensor, arguments: Any, part: int | None
    ) -> None:
        self.shapes.append(tuple(tensor.shape[1:]))
        self.dtypes.append(tensor.dtype.name)
        shapes = tuple(self.shapes[n] for n in inputs)
        index, output = len(self.steps), len(self.shapes) - 1
        self.steps.append(
            Step(index, name, layer, False, inputs, output, shapes, self.shapes[output], arguments, part=part)
        )

    def warn_of_probabilities(self, outputs: np.ndarray) -> None:
        """Warn of outputs that are probabilities, whose gradient says little where the model is sure.

        Args:
            outputs: Shape ``(n, units)``.
        """
        within = bool((outputs >= 0).all() and (outputs <= 1).all())
        sums = bool((np.abs(outputs.sum(axis=1) - 1) < 1e-3).all())
        if self.target is None and within and (sums or outputs.size >= 8):
            warnings.warn(
                f"expected logits, received outputs of {self.steps[0].name!r} that look like probabilities: a softmax "
                "or sigmoid at the end of a model without a graph cannot be left off; explain the function that gives "
                "the logits",
                UserWarning,
                stacklevel=5,
            )


def _are_arrays(parts: Sequence[Any]) -> bool:
    return all(hasattr(part, "shape") for part in parts)
