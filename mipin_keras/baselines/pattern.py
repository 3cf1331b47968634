"""PatternNet and PatternAttribution (Kindermans et al. 2018), as iNNvestigate 1.0.9 had them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import kernels, kinds, walk
from ..analyzer import NotFittedError
from ..checks import one_of
from ..graph import Step
from ..walk import Pass
from . import backward
from .rules import applied

PATTERN_TYPES = ("relu", "linear", "relu.negative")


class PatternNet(backward.BackwardAnalyzer):
    """PatternNet: the signal that a neuron reads, carried back to the input (Kindermans et al. 2018).

    A fit finds for each neuron its *pattern*: the direction in its input that
    goes with its output, ``a = cov / (wᵀ cov)`` with the covariance of input
    and output. The walk back is the gradient's, with the patterns in place of
    the weights.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`.
        pattern_type: Which samples tell a neuron's pattern: ``"relu"``, those
            in which it is active (its pre-activation above 0);
            ``"relu.negative"``, the others; ``"linear"``, all.
        verbose: 0 silent, 1 a bar, 2 a line.

    Raises:
        ValueError: For a value that an option does not take; for a model with
            activations other than ReLU, or with layers that have no pattern,
            naming each.

    Attributes:
        patterns: After a fit, by the index of the step in ``graph.steps``:
            float32 of the kernel's shape.
    """

    name = "pattern.net"

    def __init__(
        self,
        model: keras.Model,
        *,
        pattern_type: str = "relu",
        verbose: int = 1,
        **options: Any,
    ):
        super().__init__(model, **options)
        one_of("pattern_type", pattern_type, PATTERN_TYPES)
        one_of("verbose", verbose, (0, 1, 2))
        self.pattern_type, self.verbose = pattern_type, verbose
        self.options |= {"pattern_type": pattern_type, "verbose": verbose}
        self.patterns: dict[int, np.ndarray] = {}
        self._prepare()
        if not any(step.linear for step in self.steps):
            raise ValueError(f"{self.name!r} is for models with Dense layers or convolutions, and this one has none")

    def rule(self, step: Step) -> backward.Rule | None:
        kind = kinds.kind_of(step)
        if kind == kinds.KERNEL:
            return self._through_pattern
        if kind == kinds.IDENTITY:
            return backward.keep
        known = (kinds.RECTIFIER, kinds.STRUCTURE, kinds.MAX, kinds.AVERAGE, kinds.CONCATENATE)
        return backward.pull if kind in known else None

    def direction(self, kernel: tf.Tensor, pattern: tf.Tensor) -> tf.Tensor:
        """What stands for a kernel on the way back."""
        return pattern

    def _through_pattern(self, step: Step, seen: Pass, signal: tf.Tensor) -> tf.Tensor:
        part = kernels.linear_part(step.layer)
        pattern = tf.constant(self.patterns[step.index], part.kernel.dtype)
        x = tf.cast(seen.inputs[0], part.kernel.dtype)
        _, back = applied(part.apply, x, self.direction(part.kernel, pattern))
        return back(tf.cast(signal, seen.output.dtype))

    # Fitting

    @property
    def fitted(self) -> bool:
        """Whether the patterns are known."""
        return bool(self.patterns)

    def fit(self, X: Any, batch_size: int = 32, *, steps: int | None = None, verbose: int | None = None) -> PatternNet:
        """Find the pattern of each neuron, in one pass over the data.

        Memory depends on the model and the batch, not on the number of
        samples. Interrupted, it leaves the analyzer as it was.

        Args:
            X, batch_size, steps: See :meth:`mipin_keras.Analyzer.fit`.
            verbose: Instead of the analyzer's.

        Returns:
            The analyzer.

        Raises:
            TypeError, ValueError: See :class:`mipin_keras.batches.Batches`;
                ValueError also if activations are not finite.
        """
        verbose = self.verbose if verbose is None else verbose
        one_of("verbose", verbose, (0, 1, 2))
        batches = self.batches(X, batch_size, steps)
        learned = [step for step in self.steps if step.linear]
        sums = {step.index: _Sums() for step in learned}
        bar = keras.utils.Progbar(batches.steps, verbose=verbose) if verbose else None
        if bar:
            print(f"{self.name}: the patterns of {len(learned)} layers", flush=True)
        for i, x in enumerate(batches):
            if i == 0:
                outputs = self._statistics(x, {s.index: np.zeros(s.output_shape[-1], np.float32) for s in learned})
                shifts = {index: (found[0] / found[1]).astype(np.float32) for index, found in outputs.items()}
            for index, found in self._statistics(x, shifts).items():
                sums[index].add(*found)
            if bar:
                bar.update(i + 1)
        if bar:
            bar.update(i + 1, finalize=True)
        patterns = {}
        for step in learned:
            kernel = keras.ops.convert_to_numpy(step.layer.kernel)
            patterns[step.index] = sums[step.index].pattern(kernel, shifts[step.index])
            if not np.isfinite(patterns[step.index]).all():
                raise ValueError(f"layer {step} has NaN or infinite activations on this data: look at its weights")
        self._take(patterns)
        return self

    def _take(self, patterns: dict[int, np.ndarray]) -> None:
        self.patterns = patterns
        self._traces.clear()  # they hold the patterns of the fit before

    def _statistics(self, x: np.ndarray, shifts: dict[int, np.ndarray]) -> dict[int, list[np.ndarray]]:
        """What :class:`_Sums` adds up, of one batch, by the step's index."""
        found = self._sums_of(tf.convert_to_tensor(x), {i: tf.convert_to_tensor(shift) for i, shift in shifts.items()})
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), found)

    @functools.cached_property
    def _sums_of(self) -> Callable:
        shifts = {s.index: tf.TensorSpec((s.output_shape[-1],), tf.float32) for s in self.steps if s.linear}

        @tf.function(input_signature=[self._signature[0], shifts], autograph=False)
        def statistics(x: tf.Tensor, shifts: dict[int, tf.Tensor]) -> dict[int, list[tf.Tensor]]:
            tensors = walk.forward(self.graph, x)
            return {
                step.index: self._of_step(step, tensors[step.inputs[0]], shifts[step.index])
                for step in self.steps
                if step.linear
            }

        return statistics.get_concrete_function()

    def _of_step(self, step: Step, x: tf.Tensor, shift: tf.Tensor) -> list[tf.Tensor]:
        part = kernels.linear_part(step.layer)
        if part.kernel.dtype.size < 4:  # half precision has no room for sums over a batch
            part = part._replace(kernel=tf.cast(part.kernel, tf.float32), bias=tf.cast(part.bias, tf.float32))
        x = tf.cast(x, part.kernel.dtype)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(part.kernel)
            y = part.apply(x, part.kernel)
        z = y + part.bias
        if self.pattern_type == "linear":
            mask = tf.ones_like(y)
        else:
            mask = tf.cast(z > 0 if self.pattern_type == "relu" else z <= 0, y.dtype)
        axes = list(range(y.shape.rank - 1))
        # The adjoint with respect to the kernel sums x times a signal over
        # all positions of the window, whatever its strides and padding.
        centred = (y - tf.cast(shift, y.dtype)) * mask
        count = tf.cast(tf.reduce_prod(tf.shape(y)[:-1]), tf.float64)
        sums = [
            tf.reduce_sum(tf.cast(y, tf.float64), axes),
            count,
            tf.reduce_sum(tf.cast(mask, tf.float64), axes),
            tape.gradient(y, part.kernel, output_gradients=mask),
            tape.gradient(y, part.kernel, output_gradients=centred),
        ]
        return [tf.cast(total, tf.float64) for total in sums]

    # Analyzing

    def _explain(self, x: np.ndarray, neuron_selection: Any, numbers: tuple[int, ...]) -> list[np.ndarray]:
        self._need_fit()
        return super()._explain(x, neuron_selection, numbers)

    def _need_fit(self) -> None:
        if not self.fitted:
            raise NotFittedError(f"this {self.name!r} analyzer is not fitted: call fit(X), or load() a file")

    # Files

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self._need_fit()
        return {f"pattern/{index}": pattern for index, pattern in self.patterns.items()}, {}

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        patterns = {}
        for step in self.steps:
            if step.linear:
                found, wanted = arrays[f"pattern/{step.index}"], tuple(step.layer.kernel.shape)
                if found.shape != wanted:
                    raise ValueError(f"the pattern of {step} has shape {found.shape}, expected {wanted}")
                patterns[step.index] = found
        self._take(patterns)


class PatternAttribution(PatternNet):
    """PatternAttribution: the share of each input in the signal that a neuron reads (Kindermans et al. 2018).

    As :class:`PatternNet`, with patterns times weights in place of the weights.

    Args, Raises, Attributes: As there.
    """

    name = "pattern.attribution"

    def direction(self, kernel: tf.Tensor, pattern: tf.Tensor) -> tf.Tensor:
        return kernel * pattern


class _Sums:
    """The sums over samples and positions that a layer's patterns are made of, in float64."""

    def __init__(self) -> None:
        self.totals: list[np.ndarray] | None = None

    def add(self, *found: np.ndarray) -> None:
        """One batch: of y, of 1, of the mask, of x times the mask, of x times the mask times (y - shift)."""
        if self.totals is None:
            self.totals = [np.array(new, np.float64) for new in found]
        else:
            for total, new in zip(self.totals, found, strict=True):
                total += new

    def pattern(self, kernel: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """``cov / (wᵀ cov)`` a unit, float32 of the kernel's shape.

        ``cov = E₊[x y] - E₊[x] E[y]``: E₊ over the samples of the mask, E over
        all. The shift of y, near its mean, changes nothing but the rounding.
        """
        y, count, active, x, xy = self.totals or []
        active = np.maximum(active, 1)
        covariance = xy / active - x / active * (y / count - shift)
        along = (kernel * covariance).reshape(-1, kernel.shape[-1]).sum(axis=0)
        return (covariance / np.where(along == 0, 1, along)).astype(np.float32)
