"""The command line, in this process: what it writes and says."""

import json

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras.cli.main import main
from mipin_keras.metrics import completeness


def library(files, **options):
    """The same through the library: analyzer, and the inputs to explain."""
    model = keras.models.load_model(files / "net.keras")
    data = np.load(files / "data.npz")
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0, **options)
    return analyzer.fit(data["x_train"], batch_size=128), data["x_test"]


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.medium
def test_it_does_what_the_library_does(run, files, tmp_path):
    status, out, err, found = run("--max-pictures", 10)
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
@pytest.mark.few(2)
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


def test_reduced_to_pixels(run, files, tmp_path):
    status, _, err, found = run("--input-layer", "pool", "--reduce", "relu_mean")
    assert (status, err) == (0, "")
    analyzer, x = library(files, input_layer="pool")
    close(found["attribution"], analyzer.analyze(x, reduce="relu_mean"))
    assert found["attribution"].shape == (10, 7, 6) and found["source_signal"].shape == (10, 2, 2, 3)
    assert json.loads(str(found["about"]))["reduce"] == "relu_mean"
    assert (tmp_path / "out" / "00000.png").is_file()


def test_a_fit_goes_on_from_its_checkpoint(run, tmp_path):
    flags = ["--checkpoint", tmp_path / "kept", "--memory", 0.5]
    _, out, _, first = run(*flags)
    assert "going on" not in out
    status, out, _, again = run(*flags)
    assert status == 0 and "going on from" in out
    assert np.array_equal(first["attribution"], again["attribution"])
    status, _, err, _ = run(*flags, "--ridge", 0.5)
    assert status == 2 and "ridge" in err


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


def test_which_array(run):
    assert "'x_test'" in run()[1]
    assert "'other'" in run("--explain-key", "other", "--fit-key", "x_train")[1]
    assert run(explain="one.npz")[0] == 0


# Pictures


def test_the_number_of_pictures(run, tmp_path):
    status, out, _, _ = run("--max-pictures", 3, "--cmap", "Greys")
    assert status == 0 and "drew 3 pictures" in out and "first of 10" in out
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_no_pictures(run, tmp_path):
    assert "drew no pictures" in run("--max-pictures", 0)[1]
    assert not list((tmp_path / "out").glob("*.png"))


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
        assert (f"{name}: " in out) or (name.startswith("innvestigate:") and f" {name}" in out)
    for option in mipin_keras.options_of("mipin"):
        assert option in out


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "grad_cam"])
def test_a_method_that_needs_no_fit(run, files, name):
    status, out, err, found = run("--method", name, fit=None)
    assert (status, err) == (0, "") and "fitting" not in out and "no source signals" in out
    model, x = keras.models.load_model(files / "net.keras"), np.load(files / "data.npz")["x_test"]
    close(found["attribution"], mipin_keras.create_analyzer(name, model).analyze(x))
    status, _, err, _ = run("--method", name)
    assert status == 2 and f"as {name!r} needs no fit, received --fit" in err and "leave out --fit" in err
    status, _, err, _ = run("--method", name, "--save-fit", files / "none.npz", fit=None)
    assert status == 2 and "leave out --save-fit" in err and not (files / "none.npz").exists()


def test_a_method_that_learns_other_than_mipin(run, tmp_path):
    status, _, _, found = run("--method", "pattern.attribution", "--save-fit", tmp_path / "fit.npz")
    again = run("--method", "pattern.attribution", "--load-fit", tmp_path / "fit.npz", fit=None)[3]
    assert status == 0 and np.array_equal(found["attribution"], again["attribution"])
