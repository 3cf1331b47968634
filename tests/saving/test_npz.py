"""Files that hold what was written, or are refused: damage of every kind, and files made to do harm."""

import io
import json
import zipfile
import zlib

import numpy as np
import pytest

from mipin_keras import create_analyzer, load_analyzer
from mipin_keras.saving import npz
from tests.networks import mlp, samples

ARRAYS = {
    "a": np.arange(6, dtype="float32").reshape(2, 3),
    "b/1": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "empty": np.zeros((0, 4), "float32"),
    "number": np.int64(7),
}
SHAPES = {name: np.shape(array) for name, array in ARRAYS.items()}


@pytest.fixture
def path(tmp_path):
    npz.write(tmp_path / "file.npz", {"name": "größe", "numbers": (1, 2.5)}, ARRAYS)
    return tmp_path / "file.npz"


def test_what_is_written_is_read(path):
    with npz.Reader(path) as file:
        assert file.header["name"] == "größe" and file.header["numbers"] == [1, 2.5]
        assert file.shapes == SHAPES
        found = file.arrays(SHAPES, None)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == np.shape(array)
        assert found[name].tobytes() == np.asarray(array).tobytes() and found[name].flags.writeable
    with np.load(path, allow_pickle=False) as file:  # and anybody can read it
        assert set(file.files) == {"header", *ARRAYS}


def test_objects_are_not_written(tmp_path):
    with pytest.raises(TypeError, match=r"received objects in \['a'\]"):
        npz.write(tmp_path / "file.npz", {}, {"a": np.array([{}])})
    assert not list(tmp_path.iterdir())


def test_what_is_not_expected_is_refused_before_it_is_read(path, monkeypatch):
    with npz.Reader(path) as file:
        monkeypatch.setattr(zipfile.ZipExtFile, "read1", lambda *args: pytest.fail("read"))
        for shapes, problem in (
            ({"a": (2, 3)}, "should not be there"),
            (SHAPES | {"c": ()}, "missing"),
        ):
            with pytest.raises(npz.DamagedFileError, match=problem):
                file.arrays(shapes, None)
    with npz.Reader(path) as file, pytest.raises(npz.DamagedFileError, match=r"shape \(2, 3\), expected \(3, 2\)"):
        file.arrays(SHAPES | {"a": (3, 2)}, None)
    with npz.Reader(path) as file, pytest.raises(npz.DamagedFileError, match="dtype float64, expected float32"):
        file.arrays(SHAPES)


def test_nan_is_refused(tmp_path):
    npz.write(tmp_path / "file.npz", {}, {"a": np.array([1, np.inf], "float32")})
    with npz.Reader(tmp_path / "file.npz") as file, pytest.raises(npz.DamagedFileError, match="NaN or infinity"):
        file.arrays({"a": (2,)})


# Files made to do harm


def zipped(path, members, compression=zipfile.ZIP_STORED):
    """An archive of members with valid checksums, whatever is in them."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def array_of(shape, dtype="<f4", content=b""):
    """The bytes of an .npy file that declares a shape."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def header_of(**changes):
    text = json.dumps({"members": {"a": ["<f4", [10**12]]}, "digest": ""} | changes)
    return array_of("()", f"<U{len(text)}", np.array(text).tobytes())


HARMFUL = {
    "a huge shape": {"header.npy": header_of(), "a.npy": array_of("(1000000000000,)")},
    "a negative shape": {"header.npy": header_of(), "a.npy": array_of("(-5,)")},
    "objects": {"header.npy": header_of(), "a.npy": array_of("(1,)", "|O", b"cos\nsystem\n(S'true'\ntR.")},
    "code for a shape": {"header.npy": header_of(), "a.npy": array_of("__import__('os')")},
    "a broken header": {"header.npy": header_of(), "a.npy": array_of("(1,")},
    "a header that is no token": {"header.npy": header_of(), "a.npy": array_of("(1, '")},
    "a header of another format": {"header.npy": header_of(), "a.npy": b"\x93NUMPY\x09\x00" + b"\0" * 100},
    "another member": {"header.npy": header_of(), "a.npy": array_of("(1,)"), "b.npy": array_of("(0,)")},
    "a member that is no array": {"header.npy": header_of(), "a.txt": b"hello"},
    "a header that is deep": {"header.npy": array_of("()", "<U200000", np.array("[" * 200_000).tobytes())},
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_file_is_one_error_that_names_it(kind, tmp_path):
    path = zipped(tmp_path / "harmful.npz", HARMFUL[kind])
    with pytest.raises(npz.DamagedFileError, match=r"harmful\.npz, which is none or is damaged"):  # noqa: SIM117
        with npz.Reader(path) as file:
            file.arrays({"a": (10**12,)})


def test_what_unpacks_to_more_than_the_file_holds_is_not_unpacked(tmp_path, monkeypatch):
    members = {"header.npy": header_of(), "a.npy": array_of("(1,)", content=b"\0" * 4), "b.npy": b"\0" * 10_000_000}
    path = zipped(tmp_path / "bomb.npz", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(zlib, "decompressobj", lambda *args: pytest.fail("unpacked"))
    with pytest.raises(npz.DamagedFileError, match="compressed or overlapping"):
        npz.Reader(path)


def test_members_that_overlap_are_refused(tmp_path):
    path = zipped(tmp_path / "file.npz", {"header.npy": header_of(), "a.npy": b"\0" * 100_000})
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    entries = raw[start:-22]
    last = entries[entries.rindex(b"PK\x01\x02") :]
    many = entries + b"".join(last.replace(b"a.npy", f"{c}.npy".encode()) for c in "bcdefgh")
    end = bytearray(raw[-22:])
    end[8:10] = end[10:12] = (9).to_bytes(2, "little")
    end[12:16] = len(many).to_bytes(4, "little")
    path.write_bytes(raw[:start] + many + bytes(end))
    assert len(zipfile.ZipFile(path).infolist()) == 9
    with pytest.raises(npz.DamagedFileError, match="compressed or overlapping"):
        npz.Reader(path)


# Damage of every kind: refused, or the same bits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A fitted analyzer, the bytes of its file and what it finds."""
    x = samples((12,), 40)
    analyzer = create_analyzer("mipin", mlp(), verbose=0).fit(x)
    content = analyzer.save(tmp_path_factory.mktemp("saved") / "fit.npz").read_bytes()
    return analyzer, content, x, analyzer.analyze(x)


def refused_or_the_same(saved, content, path):
    """Whether a changed file is refused by name, and by nothing but a ValueError; else it must give the same bits."""
    analyzer, _, x, wanted = saved
    path.write_bytes(content)
    try:
        found = load_analyzer(path, analyzer.model)
    except ValueError as problem:
        assert path.name in str(problem)
        return True
    assert found.analyze(x).tobytes() == wanted.tobytes() and found.fit_report == analyzer.fit_report
    return False


def with_valid_checksums(content, change):
    """The archive once more, its members changed, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def flip_in_the_archive(content, rng):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def flip_in_a_member(content, rng):
    def change(members):
        name = sorted(members)[rng.integers(len(members))]
        data = bytearray(members[name])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        members[name] = bytes(data)

    return with_valid_checksums(content, change)


def swap_members(content, rng):
    def change(members):
        one, other = rng.choice(sorted(set(members) - {"header.npy"}), 2, replace=False)
        members[one], members[other] = members[other], members[one]

    return with_valid_checksums(content, change)


def drop_or_add_a_member(content, rng):
    def change(members):
        name = sorted(members)[rng.integers(len(members))]
        data = members.pop(name)
        if rng.integers(2):
            members |= {name: data, f"array/9/{rng.integers(9)}/0.npy": data}

    return with_valid_checksums(content, change)


def truncate(content, rng):
    return content[: rng.integers(len(content))]


MUTATIONS = [flip_in_the_archive, flip_in_a_member, swap_members, drop_or_add_a_member, truncate]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.medium)])
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.few(2)
def test_a_file_that_was_changed_is_refused_or_gives_the_same_bits(mutation, count, saved, tmp_path):
    rng = np.random.default_rng(11)
    changed = [mutation(saved[1], rng) for _ in range(count)]
    refused = [refused_or_the_same(saved, content, tmp_path / "changed.npz") for content in changed]
    # A swap of equal members, and a flip in what no reader looks at, such as a time, change nothing.
    assert sum(refused) >= (count if mutation in (truncate, drop_or_add_a_member) else 0.75 * count)


def big(header):
    header["probe"]["outputs"][0][0] = 10**400


def endless(header):
    header["about"]["fitted"] = [0, 1e400]


CRAFTED = {
    "a probe of numbers that no float holds": big,
    "a probe that is none": lambda header: header.update(probe=[1]),
    "an option that cannot be": lambda header: header["options"].update(ridge=-1),
    "an unknown option": lambda header: header["options"].update(lambda_=1),
    "an unknown name": lambda header: header.update(name="unheard"),
    "classes that are none": endless,
    "a report of something else": lambda header: header["about"].update(fit_report=[{}]),
    "a report of a layer that is none": lambda header: header["about"].update(fit_report=[{"layer": "x", "class": 0}]),
    "a report that is none": lambda header: header["about"].update(fit_report=5),
    "no fingerprint": lambda header: header.update(fingerprint=None),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_header_is_one_error_that_names_the_file(kind, saved, tmp_path):
    analyzer, content, _, _ = saved
    (tmp_path / "good.npz").write_bytes(content)
    with npz.Reader(tmp_path / "good.npz") as file:
        header = {key: value for key, value in file.header.items() if key not in ("members", "digest")}
        arrays = file.arrays(file.shapes)
    CRAFTED[kind](header)
    npz.write(tmp_path / "crafted.npz", header, arrays)
    with pytest.raises(ValueError, match=r"crafted\.npz"):
        load_analyzer(tmp_path / "crafted.npz", analyzer.model)


@pytest.mark.parametrize("exponent", [float("inf"), 5000, "x", 10**400])
@pytest.mark.few(2)
def test_crafted_exponents_are_refused(exponent, tmp_path):
    analyzer = create_analyzer("pattern.net", mlp(), verbose=0).fit(samples((12,), 40))
    with npz.Reader(analyzer.save(tmp_path / "good.npz")) as file:
        header = {key: value for key, value in file.header.items() if key not in ("members", "digest")}
        arrays = file.arrays(file.shapes)
    numbers = {analyzer.graph.output, *(n for step in analyzer.steps for n in step.inputs)}
    exponents = {str(n): exponent * n if isinstance(exponent, int) and exponent < 10**6 else exponent for n in numbers}
    npz.write(tmp_path / "crafted.npz", header | {"about": {"octaves": exponents}}, arrays)
    with pytest.raises(ValueError, match=r"crafted\.npz"):
        load_analyzer(tmp_path / "crafted.npz", analyzer.model)
