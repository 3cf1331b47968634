"""A kernel layer as the linear steps that it takes: one, or the two of a separable convolution."""

from __future__ import annotations

from typing import Any

import keras

from . import activations, linear

_L = keras.layers

SEPARABLE = (_L.SeparableConv1D, _L.SeparableConv2D)


class _Part:
    """One of the two convolutions that a separable one is, with its very weights.

    Attributes:
        separable_layer: The separable convolution.
    """

    separable_layer: Any
    bias: Any
    _weight: str

    @property
    def kernel(self) -> Any:
        return getattr(self.separable_layer, self._weight)

    @property
    def weights(self) -> list[Any]:
        return [self.kernel] if self.bias is None else [self.kernel, self.bias]


class _Depthwise(_Part):
    _weight = "depthwise_kernel"
    bias = None


class _Pointwise(_Part):
    _weight = "pointwise_kernel"

    @property
    def bias(self) -> Any:
        return self.separable_layer.bias


class _Depthwise1D(_Depthwise, keras.layers.DepthwiseConv1D):
    pass


class _Depthwise2D(_Depthwise, keras.layers.DepthwiseConv2D):
    pass


class _Pointwise1D(_Pointwise, keras.layers.Conv1D):
    pass


class _Pointwise2D(_Pointwise, keras.layers.Conv2D):
    pass


_PARTS: dict[type, tuple[type, type]] = {
    _L.SeparableConv1D: (_Depthwise1D, _Pointwise1D),
    _L.SeparableConv2D: (_Depthwise2D, _Pointwise2D),
}


def linear_steps(layer: Any) -> list[tuple[str, Any]]:
    """The kernel layers that do the linear work of ``layer``, each with what its name adds to the layer's.

    Returns:
        ``[("", layer)]`` for a kernel layer, ``[("/depthwise", ...),
        ("/pointwise", ...)]`` for a separable convolution, whose parts read
        its variables and make none; ``[]`` for any other.
    """
    if linear.is_kernel_layer(layer):
        return [("", layer)]
    base = next((base for base in SEPARABLE if isinstance(layer, base)), None)
    if base is None or activations.overrides_call(layer, base):
        return []
    depthwise, pointwise = _PARTS[base]
    shared = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    parts = [
        depthwise(
            layer.kernel_size, strides=layer.strides, padding=layer.padding, depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate, use_bias=False, name=f"{layer.name}_depthwise", **shared,
        ),
        pointwise(layer.filters, 1, use_bias=layer.use_bias, name=f"{layer.name}_pointwise", **shared),
    ]  # fmt: skip
    for part in parts:
        part.separable_layer = layer
    return [("/depthwise", parts[0]), ("/pointwise", parts[1])]
