"""iNNvestigate itself, on a tf-keras twin of a Keras 3 model."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from .. import targets
from ..analyzer import MEMORY, Analyzer
from ..checks import check_options
from ..saving.held_weights import HeldWeights
from .twin import Twin

#: The beginning of the names of iNNvestigate's analyzers in the registry.
PREFIX = "innvestigate:"

_RULES = ("rule", "bn_layer_rule")
_ALPHA_BETA = (*_RULES, "alpha", "beta", "bias")

#: The analyzers of iNNvestigate 2.1.2, and the options of their base classes that each has fixed.
NAMES: dict[str, tuple[str, ...]] = {
    "input": (),
    "random": (),
    "gradient": (),
    "gradient.baseline": (),
    "input_t_gradient": (),
    "deconvnet": (),
    "guided_backprop": (),
    "integrated_gradients": ("subanalyzer", "augment_by_n"),
    "smoothgrad": ("subanalyzer",),
    "lrp": (),
    "lrp.z": _RULES,
    "lrp.epsilon": _RULES,
    "lrp.w_square": _RULES,
    "lrp.flat": _RULES,
    "lrp.alpha_beta": _RULES,
    "lrp.alpha_2_beta_1": _ALPHA_BETA,
    "lrp.alpha_2_beta_1_IB": _ALPHA_BETA,
    "lrp.alpha_1_beta_0": _ALPHA_BETA,
    "lrp.alpha_1_beta_0_IB": _ALPHA_BETA,
    "lrp.z_plus": _ALPHA_BETA,
    "lrp.z_plus_fast": _RULES,
    "lrp.sequential_preset_a": ("rule",),
    "lrp.sequential_preset_b": ("rule",),
    "lrp.sequential_preset_a_flat": ("rule", "input_layer_rule"),
    "lrp.sequential_preset_b_flat": ("rule", "input_layer_rule"),
    "lrp.sequential_preset_b_flat_until_idx": ("rule", "input_layer_rule", "until_layer_rule"),
    "deep_taylor": (),
    "deep_taylor.bounded": (),
}


def legacy_keras() -> bool:
    """Whether ``tf.keras`` is tf-keras in this process, as iNNvestigate needs."""
    return tf.keras.Model is importlib.import_module("tf_keras").Model  # noqa: TID251 - what iNNvestigate will get


def import_innvestigate(*, check_keras: bool = True) -> Any:
    """Import the module ``innvestigate.analyzer``.

    Args:
        check_keras: Whether to check too that ``tf.keras`` is tf-keras.

    Returns:
        The module.

    Raises:
        ImportError: If iNNvestigate or tf-keras cannot be imported, or
            ``tf.keras`` is Keras 3.
    """
    try:
        module = importlib.import_module("innvestigate.analyzer")
        if check_keras and not legacy_keras():
            raise ImportError("tf.keras is not tf-keras: the variable was set too late")
    except Exception as problem:
        raise ImportError(
            "expected iNNvestigate on tf-keras, received an error on its import "
            f"({type(problem).__name__}: {problem}); pip install 'mipin-keras[innvestigate]', then "
            "pip install --no-deps --ignore-requires-python innvestigate==2.1.2, and set TF_USE_LEGACY_KERAS=1 in "
            "the environment before TensorFlow is imported"
        ) from problem
    return module


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays differ by at most ``tolerance`` of the largest value; False where one is not finite."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return bool(np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max())


class InnvestigateAnalyzer(Analyzer):
    """An analyzer of iNNvestigate 2.1.2, its own code and its own numbers, defects included.

    iNNvestigate runs on a tf-keras twin of the model, in a TensorFlow graph
    and session of the analyzer's own; eager Keras 3 is not affected. The
    weights are copied when the analyzer is created, and again when
    :meth:`analyze` finds that they have changed since.

    While iNNvestigate works, tf-keras' private flag
    ``_UNSAFE_GRAPH_OP_LAYER_CREATION`` is set, for the whole process, and reset
    after: without it a deep network takes minutes
    (:meth:`mipin_keras.innvestigate.twin.Twin.inside`). The numbers are the
    same.

    Source: Alber et al., "iNNvestigate neural networks!" (JMLR 2019), and its
    code.

    Args:
        model, neuron_selection_mode, output_layer: See
            :class:`mipin_keras.Analyzer`.
        **options: The options of iNNvestigate's class: :meth:`known_options`.

    Raises:
        ImportError: If iNNvestigate or tf-keras is not installed, or
            ``tf.keras`` is not tf-keras.
        TypeError: For an option that iNNvestigate's class does not have.
        ValueError: For layers that tf-keras cannot rebuild; for a model or a
            value that iNNvestigate refuses.
        RuntimeError: If iNNvestigate fails; if tf-keras computes other logits.
    """

    _key: ClassVar[str]
    _held_at_once = 4.0

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        **options: Any,
    ):
        super().__init__(model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer)
        if len(self.graph.inputs) > 1:
            raise ValueError(
                f"{self.name!r} expected a model with one input, received one with {len(self.graph.inputs)}; take "
                f"our own {self.name.removeprefix(PREFIX)!r}, or explain a part of the model that has one"
            )
        check_options(self.name, options, self.known_options())
        # Lists and Python's numbers, as JSON has them: the options from a file then equal those given.
        self.options |= {key: _for_json(value) for key, value in options.items()}
        self._own = copy.deepcopy(options)
        self._indexed: Any = None
        if isinstance(self._own.get("input_layer_rule"), list):
            self._own["input_layer_rule"] = tuple(self._own["input_layer_rule"])  # it takes only a tuple for bounds
        self._make()

    @classmethod
    def known_options(cls) -> list[str]:
        """The options that the analyzer takes: this class's, and those of iNNvestigate's class and its bases.

        Raises:
            ImportError: Without iNNvestigate.
        """
        known = {"neuron_selection_mode", "output_layer"}
        for base in import_innvestigate().analyzers[cls._key].__mro__:
            if base is not object and "__init__" in vars(base):
                for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                    named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
                    if named and name not in ("self", "model", "subanalyzer") and not name.startswith("_"):
                        known.add(name)
        return sorted(known - set(NAMES[cls._key]))

    def _make(self) -> None:
        """The twin of the model as it is now, and iNNvestigate's analyzer of it."""
        module = import_innvestigate()
        self._twin = Twin(self.graph)
        self._weights = HeldWeights(self.model.weights)
        self._probe = self._probes()
        self._wanted = self.logits(self._probe)
        self._finite = bool(np.isfinite(self._wanted).all())
        found = self._twin.logits(self._probe)
        if self._finite and not close(found, self._wanted, 1e-3):
            raise RuntimeError(
                "expected the same logits from tf-keras as from Keras 3, received ones that differ by up to "
                f"{np.abs(found - self._wanted).max():g}, where the largest is {np.abs(self._wanted).max():g}: "
                "tf-keras computes something else than Keras 3 on this model; take an analyzer whose name does not "
                "begin with 'innvestigate:'"
            )
        mode = "index" if callable(self.neuron_selection_mode) else self.neuron_selection_mode
        with self._running(ValueError):
            self._analyzer = module.create_analyzer(
                self._key, self._twin.model, neuron_selection_mode=mode, **self._own
            )

    def _probes(self) -> np.ndarray:
        """Two fixed samples, of shape ``(2, *input shape)``."""
        shape = [2, *(64 if size is None else size for size in self.graph.shapes[self.graph.input])]
        rng = np.random.default_rng(0)
        if keras.backend.is_int_dtype(self.model.inputs[0].dtype):
            return rng.integers(0, 2, shape)
        return rng.normal(size=shape).astype(np.float32)

    @contextlib.contextmanager
    def _running(self, of_values: type[Exception]) -> Iterator[None]:
        """A context in which iNNvestigate may be called; its errors come out with its name and this analyzer's types.

        Args:
            of_values: The type to raise for a ValueError of iNNvestigate's.
        """
        refusal = importlib.import_module("innvestigate.analyzer.base").NotAnalyzeableModelException
        try:
            with self._twin.inside():
                yield
        except refusal as problem:
            raise ValueError(
                f"expected a model that iNNvestigate's own {self._key} takes, received one that it refuses: "
                f"{problem}; take an analyzer whose name does not begin with 'innvestigate:'"
            ) from problem
        except Exception as problem:
            if type(problem) is NotImplementedError and not problem.args:
                raise RuntimeError(
                    f"expected a model that iNNvestigate's own {self._key} takes, received one that it refuses: a "
                    "model check that is meant to warn raises an empty NotImplementedError in 2.1.2; "
                    "disable_model_checks=True skips it, and all other checks"
                ) from problem
            error = of_values if isinstance(problem, ValueError) else RuntimeError
            raise error(
                f"expected iNNvestigate's own {self._key} to run, received {type(problem).__name__}: {problem}; look "
                "at its options, or take an analyzer whose name does not begin with 'innvestigate:'"
            ) from problem

    def analyze(
        self,
        X: Any,
        neuron_selection: Any = None,
        *,
        batch_size: int | None = None,
        memory: float = MEMORY,
        reduce: str | None = None,
    ) -> np.ndarray:
        """As :meth:`mipin_keras.Analyzer.analyze`; with iNNvestigate's numbers, which may be NaN where it divides by 0.

        Raises:
            RuntimeError: If iNNvestigate fails.
        """
        if self._weights.changed():
            self._make()  # the model was trained or given other weights since
        return super().analyze(X, neuron_selection, batch_size=batch_size, memory=memory, reduce=reduce)

    def _of_index(self) -> Analyzer:
        if self.neuron_selection_mode == "index" or callable(self.neuron_selection_mode):
            return super()._of_index()
        if self._indexed is None:  # iNNvestigate's analyzers take their mode when they are created
            self._indexed = super()._of_index()
            self._indexed._make()
        return self._indexed

    def _analyze(self, x: np.ndarray, neuron_selection: Any) -> np.ndarray:
        mode = self.neuron_selection_mode
        targets.check_superfluous(mode, neuron_selection)
        if callable(mode) or not self._finite:
            weights = self.select(self.logits(x, batch_size=len(x)), neuron_selection)
        elif mode == "index":
            weights = targets.fixed(mode, neuron_selection, len(x), self.graph.neurons)
        own: dict[str, Any] = {}
        if callable(mode) or mode == "index":
            # One for each sample, always: with a single int some of its analyzers return 0 for all samples but one.
            own["neuron_selection"] = weights.argmax(axis=1).tolist()
        with self._running(RuntimeError):
            found = np.asarray(self._analyzer.analyze(x.astype(np.float32, copy=False), **own), np.float32)
        if not np.isfinite(found).all() and not np.isfinite(self.logits(x, batch_size=len(x))).all():
            raise ValueError(targets.NOT_FINITE)
        return found


def _for_json(value: Any) -> Any:
    """An option's value as JSON holds it, where it can: tuples as lists, NumPy's scalars as Python's."""
    if isinstance(value, tuple | list):
        return [_for_json(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _class_of(key: str) -> type[Analyzer]:
    """The analyzer class for one of iNNvestigate's names."""
    words = "".join(word.capitalize() for word in key.replace(".", "_").split("_"))
    members = {
        "name": PREFIX + key,
        "_key": key,
        "_fixed": frozenset(NAMES[key]),
        "__doc__": f"iNNvestigate's own {key!r}: see :class:`InnvestigateAnalyzer`.",
        "__module__": __name__,
    }
    return type(f"Innvestigate{words}", (InnvestigateAnalyzer,), members)


#: The analyzers of iNNvestigate by their names in the registry.
INNVESTIGATE: dict[str, type[Analyzer]] = {PREFIX + key: _class_of(key) for key in NAMES}
