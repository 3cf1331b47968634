"""Each method beside the same one of another copy of the package, such as the version before, in one process."""

from __future__ import annotations

import importlib.util
import pathlib
import statistics
import sys
from typing import Any

import keras
import numpy as np

import mipin_keras

from .peer import OPTIONS
from .timing import interleaved, ratio

HEADER = ["model, batch", "method", "ms", "ms before", "ratio", "range"]


def check(path: pathlib.Path) -> None:
    """Raise FileNotFoundError if there is no package in the folder ``path``."""
    if not (path / "__init__.py").is_file():
        raise FileNotFoundError(
            f"expected the folder of another mipin_keras, received {path}, without __init__.py; give the folder that "
            "holds it"
        )


def package_at(path: pathlib.Path) -> Any:
    """The package in the folder ``path``, imported under a name of its own.

    Raises:
        FileNotFoundError: If there is none.
    """
    check(path)
    start = path / "__init__.py"
    spec = importlib.util.spec_from_file_location("mipin_keras_before", start, submodule_search_locations=[str(path)])
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"expected the folder of another mipin_keras, received {path}; give a package's folder")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compare(before: Any, method: str, model: keras.Model, x: np.ndarray, rounds: int) -> list[str]:
    """One row of the table, without its first two columns: the steady state, timed turn by turn."""
    options = dict(OPTIONS.get(method, {}))
    if method == "mipin":
        options |= {"classes": [0], "rows": 1 << 12, "verbose": 0}
    calls = {}
    for name, package in (("now", mipin_keras), ("before", before)):
        analyzer = package.create_analyzer(method, model, neuron_selection_mode="index", **options)
        if not analyzer.fitted:
            analyzer.fit(x, batch_size=len(x))
        calls[name] = lambda analyzer=analyzer: analyzer.analyze(x, 0, batch_size=len(x))
    seconds = interleaved(calls, rounds)
    middle, least, most = ratio(seconds["now"], seconds["before"])
    now, then = (1e3 * statistics.median(seconds[name]) for name in ("now", "before"))
    return [f"{now:.1f}", f"{then:.1f}", f"{middle:.3f}", f"{least:.2f} to {most:.2f}"]
