"""The analyzers "mi.total", "mi.decision" and "mi.redundant": one part each of what a fit finds."""

from __future__ import annotations

from .analyzer import Information


class TotalInformation(Information):
    """I(Z, X_i): all that the representation knows of each local part; see :class:`Information`."""

    name = "mi.total"
    part = "total"


class DecisionInformation(Information):
    """I(Z, X'_i): of what the decision needs; see :class:`Information`."""

    name = "mi.decision"
    part = "decision"


class RedundantInformation(Information):
    """I(Z, X_i) - I(Z, X'_i): what Z knows and the decision does not need; see :class:`Information`."""

    name = "mi.redundant"
    part = "redundant"
