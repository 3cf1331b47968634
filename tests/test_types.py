"""What a type checker says of code that uses the package: README's own, and each name of the registry."""

import pathlib
import re
import subprocess
import sys

import pytest

import mipin_keras
from mipin_keras import registry

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIG = """
[mypy]
python_version = 3.11
check_untyped_defs = true
warn_unreachable = true
[mypy-tensorflow.*,keras.*,tf_keras.*,innvestigate.*]
ignore_missing_imports = true
follow_imports = skip
"""
BEGINNING = """
import keras
import numpy as np

model: keras.Model
x_train: np.ndarray
x: np.ndarray
"""


def said(folder, text):
    """What mypy says of a file with this text."""
    (folder / "mypy.ini").write_text(CONFIG)
    (folder / "example.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--config-file", str(folder / "mypy.ini"), "--no-error-summary"]
    command += ["--cache-dir", str(folder / "cache"), str(folder / "example.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if "example.py" in line or done.returncode == 2]


@pytest.mark.medium
def test_readmes_code_and_the_names_of_the_registry_have_their_types(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    own = {name: kind for name, kind in registry.ANALYZERS.items() if not name.startswith("innvestigate:")}
    classes = [kind for name, kind in own.items() if not name.startswith("lrp.")]
    imports = {f"from {kind.__module__} import {kind.__name__}" for kind in classes}
    lines = [*sorted(imports), "from typing import assert_type"]
    for name, kind in own.items():
        # The methods that are LRP with its rules chosen are LRP to a type checker: they have nothing of their own.
        wanted = "LRP" if name.startswith("lrp") else kind.__name__
        lines.append(f"assert_type(mipin_keras.create_analyzer({name!r}, model), {wanted})")
        lines.append(f"assert_type(mipin_keras.create_analyzer({name!r}, model).fit(x), {wanted})")
    lines.append("assert_type(mipin_keras.create_analyzer('innvestigate:gradient', model), mipin_keras.Analyzer)")
    found = said(tmp_path, BEGINNING + "\n".join([*blocks, *lines]))
    assert not found, "\n".join(found)
    # and it looks: what is wrong is found
    wrong = "mipin_keras.create_analyzer('gradient', model).source_signal(x)\nmipin_keras.load_analyzer('a').fit(x)\n"
    found = said(tmp_path, f"{BEGINNING}import mipin_keras\n{wrong}")
    assert len(found) == 2 and "source_signal" in found[0] and "model" in found[1]


def test_every_name_of_lrp_is_known_to_a_type_checker():
    named = set(registry.LRPName.__args__)
    assert named == {name for name in mipin_keras.analyzers() if name.split(".")[0] == "lrp"}
