"""Where an explanation ends, and what it leaves at the layers on the way."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..channels import check_axes
from ..checks import batch_shape
from .batching import MEMORY, Batching


class LayerExplanation(NamedTuple):
    """What an explanation leaves at one layer on its way.

    Attributes:
        attribution: float32 ``(n, *layer's output shape)``: what arrived at
            the layer's output, its activation included.
        source_signal: Likewise, for methods that have one; else None.
    """

    attribution: np.ndarray
    source_signal: np.ndarray | None = None


class GraphExplanation(Batching):
    """The part of an analyzer that knows the model's layers.

    Attributes:
        name: The analyzer's name in the registry.
        options: What it was made with.
    """

    name: str
    options: dict[str, Any]

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """Ids of the tensors that the explanation goes down to, see :meth:`mipin_keras.graph.ModelGraph.starts`."""
        return self.graph.starts(self.options.get("input_layer"))

    @functools.cached_property
    def reached_starts(self) -> tuple[int, ...]:
        """Those of :attr:`starts` that the explained output depends on."""
        return self.graph.reached(self.starts)

    @property
    def start(self) -> int:
        """Id of the first of :attr:`starts`."""
        return self.starts[0]

    def _say_where_it_ends(self) -> None:
        """Warn where an explanation does not go down to an input that is not floating."""
        names = {tensor_id: name for name, tensor_id in self.graph.ends.items()}
        ends = () if self.options.get("input_layer") is not None else self.graph.starts()
        for tensor_id, start in zip(self.graph.inputs, ends, strict=False):
            if start != tensor_id:
                warnings.warn(
                    f"expected an input with a gradient, received {names.get(tensor_id)!r} of dtype "
                    f"{self.graph.dtypes[tensor_id]}, which has none here; the explanation goes down to the output "
                    f"of {names.get(start, 'a step behind it')!r}, {batch_shape(self.graph.shapes[start])}: give it as "
                    "input_layer= to say so yourself",
                    UserWarning,
                    stacklevel=4,
                )

    def _spatial(self, shape: Any, position: int) -> Any:
        """The axes that a reduced map has, of an input of ``shape``: all but its channels.

        Tokens have no channels, but the vectors that they are explained at.
        """
        found = self.graph.shapes[self.starts[position]]
        return shape if len(found) == len(shape) + 1 else shape[:-1]

    def _check_reducible(self) -> None:
        """Raise ValueError where a map's channels cannot be reduced to the pixels of the input."""
        for position, start in enumerate(self.starts):
            shape = self.graph.shapes[self.graph.inputs[position]]
            of_tokens = self._spatial(shape, position) == shape
            check_axes(self.graph.shapes[start], (*shape, 1) if of_tokens else shape)

    def analyze_layers(
        self,
        X: Any,
        neuron_selection: Any = None,
        *,
        layers: Sequence[str] | None = None,
        batch_size: int | None = None,
        memory: float = MEMORY,
    ) -> dict[str, LayerExplanation]:
        """Explain the model's output at the layers on the way, all in one pass back over them.

        Args:
            X, neuron_selection, batch_size, memory: As for :meth:`analyze`.
            layers: Names of the layers wanted; None for every hidden one on
                the way, from where the explanation ends (the model's input,
                by its name, or ``input_layer``) to the last before the output.

        Returns:
            By the layer's name, in the order of the model; at each what an
            analyzer with this ``input_layer`` gives. A layer inside a nested
            model has its path before its name, a shared one's second call
            ``#2`` behind it.

        Raises:
            NotImplementedError: For a method that knows nothing of layers.
            ValueError, TypeError, NotFittedError: As :meth:`analyze`;
                ValueError also for layers that are unknown or not on the way.
        """
        tensor_ids = self._tensor_ids(layers)
        explain = functools.partial(self._analyze_layers, tensor_ids=tensor_ids)
        most = self._batch_size(X, batch_size, memory)
        parts = list(self._parts(explain, self._input(X), neuron_selection, most))
        found = {}
        for name in tensor_ids:
            attributions, sources = zip(*(part[name] for part in parts), strict=True)
            source = None if sources[0] is None else np.concatenate(sources)
            found[name] = LayerExplanation(np.concatenate(attributions), source)
        return found

    def _tensor_ids(self, layers: Sequence[str] | None) -> dict[str, int]:
        """The id of the tensor that each layer makes, by the layer's name, of those wanted or all on the way."""
        starts = self.reached_starts
        way = {*starts, *(step.output for step in self.graph.between(*starts))} - {self.graph.output}
        known = {name: n for name, n in sorted(self.graph.ends.items(), key=lambda end: end[1]) if n in way}
        if layers is None:
            return known
        wanted = {name: self.graph.tensor_after(name) for name in ([layers] if isinstance(layers, str) else layers)}
        if not wanted or not way.issuperset(wanted.values()):
            raise ValueError(
                f"expected layers from the explanation's end to the last before the output, some of {list(known)}, "
                f"received {layers!r}; name some of these, or None for all"
            )
        return wanted

    def _analyze_layers(
        self, x: np.ndarray, neuron_selection: Any, tensor_ids: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """By the names in ``tensor_ids``, the attribution and the source signal at the tensor of each id."""
        raise NotImplementedError(
            f"expected a method that goes back over the layers, received {self.name!r}, which explains the model's "
            "input alone; for the layers take 'gradient', 'lrp.epsilon' or 'mipin'"
        )
