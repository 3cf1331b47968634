"""Files of others: which array is taken, which model is loaded, and what is refused."""

import keras
import numpy as np
import pytest

from mipin_keras.cli.files import load_model, read_array, write_npz
from tests.networks import cnn

NAMES = ("x", "x_train")


def read(path, key=None):
    return read_array(path, key, "--fit", NAMES)


@pytest.mark.parametrize(
    ("held", "key", "taken"),
    [
        (["anything"], None, "anything"),
        (["a", "x"], None, "x"),
        (["x_train", "x"], None, "x"),
        (["x_train", "y_train"], None, "x_train"),
        (["x", "a"], "a", "a"),
    ],
)
def test_which_array(tmp_path, held, key, taken):
    np.savez(tmp_path / "file.npz", **{name: np.full(3, i) for i, name in enumerate(held)})
    array, label = read(tmp_path / "file.npz", key)
    assert np.array_equal(array, np.full(3, held.index(taken)))
    assert label.endswith(f"file.npz ({taken!r})")


@pytest.mark.parametrize(("held", "key"), [(["a", "b"], None), (["a", "b"], "x"), (["x"], "a"), ([], None)])
def test_no_array_that_fits(tmp_path, held, key):
    np.savez(tmp_path / "file.npz", **{name: np.zeros(3) for name in held})
    with pytest.raises(ValueError, match="--fit-key|hold one array") as caught:
        read(tmp_path / "file.npz", key)
    assert str(held) in str(caught.value) and "file.npz" in str(caught.value)


def test_an_npy_is_not_read_before_it_is_used(tmp_path):
    np.save(tmp_path / "file.npy", np.arange(6.0))
    array, label = read(tmp_path / "file.npy")
    assert isinstance(array, np.memmap) and label.endswith("file.npy")
    with pytest.raises(ValueError, match="--fit-key: expected an .npz file, received .*file.npy"):
        read(tmp_path / "file.npy", "x")


@pytest.mark.parametrize("content", [b"", b"hello", "truncated", "pickled"])
@pytest.mark.parametrize("name", ["bad.npz", "bad.npy"])
def test_files_that_are_no_arrays(tmp_path, content, name):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        values = np.array([{}, 1], dtype=object) if content == "pickled" else np.zeros(100)
        with open(path, "wb") as file:
            np.savez(file, x=values) if name.endswith("z") else np.save(file, values)
        if content == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"--fit: expected an \.npz or \.npy file of numbers, received .*bad\.np"):
        read(path)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(
            FileNotFoundError, match="--fit: expected an .npz or .npy file, received .*, where there is no file"
        ):
            read(path)
        with pytest.raises(FileNotFoundError, match="expected a model file .* where there is no file"):
            load_model(path)


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    write_npz(tmp_path / "file.npz", {"x": np.zeros(3)})

    def fail(file, **arrays):
        file.write(b"a part of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_npz(tmp_path / "file.npz", {"x": np.ones(3)})
    assert np.array_equal(np.load(tmp_path / "file.npz")["x"], np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]


# Models


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_model(tmp_path, name):
    model = cnn()
    model.save(tmp_path / name)
    loaded = load_model(tmp_path / name, trust=name.endswith(".h5"))  # an old Keras would run the code of an .h5
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["bad.keras", "bad.h5", "bad.txt"])
def test_files_that_are_no_models(tmp_path, name):
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(ValueError, match=name):
        load_model(tmp_path / name)


def test_a_truncated_model(tmp_path):
    cnn().save(tmp_path / "model.keras")
    (tmp_path / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:-100])
    with pytest.raises(ValueError, match="none or is truncated"):
        load_model(tmp_path / "model.keras")


class Mine(keras.layers.Layer):
    """A layer that no loader knows."""

    __module__ = "a_module_that_is_not_there"

    def call(self, x):
        return x * 2


def test_objects_of_ones_own(tmp_path):
    keras.Sequential([keras.Input((12,)), Mine(), keras.layers.Dense(2)]).save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match="register_keras_serializable.*--import MODULE"):
        load_model(tmp_path / "own.keras")


def test_a_lambda(tmp_path):
    layers = [keras.Input((12,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="Lambda"):
        load_model(tmp_path / "lambda.keras")
