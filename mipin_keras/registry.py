"""The registry: analyzers by name."""

from __future__ import annotations

import difflib
import os
from typing import Any, Literal, overload

import keras

from .analyzer import Analyzer
from .baselines import BASELINES
from .baselines.averaged import IntegratedGradients, SmoothGrad
from .baselines.deep_taylor import BoundedDeepTaylor, DeepTaylor
from .baselines.grad_cam import GradCAM
from .baselines.gradient import Gradient, InputTimesGradient
from .baselines.lrp.analyzer import LRP
from .baselines.patterns.analyzer import PatternAttribution, PatternNet
from .baselines.rectified import Deconvnet, GuidedBackprop
from .checks import check_options
from .information import INFORMATION, DecisionInformation, RedundantInformation, TotalInformation
from .innvestigate import INNVESTIGATE, PREFIX, import_innvestigate
from .mipin import MIPIN, TrainedMIPIN
from .saving.archive import open_file

#: The names of the methods that are LRP with its rules chosen.
LRPName = Literal[
    "lrp", "lrp.z", "lrp.epsilon", "lrp.w_square", "lrp.flat", "lrp.gamma", "lrp.alpha_beta", "lrp.alpha_2_beta_1",
    "lrp.alpha_2_beta_1_IB", "lrp.alpha_1_beta_0", "lrp.alpha_1_beta_0_IB", "lrp.z_plus", "lrp.z_plus_fast",
    "lrp.sequential_preset_a", "lrp.sequential_preset_b", "lrp.sequential_preset_a_flat",
    "lrp.sequential_preset_b_flat", "lrp.sequential_preset_b_flat_until_idx", "lrp.epsilon_plus",
    "lrp.epsilon_gamma_box",
]  # fmt: skip

ANALYZERS: dict[str, type[Analyzer]] = (
    {"mipin": MIPIN, "mipin.trained": TrainedMIPIN} | INFORMATION | BASELINES | INNVESTIGATE
)


def analyzers() -> list[str]:
    """The names that :func:`create_analyzer` knows."""
    return sorted(ANALYZERS)


def options_of(name: str) -> list[str]:
    """The options that the analyzer ``name`` takes.

    Raises:
        ValueError: For an unknown name.
    """
    return _find(name).known_options()


def _find(name: str) -> type[Analyzer]:
    if name not in ANALYZERS:
        near = difflib.get_close_matches(str(name), ANALYZERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see mipin_keras.analyzers()"
        raise ValueError(f"expected the name of an analyzer, one of {analyzers()}, received {name!r}{hint}")
    return ANALYZERS[name]


# What a type checker needs to know that an analyzer has a source_signal or a fit_report; a test holds these against
# ANALYZERS, name by name.
@overload
def create_analyzer(name: Literal["mipin"], model: keras.Model, **kwargs: Any) -> MIPIN: ...
@overload
def create_analyzer(name: Literal["mipin.trained"], model: keras.Model, **kwargs: Any) -> TrainedMIPIN: ...
@overload
def create_analyzer(name: Literal["gradient"], model: keras.Model, **kwargs: Any) -> Gradient: ...
@overload
def create_analyzer(name: Literal["input_t_gradient"], model: keras.Model, **kwargs: Any) -> InputTimesGradient: ...
@overload
def create_analyzer(
    name: Literal["integrated_gradients"], model: keras.Model, **kwargs: Any
) -> IntegratedGradients: ...  # noqa: E501
@overload
def create_analyzer(name: Literal["smoothgrad"], model: keras.Model, **kwargs: Any) -> SmoothGrad: ...
@overload
def create_analyzer(name: Literal["deconvnet"], model: keras.Model, **kwargs: Any) -> Deconvnet: ...
@overload
def create_analyzer(name: Literal["guided_backprop"], model: keras.Model, **kwargs: Any) -> GuidedBackprop: ...
@overload
def create_analyzer(name: LRPName, model: keras.Model, **kwargs: Any) -> LRP: ...
@overload
def create_analyzer(name: Literal["deep_taylor"], model: keras.Model, **kwargs: Any) -> DeepTaylor: ...
@overload
def create_analyzer(name: Literal["deep_taylor.bounded"], model: keras.Model, **kwargs: Any) -> BoundedDeepTaylor: ...
@overload
def create_analyzer(name: Literal["pattern.net"], model: keras.Model, **kwargs: Any) -> PatternNet: ...
@overload
def create_analyzer(name: Literal["pattern.attribution"], model: keras.Model, **kwargs: Any) -> PatternAttribution: ...
@overload
def create_analyzer(name: Literal["grad_cam"], model: keras.Model, **kwargs: Any) -> GradCAM: ...
@overload
def create_analyzer(name: Literal["mi.total"], model: keras.Model, **kwargs: Any) -> TotalInformation: ...
@overload
def create_analyzer(name: Literal["mi.decision"], model: keras.Model, **kwargs: Any) -> DecisionInformation: ...
@overload
def create_analyzer(name: Literal["mi.redundant"], model: keras.Model, **kwargs: Any) -> RedundantInformation: ...
@overload
def create_analyzer(name: str, model: keras.Model, **kwargs: Any) -> Analyzer: ...
def create_analyzer(name: str, model: keras.Model, **kwargs: Any) -> Analyzer:
    """Make an analyzer by name.

    Args:
        name: One of :func:`analyzers`.
        model: A built Keras 3 Sequential or functional model.
        **kwargs: The analyzer's options.

    Returns:
        The analyzer; those that learn need ``fit`` before ``analyze``.

    Raises:
        ValueError: For an unknown name, or a value that an option does not
            take.
        TypeError: For an unknown option.
    """
    analyzer = _find(name)
    check_options(name, kwargs, analyzer.known_options())
    return analyzer(model, **kwargs)


def load_analyzer(path: str | os.PathLike[str], model: keras.Model, **kwargs: Any) -> Analyzer:
    """Make the analyzer that ``save`` wrote to a file, fitted as it was.

    Args:
        path: The file.
        model: The model that the analyzer was fitted to, with the same weights.
        **kwargs: Options to change that do not touch the fit:
            ``neuron_selection_mode``, ``verbose``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign, of another version's
            layout, or of another model.
    """
    with open_file(path) as file:
        try:
            analyzer = create_analyzer(file.header["name"], model, **(file.header["options"] | kwargs))
        except (TypeError, ValueError, OverflowError) as problem:
            if isinstance(problem, TypeError) and kwargs.keys() - set(options_of(file.header["name"])):
                raise
            raise ValueError(f"{path}: {problem}") from problem
        analyzer._take_over(file)
    return analyzer


def register_with_innvestigate() -> list[str]:
    """Put these analyzers into iNNvestigate's own registry, under their names.

    Afterwards ``innvestigate.create_analyzer("mipin", keras3_model)`` works.
    A name that iNNvestigate has itself stays its own.

    Returns:
        The names that were added.

    Raises:
        ImportError: If iNNvestigate cannot be imported, with what to install.
    """
    registry = import_innvestigate(check_keras=False).analyzers
    ours = [name for name in analyzers() if not name.startswith(PREFIX)]
    added = [name for name in ours if name not in registry]
    registry.update({name: ANALYZERS[name] for name in added})
    return added
