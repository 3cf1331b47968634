"""The mask module: one λ a location of a feature map, which says how much of it the decision is left with (Gu 2021)."""

from __future__ import annotations

import math
from typing import Any

import keras

_CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@keras.saving.register_keras_serializable("mipin_keras")
class MaskModule(keras.layers.Layer):
    """λ of each location: two convolutions of 3 along each axis, nothing between them, and a sigmoid.

    The author's first convolution has as many channels as the feature map.
    As nothing lies between the two, they are one convolution of 5 along each
    axis to one channel, and 3^axes channels in the first are enough for any
    such; 64 are taken at most, as 1,280 would take 20 times as long.

    Args:
        width: Channels between the two; None for those of the feature map, at
            most 64.
        seed: Of the initial weights.

    Call arguments:
        x: A feature map, ``(n, *spatial, channels)``, with one to three
            spatial axes. Tokens ``(n, tokens, channels)`` have one.

    Returns:
        float32 ``(n, *spatial, 1)``, between 0 and 1.
    """

    def __init__(self, width: int | None = None, seed: int = 0, **options: Any):
        super().__init__(autocast=False, **options)
        self.width, self.seed = width, seed

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"width": self.width, "seed": self.seed}

    def build(self, shape: Any) -> None:
        convolution, channels = _CONVOLUTIONS[len(shape) - 2], shape[-1]
        width = min(channels, 64) if self.width is None else self.width
        # The feature map is brought to variance 1, for its scale is not the mask's business.
        self._mean = self.add_weight(
            shape=(channels,), initializer="zeros", trainable=False, name="mean", autocast=False
        )
        self._scale = self.add_weight(
            shape=(channels,), initializer="ones", trainable=False, name="scale", autocast=False
        )
        self._first, self._second = (
            convolution(
                units, 3, padding="same", dtype=self.dtype_policy,
                kernel_initializer=keras.initializers.GlorotUniform(seed=1000003 * self.seed + 100 + i),
            )
            for i, units in enumerate((width, 1))
        )  # fmt: skip
        self._first.build(shape)
        self._second.build((*shape[:-1], width))
        self.built = True

    def adapt(self, mean: Any, scale: Any) -> None:
        """Take over the mean of each channel, and what its deviation from it is multiplied by."""
        self._mean.assign(mean)
        self._scale.assign(scale)

    def call(self, x: Any) -> Any:
        standard = (keras.ops.cast(x, "float32") - self._mean) * self._scale
        return keras.ops.sigmoid(keras.ops.cast(self._second(self._first(standard)), "float32"))


def positions(shape: tuple[int | None, ...]) -> int:
    """How many locations a feature map of this shape, without the batch axis, has."""
    return math.prod(size or 1 for size in shape[:-1])
