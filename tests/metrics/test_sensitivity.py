"""Class sensitivity against closed forms."""

import numpy as np
import pytest

from mipin_keras.metrics import class_sensitivity


def test_closed_forms():
    a = np.array([1.0, 0, 0, 0]).reshape(1, 2, 2)
    b = np.array([0, 1.0, 0, 0]).reshape(1, 2, 2)
    assert class_sensitivity(a, b).distance == pytest.approx(np.sqrt(2))
    assert class_sensitivity(a, -a).distance == 2.0
    ones = np.ones((1, 4, 4, 3))
    assert class_sensitivity(ones, -ones).distance == pytest.approx(2 * np.sqrt(48))  # the largest there is


def test_each_map_is_scaled():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 4, 4)).astype(np.float32)
    found = class_sensitivity(first, second)
    scales = rng.uniform(0.1, 9.0, (5, 1, 1)).astype(np.float32)
    again = class_sensitivity(first * scales, second * 1e-20)
    np.testing.assert_allclose(again.per_image, found.per_image, rtol=1e-5)
    for i in range(5):
        a, b = (m[i].astype(float) / np.abs(m[i]).max() for m in (first, second))
        assert found.per_image[i] == pytest.approx(np.sqrt(((a - b) ** 2).sum()))
    assert found.distance == found.per_image.mean() and found.samples == 5
    assert found.identical == found.empty == 0


def test_identical_and_empty_maps_are_counted():
    rng = np.random.default_rng(0)
    same, zero = rng.normal(size=(3, 3)), np.zeros((3, 3))
    first = np.stack([same, same, zero, zero])
    second = np.stack([7 * same * (1 + 1e-7), zero, same, zero])
    found = class_sensitivity(first, second)
    assert (found.identical, found.empty, found.samples) == (1, 3, 4)
    length = np.linalg.norm(same) / np.abs(same).max()
    np.testing.assert_allclose(found.per_image, [0, length, length, 0], atol=1e-6)
    assert "1 with identical maps, 3 with an empty one" in str(found)


def test_a_small_difference_is_one():
    a = np.ones((1, 8))
    assert class_sensitivity(a, a - 2e-4 * np.eye(1, 8)).identical == 0
    assert class_sensitivity(a, a - 2e-5 * np.eye(1, 8)).identical == 1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), r"one shape, received \(2, 3\) and \(2, 4\)"),
        (np.ones(3), np.ones(3), r"first of shape \(n, \.\.\.\).*received shape \(3,\)"),
        (np.ones((0, 3)), np.ones((0, 3)), "at least one map"),
        (np.ones((1, 3)), np.array([[1, np.nan, 2]]), "second to be finite"),
    ],
)
def test_refuses(first, second, message):
    with pytest.raises(ValueError, match=message):
        class_sensitivity(first, second)
