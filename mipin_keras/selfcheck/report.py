"""CheckReport: what was checked of an analyzer on samples, and how it came out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class CheckRow(NamedTuple):
    """One check.

    Attributes:
        name: What was checked.
        passed: None where it does not apply, or where there is a number but
            no limit that is right for every model.
        value: The number found; None where there is none.
        limit: The largest value that passes; None where there is none.
        text: What the number is, and what to do where it did not pass.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: float | None
    text: str


class CheckReport(Sequence[CheckRow]):
    """The rows of ``analyzer.check(x)``; printed, a table.

    Args:
        analyzer: The analyzer's name.
        samples: How many samples were checked.
        rows: The checks.
    """

    def __init__(self, analyzer: str, samples: int, rows: Sequence[CheckRow]):
        self.analyzer, self.samples, self.rows = analyzer, samples, tuple(rows)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(row.passed is not False for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[CheckRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        head = f"{self.analyzer}, {self.samples} samples: {'nothing failed' if self.passed else 'FAILED'}"
        width = max(len(row.name) for row in self.rows)
        lines = [head]
        for row in self.rows:
            sign = {True: "ok", False: "FAILED", None: "-"}[row.passed]
            number = "" if row.value is None else f"{row.value:.2g}"
            limit = "" if row.limit is None else f"<= {row.limit:.2g}"
            start = f"  {row.name:<{width}}  {sign:<6}  {number:>8} {limit:<10}  "
            lines += textwrap.wrap(row.text, 120, initial_indent=start, subsequent_indent=" " * len(start))
        return "\n".join(lines)

    __repr__ = __str__
