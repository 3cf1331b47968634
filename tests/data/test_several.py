"""Passes over data for models of several inputs, and over data of one input given by name."""

import itertools
import tracemalloc
import zlib

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mipin_keras.data.batches import Batches
from mipin_keras.data.inputs import Inputs, InputSpec

X = np.arange(70, dtype="float32").reshape(10, 7)
IMAGE = np.arange(10 * 2 * 3, dtype="float32").reshape(10, 2, 3)
LABELS = np.arange(10)

ONE = Inputs([InputSpec("table", (7,), "float32")])
TWO = Inputs([InputSpec("image", (2, 3), "float32"), InputSpec("tokens", (7,), "int32")])
TWINS = Inputs([InputSpec("left", (7,), "float32"), InputSpec("right", (7,), "float32")])
COLUMNS = Inputs([InputSpec("age", (1,), "float32"), InputSpec("size", (1,), "float32")])


def slices(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


class Numbers(keras.utils.PyDataset):
    def __init__(self, item):
        super().__init__()
        self.item = item

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return self.item(slice(4 * i, 4 * i + 4))


def function(item):
    """A function that returns a fresh iterator of ``item`` of each slice."""
    return lambda: (item(slice(i, i + 4)) for i in (0, 4, 8))


def named(part, labels=False):
    inputs = {"tokens": X[part], "image": IMAGE[part]}
    return (inputs, LABELS[part]) if labels else inputs


def listed(part, labels=False):
    return ([IMAGE[part], X[part]], LABELS[part]) if labels else (IMAGE[part], X[part])


SEVERAL = {
    "list": lambda: [IMAGE, X],
    "tuple": lambda: (IMAGE, X),
    "dict": lambda: {"tokens": X, "image": IMAGE},
    "list and labels": lambda: ([IMAGE, X], LABELS),
    "tuple and labels": lambda: ((IMAGE, X), LABELS),
    "list and nothing": lambda: ([IMAGE, X], None),
    "dict, labels and weights": lambda: ({"tokens": X, "image": IMAGE}, LABELS, LABELS),
    "lists of numbers": lambda: [IMAGE.tolist(), X.tolist()],
    "lists of numbers and labels": lambda: ([IMAGE.tolist(), X.tolist()], LABELS.tolist()),
    "lists of samples": lambda: (list(IMAGE), list(X)),
    "lists of samples and labels": lambda: ((list(IMAGE), list(X)), LABELS),
    "tensors": lambda: [tf.constant(IMAGE), tf.constant(X)],
    "an array and a data frame": lambda: (IMAGE, pd.DataFrame(X)),
    "tf.data of tuples": lambda: slices((IMAGE, X)),
    "tf.data of tuples and labels": lambda: slices(((IMAGE, X), LABELS)),
    "tf.data of tuples, labels and weights": lambda: slices(((IMAGE, X), LABELS, LABELS)),
    "tf.data of dicts": lambda: slices(named(slice(None))),
    "tf.data of dicts and labels": lambda: slices(named(slice(None), True)),
    "PyDataset of tuples": lambda: Numbers(listed),
    "PyDataset of lists and labels": lambda: Numbers(lambda part: listed(part, True)),
    "PyDataset of dicts and labels": lambda: Numbers(lambda part: named(part, True)),
    "function of tuples": lambda: function(listed),
    "function of lists and labels": lambda: function(lambda part: listed(part, True)),
    "function of dicts": lambda: function(named),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_every_source_gives_the_same_samples_of_each_input_on_every_pass(kind):
    batches = Batches(SEVERAL[kind](), TWO, batch_size=4)
    for _ in range(2):
        found = list(batches)
        assert all(type(batch) is tuple and len(batch) == 2 for batch in found)
        assert [len(image) for image, _ in found] == [len(tokens) for _, tokens in found] == [4, 4, 2]
        image, tokens = map(np.concatenate, zip(*found, strict=True))
        assert (image.dtype, tokens.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(image, IMAGE)
        np.testing.assert_array_equal(tokens, X)
        assert batches.samples == batches.count() == 10 and batches.steps == 3


def test_a_generator_of_several_inputs():
    def endless():
        while True:
            yield from function(lambda part: named(part, True))()

    batches = Batches(endless(), TWO, steps=3)
    for _ in range(2):
        image, tokens = map(np.concatenate, zip(*batches, strict=True))
        assert (image == IMAGE).all() and (tokens == X).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"table": X},
        lambda: [X],
        lambda: ({"table": X}, LABELS),
        lambda: ([X], LABELS),
        lambda: (X, LABELS),
        lambda: slices({"table": X}),
        lambda: slices(({"table": X}, LABELS)),
        lambda: slices(((X,), LABELS)),
        lambda: Numbers(lambda part: ({"table": X[part]}, LABELS[part])),
        lambda: function(lambda part: [X[part]]),
        lambda: function(lambda part: ([X[part]], LABELS[part])),
    ],
)
def test_one_input_by_name_or_in_a_list(make):
    batches = Batches(make(), ONE, batch_size=4)
    for _ in range(2):
        found = list(batches)
        assert all(type(batch) is np.ndarray for batch in found)
        np.testing.assert_array_equal(np.concatenate(found), X)
    assert batches.count() == 10


def test_two_inputs_of_one_shape_are_told_from_inputs_and_labels():
    left, right = X, X + 100
    for source in (
        (left, right),  # and not (x, y)
        ([left, right], left),
        ((left.tolist(), right.tolist()), left.tolist()),
        (left.tolist(), right.tolist()),
        # Two samples each: as many as there are inputs.
        lambda: (([left[i : i + 2].tolist(), right[i : i + 2].tolist()], [1, 2]) for i in range(0, 10, 2)),
        lambda: ((left[i : i + 2].tolist(), right[i : i + 2].tolist()) for i in range(0, 10, 2)),
        lambda: ((list(left[i : i + 2]), list(right[i : i + 2])) for i in range(0, 10, 2)),
    ):
        found = map(np.concatenate, zip(*Batches(source, TWINS, batch_size=4), strict=True))
        for array, wanted in zip(found, (left, right), strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_columns_of_one_number_a_sample():
    age, size = np.arange(10.0), np.arange(10.0) / 10
    frame = pd.DataFrame({"size": size, "age": age})
    for source in (
        frame,
        (frame, LABELS),
        dict(frame),
        (age, size),
        ((age, size), LABELS),
        ([[[a] for a in age], [[s] for s in size]], LABELS),
        slices(dict(frame)),
        slices((dict(frame), LABELS)),
        slices(((age, size), LABELS)),
        slices((age[:, None], size[:, None])),
    ):
        found = list(Batches(source, COLUMNS, batch_size=4))
        assert all(part.shape == (len(batch[0]), 1) for batch in found for part in batch)
        np.testing.assert_array_equal(
            np.concatenate([np.hstack(batch) for batch in found]), np.stack([age, size], 1).astype("float32")
        )


def test_a_series_is_sliced_by_its_rows():
    batches = Batches(pd.Series(np.arange(10.0), index=np.arange(10)[::-1] + 0.5), (1,), batch_size=4)
    np.testing.assert_array_equal(np.concatenate(list(batches))[:, 0], np.arange(10))


def test_memmaps_of_several_inputs_are_never_in_memory_as_a_whole(tmp_path):
    rows, sizes = [], {"a": (2048, 32, 32, 3), "b": (2048, 4096)}

    class Recorder(np.memmap):
        def __getitem__(self, part):
            rows.append((self.ndim, part))
            return super().__getitem__(part)

    arrays = {}
    for name, shape in sizes.items():
        arrays[name] = Recorder(tmp_path / name, dtype="uint8", mode="w+", shape=shape)
        arrays[name].flat[:] = 1
    inputs = Inputs([InputSpec(name, shape[1:], "float32") for name, shape in sizes.items()])
    limit = 3 * 4 * 128 * (32 * 32 * 3 + 4096)
    assert sum(array.size for array in arrays.values()) > limit
    for source in (arrays, (list(arrays.values()), np.zeros(2048))):
        rows.clear()
        tracemalloc.start()
        try:
            batches = Batches(source, inputs, batch_size=128)
            batches.about()
            total = sum(float(part.sum()) for batch in batches for part in batch)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == sum(array.size for array in arrays.values())
        assert peak < limit
        assert all(type(part) is slice and part.stop - part.start == 128 for _, part in rows)
        assert len(rows) == 2 * (1 + 16)


def test_an_h5_file_is_a_dict_of_arrays_that_are_read_batch_by_batch(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(h5py.Dataset, "__array__", None)  # which would read all of it
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("tokens", data=X.astype("uint8"))
        file.create_dataset("image", data=IMAGE)
        found = list(Batches(file, TWO, batch_size=4))
        assert [len(image) for image, _ in found] == [4, 4, 2]
        for array, wanted in zip(map(np.concatenate, zip(*found, strict=True)), (IMAGE, X), strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_a_sparse_matrix_is_made_dense_batch_by_batch():
    sparse = pytest.importorskip("scipy.sparse")
    made = []

    class Recorder(sparse.csr_matrix):
        def toarray(self, *args, **kwargs):
            made.append(self.shape[0])
            return super().toarray(*args, **kwargs)

    x = np.where(X % 3 == 0, X, 0)
    batches = Batches(Recorder(x), (7,), batch_size=4)
    np.testing.assert_array_equal(np.concatenate(list(batches)), x)
    assert made == [4, 4, 2] and batches.source_type == "array"
    both = Batches([IMAGE, sparse.coo_matrix(x)], TWO, batch_size=4)
    np.testing.assert_array_equal(np.concatenate([tokens for _, tokens in both]), x)
    with pytest.raises(ValueError, match=r"of shape \(batch, 6\), received \(10, 7\)"):
        Batches(sparse.csr_matrix(x), (6,))


# Refused


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (X, r"expected 2 inputs, .*received a ndarray of shape \(10, 7\)"),
        ([IMAGE], "received a list of 1"),
        ((IMAGE, X, LABELS), r"a tuple that begins with either, as \(inputs, labels\), received a tuple of 3"),
        ([IMAGE, X[:9]], "received 10 of 'image', 9 of 'tokens'"),
        ((IMAGE, LABELS), r"expected input 'tokens' of shape \(batch, 7\), received \(10,\)"),
        ({"image": IMAGE}, "'tokens' is missing"),
        (({"image": IMAGE, "tokens": X, "label": X}, LABELS), "the model has no input 'label'"),
        (slices((IMAGE, LABELS)), r"of shape \(batch, 7\) of input 'tokens', received \(None,\)"),
        (slices({"image": IMAGE, "label": X}), "no input 'label' and 'tokens' is missing"),
        (slices(((IMAGE, X), LABELS)).unbatch(), r"input 'image', received \(2, 3\); batch the data set"),
        (slices(IMAGE), "expected 2 inputs, .*received a TensorSpec"),
    ],
)
def test_wrong_inputs_are_refused_before_any_work(source, message):
    with pytest.raises(ValueError, match=message):
        Batches(source, TWO)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((), "received an empty tuple"),
        ((IMAGE[:4], X[:3]), "received 4 of 'image', 3 of 'tokens'"),
        ((IMAGE[:4], X[:4] * np.nan), "expected input 'tokens' to be finite.*the first at index 4 of the data"),
        ((IMAGE[:4], X[:4], LABELS[:4]), "received a tuple of 3; map the items"),
        ({"image": IMAGE}, "'tokens' is missing"),
    ],
)
def test_a_wrong_item_in_the_middle_is_refused(item, message):
    read = []
    with pytest.raises(ValueError, match=message):
        for batch in Batches(lambda: [(IMAGE[:4], X[:4]), item], TWO):
            read.append(batch)
    assert len(read) == 1


# The same on every pass


def test_checksums_of_one_input_are_those_of_version_0_1():
    """As checkpoints hold them: the numbers are of version 0.1, and of the definition."""
    wanted = ["3ab82685", "e661e05c", "9b9c5633"]
    for inputs in ((7,), ONE):
        batches = Batches(X, inputs, batch_size=4)
        assert batches.about() == {"kind": "array", "samples": 10, "steps": 3, "first": 985147013}
        list(batches)
        assert [f"{mark:08x}" for mark in batches.marks] == wanted
    defined = [zlib.crc32(X[i : i + 4].tobytes(), zlib.crc32(b"(7,)")) for i in (0, 4, 8)]
    assert batches.marks == defined
    bytes_ = Batches(X, (7,), batch_size=4, dtype="uint8")
    list(bytes_)
    assert [f"{mark:08x}" for mark in bytes_.marks] == ["65872231", "3275c452", "4f8416e2"]


def test_the_checksum_is_of_every_input():
    def first(*parts):
        return Batches(list(parts), TWO, batch_size=5).about()["first"]

    wanted = first(IMAGE, X)
    for change in ((IMAGE, X + (X == 34)), (IMAGE + (IMAGE == 29), X)):
        assert first(*change) != wanted
    assert first(IMAGE, X + (X == 35)) == wanted  # of the second batch
    swapped = [Batches(pair, TWINS).about()["first"] for pair in ([X, X + 1], [X + 1, X])]
    assert swapped[0] != swapped[1]


@pytest.mark.parametrize("changed", [0, 1])
def test_one_input_that_changes_on_the_next_pass_is_found(changed):
    passes = itertools.count()

    def source():
        now = next(passes)
        for i in (0, 4):
            parts = [IMAGE[i : i + 4].copy(), X[i : i + 4].copy()]
            parts[changed][2] += now * (i == 4)
            yield tuple(parts)

    batches = Batches(source, TWO)
    list(batches)
    read = []
    with pytest.raises(ValueError, match="expected batch 2 of 2 to hold the samples that it held"):
        for batch in batches:
            read.append(batch)
    assert len(read) == 1


def test_constant_is_of_all_inputs():
    same, alike = np.ones_like(IMAGE), np.ones_like(X)
    for source, constant in (([same, alike], True), ([same, X], False), ([IMAGE, alike], False)):
        batches = Batches(source, TWO, batch_size=4)
        list(batches)
        assert batches.constant is constant
    with pytest.warns(UserWarning, match="10 samples that are all the same"):
        batches = Batches([same, alike], TWO)
        list(batches)
        batches.warn_of_little()


# inspect


@pytest.mark.parametrize(
    "source", [[IMAGE, X], slices((IMAGE, X)), function(listed)], ids=["list", "tf.data", "function"]
)
def test_the_first_batch_is_inspected_once_before_it_is_handed_on(source):
    events = []
    batches = Batches(source, TWO, batch_size=4, inspect=lambda batch: events.append(batch))
    assert not events
    handed_on = []
    for batch in batches:
        assert len(events) == 1
        handed_on.append(batch)
    assert events[0] is handed_on[0] and len(handed_on) == 3
    image, tokens = events[0]
    assert (image == IMAGE[:4]).all() and (tokens == X[:4]).all()
    events.clear()
    list(batches)
    batches.about()
    assert not events


def test_what_inspect_raises_ends_the_pass_and_the_next_pass_is_inspected_again():
    seen = []

    def inspect(x):
        seen.append(x)
        if len(seen) == 1:
            raise ValueError("another output than the model's")

    batches = Batches(X, (7,), batch_size=4, inspect=inspect)
    with pytest.raises(ValueError, match="another output"):
        batches.about()
    assert len(list(batches)) == 3 and len(list(batches)) == 3
    assert len(seen) == 2 and all((x == X[:4]).all() for x in seen)


def test_a_generator_is_inspected_on_its_first_pass():
    seen = []
    batches = Batches(itertools.repeat((IMAGE, X)), TWO, steps=2, inspect=seen.append)
    batches.about()  # reads nothing
    assert not seen
    list(batches)
    list(batches)
    assert len(seen) == 1
