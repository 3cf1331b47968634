"""The pages in docs/: what their Python prints is what they say, and their links lead somewhere."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

from docs import make_layers

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LAYERS = make_layers.PAGE.read_text(encoding="utf-8")
OF_THE_PAGE = f"with Keras {keras.__version__.rpartition('.')[0]})" in LAYERS

# Runs [line, code] after [line, code] in one namespace; the last line that it prints is what each of them printed.
RUNNER = """
import contextlib, io, json, sys

page, blocks = sys.argv[1], json.load(sys.stdin)
names, printed = {}, []
for line, code in blocks:
    with contextlib.redirect_stdout(io.StringIO()) as found:
        exec(compile("\\n" * line + code, page, "exec"), names)
    printed.append(found.getvalue())
print(json.dumps(printed))
"""


def blocks_of(page):
    """Each python block of a page: the lines before it, its code, and what the text block behind it says, or ''."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(r"^```python\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
    found = [(text[: m.start(1)].count("\n"), m[1], m[2] or "") for m in pattern.finditer(text)]
    assert sum(bool(said) for _, _, said in found) == text.count("```text\n"), "a text block without code before it"
    return found


def run(page, folder):
    """The page's blocks, and what each prints in a process of its own."""
    blocks = blocks_of(page)
    settings = {
        "TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, page.name],
        input=json.dumps([block[:2] for block in blocks]), env=os.environ | settings, cwd=folder,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return blocks, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.medium
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("innvestigate", "tf_keras"))), reason="innvestigate is not installed"
)
def test_the_page_on_innvestigate_prints_what_it_says(tmp_path):
    blocks, printed = run(ROOT / "docs" / "innvestigate.md", tmp_path)
    assert len(blocks) > 12
    for (line, _, said), found in zip(blocks, printed, strict=True):
        assert found == said, f"the block after line {line}"


def rows_of(text):
    """Of a page's tables of layers: the cells of each by its name, whatever names share a line."""
    lines = re.findall(r"^\| (.*?) \| (.*) \|$", text.partition("\n## Layers with weights\n")[2], re.MULTILINE)
    return {name: cells for names, cells in lines for name in re.split(r", (?=[`A-Z])", names)}


@pytest.mark.medium
def test_the_page_on_layers_is_what_the_tables_say():
    found, shown = rows_of(f"\n{make_layers.page()}"), rows_of(LAYERS)
    # Other versions of Keras have other layers, but the same rows for those that both have.
    assert found == (shown if OF_THE_PAGE else {name: cells for name, cells in shown.items() if name in found})
    assert len(found) > 100 and all(cells.count(" | ") == 5 for cells in found.values())


@pytest.mark.skipif(not OF_THE_PAGE, reason="the page is of another version of Keras")
def test_the_page_on_layers_has_them_all():
    shown = {"Activation", *make_layers.WITHOUT_A_ROW, *(name.split(" ")[0] for name in rows_of(LAYERS))}
    layers = {name: kind for name, kind in vars(keras.layers).items() if isinstance(kind, type)}
    named = {kind for name, kind in layers.items() if name in shown}
    assert not [name for name, kind in layers.items() if issubclass(kind, keras.layers.Layer) and kind not in named]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)", text, re.M)
    }
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        assert (page.parent / target).exists(), target
        assert target or anchor in headings, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_path_of_a_machine(page):
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|work|Users|usr|opt)/|\b[A-Z]:\\", page.read_text("utf-8"))
