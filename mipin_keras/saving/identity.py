"""ModelIdentity: the model that a fit belongs to, as it was when the fit was made."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import tensorflow as tf

from ..checks import NotFittedError
from ..graph.model_graph import ModelGraph
from . import fingerprint, probe
from .held_weights import HeldWeights, variables


class ModelIdentity:
    """The identity of a model as it is now: its fingerprint, its outputs on a probe, and its weights.

    Args:
        graph: The model's steps.

    Attributes:
        fingerprint: See :func:`mipin_keras.saving.fingerprint.fingerprint`.
        probe: See :func:`mipin_keras.saving.probe.probe`.
        weights: The weights, held.
    """

    def __init__(self, graph: ModelGraph):
        self._graph = graph
        self.weights = HeldWeights(variables(graph))
        self.fingerprint = fingerprint.fingerprint(graph)
        self.probe = probe.probe(graph)
        # LoRA is Keras' own way to give a layer other variables, and leaves the old ones as they are. Every call checks
        # it; the list of all variables, which takes longer to make, is checked before a save.
        self._adaptable = [step.layer for step in graph.steps if hasattr(step.layer, "lora_enabled")]
        self._adapted = [layer.name for layer in self._adaptable if layer.lora_enabled]

    def check(self, values: Sequence[tf.Tensor] | None = None) -> None:
        """Raise unless the weights are those of the fit.

        Args:
            values: The weights' values in a call, from ``weights.read()``;
                None for their values now.

        Raises:
            NotFittedError: If they have changed; the message names some.
        """
        changed = self.weights.changed(values)
        if [layer.name for layer in self._adaptable if layer.lora_enabled] != self._adapted:
            raise NotFittedError(
                "expected the model as it was fitted, received one with other variables than when it was fitted "
                "(LoRA); call fit(X) again"
            )
        if changed:
            raise NotFittedError(
                "expected the weights that the fit belongs to, received others: the model's weights have changed "
                f"since the fit, {len(changed)} of {len(self.weights.variables)} ({', '.join(changed[:2])}"
                f"{', ...' if len(changed) > 2 else ''}); call fit(X) again, or set the weights back"
            )

    def check_after_fit(self) -> None:
        """Raise unless the weights are still those that a fit began with.

        Raises:
            NotFittedError: If they have changed meanwhile.
        """
        try:
            self.check()
        except NotFittedError as problem:
            raise NotFittedError(
                "expected the model's weights to stay as they are, received others at the end: they changed while it "
                "was fitted; fit again"
            ) from problem

    def check_structure(self) -> None:
        """Raise unless the layers, their settings and their code are those of the fit too, and the weights.

        Raises:
            NotFittedError: If something has changed.
        """
        self.check()
        own = variables(self._graph)
        if len(own) != len(self.weights.variables) or any(map(operator.is_not, own, self.weights.variables)):
            raise NotFittedError(
                "expected the model as it was fitted, received one with other variables than when it was fitted, "
                f"{len(own)} for {len(self.weights.variables)}; call fit(X) again"
            )
        here = fingerprint.structure(self._graph) | {"weights": self.fingerprint["weights"]}
        found = fingerprint.differences(self.fingerprint, here)
        if not found and not probe.agree(self.probe, probe.probe(self._graph)):
            found = ["it computes something else on the same input"]
        if found:
            raise NotFittedError(
                "expected the model as it was fitted, received one that has changed since the fit "
                f"({'; '.join(found)}); call fit(X) again"
            )
