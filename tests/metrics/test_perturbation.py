"""Deletion and insertion curves: closed forms for the best, the worst and a random ranking, and what is refused."""

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras.metrics import Curves, deletion, insertion

H, W, STEPS = 6, 5, 10


def total(batch):
    """Two classes: the sum of all values, and its negative."""
    flat = batch.reshape(len(batch), -1).astype(np.float64).sum(axis=1)
    return np.stack([flat, -flat], axis=1)


def brute_force(image, scores, baseline, insert=False):
    """The sum of one image after each count of pixels, replaced one by one in the order of the scores."""
    order = sorted(range(H * W), key=lambda i: -scores.reshape(-1)[i])
    now, other = (baseline, image) if insert else (image, baseline)
    now, sums = now.reshape(H * W).copy(), []
    for count in range(H * W + 1):
        if count:
            now[order[count - 1]] = other.reshape(H * W)[order[count - 1]]
        sums.append(now.sum())
    return np.array(sums)[:: H * W // STEPS]


def area(curve):
    return (curve[0] / 2 + curve[1:-1].sum() + curve[-1] / 2) / (len(curve) - 1)


@pytest.fixture
def x(rng):
    return rng.permutation(4 * H * W).reshape(4, H, W) / 10.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("measure", "insert"), [(deletion, False), (insertion, True)])
def test_the_sum_of_x_with_the_ranking_of_x(x, measure, insert, sign):
    found = measure(total, x, sign * x, 0, baseline="zero", steps=STEPS)
    np.testing.assert_allclose(found.shares, np.arange(STEPS + 1) / STEPS)
    expected = np.array([brute_force(image, sign * image, np.zeros((H, W)), insert) for image in x])
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    np.testing.assert_allclose(found.areas, [area(curve) for curve in expected])
    assert found.mean_area == pytest.approx(found.areas.mean())


def test_no_ranking_beats_that_of_x_and_none_is_worse_than_the_reverse(x, rng):
    best = deletion(total, x, x, 0, baseline="zero", steps=STEPS)
    worst = deletion(total, x, -x, 0, baseline="zero", steps=STEPS)
    for _ in range(20):
        other = deletion(total, x, rng.normal(size=x.shape), 0, baseline="zero", steps=STEPS).scores
        assert (best.scores <= other + 1e-9).all() and (other <= worst.scores + 1e-9).all()
    # Of the negative sum the order of merit is the reverse.
    negative = deletion(total, x, x, 1, baseline="zero", steps=STEPS)
    np.testing.assert_allclose(negative.scores, -best.scores)


def test_a_random_ranking_and_a_flat_map_go_down_in_a_straight_line(x):
    many = np.repeat(x[:1], 2000, axis=0)
    line = many[0].sum() * (1 - np.arange(STEPS + 1) / STEPS)
    maps = np.random.default_rng(0).normal(size=many.shape)
    for ranking in (maps, np.zeros_like(maps)):
        found = deletion(total, many, ranking, 0, baseline="zero", steps=STEPS, batch_size=1000)
        np.testing.assert_allclose(found.scores.mean(axis=0), line, atol=0.02 * line[0])
        assert found.areas.std() > 0


def test_equal_values_go_at_random_and_the_seed_says_how(x):
    flat, half = np.zeros_like(x), (x > np.median(x)).astype(np.uint8)
    first, again, other = (deletion(total, x, flat, 0, steps=STEPS, seed=seed).scores for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # Ties are broken only among equals: when those that are 1 have gone, the same are left whatever the seed.
    ends = [deletion(total, x[:1], half[:1], 0, baseline="zero", steps=H * W, seed=seed).scores for seed in (0, 1)]
    np.testing.assert_allclose(ends[0][0, half[0].sum()], ends[1][0, half[0].sum()])


def test_a_linear_model_of_many_channels(rng):
    x, weights = rng.normal(size=(3, H, W, 2)), rng.normal(size=(H, W, 2))
    baseline = rng.normal(size=(H, W, 2))
    contribution = ((x - baseline) * weights).sum(axis=-1)

    def linear(batch):
        return (batch * weights).sum(axis=(1, 2, 3))[:, None]

    found = deletion(linear, x, contribution, [0, 0, 0], baseline=baseline, steps=H * W)
    lost = np.cumsum(-np.sort(-contribution.reshape(3, -1), axis=1), axis=1)
    expected = linear(x) - np.concatenate([np.zeros((3, 1)), lost], axis=1)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    put_back = insertion(linear, x, contribution, 0, baseline=baseline, steps=H * W)
    np.testing.assert_allclose(
        found.scores + put_back.scores, np.broadcast_to(linear(x) + linear(baseline[None]), (3, 31))
    )


def test_insertion_of_the_reversed_ranking_is_deletion_read_backwards(x, rng):
    def model(batch):
        return np.tanh(batch @ np.arange(W)).cumsum(axis=1)[:, -2:]

    maps = rng.normal(size=x.shape)
    away = deletion(model, x, maps, [0, 1, 0, 1], steps=STEPS)
    back = insertion(model, x, -maps, [0, 1, 0, 1], steps=STEPS)
    np.testing.assert_allclose(back.scores, away.scores[:, ::-1])
    np.testing.assert_allclose(back.areas, away.areas)


@pytest.mark.parametrize("baseline", ["mean", "blur", "zero", 0.5, "array"])
def test_the_ends_are_the_image_and_the_baseline(rng, baseline):
    x = rng.uniform(size=(3, H, W, 2)).astype(np.float32)
    baseline = (
        rng.normal(size=(H, W, 1)).astype(np.float32) if isinstance(baseline, str) and baseline == "array" else baseline
    )
    seen = []

    def predict(batch):
        seen.append(batch.copy())
        return np.zeros((len(batch), 1))

    deletion(predict, x, x[..., 0], 0, baseline=baseline, steps=7)
    assert len(seen) == 8
    np.testing.assert_array_equal(seen[0], x)
    end = seen[-1]
    assert all(batch.dtype == np.float32 for batch in seen)
    if isinstance(baseline, str) and baseline == "mean":
        np.testing.assert_allclose(end, np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape), rtol=1e-6)
    elif isinstance(baseline, str) and baseline == "blur":
        assert (end.std(axis=(1, 2)) < x.std(axis=(1, 2))).all()
    else:
        np.testing.assert_array_equal(end, np.broadcast_to(0.0 if isinstance(baseline, str) else baseline, x.shape))
    middle = seen[3]
    assert ((middle == x) | (middle == end)).all()
    np.testing.assert_array_equal((middle == x)[..., 0], (middle == x)[..., 1])  # a pixel's channels go together
    seen.clear()
    insertion(predict, x, x[..., 0], 0, baseline=baseline, steps=7)
    np.testing.assert_array_equal(seen[0], end)
    np.testing.assert_array_equal(seen[-1], x)


def test_the_mean_keeps_each_channels_mean_when_all_has_gone(rng):
    x = rng.normal(size=(3, H, W, 2))
    means = deletion(lambda batch: batch.mean(axis=(1, 2)), x, x[..., 0], 1, baseline="mean", steps=STEPS).scores
    np.testing.assert_allclose(means[:, -1], x[..., 1].mean(axis=(1, 2)))
    np.testing.assert_allclose(means[:, 0], means[:, -1])


def test_the_blur_is_a_gaussian_of_a_tenth_of_each_side():
    point = np.zeros((1, 40, 20))
    point[0, 20, 10] = 1.0
    seen = []

    def predict(batch):
        seen.append(batch)
        return np.zeros((1, 1))

    insertion(predict, point, point, 0, steps=1)
    spread, away = seen[0][0], np.arange(40)[:, None] - 20
    across = np.arange(20) - 10
    expected = np.exp(-(away**2) / (2 * 4.0**2) - across**2 / (2 * 2.0**2)) / (2 * np.pi * 4.0 * 2.0)
    # What the edges, 2.5 deviations away, cut off is made up for.
    np.testing.assert_allclose(spread[10:30, 5:15], expected[10:30, 5:15], rtol=0.01)
    flat = np.full((1, 8, 9, 3), 0.25)
    constant = deletion(lambda batch: batch.max(axis=(1, 2)), flat, flat[..., 0], 2, steps=4)
    np.testing.assert_allclose(constant.scores, 0.25)


def test_no_more_images_at_once_than_a_batch_and_the_same_numbers(x, rng):
    sizes, maps = [], rng.integers(0, 3, x.shape)

    def predict(batch):
        sizes.append(len(batch))
        return total(batch)

    whole = deletion(predict, x, maps, [0, 1, 0, 1], steps=STEPS)
    assert set(sizes) == {4}
    sizes.clear()
    parts = deletion(predict, x, maps, [0, 1, 0, 1], steps=STEPS, batch_size=3)
    assert set(sizes) == {3, 1} and len(sizes) == 2 * (STEPS + 1)
    np.testing.assert_allclose(whole.scores, parts.scores)


def test_shares_are_those_that_were_replaced_where_steps_do_not_divide_the_pixels(x):
    found = deletion(total, x, x, 0, baseline="zero", steps=7)
    counts = found.shares * H * W
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert found.shares[0] == 0 and found.shares[-1] == 1 and (np.diff(counts) >= 4 - 1e-9).all()
    np.testing.assert_allclose(deletion(lambda b: np.ones((len(b), 1)), x, x, 0, steps=7).areas, 1.0)


def test_integers_become_float32(x):
    dtypes = set()

    def predict(batch):
        dtypes.add(batch.dtype)
        return total(batch)

    found = deletion(predict, (10 * x).astype(np.uint8), x, np.int64(0), baseline="mean", steps=STEPS)
    assert dtypes == {np.dtype(np.float32)} and isinstance(found, Curves) and str(found).startswith("area ")


def test_an_analyzer_and_a_model_are_what_it_takes(rng):
    layers = keras.layers
    model = keras.Sequential([keras.Input((H, W, 2)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    x = rng.normal(size=(4, H, W, 2)).astype(np.float32)
    analyzer = mipin_keras.create_analyzer("input_t_gradient", model, neuron_selection_mode="index")
    maps = analyzer.analyze(x, 1, reduce="sum")
    best = deletion(analyzer.logits, x, maps, 1, baseline="zero", steps=STEPS)
    np.testing.assert_allclose(best.scores[:, 0], analyzer.logits(x)[:, 1], rtol=1e-5)
    assert (best.scores <= deletion(analyzer.logits, x, -maps, 1, baseline="zero", steps=STEPS).scores + 1e-5).all()
    probabilities = deletion(model.predict_on_batch, x, maps, 1, steps=STEPS).scores
    assert probabilities.min() >= 0 and probabilities.max() <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((4, 3))}, r"x of shape \(n, H, W, C\).*received shape \(4, 3\)"),
        ({"x": np.zeros((0, H, W)), "maps": np.zeros((0, H, W))}, "at least one map"),
        ({"x": np.full((4, H, W), np.nan)}, "x to be finite, received NaN or infinity in 4 of 4"),
        ({"x": np.full((4, H, W), "a")}, "x to be real numbers"),
        ({"maps": np.zeros((4, W, H))}, r"maps of shape \(4, 6, 5\).*reduce="),
        ({"maps": np.full((4, H, W), np.inf)}, "maps to be finite"),
        ({"classes": 0.0}, "classes to be an integer from 0"),
        ({"classes": [0, 1]}, r"or 4 of them, received int64 of shape \(2,\)"),
        ({"classes": -1}, "received -1"),
        ({"classes": 2}, "classes below the 2 that predict scores, received 2"),
        ({"steps": 31}, "at most the number of pixels, 30, received 31"),
        ({"steps": 0}, "steps to be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size to be an integer of at least 1"),
        ({"seed": -1}, "seed to be an integer of at least 0"),
        ({"baseline": "black"}, "expected baseline to be an array or one of .*'blur'.*received 'black'"),
        ({"baseline": np.zeros(3)}, r"baseline to broadcast to x.*\(3,\)"),
        ({"baseline": np.nan}, "baseline to be finite"),
        ({"baseline": None}, "baseline to be real numbers"),
        ({"predict": lambda batch: np.zeros(len(batch))}, r"scores of all classes, \(4, classes\).*shape \(4,\)"),
        ({"predict": lambda batch: np.zeros((1, 2))}, r"received float64 of shape \(1, 2\)"),
        (
            {"predict": lambda batch: np.full((4, 2), np.nan)},
            "scores that predict gives to be finite, .* in 4 of 4",
        ),
    ],
)
def test_what_is_refused(x, changes, message):
    arguments = {"predict": total, "x": x, "maps": x, "classes": 0, "steps": STEPS} | changes
    for measure in (deletion, insertion):
        with pytest.raises(ValueError, match=message):
            measure(**arguments)
