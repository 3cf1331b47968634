"""The rules of layer-wise relevance propagation, each for any linear step.

A rule shares the relevance R of a step's outputs among its inputs. With
``z = W x + b``, and ``Wᵀ`` the adjoint of the step's linear part, padding and
strides included, all of them are products of inputs and ``Wᵀ`` of a quotient.
They take Dense layers, convolutions, and batch normalisation as the diagonal
linear step that it is at inference; :class:`Z` takes poolings and sums too.

References: Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 (w²,
z+), Lapuschkin et al. 2017 (flat), Montavon et al. 2019 (gamma, and an
overview), Andéol et al. 2021 (gamma for negative outputs).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from ...checks import number, one_of
from ...graph import linear, propagation
from ...graph.model_graph import Step
from ...graph.propagation import StepTrace

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


class Rule:
    """How a linear step shares relevance.

    Attributes:
        passes: How many times it goes through the step's linear part, which
            tells how much memory an analysis takes.
    """

    passes = 1

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        """The relevance of the step's inputs.

        Args:
            step: A linear step.
            trace: What the forward pass left of it.
            signal: The relevance of its output, ``(n, *output_shape)``.

        Returns:
            Like the input, ``(n, *input_shape)``; a tuple for several.
        """
        raise NotImplementedError

    def for_input(self, *, nonnegative: bool) -> Rule:
        """The rule without what it need not compute, where the input is known to hold no negative value."""
        return self


def linear_input(step: Step, trace: StepTrace) -> tuple[linear.LinearPart, tf.Tensor]:
    """The step's linear part, and its input in the dtype that the layer computes in."""
    part = linear.linear_part(step.layer, wide=True)
    return part, tf.cast(trace.inputs[0], part.kernel.dtype)


def like_output(signal: tf.Tensor, trace: StepTrace) -> tf.Tensor:
    """A signal in the output's dtype, in float32 where that is of half precision."""
    return propagation.wide(signal, trace.output)


def _z(step: Step, trace: StepTrace, bias: bool) -> tf.Tensor:
    if bias or linear.is_kernel_layer(step.layer) and not step.layer.use_bias:
        return propagation.wide(trace.output, trace.output)
    part, x = linear_input(step, trace)
    return part.apply(x, part.kernel)


@dataclasses.dataclass(frozen=True)
class Z(Rule):
    """``x Wᵀ(R / z)``: each input's share in the output.

    Attributes:
        bias: Whether z holds the bias, whose share is then lost.
    """

    bias: bool = True

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        pulled = trace.vjp(divided(like_output(signal, trace), _z(step, trace, self.bias)))
        return tuple(tf.cast(x, part.dtype) * part for x, part in zip(trace.inputs, pulled, strict=True))


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
        one_of("bias", self.bias, (True, False))
        number("epsilon", self.epsilon, 0, above=True)
        if self.epsilon < np.finfo(np.float32).tiny:
            raise ValueError(
                f"expected epsilon to be a number that float32 holds, received {self.epsilon!r}, 0 there; such as 1e-7"
            )

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        pulled = trace.vjp(divided(like_output(signal, trace), _z(step, trace, self.bias), self.epsilon))
        return tuple(tf.cast(x, part.dtype) * part for x, part in zip(trace.inputs, pulled, strict=True))


class WSquare(Rule):
    """``(W²)ᵀ(R / W² 1)``: shares by the squared weights, whatever the input."""

    @staticmethod
    def kernel(kernel: tf.Tensor) -> tf.Tensor:
        """What stands for the step's kernel."""
        return tf.square(kernel)

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        part, x = linear_input(step, trace)
        kernel = self.kernel(part.kernel)
        # Of one sample: it depends on the step alone. At the border padding counts as no input.
        total = part.apply(tf.ones_like(x[:1]), kernel)
        _, back = part.with_adjoint(x, kernel)
        return back(divided(like_output(signal, trace), total))


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
        one_of("bias", self.bias, (True, False))
        number("alpha", self.alpha, 1)
        number("beta", self.beta, 0)
        if abs(self.alpha - self.beta - 1) > 1e-6:
            raise ValueError(
                f"expected alpha - beta = 1, received alpha={self.alpha!r} and beta={self.beta!r}; give one of them"
            )

    @property
    def passes(self) -> int:  # type: ignore[override]
        return 2 if self.beta else 1

    def for_input(self, *, nonnegative: bool) -> AlphaBeta:
        return dataclasses.replace(self, nonnegative=self.nonnegative or nonnegative)

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        part, x = linear_input(step, trace)
        signal = like_output(signal, trace)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)
        highs, lows = (x, None) if self.nonnegative else (tf.nn.relu(x), -tf.nn.relu(-x))

        def share(high_kernel: tf.Tensor, low_kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
            parts = [(highs, high_kernel)] if lows is None else [(highs, high_kernel), (lows, low_kernel)]
            ways = [part.with_adjoint(values, kernel) for values, kernel in parts]
            z = tf.add_n([y for y, _ in ways])
            quotient = divided(signal, z + bias if self.bias else z)
            return tf.add_n([values * back(quotient) for (values, _), (_, back) in zip(parts, ways, strict=True)])

        positive = share(above, below, tf.nn.relu(part.bias))
        if not self.beta:
            return positive if self.alpha == 1 else self.alpha * positive
        return self.alpha * positive - self.beta * share(below, above, -tf.nn.relu(-part.bias))


@dataclasses.dataclass(frozen=True)
class Gamma(Rule):
    """Positive contributions count ``1 + gamma`` times (Montavon et al. 2019, section 10.2.3).

    Where the output z is not negative, relevance is shared in proportion to
    the contributions ``x⁺(W + gamma W⁺) + x⁻(W + gamma W⁻)``; where it is
    negative, the negative ones count more, ``x⁺(W + gamma W⁻) +
    x⁻(W + gamma W⁺)`` (Andéol et al. 2021). In front of a ReLU only the first
    is left. With ``gamma=0`` it is the rule Z; with a large one, where z is
    positive, the rule alpha 1 beta 0.

    Attributes:
        gamma: At least 0.
        bias: Whether the bias has a share, which is lost; one of the sign that
            counts more has it ``1 + gamma`` times.
        nonnegative: Whether the input is known to hold no negative value,
            which saves half of the work and changes nothing.
    """

    gamma: float = 0.25
    bias: bool = True
    nonnegative: bool = False
    passes = 2

    def __post_init__(self) -> None:
        one_of("bias", self.bias, (True, False))
        number("gamma", self.gamma, 0)

    def for_input(self, *, nonnegative: bool) -> Gamma:
        return dataclasses.replace(self, nonnegative=self.nonnegative or nonnegative)

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        part, x = linear_input(step, trace)
        signal = like_output(signal, trace)
        highs, lows = (x, None) if self.nonnegative else (tf.nn.relu(x), -tf.nn.relu(-x))

        def favoured(of: tf.Tensor, sign: int) -> tf.Tensor:
            return of + self.gamma * sign * tf.nn.relu(sign * of)

        def share(sign: int) -> tf.Tensor:
            """The shares where z has this sign, in which contributions of this sign count more."""
            terms = [(highs, favoured(part.kernel, sign))]
            if lows is not None:
                terms.append((lows, favoured(part.kernel, -sign)))
            ways = [part.with_adjoint(values, kernel) for values, kernel in terms]
            z = tf.add_n([y for y, _ in ways])
            z = z + favoured(part.bias, sign) if self.bias else z
            there = _z(step, trace, self.bias) >= 0
            quotient = divided(tf.where(there if sign > 0 else ~there, signal, tf.zeros((), signal.dtype)), z)
            return tf.add_n([values * back(quotient) for (values, _), (_, back) in zip(terms, ways, strict=True)])

        return share(1) + share(-1)


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
    passes = 2

    def __call__(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> Relevance:
        part, x = linear_input(step, trace)
        signal, total = like_output(signal, trace), tf.zeros_like(x)
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
                z, back = part.with_adjoint(values, kernel)
                total += factor * values * back(divided(signal, z + bias if self.bias else z))
        return total
