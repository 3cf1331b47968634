"""The cases of ``python -m benchmarks fit --cases``, on small models: what is fitted, measured and printed."""

import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest

import mipin_keras
from benchmarks import __main__ as command
from benchmarks import fit_cases, fit_sides, processes
from benchmarks.fit_cases import CASES, Case, Loaded
from reproduce_paper import data
from reproduce_paper.photographs import Photographs

PACKAGE = pathlib.Path(mipin_keras.__file__).parent
OPTIONS = argparse.Namespace(seed=3, data_dir=None, cache_dir=None)


def small(args):
    keras.utils.set_random_seed(args.seed)
    layers = keras.layers
    stack = [layers.Conv2D(3, 3, activation="relu", name="conv"), layers.Flatten(name="flatten")]
    model = keras.Sequential([keras.Input((6, 6, 1)), *stack, layers.Dense(4, name="dense")])
    return Loaded(model, np.random.default_rng(args.seed).random((40, 6, 6, 1), np.float32), "a small CNN")


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("MIPIN_DATA_DIR", raising=False)


@pytest.fixture
def started(monkeypatch):
    """The arguments and the environment of each process that would be started; it runs here."""
    found = []

    def output_of(argv, environment=None):
        found.append((argv, environment))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            command.main(argv)
        return printed.getvalue()

    monkeypatch.setattr(processes, "output_of", output_of)
    return found


def last_row(printed, first):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    header = next(row for row in rows if row[0] == "case")
    found = [row for row in rows if row[0] == first]
    assert len(found[-1]) == len(header)
    return found


@pytest.mark.medium
def test_both_packages_fit_in_turns_and_each_setting_of_memory_has_a_row(monkeypatch, capsys, started):
    monkeypatch.setitem(CASES, "small", Case(small, [0, 2], None, {None: 0.5, 8.0: 0.7}, predict=True))
    assert command.main(["fit", "--cases", "small", "--against", str(PACKAGE), "--rounds", "2", "--seed", "3"]) == 0
    assert [("--against" in argv, argv[argv.index("--fit-memory") + 1]) for argv, _ in started] == [
        (before, memory) for memory in ("default", "8") for _ in range(2) for before in (False, True)
    ]
    assert all(argv[:3] == ["fit", "--case-of", "small"] for argv, _ in started)
    assert all(environment["TF_NUM_INTRAOP_THREADS"] == "1" for _, environment in started)
    printed = capsys.readouterr().out
    assert printed.startswith("`python -m benchmarks fit --cases small --against DIR --rounds 2 --seed 3` (")
    assert "small: a small CNN, 40 samples in batches of 32, classes 2, down to the pixels" in printed
    assert "small: predict alone, in the process of 'now': " in printed
    rows = last_row(printed, "small")[-2:]
    assert [row[1] for row in rows] == ["default", "8"] and [row[5] for row in rows] == ["0.5", "0.7"]
    for row in rows:
        assert all(float(cell) > 0 for cell in (*row[2:4], *row[6:8]))
        assert float(row[4].split()[0]) > 0 and " to " in row[4]
        # The same package twice: the same errors.
        assert row[11] == row[12] and 0 < float(row[11]) < 1 and row[13].startswith("+0.0e+00, ")


def test_a_side_alone_and_a_case_whose_threads_are_not_limited(monkeypatch, capsys, started):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setitem(CASES, "small", Case(small, None, "conv", threads=None, seconds=480.0, before=False))
    assert command.main(["fit", "--cases", "small", "--against", str(PACKAGE)]) == 0
    ((argv, environment),) = started
    assert "--against" not in argv and "OPENBLAS_NUM_THREADS" not in environment
    printed = capsys.readouterr().out
    assert f"classes 4, down to conv, threads as many as cores ({os.cpu_count()})" in printed
    row = last_row(printed, "small")[-1]
    assert row[5] == "480 s of wall time on two cores" and row[3] == row[4] == row[7] == row[12] == row[13] == ""
    assert command.main(["fit", "--cases", "small", "--against", str(PACKAGE), "--sides", "before"]) == 0
    assert "--against" in started[1][0] and len(started) == 2
    row = last_row(capsys.readouterr().out, "small")[-1]
    assert row[2] == "" and float(row[3]) > 0


def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path, started):
    def refused(error, message, *words):
        with pytest.raises(error, match=message):
            command.main(["fit", "--cases", *words])

    files = "expected models/efficientnet-lite0.keras or efficientnet-lite0.keras in --data-dir or MIPIN_DATA_DIR"
    refused(FileNotFoundError, f"{files}, received neither", "cnn-1", "lite0-head")
    refused(FileNotFoundError, f"{files}, received .* without it", "lite0-20", "--data-dir", str(tmp_path))
    (tmp_path / "efficientnet-lite0.keras").touch()
    refused(FileNotFoundError, "expected ilsvrc2012 or ILSVRC2012", "lite0-block10", "--data-dir", str(tmp_path))
    refused(FileNotFoundError, "squeezenet.keras", "squeezenet-fire9", "--data-dir", str(tmp_path))
    refused(FileNotFoundError, "folder of another mipin_keras", "cnn-1", "--against", str(tmp_path))
    refused(ValueError, "expected --against DIR for --sides before", "cnn-1", "--sides", "before")
    refused(ValueError, "fitted with --fit-memory 8, received cnn-1; name another", "cnn-1", "--fit-memory", "8")
    refused(ValueError, "expected --rounds to be at least 1", "cnn-1", "--rounds", "0")
    assert not started


def side(cpu, above, *errors):
    return {"cpu": cpu, "wall": 2 * cpu, "above": above * processes.MIB, "errors": list(errors), "predict": None}


def test_a_row_has_medians_ratios_round_by_round_and_the_largest_rise_of_an_error(monkeypatch):
    monkeypatch.setitem(CASES, "small", Case(small, None, None, {8.0: 0.25}))
    now = [side(2.0, 10, ["b", 1, 0.5], ["a", 0, 0.2], ["c", 0, float("nan")]), side(4.0, 30), side(3.0, 20)]
    before = [side(10.0, 10, ["a", 0, 0.1], ["b", 1, 0.9], ["gone", 1, 0.95]), side(10.0, 10), side(12.0, 20)]
    assert fit_sides.row("small", 8.0, {"now": now, "before": before}) == [
        "small", "8", "3.0", "10.0", "0.250 (0.200 to 0.400)", "0.25", "6.0", "20.0", "20", "10",
        "1.000 (1.000 to 3.000)", "0.500000", "0.950000", "+1.0e-01, a, class 0",
    ]  # fmt: skip
    other = {"now": [side(1.0, 1, ["a", 0, 0.1])], "before": [side(1.0, 0, ["b", 0, 0.1])]}
    row = fit_sides.row("small", 8.0, other)
    assert row[4] == "1.000" and row[10] == "" and row[-1] == "no layer in both"


@pytest.mark.parametrize("memory", [None, 8.0])
def test_the_fit_alone_is_measured(monkeypatch, memory):
    """A package that takes memory before the fit and in it."""
    asked = {}

    class Analyzer:
        classes = [1, 3]
        fit_report = [{"layer": "conv", "class": 1, "relative": np.float32(0.5), "mse": 1.0}]

        def fit(self, x, **options):
            asked["fit"] = (x.shape, options)
            np.ones(64 * processes.MIB, np.uint8)

    class Package:
        @staticmethod
        def create_analyzer(name, model, **options):
            asked["made"] = (name, options)
            np.ones(256 * processes.MIB, np.uint8)
            return Analyzer()

    monkeypatch.setitem(CASES, "small", Case(small, [3, 1], "conv", {None: 0.5}, batch=16))
    found = fit_cases.measure(Package, "small", memory, OPTIONS)
    assert asked["made"] == ("mipin", {"classes": [3, 1], "input_layer": "conv", "seed": 3, "verbose": 0})
    assert asked["fit"] == ((40, 6, 6, 1), {"batch_size": 16} | ({} if memory is None else {"memory": memory}))
    assert json.loads(json.dumps(found))["errors"] == [["conv", 1, 0.5]]
    assert (found["samples"], found["classes"], found["predict"]) == (40, 2, None)
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert 60 * processes.MIB < found["above"] < 128 * processes.MIB


def test_measured_errors_are_those_of_the_fit(monkeypatch):
    monkeypatch.setitem(CASES, "small", Case(small, None, None, predict=True))
    found = fit_cases.measure(mipin_keras, "small", None, OPTIONS)
    model, x, _ = small(OPTIONS)
    report = mipin_keras.create_analyzer("mipin", model, seed=3, verbose=0).fit(x, batch_size=32).fit_report
    assert len(report) == 2 * 4 and found["predict"] > 0
    assert found["errors"] == [[entry["layer"], entry["class"], entry["relative"]] for entry in report]


def test_photographs_are_resized_and_prepared_in_their_order(monkeypatch, tmp_path):
    (tmp_path / "ilsvrc2012").mkdir()
    model = keras.Sequential([keras.Input((6, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "small.keras")
    paths = [pathlib.Path(str(i)) for i in range(70)]
    colour = np.array([2, 1, 0], np.uint8)
    validation = Photographs(
        paths, np.zeros(70, np.int64), [np.zeros((0, 4), np.int64)] * 70, ["one"], (8, 8),
        lambda path: np.full((8, 8, 3), int(path.name), np.uint8) + colour,
    )  # fmt: skip
    monkeypatch.setattr(fit_cases.ilsvrc, "validation", lambda folder: validation)
    args = argparse.Namespace(seed=0, data_dir=tmp_path, cache_dir=None)
    model, x, about = fit_cases.photographs(("small.keras",), 36, fit_cases.squeezenet_inputs)(args)
    numbers = np.linspace(0, 69, 36).round()
    assert x.shape == (36, 6, 4, 3) and x.dtype == np.float32 and about == "small, photographs of ILSVRC2012"
    expected = numbers[:, None] + [0 - 104, 1 - 117, 2 - 123]  # blue first
    np.testing.assert_allclose(x, np.broadcast_to(expected[:, None, None], x.shape), atol=1e-4)
    assert model.output_shape == (None, 2)
    np.testing.assert_allclose(fit_cases.lite0_inputs(np.float32([127, 255])), [0, 1])


def test_the_cnn_is_trained_where_mnist_is_there_and_random_elsewhere(monkeypatch, tmp_path):
    model, x, about = fit_cases.cnn(OPTIONS)
    again, same, _ = fit_cases.cnn(OPTIONS)
    assert x.shape == (5000, 28, 28, 1) and "random" in about and (x == same).all()
    assert all((a == b).all() for a, b in zip(model.get_weights(), again.get_weights(), strict=True))

    images = np.random.default_rng(0).integers(0, 256, (5003, 28, 28), np.uint8)
    labels = np.zeros(5003, np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images[:1], y_test=labels[:1])
    asked = []

    def trained(*words, **options):
        asked.append((words[0], words[2], options["seed"]))
        return model, {"accuracy": 0.5}

    monkeypatch.setattr(fit_cases.models, "trained", trained)
    args = argparse.Namespace(seed=3, data_dir=tmp_path, cache_dir=None)
    found = fit_cases.cnn(args)
    assert found.about == "the CNN of Table 4 (accuracy 0.5000), images of MNIST" and found.model is model
    np.testing.assert_array_equal(found.x[..., 0], data.load("mnist", tmp_path).x_train[:5000])
    fit_cases.prepare(["resnet50-pixels"], args)
    assert asked == [("CNN-M", tmp_path / "models", 3)]
    fit_cases.prepare(["cnn-10"], args)
    assert len(asked) == 2


def test_the_environment_reaches_the_process(monkeypatch):
    def run(command, env, **options):
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps([command[3:], env]))

    monkeypatch.setattr(processes.subprocess, "run", run)
    assert processes.in_own_process("fit", {"A": "1"}, case_of="cnn-1") == [["fit", "--case-of", "cnn-1"], {"A": "1"}]
    assert processes.in_own_process("fit", case_of="cnn-1")[1] is None
