"""The part of MIPIN behind its fit: attributions and source signals, of classes and at layers, and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ..analyzer import MEMORY, Analyzer
from ..checks import NotFittedError, index, not_fitted, one_of
from ..saving import fingerprint, probe
from ..saving.identity import ModelIdentity
from .inverse_model import GIVEN, STRUCTURAL, InverseModel, masked_tensors
from .network import ForwardPass, InverseNetwork

Found = dict[int, tf.Tensor]


class Explanation(Analyzer):
    """The part of :class:`mipin_keras.mipin.MIPIN` behind its fit.

    Attributes:
        network: The inverse network, with the weights of each fitted class.
        fit_report: See :class:`mipin_keras.mipin.MIPIN`.
    """

    _held_at_once = 0.3
    network: InverseNetwork
    fit_report: list[dict[str, Any]]

    @property
    def fitted(self) -> bool:
        """Whether at least one class is fitted."""
        return bool(self.network.weights)

    def source_signal(
        self,
        X: Any,
        neuron_selection: Any = None,
        *,
        batch_size: int | None = None,
        memory: float = MEMORY,
        reduce: str | None = None,
    ) -> np.ndarray:
        """What of ``X`` the explained logit still knows: S = g(Y_c), masked (section 3.2).

        Args, Returns, Raises: As :meth:`analyze`; of several neurons at once, the mean of their source signals.
        """
        most = self._batch_size(X, batch_size, memory)
        return self._maps(self._source_signal, X, neuron_selection, most, reduce)

    def _analyze(self, x: Any, neuron_selection: Any) -> Any:
        forward_pass, shares = self._forward_pass(x, neuron_selection)
        return self._at_starts(self._attributions(forward_pass, shares, ()), len(shares))

    def _source_signal(self, x: Any, neuron_selection: Any) -> Any:
        forward_pass, shares = self._forward_pass(x, neuron_selection)
        return self._at_starts(self._sources(forward_pass, shares, ()), len(shares))

    def _at_starts(self, found: dict[int, np.ndarray], n: int) -> Any:
        """What arrived where the explanation ends: an array, of several inputs a tuple; zeros where nothing did."""
        shapes = self.graph.shapes
        parts = tuple(found[s] if s in found else np.zeros((n, *shapes[s]), np.float32) for s in self.starts)
        return parts[0] if len(parts) == 1 else parts

    def _analyze_layers(
        self, x: Any, neuron_selection: Any, tensor_ids: dict[str, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        keep = set(tensor_ids.values())
        masks = masked_tensors(self.graph, self.options, keep)
        forward_pass, shares = self._forward_pass(x, neuron_selection, masks)
        attributions, sources = (
            self._attributions(forward_pass, shares, keep),
            self._sources(forward_pass, shares, keep),
        )
        return {name: (attributions[n], sources[n]) for name, n in tensor_ids.items()}

    def _tensor_ids(self, layers: Any) -> dict[str, int]:
        known = super()._tensor_ids(layers)
        carried = {*self.starts, *(node.output for node in self.network.nodes)}
        off = [name for name, n in known.items() if n not in carried]
        if off and layers is not None:
            raise ValueError(
                f"expected layers that MIP-IN's signal comes by, received {off}, which only make the gate of a "
                "multiplication; name the layer that is gated"
            )
        return {name: n for name, n in known.items() if n in carried}

    def _attributions(
        self, forward_pass: ForwardPass, shares: np.ndarray, keep: Iterable[int]
    ) -> dict[int, np.ndarray]:
        return self._gather(forward_pass, shares, lambda part, c, share: self.network.attribution(part, c, share, keep))

    def _sources(self, forward_pass: ForwardPass, shares: np.ndarray, keep: Iterable[int]) -> dict[int, np.ndarray]:
        """The mean over the classes that are explained, by their shares."""

        def explain(part: ForwardPass, c: int, share: np.ndarray) -> Found:
            found = self.network.source(part, c, keep)
            if (share == 1).all():
                return found
            return {n: signal * share.reshape(-1, *[1] * (len(signal.shape) - 1)) for n, signal in found.items()}

        return self._gather(forward_pass, shares / shares.sum(axis=1, keepdims=True), explain)

    def _forward_pass(
        self, x: Any, neuron_selection: Any, masks: Iterable[int] | None = None
    ) -> tuple[ForwardPass, np.ndarray]:
        self._need_fit()
        identity = self.identity
        forward_pass = self.network.forward(x, masks=masks, weights=None if identity is None else identity.weights)
        if identity is not None:
            identity.check(forward_pass.weights)
        shares = self.select(forward_pass.logits.numpy(), neuron_selection)
        missing = sorted(set(np.flatnonzero(shares.any(axis=0)).tolist()) - set(self.network.weights))
        if missing:
            raise self._class_not_fitted(missing)
        return forward_pass, shares

    def _class_not_fitted(self, missing: list[int]) -> NotFittedError:
        return NotFittedError(
            f"expected classes that are fitted, {sorted(self.network.weights)}, received classes {missing}, which "
            "were not fitted; fit(X, classes=...) adds them, or select a fitted one with "
            "neuron_selection_mode='index'"
        )

    def _gather(
        self, forward_pass: ForwardPass, shares: np.ndarray, explain: Callable[..., Found]
    ) -> dict[int, np.ndarray]:
        """The sums over classes of ``explain(samples, class, shares)``, each on the samples it concerns."""
        neurons = np.flatnonzero(shares.any(axis=0)).tolist()
        if len(neurons) == 1:
            return {n: found.numpy() for n, found in explain(forward_pass, neurons[0], shares[:, neurons[0]]).items()}
        totals: dict[int, np.ndarray] = {}
        for c in neurons:
            chosen = np.flatnonzero(shares[:, c])
            for n, found in explain(forward_pass.rows(chosen), c, shares[chosen, c]).items():
                if n not in totals:
                    totals[n] = np.zeros((len(shares), *self.graph.shapes[n]), np.float32)
                totals[n][chosen] += found.numpy()
        return totals

    def _need_fit(self) -> None:
        if not self.fitted:
            raise not_fitted(self.name)

    def completeness_residual(
        self, X: Any, maps: list[np.ndarray], neuron_selection: Any = None
    ) -> tuple[float, float | None, str] | None:
        """The APC (Eq. 10), where the explanation goes down to the input: how far the source signal keeps the logit."""
        if self.starts != self.graph.inputs:
            return None
        shares = self.select(self.logits(X), neuron_selection)
        sources = self.source_signal(X, neuron_selection)
        here, there = ((self.logits(given) * shares).sum(axis=1) for given in (X, sources))
        apc = float(np.mean(np.abs(here - there) / np.maximum(np.abs(here), 1e-30)))
        return apc, None, "APC (Eq. 10): the mean of |logit of x - logit of its source signal| / |logit of x|"

    # The inverse as a Keras model

    def inverse_model(self, unit: int, outputs: str | None = None) -> InverseModel:
        """The inverse of one class as a Keras model, which shows, saves and trains as any other.

        ``inverse_model(unit)(x)`` is ``source_signal(x)`` of this class, to
        rounding. Its layers are the explained model as one, not trainable,
        and one for each step that is inverted, named after it, such as
        ``"conv_inverse"``. Its weights are copies of the analyzer's; those
        of the explained model are the model's own. It is loaded again by
        ``keras.models.load_model`` where ``mipin_keras`` is imported, and the
        module that registers inverses of your own.

        Args:
            unit: A fitted class.
            outputs: None for the source signal where the explanation ends; ``"all"`` for a dict of those
                at every layer on the way, by the names that :meth:`analyze_layers` gives.

        Raises:
            NotFittedError: Before a fit, for a class that was not fitted, and
                if the model has changed since.
            ValueError: If there is no such class; for other ``outputs``.
        """
        unit = self._fitted_unit(unit)
        outputs = one_of("outputs", outputs, (None, "all"))
        model = InverseModel(self.graph.model, unit, self.options, outputs, target=self.target)
        model.set_inverse_weights(self.network.weights[unit])
        return model

    def set_inverse(self, unit: int, model: InverseModel) -> None:
        """Take over the inverse of a class from a model of :meth:`inverse_model`, such as after training it.

        The errors of that class in ``fit_report`` become NaN where the weights
        are not those of the fit: they were not measured.
        :meth:`MIPIN.reconstruction_errors` measures them.

        Args:
            unit: The class, which must be fitted.
            model: From :meth:`inverse_model` of the same class, of this
                analyzer or one of the same model and options; or loaded.

        Raises:
            NotFittedError: As :meth:`inverse_model`.
            TypeError: If ``model`` is no inverse model.
            ValueError: If it is of another class, other options or another
                model, or its weights are not finite or were given other
                shapes. Nothing has changed then.
        """
        unit = self._fitted_unit(unit)
        if not isinstance(model, InverseModel):
            raise TypeError(
                f"expected an inverse model, received {type(model).__module__}.{type(model).__name__}; give one that "
                "inverse_model(unit) made"
            )
        if differing := self._differing(unit, model):
            raise ValueError(
                f"expected an inverse model of class {unit} of this analyzer, received another "
                f"({'; '.join(differing)}); give one that inverse_model({unit}) of this analyzer made"
            )
        found = model.inverse_weights()
        shapes = {node.index: tuple(self.network.regression(node).weight_shapes) for node in self.network.learned}
        odd = [node.name for node in self.network.learned
               if tuple(w.shape for w in found[node.index]) != shapes[node.index]]  # fmt: skip
        if odd:
            raise ValueError(
                f"expected the layers of an inverse model as inverse_model({unit}) makes them, received other weights "
                f"in those of {odd}; train them without changing what they are made of"
            )
        odd = [node.name for node in self.network.learned if not all(np.isfinite(w).all() for w in found[node.index])]
        if odd:
            raise ValueError(
                f"expected finite weights, received NaN or infinity in the inverses of {odd}; train anew with a "
                "smaller learning rate"
            )
        old = self.network.weights[unit]
        changed = any(
            not np.array_equal(w, kept) for index, ws in found.items() for w, kept in zip(ws, old[index], strict=True)
        )
        self.network.weights = self.network.weights | {
            unit: {index: tuple(tf.constant(w, tf.float32) for w in ws) for index, ws in found.items()}
        }
        if changed:
            unknown = {"mse", "relative", "end_mse"}
            self.fit_report = [
                line | dict.fromkeys(unknown & line.keys(), math.nan) if line["class"] == unit else line
                for line in self.fit_report
            ]

    def _fitted_unit(self, unit: int) -> int:
        self._need_fit()
        unit = index("unit", unit, self.graph.neurons)
        if self.identity is not None:
            self.identity.check_structure()
        if unit not in self.network.weights:
            raise self._class_not_fitted([unit])
        return unit

    def _differing(self, unit: int, model: InverseModel) -> list[str]:
        """What differs between an inverse model of this analyzer and the one given, in words."""
        given = model.structural_options
        clauses = [f"it is of class {model.unit}"] if model.unit != unit else []
        clauses += [
            f"it has {key}={given.get(key)!r}, the analyzer {self.options.get(key)!r}"
            for key in (*STRUCTURAL, *GIVEN)
            if given.get(key) != self.options.get(key)
        ]
        if self.identity is not None and model.network.graph.model is not self.graph.model:
            other = ModelIdentity(model.network.graph)
            found = fingerprint.differences(self.identity.fingerprint, other.fingerprint)
            if not found and not probe.agree(self.identity.probe, other.probe):
                found = ["it computes something else on the same input"]
            clauses += [f"of the explained model: {clause}" for clause in found]
        return clauses

    # Files

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self._need_fit()
        arrays = {
            f"{c}/{index}/{i}": w.numpy()
            for c, weights in self.network.weights.items()
            for index, ws in weights.items()
            for i, w in enumerate(ws)
        }
        about = {"fitted": sorted(self.network.weights), "fit_report": self.fit_report, "channels": 1}
        return arrays, about

    def _shapes(self, about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        fitted = about["fitted"]
        if not fitted or sorted(set(fitted)) != fitted or not set(fitted) <= set(range(self.graph.neurons)):
            raise ValueError(
                f"expected classes from 0 to {self.graph.neurons - 1}, received {str(fitted)[:100]}; fit again"
            )
        wide = _reads_all_channels(about)
        return {
            f"{c}/{node.index}/{i}": shape
            for c in fitted
            for node in self.network.learned
            for i, shape in enumerate(self.network.head.stored_shapes(node, wide))
        }

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        report = self._renamed(about["fit_report"], about["fitted"])
        weights: dict[int, dict[int, Any]] = {}
        for c in about["fitted"]:
            for node in self.network.learned:
                shapes = self.network.regression(node).weight_shapes
                found = tuple(arrays[f"{c}/{node.index}/{i}"] for i in range(len(shapes)))
                own = self.network.head.of_channel(node, found, c, _reads_all_channels(about))
                weights.setdefault(c, {})[node.index] = tuple(tf.constant(w, tf.float32) for w in own)
        self.network.weights, self.fit_report = weights, report

    def _renamed(self, report: list[dict[str, Any]], fitted: list[int]) -> list[dict[str, Any]]:
        """A file's fit report with the layers' names of the model here: Keras may have named a rebuilt model's anew."""
        names = dict.fromkeys(line["layer"] for line in report)  # from the logit down, as the learned nodes are
        here = [node.name for node in self.network.learned]
        if report and (len(names) != len(here) or any(line["class"] not in fitted for line in report)):
            raise ValueError(
                f"expected a fit report of {len(here)} layers and the classes {fitted}, received one of layers "
                f"{list(names)[:5]}; fit again"
            )
        renamed = dict(zip(names, here, strict=False))
        return [line | {"layer": renamed[line["layer"]]} for line in report]


def _reads_all_channels(about: dict[str, Any]) -> bool:
    """Whether a file is of a version that read all channels where a head reads one now."""
    if about.get("channels", 1) != 1:
        raise ValueError(f"expected a fit that reads one channel, received one of {about['channels']!r}; fit again")
    return "channels" not in about
