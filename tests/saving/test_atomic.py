"""Files that are complete or not there."""

import concurrent.futures
import errno
import os
import threading

import pytest

from mipin_keras.saving.atomic import written


def test_a_file_has_its_name_once_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.bin"
    with written(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half" and os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, ValueError])
def test_an_interruption_leaves_what_was_there(tmp_path, interruption):
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    for target in (path, tmp_path / "other.bin"):
        with pytest.raises(interruption), written(str(target)) as file:
            file.write(b"after")
            raise interruption
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["file.bin"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), written(tmp_path / "folder") as file:
        file.write(b"content")
    assert os.listdir(tmp_path) == ["folder"]


def test_threads_that_write_one_path_at_once_each_succeed(tmp_path):
    path, start = tmp_path / "file.bin", threading.Barrier(4)

    def write(letter):
        start.wait()
        for _ in range(20):
            with written(path) as file:
                file.write(letter * 1000)
        return True

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, [b"a", b"b", b"c", b"d"]))
    content = path.read_bytes()
    assert len(content) == 1000 and len(set(content)) == 1 and os.listdir(tmp_path) == ["file.bin"]


def test_what_another_writer_has_begun_is_left_until_it_is_an_hour_old(tmp_path):
    path, other = tmp_path / "file.bin", tmp_path / "file.bin.extra"
    names = [f".file.bin.{'0' * 31}{i}.partial" for i in range(2)]
    names += [".file.bin.4711.partial", f".x.{'0' * 32}.partial"]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(b"half")
        if i:  # all but the first were left long ago
            os.utime(tmp_path / name, (1, 1))
    with written(other) as file:  # its name begins alike
        file.write(b"other")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "file.bin.extra"])
    with written(path) as file:
        file.write(b"content")
    assert sorted(os.listdir(tmp_path)) == sorted([names[0], names[3], "file.bin", "file.bin.extra"])


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    for _ in range(2):
        with written(path) as file:
            file.write(b"content")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), OSError("16 requested and 0 written")]
)
def test_an_error_of_the_disk_names_the_file(tmp_path, problem):
    with pytest.raises(OSError, match=r"full\.bin") as raised, written(tmp_path / "full.bin"):
        raise problem
    assert raised.value.errno == problem.errno and str(problem.strerror or problem) in str(raised.value)
    assert os.listdir(tmp_path) == []
