"""Passes over every kind of source, and what is wrong with sources."""

import itertools
import json
import tracemalloc
import warnings
from typing import ClassVar

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.data.batches import Batches, checked
from tests.networks import mlp

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


def always(x):
    return True


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


def test_a_sequence_that_shuffles_between_epochs_keeps_its_order():
    class Shuffling(Numbers):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.x = self.x[::-1].copy()

    source = Shuffling()
    batches = Batches(source, (7,))
    for _ in range(3):
        np.testing.assert_array_equal(np.concatenate(list(batches)), X)
    assert source.ended == 0


def test_a_sequence_is_read_by_index_in_order():
    read = []

    class Noting(Numbers):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    for workers in (1, 3):
        source = Noting()
        source.workers = workers
        for passes in (1, 2):
            read.clear()
            list(Batches(source, (7,), steps=passes))
            assert read == list(range(passes))


def test_a_sequence_of_tf_keras_is_one_too():
    class Legacy:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return X[i * 4 : i * 4 + 4], LABELS[i * 4 : i * 4 + 4]

        def on_epoch_end(self):
            raise NotImplementedError

    batches = Batches(Legacy(), (7,))
    assert batches.source_type == "sequence" and batches.steps == 3
    np.testing.assert_array_equal(np.concatenate(list(batches)), X)


# Larger than memory


class InFile:
    """What h5py's data sets have in common with others that are read by slices."""

    def __init__(self, x):
        self._x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, []

    def __len__(self):
        return len(self._x)

    def __getitem__(self, part):
        self.read.append((part.start, part.stop))
        return self._x[part]

    def __array__(self, *args, **kwargs):
        raise AssertionError("read as a whole")

    __iter__ = None


def test_what_is_in_a_file_is_read_slice_by_slice():
    source = InFile(X)
    batches = Batches(source, (7,), batch_size=4)
    assert source.read == [] and batches.count() == 10 and batches.source_type == "array"
    for _ in range(2):
        source.read.clear()
        np.testing.assert_array_equal(np.concatenate(list(batches)), X)
        assert source.read == [(0, 4), (4, 8), (8, 12)]
    source.read.clear()
    assert sum(map(len, Batches(source, (7,), batch_size=4, steps=2))) == 8
    assert source.read == [(0, 4), (4, 8)]


def test_h5py_data_sets(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        batches = Batches(file.create_dataset("x", data=X.astype("uint8")), (7,), batch_size=4)
        assert [len(b) for b in batches] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate(list(batches)), X)
        with pytest.raises(ValueError, match=r"expected input of shape \(batch, 6\), received \(10, 7\)"):
            Batches(file["x"], (6,))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_a_memmap_is_never_in_memory_as_a_whole(dtype, tmp_path):
    class Recorder(np.memmap):
        read: ClassVar[list] = []

        def __getitem__(self, part):
            Recorder.read.append(part)
            return super().__getitem__(part)

        def __array_ufunc__(self, *args, **kwargs):
            raise AssertionError("computed on before it is a batch")

    Recorder.read.clear()
    source = Recorder(tmp_path / "x", dtype=dtype, mode="w+", shape=(4096, 32, 32, 3))
    source.flat[:] = 1
    # A batch of 128 in float32 three times; the finite check alone of all at once takes more.
    limit = 3 * 4 * 128 * 32 * 32 * 3
    assert source.size > 2 * limit
    tracemalloc.start()
    try:
        batches = Batches(source, (32, 32, 3), batch_size=128)
        batches.about()
        for _ in range(2):
            assert sum(float(b.sum()) for b in batches) == source.size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit
    assert all(type(part) is slice and part.stop - part.start == 128 for part in Recorder.read)
    assert len(Recorder.read) == 1 + 2 * 32


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
        (X.astype(str), (7,), TypeError, r"array of numbers, received strings, such as .*'0.0'"),
        (X.astype(object), (7,), TypeError, "array of numbers, received Python objects, such as 0.0 of type float"),
        (X.astype(complex), (7,), TypeError, "array of numbers, received dtype complex"),
        (np.array(["2020-01-01"] * 7, "datetime64[D]")[None], (7,), TypeError, "datetime64"),
        (None, (7,), TypeError, "array of numbers, received None"),
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
        with pytest.raises(
            ValueError, match="whole numbers that uint8 holds, .*received others, such as .*; round or scale"
        ):
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


@pytest.mark.parametrize("parts", [(X,), (X, LABELS)], ids=["alone", "with labels"])
def test_a_data_set_that_is_not_batched_is_refused_before_any_work(parts):
    source = dataset(*parts).unbatch()
    with pytest.raises(ValueError, match=r"\(batch, 7\), received \(7,\); batch the data set: dataset.batch\(32\)"):
        Batches(source, (7,))
    np.testing.assert_array_equal(np.concatenate(list(Batches(source.batch(3), (7,)))), X)


def test_a_data_set_of_another_shape_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"of shape \(batch, 6\), received \(None, 7\); map its items"):
        Batches(dataset(X), (6,))
    hidden = tf.data.Dataset.from_generator(again(), output_types=tf.float32)  # does not say its shapes
    with pytest.raises(ValueError, match=r"\(batch, 6\), received \(4, 7\)"):
        list(Batches(hidden, (6,)))
    np.testing.assert_array_equal(np.concatenate(list(Batches(hidden, (7,)))), X)


def test_a_data_set_of_unknown_cardinality():
    batches = Batches(dataset(X).filter(always), (7,))
    assert batches.steps is None and batches.samples is None
    assert [len(b) for b in batches] == [4, 4, 2] and batches.steps == 3
    assert Batches(dataset(X), (7,)).steps == 3  # known before


def test_dicts_of_other_names_are_refused_by_name():
    named = {"image": X, "label": LABELS}
    message = r"by name, \['input'\], received one of \['image', 'label'\]: the model has no input .*lambda item"
    with pytest.raises(ValueError, match=message):
        Batches(tf.data.Dataset.from_tensor_slices(named).batch(4), (7,))  # before any work
    for item in (named, (named, LABELS)):
        with pytest.raises(ValueError, match=message):
            list(Batches(lambda item=item: [item], (7,)))


def test_a_function_that_returns_no_iterator_is_refused():
    with pytest.raises(TypeError, match="expected the function to return an iterator of batches, received NoneType"):
        list(Batches(lambda: None, (7,)))


def test_a_function_that_returns_the_same_iterator_again_is_refused():
    once = again()()
    batches = Batches(lambda: once, (7,))
    assert batches.count() == 10
    with pytest.raises(ValueError, match="expected 10 samples.*received 0.*return a fresh iterator each time"):
        list(batches)


# The same on every pass


def shuffling(seed):
    random = np.random.default_rng(seed)

    def source():
        order = random.permutation(10)
        return (X[order[i : i + 4]] for i in range(0, 10, 4))

    return source


class Augmented(Numbers):
    def __getitem__(self, i):
        self.ended += 1
        return self.x[i * 4 : i * 4 + 4] + self.ended


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: dataset(X).unbatch().shuffle(10, seed=3).batch(4), "reshuffle_each_iteration=False"),
        (lambda: tf.data.Dataset.from_generator(shuffling(0), output_types=tf.float32), "no random augmentation"),
        (lambda: shuffling(0), "random numbers that it seeds anew"),
        (Augmented, "depend on its index alone"),
    ],
    ids=["tf.data", "tf.data from a generator", "function", "PyDataset"],
)
def test_data_that_is_drawn_anew_on_each_pass_is_refused(make, advice):
    batches = Batches(make(), (7,))
    assert batches.count() == 10
    with pytest.raises(ValueError, match=f"expected batch 1 of 3 .* on the pass before, received others.*{advice}"):
        next(iter(batches))


def test_data_that_is_shuffled_once_is_taken():
    for source in (
        dataset(X).unbatch().shuffle(10, seed=3, reshuffle_each_iteration=False).batch(4),
        lambda: shuffling(0)(),
    ):
        batches = Batches(source, (7,))
        first, second = (np.concatenate(list(batches)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert (first != X).any() and (np.sort(first, axis=0) == X).all()


def test_what_changes_after_the_first_batch_is_found_where_it_changes():
    orders = iter([[0, 1, 2], [0, 2, 1]])
    batches = Batches(lambda: (X[3 * i : 3 * i + 3] for i in next(orders)), (7,))
    list(batches)
    read = 0
    with pytest.raises(ValueError, match="expected batch 2 of 3 to hold"):
        for x in batches:
            read += len(x)
    assert read == 3


def test_other_shapes_on_the_next_pass_are_refused():
    shapes = iter([(2, 3), (3, 2)])
    batches = Batches(lambda: [np.zeros((4, *next(shapes)))], (None, None))
    list(batches)
    with pytest.raises(ValueError, match="the same on every pass"):
        list(batches)


def test_more_data_on_the_next_pass_is_refused_at_once():
    sources = iter([again(), forever])
    batches = Batches(lambda: next(sources)(), (7,))
    list(batches)
    with pytest.raises(ValueError, match="expected 10 samples.*received 1[0-9] or more|expected batch"):
        list(batches)


def test_a_generator_is_let_off_but_for_the_number_of_samples():
    random = np.random.default_rng(0)
    batches = Batches((random.normal(size=(4, 7)) for _ in itertools.count()), (7,), steps=2)
    first, second = (np.concatenate(list(batches)) for _ in range(2))
    assert (first != second).any()
    uneven = Batches(forever(4), (7,), steps=2)  # 4 + 4, then 2 + 4
    list(uneven)
    with pytest.raises(ValueError, match="expected 8 samples.*received 6.*choose steps="):
        list(uneven)


def test_about_tells_data_apart():
    def about(source, **options):
        return Batches(source, (7,), **options).about()

    wanted = about(X, batch_size=4)
    assert wanted == {"kind": "array", "samples": 10, "steps": 3, "first": wanted["first"]}
    assert json.loads(json.dumps(wanted)) == wanted
    assert about(X.astype("uint8"), batch_size=4) == wanted  # the model is given the same numbers
    assert about(np.asfortranarray(X), batch_size=4) == wanted
    other = X.copy()
    other[3, 6] += 1e-3
    for source, size in ((other, 4), (X[:9], 4), (X, 5)):
        assert about(source, batch_size=size) != wanted
    firsts = [about(source)["first"] for source in (dataset(X), Numbers(), again())]
    assert firsts == [wanted["first"]] * 3
    assert about(again())["samples"] is None and about(dataset(X))["steps"] == 3


def test_about_takes_nothing_from_a_generator():
    batches = Batches(forever(), (7,), steps=2)
    assert batches.about() == {"kind": "generator", "samples": None, "steps": 2, "first": None}
    np.testing.assert_array_equal(np.concatenate(list(batches)), X)
    assert batches.first == Batches(X, (7,), batch_size=5).about()["first"]


def test_the_checksum_is_of_the_whole_first_batch_and_of_any_dtype():
    changed = np.where(np.arange(10)[:, None] == 4, 0, X)
    for dtype in ("uint8", "float64", "bfloat16", "float16"):
        batches = [Batches(x, (7,), batch_size=5, dtype=dtype) for x in (X, changed)]
        first, other = (b.about()["first"] for b in batches)
        assert first != other
        assert len(list(batches[0])) == 2


@pytest.mark.parametrize("name", ["batch_size", "steps"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True])
def test_wrong_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"expected {name} to be an integer of at least 1, received {value!r}"):
        Batches(X, (7,), **{name: value})


def test_a_generator_without_steps_is_refused():
    for source in (forever(), iter([X])):
        with pytest.raises(
            ValueError, match="expected data that can be read several times, received a generator, .*: give steps="
        ):
            Batches(source, (7,))


@pytest.mark.parametrize("make", [lambda: X, lambda: dataset(X), Numbers], ids=["array", "tf.data", "PyDataset"])
def test_more_steps_than_there_are_batches_are_refused_before_any_work(make):
    with pytest.raises(ValueError, match="expected 4 batches a pass, as steps= says, received data of 3"):
        Batches(make(), (7,), batch_size=4, steps=4)
    assert Batches(make(), (7,), batch_size=4, steps=3).count() == 10


@pytest.mark.parametrize(
    ("make", "steps", "received"),
    [
        (lambda: dataset(X).filter(always), 4, 3),
        (lambda: again(), 4, 3),
        (lambda: iter([X[:4]] * 5), 7, 5),
    ],
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
    batches = Batches(lambda: iter([X[:5], X[5 : next(lengths)]]), (7,))
    list(batches)
    with pytest.raises(ValueError, match="expected batch 2 of 2 to hold the samples that it held.*received others"):
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


# Tables, labels, masks and messages


FRAMES = {
    "booleans": lambda: pd.DataFrame({"a": [1.5, 2.0], "b": [True, False]}),
    "nullable": lambda: pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": pd.array([True, False], "boolean")}),
    "mixed": lambda: pd.DataFrame({"a": pd.array([1.5, 2], "Float32"), "b": np.array([3, 4], "uint8")}),
    "plain": lambda: pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_data_frame_is_its_numbers(name):
    frame = FRAMES[name]()
    wanted = np.array([[float(value) for value in row] for row in frame.to_numpy(object)], "float32")
    for found in (checked(frame, (2,)), *Batches(frame, (2,))):
        assert found.dtype == np.float32 and (found == wanted).all()


def test_a_data_frame_of_other_things_is_refused_by_its_types():
    missing = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [True, False]})
    others = [["x", "y"], pd.to_datetime(["2026-01-01", "2026-01-02"]), pd.Categorical(["1", "2"])]
    frames = [pd.DataFrame({"a": [1.0, 2.0], "b": column}) for column in others]
    for take in (lambda frame: checked(frame, (2,)), lambda frame: next(iter(Batches(frame, (2,))))):
        with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 samples.*, the first at index 1"):
            take(missing)
        for frame in frames:
            with pytest.raises(TypeError, match="a data frame of numbers, received columns of types .*float64"):
                take(frame)


def test_masked_values_are_refused_and_a_mask_of_none_is_not():
    masked = np.ma.masked_array(X, X > 1)
    for take in (lambda x: checked(x, (7,)), lambda x: list(Batches(x, (7,)))):
        with pytest.raises(ValueError, match=rf"received {int((X > 1).sum())} of them.*x\.filled\(0\)"):
            take(masked)
        take(np.ma.masked_array(X, np.zeros(X.shape, bool)))
    for source in (lambda: iter([masked]), list(masked)):
        with pytest.raises(ValueError, match="without masked values"):
            list(Batches(source, (7,)))


@pytest.mark.parametrize("y", [64.0, True, "64", np.array(64.5)])
def test_what_is_neither_labels_nor_a_batch_size_is_refused(y):
    with pytest.raises(ValueError, match="expected y to be labels, or an integer batch size"):
        create_analyzer("mipin", mlp(7, (5,)), verbose=0).fit(X, y)


def test_a_list_of_data_and_labels_is_told_how_to_be_given():
    with pytest.raises(ValueError, match=r"different shapes, such as \(10, 7\) and \(10,\); labels .* fit\(x, y\)"):
        create_analyzer("mipin", mlp(7, (5,)), verbose=0).fit([X, LABELS])


def test_what_is_not_finite_is_named_by_its_index_in_the_data():
    bad = X.copy()
    bad[7, 2] = np.nan
    for source in (bad, dataset(bad), lambda: iter([bad[:4], bad[4:]])):
        with pytest.raises(ValueError, match="in 1 of .* samples of a batch, the first at index 7 of the data"):
            list(Batches(source, (7,), batch_size=4))


@pytest.mark.parametrize("integer", [int, np.int64, np.uint8])
def test_integers_of_numpy_are_integers(integer):
    batches = Batches(X, (7,), batch_size=integer(4), steps=integer(2))
    assert [len(x) for x in batches] == [4, 4]


def test_a_tuple_of_data_and_labels_is_its_data():
    for source in ((X, np.arange(10)), (X, None), (X, np.arange(10), np.ones(10)), (X.tolist(), [1])):
        assert (np.concatenate(list(Batches(source, (7,), batch_size=4))) == X).all()
    assert (np.concatenate(list(Batches(tuple(X), (7,)))) == X).all()  # samples one by one


def test_data_of_unknown_length_that_go_on_and_on_are_said_to():
    def endless():
        while True:
            yield X

    source = tf.data.Dataset.from_generator(endless, output_types=tf.float32)
    with pytest.warns(UserWarning, match="received 1000 batches so far .*never end, give steps=") as warned:
        for i, _ in enumerate(Batches(source, (7,))):
            if i == 2500:
                break
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(Batches(lambda: itertools.repeat(X, 999), (7,)))) == 999
        assert len(list(Batches(source, (7,), steps=1200))) == 1200


@pytest.mark.parametrize("name", ["mipin", "pattern.net"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (X[:1], "at least 4 samples that differ, received 1 sample:"),
        (X[:3], "at least 4 samples that differ, received 3 samples:"),
        (np.ones((20, 7), "float32"), "samples that differ, received 20 samples that are all the same"),
    ],
)
def test_a_fit_to_next_to_nothing_warns(name, data, what):
    model = mlp(7, (5,))
    with pytest.warns(UserWarning, match=what):
        create_analyzer(name, model, verbose=0).fit(data, batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        create_analyzer(name, model, verbose=0).fit(X, batch_size=2)


def test_a_class_fitted_to_next_to_nothing_warns():
    model = mlp(7, (5,))
    x = np.random.default_rng(0).normal(size=(300, 7)).astype("float32")
    analyzer = create_analyzer("mipin", model, verbose=0, samples="class")
    own = analyzer.logits(x).argmax(axis=1)
    few = np.concatenate([x[own == c][: 2 if c == 1 else 50] for c in range(4)])
    counts = np.bincount(analyzer.logits(few).argmax(axis=1), minlength=4)
    assert counts[1] == 2 and counts[[0, 2, 3]].min() >= 4
    with pytest.warns(UserWarning, match=r"classes fitted to fewer than 4 samples each \(samples by class: \{1: 2\}\)"):
        analyzer.fit(few)


@pytest.mark.parametrize("name", ["gradient", "mipin", "pattern.net"])
def test_labels_are_taken_and_not_used(name):
    model, y = mlp(7, (5,)), np.arange(10) % 4
    options = {} if name == "gradient" else {"verbose": 0}
    wanted = create_analyzer(name, model, **options).fit(X, batch_size=4).analyze(X)
    ways = [
        lambda a: a.fit(X, y, 4),
        lambda a: a.fit(X, y=y, batch_size=4),
        lambda a: a.fit(X, 4),  # as in iNNvestigate
        lambda a: a.fit(X, np.int64(4)),
        lambda a: a.fit((X, y), batch_size=4),
        lambda a: a.fit(X, keras.ops.one_hot(y, 4), 4),
        lambda a: a.fit(dataset(X)),
    ]
    for fit in ways:
        found = fit(create_analyzer(name, model, **options)).analyze(X)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
