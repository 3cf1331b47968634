"""The benchmarks run and say what they ran; nothing is timed here."""

import re

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import fit, large, timing


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


@pytest.mark.medium
def test_large_prints_what_a_fit_takes_and_a_row_a_method(capfd):
    options = ["--side", "32", "--samples", "2", "--fit-batch", "2", "--rows", "1024", "--batch", "2", "--rounds", "1"]
    assert command.main(["large", "--model", "VGG19", "--methods", "mipin", "lrp.epsilon", "--no-peer", *options]) == 0
    printed = capfd.readouterr().out
    assert printed.startswith("`python -m benchmarks large --model VGG19 ")
    assert re.search(r"^\| 2 +\| [\d.]+ +\| \d+ ", printed, re.MULTILINE)
    assert re.findall(r"^\| ([ml]\S+)", printed, re.MULTILINE) == ["method", "mipin", "lrp.epsilon"]


@pytest.mark.medium
def test_large_fits_a_classifier_from_few_and_many_maps(capfd):
    assert command.main(["large", "--classifier", "3", "6", "--units", "8", "8", "4"]) == 0
    printed = capfd.readouterr().out
    assert re.findall(r"^\| (\d) ", printed, re.MULTILINE) == ["3", "6"]


def test_the_feature_maps_are_made_batch_by_batch_and_the_same_each_time():
    first, second = list(large._feature_maps(5, 0, 2)), list(large._feature_maps(5, 0, 2))
    assert [batch.shape for batch in first] == [(2, 7, 7, 512), (2, 7, 7, 512), (1, 7, 7, 512)]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert 0.6 < np.mean(first[0] == 0) < 0.8 and first[0].min() == 0
