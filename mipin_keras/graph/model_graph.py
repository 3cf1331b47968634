"""ModelGraph: a Keras model as steps in topological order."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras

from ..checks import check_graph, check_model
from . import activations, linear, separable


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One thing that the model does to its tensors.

    A layer with a built-in activation makes two steps: its linear part, and a
    ``keras.layers.Activation``. A shared layer makes one step per call.

    Attributes:
        index: Position in ``ModelGraph.steps``.
        name: Unique; the layer's name, with the path of nested models before
            it, ``#2`` for a second call, ``/relu`` for a built-in activation.
        layer: The Keras layer or operation.
        linear: Whether this is the layer without its built-in activation.
        inputs: Ids of the tensors it reads.
        output: Id of the tensor it makes.
        input_shapes, output_shape: Without the batch axis.
        built_in: Whether this is the activation that a layer has built in.
    """

    index: int
    name: str
    layer: Any
    linear: bool
    inputs: tuple[int, ...]
    output: int
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    arguments: tuple[tuple, dict]
    built_in: bool = False

    @property
    def constants(self) -> list[Any]:
        """What it is called with besides tensors, without None."""
        leaves = keras.tree.flatten(self.arguments)
        return [leaf for leaf in leaves if leaf is not None and not isinstance(leaf, TensorId)]

    @property
    def model_layer(self) -> Any:
        """The layer of the model that this step is of, where it is one of the two of a separable convolution too."""
        return getattr(self.layer, "separable_layer", self.layer)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input, without the batch axis."""
        return self.input_shapes[0]

    def __call__(self, tensors: Any) -> Any:
        """The step's output from ``tensors``, a mapping or list from tensor id to tensor."""
        if self.linear:
            return linear.before_activation(self.layer, tensors[self.inputs[0]])
        if linear.normalizes_plainly(self.layer):
            return linear.normalized(self.layer, tensors[self.inputs[0]])[0]
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensors[leaf.tensor_id] if isinstance(leaf, TensorId) else leaf, self.arguments
        )
        return self.layer(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.name!r} ({type(self.layer).__name__})"


@dataclasses.dataclass(frozen=True)
class TensorId:
    """Stands for a tensor in the recorded arguments of a call."""

    tensor_id: int


class ModelGraph:
    """The steps from a model's input to its logits.

    A final softmax or sigmoid, as an activation or as a layer, is left off;
    nested models are flattened; ``keras.ops`` calls are steps. The model is
    neither called nor changed; its own activation functions are called once.

    Args:
        model: A built Sequential or functional Keras 3 model with one input
            and one output, channels_last.
        output_layer: Name of a layer whose output is explained instead of the
            model's.

    Raises:
        TypeError: If ``model`` is no Keras 3 model.
        ValueError: For a model without a graph (subclassed or not built), with
            several inputs or outputs, with channels_first layers, with an
            output that is not ``(batch, units)``; for an unknown
            ``output_layer``.

    Attributes:
        steps: The steps needed for the output, in topological order.
        all_steps: The steps of the whole model, also those behind the output.
        input, output: Ids of the input's and the logits' tensor.
        shapes: Shape of each tensor without the batch axis, by id.
        ends: Id of the tensor that each layer makes, by the layer's name.
        stripped: Name of the step left off behind the logits, or None.
    """

    def __init__(self, model: keras.Model, output_layer: str | None = None):
        check_model(model)
        self.model = model
        self.input = 0
        self.stripped: str | None = None
        self.shapes: list[tuple[int, ...]] = [tuple(model.inputs[0].shape[1:])]
        self.all_steps: list[Step] = []
        self._names: set[str] = set()
        self.ends: dict[str, int] = {}
        self._parts: dict[int, list[tuple[str, Any]]] = {}
        last = self._read(model, [0], "")[0]
        if output_layer is not None:
            last = self.tensor_after(output_layer)
        self.output = self._strip_head(last)
        self.steps = self._needed(self.output)
        if len(self.shapes[self.output]) != 1:
            raise ValueError(
                f"expected an output of shape (batch, units) to explain, received (batch, "
                f"{', '.join(map(str, self.shapes[self.output]))}); name a layer with such an output as output_layer"
            )

    @property
    def neurons(self) -> int:
        """How many output neurons there are."""
        return self.shapes[self.output][0]

    def tensor_after(self, name: str) -> int:
        """The id of the tensor that the layer ``name`` makes, its activation included; of a shared one first.

        Raises:
            ValueError: If no layer of the model has this name.
        """
        matches = [n for full, n in self.ends.items() if full == name]
        matches = matches or [n for full, n in self.ends.items() if full.split("/")[-1] == name]
        if len(matches) != 1:
            problem = "an unknown" if not matches else "an ambiguous"
            raise ValueError(f"received {problem} layer name {name!r}; expected one of {sorted(self.ends)}")
        return matches[0]

    def consumers(self) -> dict[int, list[Step]]:
        """The steps that read each tensor."""
        readers: dict[int, list[Step]] = {}
        for step in self.steps:
            for tensor_id in set(step.inputs):
                readers.setdefault(tensor_id, []).append(step)
        return readers

    def between(self, start: int) -> list[Step]:
        """The steps that depend on tensor ``start``, in topological order.

        Raises:
            ValueError: If the output does not depend on it.
        """
        reached = {start}
        steps = []
        for step in self.steps:
            if reached.intersection(step.inputs) and step.output != start:
                reached.add(step.output)
                steps.append(step)
        if self.output not in reached or not steps:
            raise ValueError(
                "expected an input layer before the explained output, received one that is not; name another"
            )
        return steps

    # Reading the model

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
            name = self._unique(path + layer.name)
            if isinstance(layer, keras.Model):
                check_graph(layer, f"the nested model {layer.name!r}")
                ends = self._read(layer, [id_of(leaf) for leaf in leaves], name + "/")
                if len(ends) == 1:
                    self.ends[name] = ends[0]
            else:
                arguments = keras.tree.map_structure(
                    lambda leaf: TensorId(id_of(leaf)) if isinstance(leaf, keras.KerasTensor) else leaf,
                    (args, kwargs),
                )
                ends = [self._append(layer, name, [id_of(leaf) for leaf in leaves], arguments, made)]
                self.ends[name] = ends[0]
            stands_for = _StandIn([keras.KerasTensor(tensor.shape, tensor.dtype) for tensor in made])(*leaves)
            for tensor, tensor_id in zip(stands_for, ends, strict=True):
                ids[id(tensor)] = tensor_id
                alive.append(tensor)
            return keras.tree.pack_sequence_as(outputs, stands_for)

        plain = keras.Model(model.inputs, model.outputs)
        if not path:
            self.ends |= {layer.name: 0 for layer in plain.layers if isinstance(layer, keras.layers.InputLayer)}
        placeholders = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in plain.inputs]
        ids.update({id(t): n for t, n in zip(placeholders, inputs, strict=True)})
        clone = keras.models.clone_model(
            plain, input_tensors=placeholders, clone_function=lambda layer: layer, call_function=record
        )
        return [id_of(tensor) for tensor in clone.outputs]

    def _append(self, layer: Any, name: str, inputs: list[int], arguments: Any, made: list[Any]) -> int:
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
        if len(made) != 1:
            advice = "explain the part of the model behind it, or in front of it with output_layer="
            raise ValueError(f"expected layers with one output, received {name!r} with {len(made)}; {advice}")
        shape = tuple(made[0].shape[1:])
        if id(layer) not in self._parts:  # a shared layer has one set of them
            self._parts[id(layer)] = separable.linear_steps(layer)
        parts = self._parts[id(layer)]
        if not parts:
            return self._add(layer, name, False, inputs, shape, arguments)
        tensor_id = inputs[0]
        for part_name, part in parts:
            # The part of a separable convolution is never called as a layer: what it makes is asked of it.
            made_shape = shape if part is layer else part.compute_output_shape((None, *self.shapes[tensor_id]))[1:]
            full = self._unique(name + part_name) if part_name else name
            tensor_id = self._add(part, full, True, [tensor_id], tuple(made_shape), arguments)
        activation = getattr(layer, "activation", None)
        if activation is None or activation is keras.activations.linear:
            return tensor_id
        if not isinstance(activation, keras.layers.Layer):
            activation = keras.layers.Activation(activation, dtype=layer.dtype_policy)
        suffix = activations.step_suffix(activation)
        arguments = ((TensorId(tensor_id),), {})
        return self._add(
            activation, self._unique(f"{name}/{suffix}"), False, [tensor_id], shape, arguments, built_in=True
        )

    def _add(
        self, layer: Any, name: str, linear: bool, inputs: list[int], shape: Any, arguments: Any, built_in: bool = False
    ) -> int:
        self.shapes.append(shape)
        output = len(self.shapes) - 1
        shapes = tuple(self.shapes[i] for i in inputs)
        step = Step(len(self.all_steps), name, layer, linear, tuple(inputs), output, shapes, shape, arguments, built_in)
        self.all_steps.append(step)
        return output

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}#{count}"
        self._names.add(unique)
        return unique

    def _strip_head(self, last: int) -> int:
        made_by = {step.output: step for step in self.all_steps}
        while last in made_by and activations.activation_name(made_by[last].layer) in activations.HEADS:
            step = made_by[last]
            if activations.softmax_axis(step.layer) not in (-1, len(step.output_shape)):
                break
            self.stripped = step.name
            last = step.inputs[0]
        activations.warn_of_probabilities(made_by.get(last))
        return last

    def _needed(self, last: int) -> list[Step]:
        needed, steps = {last}, []
        for step in reversed(self.all_steps):
            if step.output in needed:
                needed.update(step.inputs)
                steps.append(step)
        if self.input not in needed:
            raise ValueError(
                "expected an output that depends on the model's input, received one that does not; name another "
                "output_layer"
            )
        return [dataclasses.replace(step, index=i) for i, step in enumerate(reversed(steps))]


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
