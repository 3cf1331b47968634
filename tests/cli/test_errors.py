"""The command line's errors: status 2 and one line that says what to do."""

import keras
import numpy as np
import pytest

from mipin_keras.cli.main import main
from tests.networks import cnn, with_weights

SHAPE = (7, 6, 1)


def refused(result, *words):
    """Status 2 and one line on stderr with all of these words."""
    status, _, err, _ = result
    assert status == 2
    assert err.startswith("mipin: error: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert word in err
    return True


def test_files_that_are_not_there(run, files):
    assert refused(run(model="none.keras"), "none.keras", "there is no file; check the path")
    assert refused(run(fit="none.npz"), "--fit", "none.npz")
    assert refused(run(explain="none.npz"), "--explain", "none.npz")
    assert refused(run("--load-fit", "none.npz", fit=None), "none.npz")


def test_files_that_are_none(run, tmp_path):
    for name in ("bad.npz", "bad.keras"):
        (tmp_path / name).write_bytes(b"hello")
    assert refused(run(fit=tmp_path / "bad.npz"), "--fit", "bad.npz")
    assert refused(run(explain=tmp_path / "bad.npz"), "--explain", "bad.npz")
    assert refused(run("--load-fit", tmp_path / "bad.npz", fit=None), "bad.npz")
    assert refused(run(model=tmp_path / "bad.keras"), "bad.keras")
    assert refused(run("--explain-key", "z"), "--explain-key", "'z'", "'x_train'")


def test_a_module_with_layers_of_ones_own(run, tmp_path, monkeypatch, rng):
    (tmp_path / "my_doubling.py").write_text(
        "import keras, mipin_keras\n"
        "@keras.saving.register_keras_serializable(package='test_main')\n"
        "class Doubling(keras.layers.Layer):\n"
        "    def call(self, x):\n        return x * 2\n"
        "@mipin_keras.register_inverse(Doubling)\n"
        "class Halving(mipin_keras.Inverse):\n"
        "    def source(self, signal, record, weights):\n        return signal / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rng.standard_normal((20, 5)))
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_doubling  # type: ignore[import-not-found]

    layers = [keras.Input((5,)), my_doubling.Doubling(), keras.layers.Dense(3)]
    with_weights(keras.Sequential(layers)).save("doubling.keras")
    x = tmp_path / "x.npy"
    status, _, err, _ = run("--import", "my_doubling", model=tmp_path / "doubling.keras", fit=x, explain=x)
    assert (status, err) == (0, "")
    assert refused(run("--import", "no_such_module"), "no_such_module")


def test_data_that_does_not_fit_the_model(run, tmp_path):
    assert refused(run(explain="flat.npy"), "--explain", "flat.npy", "(batch, 7, 6, 1)", "(40, 12)")
    assert refused(run(fit="flat.npy"), "--fit", "flat.npy", "(batch, 7, 6, 1)")
    np.save(tmp_path / "nan.npy", np.full((2, *SHAPE), np.nan))
    assert refused(run(explain=tmp_path / "nan.npy"), "nan.npy", "finite")
    np.save(tmp_path / "none.npy", np.zeros((0, *SHAPE)))
    assert refused(run(explain=tmp_path / "none.npy"), "at least one sample")
    np.save(tmp_path / "text.npy", np.full((2, *SHAPE), "a"))
    assert refused(run(explain=tmp_path / "text.npy"), "numbers")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--input-layer", "none"], ["'none'", "pool"]),
        (["--output-layer", "none"], ["'none'", "pool"]),
        (["--output-layer", "pool"], ["(batch, units)"]),
        (["--method", "mipim"], ["'mipim'", "'mipin'"]),
        (["--option", "nothing=1"], ["'nothing'", "ridge"]),
        (["--option", "ridge"], ["KEY=VALUE"]),
        (["--option", "classes=1"], ["received classes=, which has a flag of its own"]),
        (["--ridge", "-1"], ["ridge", "-1"]),
        (["--ridge", "x"], ["ridge"]),
        (["--global", "--mask-input"], ["mask_input"]),
        (["--classes", "0,x"], ["0,x"]),
        (["--classes", "7"], ["7", "0 to 2"]),
        (["--neuron", "7"], ["7", "0 to 2"]),
        (["--neuron", "2", "--classes", "0"], ["[2]", "--classes"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--max-pictures", "-1"], ["--max-pictures"]),
        (["--cmap", "jet"], ["jet", "PuOr_r"]),
        (["--bands", "0,1"], ["three channels", "'0,1'"]),
        (["--bands", "1"], ["--bands 1", "(10, 7, 6, 1)"]),
        (["--samples", "some"], ["some", "class"]),
        (["--reduce", "median"], ["median", "relu_mean"]),
        (["--reduce", "mean", "--input-layer", "flatten"], ["reduce=", "(batch, 12)"]),
        (["--memory", "-1"], ["memory", "-1"]),
        (["--checkpoint", "d", "--method", "pattern.net"], ["'pattern.net' has no checkpoint", "--checkpoint"]),
        (["--nonsense"], ["--nonsense", "--help"]),
        (["--load-fit", "x.npz"], ["one of --fit", "--load-fit", "received both; leave one out"]),
    ],
)
def test_options_that_cannot_be(run, tmp_path, flags, words):
    assert refused(run(*flags), *words)
    assert not (tmp_path / "out" / "attributions.npz").exists()


def test_neither_fit_nor_load_fit(run):
    assert refused(run(fit=None), "one of --fit", "--load-fit", "'mipin' needs a fit, received neither")


@pytest.mark.parametrize(
    "flags", [["--classes", "0"], ["--save-fit", "f.npz"], ["--fit-key", "x"], ["--checkpoint", "d"]]
)
def test_what_a_loaded_fit_leaves_no_choice_of(run, tmp_path, flags):
    run("--save-fit", tmp_path / "fit.npz")
    assert refused(run("--load-fit", tmp_path / "fit.npz", *flags, fit=None), flags[0])


def test_a_fit_of_another_model_or_method(run, tmp_path):
    run("--save-fit", tmp_path / "fit.npz")
    other = tmp_path / "other.keras"
    cnn(SHAPE, seed=1).save(other)
    assert refused(run("--load-fit", tmp_path / "fit.npz", model=other, fit=None), "another model")
    assert refused(
        run("--load-fit", tmp_path / "fit.npz", "--method", "mipin.trained", fit=None),
        "a fit of 'mipin.trained'",
        "'mipin'",
    )


def test_a_model_that_gives_nan(run, tmp_path):
    model = cnn(SHAPE)
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    assert refused(run(model=tmp_path / "nan.keras"), "NaN", "weights")


def test_a_folder_that_cannot_be_made(files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    data = str(files / "data.npz")
    status = main(["explain", str(files / "net.keras"), "--fit", data, "--explain", data, "--out", f"{tmp_path}/file"])
    assert refused((status, "", capsys.readouterr().err, None), "file")


def test_an_interrupted_run(run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mipin_keras.mipin.analyzer.MIPIN.fit", interrupt)
    status, _, err, found = run()
    assert status == 130 and err == "mipin: interrupted\n" and found is None


def test_a_traceback_can_be_asked_for(run, monkeypatch):
    monkeypatch.setenv("MIPIN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        run(model="none.keras")
