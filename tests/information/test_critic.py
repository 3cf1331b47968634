"""The critic and its estimates, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.information import Critic
from mipin_keras.information.critic import CRITICS, against_the_batch, bounded, pointwise


def by_hand(scores):
    """The author's formula, one input and location after the other, and with the pair among its negatives."""
    n, _, positions = scores.shape
    found, least = np.zeros((n, positions)), np.zeros((n, positions))
    for i in range(n):
        others = [np.exp(scores[i, m, j]) for m in range(n) if m != i for j in range(positions)]
        for j in range(positions):
            found[i, j] = scores[i, i, j] - np.log(np.mean(others))
            least[i, j] = scores[i, i, j] - np.log(np.mean([*others, np.exp(scores[i, i, j])]))
    return found, least


def test_the_estimates_are_the_formulas(rng):
    scores = rng.normal(size=(5, 5, 3))
    own, others, count = against_the_batch(tf.constant(scores))
    plain, least = by_hand(scores)
    assert int(count) == 12
    np.testing.assert_allclose(
        pointwise(tf.cast(own, tf.float32), tf.cast(others, tf.float32), count), plain, atol=1e-5
    )
    np.testing.assert_allclose(bounded(tf.cast(own, tf.float32), tf.cast(others, tf.float32), count), least, atol=1e-5)
    assert least.max() < np.log(13)


def test_large_scores_do_not_overflow():
    scores = tf.constant(1000 * np.eye(4, dtype=np.float32)[:, :, None] + 500)
    parts = against_the_batch(scores)
    np.testing.assert_allclose(pointwise(*parts), 1000)
    np.testing.assert_allclose(bounded(*parts), np.log(4), rtol=1e-4)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = tf.reduce_sum(bounded(*against_the_batch(scores)))
    assert np.isfinite(tape.gradient(loss, scores)).all()


@pytest.mark.parametrize("architecture", CRITICS)
def test_it_scores_every_pair_alone_and_in_a_batch(architecture, rng):
    z, x = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(5, 2, 6)).astype("float32")
    critic = Critic(architecture, width=8, seed=1)
    critic.build((None, 3), (None, 2, 6))
    scores = np.asarray(critic(z, x))
    assert scores.shape == (4, 5, 2) and scores.dtype == np.float32 and scores.std() > 0
    for i in range(4):
        for m in range(5):
            np.testing.assert_allclose(critic(z[[i]], x[[m]])[0, 0], scores[i, m], rtol=1e-5, atol=1e-6)
    own = critic.of_pairs(z, x[:4])
    np.testing.assert_allclose(own, np.stack([scores[i, i] for i in range(4)]), rtol=1e-5, atol=1e-6)


def test_the_concatenated_one_is_a_perceptron_on_both(rng):
    z, x = rng.normal(size=(2, 3)), rng.normal(size=(2, 1, 4))
    critic = Critic("concatenated", width=5, seed=3)
    critic.build((None, 3), (None, 1, 4))
    weights = {weight.path.split("/", 1)[-1]: None for weight in critic.weights}
    assert len(weights) == len(critic.weights)
    trained = [np.asarray(w, np.float64) for w in critic.trainable_weights]
    of_z, of_x, bias, second, second_bias, last, last_bias = trained
    for i in range(2):
        for m in range(2):
            hidden = np.maximum(np.concatenate([z[i], x[m, 0]]) @ np.concatenate([of_z, of_x]) + bias, 0)
            wanted = np.maximum(hidden @ second + second_bias, 0) @ last + last_bias
            np.testing.assert_allclose(np.asarray(critic(z, x))[i, m, 0], wanted[0], rtol=1e-5)


def test_adapted_it_does_not_see_offset_and_scale(rng):
    z, x = rng.normal(size=(50, 3)), rng.normal(size=(50, 2, 4))
    x[..., 3] = 7  # a channel that says nothing
    scores = []
    for factor, offset in ((1, 0), (3000, 40)):
        critic = Critic(width=8, seed=1)
        critic.build((None, 3), (None, 2, 4))
        critic.adapt(factor * z + offset, factor * x + offset)
        scores.append(np.asarray(critic(factor * z + offset, factor * x + offset)))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)


def test_it_is_a_keras_layer_that_is_saved(tmp_path, rng):
    z, x = keras.Input((3,)), keras.Input((2, 4))
    model = keras.Model([z, x], Critic("concatenated", width=6, seed=2)(z, x))
    model.save(tmp_path / "critic.keras")
    given = [rng.normal(size=(3, 3)).astype("float32"), rng.normal(size=(3, 2, 4)).astype("float32")]
    loaded = keras.models.load_model(tmp_path / "critic.keras")
    np.testing.assert_allclose(loaded(given), model(given), rtol=1e-6)
