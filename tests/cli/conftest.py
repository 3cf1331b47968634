"""What the tests of the command line share: models and data in files, and a way to run it."""

import numpy as np
import pytest

from mipin_keras.cli.main import main
from tests.networks import cnn, mlp, samples

SHAPE = (7, 6, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with two models and their data: net.keras with data.npz, flat.keras with flat.npy."""
    folder = tmp_path_factory.mktemp("files")
    x = samples(SHAPE, 200)[:60]  # the model takes some for each class; some pixels are 0
    cnn(SHAPE).save(folder / "net.keras")
    mlp(12).save(folder / "flat.keras")
    np.savez(folder / "data.npz", x_train=x[:50], y_train=np.arange(50), x_test=x[50:], other=x[:3])
    np.savez(folder / "one.npz", anything=x[50:])
    np.save(folder / "flat.npy", samples((12,), 40).astype("float64"))
    return folder


@pytest.fixture
def run(files, tmp_path, capsys):
    """Run ``mipin explain`` on the convolutional network; returns status, stdout, stderr and what was written."""

    def call(*more, model="net.keras", fit="data.npz", explain="data.npz"):
        argv = ["explain", str(files / model), "--explain", str(files / explain), "--out", str(tmp_path / "out")]
        argv += ["--max-pictures", "1"]  # drawing takes longest
        argv += ["--fit", str(files / fit)] if fit else []
        status = main([*argv, *map(str, more)])
        said = capsys.readouterr()
        path = tmp_path / "out" / "attributions.npz"
        return status, said.out, said.err, dict(np.load(path)) if path.is_file() else None

    return call
