"""Which inverse a step gets: the table, what an inverse is, and how to register one of your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..graph import activations, step_types
from ..graph.model_graph import Step
from .inverse_layer import InverseLayer
from .ridge import Regression

Record = tuple[tf.Tensor, ...]
Weights = tuple[tf.Tensor, ...]


class Inverse:
    """The inverse of one step: what reconstructs its input from the signal at its output.

    An inverse is linear in the signal, up to a bias. Subclass it for a layer
    of your own and name the layer with :func:`register_inverse`; define
    :meth:`source`, and :meth:`attribution` too if there is a bias.

    Args:
        step: The step to invert; ``self.layer`` is its Keras layer,
            ``self.input_shape`` and ``self.output_shape`` its shapes without
            the batch axis.
        forward_relu: Whether activations mask the signal (section 4.2).
        merge: How a tensor that several steps read is merged: ``"channel"``
            or ``"full"``.
        gate: Id of the tensor that gates this multiplication, or None.

    Attributes:
        learned: Whether it has weights to fit, one set a class.
        merges: Whether the step has several inputs: then ``x`` in
            :meth:`record` is a tuple of them, each different one once, and
            :meth:`source` and :meth:`attribution` return such a tuple.
    """

    learned = False
    merges = False
    #: Whether it records the padding mask of the step's input, by :meth:`record_mask`, where there is one.
    takes_mask = False

    def __init__(self, step: Step, *, forward_relu: bool = True, merge: str = "channel", gate: int | None = None):
        self.step = step
        self.layer = step.layer
        self.input_shape = step.input_shape
        self.output_shape = step.output_shape
        self.forward_relu = forward_relu

    def carries(self, tensor_ids: tuple[int, ...]) -> tuple[int | None, ...]:
        """The ids of the step's different inputs, with None for one that gets no signal, such as a gate."""
        return tensor_ids

    def record(self, x: tf.Tensor, y: tf.Tensor) -> Record:
        """What of the forward pass the inverse needs: per-sample tensors, nothing by default.

        Args:
            x, y: The step's input ``(n, *input_shape)`` and output.
        """
        return ()

    def record_mask(self, mask: tf.Tensor) -> Record:
        """What of the input's padding mask, bool ``(n, positions)``, the inverse needs."""
        return (mask,)

    def target(self, x: Any) -> tf.Tensor:
        """What a learned inverse reconstructs, from what :meth:`record` gets: the input."""
        return x

    def source(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        """The source signal at the input, ``(n, *input_shape)``, from the one at the output.

        Args:
            signal: Shape ``(n, *output_shape)``, float32 or float64; the
                result has its dtype.
            record: What :meth:`record` gave for these samples.
            weights: The class' fitted weights in the signal's dtype; empty
                unless ``learned``.
        """
        raise NotImplementedError(
            f"expected {type(self).__name__} to define source(), received one that does not; see mipin_keras.Inverse"
        )

    def attribution(self, signal: tf.Tensor, record: Record, weights: Weights) -> tf.Tensor:
        """The same without the bias: the linear part of :meth:`source` (Algorithm 1, line 12)."""
        return self.source(signal, record, weights)

    def keras_layer(self, name: str) -> keras.layers.Layer:
        """A fresh Keras layer that does what :meth:`source` does, for ``MIPIN.inverse_model``.

        It is called as ``layer(signal, *record)`` with float32 signals, a list
        of them where several meet, and gives the signal at the input; for a
        step that merges several tensors a list, one for each of those that
        :meth:`carries` does not leave out. Its weights are those of the
        inverse, in their order and of their shapes, float32.

        Args:
            name: The layer's name.
        """
        return InverseLayer(self, name)


class LearnedInverse(Inverse):
    """An inverse that a ridge regression fits, from features of the signal to the step's input.

    Attributes:
        weight_shapes: Shapes of the weights that :meth:`assemble` returns.
        positions: Rows of the regression that one sample gives.
        sampled: Whether a fit may take a random part of these positions.
        whole: Whether it takes all positions of a sample or none.
        trainable: Whether ``conv_solver="trained"`` trains it.
    """

    learned = True
    sampled = False
    whole = False
    trainable = False
    positions = 1
    weight_shapes: tuple[tuple[int, ...], ...]

    def regression(self) -> Regression:
        """Fresh sums of the right size, such as a :class:`~mipin_keras.mipin.ridge.Ridge`."""
        raise NotImplementedError

    def reconstruction(self, source: Any) -> tf.Tensor:
        """What of :meth:`source`'s result stands beside :meth:`target`."""
        return source

    def design(self, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> tuple[Any, Any]:
        """Rows of the regression, as its ``update`` takes them.

        Args:
            signal: Source signal at the output, ``(n, *output_shape)``; a
                tuple of them where several arrive at one tensor.
            x: What :meth:`target` gave, ``(n, ...)``.
            positions: int of shape ``(n, r)``, or None for all.
            record: What :meth:`record` gave.

        Returns:
            Arrays or tensors; for a ``Ridge`` features ``(groups, rows,
            features)`` and targets ``(groups, rows, targets)``.
        """
        raise NotImplementedError

    def add_rows(self, sums: Any, signal: Any, x: tf.Tensor, positions: np.ndarray | None, record: Record = ()) -> None:
        """Add the rows of some samples to what :meth:`regression` gave; override it where that is faster than rows."""
        sums.update(*self.design(signal, x, positions, record))

    def assemble(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        """The weights from a solution's kernel and bias."""
        raise NotImplementedError


_INVERSES: dict[type, type[Inverse] | Callable[..., Inverse]] = {}
# Of Keras' own operations between layers, with one tensor, by the name of their class.
_OPERATIONS: dict[str, type[Inverse]] = {}
_MERGES: dict[type | str, type[Inverse]] = {}


def register_merge(*layer_types: type, operations: tuple[str, ...] = ()) -> Callable[[type], type]:
    """Class decorator: use this :class:`Inverse` for layers and ``keras.ops`` that merge several tensors."""

    def register(inverse: type) -> type:
        _MERGES.update(dict.fromkeys((*layer_types, *operations), inverse))
        return inverse

    return register


def register_inverse(*layer_types: type) -> Callable[[type[Inverse]], type[Inverse]]:
    """Class decorator: use this :class:`Inverse` for layers of these types.

    Example::

        @mipin_keras.register_inverse(Scale)
        class ScaleInverse(mipin_keras.Inverse):
            def source(self, signal, record, weights):
                return signal / tf.cast(self.layer.scale, signal.dtype)

    Subclasses that do not redefine ``call`` are covered too. Registering a
    type again replaces its inverse.

    Raises:
        TypeError: If a type is not a Keras layer or operation, or the class
            is no Inverse.
    """
    for layer_type in layer_types:
        if not (isinstance(layer_type, type) and issubclass(layer_type, keras.Operation)):
            raise TypeError(
                f"expected subclasses of keras.layers.Layer, received {layer_type!r}; name the layer's class"
            )
    if not layer_types:
        raise TypeError("expected layer types, received none; name them: @register_inverse(MyLayer)")

    def register(inverse: type[Inverse]) -> type[Inverse]:
        if not (isinstance(inverse, type) and issubclass(inverse, Inverse)):
            raise TypeError(
                f"expected a subclass of mipin_keras.Inverse, received {inverse!r}; derive the class from it"
            )
        for layer_type in layer_types:
            _INVERSES[layer_type] = inverse
        return inverse

    return register


def inverts_operations(*names: str) -> Callable[[type[Inverse]], type[Inverse]]:
    """Class decorator: use this :class:`Inverse` for the ``keras.ops`` of these names, such as ``"Reshape"``."""

    def register(inverse: type[Inverse]) -> type[Inverse]:
        _OPERATIONS.update(dict.fromkeys(names, inverse))
        return inverse

    return register


def find_inverse(step: Step) -> type[Inverse] | Callable[..., Inverse] | None:
    """The inverse registered for a layer's type or the nearest base whose call() it keeps, or for an operation."""
    layer = step.layer
    for base in type(layer).__mro__:
        if base in _INVERSES:
            return None if activations.overrides_call(layer, base) else _INVERSES[base]
    if activations.activation_name(layer):  # keras.ops.relu and its kin
        return _INVERSES[keras.layers.Activation]
    if (
        step_types.of(step) == step_types.IDENTITY
    ):  # augmentation; what older Keras puts between layers of mixed precision
        return _INVERSES[keras.layers.Identity]
    if isinstance(layer, keras.layers.Layer) or not type(layer).__module__.startswith("keras."):
        return None
    return _OPERATIONS.get(type(layer).__name__)


def find_merge(step: Step) -> type[Inverse] | Callable[..., Inverse] | None:
    """The inverse of a step that merges several tensors; None where there is none, or constants are among them."""
    layer = step.layer
    own = find_inverse(step)
    if getattr(own, "merges", False):  # a user's
        return own
    if len(keras.tree.flatten(step.arguments[0])) != len(step.inputs):
        return None
    for base in type(layer).__mro__:
        if base in _MERGES:
            return None if activations.overrides_call(layer, base) else _MERGES[base]
    if isinstance(layer, keras.layers.Layer) or not type(layer).__module__.startswith("keras."):
        return None
    return _MERGES.get(type(layer).__name__)


def refusal(step: Step) -> str:
    """Why a step has no inverse, and what to do about it."""
    if isinstance(step.layer, keras.layers.Lambda):
        return (
            f"expected layers that show what they compute, received layer {step}, which hides it; write it with "
            "keras.ops, or as a layer of your own and register an inverse for that with @mipin_keras.register_inverse"
        )
    return (
        f"expected layers that MIP-IN knows an inverse for, received layer {step}, defined in "
        f"{type(step.layer).__module__}{' and called on several tensors' if len(step.inputs) > 1 else ''}; write one "
        f"and register it with @mipin_keras.register_inverse({type(step.layer).__name__}), or stop the explanation "
        "above it with input_layer="
    )


def _shapes(step: Step) -> list[tuple[int | None, ...]]:
    """The shapes of the inputs that a signal can arrive at."""
    of_inputs = zip(step.inputs, step.input_shapes, strict=True)
    return [shape for tensor_id, shape in of_inputs if tensor_id in step.signal_inputs]


def make_inverse(step: Step, **options: Any) -> Inverse:
    """The inverse of a step.

    Raises:
        ValueError: If there is none, or the layer's settings have none.
    """
    # One tensor added to itself is a merge too; a mask beside a tensor makes none.
    merges = sum(tensor_id in step.signal_inputs for tensor_id in step.inputs) > 1
    inverse = find_merge(step) if merges else find_inverse(step)
    if inverse is None:
        raise ValueError(refusal(step))
    if any(size is None for shape in (*_shapes(step), step.output_shape) for size in shape):
        raise ValueError(
            f"expected layer {step} to have a static shape, received {step.input_shape}; build the model with a "
            "fixed keras.Input shape"
        )
    return inverse(step, **options)
