"""What is given to analyze, for models of one input and of several: taken as the right arrays, or refused in words."""

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mipin_keras.data import arrays as arrays_module
from mipin_keras.data.arrays import checked
from mipin_keras.data.inputs import Inputs, InputSpec, count, take

X = np.arange(70, dtype="float32").reshape(10, 7)
IMAGE = np.arange(10 * 2 * 3, dtype="float32").reshape(10, 2, 3)
AGE = np.arange(10, 20)
LABELS = np.arange(10)

ONE = Inputs([InputSpec("table", (7,), "float32")])
TWO = Inputs([InputSpec("image", (2, 3), "float32"), InputSpec("tokens", (7,), "int32")])
COLUMNS = Inputs([InputSpec("age", (1,), "float32"), InputSpec("size", (), "float64")])


def slices(x):
    return tf.data.Dataset.from_tensor_slices(x)


class Numbers(keras.utils.PyDataset):
    """Three batches of whatever ``item`` makes of a slice."""

    def __init__(self, item):
        super().__init__()
        self.item = item

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return self.item(slice(4 * i, 4 * i + 4))


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, i):
        return X[:4]


class Torch:
    """A tensor of another library: what is known of it is ``__array__``."""

    def __init__(self, x):
        self._x, self.shape = x, x.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._x, dtype)


class Sparse:
    """What scipy's sparse matrices have in common."""

    def __init__(self, x):
        self._x, self.shape, self.dtype = x, x.shape, x.dtype

    def toarray(self):
        return self._x


# One input: what is given, and the structure in which results come back ("one" stands for the result)

GIVEN = {
    "array": (lambda: X, "one"),
    "float64": (lambda: X.astype("float64"), "one"),
    "tensor": (lambda: tf.constant(X), "one"),
    "variable": (lambda: keras.Variable(X), "one"),
    "another library's tensor": (lambda: Torch(X), "one"),
    "list of samples": (lambda: list(X), "one"),
    "tuple of samples": (lambda: tuple(X), "one"),
    "list of numbers": (lambda: X.tolist(), "one"),
    "list of the array": (lambda: [X], ["one"]),
    "list of the tensor": (lambda: [tf.constant(X)], ["one"]),
    "list of the list": (lambda: [X.tolist()], ["one"]),
    "tuple of the array": (lambda: (X,), ["one"]),
    "dict": (lambda: {"table": X}, {"table": "one"}),
    "data frame": (lambda: pd.DataFrame(X), "one"),
    "nullable data frame": (lambda: pd.DataFrame(X.astype(int)).astype("Int64"), "one"),
    "series of a data frame": (lambda: [pd.DataFrame(X).iloc[i] for i in range(10)], "one"),
    "uniform ragged tensor": (lambda: tf.RaggedTensor.from_row_splits(X.reshape(-1), np.arange(0, 71, 7)), "one"),
    "sparse tensor": (lambda: tf.sparse.from_dense(X), "one"),
    "sparse matrix": (lambda: Sparse(X), "one"),
    "tf.data": (lambda: slices(X).batch(4), "one"),
    "tf.data, batches of ten": (lambda: slices(X).batch(99), "one"),
    "tf.data with labels": (lambda: slices((X, LABELS)).batch(4), "one"),
    "tf.data with labels and weights": (lambda: slices((X, LABELS, LABELS)).batch(4), "one"),
    "tf.data of dicts": (lambda: slices({"table": X}).batch(4), {"table": "one"}),
    "tf.data of dicts with labels": (lambda: slices(({"table": X}, LABELS)).batch(4), {"table": "one"}),
    "tf.data of tuples with labels": (lambda: slices(((X,), LABELS)).batch(4), ["one"]),
    "tf.data of unknown length": (lambda: slices(X).batch(4).filter(lambda x: True), "one"),
    "PyDataset": (lambda: Numbers(lambda part: (X[part], LABELS[part])), "one"),
    "PyDataset of dicts": (lambda: Numbers(lambda part: ({"table": X[part]}, LABELS[part])), {"table": "one"}),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_one_input(kind):
    make, structure = GIVEN[kind]
    given = make()
    (found,) = ONE.arrays(given)
    assert type(found) is np.ndarray and found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    assert ONE.pack(["one"], given) == structure and type(ONE.pack(["one"], given)) is type(structure)


def test_scipys_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    x = np.where(X % 3 == 0, X, 0)
    for form in ("csr", "csc", "coo", "lil", "bsr"):
        for make in (sparse.coo_matrix, sparse.coo_array):
            (found,) = ONE.arrays(make(x).asformat(form))
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, x)


def test_a_list_of_one_sample_and_one_of_one_array_differ_by_rank():
    np.testing.assert_array_equal(ONE.arrays([X[3]])[0], X[3:4])
    np.testing.assert_array_equal(ONE.arrays([X[3:4]])[0], X[3:4])
    assert ONE.pack(["one"], [X[3]]) == "one" and ONE.pack(["one"], [X[3:4]]) == ["one"]
    pictures = Inputs([InputSpec("x", (None, None), "float32")])  # any size: still told by rank
    assert pictures.arrays([X])[0].shape == (1, 10, 7) and pictures.arrays([X[None]])[0].shape == (1, 10, 7)


def test_an_array_of_the_dtype_is_not_copied():
    for given in (X, [X], {"table": X}):
        assert np.shares_memory(ONE.arrays(given)[0], X)
    image, tokens = TWO.arrays({"tokens": X.astype("int32"), "image": IMAGE})
    assert np.shares_memory(image, IMAGE) and tokens.dtype == np.int32


def test_a_sparse_tensor_out_of_order_is_put_in_order():
    given = tf.SparseTensor([[1, 2], [0, 0], [1, 0]], [5.0, 6.0, 7.0], (2, 7))
    wanted = np.zeros((2, 7), "float32")
    wanted[1, 2], wanted[0, 0], wanted[1, 0] = 5, 6, 7
    np.testing.assert_array_equal(ONE.arrays(given)[0], wanted)


def test_a_large_sparse_matrix_is_refused_before_it_is_made_dense(monkeypatch):
    monkeypatch.setattr(arrays_module, "DENSE", X.nbytes)
    for given in (Sparse(X), tf.sparse.from_dense(X)):
        np.testing.assert_array_equal(ONE.arrays(given)[0], X)
    monkeypatch.setattr(arrays_module, "DENSE", X.nbytes - 1)
    for given in (Sparse(X), tf.sparse.from_dense(X)):
        with pytest.raises(ValueError, match=r"at most .* GiB as a dense one.*of shape \(10, 7\).*fewer rows"):
            ONE.arrays(given)


# Several inputs

RAGGED = tf.RaggedTensor.from_row_splits(IMAGE.reshape(-1, 3), np.arange(0, 21, 2))
SEVERAL = {
    "list": (lambda: [IMAGE, X], ["a", "b"]),
    "tuple": (lambda: (IMAGE, X), ["a", "b"]),
    "dict": (lambda: {"image": IMAGE, "tokens": X}, {"image": "a", "tokens": "b"}),
    "dict in another order": (lambda: {"tokens": X, "image": IMAGE}, {"tokens": "b", "image": "a"}),
    "of several kinds": (lambda: [RAGGED, pd.DataFrame(X)], ["a", "b"]),
    "lists": (lambda: [IMAGE.tolist(), X.tolist()], ["a", "b"]),
    "sparse": (lambda: [tf.constant(IMAGE), tf.sparse.from_dense(X)], ["a", "b"]),
    "tf.data of tuples": (lambda: slices((IMAGE, X)).batch(4), ["a", "b"]),
    "tf.data of tuples with labels": (lambda: slices(((IMAGE, X), LABELS)).batch(4), ["a", "b"]),
    "tf.data with weights": (lambda: slices(((IMAGE, X), LABELS, LABELS)).batch(4), ["a", "b"]),
    "tf.data of dicts": (lambda: slices({"tokens": X, "image": IMAGE}).batch(4), {"image": "a", "tokens": "b"}),
    "tf.data of dicts with labels": (
        lambda: slices(({"tokens": X, "image": IMAGE}, LABELS)).batch(4),
        {"image": "a", "tokens": "b"},
    ),
    "PyDataset of lists with labels": (lambda: Numbers(lambda i: ([IMAGE[i], X[i]], LABELS[i])), ["a", "b"]),
    "PyDataset of dicts": (
        lambda: Numbers(lambda i: {"tokens": X[i], "image": IMAGE[i]}),
        {"image": "a", "tokens": "b"},
    ),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_inputs(kind):
    make, structure = SEVERAL[kind]
    given = make()
    image, tokens = TWO.arrays(given)
    assert type(image) is type(tokens) is np.ndarray and (image.dtype, tokens.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(tokens, X)
    packed = TWO.pack(["a", "b"], given)
    assert packed == structure and type(packed) is type(structure)
    if isinstance(given, dict):
        assert list(packed) == list(given)  # the keys in the order given


def test_an_archive_of_numpy_is_a_dict(tmp_path):
    np.savez(tmp_path / "x.npz", tokens=X, image=IMAGE)
    with np.load(tmp_path / "x.npz") as file:
        image, tokens = TWO.arrays(file)
        assert TWO.pack("ab", file) == {"tokens": "b", "image": "a"}
    assert (image == IMAGE).all() and (tokens == X).all()


def test_columns_of_a_data_frame_are_inputs_by_name():
    frame = pd.DataFrame({"size": np.linspace(0, 1, 10), "age": pd.array(AGE, "Int64")}, index=np.arange(10)[::-1])
    for given in (
        frame,
        {"age": frame["age"], "size": frame["size"]},
        dict(frame),
        {"age": AGE, "size": np.linspace(0, 1, 10)[:, None]},
        [AGE[:, None], np.linspace(0, 1, 10)],
        slices({"size": np.linspace(0, 1, 10), "age": AGE}).batch(3),
        slices((AGE[:, None], np.linspace(0, 1, 10)[:, None])).batch(3),
    ):
        age, size = COLUMNS.arrays(given)
        assert age.shape == (10, 1) and age.dtype == np.float32 and size.shape == (10,) and size.dtype == np.float64
        np.testing.assert_array_equal(age[:, 0], AGE)
        np.testing.assert_array_equal(size, np.linspace(0, 1, 10))
    assert list(COLUMNS.pack("as", frame).items()) == [("size", "s"), ("age", "a")]


def test_a_series_is_samples_of_one_number():
    for shape in ((), (1,)):
        one = Inputs([InputSpec("age", shape, "float32")])
        for values in (AGE, pd.array(AGE, "Int64"), pd.array(AGE % 2 == 0, "boolean")):
            (found,) = one.arrays(pd.Series(values))
            assert found.shape == (10, *shape) and (found.reshape(-1) == np.asarray(values, float)).all()
        with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 samples, the first at index 1"):
            one.arrays(pd.Series(pd.array([1, None], "Int64")))
        with pytest.raises(TypeError, match="expected a column of numbers, received columns of types .*'town' hold no"):
            one.arrays(pd.Series(["Ulm", "Rom"], name="town"))


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [IMAGE],
            r"expected 2 inputs, in a list .*\['image', 'tokens'\].*received a list of 1; give one array for each",
        ),
        ([IMAGE, X, X], "received a list of 3"),
        ((), "received a tuple of 0"),
        (X, r"expected 2 inputs.*received a ndarray of shape \(10, 7\)"),
        (tf.constant(X), r"received a EagerTensor of shape \(10, 7\)"),
        ("a", "received a str"),
        ([X, IMAGE], r"expected input 'image' of shape \(batch, 2, 3\), received \(10, 7\)"),
        ([IMAGE, X[:, :6]], r"expected input 'tokens' of shape \(batch, 7\), received \(10, 6\)"),
        ([IMAGE, X[0]], r"input 'tokens' of shape \(batch, 7\), received \(7,\); add the batch axis"),
        ([IMAGE, X[:0]], r"at least one sample of shape \(batch, 7\) for input 'tokens'"),
        ([IMAGE, X[:9]], "same number of samples of each input, received 10 of 'image', 9 of 'tokens'"),
        ([IMAGE, X + 0.5], "whole numbers that int32 holds, which the model takes for input 'tokens'"),
        ([IMAGE * np.nan, X], "expected input 'image' to be finite"),
        ([IMAGE, np.ma.masked_array(X, X > 1)], "without masked values for input 'tokens'"),
        ({"image": IMAGE}, r"\['image', 'tokens'\], received one of \['image'\]: 'tokens' is missing"),
        ({"image": IMAGE, "token": X}, "no input 'token' and 'tokens' is missing; pick and name the inputs"),
        ({"image": IMAGE, "tokens": X, "label": LABELS}, "the model has no input 'label'; pick"),
        (pd.DataFrame({"image": AGE, "tokens": AGE}), r"samples of shape \(2, 3\) of input 'image', received a column"),
        (pd.DataFrame({"image": AGE}), "expected a data frame of the model's inputs by name"),
        (slices((IMAGE, X, LABELS)).batch(4), r"as \(inputs, labels\), received a tuple of 3; map the items"),
        (slices((IMAGE, X)), r"of shape \(batch, 2, 3\) of input 'image', received \(2, 3\); batch the data set"),
        (slices(((IMAGE, X), LABELS)), r"of input 'image', received \(2, 3\); batch the data set: dataset.batch\(32\)"),
        (slices(((IMAGE, X[:, 1:]), LABELS)).batch(3), r"of input 'tokens', received \(None, 6\); map its items"),
    ],
)
def test_wrong_inputs_of_several_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        TWO.arrays(given)


def odd_lengths():
    found = np.empty(3, object)
    found[:] = [np.zeros(3), np.zeros(5), np.zeros(4)]
    return found


def same_lengths():
    found = np.empty(3, object)
    found[:] = [np.zeros(7)] * 3
    return found


def symbolic():
    found = []

    @tf.function(input_signature=[tf.TensorSpec((None, 7))], autograph=False)
    def trace(x):
        found.append(x)
        return x

    trace.get_concrete_function()
    return found[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: np.array([["a"] * 7]), TypeError, "received strings, such as .*'a'.*; encode them"),
        (lambda: ["good film", "bad film"], TypeError, "received strings, such as .*'good film'"),
        (lambda: tf.constant(["good", "bad"]), TypeError, "received strings, such as b'good'"),
        (lambda: np.array(["a", None], object), TypeError, "received strings, such as 'a'"),
        (odd_lengths, TypeError, r"an array of 3 ndarray objects, such as \(3,\) and \(5,\); pad them to one shape"),
        (same_lengths, TypeError, r"an array of 3 ndarray objects of one shape; make one array of them: np.stack"),
        (lambda: pd.Series([[1, 2], [3]]), TypeError, "a column of numbers, received columns of types .*object"),
        (
            lambda: [[1, 2, 3], [4, 5]],
            ValueError,
            r"a list of parts of different shapes, such as \(3,\) and \(2,\).*pad",
        ),
        (lambda: [[[1, 2], [3]], [[4]]], ValueError, "a list of parts of different shapes; .*padded to one"),
        (lambda: X.astype(object), TypeError, "Python objects, such as 0.0 of type float; convert them"),
        (lambda: None, TypeError, "received None; give the samples as an array"),
        (lambda: {1.0, 2.0}, TypeError, "received one object of type set"),
        (lambda: np.array([[{}] * 7]), TypeError, "Python objects, such as {} of type dict"),
        (lambda: keras.Input((7,)), TypeError, r"received a symbolic tensor of shape \(None, 7\).*give an array"),
        (lambda: [keras.Input((7,))], TypeError, "received a symbolic tensor"),
        (symbolic, TypeError, "received a symbolic tensor"),
        (
            lambda: tf.ragged.constant([[1.0, 2.0], [3.0]]),
            ValueError,
            r"a tf.RaggedTensor of shape \(2, None\) with rows of different lengths, of 1 to 2 entries; pad them: "
            r"x.to_tensor\(\)",
        ),
        (lambda: (x for x in X), TypeError, r"received a generator.*next\(iter\(...\)\).*np.concatenate"),
        (lambda: iter([X]), TypeError, "received a list_iterator"),
        (lambda: lambda: X, TypeError, "received a function"),
        (lambda: slices(X), ValueError, r"received \(7,\); batch the data set: dataset.batch\(32\)"),
        (lambda: slices(X).batch(4).repeat(), ValueError, r"one that never does; take some: dataset.take\(10\)"),
        (Endless, ValueError, "a data set that ends, received one that never does"),
        (lambda: slices(X).batch(4).take(0), ValueError, "received no data"),
        (lambda: slices({"x": X, "y": X}).batch(4), ValueError, r"by name, \['table'\], received one of \['x', 'y'\]"),
        (lambda: {"table": X, "label": X}, ValueError, "the model has no input 'label'"),
        (lambda: {}, ValueError, "'table' is missing"),
    ],
)
def test_what_holds_no_samples_is_refused_in_words(make, error, message):
    with pytest.raises(error, match=message) as caught:
        ONE.arrays(make())
    assert "dtype object" not in str(caught.value)


def test_the_words_of_arrays_name_one_of_several_inputs():
    for given in ([IMAGE, ["a"]], [IMAGE, keras.Input((7,))], [IMAGE, None], [IMAGE, pd.DataFrame({"a": ["b"]})]):
        with pytest.raises(TypeError, match="for input 'tokens', received"):
            TWO.arrays(given)
    for given in ([IMAGE, [[1], [2, 3]]], [IMAGE, tf.ragged.constant([[1], [2, 3]])]):
        with pytest.raises(ValueError, match="for input 'tokens', received"):
            TWO.arrays(given)


def test_batches_of_a_data_set_are_of_one_shape_and_their_errors_say_where():
    open_axis = Inputs([InputSpec("x", (None,), "float32")])
    lengths = tf.data.Dataset.from_generator(lambda: iter([X[:4], X[4:, :5]]), output_types=tf.float32)
    with pytest.raises(ValueError, match=r"samples of one shape, received \(7,\) and \(5,\); pad all of them"):
        open_axis.arrays(lengths)
    bad = X.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ValueError, match="in 1 of 4 samples of a batch, the first at index 7 of the data"):
        ONE.arrays(slices(bad).batch(4))
    with pytest.raises(ValueError, match="the first at index 107 of the data"):
        ONE.arrays(bad, first=100)


def test_ragged_batches_of_a_data_set():
    ragged = tf.ragged.constant([[1.0, 2.0], [3.0, 4.0], [5.0], [6.0, 7.0]], ragged_rank=1)
    two = Inputs([InputSpec("x", (2,), "float32")])
    with pytest.raises(ValueError, match="a tf.RaggedTensor of shape .* with rows of different lengths"):
        two.arrays(slices(ragged).batch(2))
    np.testing.assert_array_equal(two.arrays(slices(ragged).batch(2).take(1))[0], [[1, 2], [3, 4]])


def test_a_data_set_that_goes_on_and_on_is_said_to():
    def batches(number):
        return tf.data.Dataset.from_generator(lambda: (X[:1] for _ in range(number)), output_types=tf.float32)

    with pytest.warns(UserWarning, match="received 1000 batches so far .*never end, take some"):
        assert ONE.arrays(batches(1000))[0].shape == (1000, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ONE.arrays(batches(999))[0].shape == (999, 7)
        assert ONE.arrays(slices(X[:1].repeat(1001, axis=0)).batch(1))[0].shape == (1001, 7)  # its length is known


def test_count_and_take():
    for rows in (slice(2, 5), np.array([7, 1, 1]), X[:, 0] > 20):
        np.testing.assert_array_equal(take(X, rows), X[rows])
        image, table = take((IMAGE, X), rows)
        assert (image == IMAGE[rows]).all() and (table == X[rows]).all()
        assert count(take((IMAGE, X), rows)) == count(take(X, rows)) == len(X[rows])
    assert isinstance(take((IMAGE, X), slice(1)), tuple) and count((IMAGE, X)) == 10


def test_names_of_the_specs():
    assert len(TWO) == 2 and TWO.names == ["image", "tokens"] and TWO.specs[1].dtype == "int32"
    with pytest.raises(ValueError, match="for input 'b', received|input 'b' of shape"):
        checked(X, (6,), name="input 'b'")
