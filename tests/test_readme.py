"""The README's Python runs, one block after the other, and its tables name what there is."""

import inspect
import pathlib
import re

import numpy as np
import pytest

import mipin_keras
from mipin_keras.mipin import inverse as rules
from tests.networks import cnn

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def own_inverses(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(rules, "_INVERSES", dict(rules._INVERSES))


def test_its_python_runs(tmp_path, monkeypatch, rng, own_inverses):
    monkeypatch.chdir(tmp_path)
    x = rng.random((30, 7, 6, 1)).astype("float32")
    np.save("images.npy", x[:25])
    names = {"model": cnn((7, 6, 1)), "x_train": x[:25], "x": x[25:]}
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "mipin.png").is_file()
    assert names["attribution"].shape == names["again"].analyze(names["x"]).shape
    assert names["heat"].shape == (5, 7, 6) and names["of_class_2"].shape == (7, 6, 1)
    assert sorted(names["some"].network.weights) == [0, 2]


def test_it_has_every_option_with_its_default():
    table = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", README, re.MULTILINE))
    assert sorted(table) == mipin_keras.options_of("mipin")
    defaults = inspect.signature(mipin_keras.mipin.MIPIN.__init__).parameters
    for name, shown in table.items():
        assert eval(shown) == defaults[name].default, name


def test_it_names_every_method():
    for name in mipin_keras.analyzers():
        assert f"`{name}`" in README or name.startswith("innvestigate:") or name in ("mipin", "mipin.trained"), name


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (pathlib.Path(__file__).parents[1] / target).exists(), target
