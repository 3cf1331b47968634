"""CheckReport: what it says of its rows, and how it prints."""

import pytest

from mipin_keras import CheckReport, CheckRow

OK = CheckRow("output", True, 1.25e-7, 1e-3, "one against the other")
FAILED = CheckRow("gradient", False, 0.5, 1e-3, "one against the other; do something")
NUMBER = CheckRow("completeness", None, 0.0421, None, "a number without a limit")
NOTHING = CheckRow("map", None, None, None, "does not apply")


@pytest.mark.parametrize(
    ("rows", "passed"),
    [([OK], True), ([OK, NUMBER, NOTHING], True), ([NOTHING], True), ([OK, FAILED], False), ([FAILED, NUMBER], False)],
)
def test_it_passes_if_nothing_failed(rows, passed):
    report = CheckReport("mipin", 3, rows)
    assert report.passed is passed
    assert str(report).splitlines()[0] == f"mipin, 3 samples: {'nothing failed' if passed else 'FAILED'}"


def test_it_is_a_sequence_of_its_rows():
    report = CheckReport("mipin", 3, [OK, FAILED, NUMBER])
    assert len(report) == 3 and list(report) == [OK, FAILED, NUMBER] and report[1] is FAILED and FAILED in report
    assert report[-1].name == "completeness" and report[:2] == (OK, FAILED)


def test_it_prints_a_line_a_row():
    text = str(CheckReport("lrp.z", 5, [OK, FAILED, NUMBER, NOTHING]))
    assert text == repr(CheckReport("lrp.z", 5, [OK, FAILED, NUMBER, NOTHING]))
    _, *lines = text.splitlines()
    cells = [line.split() for line in lines]
    assert cells[0][:5] == ["output", "ok", "1.2e-07", "<=", "0.001"] and lines[0].endswith("one against the other")
    assert cells[1][:5] == ["gradient", "FAILED", "0.5", "<=", "0.001"] and lines[1].endswith("; do something")
    assert cells[2][:4] == ["completeness", "-", "0.042", "a"]
    assert cells[3] == ["map", "-", "does", "not", "apply"]
    assert len({line.index(text) for line, text in zip(lines, ["one", "one", "a num", "does"], strict=True)}) == 1


def test_a_long_text_is_wrapped_under_its_column():
    row = CheckRow("output", True, 0.0, 1.0, "word " * 60)
    _, *lines = str(CheckReport("lrp.z", 5, [row])).splitlines()
    assert len(lines) > 2 and all(len(line) <= 120 for line in lines)
    column = lines[0].index("word")
    assert all(line[:column].isspace() and line[column:].startswith("word") for line in lines[1:])
    assert sum(line.count("word") for line in lines) == 60
