"""The bounds of a model's input, and the rule z^B that they give its first layers (Montavon et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from ...checks import array_like
from ...graph import step_types
from ...graph.model_graph import ModelGraph, Step
from ...graph.propagation import StepTrace
from .rules import Relevance, Rule, divided, like_output, linear_input


class InputBounds:
    """Between what values the input lies.

    Args:
        graph: The model's steps.
        low, high: Numbers, or arrays that broadcast to one sample.

    Raises:
        ValueError: If they are missing, not finite or inverted; if the
            model's input has no fixed shape, or no layer with weights reads
            it.
    """

    def __init__(self, graph: ModelGraph, low: Any, high: Any):
        shape = graph.shapes[graph.input]
        if len(graph.inputs) > 1 or not graph.floating(graph.input):
            raise ValueError(
                "expected a model with one floating-point input, which low= and high= are the bounds of, received "
                f"inputs of {[graph.dtypes[n] for n in graph.inputs]}; take a method without bounds, such as "
                "'deep_taylor'"
            )
        if low is None or high is None:
            raise ValueError(
                f"expected the bounds of the input, low= and high=, received {low!r} and {high!r}; give both, such as "
                "0.0 and 1.0"
            )
        if None in shape:
            raise ValueError(
                f"expected a model with a fixed input shape, as bounds need, received {shape}; build it with a "
                "fixed keras.Input shape"
            )
        self.graph = graph
        self.low, self.high = array_like("low", low, shape), array_like("high", high, shape)
        if not (self.low < self.high).all():
            raise ValueError(
                f"expected low to be below high everywhere, received low={low!r} and high={high!r}; exchange them"
            )

    def check(self, x: np.ndarray) -> None:
        """Raise ValueError unless the inputs ``x``, ``(n, ...)``, lie between the bounds, up to rounding."""
        slack = 1e-5 * (self.high - self.low)
        if (x < self.low - slack).any() or (x > self.high + slack).any():
            raise ValueError(
                f"expected input between the bounds {self.low.min():g} and {self.high.max():g}, received values from "
                f"{x.min():g} to {x.max():g}; the bounded rule holds between them only"
            )

    def at(self, step: Step) -> tuple[tf.Tensor, tf.Tensor]:
        """The bounds of the input of a first kernel step (:func:`~.step_types.first_kernel_steps`), of its shape.

        What moves or scales the input before the step does it to the bounds
        too: where a padding puts zeros, both are 0. In a traced function they
        follow the weights of a normalisation.
        """
        dtype = self.graph.dtypes[self.graph.input]
        ends = {self.graph.input: [tf.constant(bound[None], dtype) for bound in (self.low, self.high)]}
        for earlier in self.graph.steps[: step.index]:
            if step_types.keeps_input(earlier) and ends.keys() >= set(earlier.inputs):
                sides = [earlier({n: ends[n][i] for n in earlier.inputs}) for i in (0, 1)]
                # A negative factor of a normalisation turns them around.
                ends[earlier.output] = [tf.minimum(*sides), tf.maximum(*sides)]
        low, high = ends[step.inputs[0]]
        return low[0], high[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Bounded(Rule):
    """The z^B rule, for inputs between bounds: ``x Wᵀq - low W⁺ᵀq - high W⁻ᵀq`` (Montavon et al. 2017).

    ``q = R / (W x - W⁺ low - W⁻ high)``, without bias.

    Attributes:
        low, high: The bounds of the step's input, arrays or tensors of its
            shape without the batch axis.
    """

    low: Any
    high: Any

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        part, x = linear_input(step, trace)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)
        low, high = (tf.cast(bound, x.dtype)[None] for bound in (self.low, self.high))
        z = part.apply(x, part.kernel) - part.apply(low, above) - part.apply(high, below)
        quotient = divided(like_output(signal, trace), z)
        terms = ((x, part.kernel), (-low, above), (-high, below))
        return tf.add_n([values * part.with_adjoint(x, kernel)[1](quotient) for values, kernel in terms])


class BoundedInput(Rule):
    """The rule z^B at a first kernel step, with the bounds that its input has.

    Args:
        bounds: Those of the model's input.
    """

    def __init__(self, bounds: InputBounds):
        self.bounds = bounds

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        return Bounded(*self.bounds.at(step))(step, trace, signal)
