"""The benchmarks run and print what they measured; the numbers themselves depend on the machine."""

import contextlib
import io
import json
import os
import pathlib
import re
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

import mipin_keras
from benchmarks import __main__ as command
from benchmarks import against, analyze, fit, large, memory, processes, timing


@pytest.fixture
def in_this_process(monkeypatch):
    """What would run in a process of its own runs here, without the seconds that importing TensorFlow takes."""
    started = []

    def output_of(argv, environment=None):
        started.append(argv)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            command.main(argv)
        return printed.getvalue()

    monkeypatch.setattr(processes, "output_of", output_of)
    return started


def cells(printed, first):
    """The cells of the one row of a table that begins with the cell ``first``."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    return next(row for row in reversed(rows) if row[0] == first)


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


def test_what_a_process_of_its_own_gets_and_gives(monkeypatch):
    asked = []
    monkeypatch.setattr(processes, "output_of", lambda argv: asked.append(argv) or 'a header\n\n{"peak": 3}\n')
    found = processes.in_own_process("large", fit_to=pathlib.Path("a.npz"), units=(8, 4), seed=0)
    assert found == {"peak": 3}
    assert asked == [["large", "--fit-to", "a.npz", "--units", "8", "4", "--seed", "0"]]


@pytest.mark.medium
def test_a_process_of_its_own():
    found = processes.in_own_process("large", maps=3, units=[8, 8, 4], seed=0)
    assert found["weights"] == 4 * (7 * 7 * 512 * 8 + 8 + 8 * 8 + 8 + 8 * 4 + 4)
    assert 50 * processes.MIB < found["before"] <= found["peak"] < 64 * processes.GIB
    with pytest.raises(subprocess.CalledProcessError) as failed:
        processes.in_own_process("large", maps="many")
    assert "invalid int value: 'many'" in failed.value.stderr and failed.value.__notes__ == [failed.value.stderr]


def test_peak_memory_counts_bytes():
    before = processes.forget_peak()
    held = np.ones(64 * processes.MIB, np.uint8)
    assert before + 60 * processes.MIB < processes.peak_memory() < before + 128 * processes.MIB
    del held
    assert before + 60 * processes.MIB < processes.peak_memory()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux forgets a peak")
def test_a_peak_is_forgotten():
    held = np.ones(256 * processes.MIB, np.uint8)
    del held
    peak = processes.peak_memory()
    assert processes.forget_peak() < peak - 200 * processes.MIB > processes.peak_memory()


def test_the_peak_where_the_system_does_not_forget_it(monkeypatch, tmp_path):
    """As on macOS, which has none of the two files."""
    monkeypatch.setattr(processes, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(processes, "_FORGET", tmp_path / "folder" / "clear_refs")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert processes.forget_peak() == processes.peak_memory() == peak


def test_the_threads_of_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    one, any_number = processes.with_threads(1), processes.with_threads(None)
    assert [one[name] for name in processes.THREADS] == ["1"] * 4
    assert not set(processes.THREADS) & set(any_number)
    assert one["TF_ENABLE_ONEDNN_OPTS"] == any_number["TF_ENABLE_ONEDNN_OPTS"] == "0"


def test_analyze_times_each_method_on_each_model(monkeypatch, capsys):
    """The timing itself is replaced: which methods are timed on what, and what is printed."""
    timed = []

    def compare(method, model, x, rounds):
        timed.append((model.name, x.shape, method, rounds))
        return ["1.0"] * 8

    monkeypatch.setattr(analyze.peer, "compare", compare)
    small = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)], name="small")
    for name in analyze.MODELS:
        monkeypatch.setitem(analyze.MODELS, name, lambda: small)
    arguments = ["analyze", "--models", "MLP-M", "VGG19", "--methods", "gradient", "grad_cam", "--batch", "16"]
    assert command.main([*arguments, "--large-batch", "2", "--rounds", "3", "--large-rounds", "1"]) == 0
    # MLP-M has no feature map, so that Grad-CAM is left out.
    assert [(shape[0], method, rounds) for _, shape, method, rounds in timed] == [
        (16, "gradient", 3), (2, "grad_cam", 1), (2, "gradient", 1),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks analyze --models MLP-M VGG19 ")
    assert cells(printed, "VGG19, 2")[1:] == ["gradient"] + ["1.0"] * 8


@pytest.mark.medium
def test_analyze_prints_a_table_with_its_command(capsys):
    options = ["--models", "MLP-M", "--batch", "16", "--rounds", "1", "--methods", "mipin", "gradient"]
    assert command.main(["analyze", *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks analyze --models MLP-M --batch 16 --rounds 1 ")
    assert len(re.findall(r"^\| MLP-M ", printed, re.MULTILINE)) == 2  # MIP-IN on one class, and on ten
    row = cells(printed, "MLP-M, 16")
    assert row[1] == "gradient" and float(row[2]) > 0


def test_large_prints_what_a_fit_takes_and_a_row_a_method(monkeypatch, capsys, in_this_process):
    def small(weights, input_shape):
        layers = keras.layers
        stack = [layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten(name="flatten")]
        stack.append(layers.Dense(1000, activation="softmax", name="predictions"))
        return keras.Sequential([keras.Input(input_shape), *stack])

    monkeypatch.setattr(keras.applications, "ResNet50", small)
    options = ["--side", "12", "--samples", "2", "--fit-batch", "2", "--rows", "64", "--batch", "2", "--rounds", "1"]
    methods = ["--methods", "mipin", "gradient"]
    assert command.main(["large", "--model", "ResNet50", "--no-peer", *methods, *options]) == 0
    (argv,) = in_this_process
    assert argv[:2] == ["large", "--fit-to"] and argv[argv.index("--rows") + 1] == "64"
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks large --model ResNet50 ")
    fitted = cells(printed, "2")
    assert float(fitted[1]) > 0 and fitted[3] == "2" and fitted[-1] == "1.000"  # 401 thousand weights are 1.5 MiB
    for name in ("mipin", "gradient"):
        row = cells(printed, name)
        assert float(row[6]) > 0 and row[8:] == [""] * 5


def test_large_fits_a_classifier_from_few_and_many_maps(capsys, in_this_process):
    assert command.main(["large", "--classifier", "3", "6", "--units", "8", "8", "4"]) == 0
    assert [argv[: argv.index("--unit")] for argv in in_this_process] == [["large", "--maps", n] for n in "36"]
    printed = capsys.readouterr().out
    assert [cells(printed, count)[3] for count in "36"] == ["1", "1"]  # MiB of weights


def test_the_feature_maps_are_made_batch_by_batch_and_the_same_each_time():
    first, second = list(large._feature_maps(5, 0, 2)), list(large._feature_maps(5, 0, 2))
    assert [batch.shape for batch in first] == [(2, 7, 7, 512), (2, 7, 7, 512), (1, 7, 7, 512)]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert 0.6 < np.mean(first[0] == 0) < 0.8 and first[0].min() == 0


def test_memory_of_few_and_many_samples(monkeypatch, capsys):
    peaks = {5000: 400, 50000: 500}
    monkeypatch.setattr(
        fit, "in_own_process",
        lambda benchmark, memory_of, seed: {
            "samples": memory_of, "before": 300 * processes.MIB, "peak": peaks[memory_of] * processes.MIB
        },
    )  # fmt: skip
    assert command.main(["fit", "--memory"]) == 0
    assert cells(capsys.readouterr().out, "50,000") == ["50,000", "300", "500", "1.250"]


def test_memory_goes_on_after_a_method_that_fails(monkeypatch, capsys, in_this_process):
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    monkeypatch.setitem(memory.MODELS, "VGG16", lambda: net)
    here = processes.output_of

    def output_of(argv):
        if "gradient" in argv:
            raise subprocess.CalledProcessError(1, argv, stderr="Traceback\nMemoryError: none left\n")
        return here(argv)

    monkeypatch.setattr(processes, "output_of", output_of)
    assert command.main(["memory", "--models", "VGG16", "--methods", "gradient", "deconvnet", "--samples", "5"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| VGG16")]
    assert [row[2].strip() for row in rows[:2]] == ["gradient", "deconvnet"]
    assert rows[0][3].strip() == "MemoryError: none left" and rows[1][3].strip() == "5"


def test_another_copy_of_the_package_is_imported_beside_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of another mipin_keras, received .*without __init"):
        against.package_at(tmp_path)
    (tmp_path / "__init__.py").write_text("from .part import VALUE\n")
    (tmp_path / "part.py").write_text("VALUE = 7\n")
    other = against.package_at(tmp_path)
    assert other.VALUE == 7 and other is not mipin_keras and json.dumps(other.__name__) == '"mipin_keras_before"'


def test_a_copy_of_this_package_is_timed_beside_it():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])
    row = against.compare(mipin_keras, "gradient", model, np.ones((2, 4), np.float32), rounds=2)
    now, before, middle = map(float, row[:3])
    assert now > 0 and before > 0 and middle > 0


def test_information_prints_the_estimates_beside_the_exact_value(capsys):
    few = ["--critics", "separable", "--sizes", "1", "--correlations", "0.9", "--samples", "2000", "--epochs", "9"]
    assert command.main(["information", *few]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks information --critics separable ")
    *_, row = printed.strip().splitlines()
    numbers, correlation, exact, found, _, limit = [cell.strip() for cell in row.strip("|").split("|")]
    assert (numbers, correlation, exact, limit) == ("1", "0.9", "0.830", f"{np.log(399):.2f}")
    assert abs(float(found) - 0.83) < 0.2
