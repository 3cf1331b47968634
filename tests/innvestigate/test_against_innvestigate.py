"""Our maps are the real iNNvestigate's, to 1e-5 of a map's largest value; where it is wrong, ours are not.

`python -m tests.against` prints the table that this file checks; docs/innvestigate.md says why each difference is one.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.baselines.lrp import rules
from mipin_keras.graph import linear
from tests import against
from tests.networks import close, samples

pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("innvestigate", "tf_keras"))), reason="innvestigate is not installed"
    ),
]

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
    "dense", "dense, ReLU()", "dense, softmax", "dense, no bias", "conv valid", "conv same, stride (2, 1)",
    "conv, dilation 2", "conv, no bias", "conv 1d", "structural", "max pooling same, overlapping",
    "average pooling same, overlapping", "global average pooling", "batch normalisation, ReLU",
    "batch normalisation, any", "Add", "Concatenate", "Average", "nested", "keras.ops.relu", "CNN of the paper",
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Every rule on every kind of model and every setting on some, made in processes of its own."""
    return run(tmp_path_factory.mktemp("table"), MODELS)


def run(folder, models, *more):
    """What ``python -m tests.against`` finds, half of the models in each of two processes."""
    halves = [half for half in (models[::2], models[1::2]) if half]
    command = [sys.executable, "-m", "tests.against"]
    started = [
        subprocess.Popen(
            [*command, *half, *more, "--json", folder / f"{i}.json"],
            cwd=pathlib.Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, half in enumerate(halves)
    ]
    rows = []
    for i, process in enumerate(started):
        said, errors = process.communicate()
        print(said)
        assert process.returncode == 0, errors[-3000:]
        rows += json.loads((folder / f"{i}.json").read_text())
    return {(row["model"], row["method"]): row for row in rows}


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


def test_every_method_on_every_kind_of_model(table):
    assert set(table) == {(model, method) for model in MODELS for method in against.methods_for(model)}
    assert not wrong(table)


@pytest.mark.slow
def test_every_setting_on_every_model(tmp_path):
    table = run(tmp_path, list(against.MODELS), "--all")
    assert len(table) > 900 and not wrong(table)


@pytest.mark.parametrize("method", sorted(against.METHODS))
def test_most_models_agree_on_each_method(table, method):
    agreeing = [model for model in MODELS if table.get((model, method), {}).get("difference", 1) <= 1e-5]
    assert len(agreeing) >= (2 if method in ALPHA_BETA | PRESETS else 5)


@pytest.mark.parametrize("kind", ["VGG19", "ResNet50"])
def test_the_large_ones(kind, tmp_path):
    for row in run(tmp_path, [f"{kind} 64"]).values():
        assert row.get("difference", np.inf) <= 1e-3 or differs_on_large(kind, row["method"]), row


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["VGG19", "ResNet50"])
def test_the_large_ones_on_whole_images(kind, tmp_path):
    for row in run(tmp_path, [f"{kind} 224"], "--all").values():
        assert row.get("difference", np.inf) <= 1e-3 or differs_on_large(kind, row["method"]), row


def differs_on_large(kind, method):
    """With fresh biases of 0 and normalisations of 1; ResNet50 pads before its first convolution."""
    return kind == "ResNet50" and method in BOUNDED | FLAT


# What the differences are made of: iNNvestigate's own numbers from the formulas that the page gives for it.


class WholeBias(rules.AlphaBeta):
    """The alpha-beta rule as iNNvestigate computes it."""

    def __call__(self, step, seen, signal):
        part, x = linear.linear_part(step.layer), seen.inputs[0]
        highs, lows = tf.nn.relu(x), -tf.nn.relu(-x)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)

        def share(first, second):
            (a, back_a), (b, back_b) = (rules.applied(part.apply, *pair) for pair in ((highs, first), (lows, second)))
            quotient = rules.divided(signal, a + b + part.bias)
            return highs * back_a(quotient) + lows * back_b(quotient)

        return self.alpha * share(above, below) - self.beta * share(below, above)


@pytest.mark.parametrize("name", ["dense", "conv same, stride 2"])
@pytest.mark.parametrize(("method", "alpha", "beta"), [("alpha_2_beta_1", 2.0, 1.0), ("alpha_1_beta_0", 1.0, 0.0)])
def test_its_alpha_beta_rule_has_the_whole_bias_on_both_sides(name, method, alpha, beta):
    model = against.MODELS[name]()
    x = samples(model.input_shape[1:], 6, seed=1)
    theirs = create_analyzer(f"innvestigate:lrp.{method}", model).analyze(x)
    assert close(create_analyzer("lrp", model, rule=WholeBias(alpha, beta)).analyze(x), theirs, 1e-5)


class SquaredVariance(rules.Rule):
    """The rule Z on the diagonal step that iNNvestigate takes a batch normalisation for."""

    def __call__(self, step, seen, signal):
        layer, x = step.layer, seen.inputs[0]
        deviation = tf.sqrt(tf.square(layer.moving_variance) + layer.epsilon)
        scaled = x * layer.gamma / deviation
        return scaled * rules.divided(signal, scaled - layer.moving_mean / deviation + layer.beta)


def test_its_batch_normalisation_squares_the_variance():
    model = against.normalized(plain=False)
    x = samples(model.input_shape[1:], 6, seed=1)
    theirs = create_analyzer("innvestigate:lrp.z", model).analyze(x)
    assert close(create_analyzer("lrp", model, rule="Z", bn_layer_rule=SquaredVariance()).analyze(x), theirs, 1e-4)
    assert not close(create_analyzer("lrp.z", model).analyze(x), theirs, 1e-2)
