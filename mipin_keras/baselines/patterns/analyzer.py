"""PatternNet and PatternAttribution (Kindermans et al. 2018), as iNNvestigate 1.0.9 had them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from ... import targets
from ...analysis.batching import tensors_of
from ...checks import not_fitted, one_of
from ...data.progress import Progress
from ...graph import linear, propagation, step_types
from ...graph.model_graph import Step
from ...graph.propagation import StepTrace
from ...saving.identity import ModelIdentity
from ..backward import ReLUAnalyzer
from ..tables import Entry, PerGate, PerStep, in_equal_parts, pass_through, past_gate, vjp
from . import damping, statistics
from .statistics import Neurons

PATTERN_TYPES = ("relu", "linear", "relu.negative")


class PatternNet(ReLUAnalyzer):
    """PatternNet: the signal that a neuron reads, carried back to the input (Kindermans et al. 2018).

    A fit finds for each neuron its *pattern*: the direction in its input that
    goes with its output, ``a = cov / (wᵀ cov)`` with the covariance of input
    and output. The walk back is the gradient's, with the patterns in place of
    the weights.

    A neuron is a channel of a Dense layer, of any convolution, and of a sum,
    mean or difference of several tensors, whose weights are 1 or as simple.
    One that reads a single number, as in a normalisation or scaling, has the
    pattern 1 / w, 0 where w is 0; in a layer or group normalisation w is the
    factor that the sample's own statistics make. Through a gate, as through a
    ReLU, the signal goes as the gradient does; the gate itself gets none.

    A map is a direction. In a deep network it may grow beyond float32: then
    the signal at each tensor is taken 2^exponents times smaller, alike for all
    samples.

    Args:
        model, neuron_selection_mode, output_layer, input_layer: See
            :class:`~.backward.BackwardAnalyzer`.
        pattern_type: Which samples tell a neuron's pattern: ``"relu"``, those
            in which it is active (its pre-activation above 0);
            ``"relu.negative"``, the others; ``"linear"``, all.
        activations: ``"relu"`` refuses other activations, which the methods
            are not defined for; ``"any"`` takes their gradient.
        verbose: 0 silent, 1 a bar, 2 a line.

    Raises:
        ValueError: For a value that an option does not take; for a model with
            activations other than ReLU, unless any may be, or with layers
            that have no pattern, naming each.

    Attributes:
        patterns: After a fit, by the index of the step in ``graph.steps``:
            float32 of the kernel's shape; of a sum, ``(different tensors,
            channels)``.
        exponents: How much smaller, by the tensor's id, as the fit found it
            on its first batch; empty where nothing comes near float32's end.
    """

    name = "pattern.net"
    _held_at_once = 0.5

    def __init__(
        self,
        model: keras.Model,
        *,
        pattern_type: str = "relu",
        verbose: int = 1,
        **options: Any,
    ):
        super().__init__(model, **options)
        pattern_type = one_of("pattern_type", pattern_type, PATTERN_TYPES)
        verbose = one_of("verbose", verbose, (0, 1, 2))
        self.pattern_type, self.verbose = pattern_type, verbose
        self.options |= {"pattern_type": pattern_type, "verbose": verbose}
        self.patterns: dict[int, np.ndarray] = {}
        self.exponents: dict[int, int] = {}
        self._prepare()
        self.learned = [step for step in self.steps if step_types.of(step) in statistics.LEARNED]
        if not any(step.linear for step in self.steps):
            raise ValueError(
                f"{self.name!r} expected a model with Dense layers or convolutions, received one without; take "
                "'gradient'"
            )
        self.rules = {index: damping.damped(rule, lambda: self.exponents) for index, rule in self.rules.items()}

    @property
    def table(self) -> Mapping[str, Entry]:
        learned = PerStep(lambda step: self._through_pattern if statistics.is_known(step) else None)
        return dict.fromkeys(statistics.LEARNED, learned) | {
            step_types.NORMALIZATION: self._through_factor,
            step_types.AFFINE: self._through_factor,
            step_types.STANDARDIZATION: self._through_factor,
            step_types.IDENTITY: pass_through,
            step_types.GATE: PerGate(past_gate),
            step_types.SUM: in_equal_parts,
            step_types.RECTIFIER: vjp,
            step_types.ACTIVATION: vjp,
            step_types.STRUCTURE: vjp,
            step_types.MAX: vjp,
            step_types.AVERAGE: vjp,
            step_types.CONCATENATE: vjp,
        }

    def direction(self, kernel: tf.Tensor, pattern: tf.Tensor) -> tf.Tensor:
        """What stands for a kernel on the way back."""
        return pattern

    def _through_pattern(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = statistics.linear_part(step, propagation.wide_dtype(trace.output), wide=True)
        pattern = tf.constant(self.patterns[step.index], part.kernel.dtype)
        x = tuple(tf.cast(one, part.kernel.dtype) for one in trace.inputs)
        _, back = part.with_adjoint(x, self.direction(part.kernel, pattern))
        return back(tf.cast(signal, part.kernel.dtype))

    def _through_factor(self, step: Step, trace: StepTrace, signal: tf.Tensor) -> tf.Tensor:
        """A neuron that reads one number has the pattern 1 / w."""
        kernel = _FACTORS[step_types.of(step)](step, trace.inputs[0])
        return tf.cast(signal, kernel.dtype) * self.direction(kernel, tf.math.reciprocal_no_nan(kernel))

    # Fitting

    @property
    def fitted(self) -> bool:
        """Whether the patterns are known."""
        return bool(self.patterns)

    def fit(
        self,
        X: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        steps: int | None = None,
        verbose: int | None = None,
    ) -> Self:
        """Find the pattern of each neuron, in one pass over the data.

        Memory depends on the model and the batch, not on the number of
        samples. Interrupted, it leaves the analyzer as it was.

        Args:
            X, y, batch_size, steps: See :meth:`mipin_keras.Analyzer.fit`.
            verbose: Instead of the analyzer's.

        Returns:
            The analyzer.

        Raises:
            TypeError, ValueError: See :class:`mipin_keras.data.batches.Batches`;
                ValueError also if activations are not finite.
        """
        verbose = self.verbose if verbose is None else verbose
        verbose = one_of("verbose", verbose, (0, 1, 2))
        batches = self.batches(X, y, batch_size, steps)
        self._refresh()
        identity = ModelIdentity(self.graph)
        sums = {step.index: Neurons(step) for step in self.learned}
        progress = Progress(batches.steps, verbose)
        if verbose:
            print(f"{self.name}: the patterns of {len(self.learned)} layers", flush=True)
        for i, x in enumerate(batches):
            if i == 0:
                first = x
                zeros = {step.index: np.zeros(step.output_shape[-1], np.float32) for step in self.learned}
                shifts = {
                    index: (y.sum(axis=0) / count.sum(axis=0)).astype(np.float32)
                    for index, (y, count, *_) in self._statistics(x, zeros).items()
                }
            for index, found in self._statistics(x, shifts).items():
                sums[index].add(*found)
            progress.update(i + 1)
        progress.finish()
        batches.warn_of_little()
        learned = {}
        for step in self.learned:
            kernel = keras.ops.convert_to_numpy(statistics.linear_part(step, tf.float32).kernel)
            learned[step.index] = sums[step.index].pattern(kernel, shifts[step.index])
            if not np.isfinite(learned[step.index]).all():
                raise ValueError(
                    f"expected layer {step} to have finite activations on this data, received NaN or infinite ones; "
                    "look at its weights"
                )
        identity.check()
        before = self.patterns, self.exponents, self.identity
        try:
            self._take(learned, {}, identity)
            self._take(learned, self._exponents_on(first), identity)
        except BaseException:
            self._take(*before)
            raise
        return self

    def _exponents_on(self, x: np.ndarray) -> damping.Exponents:
        """Those of the signals of a batch."""
        tensors, traces = propagation.forward_with_traces(self.graph, tensors_of(x), self.steps)
        logits = tf.cast(tensors[self.graph.output], tf.float32)
        signal = self.head(logits, targets.largest(logits))
        return damping.measured(self.graph, self.steps, traces, self.rules, signal)

    def _take(self, found: dict[int, np.ndarray], exponents: dict[int, int], identity: ModelIdentity | None) -> None:
        self.patterns, self.exponents, self.identity = found, exponents, identity
        self._traces.clear()  # they hold the patterns of the fit before

    def _forget_traces(self) -> None:
        super()._forget_traces()
        self.__dict__.pop("_sums_of", None)

    def _statistics(self, x: np.ndarray, shifts: dict[int, np.ndarray]) -> dict[int, list[np.ndarray]]:
        """What :class:`~.patterns.Neurons` add up, of one batch, by the step's index."""
        found = self._sums_of(tensors_of(x), {i: tf.convert_to_tensor(shift) for i, shift in shifts.items()})
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), found)

    @functools.cached_property
    def _sums_of(self) -> Callable:
        shifts = {step.index: tf.TensorSpec((step.output_shape[-1],), tf.float32) for step in self.learned}

        @tf.function(input_signature=[tuple(self._input_specs), shifts], autograph=False)
        def add_up(x: tuple[tf.Tensor, ...], shifts: dict[int, tf.Tensor]) -> dict[int, list[tf.Tensor]]:
            tensors = propagation.forward(self.graph, x)
            return {
                step.index: statistics.batch_sums(
                    step, [tensors[i] for i in step.signal_inputs], shifts[step.index], self.pattern_type
                )
                for step in self.learned
            }

        return add_up.get_concrete_function()

    # Analyzing

    def _explain(self, x: np.ndarray, neuron_selection: Any, tensor_ids: tuple[int, ...]) -> list[np.ndarray]:
        self._need_fit()
        found = super()._explain(x, neuron_selection, tensor_ids)
        if not all(np.isfinite(one).all() for one in found):
            raise ValueError(
                "expected signals in the range of float32, as the first batch of the fit had, received samples whose "
                "signal the patterns carry beyond the range; fit on samples like these"
            )
        return found

    def _need_fit(self) -> None:
        if not self.fitted:
            raise not_fitted(self.name)

    # Files

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self._need_fit()
        exponents = {str(tensor_id): exponent for tensor_id, exponent in self.exponents.items()}
        return {f"pattern/{index}": pattern for index, pattern in self.patterns.items()}, {
            "octaves": exponents
        }  # as version 0.1 calls them

    def _shapes(self, about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return {f"pattern/{step.index}": Neurons(step).shape for step in self.learned}

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        taken = {step.index: arrays[f"pattern/{step.index}"] for step in self.learned}
        self._take(taken, damping.from_json(about.get("octaves", {}), self.graph, self.steps), None)


class PatternAttribution(PatternNet):
    """PatternAttribution: the share of each input in the signal that a neuron reads (Kindermans et al. 2018).

    As :class:`PatternNet`, with patterns times weights in place of the weights.

    Args, Raises, Attributes: As there.
    """

    name = "pattern.attribution"

    def direction(self, kernel: tf.Tensor, pattern: tf.Tensor) -> tf.Tensor:
        return kernel * pattern


# What a neuron that reads one number multiplies it by.
_FACTORS: dict[str | None, Callable[[Step, tf.Tensor], tf.Tensor]] = {
    step_types.STANDARDIZATION: lambda step, x: linear.standardization(step.layer, x).kernel,
    step_types.NORMALIZATION: lambda step, x: linear.linear_part(step.layer).kernel,
    step_types.AFFINE: lambda step, x: linear.affine(step, x.dtype).kernel,
}
