"""The analyzers "mi.total", "mi.decision" and "mi.redundant": what a representation knows of each part of its input."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from ..checks import integer, number, one_of
from ..saving.identity import ModelIdentity
from .critic import CRITICS
from .explanation import Explanation
from .fitting import gathered, train
from .labels import checked
from .parts import Cut
from .store import Store

UNITS = ("nats", "bits")


class Information(Explanation):
    """How much a representation knows of each local part of its input (Gu 2021).

    A map says, at each location of a feature map, how many nats the
    *representation* shares with the vector there; it explains what the network
    knows of the image, not why it decided. Of this information a part is what
    the decision needs, and the rest is redundant.

    A fit trains two small networks beside the frozen one: a mask module that
    leaves of the feature map what the decision needs, and a critic whose
    scores are the information. ``decompose`` gives all three parts of one fit.

    Args:
        model, output_layer, output: See :class:`mipin_keras.Analyzer`. The
            decision is that of this output.
        layer: Name of the layer whose output, ``(batch, *spatial, channels)``
            or ``(batch, tokens, channels)``, has the local parts: its vectors.
            None for the last feature map that the representation is made of.
        representation: Name of the layer whose output is Z; None for what the
            last layer with weights reads. One with spatial axes is taken as
            its mean over them.
        critic: ``"separable"``, or the author's ``"concatenated"``, which
            takes many times as long; see
            :class:`mipin_keras.information.Critic`.
        epochs: Passes of each of the two trainings.
        learning_rate: Of Adam.
        mask_weight: Of the mean of λ beside the cross-entropy: the larger, the
            less of the feature map is left.
        validation_split: The share of the inputs that is held out.
        unit: ``"nats"`` or ``"bits"``.
        resize: Whether a map is resized to the input, linearly; then each
            channel of the input has the same map. If not, it is of the
            feature map's size ``(n, *spatial)``.
        seed: Of all draws.
        verbose: 0 silent, 1 bars, 2 a line an epoch.

    Raises:
        ValueError: For a value that an option does not take; for a layer or a
            representation that is unknown or unfit
            (:class:`mipin_keras.information.parts.Cut`); for ``resize`` where
            the input has other axes than the feature map.

    Attributes:
        fit_report: After a fit, an :class:`InformationReport`.
    """

    name = "mi"
    _fixed = frozenset({"neuron_selection_mode", "target"})
    _loose: ClassVar[frozenset[str]] = frozenset({"unit", "resize", "verbose"})

    def __init__(
        self,
        model: keras.Model,
        *,
        output_layer: str | None = None,
        output: str | int | None = None,
        layer: str | None = None,
        representation: str | None = None,
        critic: str = "separable",
        epochs: int = 20,
        learning_rate: float = 1e-3,
        mask_weight: float = 0.5,
        validation_split: float = 0.2,
        unit: str = "nats",
        resize: bool = True,
        seed: int = 0,
        verbose: int = 1,
    ):
        super().__init__(model, output_layer=output_layer, output=output)
        self.options.pop("neuron_selection_mode")
        self.options |= {
            "layer": layer,
            "representation": representation,
            "critic": one_of("critic", critic, CRITICS),
            "epochs": integer("epochs", epochs, 1),
            "learning_rate": number("learning_rate", learning_rate, 0, above=True),
            "mask_weight": number("mask_weight", mask_weight, 0),
            "validation_split": number("validation_split", validation_split, 0, above=True),
            "unit": one_of("unit", unit, UNITS),
            "resize": one_of("resize", resize, (True, False)),
            "seed": integer("seed", seed, 0),
            "verbose": one_of("verbose", verbose, (0, 1, 2)),
        }
        self.cut = Cut(self.graph, layer, representation)
        image = self._image
        if resize and (len(image) != len(self.cut.shape) or None in image):
            raise ValueError(
                f"expected an input of a fixed size with the axes of the feature map to resize to, received "
                f"{image} and {self.cut.shape}; give resize=False for maps of the feature map's size"
            )

    @property
    def _by_sign(self) -> bool:
        return self.graph.taken_by_sign or self.graph.neurons == 1

    # Fitting

    def fit(
        self,
        X: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        steps: int | None = None,
        memory: float = 4.0,
        callbacks: Iterable[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        verbose: int | None = None,
    ) -> Self:
        """Train the mask module and the critic, the network as it is.

        The network runs once over the inputs; then both trainings are Keras'
        own, on the feature maps, one after the other. The author's code trains
        both at once: as neither gives the other a gradient this changes
        nothing of the mask, and the critic learns of the mask as it ends.

        Interrupted, it leaves the analyzer as it was.

        Args:
            X: As for :meth:`mipin_keras.Analyzer.fit`.
            y: The labels of the data, which the masked network is to give:
                classes ``(n,)``, also one-hot ``(n, classes)``; for a model
                with one output neuron or a final sigmoid 0 or 1, ``(n,)`` or
                ``(n, neurons)``. None for the model's own decisions. An int
                here is the ``batch_size``, as in iNNvestigate.
            batch_size: Inputs a batch, whose other inputs' parts are the
                negatives: 2 at least, in the scope of a ``tf.distribute``
                strategy 2 for each replica.
            steps: Batches of the pass over ``X``.
            memory: GiB that the feature maps may take; what comes behind goes
                to temporary files.
            callbacks: Keras', for each of the two trainings. The mask's logs
                are ``loss``, ``accuracy`` and ``coverage``, the critic's
                ``loss``, ``total`` and ``decision``, each with ``val_`` too.
            verbose: Instead of the analyzer's.

        Returns:
            The analyzer.

        Raises:
            TypeError, ValueError: See :class:`mipin_keras.data.batches.Batches`;
                ValueError also for labels of another length or shape, fewer
                inputs than a batch, a batch of one, and features that are not
                finite.
            NotFittedError: If the model's weights change meanwhile.
        """
        verbose = one_of("verbose", self.options["verbose"] if verbose is None else verbose, (0, 1, 2))
        given = None if y is None or isinstance(y, int | np.integer) and not isinstance(y, bool) else y
        if given is None and y is not None:
            batch_size = int(y)
        batch_size = integer("batch_size", batch_size, 2)
        batches = self.batches(X, given, batch_size, steps)
        budget = number("memory", memory, 0) * (1 << 30)
        listed = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
        self._refresh()
        identity = ModelIdentity(self.graph)
        if verbose:
            print(f"{self.name}: the feature maps", flush=True)
        with Store(budget) as store:
            data, logits = gathered(batches, self._parts_of, store, verbose)
            labels = checked(given, logits, self._by_sign)
            found = train(
                self.cut, data, labels, logits, self.options, name=self.name, by_sign=self._by_sign,
                given=given is not None, batch_size=batch_size, callbacks=listed, verbose=verbose,
            )  # fmt: skip
        identity.check_after_fit()
        self.identity = identity
        self._take(found)
        return self

    @functools.cached_property
    def _parts_of(self) -> Callable:
        @tf.function(input_signature=self._input_specs, autograph=False)
        def parts(*x: tf.Tensor) -> Any:
            return tuple(self.cut.parts(x))

        return parts.get_concrete_function()

    def as_part(self, name: str) -> Information:
        """This analyzer, with its fit, as the one of another name.

        Args:
            name: ``"mi.total"``, ``"mi.decision"`` or ``"mi.redundant"``.

        Raises:
            ValueError: For another name.
        """
        known = {kind.name: kind for kind in Information.__subclasses__()}
        other = copy.copy(self)
        other.__class__ = known[one_of("name", name, tuple(known))]
        return other
