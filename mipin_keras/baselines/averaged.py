"""Gradients averaged over several points for each sample: along a path, and over noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import targets
from ..analysis.batching import MEMORY, tensors_of
from ..checks import array_like, integer, number, one_of
from ..data.inputs import count
from ..graph import propagation
from .backward import alone
from .gradient import Gradient

RIEMANN = {"left": 0.0, "middle": 0.5, "right": 1.0}


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

    def _mean(self, x: Any, neuron_selection: Any, most: int) -> Any:
        targets.check_superfluous(self.neuron_selection_mode, neuron_selection)
        samples, shares = tensors_of(x), tf.convert_to_tensor(self._shares(x, neuron_selection))
        varied = samples if self.varied == self.graph.inputs else self._varied_values(*samples)
        clean = [array.numpy() for array in varied]
        points, at_once = self._count(), max(1, most // count(x))
        if self.graph.batch is not None:
            at_once = 1
        totals = [np.zeros((), np.float64) for _ in self.starts]
        variations = self._variations([array.shape[1:] for array in clean])
        for start in range(0, points, at_once):
            groups = zip(*(next(variations) for _ in range(min(at_once, points - start))), strict=True)
            pairs = zip(groups, clean, strict=True)
            given = [tf.convert_to_tensor(np.stack(group), array.dtype) for group, array in pairs]
            found, finite = self._summed(*samples, shares, *given)
            parts = self._checked(found, finite, [])
            totals = [total + part.numpy() for total, part in zip(totals, parts, strict=True)]
        return alone([self._averaged(i, clean, total / points) for i, total in enumerate(totals)])

    def _forget_traces(self) -> None:
        super()._forget_traces()
        for name in ("_summed", "_varied_values"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def varied(self) -> tuple[int, ...]:
        """Ids of the tensors that are varied: where the explanation goes down to."""
        return self.starts

    @functools.cached_property
    def _varied_values(self) -> Callable:
        """The tensors that are varied, of a batch of inputs."""

        @tf.function(input_signature=self._input_specs, autograph=False)
        def values(*x: tf.Tensor) -> list[tf.Tensor]:
            return list(self._varied_of(x))

        return values.get_concrete_function()

    def _varied_of(self, x: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        """The tensors that are varied; the inputs themselves where they are these."""
        if self.varied == self.graph.inputs:
            return x
        tensors = propagation.forward(self.graph, x)
        return tuple(tensors[tensor_id] for tensor_id in self.varied)

    @functools.cached_property
    def _summed(self) -> Callable:
        """From inputs, weights of the neurons and groups of variations: the sums of the maps of all of them."""
        graph, inputs = self.graph, len(self.graph.inputs)
        groups = [tf.TensorSpec((None, *self._variation_shape(n)), graph.dtypes[n]) for n in self.varied]

        @tf.function(input_signature=[*self._signature, *groups], autograph=False)
        def summed(*given: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
            x, shares, groups = given[:inputs], given[inputs], given[inputs + 1 :]
            size, n = tf.shape(groups[0])[0], tf.shape(shares)[0]
            points = {}
            for i, (tensor_id, clean, group) in enumerate(zip(self.varied, self._varied_of(x), groups, strict=True)):
                each = tf.reshape(group, tf.concat([[size], [1], tf.shape(group)[1:]], 0))
                made = self._points(i, clean, each)
                points[tensor_id] = tf.reshape(made, tf.concat([[-1], tf.shape(made)[2:]], 0))
            if graph.batch is not None:  # one point at a time, so that the batch stays as large as the model wants it
                points = {n: tf.ensure_shape(t, (graph.batch, *graph.shapes[n])) for n, t in points.items()}
                many = x
            else:
                many = tuple(tf.tile(one, [size, *[1] * (one.shape.rank - 1)]) for one in x)
            found, finite = self._walk(many, tf.tile(shares, [size, 1]), self.starts, points)
            sums = [
                tf.reduce_sum(tf.reshape(part, tf.concat([[size, n], tf.shape(part)[1:]], 0)), axis=0) for part in found
            ]
            return sums, finite

        return summed.get_concrete_function()

    def _count(self) -> int:
        """Points a sample."""
        raise NotImplementedError

    def _variation_shape(self, tensor_id: int) -> tuple[int | None, ...]:
        """Shape of what makes one point of every sample, at a tensor that is varied."""
        raise NotImplementedError

    def _variations(self, shapes: list[tuple[int, ...]]) -> Iterator[list[np.ndarray]]:
        """What makes one point of every sample, one after the other, for tensors of ``shapes``."""
        raise NotImplementedError

    def _points(self, position: int, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        """The points ``(g, n, ...)`` of samples ``(n, ...)`` for variations ``(g, 1, ...)``."""
        raise NotImplementedError

    def _averaged(self, position: int, clean: list[np.ndarray], mean: np.ndarray) -> np.ndarray:
        """The map from the mean of the gradients, float64."""
        return mean.astype(np.float32)


class IntegratedGradients(_Averaged):
    """The gradient integrated from a reference to the input, times their difference (Sundararajan et al. 2017).

    The map of a sample sums to its output minus the reference's, up to the
    error of the Riemann sum.

    With an ``input_layer`` the path is one of that layer's output.

    Args:
        model, neuron_selection_mode, output_layer, input_layer, postprocess:
            See :class:`Gradient`. The explained neuron is the input's.
        steps: Terms of the Riemann sum.
        reference_inputs: Where the path starts: a number, or an array that
            broadcasts to one sample of what is explained; for a model with
            several inputs also a list of one for each.
        riemann: Where in its interval each term is evaluated: ``"left"`` as in
            iNNvestigate, ``"right"`` as in the paper (Eq. 3), ``"middle"``.

    Raises:
        ValueError: For a value that an option does not take.
    """

    name = "integrated_gradients"

    def __init__(
        self,
        model: keras.Model,
        *,
        steps: int = 64,
        reference_inputs: Any = 0.0,
        riemann: str = "left",
        **options: Any,
    ):
        super().__init__(model, **options)
        steps = integer("steps", steps, 1)
        riemann = one_of("riemann", riemann, tuple(RIEMANN))
        self.path_steps, self.riemann = steps, riemann
        self._reference_inputs = reference_inputs
        if self.graph.steps:
            self.references  # noqa: B018  # checks them
        self.options |= {"steps": steps, "riemann": riemann, "reference_inputs": _listed(reference_inputs)}

    @functools.cached_property
    def references(self) -> list[np.ndarray]:
        """Where the path starts, at each of the tensors where the explanation ends; float64."""
        given, count = self._reference_inputs, len(self.starts)
        if isinstance(given, list | tuple) and count > 1:
            if len(given) != count:
                raise ValueError(
                    f"expected reference_inputs to be one, or a list of {count}, one for each input, received "
                    f"{len(given)}; give one for each"
                )
        else:
            given = [given] * count
        shapes = [self.graph.shapes[start] for start in self.starts]
        return [array_like("reference_inputs", *pair) for pair in zip(given, shapes, strict=True)]

    def completeness_residual(
        self, X: Any, maps: list[np.ndarray], neuron_selection: Any = None
    ) -> tuple[float, float | None, str] | None:
        """How far the maps are from summing to the difference of the outputs: the error of the Riemann sum."""
        if self.postprocess is not None:
            return None
        x = tensors_of(self._input(X))
        logits = self.logits(X)
        shares = self.select(logits, neuron_selection)
        start = self._from_reference(x).numpy().astype(np.float64)
        wanted = ((logits - start) * shares).sum(axis=1)
        sums = sum(one.reshape(len(one), -1).sum(axis=1, dtype=np.float64) for one in maps)
        scale = max(float(np.abs(wanted).max()), 1e-30)
        text = "|sum of the map - (logit - the reference's)|, the largest in shares of the largest difference"
        return float(np.abs(sums - wanted).max()) / scale, 0.05, text

    def _from_reference(self, x: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """The logits at the start of the path, float32 ``(n, neurons)``."""
        n, graph = tf.shape(x[0])[0], self.graph
        at = {}
        for tensor_id, clean, reference in zip(self.starts, self._varied_of(x), self.references, strict=True):
            value = tf.constant(reference, graph.dtypes[tensor_id])
            at[tensor_id] = tf.broadcast_to(value, tf.concat([[n], tf.shape(clean)[1:]], 0))
        tensors, _ = propagation.forward_with_traces(graph, x, (), at)
        return tf.cast(tensors[graph.output], tf.float32)

    def _count(self) -> int:
        return self.path_steps

    def _variation_shape(self, tensor_id: int) -> tuple[int | None, ...]:
        return (1,) * len(self.graph.shapes[tensor_id])

    def _variations(self, shapes: list[tuple[int, ...]]) -> Iterator[list[np.ndarray]]:
        for k in range(self.path_steps):
            share = (k + RIEMANN[self.riemann]) / self.path_steps
            yield [np.full([1] * len(shape), share) for shape in shapes]

    def _points(self, position: int, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        reference = tf.constant(self.references[position], x.dtype)
        return reference + group * (x - reference)

    def _averaged(self, position: int, clean: list[np.ndarray], mean: np.ndarray) -> np.ndarray:
        return (mean * (clean[position] - self.references[position])).astype(np.float32)


def _listed(value: Any) -> Any:
    """Numbers and arrays, or a list of them, as JSON holds them."""
    if isinstance(value, list | tuple):
        return [_listed(entry) for entry in value]
    return np.asarray(value).tolist()


class SmoothGrad(_Averaged):
    """The mean gradient over noisy copies of the input (Smilkov et al. 2017).

    With an ``input_layer`` the noise is still the input's, and the gradient
    that of the layer's output; where an input is not floating, such as tokens,
    the noise is of the tensor that the explanation goes down to.

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

    @functools.cached_property
    def varied(self) -> tuple[int, ...]:
        return self.graph.inputs if all(map(self.graph.floating, self.graph.inputs)) else self.starts

    def _variation_shape(self, tensor_id: int) -> tuple[int | None, ...]:
        return self.graph.shapes[tensor_id]

    def _variations(self, shapes: list[tuple[int, ...]]) -> Iterator[list[np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.augment_by_n):
            yield [rng.standard_normal(shape, np.float32) for shape in shapes]

    def _points(self, position: int, x: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, x.shape.rank))
        spread = tf.reduce_max(x, axes, keepdims=True) - tf.reduce_min(x, axes, keepdims=True)
        return x + tf.cast(self.noise, x.dtype) * spread * group
