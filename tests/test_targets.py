"""Which neurons an analysis explains."""

import numpy as np
import pytest

from mipin_keras.targets import MODES, check_mode, select

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
