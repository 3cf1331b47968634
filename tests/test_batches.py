"""Passes over every kind of source, and what is wrong with sources."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.batches import Batches, checked

X = np.arange(70, dtype="float32").reshape(10, 7)
LABELS = np.arange(10)


class Numbers(keras.utils.PyDataset):
    def __init__(self, x=X, size=4, labels=True):
        super().__init__()
        self.x, self.size, self.labels, self.ended = x, size, labels, 0

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        part = slice(i * self.size, (i + 1) * self.size)
        return (self.x[part], LABELS[part]) if self.labels else self.x[part]

    def on_epoch_end(self):
        self.ended += 1


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, i):
        return X[:4]


def again(size=4, labels=False):
    """A function that returns a fresh iterator."""
    return lambda: ((X[i : i + size], LABELS[i : i + size]) if labels else X[i : i + size] for i in range(0, 10, size))


def forever(size=5):
    while True:
        yield from again(size)()


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4)


SOURCES = {
    "array": lambda path: X,
    "float64": lambda path: X.astype("float64"),
    "integers": lambda path: X.astype("uint8"),
    "list": lambda path: X.tolist(),
    "tensor": lambda path: tf.constant(X),
    "memmap": lambda path: np.load(path, mmap_mode="r"),
    "tf.data": lambda path: dataset(X),
    "tf.data with labels": lambda path: dataset(X, LABELS),
    "PyDataset": lambda path: Numbers(labels=False),
    "PyDataset with labels": lambda path: Numbers(),
    "function": lambda path: again(),
    "function with labels": lambda path: again(labels=True),
    "function that returns a list": lambda path: lambda: [X[:4], X[4:]],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_samples_on_every_pass(kind, tmp_path):
    np.save(tmp_path / "x.npy", X)
    batches = Batches(SOURCES[kind](tmp_path / "x.npy"), (7,), batch_size=4)
    for _ in range(3):
        found = list(batches)
        assert all(type(b) is np.ndarray and b.dtype == np.float32 for b in found)
        assert max(map(len, found)) <= 6
        np.testing.assert_array_equal(np.concatenate(found), X)
        assert batches.samples == batches.count() == 10 and batches.steps == len(found)


def test_the_number_of_samples_is_known_before_or_found_in_one_pass():
    passes = []

    def source():
        passes.append(1)
        return again()()

    batches = Batches(source, (7,))
    assert batches.samples is None and batches.count() == 10 and batches.count() == 10
    assert len(passes) == 1
    assert Batches(X, (7,)).samples == 10


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (10, [10]), (99, [10])])
def test_batch_size_of_arrays(size, lengths):
    assert [len(b) for b in Batches(X, (7,), batch_size=size)] == lengths


def test_steps_end_a_pass():
    for source in (X, dataset(X), Numbers(), again(), lambda: iter(forever(4))):
        batches = Batches(source, (7,), batch_size=4, steps=2)
        for _ in range(2):
            np.testing.assert_array_equal(np.concatenate(list(batches)), X[:8])
        assert batches.count() == 8


def test_an_endless_generator_goes_on_where_it_stopped():
    batches = Batches(forever(), (7,), steps=2)
    for _ in range(3):
        np.testing.assert_array_equal(np.concatenate(list(batches)), X)
    first, second = Batches(forever(), (7,), steps=1), Batches(forever(), (7,), steps=2)
    assert first.count() == 5 and second.count() == 10


def test_an_array_is_not_copied_where_it_has_the_dtype():
    assert np.shares_memory(next(iter(Batches(X, (7,)))), X)
    assert np.shares_memory(checked(X, (7,)), X)


def test_a_dataset_is_told_when_a_pass_ends():
    source = Numbers()
    batches = Batches(source, (7,))
    for passes in (1, 2, 3):
        list(batches)
        assert source.ended == passes


def test_other_dtypes_and_open_axes():
    x = np.ones((2, 3, 4))
    assert checked(x, (None, 4), "float64").dtype == np.float64
    assert checked(x > 0, (3, 4)).dtype == np.float32
    assert checked(tf.ones((2, 3), tf.bfloat16), (3,)).tolist() == [[1.0] * 3] * 2
    assert next(iter(Batches(x, (3, 4), dtype="float64"))).dtype == np.float64


@pytest.mark.parametrize(
    ("x", "shape", "error", "message"),
    [
        (X, (6,), ValueError, r"expected input of shape \(batch, 6\), received \(10, 7\)"),
        (X[0], (7,), ValueError, r"received \(7,\); add the batch axis: x\[None\]"),
        (X[..., None], (7,), ValueError, r"\(batch, 7\), received \(10, 7, 1\)"),
        (X[:0], (7,), ValueError, "at least one sample"),
        ([], (7,), ValueError, "expected input of shape"),
        (3.0, (7,), ValueError, "expected input of shape"),
        (X.astype(str), (7,), TypeError, "array of numbers, received dtype <U"),
        (X.astype(object), (7,), TypeError, "array of numbers, received dtype object"),
        (X.astype(complex), (7,), TypeError, "array of numbers, received dtype complex"),
        (np.array(["2020-01-01"] * 7, "datetime64[D]")[None], (7,), TypeError, "datetime64"),
        (None, (7,), TypeError, "array of numbers"),
        ({"x": X}, (7,), TypeError, "array of numbers"),
    ],
    ids=str,
)
def test_wrong_arrays_are_refused(x, shape, error, message):
    with pytest.raises(error, match=message):
        checked(x, shape)
    with pytest.raises(error, match=message):
        Batches(x, shape)  # before any work


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    x = X.copy()
    x[3, 2] = x[6] = bad
    with pytest.raises(ValueError, match="NaN or infinity in 2 of 10 samples, the first at index 3"):
        checked(x, (7,))


def test_nan_deep_inside_a_memmap_is_found_when_it_is_read(tmp_path):
    x = np.zeros((1000, 7), "float32")
    x[777, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    batches = Batches(np.load(tmp_path / "x.npy", mmap_mode="r"), (7,), batch_size=100)
    read = 0
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 100 samples"):
        for batch in batches:
            read += len(batch)
    assert read == 700


def test_values_beyond_float32_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        checked(np.full((1, 7), 1e300), (7,))


def test_a_model_of_integers_gets_integers():
    assert checked(X, (7,), "uint8").dtype == np.uint8
    np.testing.assert_array_equal(checked(X.astype("float64"), (7,), "int32"), X)
    for wrong in (X + 0.5, X - 1, X + 200):
        with pytest.raises(ValueError, match="whole numbers that uint8 holds"):
            checked(wrong, (7,), "uint8")
    with pytest.raises(ValueError, match="NaN or infinity in 10 of 10 samples"):
        checked(X * np.nan, (7,), "int32")


@pytest.mark.parametrize(
    "wrong", [[X[:4], X[4:, :6]], [X[:4], X[4:].astype(str)], [X[:4], X[4:] * np.nan], [X[:4], X[:0]]]
)
def test_a_wrong_batch_in_the_middle_is_refused(wrong):
    batches = Batches(lambda: iter(wrong), (7,))
    with pytest.raises((ValueError, TypeError), match="expected"):
        list(batches)


def test_a_data_set_that_is_not_batched_is_refused():
    with pytest.raises(ValueError, match="add the batch axis"):
        list(Batches(tf.data.Dataset.from_tensor_slices(X), (7,)))


@pytest.mark.parametrize("name", ["batch_size", "steps"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True])
def test_wrong_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"expected {name} to be an integer of at least 1, received {value!r}"):
        Batches(X, (7,), **{name: value})


def test_a_generator_without_steps_is_refused():
    for source in (forever(), iter([X])):
        with pytest.raises(ValueError, match="several times: give steps="):
            Batches(source, (7,))


@pytest.mark.parametrize(
    ("make", "steps", "received"),
    [(lambda: X, 9, 3), (lambda: dataset(X), 4, 3), (lambda: again(), 4, 3), (lambda: iter([X[:4]] * 5), 7, 5)],
)
def test_data_that_ends_early_is_refused(make, steps, received):
    batches = Batches(make(), (7,), batch_size=4, steps=steps)
    with pytest.raises(ValueError, match=f"expected {steps} batches a pass, received {received}: the data ended early"):
        list(batches)


def test_a_finite_generator_that_is_used_up_is_refused_on_the_next_pass():
    batches = Batches(iter([X[:5], X[5:]]), (7,), steps=2)
    assert len(list(batches)) == 2
    with pytest.raises(ValueError, match="expected 2 batches a pass, received 0: the data ended early"):
        list(batches)


def test_data_of_another_length_on_the_next_pass_is_refused():
    lengths = iter([10, 8])
    batches = Batches(lambda: iter([X[: next(lengths)]]), (7,))
    list(batches)
    with pytest.raises(ValueError, match="expected 10 samples, as on the pass before, received 8"):
        list(batches)


def test_more_batches_on_the_next_pass_are_refused():
    calls = []

    def source():
        calls.append(1)
        return iter([X[:5]] * (1 + len(calls)))

    batches = Batches(source, (7,))
    list(batches)
    with pytest.raises(ValueError, match="the pass before|the same on every pass"):
        list(batches)


@pytest.mark.parametrize("source", [lambda: iter(()), dataset(X).take(0), lambda: []], ids=["none", "tf.data", "empty"])
def test_no_data_is_refused(source):
    with pytest.raises(ValueError, match="at least one sample|received no data"):
        list(Batches(source, (7,)))


@pytest.mark.parametrize("source", [dataset(X).repeat(), Endless()], ids=["tf.data", "PyDataset"])
def test_endless_data_sets_need_steps(source):
    with pytest.raises(ValueError, match="steps"):
        Batches(source, (7,))
    batches = Batches(source, (7,), steps=2)
    assert batches.count() == 8 and sum(map(len, batches)) == 8


def test_an_error_of_the_source_comes_through():
    def source():
        yield X[:4]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Batches(source, (7,)))
