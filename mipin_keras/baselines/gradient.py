"""The gradient and what is made of it: times the input, integrated along a path, averaged over noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import targets
from ..analyzer import MEMORY
from ..checks import array_like, integer, number, one_of
from ..graph.model_graph import Step
from .backward import BackwardAnalyzer
from .tables import Rule, vjp

POSTPROCESS = (None, "abs", "square")
RIEMANN = {"left": 0.0, "middle": 0.5, "right": 1.0}


class Gradient(BackwardAnalyzer):
    """The gradient of the explained output (Simonyan et al. 2014).

    It takes any differentiable model.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`. "all" gives the gradient of
            the sum of all outputs.
        postprocess: None, or ``"abs"`` or ``"square"`` of the gradient.

    Raises:
        ValueError: For a value that an option does not take; for a model with
            integer inputs.
    """

    name = "gradient"
    _held_at_once = 0.5

    def __init__(self, model: keras.Model, *, postprocess: str | None = None, **options: Any):
        super().__init__(model, **options)
        postprocess = one_of("postprocess", postprocess, POSTPROCESS)
        self.postprocess = postprocess
        self.options["postprocess"] = postprocess
        self._prepare()

    def rule(self, step: Step) -> Rule | None:
        return vjp

    def head(self, logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        """1 at the explained output."""
        return shares

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        if self.postprocess is None:
            return signal
        return tf.abs(signal) if self.postprocess == "abs" else tf.square(signal)


class InputTimesGradient(Gradient):
    """The input times the gradient (Shrikumar et al. 2016); at an ``input_layer``, its output times the gradient.

    Args, Raises: As :class:`Gradient`; ``postprocess`` acts on the gradient,
    before the product.
    """

    name = "input_t_gradient"

    def finish(self, signal: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return start * super().finish(signal, start)


class _Averaged(Gradient):
    """The mean of the gradients at several points for each sample, the explained output fixed by the sample."""

    def analyze(
        self,
        X: Any,
        neuron_selection: Any = None,
        *,
        batch_size: int | None = None,
        memory: float = MEMORY,
        reduce: str | None = None,
    ) -> np.ndarray:
        """As :meth:`mipin_keras.Analyzer.analyze`.

        ``batch_size``, or ``memory``, bounds the points at once, of however
        many samples: memory does not grow with their number.
        """
        most = self._batch_size(X, batch_size, memory)
        return self._maps(functools.partial(self._mean, most=most), X, neuron_selection, most, reduce)

    def _analyze_layers(
        self, x: np.ndarray, neuron_selection: Any, tensor_ids: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        raise NotImplementedError(
            f"expected a method that goes back over the layers once, received {self.name!r}, which averages many "
            "gradients and keeps nothing of the layers on their way; take 'gradient' or 'input_t_gradient'"
        )

    def _mean(self, x: np.ndarray, neuron_selection: Any, most: int) -> np.ndarray:
        targets.check_superfluous(self.neuron_selection_mode, neuron_selection)
        samples, shares = (tf.convert_to_tensor(array) for array in (x, self._shares(x, neuron_selection)))
        count, at_once = self._count(), max(1, most // len(x))
        total = np.zeros((), np.float64)
        variations = self._variations(x.shape[1:])
        for start in range(0, count, at_once):
            group = np.stack([next(variations) for _ in range(min(at_once, count - start))])
            found, finite = self._summed(samples, shares, tf.convert_to_tensor(group, samples.dtype))
            total = total + self._checked(found, finite, []).numpy()
        return self._averaged(x, total / count)

    def _forget_traces(self) -> None:
        super()._forget_traces()
        self.__dict__.pop("_summed", None)

    @functools.cached_property
    def _summed(self) -> Callable:
        """From samples, weights of the neurons and a group of variations: the sum of the maps of all of them."""
        varied = tf.TensorSpec((None, *self._variation_shape()), self._signature[0].dtype)

        @tf.function(input_signature=[*self._signature, varied], autograph=False)
        def summed(x: tf.Tensor, shares: tf.Tensor, group: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            points = self._points(x, tf.reshape(group, tf.concat([tf.shape(group)[:1], [1], tf.shape(group)[1:]], 0)))
            (found,), finite = self._walk(
                tf.reshape(points, tf.concat([[-1], tf.shape(x)[1:]], 0)),
                tf.tile(shares, [tf.shape(group)[0], 1]),
                (self.start,),
            )
            each = tf.concat([tf.shape(points)[:2], tf.shape(found)[1:]], 0)
            return tf.reduce_sum(tf.reshape(found, each), axis=0), finite

        return summed.get_concrete_function()

    def _count(self) -> int:
        """Points a sample."""
        raise NotImplementedError

    def _variation_shape(self) -> tuple[int | None, ...]:
        """Shape of what makes one point of every sample."""
        raise NotImplementedError

    def _variations(self, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """What makes one point of every sample, one after the other, for samples of ``shape``."""
        raise NotImplementedError

    def _points(self, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        """The points ``(g, n, ...)`` of samples ``(n, ...)`` for variations ``(g, 1, ...)``."""
        raise NotImplementedError

    def _averaged(self, x: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """The map from the mean of the gradients, float64."""
        return mean.astype(np.float32)


class IntegratedGradients(_Averaged):
    """The gradient integrated from a reference to the input, times their difference (Sundararajan et al. 2017).

    The map of a sample sums to its output minus the reference's, up to the
    error of the Riemann sum.

    Args:
        model, neuron_selection_mode, output_layer, postprocess: See
            :class:`Gradient`. The explained neuron is the input's.
        steps: Terms of the Riemann sum.
        reference_inputs: Where the path starts: a number, or an array that
            broadcasts to one sample.
        riemann: Where in its interval each term is evaluated: ``"left"`` as in
            iNNvestigate, ``"right"`` as in the paper (Eq. 3), ``"middle"``.

    Raises:
        ValueError: For a value that an option does not take.
    """

    name = "integrated_gradients"
    _fixed = frozenset({"input_layer"})

    def __init__(
        self,
        model: keras.Model,
        *,
        steps: int = 64,
        reference_inputs: Any = 0.0,
        riemann: str = "left",
        **options: Any,
    ):
        super().__init__(model, input_layer=None, **options)  # the path is one of the model's inputs
        steps = integer("steps", steps, 1)
        riemann = one_of("riemann", riemann, tuple(RIEMANN))
        self.path_steps, self.riemann = steps, riemann
        shape = self.graph.shapes[self.graph.input]
        self.reference = array_like("reference_inputs", reference_inputs, shape)
        self.options |= {
            "steps": steps, "riemann": riemann, "reference_inputs": np.asarray(reference_inputs).tolist(),
        }  # fmt: skip

    def _count(self) -> int:
        return self.path_steps

    def _variation_shape(self) -> tuple[int | None, ...]:
        return (1,) * len(self.graph.shapes[self.graph.input])

    def _variations(self, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        for k in range(self.path_steps):
            yield np.full([1] * len(shape), (k + RIEMANN[self.riemann]) / self.path_steps)

    def _points(self, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        reference = tf.constant(self.reference, x.dtype)
        return reference + group * (x - reference)

    def _averaged(self, x: np.ndarray, mean: np.ndarray) -> np.ndarray:
        return (mean * (x - self.reference)).astype(np.float32)


class SmoothGrad(_Averaged):
    """The mean gradient over noisy copies of the input (Smilkov et al. 2017).

    With an ``input_layer`` the noise is still the input's, and the gradient
    that of the layer's output.

    The noise is Gaussian, with a standard deviation of ``noise`` times the
    sample's value range (its largest minus its smallest value). It is drawn
    from ``seed`` alone, the same for each sample, so that a map depends
    neither on the batch nor on what was analyzed before.

    Args:
        model, neuron_selection_mode, output_layer, input_layer, postprocess:
            See :class:`Gradient`. The explained neuron is the clean input's.
        augment_by_n: Noisy copies of a sample.
        noise: Standard deviation as a share of the sample's value range.
        seed: Of the noise.

    Raises:
        ValueError: For a value that an option does not take.
    """

    name = "smoothgrad"

    def __init__(
        self, model: keras.Model, *, augment_by_n: int = 64, noise: float = 0.15, seed: int = 0, **options: Any
    ):
        super().__init__(model, **options)
        augment_by_n, seed = integer("augment_by_n", augment_by_n, 1), integer("seed", seed, 0)
        self.augment_by_n, self.noise, self.seed = augment_by_n, number("noise", noise, 0), seed
        self.options |= {"augment_by_n": augment_by_n, "noise": self.noise, "seed": seed}

    def _count(self) -> int:
        return self.augment_by_n

    def _variation_shape(self) -> tuple[int | None, ...]:
        return self.graph.shapes[self.graph.input]

    def _variations(self, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.augment_by_n):
            yield rng.standard_normal(shape, np.float32)

    def _points(self, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, x.shape.rank))
        spread = tf.reduce_max(x, axes, keepdims=True) - tf.reduce_min(x, axes, keepdims=True)
        return x + tf.cast(self.noise, x.dtype) * spread * group
