"""The command line, in this process: what it writes, what it says, and its errors, each one line."""

import json

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras.__main__ import main
from mipin_keras.metrics import completeness
from tests.networks import cnn, mlp, samples, with_weights

SHAPE = (7, 6, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with two models and their data: net.keras with data.npz, flat.keras with flat.npy."""
    folder = tmp_path_factory.mktemp("files")
    x = samples(SHAPE, 200)[:60]  # the model takes some for each class; some pixels are 0
    cnn(SHAPE).save(folder / "net.keras")
    mlp(12).save(folder / "flat.keras")
    np.savez(folder / "data.npz", x_train=x[:50], y_train=np.arange(50), x_test=x[50:], other=x[:3])
    np.savez(folder / "one.npz", anything=x[50:])
    np.save(folder / "flat.npy", samples((12,), 40).astype("float64"))
    return folder


@pytest.fixture
def run(files, tmp_path, capsys):
    """Run ``mipin explain`` on the convolutional network; returns status, stdout, stderr and what was written."""

    def call(*more, model="net.keras", fit="data.npz", explain="data.npz"):
        argv = ["explain", str(files / model), "--explain", str(files / explain), "--out", str(tmp_path / "out")]
        argv += ["--fit", str(files / fit)] if fit else []
        status = main([*argv, *map(str, more)])
        said = capsys.readouterr()
        path = tmp_path / "out" / "attributions.npz"
        return status, said.out, said.err, dict(np.load(path)) if path.is_file() else None

    return call


def library(files, **options):
    """The same through the library: analyzer, and the inputs to explain."""
    model = keras.models.load_model(files / "net.keras")
    data = np.load(files / "data.npz")
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0, **options)
    return analyzer.fit(data["x_train"], batch_size=128), data["x_test"]


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_it_does_what_the_library_does(run, files, tmp_path):
    status, out, err, found = run()
    assert (status, err) == (0, "")
    analyzer, x = library(files)
    logits = analyzer.logits(x)
    close(found["attribution"], analyzer.analyze(x))
    close(found["source_signal"], analyzer.source_signal(x))
    close(found["logits"], logits)
    close(found["source_logits"], analyzer.logits(analyzer.source_signal(x)))
    assert np.array_equal(found["neuron"], logits.argmax(axis=1))
    about = json.loads(str(found["about"]))
    assert about["method"] == "mipin" and about["model"] == "net.keras"
    assert about["mipin_keras"] == mipin_keras.__version__
    assert str(completeness(analyzer, x)) in out
    pictures = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert pictures == [*(f"{i:05d}.png" for i in range(10)), "attributions.npz"]


def test_only_the_neurons_that_are_explained_are_fitted(run, files, tmp_path):
    _, _, _, found = run("--save-fit", tmp_path / "fit.npz")
    needed = sorted(set(found["neuron"].tolist()))
    model = keras.models.load_model(files / "net.keras")
    assert mipin_keras.load_analyzer(tmp_path / "fit.npz", model).classes == needed
    run("--save-fit", tmp_path / "all.npz", "--classes", "all")
    assert mipin_keras.load_analyzer(tmp_path / "all.npz", model).classes == [0, 1, 2]


def test_a_saved_fit_is_taken_up_again(run, tmp_path):
    _, _, _, fitted = run("--save-fit", tmp_path / "fit.npz", "--ridge", 0.5)
    status, out, _, loaded = run("--load-fit", tmp_path / "fit.npz", fit=None)
    assert status == 0 and "fitting" not in out
    assert np.array_equal(fitted["attribution"], loaded["attribution"])
    assert json.loads(str(loaded["about"]))["options"]["ridge"] == 0.5
    status, _, err, _ = run("--load-fit", tmp_path / "fit.npz", "--ridge", 0.1, fit=None)
    assert status == 2 and "other options" in err


OPTIONS = {
    "samples": (["--samples", "class", "--neuron", "1"], {"samples": "class"}),
    "ridge": (["--ridge", "10"], {"ridge": 10.0}),
    "global": (["--global"], {"forward_relu": False}),
    "mask input": (["--mask-input"], {"mask_input": True}),
    "input layer": (["--input-layer", "pool"], {"input_layer": "pool"}),
    "any other": (["--option", "rows=100", "--option", "seed=3"], {"rows": 100, "seed": 3}),
    "text": (["--option", "conv_solver=trained", "--option", "epochs=1"], {"conv_solver": "trained", "epochs": 1}),
}


@pytest.mark.parametrize("flags", OPTIONS)
def test_each_option_is_that_of_the_library(run, files, flags):
    flags, options = OPTIONS[flags]
    status, _, err, found = run("--neuron", 1, *flags)
    assert (status, err) == (0, "")
    analyzer, x = library(files, classes=[1], neuron_selection_mode="index", **options)
    close(found["attribution"], analyzer.analyze(x, 1))
    assert (found["neuron"] == 1).all()
    plain, _ = library(files, classes=[1], neuron_selection_mode="index")
    attribution = plain.analyze(x, 1)
    assert found["attribution"].shape != attribution.shape or not np.allclose(found["attribution"], attribution)


def test_an_output_layer(run, files):
    status, _, _, found = run("--output-layer", "dense1", "--classes", "0,1", "--neuron", 0, "--verbose", 0,
                              model="flat.keras", fit="flat.npy", explain="flat.npy")  # fmt: skip
    assert status == 0
    assert found["logits"].shape == (40, 10)


def test_a_method_by_name(run):
    _, _, _, found = run("--method", "mipin.trained", "--option", "epochs=1")
    about = json.loads(str(found["about"]))
    assert about["method"] == "mipin.trained" and about["options"]["conv_solver"] == "trained"


def test_an_input_layer_has_no_completeness(run, tmp_path):
    _, out, _, found = run("--input-layer", "pool")
    assert "completeness: none" in out and "source_logits" not in found
    assert found["source_signal"].shape == (10, 2, 2, 3)
    assert (tmp_path / "out" / "00000.png").is_file()


def test_how_much_it_says(run):
    assert "fitting" in run()[1]
    assert len(run("--verbose", 0)[1].splitlines()) == 3
    assert "class" in run("--verbose", 2)[1]


def test_which_array(run, tmp_path, files):
    assert "'x_test'" in run()[1]
    assert "'other'" in run("--explain-key", "other", "--fit-key", "x_train")[1]
    assert run(explain="one.npz")[0] == 0
    status, _, err, _ = run("--explain-key", "z")
    assert status == 2 and "'x_train'" in err and "'z'" in err
    np.savez(tmp_path / "two.npz", a=np.zeros((2, *SHAPE)), b=np.zeros((2, *SHAPE)))
    status, _, err, _ = run(explain=tmp_path / "two.npz")
    assert status == 2 and "['a', 'b']" in err and "--explain-key" in err
    status, _, err, _ = run("--fit-key", "x", model="flat.keras", fit="flat.npy", explain="flat.npy")
    assert status == 2 and "--fit-key is for .npz" in err


# Pictures


def test_the_number_of_pictures(run, tmp_path):
    status, out, _, _ = run("--max-pictures", 3, "--cmap", "Greys")
    assert status == 0 and "drew 3 pictures" in out and "first of 10" in out
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_no_pictures(run, tmp_path):
    assert "drew no pictures" in run("--max-pictures", 0)[1]
    assert not list((tmp_path / "out").glob("*.png"))


def test_features_in_a_row_are_drawn(run, tmp_path):
    status, out, _, _ = run("--max-pictures", 1, "--cmap", "cividis", model="flat.keras", fit="flat.npy",
                            explain="flat.npy")  # fmt: skip
    assert status == 0 and (tmp_path / "out" / "00000.png").is_file()


def test_what_is_no_picture_is_not_drawn(run, tmp_path, rng):
    layers = [keras.Input((3, 3, 3, 2)), keras.layers.Flatten(), keras.layers.Dense(2)]
    with_weights(keras.Sequential(layers)).save(tmp_path / "volume.keras")
    np.save(tmp_path / "volume.npy", rng.random((30, 3, 3, 3, 2)))
    status, out, _, _ = run(
        model=tmp_path / "volume.keras", fit=tmp_path / "volume.npy", explain=tmp_path / "volume.npy"
    )
    assert status == 0 and "drew no pictures" in out


# Errors


def refused(result, *words):
    """Status 2 and one line on stderr with all of these words."""
    status, _, err, _ = result
    assert status == 2
    assert err.startswith("mipin: error: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert word in err
    return True


def test_files_that_are_not_there(run, files):
    assert refused(run(model="none.keras"), "none.keras", "found none")
    assert refused(run(fit="none.npz"), "--fit", "none.npz")
    assert refused(run(explain="none.npz"), "--explain", "none.npz")
    assert refused(run("--load-fit", "none.npz", fit=None), "none.npz")


@pytest.mark.parametrize("content", [b"", b"hello", "truncated", "pickled"])
def test_files_that_are_no_arrays(run, files, tmp_path, content):
    path = tmp_path / "bad.npz"
    if content == "pickled":
        np.savez(path, x=np.array([{}, 1], dtype=object))
    elif content == "truncated":
        path.write_bytes((files / "data.npz").read_bytes()[:-100])
    else:
        path.write_bytes(content)
    assert refused(run(fit=path), "--fit", "bad.npz", "expected an .npz or .npy file")
    assert refused(run(explain=path), "--explain", "bad.npz")


@pytest.mark.parametrize("name", ["bad.keras", "bad.h5", "bad.txt"])
def test_files_that_are_no_models(run, tmp_path, name):
    (tmp_path / name).write_bytes(b"hello")
    assert refused(run(model=tmp_path / name), name)


class Mine(keras.layers.Layer):
    """A layer that no loader knows."""

    __module__ = "a_module_that_is_not_there"

    def call(self, x):
        return x * 2


def test_models_with_objects_of_ones_own(run, tmp_path):
    keras.Sequential([keras.Input((12,)), Mine(), keras.layers.Dense(2)]).save(tmp_path / "own.keras")
    assert refused(run(model=tmp_path / "own.keras"), "--import MODULE", "register_keras_serializable")
    model = keras.Sequential([keras.Input((12,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(2)])
    model.save(tmp_path / "lambda.keras")
    assert refused(run(model=tmp_path / "lambda.keras"), "Lambda")


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
        (["--option", "classes=1"], ["flag of its own"]),
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
        (["--samples", "some"], ["some", "class"]),
        (["--nonsense"], ["--nonsense", "--help"]),
        (["--load-fit", "x.npz"], ["one of --fit", "--load-fit"]),
    ],
)
def test_options_that_cannot_be(run, tmp_path, flags, words):
    assert refused(run(*flags), *words)
    assert not (tmp_path / "out" / "attributions.npz").exists()


def test_neither_fit_nor_load_fit(run):
    assert refused(run(fit=None), "--fit", "--load-fit")


@pytest.mark.parametrize("flags", [["--classes", "0"], ["--save-fit", "f.npz"], ["--fit-key", "x"]])
def test_what_a_loaded_fit_leaves_no_choice_of(run, tmp_path, flags):
    run("--save-fit", tmp_path / "fit.npz")
    assert refused(run("--load-fit", tmp_path / "fit.npz", *flags, fit=None), flags[0])


def test_a_fit_of_another_model_or_method(run, tmp_path):
    run("--save-fit", tmp_path / "fit.npz")
    other = tmp_path / "other.keras"
    cnn(SHAPE, seed=1).save(other)
    assert refused(run("--load-fit", tmp_path / "fit.npz", model=other, fit=None), "another model")
    assert refused(run("--load-fit", tmp_path / "fit.npz", "--method", "mipin.trained", fit=None), "mipin.trained")


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

    monkeypatch.setattr("mipin_keras.inverse.analyzer.MIPIN.fit", interrupt)
    status, _, err, found = run()
    assert status == 130 and err == "mipin: interrupted\n" and found is None


def test_a_traceback_can_be_asked_for(run, monkeypatch):
    monkeypatch.setenv("MIPIN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        run(model="none.keras")


# The rest


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert mipin_keras.__version__ in capsys.readouterr().out


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "--help"])
    assert stopped.value.code == 0
    assert "--fit FIT.npz" in capsys.readouterr().out


def test_no_command(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("mipin: error: ")


def test_the_list_of_analyzers(capsys):
    assert main(["analyzers"]) == 0
    out = capsys.readouterr().out
    for name in mipin_keras.analyzers():
        assert f"{name}: " in out
    for option in mipin_keras.options_of("mipin"):
        assert option in out
