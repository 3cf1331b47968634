"""Completeness: how much of the explained logit the source signal alone still gives.

Source: Deng et al., "Mutual Information Preserving Back-propagation: Learn to Invert for Faithful Attribution"
(MIP-IN), section 5, Eq. 10 (average percentage change, APC) and Eq. 11 (positive APC).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_finite
from .checks import vector_of


class ClassCompleteness(NamedTuple):
    """The mean over the samples of one class: the inner mean of Eq. 10 and 11.

    Attributes:
        apc: Percent; NaN when ``samples`` is 0.
        positive_apc: Percent; NaN when ``samples`` is 0.
        samples: How many samples of the class were averaged.
    """

    apc: float
    positive_apc: float
    samples: int


@dataclass(frozen=True)
class Completeness:
    """What :func:`average_percentage_change` found.

    Attributes:
        apc: Eq. 10 in percent: the mean over the classes of the mean over their samples of
            |logit(x) - logit(s)| / |logit(x)|. 0 is best, there is no upper end. NaN when every sample is undefined.
        positive_apc: Eq. 11 in percent: the same with relu(logit(x) - logit(s)), which forgives a source signal that
            raises the logit. At most ``apc``. NaN when every sample is undefined.
        samples: How many samples were averaged in.
        undefined: How many were not, because their logit is 0 and a change relative to it has no value.
        per_class: For each class among the samples, in ascending order, its own means. A class whose samples are all
            undefined stands here with NaN and 0 samples, and is left out of ``apc`` and ``positive_apc``.
    """

    apc: float
    positive_apc: float
    samples: int
    undefined: int
    per_class: dict[int, ClassCompleteness]

    def __str__(self) -> str:
        classes = sum(found.samples > 0 for found in self.per_class.values())
        return (
            f"APC {self.apc:.1f} %, positive APC {self.positive_apc:.1f} % "
            f"({self.samples} samples, {classes} classes, {self.undefined} undefined)"
        )


class SourceSignalAnalyzer(Protocol):
    """What :func:`completeness` asks of an analyzer; MIP-IN has it."""

    def logits(self, x: Any, /, *, batch_size: int = ...) -> NDArray[np.float32]:
        """The logits of x, before any softmax: (n, C) float32."""

    def select(self, logits: NDArray[np.float32], neuron_selection: Any = ..., /) -> NDArray[np.float32]:
        """The weights of the explained neurons: (n, C) float32, one-hot; tied maxima share."""

    def source_signal(self, x: Any, neuron_selection: Any = ..., /, *, batch_size: int = ...) -> NDArray[np.float32]:
        """What of x the selected logit still knows: like x in shape, float32."""


def average_percentage_change(logits: ArrayLike, source_logits: ArrayLike, classes: ArrayLike) -> Completeness:
    """Compare the logits of inputs with those of their source signals: Eq. 10 and 11 of MIP-IN.

    All is computed in float64. The paper's C is taken as the number of classes that have a sample with a value, so a
    set of samples that lacks a class is not credited with a perfect score for it.

    Args:
        logits: (n,) of numbers, for each sample the logit of its explained class, of the input.
        source_logits: (n,) of numbers, the same class's logit, of the source signal.
        classes: (n,) of integers from 0, the explained class.

    Returns:
        A :class:`Completeness`, in percent. Samples whose logit is 0 are undefined: they are counted in ``undefined``
        and not averaged in. When all are undefined, ``apc`` and ``positive_apc`` are NaN.

    Raises:
        ValueError: An argument is not of rank 1, is empty, differs in length from the others, holds NaN or infinity,
            or ``classes`` holds something other than integers from 0.
    """
    advice = "from all logits (n, C), take each sample's own class: logits[np.arange(n), classes]"
    logit = vector_of("logits", logits, advice).astype(np.float64)
    source = vector_of("source_logits", source_logits, advice).astype(np.float64)
    explained = _labels(classes)
    if not len(logit) == len(source) == len(explained):
        raise ValueError(
            "expected one logit, one source logit and one class for each sample, received "
            f"{len(logit)} logits, {len(source)} source_logits and {len(explained)} classes; "
            "pass arrays of one length, in the same order"
        )

    defined = logit != 0
    drop = (logit - source)[defined] / np.abs(logit[defined]) * 100.0
    per_class: dict[int, ClassCompleteness] = {}
    for label in np.unique(explained):
        own = drop[explained[defined] == label]
        per_class[int(label)] = ClassCompleteness(_mean(np.abs(own)), _mean(np.maximum(own, 0.0)), len(own))
    found = [one for one in per_class.values() if one.samples]
    return Completeness(
        apc=_mean(np.array([one.apc for one in found])),
        positive_apc=_mean(np.array([one.positive_apc for one in found])),
        samples=len(drop),
        undefined=len(logit) - len(drop),
        per_class=per_class,
    )


def completeness(
    analyzer: SourceSignalAnalyzer, x: Any, neuron_selection: Any = None, batch_size: int = 128
) -> Completeness:
    """Measure a fitted analyzer's source signals on x: run the network on both, compare the logits.

    Args:
        analyzer: A fitted analyzer that has source signals (``logits``, ``select`` and ``source_signal``), such as
            MIP-IN.
        x: The inputs, as the analyzer's ``analyze`` takes them: (n, ...).
        neuron_selection: Which output neuron is explained, as ``analyze`` takes it. By default what the analyzer's
            own mode says, usually the largest logit. It must select one neuron a sample: the measure is of a logit.
            Tied maxima, whose logits are equal, count for the first of their classes.
        batch_size: How many samples run through the network at once; it changes memory and time only.

    Returns:
        A :class:`Completeness`, in percent, over the classes explained. Not the true classes: for those give them as
        ``neuron_selection``, with an analyzer in the mode "index".

    Raises:
        TypeError: The analyzer has no source signals.
        ValueError: The analyzer's explanation stops at an ``input_layer``; the selection takes no neuron or a mixture
            of several for some sample; the logits are not finite numbers of shape (n, C); and whatever the analyzer
            itself refuses.
    """
    missing = [name for name in ("logits", "select", "source_signal") if not callable(getattr(analyzer, name, None))]
    if missing:
        raise TypeError(
            f"expected an analyzer with source signals, received a {type(analyzer).__name__}, which has no "
            f"{', '.join(missing)}; use create_analyzer('mipin', model), fitted"
        )
    stops_at = getattr(analyzer, "options", {}).get("input_layer")
    if stops_at is not None:
        raise ValueError(
            "expected an analyzer that explains down to the input, as completeness runs the network on the source "
            f"signal, received one that stops at layer {stops_at!r}; create one without input_layer"
        )
    logits = _matrix("the logits of x", analyzer.logits(x, batch_size=batch_size))
    weights = _matrix("the selection", analyzer.select(logits, neuron_selection), logits.shape)
    explained = _explained(weights)
    signal = analyzer.source_signal(x, neuron_selection, batch_size=batch_size)
    source = _matrix("the source signal's logits", analyzer.logits(signal, batch_size=batch_size), logits.shape)
    rows = np.arange(len(logits))
    return average_percentage_change(logits[rows, explained], source[rows, explained], explained)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean, NaN of nothing: what np.mean gives, without its warning."""
    return float(values.mean()) if len(values) else float("nan")


def _explained(weights: NDArray[Any]) -> NDArray[np.intp]:
    """The class that each row of weights selects. A mixture has no logit of its own to measure, so it is refused."""
    largest = weights.max(axis=1)
    single = (largest > 0) & np.all((weights == 0) | (weights == largest[:, None]), axis=1)
    if not single.all():
        bad = int(np.argmin(single))
        raise ValueError(
            "expected a neuron_selection that takes one neuron for each sample, as completeness is of one logit, "
            f"received for sample {bad} the weights {np.array2string(weights[bad], threshold=12)}; select "
            "'max_activation', or one index a sample"
        )
    return np.argmax(weights, axis=1)


def _labels(classes: ArrayLike) -> NDArray[np.integer[Any]]:
    """A checked (n,) array of the indices of classes."""
    array = vector_of("classes", classes, "give one class index a sample")
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"expected classes to be integers, one class index a sample, received dtype {array.dtype}; give "
            "logits.argmax(axis=1) for the classes that the model takes the samples for"
        )
    if array.min() < 0:
        raise ValueError(f"expected classes to be numbered from 0, received {array.min()}; count from 0")
    return array


def _matrix(name: str, values: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """A checked (n, C) array from the analyzer; of the given shape, where one is given."""
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0 or (shape is not None and array.shape != shape):
        expected = "(n, C)" if shape is None else str(shape)
        raise ValueError(
            f"expected {name} of shape {expected}, not empty, received shape {array.shape}; look at the analyzer's "
            "logits() and select()"
        )
    check_finite(name, array, "rows", "look for the cause in the model's weights or the fit")
    return array
