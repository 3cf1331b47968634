"""The rules of layer-wise relevance propagation, each for any linear step.

A rule shares the relevance R of a step's outputs among its inputs. With
``z = W x + b``, and ``Wᵀ`` the adjoint of the step's linear part, padding and
strides included, all of them are products of inputs and ``Wᵀ`` of a quotient.
They take Dense layers, convolutions, and batch normalisation as the diagonal
linear step that it is at inference; :class:`Z` takes poolings and sums too.
:class:`Standardized` and :class:`Gated` are for what is not linear.

References: Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 (w²,
z+, z^B), Lapuschkin et al. 2017 (flat), Montavon et al. 2019 (an overview),
Arras et al. 2017 (gates), Ali et al. 2022 (layer normalisation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .. import kernels, parts
from ..checks import number
from ..graph import Step
from ..walk import Pass

# What divides in place of an exact 0, as in iNNvestigate.
TINY = 1e-7

Relevance = Any  # a tensor like the input, or a tuple of them, one for each input


def divided(relevance: tf.Tensor, z: tf.Tensor, epsilon: float | None = None) -> tf.Tensor:
    """``relevance / z``, where z is exactly 0 by :data:`TINY`; by ``z + epsilon sign z`` with an epsilon."""
    dtype = z.dtype
    if dtype.size < 4:  # float16 holds neither 1e-7 nor what comes of dividing by it; nothing made that 0
        wide = divided(tf.cast(relevance, tf.float32), tf.cast(z, tf.float32), epsilon)
        return tf.where(z == 0, tf.zeros((), dtype), tf.cast(wide, dtype))
    if epsilon is None:
        return relevance / tf.where(z == 0, tf.constant(TINY, dtype), z)
    return relevance / (z + tf.where(z >= 0, tf.constant(epsilon, dtype), tf.constant(-epsilon, dtype)))


def applied(apply: Callable, x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """``W x`` of the linear ``apply(., kernel)``, and what carries a signal back: ``Wᵀ signal``, like ``x``."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = apply(x, kernel)
    return y, lambda signal: tape.gradient(y, x, output_gradients=signal)


class Rule:
    """How a linear step shares relevance."""

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        """The relevance of the step's inputs.

        Args:
            step: A linear step.
            seen: What the forward pass left of it.
            signal: The relevance of its output, ``(n, *output_shape)``.

        Returns:
            Like the input, ``(n, *input_shape)``; a tuple for several.
        """
        raise NotImplementedError

    def known(self, *, nonnegative: bool) -> Rule:
        """The rule without what it need not compute, where the input is known to hold no negative value."""
        return self


def _linear(step: Step, seen: Pass) -> tuple[kernels.LinearPart, tf.Tensor]:
    """The step's linear part, and its input in the dtype that the layer computes in."""
    part = kernels.linear_part(step.layer)
    return part, tf.cast(seen.inputs[0], part.kernel.dtype)


def _cast(signal: tf.Tensor, seen: Pass) -> tf.Tensor:
    return tf.cast(signal, seen.output.dtype)


def _z(step: Step, seen: Pass, bias: bool) -> tf.Tensor:
    if bias or kernels.is_kernel_layer(step.layer) and not step.layer.use_bias:
        return seen.output
    part, x = _linear(step, seen)
    return part.apply(x, part.kernel)


@dataclasses.dataclass(frozen=True)
class Z(Rule):
    """``x Wᵀ(R / z)``: each input's share in the output.

    Attributes:
        bias: Whether z holds the bias, whose share is then lost.
    """

    bias: bool = True

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        pulled = seen.pull(divided(_cast(signal, seen), _z(step, seen, self.bias)))
        return tuple(x * part for x, part in zip(seen.inputs, pulled, strict=True))


@dataclasses.dataclass(frozen=True)
class Epsilon(Rule):
    """``x Wᵀ(R / (z + epsilon sign z))``, the sign of 0 being 1.

    Attributes:
        epsilon: Greater than 0, in the units of z.
        bias: Whether z holds the bias.
    """

    epsilon: float = 1e-7
    bias: bool = True

    def __post_init__(self) -> None:
        number("epsilon", self.epsilon, 0, above=True)
        if self.epsilon < np.finfo(np.float32).tiny:
            raise ValueError(f"expected epsilon to be a number that float32 holds, received {self.epsilon!r}, 0 there")

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        pulled = seen.pull(divided(_cast(signal, seen), _z(step, seen, self.bias), self.epsilon))
        return tuple(x * part for x, part in zip(seen.inputs, pulled, strict=True))


class WSquare(Rule):
    """``(W²)ᵀ(R / W² 1)``: shares by the squared weights, whatever the input."""

    @staticmethod
    def kernel(kernel: tf.Tensor) -> tf.Tensor:
        """What stands for the step's kernel."""
        return tf.square(kernel)

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        part, x = _linear(step, seen)
        kernel = self.kernel(part.kernel)
        # Of one sample: it depends on the step alone. At the border padding counts as no input.
        total = part.apply(tf.ones_like(x[:1]), kernel)
        _, back = applied(part.apply, x, kernel)
        return back(divided(_cast(signal, seen), total))


class Flat(WSquare):
    """Equal shares: :class:`WSquare` with ones for weights."""

    @staticmethod
    def kernel(kernel: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(kernel)


@dataclasses.dataclass(frozen=True)
class AlphaBeta(Rule):
    """``alpha`` times the shares in the positive contributions, minus ``beta`` times those in the negative ones.

    Attributes:
        alpha, beta: At least 1 and 0; alpha - beta = 1.
        bias: Whether a positive bias counts among the positive contributions
            and a negative one among the negative (Bach et al. 2015, Eq. 60).
        nonnegative: Whether the input is known to hold no negative value,
            which saves half of the work and changes nothing. For an input
            that does hold some it is iNNvestigate's "z_plus_fast".
    """

    alpha: float = 1.0
    beta: float = 0.0
    bias: bool = True
    nonnegative: bool = False

    def __post_init__(self) -> None:
        number("alpha", self.alpha, 1)
        number("beta", self.beta, 0)
        if abs(self.alpha - self.beta - 1) > 1e-6:
            raise ValueError(f"expected alpha - beta = 1, received alpha={self.alpha!r} and beta={self.beta!r}")

    def known(self, *, nonnegative: bool) -> AlphaBeta:
        return dataclasses.replace(self, nonnegative=self.nonnegative or nonnegative)

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        part, x = _linear(step, seen)
        signal = _cast(signal, seen)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)
        highs, lows = (x, None) if self.nonnegative else (tf.nn.relu(x), -tf.nn.relu(-x))

        def share(high_kernel: tf.Tensor, low_kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
            parts = [(highs, high_kernel)] if lows is None else [(highs, high_kernel), (lows, low_kernel)]
            ways = [applied(part.apply, values, kernel) for values, kernel in parts]
            z = tf.add_n([y for y, _ in ways])
            quotient = divided(signal, z + bias if self.bias else z)
            return tf.add_n([values * back(quotient) for (values, _), (_, back) in zip(parts, ways, strict=True)])

        positive = share(above, below, tf.nn.relu(part.bias))
        if not self.beta:
            return positive if self.alpha == 1 else self.alpha * positive
        return self.alpha * positive - self.beta * share(below, above, -tf.nn.relu(-part.bias))


@dataclasses.dataclass(frozen=True)
class AlphaBetaX(Rule):
    """Shares by the signs of input and weight apart, each of the four with a factor of its own.

    Attributes:
        alpha: Factors of x⁺W⁺ and of x⁻W⁻.
        beta: Factors of x⁺W⁻ and of x⁻W⁺, subtracted.
        bias: Whether a bias counts with the weights of its sign.
    """

    alpha: tuple[float, float] = (2.0, 0.0)
    beta: tuple[float, float] = (1.0, 0.0)
    bias: bool = True

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        part, x = _linear(step, seen)
        signal, total = _cast(signal, seen), tf.zeros_like(x)
        above = tf.nn.relu(part.kernel), tf.nn.relu(part.bias)
        below = -tf.nn.relu(-part.kernel), -tf.nn.relu(-part.bias)
        highs, lows = tf.nn.relu(x), -tf.nn.relu(-x)
        terms = [
            (self.alpha[0], highs, above),
            (self.alpha[1], lows, below),
            (-self.beta[0], highs, below),
            (-self.beta[1], lows, above),
        ]
        for factor, values, (kernel, bias) in terms:
            if factor:
                z, back = applied(part.apply, values, kernel)
                total += factor * values * back(divided(signal, z + bias if self.bias else z))
        return total


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

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        part, x = _linear(step, seen)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)
        low, high = (tf.cast(bound, x.dtype)[None] for bound in (self.low, self.high))
        z = part.apply(x, part.kernel) - part.apply(low, above) - part.apply(high, below)
        quotient = divided(_cast(signal, seen), z)
        terms = ((x, part.kernel), (-low, above), (-high, below))
        return tf.add_n([values * applied(part.apply, x, kernel)[1](quotient) for values, kernel in terms])


@dataclasses.dataclass(frozen=True)
class Standardized(Rule):
    """For what standardizes each sample by itself: the divisor is taken for a constant (Ali et al. 2022).

    What is left is linear, ``z = gamma (x - mean) / sigma + beta``, and has
    the rule Z, in which the share of beta is lost as a bias's is: with
    ``beta=0`` and a mean, sums are kept, and without a mean, as in RMS
    normalisation, so is the relevance of every element.

    Attributes:
        shares: Whether relevance is shared by Z; else the signal is carried
            as the gradient with that constant carries it.
    """

    shares: bool = True

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        given = seen.inputs[0]
        part = parts.standardization(step.layer, given)
        x = tf.cast(given, part.kernel.dtype)
        _, back = applied(part.apply, x, part.kernel)
        signal = tf.cast(signal, x.dtype)
        if not self.shares:
            return tf.cast(back(signal), given.dtype)
        return tf.cast(x * back(divided(signal, tf.cast(seen.output, x.dtype))), given.dtype)


@dataclasses.dataclass(frozen=True)
class Gated(Rule):
    """For a product of a signal and a gate: the signal takes all relevance (Arras et al. 2017).

    Attributes:
        gate: The number of the gate's tensor.
    """

    gate: int

    def __call__(self, step: Step, seen: Pass, signal: tf.Tensor) -> Relevance:
        numbers = dict.fromkeys(step.inputs)
        return tuple(
            tf.zeros_like(x) if number == self.gate else tf.cast(signal, x.dtype)
            for number, x in zip(numbers, seen.inputs, strict=True)
        )


#: The rules that options name, as iNNvestigate names them.
RULES: dict[str, Callable[[], Any]] = {
    "Z": Z,
    "Epsilon": Epsilon,
    "WSquare": WSquare,
    "Flat": Flat,
    "Alpha1Beta0": AlphaBeta,
    "Alpha1Beta0IgnoreBias": lambda: AlphaBeta(bias=False),
    "Alpha2Beta1": lambda: AlphaBeta(2.0, 1.0),
    "Alpha2Beta1IgnoreBias": lambda: AlphaBeta(2.0, 1.0, bias=False),
    "AlphaBetaX2m100": AlphaBetaX,
    "ZPlus": lambda: AlphaBeta(bias=False),
    "ZPlusFast": lambda: AlphaBeta(bias=False, nonnegative=True),
}
