"""Reading a Keras model: from the nodes of its graph to numbered steps."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import keras
import tensorflow as tf

from ..checks import check_graph
from . import activations, masks, separable
from .steps import Step, TensorId


class Reader:
    """The steps of a model, as they are found one after the other.

    Args:
        model: A Sequential or functional model.

    Raises:
        ValueError: For a model without a graph, quantized or channels_first
            layers, and layers that read tensors from outside.

    Attributes:
        steps: All of the model's steps, in topological order.
        shapes, dtypes: Of each tensor, the shape without the batch axis.
        names: Of the steps, each once.
        ends: Id of the tensor that each layer makes, by the layer's name.
        inputs, outputs: Ids of the model's inputs and outputs, flattened.
    """

    def __init__(self, model: keras.Model):
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        self.dtypes: list[str] = [keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs]
        self.names: set[str] = set()
        self.ends: dict[str, int] = {}
        self.inputs = tuple(range(len(model.inputs)))
        self._masks: dict[int, int] = {}
        self._parts: dict[int, list[tuple[str, Any]]] = {}
        self.outputs = tuple(self._read(model, list(self.inputs), ""))

    def _read(self, model: keras.Model, inputs: list[int], path: str) -> list[int]:
        """Append the steps of ``model``, called on tensors ``inputs``; return its outputs' tensor ids.

        Keras runs its own graph through ``clone_model``; what is called there
        is a stand-in for each layer, so that the user's layers get no new
        nodes. A fresh Model around the same tensors keeps a compiled model's
        losses and optimizer out of it.
        """
        ids: dict[int, int] = {}
        alive: list[Any] = []  # an id() is only unique as long as its object lives

        def id_of(tensor: Any) -> int:
            return ids[id(tensor)]

        def record(layer: Any, *args: Any, **kwargs: Any) -> Any:
            leaves = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
            for leaf in leaves:
                if id(leaf) not in ids:  # the clone's own placeholders, in the order of the inputs
                    raise ValueError(
                        f"expected layers that read tensors of the model, received {layer.name!r}, which reads a "
                        "tensor that is not part of the model; make it an input"
                    )
            if "training" in kwargs or _trains(layer):  # what predict() makes of it, whatever it was built with
                kwargs["training"] = False
            outputs = layer.compute_output_spec(*args, **kwargs)
            made = keras.tree.flatten(outputs)
            name = self.unique(path + layer.name)
            if isinstance(layer, keras.Model):
                check_graph(layer, f"the nested model {layer.name!r}")
                ends: list[int | None] = [*self._read(layer, self._given(layer, args, kwargs, id_of), name + "/")]
                if len(ends) == 1 and ends[0] is not None:
                    self.ends[name] = ends[0]
            else:
                arguments = keras.tree.map_structure(
                    lambda leaf: TensorId(id_of(leaf)) if isinstance(leaf, keras.KerasTensor) else leaf,
                    (args, kwargs),
                )
                single = made[0] if isinstance(outputs, keras.KerasTensor) else None
                ends = self._append(layer, name, leaves, [id_of(leaf) for leaf in leaves], arguments, made, single)
                if ends[0] is not None:
                    self.ends[name] = ends[0]
            tensors = [t for t in made if isinstance(t, keras.KerasTensor)]
            stands_for = iter(_StandIn([keras.KerasTensor(t.shape, t.dtype) for t in tensors])(*leaves))
            flat = [next(stands_for) if isinstance(t, keras.KerasTensor) else t for t in made]
            for tensor, tensor_id in zip(flat, ends, strict=True):
                if tensor_id is not None:
                    ids[id(tensor)] = tensor_id
                    alive.append(tensor)
            return keras.tree.pack_sequence_as(outputs, flat)

        plain = keras.Model(model.inputs, model.outputs)
        if not path:
            layers = [layer for layer in plain.layers if isinstance(layer, keras.layers.InputLayer)]
            for tensor_id, tensor in zip(inputs, model.inputs, strict=True):
                name = next((layer.name for layer in layers if layer.output is tensor), tensor.name)
                self.ends[name] = tensor_id
        placeholders = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in plain.inputs]
        ids.update({id(t): n for t, n in zip(placeholders, inputs, strict=True)})
        clone = keras.models.clone_model(
            plain, input_tensors=placeholders, clone_function=lambda layer: layer, call_function=record
        )
        return [id_of(tensor) for tensor in clone.outputs]

    def _given(self, model: keras.Model, args: tuple, kwargs: dict, id_of: Any) -> list[int]:
        """The ids of the tensors that a nested model is called on, in the order of its own inputs."""
        given = args[0] if args else kwargs["inputs"]
        if (mask := kwargs.get("mask")) is not None:
            self._masks |= {
                id_of(tensor): id_of(one)
                for tensor, one in zip(keras.tree.flatten(given), keras.tree.flatten(mask), strict=True)
                if one is not None
            }
        built_from_dict = isinstance(structure_of(model, "input"), dict)
        if isinstance(given, dict) and not built_from_dict and _goes_by_names():
            # Everywhere else a dict is flattened in the order of its keys.
            given = [given[tensor.name] for tensor in model.inputs]
        found = keras.tree.flatten(given)
        for tensor, wanted in zip(found, model.inputs, strict=True):
            if len(tensor.shape) != len(wanted.shape):
                raise ValueError(
                    f"expected the nested model {model.name!r} to be called on tensors of the rank of its inputs, "
                    f"received {tuple(tensor.shape)} for {wanted.name!r} of {tuple(wanted.shape)}; reshape the tensor "
                    "before the call"
                )
        return [id_of(tensor) for tensor in found]

    def _append(
        self,
        layer: Any,
        name: str,
        leaves: list[keras.KerasTensor],
        inputs: list[int],
        arguments: Any,
        made: list[Any],
        single: keras.KerasTensor | None,
    ) -> list[int | None]:
        """Append the steps of a layer; the id of each output, None for what is no tensor."""
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"expected channels_last, received layer {name!r} ({type(layer).__name__}) with data_format="
                "'channels_first'; rebuild the model with data_format='channels_last' and move its weights over"
            )
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                f"expected a model as it was trained, received layer {name!r} quantized to "
                f"{layer.quantization_mode!r}; explain the model before quantize()"
            )
        if type(layer) is keras.layers.TimeDistributed and isinstance(layer.layer, keras.layers.Dense):
            layer = layer.layer  # which does the same to each step by itself
        if id(layer) not in self._parts:  # a shared layer has one set of them
            self._parts[id(layer)] = separable.linear_steps(layer)
        parts = self._parts[id(layer)]
        masked = {n: self._masks[n] for n in inputs if n in self._masks}
        if single is not None and parts:
            ends: list[int | None] = [self._append_linear(layer, name, inputs[0], single, parts)]
        else:
            ends = []
            for i, tensor in enumerate(made):
                if not isinstance(tensor, keras.KerasTensor):
                    ends.append(None)
                    continue
                full = name if i == 0 else self.unique(f"{name}:{i}")
                part = None if single is not None else i
                ends.append(self.add(layer, full, False, inputs, tensor, arguments, part=part, masks=masked))
                if i:
                    self.ends[full] = ends[-1]  # type: ignore[assignment]
        if masked or masks.may_make_mask(layer):
            self._append_masks(layer, name, dict(zip(inputs, leaves, strict=True)), arguments, masked, ends)
        return ends

    def _append_masks(
        self, layer: Any, name: str, tensors: dict[int, Any], arguments: Any, masked: dict[int, int], ends: list
    ) -> None:
        """Find the masks of a layer's outputs, and append the steps of those that it makes."""
        known: dict[int, Any] = {n: (mask, self.shapes[mask]) for n, mask in masked.items()}
        found = masks.found(
            layer, arguments, tensors, known, lambda leaf: leaf.tensor_id if isinstance(leaf, TensorId) else None
        )
        for part, (tensor_id, mask) in enumerate(zip(ends, found, strict=False)):
            if mask is None or tensor_id is None:
                continue
            if mask.passed is not None:
                self._masks[tensor_id] = masked[mask.passed]
                continue
            spec = keras.KerasTensor((None, *(mask.shape or ())), "bool")
            full = self.unique(f"{name}/mask")
            call = masks.MaskOf(layer, part)
            self._masks[tensor_id] = self.add(call, full, False, [*tensors], spec, arguments, masks=masked)

    def _append_linear(
        self, layer: Any, name: str, tensor_id: int, made: keras.KerasTensor, parts: list[tuple[str, Any]]
    ) -> int:
        """Append a layer's linear steps and its activation."""
        for part_name, part in parts:
            # The part of a separable convolution is never called as a layer: what it makes is asked of it.
            shape = tuple(made.shape[1:])
            if part is not layer:
                shape = tuple(part.compute_output_shape((None, *self.shapes[tensor_id]))[1:])
            full = self.unique(name + part_name) if part_name else name
            arguments: Any = ((TensorId(tensor_id),), {})
            spec = keras.KerasTensor((None, *shape), made.dtype)
            tensor_id = self.add(part, full, True, [tensor_id], spec, arguments)
        activation = getattr(layer, "activation", None)
        if activation is None or activation is keras.activations.linear:
            return tensor_id
        if not isinstance(activation, keras.layers.Layer):
            activation = keras.layers.Activation(activation, dtype=layer.dtype_policy)
        suffix = activations.step_suffix(activation)
        arguments = ((TensorId(tensor_id),), {})
        full = self.unique(f"{name}/{suffix}")
        return self.add(activation, full, False, [tensor_id], made, arguments, built_in=True)

    def add(
        self, layer: Any, name: str, linear: bool, inputs: list[int], made: keras.KerasTensor, arguments: Any,
        *, built_in: bool = False, part: int | None = None, masks: dict[int, int] | None = None,
    ) -> int:  # fmt: skip
        """Append a step; the id of the tensor that it makes."""
        shape = tuple(made.shape[1:])
        self.shapes.append(shape)
        self.dtypes.append(keras.backend.standardize_dtype(made.dtype))
        output, floating = len(self.shapes) - 1, frozenset(n for n in inputs if "float" in self.dtypes[n])
        self.steps.append(
            Step(
                len(self.steps), name, layer, linear, tuple(inputs), output, tuple(self.shapes[i] for i in inputs),
                shape, arguments, built_in, part, masks or {}, floating,
            )
        )  # fmt: skip
        return output

    def unique(self, name: str) -> str:
        """``name``, with a count behind it if it is taken."""
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}#{count}"
        self.names.add(unique)
        return unique


@functools.cache
def _goes_by_names() -> bool:
    """Whether Keras gives a model that was built from a list the tensors of a dict by the names of its inputs.

    Keras 3.5 takes them in the order of the dict's keys. That is what such a model computes there, so it is what the
    steps compute; no version number says which it is, so a model of one layer does.
    """
    second, first = (keras.Input((1,), name=name, dtype="float32") for name in ("b", "a"))
    probe = keras.Model([second, first], keras.layers.Identity(name="probe")(second), name="probe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer ones: the structure is not that of the inputs
        return float(probe({"a": tf.zeros((1, 1)), "b": tf.ones((1, 1))})[0, 0]) == 1


def structure_of(model: Any, which: str) -> Any:
    """The structure of a model's inputs or outputs as it was built: a Keras tensor, or a list or dict of them.

    Args:
        model: The model.
        which: ``"input"`` or ``"output"``.

    Returns:
        None for a Sequential model that was never called, which has one of each.
    """
    try:
        return getattr(model, which)
    except (AttributeError, ValueError):  # the one or the other, by the version of Keras
        return None


class _StandIn(keras.Operation):
    """Called instead of a layer while Keras runs a model's graph; makes tensors of given specs."""

    def __init__(self, specs: list[keras.KerasTensor]):
        super().__init__()
        self._specs = specs

    def call(self, *args: Any) -> Any:
        raise NotImplementedError("a stand-in is only called on symbolic tensors")

    def compute_output_spec(self, *args: Any) -> list[keras.KerasTensor]:
        return self._specs


def _trains(layer: Any) -> bool:
    """Whether it takes a call outside of a model for training, as random augmentations do."""
    parameter = inspect.signature(layer.call).parameters.get("training")
    return parameter is not None and parameter.default is True
