"""What all tests share: the order of their files, seeds, and no memory of one test file in the next."""

import collections
import gc
import importlib.util
import os

# Before anything imports TensorFlow: what it turns on by itself on some processors only, and without which it has no
# transposed convolutions with a dilation; and what iNNvestigate needs, where the tests can run it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if importlib.util.find_spec("tf_keras") is not None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import keras
import numpy as np
import pytest


def pytest_configure(config):
    config.option.loadscopereorder = False  # else xdist sorts the files, by the number of their tests alone


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    """What of a test runs by default, and the files that take longest first.

    Of a test that is marked few(n), the first n cases run by default; the
    others are medium, and among the situations of tests/wild slow. The files with tests of many seconds come first, and
    then those with many tests, so that no worker is left with one at the end.
    """
    seen = collections.Counter()
    for item in items:  # before anything is left out by its marker
        few = item.get_closest_marker("few")
        if few is not None and not item.get_closest_marker("slow"):
            seen[item.path, item.originalname] += 1
            if seen[item.path, item.originalname] > few.args[0]:
                item.add_marker(pytest.mark.slow if item.path.parent.name == "wild" else pytest.mark.medium)
    yield
    sizes = collections.Counter(item.path for item in items)
    medium = {item.path for item in items if item.get_closest_marker("medium") or item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in medium, -sizes[item.path]))


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers for each test, whichever run before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """Models and traced functions of a test file go when it ends."""
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.fixture
def rng():
    """Random numbers of NumPy's, the same for each test."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's handwritten digits: 1797 real images (n, 64) of float32 in [0, 1], and their labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    return (data.data / 16).astype("float32"), data.target
