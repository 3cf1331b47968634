"""Files that are whole or not there."""

import os

import pytest

from mipin_keras.whole import written


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
