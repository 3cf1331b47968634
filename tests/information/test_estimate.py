"""The information of plain arrays: Gaussian pairs, whose exact value is known; bad input."""

import re

import keras
import numpy as np
import pytest

from mipin_keras.information import Critic, estimate, mutual_information
from mipin_keras.information.estimate import ArrayBatches, Pairs, best_epoch


def gaussian(size, correlation, n=20000, seed=1):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, size))
    x = correlation * z + np.sqrt(1 - correlation**2) * rng.normal(size=(n, size))
    return z, x, -0.5 * size * np.log(1 - correlation**2)


CASES = [
    pytest.param(size, correlation, marks=[] if size == 8 and correlation == 0.5 else pytest.mark.medium)
    for size in (1, 8, 32)
    for correlation in (0, 0.5, 0.9)
]


@pytest.mark.filterwarnings("ignore:expected information below the limit")
@pytest.mark.parametrize(("size", "correlation"), CASES)
def test_gaussian_pairs(size, correlation):
    z, x, exact = gaussian(size, correlation)
    found = mutual_information(z, x, epochs=8)
    assert found.limit == pytest.approx(np.log(found.negatives)) and found.held_out_pairs == 4000
    assert found.bits == pytest.approx(found.nats / np.log(2))
    if exact < found.limit - 0.5:
        assert abs(found.nats - exact) < max(0.05, 0.1 * exact)
    else:  # more than so many negatives can tell: it says that there is as much as it can
        assert found.nats > found.limit - 1


def test_shuffled_pairs_share_nothing(rng):
    z, x, _ = gaussian(8, 0.9, 4000)
    found = mutual_information(z, rng.permutation(x), epochs=4)
    assert 0 <= found.nats < 0.05
    # On the pairs that it is trained on the critic sees what is not there.
    assert found.training[-1] > found.nats + 0.02


@pytest.mark.medium
def test_the_authors_critic():
    z, x, exact = gaussian(1, 0.9, 6000)
    found = mutual_information(z, x, epochs=4, batch_size=64, critic="concatenated")
    assert abs(found.nats - exact) < 0.1 * exact


def test_a_seed_gives_the_same_again_and_no_other():
    z, x, _ = gaussian(2, 0.8, 400)
    one, same, other = (mutual_information(z, x, epochs=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.held_out, same.held_out)
    assert one.nats == same.nats != other.nats
    assert len(one.held_out) == len(one.training) == 2


def test_the_critic_is_that_of_the_best_epoch():
    z, x, _ = gaussian(4, 0.7, 300)
    z, x, held = z.astype("float32"), x.astype("float32"), np.arange(200, 300)
    critic = Critic(seed=0)
    critic.build((None, 4), (None, 1, 4))
    model, best = Pairs(critic), best_epoch(25)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    data, others = ArrayBatches((z, x), np.arange(200), 50, 0), ArrayBatches((z, x), held, 100)
    options = {"epochs": 25, "verbose": 0, "shuffle": False}
    losses = model.fit(data, validation_data=others, callbacks=[best], **options).history["val_loss"]
    assert len(losses) == 25 and best.best_epoch == np.argmin(losses) < 24
    assert model.evaluate(others, verbose=0, return_dict=True)["loss"] == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.parametrize(("replicas", "size"), [(1, 8), (3, 6), (4, 8)])
def test_all_replicas_have_equal_shares_of_a_batch(replicas, size, monkeypatch):
    monkeypatch.setattr(estimate, "replicas", lambda: replicas)
    batches = ArrayBatches(np.arange(20), np.arange(20), 8, seed=0)
    assert len(batches) == 20 // size
    assert all(len(batches[i][0]) == size for i in range(len(batches)))


def test_callbacks_are_keras_own():
    z, x, _ = gaussian(1, 0.9, 400)
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(set(logs)))
    mutual_information(z, x, epochs=2, callbacks=[callback])
    assert seen == [{"loss", "nats", "val_loss", "val_nats"}] * 2


def test_much_information_is_warned_of():
    z = np.random.default_rng(0).normal(size=(2000, 3))
    with pytest.warns(UserWarning, match=r"limit of the estimate, log\(399\) = 5.99 nats"):
        mutual_information(z, z, epochs=12, learning_rate=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros((10, 2))}, "as many samples of z as of x, received 10 and 400"),
        ({"z": np.zeros(400)}, r"z to be of shape \(n, d\), received \(400,\)"),
        ({"x": np.zeros((0, 2))}, r"x to be of shape \(n, d\), received \(0, 2\)"),
        ({"z": np.full((400, 2), np.nan)}, "z to be finite, received NaN"),
        ({"x": np.array([["a", "b"]] * 400)}, "x to be real numbers"),
        ({"batch_size": 1}, "batch_size to be an integer of at least 2"),
        (
            {"batch_size": 500},
            "a batch of 500 to train on, .* received 400, of which validation_split=0.2 holds out 80",
        ),
        ({"validation_split": 1.0}, "validation_split to be below 1"),
        ({"validation_split": 0.001}, "2 pairs or more to hold out"),
        ({"critic": "best"}, "critic to be one of"),
        ({"epochs": 0}, "epochs to be an integer"),
        ({"learning_rate": 0}, "learning_rate to be a finite number greater than 0"),
    ],
)
def test_bad_input(change, message):
    given = {"z": np.ones((400, 2)), "x": np.ones((400, 2))} | change
    with pytest.raises(ValueError, match=message) as problem:
        mutual_information(**given)
    assert re.search("expected .* received", str(problem.value))
