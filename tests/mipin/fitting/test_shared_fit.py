"""A fit shared among devices and hosts finds what one process finds; one that loses a host can be gone on with."""

import os
import signal

import numpy as np
import pytest

import mipin_keras
from mipin_keras.data.distribute import Replicas
from tests.data import worker
from tests.networks import residual

HERE = "tests.mipin.fitting.test_shared_fit"


def fitted(checkpoint=None):
    """Weights, and maps, of a fit that draws rows and merges signals."""
    model = residual()
    x = np.random.default_rng(0).standard_normal((75, *model.input_shape[1:])).astype("float32")
    analyzer = mipin_keras.create_analyzer("mipin", model, classes=[0, 2], rows=900, neuron_selection_mode="index")
    analyzer.fit(x, batch_size=16, verbose=0, checkpoint=checkpoint)
    weights = {
        f"{c} {index} {i}": weight.numpy()
        for c, learned in analyzer.network.weights.items()
        for index, parts in learned.items()
        for i, weight in enumerate(parts)
    }
    return {**weights, "map": analyzer.analyze(x[:5], 2), "signal": analyzer.source_signal(x[:5], 2)}


def shared(strategy):
    """A job: the fit under a strategy, with a model of it."""
    with strategy.scope():
        return fitted()


def killed(strategy, checkpoint):
    """A job: the second host is killed as the third learned layer is added up."""
    total, layers = Replicas.total, set()

    def dying(self, arrays, what="sums"):
        layers.add(what.split(",")[0])
        if self.host == 1 and len([layer for layer in layers if layer.startswith("layer ")]) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return total(self, arrays, what)

    Replicas.total = dying
    with strategy.scope():
        fitted(checkpoint)
    return {}


def check(arrays, reference):
    assert arrays.keys() == reference.keys()
    for name, expected in reference.items():
        np.testing.assert_allclose(arrays[name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.medium
def test_two_devices_and_two_hosts_find_what_one_process_finds():
    reference = fitted()
    for result in (worker.on_devices(f"{HERE}:shared"), *worker.on_hosts(f"{HERE}:shared")):
        assert result.status == 0, result.output
        check(result.arrays, reference)


@pytest.mark.medium
def test_a_fit_that_lost_a_host_goes_on_from_its_checkpoint(tmp_path):
    reference, folder = fitted(), str(tmp_path / "fit")
    survivor, dead = worker.on_hosts(f"{HERE}:killed", folder)
    assert (survivor.status, dead.status) == (1, -signal.SIGKILL), survivor.output
    assert "received an error: host 0 of 2 lost" in survivor.output and "with checkpoint= the fit" in survivor.output
    learned = sorted(path.name for path in (tmp_path / "fit").glob("layer-*.npz"))
    assert len(learned) == 2
    check(fitted(folder), reference)  # one process goes on with what two began
