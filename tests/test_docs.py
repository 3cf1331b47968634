"""The README and the pages in docs/: their code runs and prints what they say, their tables and links are right."""

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest

import mipin_keras
from docs import make_layers, make_situations
from mipin_keras.baselines.lrp import AlphaBeta, Epsilon, Gamma
from mipin_keras.baselines.lrp.named_rules import RULES
from mipin_keras.cli.main import main
from mipin_keras.mipin import inverse as inverses
from tests.networks import NEEDED, cnn

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
# It compares with the real iNNvestigate, in a process of its own: see below.
INNVESTIGATE = DOCS / "innvestigate.md"
LAYERS = make_layers.PAGE.read_text(encoding="utf-8")
OF_THE_PAGE = f"with Keras {keras.__version__.rpartition('.')[0]})" in LAYERS


def read(page):
    return page.read_text(encoding="utf-8")


def blocks_of(page):
    """Each python or sh block of a page: the lines before it, its language, its text, and the text block behind it."""
    text = read(page)
    pattern = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
    found = [(text[: m.start(2)].count("\n"), m[1], m[2], m[3] or "") for m in pattern.finditer(text)]
    assert sum(bool(said) for *_, said in found) == text.count("```text\n"), "a text block without code before it"
    return found


def shell_lines(page):
    """The lines of a page's shell blocks, with or without a language, without their comments."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)
    lines = [line for language, text in fenced if language in ("", "sh") for line in text.splitlines()]
    return [line.split(" #")[0].strip() for line in lines]


# Code


@pytest.fixture
def own_inverses(monkeypatch):
    """What a page registers is forgotten after it."""
    monkeypatch.setattr(inverses, "_INVERSES", dict(inverses._INVERSES))


def given_to_readme():
    """What the README's code takes for given."""
    x = np.random.default_rng(7).random((30, 7, 6, 1)).astype("float32")
    return {"model": cnn((7, 6, 1)), "x_train": x[:25], "x": x[25:]}


def without_rounding(text):
    """Without the numbers of a check's report that are rounding errors, which differ from machine to machine."""
    return re.sub(r" +(0|[\d.]+e-\d\d) <= ", " ... <= ", text)


WITH_CODE = [page for page in PAGES if page != INNVESTIGATE and blocks_of(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
@pytest.mark.few(3)
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, own_inverses):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"} | (given_to_readme() if page == README else {})  # as in a script or a notebook
    for line, language, code, said in blocks_of(page):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if language == "python":
                exec(compile("\n" * line + code, page.name, "exec"), names)
            else:
                for command in code.splitlines():
                    program, *arguments = shlex.split(command)
                    assert program == "mipin" and main(arguments) == 0, command
        assert not said or without_rounding(printed.getvalue()) == without_rounding(said), (
            f"the block after line {line}"
        )
        for picture in re.findall(r'"([\w-]+\.png)"', code):
            assert (tmp_path / picture).is_file(), picture
    if page == README:
        assert names["attribution"].shape == names["signal"].shape == names["x"].shape


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


@pytest.mark.medium
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("innvestigate", "tf_keras"))), reason="innvestigate is not installed"
)
def test_the_page_on_innvestigate_prints_what_it_says(tmp_path):
    blocks = blocks_of(INNVESTIGATE)
    settings = {
        "TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, INNVESTIGATE.name],
        input=json.dumps([(line, code) for line, _, code, _ in blocks]), env=os.environ | settings, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(blocks) > 12
    for (line, _, _, said), found in zip(blocks, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert found == said, f"the block after line {line}"


# Commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    makefile = read(ROOT / "Makefile")
    for line in shell_lines(page):
        for module in re.findall(r"^python -m ([\w.]+)", line):
            assert importlib.util.find_spec(module), line
        for target in re.findall(r"^make (\w+)", line):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), line


def test_flags_of_the_command_line_exist(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", read(DOCS / "command_line.md")))
    assert len(named) > 8 and named <= known | {"--help"}


# Tables


def test_the_page_on_mipin_has_every_option_with_its_default():
    table = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", read(DOCS / "mipin.md"), re.MULTILINE))
    assert sorted(table) == mipin_keras.options_of("mipin")
    defaults = inspect.signature(mipin_keras.mipin.MIPIN.__init__).parameters
    for name, shown in table.items():
        assert eval(shown) == defaults[name].default, name


def rows_under(page, heading):
    """The cells of the first table behind a heading, row by row."""
    lines = read(page).partition(f"\n{heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    ends = next(i for i, line in enumerate(lines[start:], start) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 1 : ends]]


def test_the_page_on_methods_has_every_option_with_its_default():
    shared = {"neuron_selection_mode", "output_layer", "output", "target", "input_layer"}
    of_lrp = {"rules", "input_layer_rule", "bn_layer_rule", "until_layer_idx", "until_layer_rule"}
    model, shown = cnn((7, 6, 1)), {}
    for names, options in rows_under(DOCS / "methods.md", "## All methods and their options"):
        for name in re.findall(r"`([\w.]+)`", names):
            shown[name] = dict(re.findall(r"`(\w+)=?(.*?)`", options))
    own = {n for n in mipin_keras.analyzers() if not n.startswith("innvestigate:")} - {"mipin", "mipin.trained"}
    assert shown.keys() == own
    for name, options in shown.items():
        known = set(mipin_keras.options_of(name)) - shared - (of_lrp if name.startswith("lrp") else set())
        assert options.keys() == known, name
        analyzer = mipin_keras.create_analyzer(name, model, **NEEDED.get(name, {}))
        for option, default in options.items():
            assert default == "" or eval(default) == analyzer.options[option], (name, option)


def rules_of(name, model, **options):
    """The rule of each step in an LRP method, in a form that compares."""
    rules = mipin_keras.create_analyzer(name, model, **options).rules.values()
    return [rule if dataclasses.is_dataclass(rule) else getattr(rule, "__name__", type(rule)) for rule in rules]


def test_the_named_methods_of_lrp_are_what_their_table_says():
    layers = [
        keras.layers.Conv2D(2, 2),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(2, 2, activation="relu"),
        keras.layers.Conv2D(2, 2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((5, 5, 1)), *layers])
    known = {"Epsilon": Epsilon, "Gamma": Gamma, "AlphaBeta": AlphaBeta, "alpha": 3.0, "beta": 2.0, "rule": "Gamma"}
    seen = []
    for names, *cells, first, normalization in rows_under(DOCS / "methods.md", "### The named methods"):
        cells = [cells[0] if cell == "the same" else cell.strip('`"') for cell in (*cells, normalization)]
        dense, conv, normalization = (cell if cell in RULES else eval(cell, dict(known)) for cell in cells)
        options, needed = {"rule": {"dense": dense, "conv": conv}, "bn_layer_rule": normalization}, {}
        if first.startswith("z^B"):
            options, needed = options | {"input_layer_rule": (0.0, 1.0)}, {"low": 0.0, "high": 1.0}
        elif first:
            options["input_layer_rule"] = "Flat"
        if "until_layer_idx" in first:
            options, needed = options | {"until_layer_idx": 2, "until_layer_rule": "Flat"}, {"until_layer_idx": 2}
        for name in re.findall(r"`([\w.]+)`", names):
            needed |= {"lrp": {"rule": "Gamma"}, "lrp.alpha_beta": {"alpha": 3.0}}.get(name, {})
            assert rules_of(name, model, **needed) == rules_of("lrp", model, **options), name
            seen.append(name)
    assert sorted(seen) == [name for name in mipin_keras.analyzers() if name.split(".")[0] == "lrp"]


def test_the_page_on_methods_names_every_rule_of_lrp():
    names = [cells[0] for cells in rows_under(DOCS / "methods.md", "### The rules")]
    assert set(re.findall(r'"(\w+)"', " ".join(names))) == set(RULES)


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


@pytest.mark.slow
def test_the_page_on_situations_is_what_running_them_says():
    shown = read(make_situations.PAGE)
    title = next(iter(make_situations.SITUATIONS))
    shown = shown[shown.index(f"## {title}\n") :]
    if OF_THE_PAGE:
        assert make_situations.page() == shown
    else:  # other versions of Keras have other words of their own; each situation still comes out in one of the ways
        assert make_situations.page().count("\n| ") == shown.count("\n| ")


def test_the_page_on_situations_has_them_all():
    shown = read(make_situations.PAGE)
    every = [each for situations in make_situations.SITUATIONS.values() for each in situations]
    assert len(every) > 50
    for each in every:
        assert f"| {each.title} |" in shown and f"| `{each.call}` |" in shown, each.title


# Links and words


def without_code(page):
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page):
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.*)", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", without_code(page)):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_path_of_a_machine(page):
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|work|Users|usr|opt)/|\b[A-Z]:\\", read(page))
