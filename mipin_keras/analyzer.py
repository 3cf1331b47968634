"""Analyzer: iNNvestigate's interface, the checks of what comes in, batching, and files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras
import numpy as np

from . import selfcheck, targets
from .analysis.batching import MEMORY, tensors_of
from .analysis.layers import GraphExplanation
from .channels import REDUCTIONS, reduced
from .checks import index, keyword_options, not_fitted, one_of
from .data.batches import Batches
from .data.progress import Progress
from .graph.model_graph import ModelGraph
from .saving.archive import Serializable
from .selfcheck import CheckReport


class Analyzer(GraphExplanation, Serializable):
    """What every method has in common.

    Args:
        model: A built Keras 3 Sequential or functional model, channels_last.
            A final softmax or sigmoid is left off: logits are explained.
        neuron_selection_mode: ``"max_activation"``, ``"index"``, ``"all"``,
            or a callable from logits ``(n, neurons)`` to indices ``(n,)``.
        output_layer: Name of a layer whose output is explained instead of the
            model's.
        output: Which of several outputs is explained: its name, or its index.
        target: What is explained instead of an output neuron: a function from
            the model's own output, or its outputs as it gives them, to one
            number a sample ``(n,)``, differentiable; an index of one element
            of the output without its final softmax or sigmoid, an int or such
            as ``(row, column, class)``; or one of ``targets.negative``,
            ``targets.contrast`` and ``targets.segmentation``.

    Raises:
        TypeError, ValueError: See :class:`mipin_keras.graph.ModelGraph` and
            :func:`mipin_keras.targets.check_mode`.

    Attributes:
        name: The name in the registry.
        options: What it was made with, for files.
    """

    name: str = "analyzer"
    #: Options of a base class that this one has set for good.
    _fixed: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        output: str | int | None = None,
        target: Any = None,
    ):
        targets.check_mode(neuron_selection_mode)
        self.target = targets.as_target(target)
        if self.target is not None and neuron_selection_mode != "max_activation":
            raise ValueError(
                "expected one of target and neuron_selection_mode, which say what is explained, received both: "
                f"{target!r} and {neuron_selection_mode!r}; leave neuron_selection_mode out"
            )
        super().__init__(self._graph_of(model, output_layer, output, self.target))
        self.model = model
        self.neuron_selection_mode = neuron_selection_mode
        self.options: dict[str, Any] = {"neuron_selection_mode": neuron_selection_mode, "output_layer": output_layer}
        # Only where they are given, so that the files and checkpoints of versions without them are taken up.
        self.options |= {} if output is None else {"output": output}
        self.options |= {} if target is None else {"target": targets.as_option(self.target)}

    def _graph_of(self, model: Any, output_layer: str | None, output: Any, target: Any) -> ModelGraph:
        return ModelGraph(model, output_layer, output=output, target=target)

    @classmethod
    def known_options(cls) -> list[str]:
        """The names of the options that the method takes."""
        return sorted(keyword_options(cls) - cls._fixed)

    # Fitting

    @property
    def fitted(self) -> bool:
        """Whether it can analyze now; always so for a method that needs no fit."""
        return True

    def fit(
        self,
        X: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        steps: int | None = None,
        verbose: int | None = None,
    ) -> Self:
        """Fit the method to data; nothing to do for one that needs none.

        Args:
            X: An array ``(n, *input shape)``, or any other source that
                :class:`mipin_keras.data.batches.Batches` takes.
            y: Labels, as Keras' own fit takes them; not used. An int here is
                the ``batch_size``, as in iNNvestigate.
            batch_size: Samples a batch, where ``X`` is an array.
            steps: Batches a pass.
            verbose: 0 silent, 1 bars, 2 lines.

        Returns:
            The analyzer.
        """
        return self

    def fit_generator(self, generator: Any, steps: int | None = None, *, verbose: int | None = None) -> Self:
        """:meth:`fit` from an endless generator with ``steps`` batches a pass, or a function that returns one."""
        return self.fit(generator, steps=steps, verbose=verbose)

    def batches(self, X: Any, y: Any = None, batch_size: int = 32, steps: int | None = None) -> Batches:
        """Checked passes over ``X`` for this model; ``y`` as in :meth:`fit`."""
        if isinstance(y, int | np.integer) and not isinstance(y, bool):
            batch_size = int(y)
        elif y is not None and (isinstance(y, str) or getattr(y, "ndim", 1) == 0 or not hasattr(y, "__iter__")):
            raise ValueError(f"expected y to be labels, or an integer batch size, received {y!r}; leave y out")
        if self.graph.batch is not None:
            batch_size = self.graph.batch
        return Batches(X, self.inputs, batch_size, steps, inspect=self._compare_once)

    # Analyzing

    def analyze(
        self,
        X: Any,
        neuron_selection: Any = None,
        *,
        batch_size: int | None = None,
        memory: float = MEMORY,
        reduce: str | None = None,
    ) -> np.ndarray:
        """Explain the model's output on ``X``.

        Args:
            X: Shape ``(n, *input shape)``, numbers, finite; for a model with
                several inputs a list of such arrays, or a dict by the inputs'
                names.
            neuron_selection: For ``neuron_selection_mode="index"``: an int,
                or one for each sample.
            batch_size: Most samples at once; None for as many as ``memory``
                has room for by the size of the model's layers, at most 128.
                It changes memory and time, and the numbers by rounding only.
            memory: GiB that the analysis may take beside the model, the
                samples and the maps, for ``batch_size=None``. One sample is
                always taken.
            reduce: None for the map as it is, or one value a pixel of X from
                its channels, the last axis: ``"relu_mean"``, ReLU first, then
                the mean, which is the paper's reading of a feature map;
                ``"mean"``, ``"abs_mean"``, ``"sum"`` or ``"max_abs"``, the
                largest absolute value. A feature map is then resized to X,
                linearly: its spatial axes are taken to lie as those of X.

        Returns:
            float32 like X in shape (like the layer's output, where the
            explanation stops at one); with ``reduce`` ``(n, *spatial axes of
            X)``. For several inputs a list or a dict as X is; an input that
            the explained output does not depend on gets zeros.

        Raises:
            NotFittedError: Before :meth:`fit`, for a class that was not
                fitted, and if the model's weights have changed since.
            TypeError: If ``X`` is not of numbers.
            ValueError: For another shape, no samples, NaN or infinity; for
                wrong ``neuron_selection``; for an unknown ``reduce``, or maps
                without channels or with other axes than X's.
        """
        return self._maps(self._analyze, X, neuron_selection, self._batch_size(X, batch_size, memory), reduce)

    def _analyze(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        raise NotImplementedError

    def _maps(
        self, function: Callable, X: Any, neuron_selection: Any, batch_size: int, reduce: str | None
    ) -> np.ndarray:
        """As :meth:`_batched`, with each batch's maps reduced before the next batch's are made."""
        reduce = one_of("reduce", reduce, (None, *REDUCTIONS))
        if reduce is None:
            return self._batched(function, X, neuron_selection, batch_size)
        how = reduce
        self._check_reducible()

        def explain(x: Any, chosen: Any) -> Any:
            maps, given = function(x, chosen), x if isinstance(x, tuple) else (x,)
            if not isinstance(maps, tuple):
                return reduced(maps, how, self._spatial(given[0].shape[1:], 0))
            return tuple(
                reduced(one, how, self._spatial(array.shape[1:], i))
                for i, (one, array) in enumerate(zip(maps, given, strict=True))
            )

        return self._batched(explain, X, neuron_selection, batch_size)

    def analyze_class(
        self,
        X: Any,
        neuron: int,
        *,
        batch_size: int = 32,
        steps: int | None = None,
        memory: float = MEMORY,
        verbose: int = 0,
    ) -> np.ndarray:
        """Explain one output neuron over a data set: the mean of its maps of all samples.

        Args:
            X: An array ``(n, *input shape)``, or any other source that
                :class:`mipin_keras.data.batches.Batches` takes; read once.
            neuron: The output neuron, whatever the analyzer's
                ``neuron_selection_mode``.
            batch_size: Samples a batch, where ``X`` is an array.
            steps: Batches to take.
            memory: As for :meth:`analyze`: of a large batch so many samples
                are explained at once.
            verbose: 0 silent, 1 a bar, 2 a line.

        Returns:
            float32 of the shape of one map. The mean is taken in float64;
            memory does not grow with the number of samples.

        Raises:
            NotFittedError, TypeError, ValueError: As :meth:`analyze`;
                ValueError also if there is no such neuron, or samples have
                different shapes.
        """
        if not self.fitted:
            raise not_fitted(self.name)
        neuron = index("neuron", neuron, self.graph.neurons)
        verbose = one_of("verbose", verbose, (0, 1, 2))
        analyzer, batches = self._of_index(), self.batches(X, None, batch_size, steps)
        progress = Progress(batches.steps, verbose)
        total, samples = np.zeros(()), 0
        for i, x in enumerate(batches, 1):
            maps: Any = analyzer.analyze(list(x) if isinstance(x, tuple) else x, neuron, memory=memory)
            if isinstance(maps, list):
                raise ValueError(
                    f"expected a model with one input for a mean of maps, received one with {len(maps)}; take the mean "
                    "of what analyze returns for each"
                )
            if samples and maps.shape[1:] != total.shape:
                raise ValueError(
                    f"expected maps of one shape for a mean, received {total.shape} and {maps.shape[1:]}; give samples "
                    "of one shape"
                )
            total = total + maps.sum(axis=0, dtype=np.float64)
            samples += len(maps)
            progress.update(i)
        progress.finish()
        return (total / samples).astype(np.float32)

    def check(self, X: Any, neuron_selection: Any = None) -> CheckReport:
        """Check on samples what a careful person would before trusting a map.

        That the steps give the model's own output, and their gradient a
        tape's; that the maps are finite; that a sample's map does not depend
        on the batch; how far the maps are from summing to the output, for
        methods that say they do; and that the model is as it was.

        Args:
            X, neuron_selection: As for :meth:`analyze`; at most the first 32
                samples are used.

        Returns:
            The report: ``print`` it, or ask ``report.passed``.

        Raises:
            NotFittedError, TypeError, ValueError: As :meth:`analyze`.
        """
        return selfcheck.run(self, X, neuron_selection)

    def completeness_residual(
        self, X: Any, maps: list[np.ndarray], neuron_selection: Any = None
    ) -> tuple[float, float | None, str] | None:
        """How far the maps of samples are from summing to what is explained, for :meth:`check`.

        Args:
            X: The samples.
            maps: What :meth:`analyze` gave for them, one for each input.
            neuron_selection: As it was given.

        Returns:
            The residual, the largest that passes, or None where there is no
            such limit, and what it is; None for a method whose maps sum to
            nothing.
        """
        return None

    def _explained(self, X: Any, neuron_selection: Any) -> np.ndarray:
        """The value of what is explained of each sample, float64 ``(n,)``."""
        logits = self.logits(X)
        return (logits.astype(np.float64) * self.select(logits, neuron_selection)).sum(axis=1)

    def _of_index(self) -> Analyzer:
        """This analyzer as it is, with ``neuron_selection_mode="index"``."""
        other = copy.copy(self)
        other.neuron_selection_mode = "index"
        return other

    def logits(self, X: Any, *, batch_size: int | None = None, memory: float = MEMORY) -> np.ndarray:
        """What is explained: the model's output without its final softmax or sigmoid.

        Args:
            X, batch_size, memory: As for :meth:`analyze`.

        Returns:
            float32 of shape ``(n, neurons)``.
        """
        most = self._batch_size(X, batch_size, memory)
        return self._batched(lambda x, _: self._logits(*tensors_of(x)).numpy(), X, None, most, maps=False)

    def select(self, logits: np.ndarray, neuron_selection: Any = None) -> np.ndarray:
        """The weight of each output neuron in each sample's explanation, float32 ``(n, neurons)``."""
        return targets.select(logits, self.neuron_selection_mode, neuron_selection)
