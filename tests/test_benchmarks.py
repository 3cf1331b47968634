"""The benchmarks run and say what they ran; nothing is timed here."""

import re

import pytest

from benchmarks import __main__ as command
from benchmarks import fit, timing


def test_interleaved_runs_turn_by_turn():
    calls = []
    seconds = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratio():
    assert timing.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == (3.0, 2.0, 4.0)


def test_the_stream_is_made_batch_by_batch_and_the_same_each_time():
    first, second = list(fit._stream(600, 0)), list(fit._stream(600, 0))
    assert [len(batch) for batch in first] == [256, 256, 88]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


@pytest.mark.medium
def test_analyze_prints_a_table_with_its_command(capsys):
    assert command.main(["analyze", "--models", "MLP-M", "--batch", "16", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks analyze --models MLP-M --batch 16 --rounds 1`")
    assert len(re.findall(r"^\| MLP-M ", printed, re.MULTILINE)) == 2
