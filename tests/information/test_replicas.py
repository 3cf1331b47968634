"""Fits in the scope of a tf.distribute strategy with two replicas."""

import contextlib

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer
from mipin_keras.information import mutual_information
from tests.data import worker
from tests.information.networks import small
from tests.networks import samples, with_weights

HERE = "tests.information.test_replicas"


def fits(strategy):
    """One fit without the strategy, and one in its scope."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 1))
    x = z + rng.normal(size=(600, 1))
    found = {}
    for name, scope in (("alone", contextlib.nullcontext()), ("together", strategy.scope())):
        with scope:
            analyzer = create_analyzer("mi.total", with_weights(small(), 1), epochs=2, verbose=0)
            # 63 inputs: 13 are held out, of which two replicas share 12.
            analyzer.fit(samples((8, 6, 2), 63), batch_size=16)
            found |= {
                f"{name}/mask": np.concatenate([np.ravel(w) for w in analyzer._found.mask.get_weights()]),
                f"{name}/coverage": analyzer.fit_report.history["mask"]["coverage"],
                f"{name}/limit": analyzer.fit_report.limit,
                f"{name}/total": analyzer.decompose(samples((8, 6, 2), 5)).total,
            }
            estimate = mutual_information(z, x, epochs=12, batch_size=64, learning_rate=1e-2)
            found |= {f"{name}/nats": estimate.nats, f"{name}/negatives": estimate.negatives}
            try:
                analyzer.fit(samples((8, 6, 2), 63), batch_size=3)
            except ValueError as problem:
                found[f"{name}/refused"] = str(problem)
    return found


@pytest.mark.medium
def test_two_replicas_fit_as_one_does():
    result = worker.on_devices(f"{HERE}:fits")
    assert result.status == 0, result.output
    found = result.arrays
    # The mask's loss is a mean over the batch: the replicas' gradients add up to that of all.
    np.testing.assert_allclose(found["together/mask"], found["alone/mask"], rtol=1e-3, atol=2e-4)
    # The mean that is shown is of both replicas; that of Keras 3.5, whose metrics are its own business, is off by 1e-3.
    limit = 2e-3 if keras.__version__.startswith("3.5.") else 5e-5
    np.testing.assert_allclose(found["together/coverage"], found["alone/coverage"], rtol=0, atol=limit)
    # The negatives are those of a replica: 6 of the 12 inputs that are held out together, 12 parts of each.
    assert found["alone/limit"] == pytest.approx(np.log(12 * 12))
    assert found["together/limit"] == pytest.approx(np.log(5 * 12))
    assert found["alone/negatives"] == 119 and found["together/negatives"] == 59
    for name in ("alone", "together"):
        assert found[f"{name}/nats"] == pytest.approx(0.5 * np.log(2), abs=0.12)
        assert np.isfinite(found[f"{name}/total"]).all()
    assert "alone/refused" not in found
    assert "batch_size of 4 at least, as each of 2 replicas" in str(found["together/refused"])
