"""What is read from a fit of the information analyzers: the decomposition, maps, the masked network, files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..analysis.batching import MEMORY, tensors_of
from ..analyzer import Analyzer
from ..channels import resized
from ..checks import not_fitted
from . import serialization
from .critic import pointwise
from .mask import MaskModule
from .parts import Cut
from .results import Decomposition, Fitted, InformationReport
from .training import local_parts


class Explanation(Analyzer):
    """The part of :class:`~.analyzer.Information` that explains, once there is a fit.

    Attributes:
        cut: Where the model is cut.
        fit_report: After a fit, an :class:`InformationReport`.
    """

    #: Which part of the decomposition ``analyze`` gives.
    part: ClassVar[str] = "total"
    cut: Cut
    fit_report: InformationReport | None = None
    _found: Fitted | None = None

    @property
    def starts(self) -> tuple[int, ...]:
        return (self.cut.feature,)

    @property
    def _image(self) -> tuple[int | None, ...]:
        """The shape of the input that has the axes of the feature map, or of the first."""
        shapes = [self.graph.shapes[n] for n in self.graph.inputs]
        return next((shape for shape in shapes if len(shape) == len(self.cut.shape)), shapes[0])

    @property
    def fitted(self) -> bool:
        """Whether the mask and the critic are known."""
        return self._found is not None

    def _take(self, found: Fitted) -> None:
        self._found, self.fit_report = found, found.report
        for trace in ("_explain", "_masked"):  # they hold the fit before
            self.__dict__.pop(trace, None)

    def _forget_traces(self) -> None:
        super()._forget_traces()
        for trace in ("_parts_of", "_explain", "_masked"):
            self.__dict__.pop(trace, None)

    # Analyzing

    def decompose(self, X: Any, *, batch_size: int | None = None, memory: float = MEMORY) -> Decomposition:
        """The three parts of the information, and the mask, of each input.

        Args:
            X, batch_size, memory: As for :meth:`analyze`.

        Returns:
            A :class:`Decomposition`, of the feature map's size.

        Raises:
            NotFittedError, TypeError, ValueError: As :meth:`analyze`.
        """
        most = self._batch_size(X, batch_size, memory)
        parts = list(self._parts(self._decomposed, self._input(X), None, most))
        return Decomposition(*(np.concatenate(of) for of in zip(*parts, strict=True)))

    def _decomposed(self, x: Any, _: Any = None) -> Decomposition:
        explain = self._explain
        *found, finite, weights = explain(*tensors_of(x))
        if self.identity is not None:
            self.identity.check(weights)
        if not finite.numpy():
            raise ValueError(
                "expected finite feature maps, received NaN or infinity; look for the cause in the model's weights"
            )
        total, decision, mask = (tensor.numpy() for tensor in found)
        scale = np.float32(1 / math.log(2) if self.options["unit"] == "bits" else 1)
        return Decomposition(total * scale, decision * scale, (total - decision) * scale, mask)

    @functools.cached_property
    def _explain(self) -> Callable:
        if self._found is None or self.identity is None:
            raise not_fitted(self.name)
        found, identity = self._found, self.identity

        @tf.function(input_signature=self._input_specs, autograph=False)
        def explain(*x: tf.Tensor) -> tuple:
            return (*information(self.cut, found, x), identity.weights.read())

        return explain.get_concrete_function()

    def masked_logits(self, X: Any, *, batch_size: int | None = None, memory: float = MEMORY) -> np.ndarray:
        """The network's logits behind the mask: what it decides from what the mask leaves.

        Args:
            X, batch_size, memory: As for :meth:`analyze`.

        Returns:
            float32 of shape ``(n, neurons)``.

        Raises:
            NotFittedError, TypeError, ValueError: As :meth:`analyze`.
        """
        most = self._batch_size(X, batch_size, memory)
        return self._batched(self._of_masked, X, None, most, maps=False)

    def _of_masked(self, x: Any, _: Any = None) -> np.ndarray:
        if self._found is None or self.identity is None:
            raise not_fitted(self.name)
        self.identity.check()
        return self._masked(*tensors_of(x)).numpy()

    @functools.cached_property
    def _masked(self) -> Callable:
        if self._found is None:
            raise not_fitted(self.name)
        mask = self._found.mask

        @tf.function(input_signature=self._input_specs, autograph=False)
        def masked(*x: tf.Tensor) -> tf.Tensor:
            return masked_logits(self.cut, mask, x)

        return masked.get_concrete_function()

    def _analyze(self, x: Any, neuron_selection: Any) -> np.ndarray:
        if neuron_selection is not None:
            raise ValueError(
                f"expected no neuron_selection, as {self.name!r} explains what the representation knows and no output "
                f"neuron, received {neuron_selection!r}; leave it out"
            )
        found = getattr(self._decomposed(x), self.part)
        if not self.options["resize"]:
            return found
        *sizes, channels = (size or 1 for size in self._image)  # none is open: the map is resized to them
        return np.repeat(resized(found, tuple(sizes))[..., None], channels, axis=-1)

    def _analyze_layers(self, x: Any, neuron_selection: Any, tensor_ids: dict[str, int]) -> Any:
        raise NotImplementedError(
            f"expected a method that goes back over the layers, received {self.name!r}, which has a fit for each "
            "layer; give another one as layer=, or take 'gradient' or 'lrp.epsilon'"
        )

    def _check_reducible(self) -> None:
        if not self.options["resize"]:
            raise ValueError(
                "reduce= expected maps with channels, received resize=False, whose maps have none; leave one of the "
                "two out"
            )
        super()._check_reducible()

    # Files

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if self._found is None:
            raise not_fitted(self.name)
        return serialization.state(self._found)

    def _shapes(self, about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return serialization.shapes(self.cut, self.options, about)

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self._take(serialization.restored(self.cut, self.options, arrays, about))


def information(cut: Cut, found: Fitted, x: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The total and the decision-related information at each location.

    The negatives are those kept from the fit, so an input's values do not
    depend on the others of its batch.

    Args:
        cut: Where the model is cut.
        found: A fit.
        x: The model's inputs.

    Returns:
        Nats ``(n, *spatial)``, twice; the mask, likewise; and whether the
        feature map is finite.
    """
    parts = cut.parts(x)
    z, shape = parts.representation, (tf.shape(parts.representation)[0], *cut.shape[:-1])
    mask = found.mask(parts.feature)
    both = []
    for own, negatives in zip(local_parts(parts.feature, mask), found.bank, strict=True):
        others = tf.math.reduce_logsumexp(found.critic(z, negatives[None])[:, 0], axis=1)
        # Each z with its own parts alone: of all pairs of a batch only these are wanted.
        nats = pointwise(found.critic.of_pairs(z, own), others, negatives.shape[0])
        both.append(tf.reshape(nats, shape))
    return both[0], both[1], tf.reshape(mask, shape), tf.reduce_all(tf.math.is_finite(parts.feature))


def masked_logits(cut: Cut, mask: MaskModule, x: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """The network's logits behind the mask, float32 ``(n, neurons)``."""
    parts = cut.parts(x)
    feature = tf.cast(parts.feature, tf.float32)
    return cut.logits(feature * mask(parts.feature), parts.beside)
