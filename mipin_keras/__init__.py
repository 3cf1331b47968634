"""mipin_keras: why did your Keras model say that?

    analyzer = mipin_keras.create_analyzer("mipin", model).fit(x_train)
    attribution = analyzer.analyze(x)

See README.md, and :func:`create_analyzer`.
"""

from .cli import _safe_path  # noqa: F401 # isort: skip - before anything that it keeps from being found elsewhere
from ._version import __version__
from .analysis.layers import LayerExplanation
from .analyzer import Analyzer
from .checks import NotFittedError
from .mipin import Inverse, InverseModel, LearnedInverse, MaxSwitches, MaxUnpooling, register_inverse
from .registry import analyzers, create_analyzer, load_analyzer, options_of, register_with_innvestigate

__all__ = [
    "Analyzer",
    "Inverse",
    "InverseModel",
    "LayerExplanation",
    "LearnedInverse",
    "MaxSwitches",
    "MaxUnpooling",
    "NotFittedError",
    "__version__",
    "analyzers",
    "create_analyzer",
    "load_analyzer",
    "options_of",
    "register_inverse",
    "register_with_innvestigate",
]
