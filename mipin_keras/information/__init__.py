"""What a representation knows of its input (Gu 2021): total, decision-related and redundant information.

``create_analyzer("mi.total", model).fit(x).analyze(x)`` for a network, and
:func:`mutual_information` for two plain arrays.
"""

from .analyzer import Information
from .components import DecisionInformation, RedundantInformation, TotalInformation
from .critic import Critic
from .estimate import MutualInformation, mutual_information
from .mask import MaskModule
from .results import Decomposition, InformationReport

#: The analyzers by name.
INFORMATION: dict[str, type[Information]] = {
    analyzer.name: analyzer for analyzer in (TotalInformation, DecisionInformation, RedundantInformation)
}

__all__ = [
    "INFORMATION",
    "Critic",
    "DecisionInformation",
    "Decomposition",
    "Information",
    "InformationReport",
    "MaskModule",
    "MutualInformation",
    "RedundantInformation",
    "TotalInformation",
    "mutual_information",
]
