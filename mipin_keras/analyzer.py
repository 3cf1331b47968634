"""Analyzer: iNNvestigate's interface, the checks of what comes in, batching, and files."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from . import selection, walk, whole
from ._version import __version__
from .batches import Batches, checked
from .graph import ModelGraph

# What a file says it is, and the version of its layout.
MAGIC = "mipin_keras analyzer"
FORMAT = 1


class NotFittedError(RuntimeError):
    """The analyzer, or the class to explain, has not been fitted."""


class Analyzer:
    """What every method has in common.

    Args:
        model: A built Keras 3 Sequential or functional model with one input
            and one output, channels_last. A final softmax or sigmoid is left
            off: logits are explained.
        neuron_selection_mode: ``"max_activation"``, ``"index"``, ``"all"``,
            or a callable from logits ``(n, units)`` to indices ``(n,)``.
        output_layer: Name of a layer whose output is explained instead of the
            model's.

    Raises:
        TypeError, ValueError: See :class:`mipin_keras.graph.ModelGraph` and
            :func:`mipin_keras.selection.check_mode`.

    Attributes:
        name: The name in the catalogue.
        options: What it was made with, for files.
    """

    name: str = "analyzer"
    #: Options that change how an analysis reads a fit, and may differ from the file's on loading.
    _loose: ClassVar[frozenset[str]] = frozenset({"neuron_selection_mode", "verbose"})
    #: Options of a base class that this one has set for good.
    _fixed: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
    ):
        selection.check_mode(neuron_selection_mode)
        self.model = model
        self.neuron_selection_mode = neuron_selection_mode
        self.graph = ModelGraph(model, output_layer)
        self.options: dict[str, Any] = {"neuron_selection_mode": neuron_selection_mode, "output_layer": output_layer}

    # Fitting

    @property
    def fitted(self) -> bool:
        """Whether it can analyze now; always so for a method that needs no fit."""
        return True

    def fit(self, X: Any, batch_size: int = 32, *, steps: int | None = None, verbose: int | None = None) -> Analyzer:
        """Fit the method to data; nothing to do for one that needs none.

        Args:
            X: An array ``(n, *input shape)``, or any other source that
                :class:`mipin_keras.batches.Batches` takes.
            batch_size: Samples a batch, where ``X`` is an array.
            steps: Batches a pass.
            verbose: 0 silent, 1 bars, 2 lines.

        Returns:
            The analyzer.
        """
        return self

    def fit_generator(self, generator: Any, steps: int | None = None, *, verbose: int | None = None) -> Analyzer:
        """:meth:`fit` from an endless generator with ``steps`` batches a pass, or a function that returns one."""
        return self.fit(generator, steps=steps, verbose=verbose)

    def batches(self, X: Any, batch_size: int = 32, steps: int | None = None) -> Batches:
        """Checked passes over ``X`` for this model."""
        return Batches(X, self.graph.shapes[self.graph.input], batch_size, steps, self.graph.model.inputs[0].dtype)

    # Analyzing

    def analyze(self, X: Any, neuron_selection: Any = None, *, batch_size: int = 128) -> np.ndarray:
        """Explain the model's output on ``X``.

        Args:
            X: Shape ``(n, *input shape)``, numbers, finite.
            neuron_selection: For ``neuron_selection_mode="index"``: an int,
                or one for each sample.
            batch_size: Most samples at once; bounds the memory.

        Returns:
            float32 like X in shape (like the layer's output, where the
            explanation stops at one).

        Raises:
            NotFittedError: Before :meth:`fit`, or for a class that was not
                fitted.
            TypeError: If ``X`` is not of numbers.
            ValueError: For another shape, no samples, NaN or infinity; for
                wrong ``neuron_selection``.
        """
        return self._batched(self._analyze, X, neuron_selection, batch_size)

    def _analyze(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        raise NotImplementedError

    def logits(self, X: Any, *, batch_size: int = 128) -> np.ndarray:
        """What is explained: the model's output without its final softmax or sigmoid.

        Returns:
            float32 of shape ``(n, units)``.
        """
        return self._batched(lambda x, _: self._logits(tf.convert_to_tensor(x)).numpy(), X, None, batch_size)

    @functools.cached_property
    def _logits(self) -> Callable:
        spec = tf.TensorSpec((None, *self.graph.shapes[self.graph.input]), self.graph.model.inputs[0].dtype)

        @tf.function(input_signature=[spec], autograph=False)
        def logits(x: tf.Tensor) -> tf.Tensor:
            return tf.cast(walk.forward(self.graph, x)[self.graph.output], tf.float32)

        return logits

    def select(self, logits: np.ndarray, neuron_selection: Any = None) -> np.ndarray:
        """The weight of each output neuron in each sample's explanation, float32 ``(n, units)``."""
        return selection.select(logits, self.neuron_selection_mode, neuron_selection)

    def _batched(self, function: Callable, X: Any, neuron_selection: Any, batch_size: int) -> np.ndarray:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"expected batch_size to be an integer of at least 1, received {batch_size!r}")
        x = checked(X, self.graph.shapes[self.graph.input], self.graph.model.inputs[0].dtype)
        if neuron_selection is not None and np.size(neuron_selection) not in (1, len(x)):
            raise ValueError(
                f"expected neuron_selection to be an int or {len(x)} of them, received {np.size(neuron_selection)}"
            )
        parts = []
        for i in range(0, len(x), batch_size):
            chosen = neuron_selection
            if chosen is not None and np.size(chosen) > 1:
                chosen = np.asarray(chosen).reshape(-1)[i : i + batch_size]
            parts.append(function(x[i : i + batch_size], chosen))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # Files

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a fit found: arrays by name, and JSON."""
        return {}, {}

    def _restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Take back what :meth:`_state` gave."""

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the analyzer to one ``.npz`` file of arrays and JSON.

        The file is written beside ``path`` and renamed, so that a file of
        that name is always whole. It carries a fingerprint of the model, not
        the model.

        Returns:
            The path.

        Raises:
            ValueError: If an option is a callable or another object that
                JSON does not hold.
        """
        try:
            json.dumps(self.options)
        except TypeError as problem:
            odd = {name: value for name, value in self.options.items() if not _is_json(value)}
            raise ValueError(f"expected options that a file can hold, received {odd}") from problem
        arrays, about = self._state()
        header = {
            "magic": MAGIC,
            "format": FORMAT,
            "version": __version__,
            "name": self.name,
            "options": self.options,
            "fingerprint": self.graph.fingerprint(),
            "about": about,
        }
        path = pathlib.Path(path)
        named: dict[str, Any] = {f"array/{k}": v for k, v in arrays.items()}
        with whole.written(path) as file:
            np.savez(file, header=np.array(json.dumps(header)), **named)
        return path

    def load(self, path: str | os.PathLike[str]) -> Analyzer:
        """Take over a fit that :meth:`save` wrote, of the same method and model.

        Returns:
            The analyzer.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is truncated or not of this package, of
                another layout, method, model or options.
        """
        header, arrays = read_file(path)
        if header["name"] != self.name:
            raise ValueError(f"expected a file of {self.name!r}, received one of {header['name']!r}: {path}")
        differing = [
            f"{key}={value!r} in the file, {self.options.get(key)!r} here"
            for key, value in header["options"].items()
            if key not in self._loose and self.options.get(key) != value
        ]
        if differing:
            raise ValueError(f"{path} was fitted with other options: {'; '.join(differing)}")
        check_fingerprint(header, self.graph, path)
        try:
            self._restore(arrays, header["about"])
        except (KeyError, TypeError, IndexError, ValueError) as problem:
            raise ValueError(f"{path} does not hold what a fit of {self.name!r} is made of: {problem!r}") from problem
        return self


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def check_fingerprint(header: dict[str, Any], graph: ModelGraph, path: Any) -> None:
    """Raise ValueError unless a file was fitted to this model with these weights."""
    if header["fingerprint"] != graph.fingerprint():
        raise ValueError(
            f"{path} was fitted to another model, or to other weights of this one; load it onto the model it was "
            "fitted to, or fit again"
        )


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and arrays of a file that :meth:`Analyzer.save` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, not of this package, or of a
            layout that this version does not know.
    """
    foreign = f"expected a file that an analyzer's save() wrote, received {path}, which is none or is truncated"
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"][()]))
            arrays = {key.removeprefix("array/"): file[key] for key in file.files if key != "header"}
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, IndexError, OSError, EOFError, TypeError, AttributeError) as problem:
        raise ValueError(foreign) from problem
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as problem:
        raise ValueError(foreign) from problem
    if not isinstance(header, dict) or header.get("magic") != MAGIC:
        raise ValueError(foreign)
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has layout {header.get('format')} of mipin_keras {header.get('version')}; this version "
            f"({__version__}) reads layout {FORMAT}: fit again, or install the version that wrote it"
        )
    if not (header.keys() >= {"name", "options", "fingerprint", "about"} and isinstance(header["options"], dict)):
        raise ValueError(foreign)
    return header, arrays
