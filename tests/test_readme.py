"""The README is short, begins with the commands, and names every method and every page. test_docs.py runs its code."""

import pathlib
import re

import mipin_keras

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.encode("utf-8")) <= 9000


def test_it_begins_with_what_it_is_and_the_two_commands():
    beginning = README.splitlines()[:12]
    assert beginning[2].startswith("`mipin_keras` explains")
    assert [line.split("#")[0].strip() for line in beginning if line.startswith("make ")] == ["make demo", "make test"]


def test_it_names_every_method():
    for name in mipin_keras.analyzers():
        assert f"`{name}`" in README or name.startswith("innvestigate:"), name


def test_it_names_every_page():
    linked = set(re.findall(r"^- \[(docs/\w+\.md)\]\(\1\): .+\.$", README, re.MULTILINE))
    assert linked == {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")}
