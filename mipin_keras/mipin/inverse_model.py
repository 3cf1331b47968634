"""InverseModel: the inverse of one class as a Keras model, from the model's input to the source signal."""

from __future__ import annotations

from typing import Any, Self

import keras

from .. import targets
from ..graph.model_graph import ModelGraph
from .keras_walk import Arrays, FrozenModel, Walk, safe
from .network import InverseNetwork

#: The options of MIPIN that its inverse network depends on.
STRUCTURAL = ("output_layer", "input_layer", "forward_relu", "mask_input", "merge")
#: And those that it depends on where they are given.
GIVEN = ("output", "target")


def starts_of(graph: ModelGraph, options: dict[str, Any]) -> tuple[int, ...]:
    """Ids of the tensors that the explanation goes down to, of those that the output depends on."""
    return graph.reached(graph.starts(options["input_layer"]))


def network_of(graph: ModelGraph, options: dict[str, Any]) -> InverseNetwork:
    """The inverse network of a model, without weights.

    Args:
        graph: The model's steps.
        options: Of MIPIN, those in ``STRUCTURAL``.

    Raises:
        ValueError: See :class:`mipin_keras.mipin.network.InverseNetwork`.
    """
    masks = options["mask_input"]
    if masks is None:
        masks = options["forward_relu"] and options["input_layer"] is not None
    return InverseNetwork(
        graph,
        starts_of(graph, options),
        forward_relu=options["forward_relu"],
        mask_input=masks,
        merge=options["merge"],
    )


def masked_tensors(graph: ModelGraph, options: dict[str, Any], tensor_ids: set[int]) -> set[int]:
    """At which of these tensors an analyzer that ended there would mask."""
    if options["mask_input"] is not None:
        return tensor_ids if options["mask_input"] else set()
    return {n for n in tensor_ids if n not in graph.inputs} if options["forward_relu"] else set()


@keras.saving.register_keras_serializable(package="mipin_keras")
class InverseModel(FrozenModel):
    """The inverse of a model for one class: from the model's input to the class' source signal.

    ``MIPIN.inverse_model`` makes it. It holds the explained model as one
    layer, ``"explained"``, and a Keras layer for each step that is inverted,
    named after it. Only the inverses are trainable.

    Input shape: That of the explained model.

    Output shape: That of its input, or of ``input_layer``'s output; float32.
    For several inputs a list of one for each that the output depends on.
    With ``outputs="all"`` a dict of them by the layers' names.

    Args:
        explained: The model, as :class:`mipin_keras.mipin.MIPIN` takes it.
        unit: The class; 0 with a target.
        options: The options of MIPIN named in ``STRUCTURAL``, and its
            ``output`` and ``target`` where they are given.
        outputs: None, or ``"all"``.
        name: Of the model; None for one made of the explained model's.
        target: The function of the user's where ``options`` has one.
    """

    def __init__(
        self,
        explained: keras.Model,
        unit: int,
        options: dict[str, Any],
        outputs: str | None = None,
        name: str | None = None,
        target: Any = None,
    ):
        options = {key: options[key] for key in STRUCTURAL} | {key: options[key] for key in GIVEN if key in options}
        target = targets.as_target(options.get("target") if target is None else target)
        graph = ModelGraph(explained, options["output_layer"], output=options.get("output"), target=target)
        network = network_of(graph, options)
        ends = ends_on_the_way(network) if outputs == "all" else {}
        # Where the explanation ends is masked as the analyzer masks there; "all" as analyze_layers masks.
        masks = set(network.starts) if network.mask_input else set()
        if outputs == "all":
            masks = masked_tensors(graph, options, set(ends.values()))
        built = Walk(network, unit, masks, set(ends.values()))
        signals = [built.signals[start] for start in network.starts]
        found: Any = signals[0] if len(signals) == 1 else signals
        if outputs is not None:
            found = {n: built.signals[i] for n, i in ends.items()}
        super().__init__(built.input, found, name=name or f"{safe(explained.name)}_inverse_{unit}")
        self.unit = unit
        self.network = network
        self._options, self._outputs_option, self._walk = options, outputs, built

    @property
    def structural_options(self) -> dict[str, Any]:
        """The options that it was made with."""
        return dict(self._options)

    def inverse_weights(self) -> Arrays:
        """The weights of the learned nodes, by the node's index."""
        return self._walk.weights()

    def set_inverse_weights(self, weights: dict[int, Any]) -> None:
        """Set the weights of the learned nodes, by the node's index."""
        self._walk.assign(weights)

    # Files

    def get_config(self) -> dict[str, Any]:
        if self._options.get("target") == targets.FUNCTION:
            raise ValueError(
                "expected an inverse model that a file can hold, received one of a target that is a function of your "
                "own; save the analyzer, and make the model from the loaded one"
            )
        explained = keras.saving.serialize_keras_object(self.network.graph.model)
        explained.pop("compile_config", None)  # its loss and optimizer are no part of the inverse
        return {
            "explained": explained,
            "unit": self.unit,
            "options": self.structural_options,
            "outputs": self._outputs_option,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        explained = keras.saving.deserialize_keras_object(config["explained"], custom_objects=custom_objects)
        return cls(explained, config["unit"], config["options"], config["outputs"], config["name"])


def ends_on_the_way(network: InverseNetwork) -> dict[str, int]:
    """The id of the tensor that each layer makes, of those on the way that get a signal, as ``analyze_layers`` has."""
    graph = network.graph
    way = {*network.starts, *(step.output for step in graph.between(*network.starts))} - {graph.output}
    carried = way & {*network.starts, *(node.output for node in network.nodes)}
    return {name: n for name, n in sorted(graph.ends.items(), key=lambda end: end[1]) if n in carried}
