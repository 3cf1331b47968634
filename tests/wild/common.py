"""What the tests of situations share: the methods by what they can do, tapes, and maps of a method.

The models of these tests are of the kinds that people ask about in public threads; no code or words are taken from
there. What a map must be never comes from the package's own walk over the model in question: it comes from TensorFlow's
tape, from a sum that must hold, or from another model that computes the same in a plainer way.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import analyzers, create_analyzer, registry
from tests.networks import NEEDED

#: Those that explain a decision: what a representation knows has tests of its own.
OURS = [name for name in analyzers() if not name.startswith(("innvestigate:", "mi."))]
LEARNING = ("mipin", "mipin.trained", "pattern.net", "pattern.attribution")
#: They need nothing but a gradient.
GRADIENTS = ("gradient", "input_t_gradient", "integrated_gradients", "smoothgrad")
#: They need a rule for each step.
RULED = [name for name in OURS if name not in (*GRADIENTS, "grad_cam")]
#: They hold between two values that the one input of floats has: no other input has them.
BOUNDED = ("deep_taylor.bounded", "lrp.epsilon_gamma_box")
#: LRP with a rule of its own at the first layers with weights.
FIRST_LAYERS = (
    "lrp.sequential_preset_a_flat", "lrp.sequential_preset_b_flat", "lrp.sequential_preset_b_flat_until_idx",
)  # fmt: skip
#: One of each family; the others differ from one of them in a rule, and are tried where there is more time.
FAMILIES = (
    "gradient", "integrated_gradients", "mipin", "guided_backprop", "lrp.epsilon", "deep_taylor", "pattern.attribution",
)  # fmt: skip
#: Options that keep a method short, where it has them.
QUICK = {"epochs": 1, "verbose": 0, "augment_by_n": 4, "steps": 8, "noise": 0.0}


def each(names, quick=(*FAMILIES, "grad_cam"), without=(), wrong=(), reason=""):
    """``names`` as parameters, of which those in ``quick`` are always tried, and the others where there is time.

    Those in ``without`` are left out; those in ``wrong`` do not give the right value yet, for the ``reason``.
    """
    found = []
    for name in names:
        if name not in without:
            marks = [] if name in quick else [pytest.mark.slow]
            marks += [pytest.mark.xfail(strict=True, reason=reason)] if name in wrong else []
            found.append(pytest.param(name, marks=marks))
    return found


def made(name, model, **options):
    """An analyzer with what its method cannot do without. SmoothGrad is without noise, unless it is given."""
    quick = {key: value for key, value in QUICK.items() if key in registry.options_of(name)}
    return create_analyzer(name, model, **(quick | NEEDED.get(name, {}) | options))


def fitted(name, model, x, **options):
    """As :func:`made`, fitted on ``x`` if the method learns."""
    analyzer = made(name, model, **options)
    return analyzer.fit(x) if name in LEARNING else analyzer


def maps(name, model, x, *, fit=None, selection=None, **options):
    """The maps of ``x``, after a fit to ``fit`` or to ``x``."""
    return fitted(name, model, x if fit is None else fit, **options).analyze(x, selection)


def largest(function, x):
    """The largest output of each sample of ``function`` as a function to one number a sample: the output is fixed."""
    chosen = tf.argmax(function(x), axis=1)
    return lambda points: tf.gather(function(points), chosen, axis=1, batch_dims=1)


def tape(function, x):
    """The gradient of ``function``, to one number a sample, at ``x``: a tensor, or a list or dict of them."""
    points = keras.tree.map_structure(tf.convert_to_tensor, x)
    with tf.GradientTape() as recorded:
        recorded.watch(points)
        values = function(points)
    assert len(values.shape) == 1
    found = recorded.gradient(values, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return keras.tree.map_structure(np.asarray, found)


def by_tape(name, function, x):
    """What the method ``name``, one of GRADIENTS with QUICK's options, gives for ``function`` at ``x``."""
    if name in ("gradient", "smoothgrad"):  # without noise
        return tape(function, x)
    if name == "input_t_gradient":
        return keras.tree.map_structure(np.multiply, x, tape(function, x))
    terms = [
        tape(function, keras.tree.map_structure(lambda part, k=k: np.float32(k / QUICK["steps"]) * part, x))
        for k in range(QUICK["steps"])
    ]
    return keras.tree.map_structure(lambda part, *all_terms: part * np.mean(all_terms, axis=0), x, *terms)


def logits_of(model):
    """``model`` without its head's activation, on the same weights, as a function: Keras runs it, not the package."""
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.layers[-1].activation = keras.activations.linear
    return lambda x: plain(x, training=False)


def agree(found, wanted, tolerance=2e-5):
    """Raise unless maps are alike up to ``tolerance`` of the largest value, and are no zeros."""
    if isinstance(found, list | dict):
        keras.tree.assert_same_structure(found, wanted)
    else:
        found, wanted = [found], [np.asarray(wanted)]
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True):
        one, other = np.asarray(one), np.asarray(other, np.float64)
        assert one.shape == other.shape and one.dtype == np.float32 and np.isfinite(one).all()
        assert np.abs(other).max() > 0, "the right value is zero everywhere: this shows nothing"
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def without_biases(model):
    """``model`` with every bias at zero: LRP-z is then the input times the gradient, and its sum the logit."""
    for variable in model.weights:
        if variable.path.rsplit("/", 1)[-1] in ("bias", "beta", "moving_mean"):
            variable.assign(tf.zeros_like(variable))
    return model


def conserved(relevance, logits, tolerance=1e-4):
    """Raise unless each sample's relevance sums to its explained logit."""
    parts = [np.asarray(part, np.float64).reshape(len(logits), -1).sum(1) for part in keras.tree.flatten(relevance)]
    np.testing.assert_allclose(sum(parts), logits, rtol=tolerance, atol=tolerance * np.abs(logits).max())
