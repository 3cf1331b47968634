"""Our maps are the real iNNvestigate's, to 1e-5 of a map's largest value; where it is wrong, ours are not.

`python -m tests.against` prints the table that this file checks, but for LRP and the large models, which have files of
their own; docs/innvestigate.md says why each difference is one.
"""

import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.baselines.lrp import rules
from mipin_keras.graph import linear
from tests import against
from tests.innvestigate import differences
from tests.networks import close, samples

pytestmark = [pytest.mark.medium, differences.NEEDS_INNVESTIGATE]

METHODS = sorted(set(against.METHODS) - differences.LRP)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """These methods on every kind of model, and their settings on some."""
    return differences.run(tmp_path_factory.mktemp("table"), differences.MODELS, "--methods", *METHODS)


def test_every_method_on_every_kind_of_model(table):
    wanted = {(model, method) for model in differences.MODELS for method in against.methods_for(model)}
    assert set(table) == {(model, method) for model, method in wanted if method in METHODS}
    assert not differences.wrong(table)


@pytest.mark.parametrize("method", METHODS)
def test_most_models_agree_on_each_method(table, method):
    rows = [table.get((model, method), {}) for model in differences.MODELS]
    agreeing = [row for row in rows if row.get("difference", 1) <= 1e-5]
    assert len(agreeing) >= (2 if method in differences.ALPHA_BETA | differences.PRESETS else 5)


@pytest.mark.slow
def test_every_setting_on_every_model(tmp_path):
    table = differences.run(tmp_path, list(against.MODELS), "--all")
    assert len(table) > 900 and not differences.wrong(table)


# What the differences are made of: iNNvestigate's own numbers from the formulas that the page gives for it.


class WholeBias(rules.AlphaBeta):
    """The alpha-beta rule as iNNvestigate computes it."""

    def __call__(self, step, seen, signal):
        part, x = linear.linear_part(step.layer), seen.inputs[0]
        highs, lows = tf.nn.relu(x), -tf.nn.relu(-x)
        above, below = tf.nn.relu(part.kernel), -tf.nn.relu(-part.kernel)

        def share(first, second):
            (a, back_a), (b, back_b) = (part.with_adjoint(*pair) for pair in ((highs, first), (lows, second)))
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
