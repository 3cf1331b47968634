"""What a careful person would check before trusting a map: ``analyzer.check(x)``."""

from .report import CheckReport, CheckRow
from .runs import run

__all__ = ["CheckReport", "CheckRow", "run"]
