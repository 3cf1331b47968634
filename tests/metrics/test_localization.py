"""Bounding-box accuracy and positive share against closed forms, and ties against every order there is."""

import itertools

import numpy as np
import pytest

from mipin_keras.metrics import bootstrap_interval, bounding_box_accuracy, centre_prior, positive_share


def box(size=(6, 8), top=1, left=2, height=2, width=3):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def every_order(values, mask):
    """The accuracy, averaged over all orders in which pixels can be put before they are ranked."""
    values, mask, n, found = values.reshape(-1), mask.reshape(-1), int(mask.sum()), []
    for order in itertools.permutations(range(len(values))):
        ranked = sorted(order, key=lambda i: -values[i])  # stable: ties keep the order of the permutation
        found.append(sum(mask[i] for i in ranked[:n]) / n)
    return np.mean(found)


def test_the_best_the_worst_and_a_flat_map():
    mask = box()[None]
    assert bounding_box_accuracy(mask.astype(float), mask).accuracy == 1.0
    assert bounding_box_accuracy(~mask, mask).accuracy == 0.0
    flat = bounding_box_accuracy(np.full((1, 6, 8), 3.0), mask)
    assert flat.accuracy == pytest.approx(6 / 48, abs=1e-15) and flat.chance == 6 / 48 and flat.samples == 1


def test_counts_pixels_of_untied_maps():
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(20, 6, 8)), np.stack([box(height=1 + i % 3) for i in range(20)])
    found = bounding_box_accuracy(maps.astype(np.float32), masks)
    for i, (values, mask) in enumerate(zip(maps.astype(np.float32), masks, strict=True)):
        top = np.argsort(values.reshape(-1))[::-1][: mask.sum()]
        assert found.per_image[i] == mask.reshape(-1)[top].sum() / mask.sum()
    assert found.per_image.dtype == np.float64 and found.accuracy == found.per_image.mean()
    assert found.chance == pytest.approx(masks.mean())


@pytest.mark.parametrize("seed", range(6))
def test_ties_count_in_expectation(seed):
    rng = np.random.default_rng(seed)
    values, mask = rng.integers(0, 3, (2, 4)), np.zeros(8, bool)
    mask[rng.choice(8, 1 + seed, replace=False)] = True
    found = bounding_box_accuracy(values[None], mask.reshape(1, 2, 4))
    assert found.accuracy == pytest.approx(every_order(values, mask), abs=1e-12)


def test_a_random_map_scores_chance_on_average():
    masks = np.repeat(box()[None], 4000, axis=0)
    found = bounding_box_accuracy(np.random.default_rng(0).normal(size=masks.shape), masks)
    assert found.accuracy == pytest.approx(found.chance, abs=4 * found.per_image.std() / np.sqrt(4000))


def test_only_the_order_counts():
    masks, maps = box()[None], np.random.default_rng(0).integers(-4, 5, (1, 6, 8))
    expected = bounding_box_accuracy(maps, masks).accuracy
    assert bounding_box_accuracy(maps * 1e30, masks).accuracy == expected
    assert bounding_box_accuracy(np.exp(maps.astype(np.float32)), masks).accuracy == expected


@pytest.mark.parametrize("size", [(5, 5), (4, 6), (1, 3)])
def test_the_centre_prior(size):
    prior = centre_prior(size)
    assert prior.shape == size and prior.dtype == np.float64
    np.testing.assert_array_equal(prior, prior[::-1, ::-1])
    middle = (size[0] - 1) / 2, (size[1] - 1) / 2
    for i, j in np.ndindex(size):
        assert prior[i, j] == pytest.approx(-np.sqrt((i - middle[0]) ** 2 + (j - middle[1]) ** 2))
    if size == (5, 5):
        centre, corner = box((5, 5), 1, 1, 3, 3)[None], box((5, 5), 0, 0, 1, 1)[None]
        assert bounding_box_accuracy(prior[None], centre).accuracy == 1.0
        assert bounding_box_accuracy(prior[None], corner).accuracy == 0.0


def test_positive_share():
    mask = box((2, 4), 0, 0, 1, 2)[None]
    maps = np.float32([[3, 0, 1, -9], [0, -5, 0, 2]])[None]
    assert positive_share(maps, mask).share == pytest.approx(3 / 6)
    assert positive_share(mask * 1e300, mask).share == 1.0
    assert positive_share(1.0 - 3 * mask, mask).share == 0.0
    flat = positive_share(np.ones((1, 2, 4)), mask)
    assert flat.share == flat.chance == 0.25 and (flat.samples, flat.undefined) == (1, 0)


def test_positive_share_leaves_out_what_has_none():
    masks = np.stack([box((2, 4), 0, 0, 1, width) for width in (1, 2, 3)])
    found = positive_share(np.stack([np.ones((2, 4)), np.zeros((2, 4)), -np.ones((2, 4))]), masks)
    assert (found.share, found.chance, found.samples, found.undefined) == (1 / 8, 1 / 8, 1, 2)
    np.testing.assert_array_equal(np.isnan(found.per_image), [False, True, True])
    nothing = positive_share(np.zeros((3, 2, 4)), masks)
    assert np.isnan(nothing.share) and np.isnan(nothing.chance) and nothing.undefined == 3


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20  # the normal approximation, near at 400 values
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (low, high) == bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high
    assert bootstrap_interval([2.5, 2.5, 2.5]) == (2.5, 2.5)
    assert bootstrap_interval([True, False], resamples=500) == (0.0, 1.0)


def test_the_bootstrap_draws_in_parts(monkeypatch):
    values = np.random.default_rng(1).random(10)
    whole = bootstrap_interval(values, resamples=100)
    monkeypatch.setattr("mipin_keras.metrics.localization._DRAWN", 70)
    assert bootstrap_interval(values, resamples=100) == whole


@pytest.mark.parametrize("measure", [bounding_box_accuracy, positive_share])
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones((6, 8)), box(), r"maps of shape \(n, H, W\).*received shape \(6, 8\)"),
        (np.ones((0, 6, 8)), np.ones((0, 6, 8), bool), r"at least one map.*\(0, 6, 8\)"),
        (np.ones((1, 6, 8)), box((8, 6))[None], r"masks.*\(1, 6, 8\), received bool of shape \(1, 8, 6\)"),
        (np.ones((1, 6, 8)), box()[None].astype(int), "dtype bool.*received int64"),
        (np.ones((1, 6, 8), complex), box()[None], "real numbers, received dtype complex128"),
        (np.full((1, 6, 8), np.nan), box()[None], "finite.*1 of 1 maps, the first at index 0"),
        (np.stack([box() * 1.0, np.where(box(), 1, np.inf)]), np.stack([box()] * 2), "1 of 2 maps.*at index 1"),
        (np.ones((1, 6, 8)), np.zeros((1, 6, 8), bool), "1 of 1 that cover nothing"),
        (np.ones((2, 6, 8)), np.stack([box(), np.ones((6, 8), bool)]), "cover all of it, the first at index 1"),
    ],
)
def test_refuses(measure, maps, masks, message):
    with pytest.raises(ValueError, match=message):
        measure(maps, masks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"values of shape \(n,\).*received shape \(0,\); give one number an image"),
        ([[1.0]], r"values of shape \(n,\).*received shape \(1, 1\)"),
        ([np.nan, 1.0], "values to be finite, received NaN or infinity in 1 of 2 samples"),
        (["a"], "values to be real numbers"),
    ],
)
def test_the_bootstrap_refuses_values(values, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"level": 95}, "level to be between 0 and 1, received 95"),
        ({"level": 0}, "level to be a finite number greater than 0, received 0"),
        ({"level": True}, "level to be a finite number .*received True"),
        ({"resamples": 0}, "resamples to be an integer of at least 1, received 0"),
        ({"resamples": 10.0}, "resamples to be an integer of at least 1, received 10.0"),
        ({"seed": -1}, "seed to be an integer of at least 0, received -1"),
    ],
)
def test_the_bootstrap_refuses_options(option, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval([1.0, 2.0], **option)


def test_numpys_numbers_are_numbers():
    plain = bootstrap_interval([1.0, 2.0, 4.0], 0.9, 50, 3)
    assert bootstrap_interval([1.0, 2.0, 4.0], np.float64(0.9), np.int64(50), np.uint8(3)) == plain
    np.testing.assert_array_equal(centre_prior((np.int32(2), np.int64(3))), centre_prior((2, 3)))


@pytest.mark.parametrize("size", [(0, 3), (2.5, 3), (2, True)])
def test_a_centre_prior_of_no_size_is_refused(size):
    with pytest.raises(ValueError, match="expected (height|width) to be an integer of at least 1, received"):
        centre_prior(size)
