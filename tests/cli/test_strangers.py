"""Models and data of strangers: no code of theirs is run, and what is mistaken for data is named."""

import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

from mipin_keras.cli import files as files_module
from tests.cli.test_errors import refused
from tests.networks import with_weights

L = keras.layers


@pytest.fixture
def evil(tmp_path):
    """A model whose Lambda leaves a trace, saved in both formats, and where the trace would be."""
    trace = tmp_path / "trace"
    code = f"lambda x: (__import__('os').makedirs({str(trace)!r}, exist_ok=True), x)[1]"
    layers = [keras.Input((7, 6, 1)), L.Lambda(eval(code))]
    model = with_weights(keras.Sequential([*layers, L.Flatten(), L.Dense(3)]))
    for ending in ("keras", "h5"):
        model.save(tmp_path / f"evil.{ending}")
    trace.rmdir()
    return tmp_path, trace


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_models_code_is_not_run(ending, evil, run):
    folder, trace = evil
    assert refused(run(model=folder / f"evil.{ending}"), f"evil.{ending}", "--trust-model", "code")
    assert not trace.exists()


def test_the_old_format_is_refused_by_a_keras_that_would_run_it(evil, run, monkeypatch):
    folder, trace = evil
    loaded = []
    monkeypatch.setattr(keras.models, "load_model", lambda *args, **kwargs: loaded.append(kwargs) or 1 / 0)
    for version in ("3.5.0", "3.11.2", "3.9"):
        monkeypatch.setattr(keras, "__version__", version)
        assert refused(run(model=folder / "evil.h5"), "3.11.3", "--trust-model", "evil.h5")
    assert not loaded
    for version in ("3.11.3", "3.12.0.dev1", "4.0.0"):
        monkeypatch.setattr(keras, "__version__", version)
        assert refused(run(model=folder / "evil.h5"), "ZeroDivisionError")
    assert [kwargs["safe_mode"] for kwargs in loaded] == [True] * 3


def test_a_model_that_is_trusted_is_loaded(files, run, monkeypatch):
    asked, load = [], keras.models.load_model
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **kwargs: asked.append(kwargs) or load(*a, **kwargs))
    assert run("--trust-model")[0] == run()[0] == 0
    assert [kwargs["safe_mode"] for kwargs in asked] == [False, True]
    monkeypatch.setattr(keras, "__version__", "3.5.0")
    keras.models.load_model(files / "net.keras").save(files / "net.h5")
    assert files_module.load_model(files / "net.h5", trust=True).name


# Each imports TensorFlow in a process of its own.
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "mipin_keras"],
        *(pytest.param(more, marks=pytest.mark.medium)
          for more in (["-mmipin_keras"], ["-um", "mipin_keras"], ["-Bummipin_keras"])),
    ],
)  # fmt: skip
@pytest.mark.medium
def test_nothing_is_imported_from_the_working_directory(command, tmp_path):
    """Where ``mipin`` would not: a file named as a module that the package imports, first or late."""
    root = str(pathlib.Path(__file__).parents[2])
    for name in ("json", "keras", "numpy", "matplotlib", "inspect", "argparse", "difflib"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working directory was run')")
    done = subprocess.run(
        [sys.executable, *command, "analyzers"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0 and "mipin: MIP-IN" in done.stdout, done.stdout + done.stderr


@pytest.mark.medium
def test_another_module_keeps_its_working_directory(tmp_path):
    root = str(pathlib.Path(__file__).parents[2])
    (tmp_path / "mine.py").write_text("import mipin_keras, beside; print(beside.__name__)")
    (tmp_path / "beside.py").write_text("")
    for command in (["-m", "mine"], ["mine.py"], ["-c", "import mine"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
        assert done.stdout.strip() == "beside", done.stderr


BEGINNINGS = {
    "a JPEG photograph": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "a PNG image": b"\x89PNG\r\n\x1a\n",
    "a pickle": pickle.dumps({"x": 1}),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "something else": b"hello",
}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_what_is_no_array_is_named_and_never_loaded_unsafely(kind, ending, run, tmp_path):
    path = tmp_path / f"photograph.{ending}"
    path.write_bytes(BEGINNINGS[kind])
    result = run(explain=path)
    assert refused(result, "--explain", path.name, kind, "numpy.save")
    assert "pickle" not in result[2] or kind == "a pickle"


def test_objects_are_refused_without_advice_to_load_them_unsafely(run, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object))
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], object))
    for ending in ("npy", "npz"):
        result = run(explain=tmp_path / f"objects.{ending}")
        assert refused(result, "holds Python objects, not numbers") and "allow_pickle" not in result[2]
