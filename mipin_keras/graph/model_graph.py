"""ModelGraph: a Keras model as steps in topological order."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import keras

from ..checks import check_model, is_integer, one_of
from . import activations, explained
from .reading import Reader, structure_of
from .steps import Step, TensorId

__all__ = ["ModelGraph", "Step", "TensorId"]

# Layers that take their input for whole numbers, whatever its dtype.
_LOOKUPS = (
    keras.layers.Embedding, keras.layers.CategoryEncoding, keras.layers.Discretization, keras.layers.Hashing,
    keras.layers.IntegerLookup, keras.layers.HashedCrossing,
)  # fmt: skip


class ModelGraph:
    """The steps from a model's inputs to what is explained, its logits or a target.

    A final softmax or sigmoid, as an activation or as a layer, is left off;
    nested models are flattened; ``keras.ops`` calls are steps. The model is
    neither called nor changed; its own activation functions are called once,
    and a target twice.

    Args:
        model: A built Sequential or functional Keras 3 model, channels_last.
        output_layer: Name of a layer whose output is explained instead of the
            model's.
        output: Which of several outputs is explained: its name, or its index
            in ``model.outputs``.
        target: What of the output is explained instead of an output neuron, a
            :class:`~.explained.Target`.

    Raises:
        TypeError: If ``model`` is no Keras 3 model.
        ValueError: For a model without a graph (subclassed or not built), with
            several outputs of which none is chosen, with channels_first
            layers, with an output that is not ``(batch, units)`` and no
            target; for an unknown ``output_layer`` or ``output``.

    Attributes:
        steps: The steps needed for what is explained, in topological order.
        all_steps: The steps of the whole model, also those behind the output.
        inputs: Ids of the model's inputs.
        input: Id of the first of them.
        output: Id of the tensor that is explained, ``(batch, neurons)``: the
            logits, or the target's value.
        shapes: Shape of each tensor without the batch axis, by id.
        dtypes: The dtype of each tensor, by id.
        batch: The batch size that the model is built for; None for any.
        ends: Id of the tensor that each layer makes, by the layer's name.
        model_outputs: Ids of the model's own outputs.
        stripped: Name of the step left off behind the logits, or None.
        taken_by_sign: Whether the model takes a sample for an output neuron by
            the sign of its logit, as behind a sigmoid and for a target, and
            not by the largest of all.
    """

    def __init__(
        self,
        model: keras.Model,
        output_layer: str | None = None,
        *,
        output: str | int | None = None,
        target: explained.Target | None = None,
    ):
        check_model(model)
        self.model = model
        self.stripped: str | None = None
        self.taken_by_sign = target is not None
        reader = Reader(model)
        self.inputs, self.model_outputs = reader.inputs, reader.outputs
        self.input = self.inputs[0]
        self.shapes, self.dtypes, self.all_steps, self.ends = reader.shapes, reader.dtypes, reader.steps, reader.ends
        self.batch = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0] is not None), None)
        wanted = self._wanted(output_layer, output, target)
        own = len(reader.steps)
        if target is None:
            self.output = self._strip_head(wanted[0])
            if len(self.shapes[self.output]) != 1:
                raise ValueError(
                    f"expected an output of shape (batch, units) to explain, received (batch, "
                    f"{', '.join(map(str, self.shapes[self.output]))}); give target=, such as an index (row, column, "
                    "class) or a function of the output, or name a layer with such an output as output_layer"
                )
        else:
            heads: list[Any]
            if target.of_logits:
                ends, heads = [self._strip_head(n) for n in wanted], [[] for _ in wanted]
            else:  # its function is given the model's own output, and the walk starts at the logits all the same
                ends, heads = map(list, zip(*map(self._head, wanted), strict=True))
            own_structure = output_layer is None and output is None
            self.output = explained.append(reader, target, ends, heads, model if own_structure else None)
        self.all_steps = reader.steps[:own]  # a target is no part of the model
        self.steps = self._needed(self.output, reader.steps)

    @property
    def neurons(self) -> int:
        """How many output neurons there are."""
        return self.shapes[self.output][0]

    @property
    def input_names(self) -> list[str]:
        """The names of the model's inputs: the keys of a dict, or else the names of its input tensors."""
        given = structure_of(self.model, "input")
        return sorted(given) if isinstance(given, dict) else [tensor.name for tensor in self.model.inputs]

    def _wanted(self, output_layer: str | None, output: Any, target: explained.Target | None) -> list[int]:
        """Ids of the outputs that are explained: one, or all for a function of the user's."""
        if output_layer is not None:
            if output is not None:
                raise ValueError(
                    f"expected one of output_layer and output, received {output_layer!r} and {output!r}; leave one out"
                )
            return [self.tensor_after(output_layer)]
        names = output_names(self.model)
        if output is not None:
            if isinstance(output, str):
                return [self.model_outputs[names.index(one_of("output", output, tuple(names)))]]
            if not is_integer(output) or not -len(names) <= output < len(names):
                raise ValueError(
                    f"expected output to be the name or the index of one of the {len(names)} outputs {names}, received "
                    f"{output!r}; give one of these"
                )
            return [self.model_outputs[output]]
        if len(names) > 1 and (target is None or target.of_logits):
            raise ValueError(
                f"expected a model with one output, received {len(names)}: {names}; choose one by output=, its name "
                "or its index"
            )
        return list(self.model_outputs)

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

    def floating(self, tensor_id: int) -> bool:
        """Whether a signal can arrive at a tensor: not at tokens or masks."""
        return "float" in self.dtypes[tensor_id]

    def consumers(self) -> dict[int, list[Step]]:
        """The steps that read each tensor."""
        readers: dict[int, list[Step]] = {}
        for step in self.steps:
            for tensor_id in set(step.inputs):
                readers.setdefault(tensor_id, []).append(step)
        return readers

    def between(self, *starts: int) -> list[Step]:
        """The steps that a signal comes by on its way from the output to the tensors ``starts``, in topological order.

        Raises:
            ValueError: If the output does not depend on one of them.
        """
        reached = set(starts)
        steps = []
        for step in self.steps:
            if reached.intersection(step.signal_inputs) and step.output not in starts and self.floating(step.output):
                reached.add(step.output)
                steps.append(step)
        back, found = {self.output}, []
        for step in reversed(steps):
            if step.output in back:
                back.update(reached.intersection(step.signal_inputs))
                found.append(step)
        if not found or not back.issuperset(starts):
            raise ValueError(
                "expected an input layer before the explained output, received one that is not; name another"
            )
        return found[::-1]

    def starts(self, input_layer: str | None = None) -> tuple[int, ...]:
        """Ids of the tensors that an explanation goes down to.

        They are ``input_layer``'s, or the model's inputs; of an input that is
        not floating, such as tokens, the first floating tensor made of it.

        Raises:
            ValueError: For an unknown layer, or one whose output is not
                floating; for an input that nothing floating is made of alone.
        """
        if input_layer is None:
            return tuple(map(self.first_floating, self.inputs))
        start = self.tensor_after(input_layer)
        if not self.floating(start):
            raise ValueError(
                f"expected an input_layer with a floating-point output, received {input_layer!r} of dtype "
                f"{self.dtypes[start]}, which has no gradient; name a layer behind it"
            )
        return (start,)

    def reached(self, starts: tuple[int, ...]) -> tuple[int, ...]:
        """Those of these tensors, each once, that the explained output depends on.

        Raises:
            ValueError: If there is none.
        """
        if len(starts) == 1:
            self.between(*starts)
            return starts
        found = []
        for start in dict.fromkeys(starts):
            with contextlib.suppress(ValueError):
                self.between(start)
                found.append(start)
        if not found:
            raise ValueError(
                "expected an output that depends on a floating-point input, received one that does not; name another"
            )
        return tuple(found)

    def first_floating(self, tensor_id: int) -> int:
        """Id of the tensor itself if it has a gradient, or of the first floating one that is made of it alone.

        What is not floating has none, nor what is only looked up in tables.

        Raises:
            ValueError: If there is none before other tensors join.
        """
        readers = [step for step in self.steps if tensor_id in step.inputs]
        looked_up = bool(readers) and all(isinstance(step.layer, _LOOKUPS) for step in readers)
        if self.floating(tensor_id) and not looked_up:
            return tensor_id
        made = {tensor_id}
        for step in self.steps:
            if step.inputs and made.issuperset(step.inputs):
                if self.floating(step.output):
                    return step.output
                made.add(step.output)
        raise ValueError(
            f"expected a floating-point tensor behind the model's {self.dtypes[tensor_id]} input, received a model "
            "without one; explain the part of the model behind it"
        )

    def _strip_head(self, last: int) -> int:
        """Id of the logits' tensor."""
        last, head = self._head(last)
        if head:
            self.stripped = head[0].name
            self.taken_by_sign |= activations.activation_name(head[0].layer) == "sigmoid"
        activations.warn_of_probabilities(next((step for step in self.all_steps if step.output == last), None))
        return last

    def _head(self, last: int) -> tuple[int, list[Step]]:
        """Id of the logits' tensor behind an output, and the steps that make a softmax or sigmoid of them."""
        made_by = {step.output: step for step in self.all_steps}
        head: list[Step] = []
        while last in made_by and activations.activation_name(made_by[last].layer) in activations.HEADS:
            step = made_by[last]
            if activations.softmax_axis(step.layer) not in (-1, len(step.output_shape)) or len(step.inputs) != 1:
                break
            head.insert(0, step)
            last = step.inputs[0]
        return last, head

    def _needed(self, last: int, all_steps: list[Step]) -> list[Step]:
        needed, steps = {last}, []
        for step in reversed(all_steps):
            if step.output in needed:
                needed.update(step.needs)
                steps.append(step)
        if not needed.intersection(self.inputs):
            raise ValueError(
                "expected an output that depends on the model's input, received one that does not; name another "
                "output_layer"
            )
        return [dataclasses.replace(step, index=i) for i, step in enumerate(reversed(steps))]


def output_names(model: keras.Model) -> list[str]:
    """The names of a model's outputs: the keys of a dict, or else of the layers that make them, each once."""
    made = structure_of(model, "output")
    if isinstance(made, dict):
        return sorted(made)
    names = list(getattr(model, "output_names", []))
    return names if len(names) == len(model.outputs) else [tensor.name for tensor in model.outputs]
