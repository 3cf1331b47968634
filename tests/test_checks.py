"""Checks of options and arrays."""

import numpy as np
import pytest

from mipin_keras import checks


@pytest.mark.parametrize(
    ("value", "known"), [("a", ("a", "b")), (None, (None, "abs")), (0, (0, 1, 2)), (True, (True, False))]
)
def test_one_of_takes_what_is_known(value, known):
    assert checks.one_of("option", value, known) == value


@pytest.mark.parametrize(
    ("value", "known", "taken"),
    [(np.int64(2), (0, 1, 2), 2), (np.bool_(True), (True, False), True), (np.str_("a"), ("a", "b"), "a")],
)
def test_one_of_takes_numpys_scalars_as_pythons(value, known, taken):
    found = checks.one_of("option", value, known)
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("c", ("a", "b")), ("A", ("a",)), (None, ("a",)), (True, (0, 1)), (1, (True, False)), (1.0, (0, 1)),
        (["a"], ("a",)), (np.array(["a"]), ("a",)), (float("nan"), (0,)), ("", (None, "abs")),
        (np.True_, (0, 1)), (np.int64(1), (True, False)), (np.float32(1), (0, 1)),
    ],
)  # fmt: skip
def test_one_of_says_what_is_known_and_what_came(value, known):
    with pytest.raises(ValueError) as caught:
        checks.one_of("option", value, known)
    assert str(caught.value) == f"expected option to be one of {known}, received {value!r}"


@pytest.mark.parametrize(
    ("value", "least"), [(0, 0), (1, 1), (10**20, 1), (-3, -3), (np.int8(2), 1), (np.uint64(2**63), 0)]
)
def test_integer_takes_integers_from_the_least_on(value, least):
    found = checks.integer("steps", value, least)
    assert type(found) is int and found == value


@pytest.mark.parametrize("value", [0, -1, True, False, np.True_, np.float32(2), 2.5, 2.0, "2", None, [1], float("inf")])
def test_integer_refuses_what_is_less_or_no_integer(value):
    with pytest.raises(ValueError) as caught:
        checks.integer("steps", value, 1)
    assert str(caught.value) == f"expected steps to be an integer of at least 1, received {value!r}"


@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, np.float32(0.25), np.int64(3), 1e300])
def test_number_gives_a_float(value):
    found = checks.number("noise", value, 0)
    assert type(found) is float and found == value


BAD = [-1, -1e-9, float("inf"), -float("inf"), float("nan"), True, np.bool_(True), "1", None, [1.0], 1j, np.ones(1)]


@pytest.mark.parametrize("value", BAD)
def test_number_refuses_what_is_less_not_finite_or_none(value):
    with pytest.raises(ValueError) as caught:
        checks.number("noise", value, 0)
    assert str(caught.value) == f"expected noise to be a finite number of at least 0, received {value!r}"


def test_number_above_leaves_the_bound_out():
    assert checks.number("epsilon", 1e-9, 0, above=True) == 1e-9
    assert checks.number("epsilon", 0.5, 0.5) == 0.5
    for value in (0, 0.0, -0.0, -1):
        with pytest.raises(ValueError, match=f"epsilon to be a finite number greater than 0, received {value}"):
            checks.number("epsilon", value, 0, above=True)
    with pytest.raises(ValueError, match="greater than 0.5, received 0.5"):
        checks.number("epsilon", 0.5, 0.5, above=True)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (2, np.full((2, 3), 2.0)),
        ([1, 2, 3], [[1, 2, 3], [1, 2, 3]]),
        ([[1], [2]], [[1, 1, 1], [2, 2, 2]]),
        (np.arange(6, dtype=np.uint8).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.float32(0.5), np.full((2, 3), 0.5)),
    ],
)
def test_array_like_broadcasts_to_one_sample(value, wanted):
    found = checks.array_like("low", value, (2, 3))
    assert found.dtype == np.float64 and found.shape == (2, 3)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (np.zeros(2), "(2,)"),
        (np.zeros((3, 2)), "(3, 2)"),
        (np.zeros((1, 2, 3)), "(1, 2, 3)"),
        ([0, 0], "[0, 0]"),
        ("zero", "'zero'"),
        (None, None),
        ([[1, 2], [3]], "[[1, 2], [3]]"),
        ({}, "{}"),
    ],
)
def test_array_like_refuses_other_shapes_and_what_is_no_number(value, received):
    with pytest.raises(ValueError) as caught:
        checks.array_like("low", value, (2, 3))
    assert str(caught.value).startswith("expected low to be ")
    if received is not None:  # NumPy makes NaN of None
        assert "broadcasts to one sample (2, 3)" in str(caught.value)
        assert str(caught.value).endswith(f"received {received}; give one number for all, or leave out the batch axis")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [0, -float("inf"), 0], np.full((2, 3), np.nan)])
def test_array_like_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="expected low to be finite, received"):
        checks.array_like("low", value, (2, 3))


def test_array_like_does_not_write_to_what_it_was_given():
    given = np.arange(3.0)
    found = checks.array_like("low", given, (2, 3))
    np.testing.assert_array_equal(given, [0, 1, 2])
    assert found.base is not None or found is not given


@pytest.mark.parametrize(
    "call", [lambda: checks.number("noise", 10**400, 0), lambda: checks.array_like("low", 10**400, ())]
)
def test_an_integer_too_large_for_a_float_is_refused(call):
    with pytest.raises(ValueError, match="expected (noise|low) to be"):
        call()


@pytest.mark.parametrize("shape", [(None, 3), (None, None, 2)])
def test_a_number_fits_a_sample_with_open_axes(shape):
    np.testing.assert_array_equal(np.unique(checks.array_like("low", 0.5, shape)), [0.5])


def test_real_array_does_not_copy_and_keeps_the_dtype():
    given = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert checks.real_array("maps", given) is given
    assert checks.real_array("maps", [[True], [False]]).dtype == bool


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a"], "maps to be real numbers, received dtype <U1; convert"),
        ([1j], "maps to be real numbers, received dtype complex128"),
        (None, "maps to be real numbers, received dtype object"),
        (
            [[1, 2], [3]],
            "maps to be one array of real numbers, received a list of parts of different shapes",
        ),
    ],
)
def test_real_array_refuses_other_things(values, message):
    with pytest.raises(ValueError, match="expected " + message):
        checks.real_array("maps", values)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.ones((2, 0)), np.arange(3), np.array([True]), np.ones((2, 3))])
def test_check_finite_takes_finite_numbers(array):
    checks.check_finite("maps", array, "maps", "leave them out")


def test_check_finite_counts_what_is_not_finite():
    array = np.ones((4, 2, 2))
    array[1, 0, 0], array[3] = np.nan, np.inf
    message = (
        "expected maps to be finite, received NaN or infinity in 2 of 4 images, the first at index 1; leave them out"
    )
    with pytest.raises(ValueError) as caught:
        checks.check_finite("maps", array, "images", "leave them out")
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="in 2 of 4 samples of a batch, the first at index 11 of the data; leave"):
        checks.check_finite("input", array, "samples", "leave them out", offset=10)
    with pytest.raises(ValueError, match="in 1 of 2 values, the first at index 1;"):
        checks.check_finite("values", np.array([1.0, -np.inf]), "values", "leave them out")
