"""What every analyzer has in common: checks of what comes in, batching, and files."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest

from mipin_keras import Analyzer, NotFittedError, create_analyzer, load_analyzer, registry
from mipin_keras.saving import archive, npz
from tests.networks import cnn, mlp, samples

X = samples((12,), 60)


class Scaled(Analyzer):
    """An analyzer that needs no fit: x times the weight of the explained neuron plus its index."""

    name = "scaled"

    def __init__(self, model, *, scale=1.0, **options):
        super().__init__(model, **options)
        self.scale = scale
        self.options |= {"scale": scale}
        self.seen = []

    def _analyze(self, x, neuron_selection):
        self.seen.append(len(x))
        shares = self.select(self._logits(x).numpy(), neuron_selection)
        return self.scale * x * (shares * np.arange(1, 1 + shares.shape[1])).sum(axis=1, keepdims=True)


@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setitem(registry.ANALYZERS, "scaled", Scaled)
    return Scaled(mlp(), neuron_selection_mode="index")


@pytest.fixture(scope="module")
def fitted():
    return create_analyzer("mipin", mlp(head="softmax"), verbose=0, ridge=0.01).fit(X)


# Analyzing


def test_an_analyzer_without_a_fit_is_always_fitted(scaled):
    assert scaled.fitted and scaled.fit(X) is scaled and scaled.fit_generator(X) is scaled


def test_samples_go_in_batches_and_come_back_in_order(scaled):
    chosen = np.arange(60) % 4
    for size, lengths in ((128, [60]), (60, [60]), (25, [25, 25, 10]), (1, [1] * 60)):
        scaled.seen = []
        found = scaled.analyze(X, chosen, batch_size=size)
        np.testing.assert_allclose(found, X * (1 + chosen[:, None]), rtol=1e-6)
        assert scaled.seen == lengths
    np.testing.assert_allclose(scaled.analyze(X, 2, batch_size=7), 3 * X, rtol=1e-6)
    np.testing.assert_allclose(scaled.analyze(X, [2], batch_size=7), 3 * X, rtol=1e-6)


def test_logits_are_before_the_softmax():
    model = mlp(head="softmax")
    analyzer = Scaled(model)
    found = analyzer.logits(X, batch_size=25)
    assert found.shape == (60, 4) and found.dtype == np.float32
    wanted = keras.ops.softmax(found)
    np.testing.assert_allclose(wanted, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)
    assert (found < 0).any()
    np.testing.assert_array_equal(analyzer.select(found), (found == found.max(axis=1, keepdims=True)))


@pytest.mark.parametrize("method", ["analyze", "logits", "source_signal"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[0], ValueError, r"expected input of shape \(batch, 12\), received \(12,\); add the batch axis"),
        (X[:, :11], ValueError, r"\(batch, 12\), received \(60, 11\)"),
        (X[:, None], ValueError, r"received \(60, 1, 12\)"),
        (X[:0], ValueError, "at least one sample"),
        (X.astype(str), TypeError, "array of numbers"),
        (X.astype(object), TypeError, "array of numbers"),
        (X * 1j, TypeError, "array of numbers"),
        (np.where(X == X[3, 3], np.nan, X), ValueError, "NaN or infinity in 1 of 60 samples, the first at index 3"),
        (np.where(X == X[3, 3], np.inf, X), ValueError, "NaN or infinity"),
    ],
    ids=["rank 1", "columns", "rank 3", "empty", "words", "objects", "complex", "nan", "infinity"],
)
def test_wrong_input_is_refused(fitted, method, x, error, message):
    assert (X == X[3, 3]).sum() == 1
    with pytest.raises(error, match=message):
        getattr(fitted, method)(x)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[:, :11], ValueError, r"expected input of shape \(batch, 12\), received \(60, 11\)"),
        (X[:0], ValueError, "expected at least one sample"),
        (X.astype(str), TypeError, "expected an array of numbers, received strings"),
        (np.full((4, 12), np.nan), ValueError, "received NaN or infinity in 4 of 4 samples"),
        (X[None], ValueError, r"expected input of shape \(batch, 12\), received \(1, 60, 12\)"),
        (None, TypeError, "expected an array of numbers, received None"),
    ],
    ids=["columns", "empty", "words", "nan", "rank 3", "none"],
)
def test_wrong_data_for_a_fit_is_refused(x, error, message):
    analyzer = create_analyzer("mipin", mlp(), verbose=0)
    with pytest.raises(error, match=message):
        analyzer.fit(x)
    assert not analyzer.fitted


@pytest.mark.parametrize("size", [0, -3, 2.0, "4", True])
def test_wrong_batch_sizes_are_refused(fitted, size):
    with pytest.raises(ValueError, match="batch_size to be an integer of at least 1"):
        fitted.analyze(X, batch_size=size)
    with pytest.raises(ValueError, match="batch_size to be an integer of at least 1"):
        create_analyzer("mipin", mlp(), verbose=0).fit(X, batch_size=size)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (None, "needs neuron_selection"),
        ([0, 1], "an int or 60 of them, received 2"),
        (4, "from 0 to 3"),
        (0.5, "integers"),
    ],
)
def test_wrong_selections_are_refused(scaled, selection, message):
    with pytest.raises(ValueError, match=message):
        scaled.analyze(X, selection, batch_size=7)


def test_integers_booleans_and_lists_are_taken(fitted):
    ones = (X > 1).astype("float32")
    wanted = fitted.analyze(ones)
    for x in (X > 1, ones.astype("uint8"), ones.astype("float64"), ones.tolist(), keras.ops.convert_to_tensor(ones)):
        np.testing.assert_allclose(fitted.analyze(x), wanted, rtol=1e-6)


def test_a_mode_is_checked_before_the_model():
    with pytest.raises(ValueError, match="neuron_selection_mode"):
        Scaled(None, neuron_selection_mode="best")


# Files


def contents(path):
    with np.load(path) as file:
        return json.loads(str(file["header"])), {key: file[key] for key in file.files if key != "header"}


def rewritten(path, change=None, **arrays):
    """The file once more, with a changed header and arrays."""
    header, old = contents(path)
    if change is not None:
        header = change(header) or header
    other = path.with_name("other.npz")
    header = {key: value for key, value in header.items() if key not in ("digest", "members")}
    npz.write(other, header, {name.removesuffix(".npy"): array for name, array in (old | arrays).items()})
    return other


@pytest.mark.parametrize("make", [mlp, cnn])
def test_save_and_load_give_the_same_bits(make, tmp_path):
    model = make(head="softmax") if make is mlp else make()
    x = samples(model.input_shape[1:], 50)
    options = {"ridge": 0.5, "classes": [0, 2], "samples": "class", "rows": 200, "mask_input": True, "seed": 3}
    one = create_analyzer("mipin", model, verbose=0, neuron_selection_mode="index", **options).fit(x)
    assert one.save(tmp_path / "fit.npz") == tmp_path / "fit.npz"
    assert os.listdir(tmp_path) == ["fit.npz"]
    by_name = load_analyzer(tmp_path / "fit.npz", model)
    by_hand = create_analyzer("mipin", model, verbose=2, neuron_selection_mode="index", **options)
    assert by_hand.load(str(tmp_path / "fit.npz")) is by_hand
    for other in (by_name, by_hand):
        assert type(other) is type(one) and other.fitted
        for c in (0, 2):
            np.testing.assert_array_equal(other.analyze(x, c), one.analyze(x, c))
            np.testing.assert_array_equal(other.source_signal(x, c), one.source_signal(x, c))
        assert other.fit_report == one.fit_report
        with pytest.raises(NotFittedError, match=r"classes \[1\]"):
            other.analyze(x, 1)
    assert by_name.options == one.options
    # and once more from what was loaded
    by_name.save(str(tmp_path / "again.npz"))
    assert contents(tmp_path / "again.npz")[0] == contents(tmp_path / "fit.npz")[0]


def test_a_file_loads_onto_the_same_model_in_another_process_or_file(fitted, tmp_path):
    fitted.model.save(tmp_path / "model.keras")
    path = fitted.save(tmp_path / "fit.npz")
    model = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(load_analyzer(path, model).analyze(X), fitted.analyze(X), rtol=1e-6)


def test_a_file_is_arrays_and_json(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    header, arrays = contents(path)  # read without pickle
    assert header["name"] == "mipin" and header["options"]["ridge"] == 0.01
    assert {a.dtype for a in arrays.values()} == {np.dtype("float32")}
    assert len(arrays) == 4 * 3 * 2
    assert all(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist())


def test_options_that_do_not_touch_the_fit_may_differ(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    other = load_analyzer(path, fitted.model, neuron_selection_mode="index", verbose=2)
    assert other.neuron_selection_mode == "index" and other.verbose == 2
    top = fitted.logits(X).argmax(axis=1)
    np.testing.assert_allclose(other.analyze(X, top), fitted.analyze(X), rtol=1e-6)
    loaded = load_analyzer(path, fitted.model, neuron_selection_mode=lambda logits: logits.argmax(axis=1))
    np.testing.assert_allclose(loaded.analyze(X), fitted.analyze(X), rtol=1e-6)


def test_other_options_are_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match=r"other options: ridge=0\.01 in the file, 0\.001 here"):
        create_analyzer("mipin", fitted.model, verbose=0).load(path)
    with pytest.raises(ValueError, match="other options: samples='all' in the file, 'class' here"):
        load_analyzer(path, fitted.model, samples="class")
    with pytest.raises(TypeError, match="received 'lambda_', which it has no option for"):
        load_analyzer(path, fitted.model, lambda_=3)


def test_another_model_and_other_weights_are_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    for model in (
        mlp(head="softmax", seed=4),
        mlp(head="softmax", activation="elu"),
        mlp(head="softmax", hidden=(10, 9)),
    ):
        with pytest.raises(ValueError, match="fitted to another model, or to other weights"):
            load_analyzer(path, model)


def test_a_failed_load_keeps_the_fit_there_was(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    before = fitted.analyze(X)
    _, arrays = contents(path)
    name = sorted(arrays)[-1]
    broken = rewritten(path, **{name: arrays[name][:-1]})
    with pytest.raises(ValueError, match="is none or is damaged.*is of shape"):
        fitted.load(broken)
    np.testing.assert_array_equal(fitted.analyze(X), before)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file_is_refused(fitted, tmp_path, share):
    path = fitted.save(tmp_path / "fit.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="that mipin_keras wrote.*none or is damaged"):
        load_analyzer(path, fitted.model)


def test_a_damaged_file_is_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.npz")
    whole = bytearray(path.read_bytes())
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda entry: entry.file_size)
    whole[largest.header_offset + largest.file_size] ^= 1  # one bit, within the numbers
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="none or is damaged"):
        load_analyzer(path, fitted.model)


FOREIGN = {
    "text": lambda path: path.write_text("hello"),
    "npy": lambda path: np.save(path.open("wb"), np.ones(3)),
    "npz": lambda path: np.savez(path, x=np.ones(3)),
    "empty npz": lambda path: np.savez(path),
    "zip": lambda path: zipfile.ZipFile(path, "w").writestr("header.npy", "hello"),
    "other json": lambda path: np.savez(path, header=np.array(json.dumps([1, 2]))),
    "no json": lambda path: np.savez(path, header=np.array("{")),
    "no text": lambda path: np.savez(path, header=np.ones(3)),
    "other magic": lambda path: np.savez(path, header=np.array(json.dumps({"magic": "another", "format": 1}))),
    "magic alone": lambda path: np.savez(
        path, header=np.array(json.dumps({"magic": archive.MAGIC, "format": archive.FORMAT}))
    ),
    "no options": lambda path: np.savez(
        path,
        header=np.array(
            json.dumps(
                {"magic": archive.MAGIC, "format": archive.FORMAT, "name": "mipin", "options": None}
                | {"fingerprint": "", "about": {}}
            )
        ),
    ),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused(fitted, tmp_path, kind):
    path = tmp_path / "foreign.npz"
    FOREIGN[kind](path)
    for load in (lambda: load_analyzer(path, fitted.model), lambda: fitted.load(path)):
        with pytest.raises(ValueError, match="foreign.npz"):
            load()


def test_a_file_that_is_not_there(fitted, tmp_path):
    for load in (lambda: load_analyzer(tmp_path / "no.npz", fitted.model), lambda: fitted.load(tmp_path / "no.npz")):
        with pytest.raises(FileNotFoundError):
            load()


def test_another_layout_is_refused_with_the_version_that_wrote_it(fitted, tmp_path):
    path = rewritten(fitted.save(tmp_path / "fit.npz"), lambda header: header.update(format=99, version="7.0"))
    with pytest.raises(ValueError, match=r"which this version .* reads, .*layout 99 of mipin_keras 7\.0; fit again"):
        load_analyzer(path, fitted.model)


class Trap:
    def __reduce__(self):
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("where", ["header", "array"])
def test_a_pickle_is_never_run(fitted, tmp_path, monkeypatch, where):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = fitted.save(tmp_path / "fit.npz")
    header, arrays = contents(path)
    objects = {"header": np.array(json.dumps(header))} | arrays
    objects["header" if where == "header" else next(iter(arrays))] = np.array([Trap()], object)
    np.savez(path, **objects)
    with pytest.raises(ValueError, match="none or is damaged"):
        load_analyzer(path, fitted.model)
    assert not (tmp_path / "sprung").exists()
    np.load(path, allow_pickle=True)[next(iter(arrays)) if where == "array" else "header"]  # the trap is one
    assert (tmp_path / "sprung").exists()


def test_a_file_of_another_method_is_refused(scaled, fitted, tmp_path):
    path = scaled.save(tmp_path / "scaled.npz")
    with pytest.raises(ValueError, match="expected a file of 'mipin', received one of 'scaled'"):
        fitted.load(path)
    loaded = load_analyzer(path, scaled.model)
    np.testing.assert_array_equal(loaded.analyze(X, 1), scaled.analyze(X, 1))
    path = rewritten(path, lambda header: header.update(name="unheard"))
    with pytest.raises(ValueError, match="name of an analyzer.*received 'unheard'"):
        load_analyzer(path, scaled.model)


@pytest.mark.parametrize("change", [{"about": {}}, {"about": {"fitted": [0, 9], "fit_report": []}}, {"about": None}])
def test_a_file_that_lacks_what_it_should_hold_is_refused(fitted, tmp_path, change):
    path = rewritten(fitted.save(tmp_path / "fit.npz"), lambda header: header.update(change))
    with pytest.raises(ValueError, match="does not hold what a fit|its header lacks"):
        load_analyzer(path, fitted.model)


def test_a_failed_save_leaves_no_file_and_keeps_the_one_before(fitted, tmp_path, monkeypatch):
    path = fitted.save(tmp_path / "fit.npz")
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    for target in (path, tmp_path / "new.npz"):
        with pytest.raises(OSError, match="no space left"):
            fitted.save(target)
    assert os.listdir(tmp_path) == ["fit.npz"] and path.read_bytes() == before


def test_saving_replaces(fitted, tmp_path):
    path = tmp_path / "fit.npz"
    path.write_text("what was there")
    fitted.save(path)
    assert load_analyzer(path, fitted.model).fitted and os.listdir(tmp_path) == ["fit.npz"]


def test_a_name_without_an_ending_stays_as_it_is(fitted, tmp_path):
    assert fitted.save(tmp_path / "fit") == tmp_path / "fit"
    assert load_analyzer(tmp_path / "fit", fitted.model).fitted


def test_saving_makes_the_folder_or_says_that_it_cannot(fitted, tmp_path):
    path = fitted.save(tmp_path / "new" / "folder" / "fit.npz")
    assert load_analyzer(path, fitted.model).fitted
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        fitted.save(tmp_path / "file" / "fit.npz")
    assert sorted(os.listdir(tmp_path)) == ["file", "new"] and os.listdir(path.parent) == ["fit.npz"]


def test_a_callable_cannot_be_saved(tmp_path):
    analyzer = Scaled(mlp(), neuron_selection_mode=lambda logits: 0)
    with pytest.raises(ValueError, match=r"options that a file can hold, received .*neuron_selection_mode"):
        analyzer.save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == []


def test_an_unfitted_analyzer_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        create_analyzer("mipin", mlp()).save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == []


# Memory


@pytest.mark.parametrize(("memory", "size"), [(2.0, 128), (1e-4, 52), (1e-5, 5), (0, 1), (np.float32(1e-5), 5)])
def test_so_many_samples_go_at_once_as_memory_has_room_for(scaled, memory, size):
    scaled._held_at_once, scaled._sample_bytes = 2.0, lambda X: 1024
    x = np.concatenate([X] * 5)
    found = scaled.analyze(x, 1, memory=memory)
    assert scaled.seen == [size] * (300 // size) + [300 % size] * (300 % size > 0)
    np.testing.assert_allclose(found, scaled.analyze(x, 1, batch_size=300), rtol=1e-6)
    scaled.seen = []
    scaled.analyze(x, 1, memory=memory, batch_size=100)  # what is named comes first
    assert scaled.seen == [100, 100, 100]


@pytest.mark.parametrize("memory", [-1, np.nan, "2", None])
def test_wrong_memory_is_refused(scaled, memory):
    with pytest.raises(ValueError, match="memory to be a finite number of at least 0"):
        scaled.analyze(X, 1, memory=memory)


def test_the_size_of_a_sample_is_that_of_all_that_the_network_makes_of_it():
    L = keras.layers
    model = cnn()  # (7, 6, 2), then a convolution and its ReLU (5, 4, 3), a pooling (2, 2, 3), 12 and 3 units
    sizes = 7 * 6 * 2 + 2 * 5 * 4 * 3 + 2 * 2 * 3 + 12 + 3
    x = np.zeros((4, 7, 6, 2), "float32")
    analyzer = create_analyzer("gradient", model)
    assert analyzer._sample_bytes(x) == 4 * sizes and analyzer._batch_size(x, None, 2.0) == 128
    # open axes, of the model and of one that is nested in it, are as large as the samples are
    a = keras.Input((None, None, 2))
    inner = keras.Model(a, L.Conv2D(3, 3)(a))
    for outer in (a, keras.Input((9, 8, 2))):
        model = keras.Model(outer, L.GlobalMaxPooling2D()(inner(outer)))
        analyzer = create_analyzer("gradient", model)
        assert analyzer._sample_bytes(np.zeros((1, 9, 8, 2))) == 4 * (9 * 8 * 2 + 7 * 6 * 3 + 3)
    pooled = create_analyzer("gradient", keras.Model(a, L.GlobalMaxPooling2D()(a)))
    assert pooled._sample_bytes(x) == 4 * (7 * 6 * 2 + 2)
    assert analyzer._batch_size(x, None, 1e300) == 128


@pytest.mark.parametrize("name", ["gradient", "smoothgrad", "lrp.epsilon", "mipin", "pattern.net"])
@pytest.mark.few(2)
def test_memory_changes_no_number(name):
    options = {"verbose": 0} if name in ("mipin", "pattern.net") else {}
    options |= {"augment_by_n": 5} if name == "smoothgrad" else {}
    analyzer = create_analyzer(name, mlp(), **options).fit(X)
    np.testing.assert_allclose(analyzer.analyze(X, memory=0), analyzer.analyze(X), rtol=1e-4, atol=1e-6)
    if name == "mipin":
        found = analyzer.source_signal(X, memory=0), analyzer.source_signal(X, batch_size=60)
        np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)
    if name not in ("smoothgrad", "pattern.net"):
        layers = [analyzer.analyze_layers(X, memory=memory) for memory in (0, 2.0)]
        for layer in layers[0]:
            found = [part[layer].attribution for part in layers]
            np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)
