"""One process at a time in a folder; that of a process that is gone is taken over."""

import json
import os
import socket
import subprocess
import sys

import pytest

from mipin_keras.saving import lock
from mipin_keras.saving.lock import FolderLock

HELD = """
import pathlib, sys
from mipin_keras.saving.lock import FolderLock
with FolderLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def write(folder, **changes):
    own = {"pid": os.getpid(), "host": socket.gethostname(), "began": "another time"}
    (folder / lock.NAME).write_text(json.dumps(own | changes))


def test_a_folder_is_free_again_behind_the_lock(tmp_path):
    for _ in range(2):
        with FolderLock(tmp_path):
            assert os.listdir(tmp_path) == [lock.NAME]
        assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), FolderLock(tmp_path):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_second_one_in_this_process_is_refused(tmp_path):
    with FolderLock(tmp_path):
        with pytest.raises(ValueError, match="in use by another fit of this process"), FolderLock(tmp_path):
            pass
        assert os.listdir(tmp_path) == [lock.NAME]


@pytest.mark.medium
def test_another_process_is_refused_until_it_ends_or_is_killed(tmp_path):
    for end in ("told", "killed"):
        command = [sys.executable, "-c", HELD, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout.readline() == "held\n"
                with pytest.raises(ValueError, match=f"in use by process {child.pid}; wait for it"):
                    FolderLock(tmp_path).__enter__()
            finally:
                if end == "told":
                    child.communicate("\n")
                else:
                    child.kill()
        assert (tmp_path / lock.NAME).exists() == (end == "killed")
        with FolderLock(tmp_path):
            pass
        assert os.listdir(tmp_path) == []


def test_the_lock_of_a_process_whose_number_is_used_again_is_stale(tmp_path):
    for pid in (os.getpid(), os.getppid(), 2**22 + 1):
        write(tmp_path, pid=pid)
        with FolderLock(tmp_path):
            pass


def test_a_process_of_another_host_is_gone_when_it_has_been_silent_for_an_hour(tmp_path):
    write(tmp_path, host="elsewhere", pid=12)
    with pytest.raises(ValueError, match="in use by process 12 on host elsewhere.*if it is gone, delete .*lock"):
        FolderLock(tmp_path).__enter__()
    os.utime(tmp_path / lock.NAME, (1, 1))
    with FolderLock(tmp_path) as held:
        os.utime(tmp_path / lock.NAME, (1, 1))
        held.touch()
        assert (tmp_path / lock.NAME).stat().st_mtime > 1
        os.utime(tmp_path / lock.NAME, (1, 1))
        held.touch()  # again at once: not worth it
        assert (tmp_path / lock.NAME).stat().st_mtime == 1


TEXTS = ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": "", "began": ""}', '{"pid": Infinity}', "[" * 99_999]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_lock_that_says_nothing_is_stale_once_it_is_not_just_being_written(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    with pytest.raises(ValueError, match="another process, which has just begun"):
        FolderLock(tmp_path).__enter__()
    os.utime(tmp_path / lock.NAME, (1, 1))
    with FolderLock(tmp_path):
        pass


RACING = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
print("ready", flush=True)
for line in sys.stdin:
    held = lock.FolderLock(pathlib.Path(line.strip()))
    try:
        held.__enter__()
    except ValueError:
        print("refused", flush=True)
    else:
        print("held", flush=True)
"""


def test_of_many_that_find_a_stale_lock_one_takes_it_over(tmp_path):
    command = [sys.executable, "-c", RACING, lock.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 4
        for i in range(30):
            folder = tmp_path / str(i)
            folder.mkdir()
            write(folder, pid=2**22 + 1)
            for child in children:
                child.stdin.write(f"{folder}\n")
            for child in children:
                child.stdin.flush()
            said = sorted(child.stdout.readline() for child in children)
            assert said == ["held\n", *["refused\n"] * 3] and os.listdir(folder) == [lock.NAME]
    finally:
        for child in children:
            child.communicate()
