"""Keras' padding masks: which tensors of a model carry one, found by asking its layers, and the steps that make them.

Keras hands a mask from layer to layer as the attribute ``_keras_mask`` of a
tensor, which is lost where a tensor is copied, and where a pass is cut into
pieces. So here masks are tensors of the graph: a layer that passes on the mask
of its input passes on its id, and one that makes a mask gets a step for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf


class MaskOf:
    """What a step calls that makes the padding mask of a layer's output.

    Args:
        layer: The layer.
        part: Which of its outputs, counted as ``keras.tree.flatten`` does.
    """

    def __init__(self, layer: Any, part: int):
        self.masked_layer, self.masked_part = layer, part
        self.name = f"{layer.name}_mask"

    def __call__(self, *args: Any, **kwargs: Any) -> tf.Tensor:
        made = keras.tree.flatten(self.masked_layer(*args, **kwargs))[self.masked_part]
        return made._keras_mask


class FoundMask(NamedTuple):
    """The padding mask of an output, as :func:`found` finds it.

    Attributes:
        passed: Id of the tensor whose mask it is, if it is one of the inputs'.
        shape: Of a mask that the layer makes, without the batch axis.
    """

    passed: int | None
    shape: tuple[int | None, ...] | None = None


def may_make_mask(layer: Any) -> bool:
    """Whether a layer's output may carry a mask although no input does."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    if isinstance(layer, keras.layers.Masking):
        return True
    if type(layer).__module__.startswith("keras."):
        wrapped = getattr(layer, "layer", None)
        return bool(getattr(layer, "mask_zero", False)) or (wrapped is not None and may_make_mask(wrapped))
    return True


def found(
    layer: Any,
    arguments: tuple[tuple, dict],
    tensors: dict[int, keras.KerasTensor],
    masks: dict[int, tuple[int, tuple[int | None, ...]]],
    is_id: Any,
) -> list[FoundMask | None]:
    """The masks of a layer's outputs, by tracing a call of it with the masks of its inputs in their places.

    Args:
        layer: The layer.
        arguments: Of the call, with objects that name tensors in place of tensors.
        tensors: The specifications of the tensors that it reads, by id.
        masks: The ids and shapes of their masks, by the tensors' ids.
        is_id: From a leaf of ``arguments`` to the tensor's id, or None.

    Returns:
        One for each output, in the order of ``keras.tree.flatten``; None
        where it has no mask. Empty if the layer cannot be traced by itself.
    """
    result: list[FoundMask | None] = []
    specs = {n: tf.TensorSpec(t.shape, t.dtype) for n, t in tensors.items()}
    mask_specs = {n: tf.TensorSpec((None, *shape), "bool") for n, (_, shape) in masks.items()}

    def call(given: dict[int, tf.Tensor], masked: dict[int, tf.Tensor]) -> None:
        marked = {n: tf.identity(tensor) for n, tensor in given.items()}
        for n, mask in masked.items():
            marked[n]._keras_mask = mask
        args, kwargs = keras.tree.map_structure(
            lambda leaf: leaf if is_id(leaf) is None else marked[is_id(leaf)], arguments
        )
        for made in keras.tree.flatten(layer(*args, **kwargs)):
            mask = getattr(made, "_keras_mask", None)
            if mask is None:
                result.append(None)
                continue
            passed = next((n for n, one in masked.items() if one is mask), None)
            result.append(FoundMask(passed, None if mask.shape.rank is None else tuple(mask.shape[1:])))

    try:
        tf.function(call, autograph=False).get_concrete_function(specs, mask_specs)
    except Exception:  # the first batch, which is compared with the model's own output, will tell
        return []
    return result
