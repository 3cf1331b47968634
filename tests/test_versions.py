"""Every version of TensorFlow and Keras gives the attributions that one of them gave."""

import numpy as np
import pytest

from tests.data.make_attributions import CASES, PATH, maps
from tests.networks import close


@pytest.fixture(scope="module")
def stored():
    with np.load(PATH, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", CASES)
def test_the_stored_attributions(name, stored):
    make, shape, options = CASES[name]
    x, count = stored[f"{name}/x"], sum(key.startswith(f"{name}/weights/") for key in stored)
    model = make()
    model.set_weights([stored[f"{name}/weights/{i}"] for i in range(count)])
    assert x.shape[1:] == shape
    attribution, source = maps(model, x, options)
    assert close(attribution, stored[f"{name}/attribution"], 1e-4)
    assert close(source, stored[f"{name}/source_signal"], 1e-4)
    assert np.abs(stored[f"{name}/attribution"]).max() > 0.1


def test_the_file_is_small():
    assert PATH.stat().st_size < 100_000
