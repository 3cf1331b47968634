"""Where our maps and the real iNNvestigate's differ, and why: what the tests of ``python -m tests.against`` share.

docs/innvestigate.md says why each difference is one.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import against

NEEDS_INNVESTIGATE = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("innvestigate", "tf_keras"))), reason="innvestigate is not installed"
)

# Each of these, with a bias of a convolution or Dense layer in it, adds the whole bias to both sides' contributions.
ALPHA_BETA = {"lrp.alpha_2_beta_1", "lrp.alpha_1_beta_0"}
PRESETS = {
    "lrp.sequential_preset_a", "lrp.sequential_preset_b", "lrp.sequential_preset_a_flat",
    "lrp.sequential_preset_b_flat",
}  # fmt: skip
BOUNDED = {"lrp.epsilon, bounded below", "deep_taylor.bounded"}
FLAT = {"lrp.epsilon, Flat below", "lrp.sequential_preset_a_flat", "lrp.sequential_preset_b_flat"}
LRP = {method for method in against.METHODS if method.startswith("lrp")}


# Rules that see of a batch normalisation its signs at most: neither the size of its factor nor its bias.
SIGNS_ONLY = {
    "lrp.w_square", "lrp.flat", "lrp.alpha_2_beta_1_IB", "lrp.alpha_1_beta_0_IB", "lrp.z_plus", "lrp.z_plus_fast",
    "lrp.alpha_beta, 3", "lrp.epsilon, no bias",
}  # fmt: skip


def differs(model, method):
    """Why iNNvestigate is wrong on this model with this method, or None."""
    dense = model.startswith(("dense", "MLP")) or model in ("nested", "shared", "keras.ops.relu")
    if "no bias" not in model and (method in ALPHA_BETA or (method in PRESETS and not dense)):
        return "the whole bias counts among the positive contributions, and among the negative ones"
    if model == "dense, ReLU()" and method in {"deconvnet", "lrp.w_square", "lrp.flat"}:
        return "a ReLU() layer has no rule"
    if "normalisation" in model and method == "lrp, Z":
        return "without bn_layer_rule it fails"
    if model == "batch normalisation, any" and method in LRP - SIGNS_ONLY:
        return "batch normalisation with the variance squared, and gamma not in the bias"
    if model == "structural" and method in BOUNDED | FLAT:
        return "a padding hides the first layer"
    if model == "Average" and method in LRP:
        return "Average has the rule of the gradient"
    return None


# One model of each kind; the others, such as more strides and more ways to write a ReLU, take minutes: -m slow.
MODELS = [
    "dense", "dense, ReLU()", "dense, no bias", "conv same, stride (2, 1)", "conv, dilation 2", "conv, no bias",
    "conv 1d", "structural", "max pooling same, overlapping", "average pooling same, overlapping",
    "batch normalisation, ReLU", "batch normalisation, any", "Add", "Concatenate", "Average", "keras.ops.relu",
    "CNN of the paper",
]  # fmt: skip


def run(folder, models, *more):
    """What ``python -m tests.against`` finds in a process of its own, by model and method."""
    path = folder / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.against", *models, *more, "--json", path],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    return {(row["model"], row["method"]): row for row in json.loads(path.read_text())}


def wrong(table):
    """The rows where we and iNNvestigate differ and should not, or do not and should."""
    found = []
    for (model, method), row in table.items():
        difference = row.get("difference", np.inf)
        if differs(model, method):
            # Ours is what float64 gives, and theirs is not, so that the list of differences stays true.
            good = "fails" in row or (difference > 1e-4 and row.get("ours", 0) <= 1e-4 < row.get("theirs", 1))
        else:
            good = difference <= 1e-5 or row.get("ours", np.inf) <= min(row.get("theirs", -1), 1e-3)
        if not good:
            found.append(row)
    return found


def differs_on_large(kind, method):
    """With fresh biases of 0 and normalisations of 1; ResNet50 pads before its first convolution."""
    return kind == "ResNet50" and method in BOUNDED | FLAT
