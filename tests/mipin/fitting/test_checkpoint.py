"""The folder of a fit: what it holds, whose it is, and what interrupts it."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from mipin_keras.mipin.fitting import checkpoint
from mipin_keras.mipin.fitting.checkpoint import Checkpoint
from mipin_keras.saving import atomic, lock, npz

HEADER = {
    "magic": "mipin_keras",
    "format": 1,
    "name": "mipin",
    "options": {"ridge": 1e-3, "samples": "all", "rows": None},
    "classes": [0, 3],
    "fingerprint": "abc",
    "data": {"kind": "array", "samples": 10, "steps": 3, "first": 7},
}
REPORT = [{"class": 0, "layer": "a/b", "mse": 0.1, "rows": 12}, {"class": 3, "layer": "a/b", "mse": 1 / 3, "rows": 12}]


def weights(seed=0):
    random = np.random.default_rng(seed)
    return {
        c: (random.normal(size=(3, 4)).astype("float32"), random.normal(size=4), np.arange(2, dtype="int64"))
        for c in (0, 3)
    }


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        len(found[c]) == len(wanted[c])
        and all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(found[c], wanted[c], strict=True))
        for c in wanted
    )


KEYS = ["dense", "a/b", "a_b", "a%2Fb", "A/b", "../up", ".", "..", "", "with space", "größe/层", "a\\b:*?\n"]
KEYS += ["n" * 300, "n" * 301]


def test_what_is_written_is_loaded_bit_for_bit(tmp_path):
    first = Checkpoint(tmp_path / "new" / "folder", HEADER)
    assert first.load() == {} and first.state() == {}
    for i, key in enumerate(KEYS):
        first.write(key, weights(i), REPORT[: i % 3])
    found = Checkpoint(tmp_path / "new" / "folder", HEADER).load()
    assert found.keys() == set(KEYS)
    for i, key in enumerate(KEYS):
        assert same(found[key][0], weights(i)) and found[key][1] == REPORT[: i % 3]
    assert not list(tmp_path.glob("*.npz")) and len(list((tmp_path / "new" / "folder").iterdir())) == len(KEYS) + 1
    names = [path.name.lower() for path in (tmp_path / "new" / "folder").iterdir()]
    assert len(set(names)) == len(names)  # where upper and lower case are the same too


def test_a_piece_is_replaced_by_one_of_the_same_key(tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    made.write("a", weights(0), REPORT)
    made.write("a", {5: ()}, [])
    assert made.load() == {"a": ({5: ()}, [])}


def test_numpy_numbers_are_noted_as_numbers(tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    made.write("a", {np.int64(1): (np.ones(2),)}, [{"mse": np.float32(0.5), "rows": np.int64(3)}])
    found, report = made.load()["a"]
    assert list(found) == [1] and report == [{"mse": 0.5, "rows": 3}]
    made.note({"counts": np.arange(3), "samples": np.int32(7)})
    made.note({"samples": 8})
    assert Checkpoint(tmp_path, HEADER).state() == {"counts": [0, 1, 2], "samples": 8}
    with pytest.raises(TypeError, match="received set"):
        made.note({"a": {1}})


def test_no_file_holds_a_pickle(tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    with pytest.raises(TypeError, match="expected arrays of numbers, received objects"):
        made.write("a", {0: (np.array([object()]),)}, [])
    assert not list(tmp_path.glob("*.npz"))
    made.write("a", weights(), REPORT)
    assert list(tmp_path.glob("*.npz"))
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype != object for name in file.files)


# Whose it is


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other"}, "another model, or other weights"),
        ({"options": HEADER["options"] | {"ridge": 0.1}}, r"options\.ridge was 0\.001, is 0\.1 here"),
        ({"options": {"ridge": 1e-3, "samples": "all"}}, r"options\.rows was None, is nothing here"),
        ({"options": HEADER["options"] | {"seed": 0}}, r"options\.seed was nothing, is 0 here"),
        ({"classes": [0]}, r"classes was \[0, 3\], is \[0\] here"),
        ({"name": "mipin.trained"}, "name was 'mipin', is 'mipin.trained' here"),
        ({"format": 2}, "format was 1, is 2 here"),
        ({"data": HEADER["data"] | {"first": 8}}, "its data began with another batch"),
        ({"data": HEADER["data"] | {"samples": 11}}, r"data\.samples was 10, is 11 here"),
        ({"format": 2, "classes": [1]}, "classes was .*; format was 1"),
    ],
)
def test_a_folder_of_another_fit_is_refused_and_left_alone(change, message, tmp_path):
    Checkpoint(tmp_path, HEADER).write("a", weights(), REPORT)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for writes in (True, False):
        with pytest.raises(ValueError, match=f"of another fit: .*{message}.*; give another folder, or delete this one"):
            Checkpoint(tmp_path, HEADER | change, writes=writes)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tuples_and_lists_and_equal_numbers_are_the_same_header(tmp_path):
    Checkpoint(tmp_path, HEADER | {"classes": (0, 3.0)}).write("a", weights(), REPORT)
    assert "a" in Checkpoint(tmp_path, HEADER).load()


def test_a_header_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        Checkpoint(tmp_path / "a", HEADER | {"odd": object()})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["thesis.tex", "layer-a.npz", ".hidden", "state.json", ".thesis.tex.1.partial"])
def test_a_folder_of_other_things_is_refused_and_left_alone(name, tmp_path):
    (tmp_path / name).write_text("years of work")
    with pytest.raises(ValueError, match=f"expected an empty folder or one that a fit wrote.*{name}"):
        Checkpoint(tmp_path, HEADER)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder for the checkpoint, received a file"):
        Checkpoint(tmp_path / "file", HEADER)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_a_truncated_header_is_refused(text, tmp_path):
    Checkpoint(tmp_path, HEADER)
    (tmp_path / checkpoint.HEADER).write_text(text)
    with pytest.raises(ValueError, match=r"fit\.json, which is of another one or is damaged; give another folder"):
        Checkpoint(tmp_path, HEADER)


def damaged(path):
    """A good file of a piece, in every way that it can be bad."""
    good = path.read_bytes()
    for size in (0, 1, len(good) // 2, len(good) - 1):
        yield good[:size]
    numbers = weights(1)[0][1].tobytes()
    assert good.count(numbers) == 1
    yield good.replace(numbers, numbers[::-1])
    yield b"not an archive"
    with open(path, "wb") as file:
        np.savez(file, x=np.ones(3))
    yield path.read_bytes()
    for about in ("[]", "{", json.dumps({"mark": "x", "key": "a", "classes": {"0": 1}, "report": []})):
        for name in ("about", "header"):
            with open(path, "wb") as file:
                np.savez(file, **{name: np.array(about)})
            yield path.read_bytes()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.npy", "no array")
    yield path.read_bytes()
    path.write_bytes(good)
    with npz.Reader(path) as file:
        header = {key: value for key, value in file.header.items() if key not in ("digest", "members")}
        arrays = file.arrays(file.shapes, None)
    for change in ({"classes": {"0": 3_000_000}}, {"classes": {"0": float("inf")}}, {"report": 5}):
        npz.write(path, header | change, arrays)
        yield path.read_bytes()
    with open(path, "wb") as file:  # without a digest, as version 0.1 wrote it
        np.savez(file, about=np.array(json.dumps(header)), **arrays)
    yield path.read_bytes()


def test_a_damaged_piece_is_refused_by_name_until_it_is_deleted(tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    made.write("good", weights(), REPORT)
    made.write("a/b", weights(1), REPORT)
    (path,) = tmp_path.glob("layer-a*.npz")
    for content in list(damaged(path)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path.name}, which is of another one or is damaged; delete it"):
            Checkpoint(tmp_path, HEADER).load()
    path.unlink()
    assert list(Checkpoint(tmp_path, HEADER).load()) == ["good"]


def test_a_piece_of_another_fit_is_refused_by_name(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    Checkpoint(ours, HEADER)
    other = Checkpoint(theirs, HEADER | {"classes": [1]})
    other.write("a", weights(), REPORT)
    other.note({"samples": 3})
    (path,) = theirs.glob("*.npz")
    shutil.copy(path, ours)
    with pytest.raises(ValueError, match=f"{path.name}, which is of another one"):
        Checkpoint(ours, HEADER).load()
    shutil.copy(theirs / "state.json", ours)
    with pytest.raises(ValueError, match=r"state\.json, which is of another one"):
        Checkpoint(ours, HEADER).state()


def test_a_piece_under_the_name_of_another_is_refused(tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    made.write("a", weights(0), REPORT)
    made.write("b", weights(1), REPORT)
    a, b = sorted(tmp_path.glob("*.npz"))
    shutil.copy(a, b)
    with pytest.raises(ValueError, match=b.name):
        made.load()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_truncated_state_is_refused(text, tmp_path):
    made = Checkpoint(tmp_path, HEADER)
    made.note({"samples": 3})
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"state\.json, which is of another one or is damaged; delete it"):
        made.state()


# Interruption


class Killed(BaseException):
    """What no clean-up should rely on."""


def doings(folder):
    """A fit's worth of writing."""
    made = Checkpoint(folder, HEADER)
    made.note({"samples": 10})
    made.write("a", weights(0), REPORT[:1])
    made.write("b", weights(1), REPORT[1:])
    made.note({"counts": [1, 2]})
    made.write("a", weights(2), REPORT)


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("cleaned", [True, False], ids=["exception", "SIGKILL"])
def test_interrupted_at_any_point_the_folder_loads(where, cleaned, tmp_path, monkeypatch):
    wholes = {"a": [weights(0), weights(2)], "b": [weights(1)]}
    owner = os if where == "fsync" else atomic.pathlib.Path
    original = getattr(owner, where)
    for after in range(7):
        folder, calls = tmp_path / str(after), []

        def interrupted(*args, after=after, calls=calls):
            if len(calls) == after:
                raise Killed
            calls.append(1)
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, where, interrupted)
            if not cleaned:  # what stands half written is left, as no handler runs
                patch.setattr(atomic.pathlib.Path, "unlink", lambda *args, **kwargs: None)
            if after < 6:
                with pytest.raises(Killed):
                    doings(folder)
            else:
                doings(folder)
        partial = [path.name for path in folder.iterdir() if path.name.endswith(".partial")]
        assert len(partial) == (after < 6 and not cleaned)
        readers, resumed = Checkpoint(folder, HEADER, writes=False), Checkpoint(folder, HEADER)
        with resumed:
            assert os.listdir(folder).count(lock.NAME) == 1
        assert not [path for path in folder.iterdir() if path.name.endswith(".partial")]
        for made in (readers, resumed):
            found = made.load()
            assert list(found) == ["a", "b"][: max(0, min(after, 4) - 2)]
            assert all(any(same(found[key][0], weights) for weights in wholes[key]) for key in found)
            assert made.state().keys() == set(["samples", "counts"][: (after > 1) + (after > 4)])
        doings(folder)  # and it goes on from there
        assert same(resumed.load()["a"][0], weights(2))


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    made = Checkpoint(tmp_path, HEADER)
    made.write("a", weights(0), REPORT)

    def full(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="no space left"):
            made.write("a", weights(1), REPORT)
    assert same(made.load()["a"][0], weights(0)) and len(list(tmp_path.iterdir())) == 2


# Several processes


def test_those_that_do_not_write_make_nothing(tmp_path):
    folder = tmp_path / "folder"
    reader = Checkpoint(folder, HEADER, writes=False)
    reader.write("a", weights(), REPORT)
    reader.note({"samples": 3})
    assert not folder.exists() and reader.load() == {} and reader.state() == {}
    writer = Checkpoint(folder, HEADER)
    writer.write("a", weights(), REPORT)
    writer.note({"samples": 3})
    assert same(reader.load()["a"][0], weights()) and reader.state() == {"samples": 3}
