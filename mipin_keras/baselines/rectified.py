"""Methods that rectify the signal on its way back: Deconvnet and Guided Backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..checks import one_of
from ..graph import step_types
from ..graph.model_graph import Step
from ..graph.propagation import StepTrace
from .backward import ReLUAnalyzer
from .tables import Entry, Rule, vjp

HEADS = ("output", "one")


class _Rectified(ReLUAnalyzer):
    """The gradient, but for another rule at each ReLU.

    Every step that rectifies has the rule, whatever it is written as: a
    built-in activation, ``Activation("relu")``, ``ReLU()``, ``relu6`` or
    ``ReLU(max_value=...)``, ``keras.ops.relu``, also inside nested models.
    Other activations, leaky ones too, are refused, as the methods are defined
    for rectifiers only, unless ``activations="any"`` lets them in: those have
    the gradient.
    """

    _held_at_once = 0.5

    def __init__(self, model: keras.Model, *, head: str = "output", **options: Any):
        super().__init__(model, **options)
        head = one_of("head", head, HEADS)
        self.start_from = head
        self.options["head"] = head
        self._prepare()

    @property
    def table(self) -> Mapping[str, Entry]:
        return dict.fromkeys(step_types.ALL, vjp) | {step_types.RECTIFIER: self.rectified}

    def rule(self, step: Step) -> Rule | None:
        return vjp if _has_no_rectifier(step) else super().rule(step)

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        return shares if self.start_from == "one" else super().head(logits, shares)

    def of_target(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The target's gradient, times each output where the walk starts from values."""
        if self.start_from == "one":
            return trace.vjp(tf.ones_like(trace.output))
        return super().of_target(step, trace, signal)

    @staticmethod
    def rectified(step: Step, trace: StepTrace, signal: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, ...]:
        """The rule at a ReLU."""
        raise NotImplementedError


class Deconvnet(_Rectified):
    """Deconvnet (Zeiler and Fergus 2014): at a ReLU the signal is rectified, whatever the ReLU did.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`.
        head: What starts at the explained output: its value (``"output"``),
            as in iNNvestigate, or 1 (``"one"``). With ``"output"`` a
            negative logit turns the map around before it is rectified.
        activations: ``"relu"`` refuses a model with other activations; with
            ``"any"`` the others have their gradient.

    Raises:
        ValueError: For an unknown ``head`` or ``activations``; for a model
            with activations other than ReLU, unless they are let in, or with
            layers not known to have none.
    """

    name = "deconvnet"

    @staticmethod
    def rectified(step: Step, trace: StepTrace, signal: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(signal)


class GuidedBackprop(_Rectified):
    """Guided Backpropagation (Springenberg et al. 2015): at a ReLU the signal is rectified, and its gradient taken.

    Args, Raises: As :class:`Deconvnet`. The paper starts from the gradient of
    the output, ``head="one"``.
    """

    name = "guided_backprop"

    @staticmethod
    def rectified(step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return trace.vjp(tf.nn.relu(signal))


# Layers without a rectifier inside that no step type covers.
_SMOOTH = (
    keras.layers.Multiply, keras.layers.Dot, keras.layers.LayerNormalization, keras.layers.GroupNormalization,
    keras.layers.UnitNormalization, keras.layers.Rescaling, keras.layers.Normalization,
)  # fmt: skip


def _has_no_rectifier(step: Step) -> bool:
    """Whether a layer of no step type surely holds no ReLU, so that its gradient is what the methods ask for."""
    return (
        step_types.of(step) is None
        and isinstance(step.layer, _SMOOTH)
        and type(step.layer).__module__.startswith("keras.")
    )
