"""Keras layers that apply what inverts a step: the default one, of any inverse, and a mask."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class InverseLayer(keras.layers.Layer):
    """One inverse as a Keras layer that holds the weights of one class.

    Call arguments:
        signal: The source signal at the step's output, float32
            ``(n, *output_shape)``; a list of them where several meet.
        *record: What the inverse recorded of the forward pass.

    Output: The source signal at the step's input, float32
    ``(n, *input_shape)``; of a step that merges several tensors a list, one
    for each input that gets a signal.

    Args:
        inverse: What it applies.
        name: Of the layer.
    """

    def __init__(self, inverse: Any, name: str):
        # The signal is float32 whatever the policy of the explained model, and a record as it was recorded.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.inverse = inverse
        # A learned inverse of one input, such as Add([x, x]), has weight_shapes too, and nothing to learn.
        self._values = [
            self.add_weight(name="kernel" if i == 0 else "bias" if i == 1 else f"weight_{i}", shape=shape,
                            initializer="zeros")
            for i, shape in enumerate(inverse.weight_shapes if inverse.learned else ())
        ]  # fmt: skip
        self.built = True

    def call(self, signal: Any, *record: tf.Tensor) -> Any:
        inverse = self.inverse
        arrived = tuple(signal) if isinstance(signal, list | tuple) else signal
        weights = tuple(tf.convert_to_tensor(value) for value in self._values)
        found = inverse.source(arrived, record, weights)
        if not inverse.merges:
            return tf.ensure_shape(found, (None, *inverse.input_shape))
        step = inverse.step
        ids = step.signal_inputs
        shapes = [step.input_shapes[step.inputs.index(tensor_id)] for tensor_id in ids]
        parts = zip(found, inverse.carries(ids), shapes, strict=True)
        return [tf.ensure_shape(part, (None, *shape)) for part, carried, shape in parts if carried is not None]


class Masked(keras.layers.Layer):
    """A signal where a mask is true, 0 elsewhere: Eq. 9 where the explanation ends.

    Call arguments:
        signal: float32 ``(n, ...)``.
        mask: bool of the same shape.
    """

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32", autocast=False)
        self.built = True

    def call(self, signal: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return tf.where(mask, signal, tf.zeros((), signal.dtype))


class Widened(keras.layers.Layer):
    """A signal of the explained channel alone in all channels, with zeros beside it.

    Call arguments:
        signal: float32 ``(n, ..., 1)``.

    Output: float32 ``(n, ..., channels)``.

    Args:
        channels: How many.
        unit: The explained one.
        name: Of the layer.
    """

    def __init__(self, channels: int, unit: int | tf.Variable, name: str):
        super().__init__(name=name, dtype="float32", autocast=False)
        self._channels, self._unit = channels, unit
        self.built = True

    def call(self, signal: tf.Tensor) -> tf.Tensor:
        return signal * tf.one_hot(self._unit, self._channels, dtype=signal.dtype)
