"""Several outputs, and heads of one unit: which number is explained, and from which side."""

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer, load_analyzer, targets
from tests.networks import mlp, samples, with_weights
from tests.wild.common import (
    GRADIENTS,
    OURS,
    RULED,
    agree,
    by_tape,
    conserved,
    each,
    fitted,
    made,
    maps,
    tape,
    without_biases,
)

L = keras.layers
X = samples((6,), 40)
IMAGES = samples((6, 5, 2), 12)


def heads(*kernels, head=None):
    """A network with the head of each kernel ``(5, units)``, all on the same body.

    The biases are such that each logit has a mean of 0: minus a head's kernel makes minus its logits.
    """
    x = keras.Input((6,), name="table")
    body = with_weights(keras.Model(x, L.Dense(5, activation="relu", name="body")(x)), 2)
    mean = np.asarray(body(X)).mean(0)
    outputs = []
    for i, kernel in enumerate(kernels):
        layer = L.Dense(kernel.shape[1], activation=head, name=f"head{i}")
        outputs.append(layer(body.output))
        layer.set_weights([kernel, -mean @ kernel])
    return keras.Model(x, outputs[0] if len(outputs) == 1 else outputs)


KERNEL = np.random.default_rng(4).normal(size=(5, 3)).astype("float32")


# One unit behind a sigmoid


def test_one_sigmoid_unit_and_two_softmax_units_have_opposite_sides():
    # Two units w/2 and -w/2 behind a softmax are one unit w behind a sigmoid.
    weight = KERNEL[:, :1]
    one = made("gradient", heads(weight, head="sigmoid"))
    two = made("gradient", heads(np.hstack([-weight / 2, weight / 2]), head="softmax"), neuron_selection_mode="index")
    agree(2 * two.analyze(X, 1), one.analyze(X))
    agree(-2 * two.analyze(X, 0), one.analyze(X))


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
def test_the_other_side_of_one_unit(name):
    model = heads(KERNEL[:, :1], head="sigmoid")
    other = heads(-KERNEL[:, :1])
    agree(maps(name, model, X, target=targets.negative(0)), maps(name, other, X))


@pytest.mark.parametrize("name", ["deep_taylor", "mipin", "gradient"])
def test_a_negative_logit_has_a_map_on_its_own_side(name):
    model = heads(KERNEL[:, :1], head="sigmoid")
    against = X[made("gradient", model).logits(X)[:, 0] < 0]
    assert len(against) > 3
    found = maps(name, model, against, fit=X, target=targets.negative(0))
    assert all(one.any() for one in found)
    if name == "deep_taylor":
        assert not maps(name, model, against).any()
        assert (found >= 0).all()


def test_the_samples_that_one_sigmoid_unit_takes():
    model = heads(KERNEL[:, :1], head="sigmoid")
    taken = X[np.asarray(model(X))[:, 0] > 0.5]
    assert 5 < len(taken) < 35
    agree(maps("mipin", model, X[:5], fit=X, samples="class"), maps("mipin", model, X[:5], fit=taken, samples="all"))


def test_the_samples_that_each_of_several_labels_takes():
    model = heads(KERNEL, head="sigmoid")
    found = made("mipin", model, samples="class", neuron_selection_mode="index").fit(X)
    for label in range(3):
        taken = X[np.asarray(model(X))[:, label] > 0.5]
        assert 3 < len(taken) < 38
        alone = made("mipin", model, classes=[label], neuron_selection_mode="index").fit(taken)
        agree(found.analyze(X[:5], label), alone.analyze(X[:5], label))
    # Behind a softmax it is the argmax.
    model = heads(KERNEL, head="softmax")
    found = made("mipin", model, samples="class", classes=[1], neuron_selection_mode="index").fit(X)
    taken = X[np.asarray(model(X)).argmax(1) == 1]
    alone = made("mipin", model, classes=[1], neuron_selection_mode="index").fit(taken)
    agree(found.analyze(X[:5], 1), alone.analyze(X[:5], 1))


# Targets on units


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
def test_why_one_class_rather_than_another(name):
    model = heads(KERNEL, head="softmax")
    difference = heads(KERNEL[:, :1] - KERNEL[:, 2:])
    agree(maps(name, model, X, target=targets.contrast(0, 2)), maps(name, difference, X))


# A convolution that is trained starts from random numbers of its own for each fit of another class or target.
@pytest.mark.parametrize("name", each(OURS, without=["mipin.trained"]))
@pytest.mark.few(2)
def test_an_index_as_target_is_that_unit(name):
    x = keras.Input((6, 5, 2))
    y = L.Flatten()(L.MaxPooling2D(2)(L.Conv2D(3, 3, activation="relu")(x)))
    model = with_weights(keras.Model(x, L.Dense(4, activation="softmax")(y)), 3)
    wanted = maps(name, model, IMAGES, selection=1, neuron_selection_mode="index")
    analyzer = fitted(name, model, IMAGES, target=1)
    agree(analyzer.analyze(IMAGES), wanted)
    assert analyzer.logits(IMAGES).shape == (12, 1)


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_users_function_of_probabilities(name):
    # A function gets the model's own output, with its softmax: here the log-odds of two classes together.
    model = heads(KERNEL, head="softmax")

    def odds(y):
        both = y[:, 0] + y[:, 2]
        return keras.ops.log(both) - keras.ops.log(1 - both)

    agree(maps(name, model, X, target=odds), by_tape(name, lambda x: odds(model(x, training=False)), X))


@pytest.mark.parametrize("option", [{"classes": [0]}, {"neuron_selection_mode": "index"}])
def test_a_target_is_the_one_explained_quantity(option):
    with pytest.raises(ValueError, match="target.*(leave|one)"):
        create_analyzer("mipin", heads(KERNEL), target=targets.contrast(0, 1), verbose=0, **option)
    if "classes" not in option:
        with pytest.raises(ValueError, match="target"):
            create_analyzer("lrp.epsilon", heads(KERNEL), target=1, **option)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (7, "0 to 2"),
        ((1, 2), "target"),
        (lambda y: y, r"\(n,\)|one number"),
        (lambda y: keras.ops.sum(y), r"\(n,\)|one number"),
        ("cat", "target"),
    ],
    ids=["out of range", "too many axes", "no number a sample", "one for all", "a word"],
)
def test_targets_that_are_none(target, words):
    with pytest.raises((ValueError, TypeError), match=words):
        create_analyzer("gradient", heads(KERNEL), target=target).analyze(X)


SAVED = {"negative": lambda: targets.negative(1), "contrast": lambda: targets.contrast(2, 0), "index": lambda: 1}


@pytest.mark.parametrize("target", SAVED)
@pytest.mark.parametrize("name", ["lrp.epsilon", "mipin", "pattern.attribution"])
@pytest.mark.few(3)
def test_a_saved_target_is_in_the_file(name, target, tmp_path):
    model = heads(KERNEL, head="softmax")
    analyzer = fitted(name, model, X, target=SAVED[target]())
    loaded = load_analyzer(analyzer.save(tmp_path / "fit.npz"), model)
    np.testing.assert_array_equal(loaded.analyze(X), analyzer.analyze(X))


def test_a_users_target_is_asked_for_again(tmp_path):
    model, target = heads(KERNEL), lambda y: y[:, 0] - 0.5 * y[:, 1]
    analyzer = fitted("mipin", model, X, target=target)
    path = analyzer.save(tmp_path / "fit.npz")
    np.testing.assert_array_equal(load_analyzer(path, model, target=target).analyze(X), analyzer.analyze(X))
    with pytest.raises(ValueError, match="target"):
        load_analyzer(path, model)


# Several outputs


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
@pytest.mark.parametrize("output", ["head1", 1], ids=["by name", "by index"])
@pytest.mark.few(4)
def test_one_of_several_outputs(name, output):
    both = heads(KERNEL[:, :1], KERNEL)
    agree(maps(name, both, X, output=output), maps(name, heads(KERNEL), X))


def test_several_outputs_ask_which():
    both = heads(KERNEL[:, :1], KERNEL)
    with pytest.raises(ValueError, match="'head0'.*'head1'.*output|output.*'head0'.*'head1'"):
        create_analyzer("gradient", both)
    for wrong in ("nowhere", 2, True):
        with pytest.raises((ValueError, TypeError), match="output.*head0|head0.*output"):
            create_analyzer("gradient", both, output=wrong)


def test_outputs_in_a_dict():
    x = keras.Input((6,))
    body = L.Dense(5, activation="relu")(x)
    model = with_weights(keras.Model(x, {"age": L.Dense(1)(body), "sex": L.Dense(2, activation="softmax")(body)}))
    for name in ("age", "sex"):
        layer = [layer for layer in model.layers[2:] if layer.units == {"age": 1, "sex": 2}[name]][0]
        alone = keras.Model(x, layer.output)
        for method in ("gradient", "lrp.epsilon", "mipin"):
            agree(maps(method, model, X, output=name), maps(method, alone, X))


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_target_over_several_outputs(name):
    both = heads(KERNEL[:, :1], KERNEL)
    target = lambda y: y[0][:, 0] + 2 * y[1][:, 2]  # noqa: E731
    agree(maps(name, both, X, target=target), by_tape(name, lambda x: target(both(x, training=False)), X))


def test_a_nonlinear_target_over_several_outputs_by_lrp_and_mipin():
    # The walk starts at each output with the output times its derivative: for a sum of outputs, with the outputs.
    both = without_biases(heads(KERNEL[:, :1], KERNEL))
    target = lambda y: y[0][:, 0] + y[1][:, 2]  # noqa: E731
    value = np.asarray(target(both(X)))
    relevance = maps("lrp.z", both, X, target=target)
    conserved(relevance, value)
    agree(relevance, X * tape(lambda x: target(both(x)), X), 1e-4)
    analyzer = fitted("mipin", both, X, target=target)
    np.testing.assert_allclose(analyzer.logits(X)[:, 0], value, rtol=1e-5, atol=1e-5)
    assert analyzer.analyze(X).std() > 0


# Regression


def test_a_regression_head_has_nothing_to_leave_off():
    model = mlp(units=1)
    x = samples((12,), 8)
    analyzer = create_analyzer("integrated_gradients", model, steps=400, riemann="middle")
    np.testing.assert_allclose(analyzer.logits(x), model(x), rtol=1e-5, atol=1e-6)
    difference = np.asarray(model(x) - model(np.zeros_like(x)))[:, 0]
    np.testing.assert_allclose(analyzer.analyze(x).sum(1), difference, rtol=1e-2, atol=1e-2 * abs(difference).max())
