"""Streamed ridge regression against the normal equations in float64."""

import copy

import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.mipin import moments
from mipin_keras.mipin.ridge import BLOCK_ROWS, ChannelRidge, Ridge, Squares
from tests.networks import close
from tests.reference import ridge as least_squares


def normal_equations(features, targets, ridge):
    """Eq. 6, word for word, of one group."""
    mean_f, mean_t = features.mean(axis=0), targets.mean(axis=0)
    f, t = features - mean_f, targets - mean_t
    kernel = np.linalg.inv(f.T @ f + ridge * np.eye(f.shape[1])) @ (f.T @ t)
    return kernel, mean_t - mean_f @ kernel


def data(rng, rows, features=5, targets=3, groups=2, mean=0.0):
    f = rng.normal(mean, 1, (groups, rows, features)) * np.geomspace(0.1, 10, features)
    return f, f @ rng.normal(size=(groups, features, targets)) + rng.normal(mean, 1, (groups, rows, targets))


def streamed(f, t, sizes):
    sums = Ridge(f.shape[2], t.shape[2], groups=len(f))
    start = 0
    for size in sizes:
        sums.update(f[:, start : start + size], t[:, start : start + size])
        start += size
    assert start == f.shape[1]
    return sums


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 30.0])
@pytest.mark.parametrize("sizes", [[40], [1, 3, 36], [0, 39, 1], [1500, 700], [7] * 400])
def test_agrees_with_the_normal_equations(ridge, sizes, rng):
    f, t = data(rng, sum(sizes))
    found = streamed(f, t, sizes).solve(ridge)
    assert found.rows == sum(sizes)
    for g in range(2):
        kernel, bias = normal_equations(f[g], t[g], ridge)
        assert close(found.kernel[g], kernel, 1e-10) and close(found.bias[g], bias, 1e-10)


@pytest.mark.parametrize("rows", [3, 39, 40, 41, 2 * BLOCK_ROWS])
def test_few_rows_are_solved_as_they_are_and_many_from_sums(rows, rng, monkeypatch):
    f, t = data(rng, rows, features=40, targets=6)
    wanted = [normal_equations(f[g], t[g], 0.5) for g in range(2)]
    solved = []
    for name in ("_solve_rows", "moments"):
        of = getattr(Ridge, name)
        monkeypatch.setattr(Ridge, name, lambda *args, n=name, of=of: solved.append(n) or of(*args))
    for dtype in (np.float64, np.float32):
        found = streamed(f, t, [rows // 2, rows - rows // 2]).solve(0.5, dtype)
        assert found.rows == rows and found.kernel.dtype == dtype
        for g, (kernel, bias) in enumerate(wanted):
            assert close(found.kernel[g], kernel, 1e-9 if dtype == np.float64 else 1e-6)
            assert close(found.bias[g], bias, 1e-9 if dtype == np.float64 else 1e-6)
        guess = f @ found.kernel.astype(float) + found.bias.astype(float)[:, None]
        assert found.mse == pytest.approx(np.square(t - guess).mean(), rel=1e-6)
        assert found.variance == pytest.approx(t.var(axis=1).mean(), rel=1e-8)
    assert set(solved) == {"_solve_rows" if rows < 40 else "moments"}


@pytest.mark.parametrize("mean", [1e3, -1e6])
def test_nothing_cancels_far_from_zero(mean, rng):
    f, t = data(rng, 5000, mean=mean)
    found = streamed(f, t, [100] * 50).solve(1e-3)
    for g in range(2):
        kernel, bias = normal_equations(f[g], t[g], 1e-3)
        assert close(found.kernel[g], kernel, 1e-6) and close(found.bias[g], bias, 1e-6)


def test_a_first_block_unlike_the_rest_does_no_harm(rng):
    f, t = data(rng, 4 * BLOCK_ROWS)
    f[:, :BLOCK_ROWS] += 1e4
    found = streamed(f, t, [BLOCK_ROWS] * 4).solve(1e-3)
    for g in range(2):
        assert close(found.kernel[g], normal_equations(f[g], t[g], 1e-3)[0], 1e-6)


def test_float32_rows_are_summed_in_float64(rng):
    f, t = (a.astype(np.float32) for a in data(rng, 4000, mean=100.0))
    found = streamed(f, t, [500] * 8).solve(1e-3)
    wanted, _ = normal_equations(f[0].astype(float), t[0].astype(float), 1e-3)
    assert found.kernel.dtype == found.bias.dtype == np.float64
    assert close(found.kernel[0], wanted, 1e-9)


def test_shapes_and_memory_do_not_depend_on_the_rows(rng):
    f, t = data(rng, 10)
    sums = Ridge(5, 3, groups=2)
    sizes = []
    for _ in range(1000):
        sums.update(f, t)
        sizes.append((sums.nbytes, sum(a.nbytes for pair in sums._waiting[0] for a in pair)))
    assert {size for size, _ in sizes} == {2 * (5 * 5 + 5 * 3 + 3) * 8}
    assert max(waiting for _, waiting in sizes) <= (BLOCK_ROWS + 10) * 2 * (5 + 3) * 8
    found = sums.solve(1.0)
    assert (found.kernel.shape, found.bias.shape, found.rows) == ((2, 5, 3), (2, 3), 10_000)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_error_is_that_of_a_direct_sum_with_the_weights_as_they_are_kept(mean, dtype, rng):
    f, t = data(rng, 300, mean=mean)
    found = streamed(f, t, [100, 200]).solve(10.0, dtype)
    assert found.kernel.dtype == found.bias.dtype == dtype
    kernel, bias = found.kernel.astype(float), found.bias.astype(float)
    assert found.mse == pytest.approx(np.square(t - f @ kernel - bias[:, None]).mean(), rel=1e-8)
    assert found.variance == pytest.approx(t.var(axis=1).mean(), rel=1e-8)


def test_a_perfect_fit_has_no_negative_error(rng):
    f = rng.normal(1e3, 1, (1, 50, 2))
    assert 0 <= streamed(f, f @ np.ones((1, 2, 1)), [50]).solve(1e-9).mse < 1e-8


def test_many_targets_are_solved_a_slice_at_a_time(rng, monkeypatch):
    f, t = data(rng, 200, targets=7)
    whole = streamed(f, t, [200]).solve(0.1)
    monkeypatch.setattr(moments, "SOLVE_COLUMNS", 3)
    sliced = streamed(f, t, [200]).solve(0.1)
    assert close(sliced.kernel, whole.kernel, 1e-12) and close(sliced.bias, whole.bias, 1e-12)
    assert sliced.mse == pytest.approx(whole.mse, rel=1e-9) and sliced.variance == whole.variance


@pytest.mark.parametrize("shares", [(120, 80), (200, 0), (0, 150, 50)])
def test_processes_that_exchange_their_sums_find_what_one_finds_alone(shares, rng):
    f, t = data(rng, 200, mean=1e3)
    wanted = streamed(f, t, [200]).solve(1e-3)
    ends = np.cumsum(shares)
    parts = [streamed(f[:, e - n : e], t[:, e - n : e], [n]) for n, e in zip(shares, ends, strict=True)]
    # Every process asks for two totals, one after the other; what each gave is known before any gets an answer.
    asked = [[], []]
    for call in (0, 1):
        for part in parts:
            answers = iter([[sum(a) for a in zip(*asked[k], strict=True)] for k in range(call)])

            def total(arrays, answers=answers, call=call):
                answer = next(answers, None)
                if answer is None:
                    asked[call].append([np.array(a) for a in arrays])
                    raise StopIteration
                return answer

            with pytest.raises(StopIteration):
                copy.deepcopy(part).exchange(total)
    for part in parts:
        answers = iter([[sum(a) for a in zip(*given, strict=True)] for given in asked])
        part.exchange(lambda arrays, answers=answers: next(answers))
        found = part.solve(1e-3)
        assert found.rows == 200 and close(found.kernel, wanted.kernel, 1e-8) and close(found.bias, wanted.bias, 1e-8)
        assert found.mse == pytest.approx(wanted.mse, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e5 / 3])
def test_a_constant_feature_gets_no_weight(value, rng):
    f, t = data(rng, 60)
    f[:, :, 2] = value
    found = streamed(f, t, [20, 40]).solve(1e-3)
    assert np.abs(found.kernel[:, 2]).max() < 1e-6
    others = [0, 1, 3, 4]
    kernel, bias = normal_equations(f[0][:, others], t[0], 1e-3)
    assert close(found.kernel[0, others], kernel, 1e-6) and close(found.bias[0], bias, 1e-6)


def test_a_constant_target_is_its_bias(rng):
    f, t = data(rng, 60)
    t[:, :, 1] = 7.0
    sums = streamed(f, t, [60])
    found = sums.solve(1e-3)
    assert np.abs(found.kernel[:, :, 1]).max() < 1e-10
    np.testing.assert_allclose(found.bias[:, 1], 7.0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["constant", "double", "sum", "few rows", "dead"])
def test_features_that_determine_nothing_are_refused_without_a_ridge(kind, seed):
    rng = np.random.default_rng(seed)
    f, t = data(rng, 4 if kind == "few rows" else 200, groups=1, mean=rng.normal())
    if kind == "constant":
        f[..., 1] = rng.normal()
    elif kind == "dead":
        f[..., 1] = 0.0
    elif kind == "double":
        f[..., 1] = 3.3 * f[..., 0]
    elif kind == "sum":
        f[..., 1] = f[..., 0] + f[..., 3] - 0.7 * f[..., 4] + 5
    sums = streamed(f, t, [f.shape[1]])
    with pytest.raises(ValueError, match=r"5 features over \d+ rows.*ridge=0.*larger ridge"):
        sums.solve(0.0)
    found = streamed(f, t, [f.shape[1]]).solve(
        1e-3
    )  # with one, there is an answer; inv() of the normal equations is too coarse for it
    kernel, bias = least_squares(f[0], t[0], 1e-3)
    assert close(found.kernel[0], kernel, 1e-6) and close(found.bias[0], bias, 1e-6)


def test_features_of_very_different_size_are_not_refused(rng):
    f = rng.normal(size=(1, 500, 4)) * [1e-6, 1, 1e3, 1e6]
    t = f @ rng.normal(size=(1, 4, 2)) / 1e6
    found = streamed(f, t, [500]).solve(0.0)
    kernel, _ = normal_equations(f[0] / [1e-6, 1, 1e3, 1e6], t[0], 0.0)
    np.testing.assert_allclose(found.kernel[0] * np.array([[1e-6, 1, 1e3, 1e6]]).T, kernel, rtol=1e-3, atol=1e-12)


def test_no_rows_are_refused():
    sums = Ridge(2, 1)
    sums.update(np.zeros((1, 0, 2)), np.zeros((1, 0, 1)))
    with pytest.raises(ValueError, match="received none"):
        sums.solve(1e-3)


def test_squares_are_those_of_a_direct_sum(rng):
    x, guess = rng.normal(30, 2, (2, 70, 4, 5, 3))
    squares = Squares()
    assert np.isnan(squares.error()).all()
    for i in range(0, 70, 32):
        squares.update(x[i : i + 32].astype(np.float32), guess[i : i + 32].astype(np.float32))
    mse, variance = squares.error()
    assert (squares.samples, squares.rows) == (70, 70 * 20)
    assert mse == pytest.approx(np.square(x - guess).mean(), rel=1e-5)
    assert variance == pytest.approx(x.reshape(-1, 3).var(axis=0).mean(), rel=1e-5)


@pytest.mark.parametrize("rows", [30, 60, 5000])  # fewer rows than features, few, many
def test_rows_of_several_kinds_are_rows_with_zeros(rows, rng):
    columns = [np.array([0, 2, 5]), np.array([1]), np.array([], int)]
    f, t = data(rng, rows, features=40, mean=3.0)
    kinds = rng.integers(0, 3, rows)
    for kind, own in enumerate(columns):
        f[:, kinds == kind] *= np.isin(np.arange(40), own)[None, None]
    sums = Ridge(40, 3, groups=2, columns=columns)
    for part in np.array_split(np.arange(rows), 7):
        for kind, own in enumerate(columns):
            chosen = part[kinds[part] == kind]
            sums.update(f[:, chosen][:, :, own], t[:, chosen], kind)
    assert sums.rows == rows
    found, wanted = sums.solve(1e-3), streamed(f, t, [rows]).solve(1e-3)
    assert close(found.kernel, wanted.kernel, 1e-8) and close(found.bias, wanted.bias, 1e-8)
    assert found.rows == rows and found.mse == pytest.approx(wanted.mse, rel=1e-8)


def test_a_regression_a_channel_is_one_of_many_groups(rng):
    f, t = data(rng, 500, features=2, targets=1, groups=6, mean=1e3)
    sums = ChannelRidge(2, 6)
    for part in np.array_split(np.arange(500), 3):
        sums.update([f[:, part, i].T for i in range(2)], t[:, part, 0].T)
    found, wanted = sums.solve(1e-3), streamed(f, t, [500]).solve(1e-3)
    assert sums.nbytes == streamed(f, t, [500]).nbytes and found.rows == 500
    assert close(found.kernel, wanted.kernel, 1e-8) and close(found.bias, wanted.bias, 1e-8)
    assert found.mse == pytest.approx(wanted.mse, rel=1e-8)


def test_sums_as_tensors_are_those_of_numpy(rng, monkeypatch):
    """What a GPU does, on this device."""
    f, t = data(rng, 3000, mean=5.0)
    few, few_t = data(rng, 30, features=40)
    wanted = [streamed(f, t, [1000, 2000]).solve(1e-3), streamed(few, few_t, [30]).solve(1e-3)]
    channels = ChannelRidge(1, 2)
    channels.update([f[:, :, 0].T], t[:, :, 0].T)
    wanted.append(channels.solve(1e-3))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    tensors = [tf.constant(each, tf.float32 if i == 4 else tf.float64) for i, each in enumerate((f, t, few, few_t))]
    found = [streamed(*tensors[:2], [1000, 2000]).solve(1e-3), streamed(*tensors[2:], [30]).solve(1e-3)]
    channels = ChannelRidge(1, 2)
    channels.update([tf.transpose(tensors[0][:, :, 0])], tf.transpose(tensors[1][:, :, 0]))
    found.append(channels.solve(1e-3))
    for one, other in zip(found, wanted, strict=True):
        assert close(one.kernel, other.kernel, 1e-9) and close(one.bias, other.bias, 1e-9)
        assert one.mse == pytest.approx(other.mse, rel=1e-6) and one.variance == pytest.approx(other.variance)
