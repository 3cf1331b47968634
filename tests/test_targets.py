"""Which neurons an analysis explains, and targets."""

import json

import numpy as np
import pytest
import tensorflow as tf

import mipin_keras
from mipin_keras.targets import (
    FUNCTION,
    MODES,
    as_option,
    as_target,
    check_mode,
    contrast,
    negative,
    segmentation,
    select,
)

LOGITS = np.float32([[1, 3, 2], [-1, -5, -2], [4, 0, 4], [0, 0, 0]])


def test_max_activation_takes_the_largest_and_ties_share():
    wanted = [[0, 1, 0], [1, 0, 0], [0.5, 0, 0.5], [1 / 3] * 3]
    found = select(LOGITS, "max_activation")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found.dtype == np.float32


def test_all_takes_every_neuron():
    np.testing.assert_array_equal(select(LOGITS, "all"), np.ones((4, 3)))


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (2, [2, 2, 2, 2]), ([1], [1, 1, 1, 1]), (np.int64(1), [1] * 4), ([0, 2, 1, 0], [0, 2, 1, 0]),
        (np.uint8([2, 2, 0, 1]), [2, 2, 0, 1]), (np.array([[0], [1], [2], [0]]), [0, 1, 2, 0]),
        ((0, 1, 2, 2), [0, 1, 2, 2]),
    ],
)  # fmt: skip
def test_index_takes_what_it_is_told(selection, wanted):
    np.testing.assert_array_equal(select(LOGITS, "index", selection), np.eye(3)[wanted])


def test_a_callable_takes_what_it_says():
    seen = []

    def smallest(logits):
        seen.append(logits)
        return logits.argmin(axis=1)

    np.testing.assert_array_equal(select(LOGITS, smallest), np.eye(3)[[0, 1, 1, 0]])
    np.testing.assert_array_equal(seen[0], LOGITS)
    np.testing.assert_array_equal(select(LOGITS, lambda logits: 2), np.eye(3)[[2] * 4])


@pytest.mark.parametrize("mode", [*MODES, len])
def test_known_modes(mode):
    check_mode(mode)


@pytest.mark.parametrize("mode", ["max", "", None, 3, "MAX_ACTIVATION"])
def test_unknown_modes_are_refused(mode):
    for refused in (lambda: check_mode(mode), lambda: select(LOGITS, mode)):
        with pytest.raises(ValueError, match=r"'max_activation', 'index', 'all'.*received " + repr(mode)):
            refused()


@pytest.mark.parametrize(
    ("mode", "selection", "message"),
    [
        ("index", None, "needs neuron_selection"),
        ("max_activation", 1, "only for neuron_selection_mode='index'"),
        ("all", [0] * 4, "only for neuron_selection_mode='index'"),
        (lambda logits: 0, 1, "only for neuron_selection_mode='index'"),
        (lambda logits: None, None, "to return indices, received None"),
        ("index", 1.0, "expected integers"),
        ("index", "1", "expected integers"),
        ("index", True, "expected integers"),
        ("index", [0, None, 1, 2], "expected integers"),
        (lambda logits: logits.max(axis=1), None, "expected integers"),
        ("index", [0, 1], "an int or 4 of them, received 2"),
        ("index", [0] * 5, "an int or 4 of them, received 5"),
        ("index", np.zeros(0, int), "an int or 4 of them, received 0"),
        ("index", 3, r"from 0 to 2, received \[3\]"),
        ("index", [0, 1, -1, 2], "from 0 to 2"),
        (lambda logits: logits.argmax(axis=1)[:2], None, "an int or 4 of them"),
    ],
)
def test_wrong_selections_are_refused(mode, selection, message):
    with pytest.raises(ValueError, match=message):
        select(LOGITS, mode, selection)


@pytest.mark.parametrize("mode", ["max_activation", "all"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(mode, bad):
    with pytest.raises(ValueError, match="expected finite logits"):
        select(np.array([[0.0, 1.0], [bad, 1.0]], np.float32), mode)


def test_what_a_callable_returns_and_lists_in_lists():
    logits = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="to return indices, received None"):
        select(logits, lambda logits: None)
    for wrong in ([[0, 1], [1, 2]], [0, [1, 2]], [[[0]]]):
        with pytest.raises(ValueError, match="expected integers as neuron_selection, one or a list"):
            select(logits, "index", wrong)
    assert (select(logits, "index", [[0], [1], [2], [0]]).argmax(axis=1) == [0, 1, 2, 0]).all()


# Targets


def test_ready_made_targets_are_weighted_sums():
    y = np.float32([[1, 2, 4], [-1, 0, 3]])
    for target, wanted in (
        (negative(1), [-2, 0]), (contrast(2, 0), [3, 4]), (as_target(2), [4, 3]), (as_target([0]), [1, -1]),
    ):  # fmt: skip
        np.testing.assert_array_equal(target.function(tf.constant(y)), wanted)
        np.testing.assert_array_equal(y @ target.weights(3), wanted)
        assert target.of_logits


def test_a_region_has_a_mean():
    y = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    mask = np.zeros((3, 4), bool)
    mask[0, 1] = mask[2, 3] = mask[1, 0] = True
    found = segmentation(mask, 1).function(tf.constant(y))
    np.testing.assert_allclose(found, y[:, mask, 1].mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    "target",
    [negative(3), contrast(1, 2), segmentation([[True, False], [False, True]], 4), as_target(2), as_target((1, 0, 2))],
)
def test_what_a_file_holds_of_a_target_makes_it_again(target):
    held = json.loads(json.dumps(as_option(target)))
    again = as_target(held)
    assert as_option(again) == as_option(target) != FUNCTION
    y = tf.constant(np.random.default_rng(0).normal(size=(3, 5) if target.weights else (3, 2, 2, 5)))
    np.testing.assert_array_equal(again.function(y), target.function(y))


def test_a_function_is_in_no_file():
    target = as_target(lambda y: y[:, 0])
    assert as_option(target) == FUNCTION and not target.of_logits
    with pytest.raises(ValueError, match=r"no file holds, received none; give it: load_analyzer\(path, model, target="):
        as_target(FUNCTION)
    assert as_target(None) is None and as_option(None) is None and as_target(target) is target


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: negative(-1), ValueError, "unit"), (lambda: negative(1.0), ValueError, "unit"),
        (lambda: contrast(1, 1), ValueError, "two different output neurons, received 1 twice"),
        (lambda: segmentation([[0, 1]], 1), ValueError, "array of booleans, True somewhere, received dtype int"),
        (lambda: segmentation([[False]], 1), ValueError, "0 entries that are not 0"),
        (lambda: as_target("logit"), TypeError, "received 'logit'"), (lambda: as_target(()), TypeError, "received"),
        (lambda: as_target((1, 2.5)), TypeError, "received"), (lambda: as_target(True), TypeError, "received True"),
        (lambda: as_target((0, -1)), ValueError, "target"), (lambda: as_target({"mean": 1}), TypeError, "received"),
    ],
)  # fmt: skip
def test_wrong_targets_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_targets_are_public():
    assert mipin_keras.targets.negative(0).about == {"negative": 0} and "targets" in mipin_keras.__all__
