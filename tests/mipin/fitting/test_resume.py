"""A fit that is interrupted and goes on from its checkpoint: the same arrays, bit for bit, or a refusal."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mipin_keras import create_analyzer
from mipin_keras.mipin.fitting.checkpoint import Checkpoint
from mipin_keras.saving import lock
from tests.networks import cnn, mlp, samples

X = samples((12,), 150)
IMAGES = samples((7, 6, 2), 60)
ROOT = pathlib.Path(__file__).parents[3]

# Model, data, and options of a fit of each sort: exact, sampled, counted by class, trained.
FITS = {
    "dense": (mlp, X, {}),
    "own samples": (mlp, X, {"samples": "class"}),
    "sampled": (cnn, IMAGES, {"rows": 300, "samples": "class"}),
    "trained": (cnn, IMAGES, {"conv_solver": "trained", "epochs": 1}),
}


def mipin(model, **options):
    return create_analyzer("mipin", model, **{"verbose": 0, **options})


def arrays_of(analyzer, folder):
    """What a fit found, as it is saved."""
    with np.load(analyzer.save(folder / "saved.npz"), allow_pickle=False) as file:
        found = {name: file[name] for name in file.files if name != "header"}
        about = json.loads(str(file["header"][()]))["about"]
    (folder / "saved.npz").unlink()
    return found, about


def same(one, other):
    (arrays, about), (wanted, told) = one, other
    return (
        about == told
        and arrays.keys() == wanted.keys()
        and all(arrays[name].tobytes() == wanted[name].tobytes() for name in wanted)
    )


class Reading:
    """A function that returns a fresh iterator, and that somebody stops after so many batches."""

    def __init__(self, x, size=20, stop=None):
        self.x, self.size, self.stop, self.read = x, size, stop, 0

    def __call__(self):
        for i in range(0, len(self.x), self.size):
            if self.read == self.stop:
                raise KeyboardInterrupt
            self.read += 1
            yield self.x[i : i + self.size]


def stop_after(layers, patch):
    """Let a fit be interrupted once so many layers are written."""
    write, written = Checkpoint.write, []

    def stopping(self, *args):
        write(self, *args)
        written.append(args[0])
        if len(written) == layers:
            raise KeyboardInterrupt

    patch.setattr(Checkpoint, "write", stopping)


@pytest.mark.parametrize(
    "name", ["dense", "sampled", *(pytest.param(name, marks=pytest.mark.medium) for name in ("own samples", "trained"))]
)
@pytest.mark.medium
def test_interrupted_anywhere_and_resumed_it_finds_the_same(name, tmp_path):
    model, x, options = FITS[name]
    through = Reading(x)  # without memory every layer takes passes of its own
    wanted = arrays_of(mipin(model(), **options).fit(through, memory=0), tmp_path)
    checked, whole = Reading(x), tmp_path / "whole"
    assert same(arrays_of(mipin(model(), **options).fit(checked, memory=0, checkpoint=whole), tmp_path), wanted)
    assert checked.read <= through.read + 1  # the first batch tells whose the checkpoint is
    pieces = len(list((tmp_path / "whole").glob("layer-*.npz")))
    trained = "conv_solver" in options  # whose classes go through the data together
    assert pieces == len(wanted[1]["fit_report"]) - trained * 2 > 1
    finished = set()
    for stop in np.linspace(0, through.read - 1, 3, dtype=int).tolist():
        folder = tmp_path / f"stopped{stop}"
        analyzer = mipin(model(), **options)
        with pytest.raises(KeyboardInterrupt):
            analyzer.fit(Reading(x, stop=stop), memory=0, checkpoint=folder)
        assert not analyzer.fitted
        done = len(list(folder.glob("layer-*.npz")))
        finished.add(done)
        rest = Reading(x)
        resumed = mipin(model(), **options).fit(rest, memory=0, checkpoint=folder)
        assert same(arrays_of(resumed, tmp_path), wanted)
        assert rest.read < through.read or not done
    assert 0 in finished and len(finished) > 1 and max(finished) < pieces


@pytest.mark.parametrize("name", FITS)
@pytest.mark.few(2)
def test_stopped_after_any_layer_on_an_array_it_finds_the_same(name, tmp_path, monkeypatch):
    """An array's number of samples is known: what the network makes of it is kept, and read in one pass."""
    model, x, options = FITS[name]
    wanted = arrays_of(mipin(model(), **options).fit(x), tmp_path)
    for stop in range(1, 1 + len({line["layer"] for line in wanted[1]["fit_report"]})):
        folder = tmp_path / f"stopped{stop}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(stop, patch)
            mipin(model(), **options).fit(x, checkpoint=folder)
        assert len(list(folder.glob("layer-*.npz"))) == stop
        assert same(arrays_of(mipin(model(), **options).fit(x, checkpoint=folder), tmp_path), wanted)


def test_a_finished_fit_is_taken_over_with_a_look_at_the_data(tmp_path):
    wanted = arrays_of(mipin(mlp()).fit(Reading(X), checkpoint=tmp_path / "a"), tmp_path)
    again = Reading(X)
    assert same(arrays_of(mipin(mlp()).fit(again, checkpoint=tmp_path / "a"), tmp_path), wanted)
    assert again.read == 1 + 8  # the first batch, and one pass to see that the others are the same


@pytest.mark.parametrize("done", [1, 2, 3])
@pytest.mark.parametrize("source", [Reading, lambda x: x], ids=["function", "array"])
@pytest.mark.few(2)
def test_data_that_differ_anywhere_are_refused_by_their_batch(source, done, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(done, patch)
        mipin(mlp()).fit(source(X), batch_size=20, checkpoint=tmp_path / "a")
    for row in (20, 149):
        other = X.copy()
        other[row, 3] += 1e-6
        analyzer = mipin(mlp())
        with pytest.raises(ValueError, match=f"expected batch {row // 20 + 1} of 8 .*the checkpoint was learned from"):
            analyzer.fit(source(other), batch_size=20, checkpoint=tmp_path / "a")
        assert not analyzer.fitted
    assert mipin(mlp()).fit(source(X), batch_size=20, checkpoint=tmp_path / "a").fitted


def test_two_fits_in_one_folder_are_refused(tmp_path):
    class Second(Reading):
        def __call__(self):
            if self.read > 8:
                with pytest.raises(ValueError, match="in use by another fit of this process"):
                    mipin(mlp()).fit(Reading(X), checkpoint=tmp_path / "a")
                refused.append(1)
            yield from super().__call__()

    refused = []
    assert mipin(mlp()).fit(Second(X), checkpoint=tmp_path / "a").fitted and refused
    assert not (tmp_path / "a" / lock.NAME).exists()


OLD = ROOT / "tests" / "data" / "version-0.1"


@pytest.mark.parametrize(("name", "size"), [("checkpoint", 60), ("checkpoint-batches", 20)])
def test_a_checkpoint_of_version_0_1_is_gone_on_with(name, size, tmp_path, recwarn):
    x = samples((12,), 60)
    folder = shutil.copytree(OLD / name, tmp_path / "a")
    found = mipin(mlp()).fit(x, batch_size=size, checkpoint=folder).analyze(x[:2])
    np.testing.assert_allclose(found, np.load(OLD / "mipin-map.npy"), rtol=1e-4, atol=1e-4)
    warned = [str(warning.message) for warning in recwarn if "version 0.1" in str(warning.message)]
    assert len(warned) == (size == 20)  # of one batch the first checksum says all
    with pytest.raises(ValueError, match="of another fit: it has other layers, settings or weights"):
        mipin(mlp(seed=4)).fit(x, batch_size=size, checkpoint=folder)
    assert mipin(mlp()).fit(x, batch_size=size, checkpoint=folder).fitted  # what this version added is read again


def test_a_checkpoint_of_version_0_1_that_does_not_say_enough_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mipin_keras.saving.legacy.suffices", lambda graph: False)
    folder = shutil.copytree(OLD / "checkpoint", tmp_path / "a")
    with pytest.raises(ValueError, match=r"version 0\.1, whose files do not say enough of the model: fit again"):
        mipin(mlp()).fit(samples((12,), 60), batch_size=60, checkpoint=folder)


def test_interrupted_twice_and_moved_it_finds_the_same(tmp_path):
    wanted = arrays_of(mipin(mlp()).fit(Reading(X)), tmp_path)
    for stop in (12, 11):
        with pytest.raises(KeyboardInterrupt):
            mipin(mlp()).fit(Reading(X, stop=stop), checkpoint=tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert same(arrays_of(mipin(mlp()).fit(Reading(X), checkpoint=tmp_path / "b"), tmp_path), wanted)


KILLED = """
import pathlib, sys, time
from tests.mipin.fitting.test_resume import Reading, X, mipin, mlp

class Waiting(Reading):
    def __call__(self):
        for x in super().__call__():
            if list(pathlib.Path(sys.argv[1]).glob("layer-*.npz")):
                print("one layer is written", flush=True)
                time.sleep(600)
            yield x

mipin(mlp()).fit(Waiting(X), memory=0, checkpoint=sys.argv[1])
"""


@pytest.mark.medium
def test_killed_half_way_and_resumed_it_finds_the_same(tmp_path):
    folder = tmp_path / "a"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            said = child.stdout.readline()
        finally:
            child.kill()  # SIGKILL: no handler of the child runs
    assert said == "one layer is written\n" and len(list(folder.glob("layer-*.npz"))) == 1
    rest, through = Reading(X), Reading(X)
    found = arrays_of(mipin(mlp()).fit(rest, memory=0, checkpoint=folder), tmp_path)
    assert same(found, arrays_of(mipin(mlp()).fit(through, memory=0), tmp_path))
    assert rest.read < through.read


# Refused


@pytest.fixture
def half(tmp_path, monkeypatch):
    """The folder of a fit that was interrupted after its first layer."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(1, patch)
        mipin(mlp()).fit(Reading(X), checkpoint=tmp_path / "half")
    assert len(list((tmp_path / "half").glob("layer-*.npz"))) == 1
    return tmp_path / "half"


OTHER = X.copy()
OTHER[3, 5] += 1


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (lambda: mipin(mlp(seed=4)), Reading(X), "its weights are others"),
        (lambda: mipin(mlp(hidden=(10, 9))), Reading(X), "it has other layers, or a layer has another setting"),
        (lambda: mipin(mlp(), ridge=0.1), Reading(X), r"options\.ridge was 0\.001, is 0\.1 here"),
        (lambda: mipin(mlp(), samples="class"), Reading(X), r"options\.samples was 'all', is 'class' here"),
        (lambda: mipin(mlp(), seed=1), Reading(X), r"options\.seed was 0, is 1 here"),
        (lambda: mipin(mlp(), rows=None), Reading(X), r"options\.rows was 131072, is None here"),
        (lambda: mipin(mlp(), forward_relu=False), Reading(X), r"options\.forward_relu was True"),
        (lambda: mipin(mlp(), input_layer="dense1"), Reading(X), r"options\.input_layer was None, is 'dense1' here"),
        (lambda: mipin(mlp(), classes=[0, 1]), Reading(X), r"classes was \[0, 1, 2, 3\], is \[0, 1\] here"),
        (lambda: create_analyzer("mipin.trained", mlp(), verbose=0), Reading(X), "name was 'mipin'"),
        (lambda: mipin(mlp()), Reading(OTHER), "its data began with another batch"),
        (lambda: mipin(mlp()), Reading(X, size=30), "its data began with another batch"),
        (lambda: mipin(mlp()), X, r"data\.kind was 'function', is 'array' here"),
    ],
    ids=range(13),
)
@pytest.mark.few(4)
def test_a_checkpoint_of_another_fit_is_refused_before_any_pass(make, data, message, half):
    before = {path: path.read_bytes() for path in half.iterdir()}
    analyzer = make()
    if isinstance(data, Reading):
        data.read, data.stop = 0, 1  # the first batch is all that may be read
    with pytest.raises(ValueError, match=f"of another fit: .*{message}"):
        analyzer.fit(data, checkpoint=half)
    assert not analyzer.fitted
    assert {path: path.read_bytes() for path in half.iterdir()} == before


def test_data_of_another_length_is_refused(half, tmp_path):
    with pytest.raises(ValueError, match="expected 150 samples, as the checkpoint was learned from, received 140"):
        mipin(mlp()).fit(Reading(X[:140]), checkpoint=half)
    mipin(mlp()).fit(X, checkpoint=tmp_path / "array")
    with pytest.raises(ValueError, match=r"data\.samples was 150, is 140 here"):
        mipin(mlp()).fit(X[:140], checkpoint=tmp_path / "array")


def test_what_changes_no_number_is_no_other_fit(half, tmp_path):
    wanted = arrays_of(mipin(mlp()).fit(Reading(X)), tmp_path)
    rest = Reading(X)
    analyzer = mipin(mlp(), verbose=2, neuron_selection_mode=lambda logits: logits.argmin(axis=1))
    analyzer.fit(rest, checkpoint=str(half))
    found = {f"array/{name}": array for name, array in analyzer._state()[0].items()}
    assert same((found, wanted[1]), wanted) and analyzer.fit_report == wanted[1]["fit_report"]


def test_a_damaged_checkpoint_is_refused_by_name(half):
    (path,) = half.glob("layer-*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path.name}, which is of another one or is damaged; delete it"):
        mipin(mlp()).fit(Reading(X), checkpoint=half)
    path.unlink()
    assert mipin(mlp()).fit(Reading(X), checkpoint=half).fitted


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="expected an empty folder or one that a fit wrote"):
        mipin(mlp()).fit(X, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_generator_that_goes_on_cannot_be_resumed(tmp_path):
    def forever():
        while True:
            yield X[:20]

    with pytest.raises(ValueError, match="checkpoint= expected data that starts again, received a generator"):
        mipin(mlp()).fit(forever(), steps=3, checkpoint=tmp_path / "a")
    assert not (tmp_path / "a").exists()
