"""Grad-CAM: a feature map, weighted by the mean gradients of its channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..channels import interpolation
from ..checks import one_of
from ..graph import step_types, windows
from ..graph.model_graph import ModelGraph, Step
from .backward import BackwardAnalyzer
from .tables import Rule, vjp

_L = keras.layers
CONVOLUTIONS = (
    *windows.CONVOLUTIONS, _L.DepthwiseConv1D, _L.DepthwiseConv2D, _L.SeparableConv1D, _L.SeparableConv2D,
    _L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose,
)  # fmt: skip


class GradCAM(BackwardAnalyzer):
    """Grad-CAM (Selvaraju et al. 2017): ReLU of the sum of a layer's channels, each weighted by its mean gradient.

    Args:
        model, neuron_selection_mode, output_layer, output, target: See
            :class:`mipin_keras.Analyzer`.
        layer: Name of the layer whose feature map is weighted. None for the
            last convolution's whose map has more than one position and does
            not lead to a gate only, after its normalisation, activation and
            sum with a shortcut, and before any pooling.
        resize: Whether the map is resized to the input, linearly; then each
            channel of the input has the same map; of tokens, which have no
            channels, each token one value. If not, a map has the
            feature map's shape ``(n, *spatial)``.

    Raises:
        ValueError: For a model without such a convolution, or a layer whose
            output has no spatial axes; for ``resize`` where the input has other
            axes than the feature map.
    """

    name = "grad_cam"
    _held_at_once = 0.5
    _fixed = frozenset({"input_layer"})

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        output: str | int | None = None,
        target: Any = None,
        layer: str | None = None,
        resize: bool = True,
    ):
        super().__init__(
            model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer, output=output, target=target
        )
        resize = one_of("resize", resize, (True, False))
        self._feature = last_feature_map(self.graph) if layer is None else self.graph.tensor_after(layer)
        self.resize = resize
        features, inputs = self.graph.shapes[self._feature], self._image
        if len(features) < 2:
            raise ValueError(
                f"expected layer to have an output with spatial axes and channels, received {layer!r}, whose output "
                f"is (batch, {', '.join(map(str, features))}); name a layer in front of the pooling"
            )
        if resize and len(features) != len(inputs):
            raise ValueError(
                f"expected an input with the axes of the feature map, received {inputs} and {features}; give "
                "resize=False for the map in the feature map's shape"
            )
        if resize and None in (*features[:-1], *inputs):
            raise ValueError(f"expected fixed shapes to resize, received {features} and {inputs}; give resize=False")
        self.options |= {"layer": layer, "resize": resize}
        self._prepare()

    @property
    def starts(self) -> tuple[int, ...]:
        return (self._feature,)

    def _say_where_it_ends(self) -> None:
        """Nothing: the map is of the input's size whatever the input's dtype."""

    @property
    def _image(self) -> tuple[int | None, ...]:
        """The shape of the input that has the axes of the feature map; of the first one where none has."""
        features, shapes = self.graph.shapes[self._feature], [self.graph.shapes[n] for n in self.graph.inputs]
        found = next((shape for shape in shapes if len(shape) == len(features)), None)
        return (*shapes[0], 1) if found is None and self._of_tokens_only else found or shapes[0]

    @property
    def _of_tokens_only(self) -> bool:
        """Whether the input has no channels, as tokens have none, but as many axes else as the feature map."""
        rank = len(self.graph.shapes[self._feature])
        return all(len(self.graph.shapes[n]) == rank - 1 and not self.graph.floating(n) for n in self.graph.inputs)

    def _check_reducible(self) -> None:
        if not self.resize:
            raise ValueError(
                "reduce= expected maps with channels, received resize=False, whose maps have none; leave one of the "
                "two out"
            )
        super()._check_reducible()

    def _analyze_layers(
        self, x: np.ndarray, neuron_selection: Any, tensor_ids: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        raise NotImplementedError(
            f"expected a method that goes back over the layers, received {self.name!r}, a map of one layer; give "
            "another one as layer=, or take 'gradient' or 'lrp.epsilon'"
        )

    def rule(self, step: Step) -> Rule | None:
        return vjp

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """1 at the explained output."""
        return shares

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        spatial = list(range(1, start.shape.rank - 1))
        weights = tf.reduce_mean(signal, spatial, keepdims=True)
        found = tf.nn.relu(tf.reduce_sum(weights * start, -1))
        if not self.resize:
            return found
        sizes: Any = self._image
        for axis, (old, new) in enumerate(zip(start.shape[1:-1], sizes[:-1], strict=True), 1):
            matrix = tf.constant(interpolation(old, new), found.dtype)
            found = tf.tensordot(found, matrix, [[axis], [1]])  # the new axis comes out last
            order = [*range(axis), len(spatial), *range(axis, len(spatial))]
            found = tf.transpose(found, order)
        return found if self._of_tokens_only else tf.repeat(found[..., None], sizes[-1], axis=-1)


def last_feature_map(graph: ModelGraph) -> int:
    """The id of the tensor that the last convolution leads to, before anything that changes its spatial axes.

    Convolutions behind a global pooling, which have one position left, and
    those that lead to gates only, as in squeeze and excitation, make no map.

    Raises:
        ValueError: If there is no such convolution before the explained
            output.
    """
    advice = "name a layer whose output has spatial axes as layer=, or take 'gradient' or 'lrp.epsilon'"
    convolutions = [step for step in graph.steps if isinstance(step.layer, CONVOLUTIONS)]
    if not convolutions:
        raise ValueError(
            f"'grad_cam' expected a model with a feature map, received one that has no convolution; {advice}"
        )
    beside_gates = _beside_gates(graph)
    maps = [step for step in convolutions if step.output in beside_gates and _has_positions(step)]
    if not maps:
        raise ValueError(
            "'grad_cam' expected a model with a convolution whose feature map has more than one position and is more "
            f"than a gate, received one with {', '.join(map(str, convolutions))} only; {advice}"
        )
    readers, tensor_id = graph.consumers(), maps[-1].output
    pass_on = (
        step_types.NORMALIZATION, step_types.RECTIFIER, step_types.ACTIVATION, step_types.IDENTITY, step_types.ADD,
        step_types.CONCATENATE,
    )  # fmt: skip
    while len(readers.get(tensor_id, ())) == 1:
        (step,) = readers[tensor_id]
        same = step.output_shape[:-1] == graph.shapes[tensor_id][:-1]
        if step_types.of(step) not in pass_on or not same:
            break
        tensor_id = step.output
    return tensor_id


def _has_positions(step: Step) -> bool:
    return any(size is None or size > 1 for size in step.output_shape[:-1])


def _beside_gates(graph: ModelGraph) -> set[int]:
    """Ids of the tensors that reach the output by another way than as the gate of a product."""
    gates, reached = step_types.gates(graph), {graph.output}
    for step in reversed(graph.steps):
        if step.output in reached:
            reached.update(tensor_id for tensor_id in step.inputs if tensor_id != gates.get(step.index))
    return reached
