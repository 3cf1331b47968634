"""The catalogue: analyzers by name."""

from __future__ import annotations

import difflib
import inspect
import os
from typing import Any

import keras

from .analyzer import Analyzer
from .archive import read_file
from .baselines import BASELINES
from .baselines.innvestigate import PREFIX, import_innvestigate
from .inverse import MIPIN, TrainedMIPIN

ANALYZERS: dict[str, type[Analyzer]] = {"mipin": MIPIN, "mipin.trained": TrainedMIPIN} | BASELINES


def analyzers() -> list[str]:
    """The names that :func:`create_analyzer` knows."""
    return sorted(ANALYZERS)


def options_of(name: str) -> list[str]:
    """The options that the analyzer ``name`` takes.

    Raises:
        ValueError: For an unknown name.
    """
    kind = _find(name)
    if hasattr(kind, "known_options"):  # iNNvestigate's own
        return kind.known_options()
    known: dict[str, None] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            for parameter in inspect.signature(vars(base)["__init__"]).parameters.values():
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    known[parameter.name] = None
    return sorted(known.keys() - kind._fixed)


def _find(name: str) -> type[Analyzer]:
    if name not in ANALYZERS:
        near = difflib.get_close_matches(str(name), ANALYZERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected the name of an analyzer, one of {analyzers()}, received {name!r}{hint}")
    return ANALYZERS[name]


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
    known = options_of(name)
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        raise TypeError(f"{name!r} has no option {', '.join(map(repr, unknown))}; it has {known}")
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
    header, _ = read_file(path)
    analyzer = create_analyzer(header["name"], model, **(header["options"] | kwargs))
    return analyzer.load(path)


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
