"""The Infomax estimator's critic: how well a representation and a local part of one input go together (Gu 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: The critics by name; see :class:`Critic`.
CRITICS = ("separable", "concatenated")
#: The size of the two vectors whose product is the separable critic's score.
_CODE = 64


@keras.saving.register_keras_serializable("mipin_keras")
class Critic(keras.layers.Layer):
    """The critic T(z, x): a score for each pair of a representation and a local part.

    At its best it is log p(x | z) / p(x), up to a number that depends on z
    alone and falls out of every estimate.

    Args:
        architecture: ``"concatenated"`` is the author's: a perceptron with
            two hidden ReLU layers of ``width`` on [z, x], whose cost grows with
            the number of *pairs*. ``"separable"`` gives z and x a code of 64
            numbers each, a linear part and one hidden ReLU layer of ``width``,
            and scores a pair by their product, and by x alone; its cost grows
            with the number of vectors, and on Gaussian pairs it is closer to
            the exact value (``docs/information.md``).
        width: Neurons in each hidden layer.
        seed: Of the initial weights.

    Call arguments:
        z: Representations, ``(n, d)``.
        x: Local parts, ``(m, positions, e)``.

    Returns:
        float32 ``(n, m, positions)``: every z with every x.

    Both are brought to mean 0 and variance 1 a channel first, by what
    :meth:`adapt` found, which changes no information.
    """

    def __init__(self, architecture: str = "separable", width: int = 256, seed: int = 0, **options: Any):
        # Features may be larger than float16 holds: they are cast behind the standardisation.
        super().__init__(autocast=False, **options)
        self.architecture, self.width, self.seed = architecture, width, seed
        seeds = iter(range(1000003 * seed, 1000003 * seed + 16))

        def dense(units: int, activation: str | None = None, use_bias: bool = True) -> keras.layers.Dense:
            initial = keras.initializers.GlorotUniform(seed=next(seeds))
            return keras.layers.Dense(
                units, activation, use_bias=use_bias, kernel_initializer=initial, dtype=self.dtype_policy
            )

        if architecture == "concatenated":
            self._parts = {"z": [dense(width, use_bias=False)], "x": [dense(width)]}
            self._parts["pair"] = [dense(width, "relu"), dense(1)]
        else:
            self._parts = {
                side: [dense(width, "relu"), dense(_CODE), dense(_CODE, use_bias=False)] for side in ("z", "x")
            }
            self._parts["alone"] = [dense(width, "relu"), dense(1)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"architecture": self.architecture, "width": self.width, "seed": self.seed}

    def build(self, z_shape: Any, x_shape: Any) -> None:
        for side, shape in (("z", z_shape), ("x", x_shape)):
            size = shape[-1]
            for name, initial in (("mean", "zeros"), ("scale", "ones")):
                weight = self.add_weight(
                    shape=(size,), initializer=initial, trainable=False, name=f"{side}_{name}", dtype="float32",
                    autocast=False,
                )  # fmt: skip
                setattr(self, f"_{side}_{name}", weight)
            first, *others = self._parts[side]
            first.build((None, size))
            for layer in others[:1]:
                layer.build((None, self.width))
            for layer in others[1:]:
                layer.build((None, size))
        last = self._parts["pair" if self.architecture == "concatenated" else "alone"]
        last[0].build((None, self.width if self.architecture == "concatenated" else x_shape[-1]))
        last[1].build((None, self.width))
        self.built = True

    def adapt(self, z: np.ndarray, x: np.ndarray) -> None:
        """Take over the mean and the scale of each channel of representations and local parts.

        Args:
            z: Shape ``(n, d)``.
            x: Shape ``(n, ..., e)``.
        """
        for side, found in (("z", z), ("x", x)):
            axes = tuple(range(found.ndim - 1))
            mean = found.mean(axis=axes, dtype=np.float64)
            scale = found.std(axis=axes, dtype=np.float64)
            # What never changes says nothing: it is brought to 0. What hardly does is not blown up beyond the others.
            least = 1e-3 * float(np.sqrt(np.mean(scale**2)))
            inverse = np.where(scale > 0, 1 / np.maximum(scale, max(least, 1e-30)), 0)
            getattr(self, f"_{side}_mean").assign(mean)
            getattr(self, f"_{side}_scale").assign(inverse)

    def standard(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """What :meth:`adapt` found for ``"z"`` or ``"x"``: the mean, and what the deviation is multiplied by."""
        mean, scale = (keras.ops.convert_to_numpy(getattr(self, f"_{side}_{part}")) for part in ("mean", "scale"))
        return mean, scale

    def call(self, z: Any, x: Any) -> Any:
        return self._scores(z, x, "nc,mpc->nmp", lambda z: z[:, None, None, :], lambda x: x[None])

    def of_pairs(self, z: Any, x: Any) -> tf.Tensor:
        """As a call, of each input's own parts alone: ``x`` is ``(n, positions, e)``, the scores ``(n, positions)``."""
        return self._scores(z, x, "nc,npc->np", lambda z: z[:, None, :], lambda x: x)

    def _scores(self, z: Any, x: Any, product: str, spread_z: Callable, spread_x: Callable) -> tf.Tensor:
        z, x = self._standard("z", z), self._standard("x", x)
        if self.architecture == "concatenated":
            # The first layer on [z, x] is the sum of one on z and one on x.
            (of_z,), (of_x,) = self._parts["z"], self._parts["x"]
            pairs = tf.nn.relu(spread_z(of_z(z)) + spread_x(of_x(x)))
            hidden, score = self._parts["pair"]
            return tf.cast(score(hidden(pairs))[..., 0], tf.float32)
        codes = []
        for side, vectors in (("z", z), ("x", x)):
            hidden, code, linear = self._parts[side]
            codes.append(tf.cast(code(hidden(vectors)) + linear(vectors), tf.float32))
        hidden, score = self._parts["alone"]
        together = tf.einsum(product, *codes) / np.sqrt(_CODE)
        return together + spread_x(tf.cast(score(hidden(x))[..., 0], tf.float32))

    def _standard(self, side: str, vectors: Any) -> tf.Tensor:
        mean, scale = (tf.convert_to_tensor(getattr(self, f"_{side}_{part}")) for part in ("mean", "scale"))
        return (tf.cast(vectors, tf.float32) - mean) * scale


def pointwise(own: tf.Tensor, others: tf.Tensor, count: Any) -> tf.Tensor:
    """I_n(i) = T(z_n, x_n,i) - log mean exp T(z_n, x') over the negatives x' (Gu 2021, the author's code).

    Args:
        own: Scores of the pairs of one input, ``(n, positions)``.
        others: log Σ exp of the scores with the negatives, ``(n,)``.
        count: How many negatives each has.

    Returns:
        Nats, ``(n, positions)``.
    """
    return own - (others - tf.math.log(tf.cast(count, tf.float32)))[:, None]


def bounded(own: tf.Tensor, others: tf.Tensor, count: Any) -> tf.Tensor:
    """As :func:`pointwise`, with the pair itself among the negatives: at most log(count + 1) (van den Oord 2018).

    This is what the critic is trained by. Its best critic is the same; but the
    mean of :func:`pointwise` has no largest value on a batch, and a critic
    that is trained by it runs away as soon as a representation tells its own
    parts from the batch's others: on Gaussian pairs of 6.6 nats, with 127
    negatives, to an estimate of 9,000.
    """
    together = tf.math.reduce_logsumexp(tf.stack([own, tf.broadcast_to(others[:, None], tf.shape(own))]), axis=0)
    return own - (together - tf.math.log(tf.cast(count, tf.float32) + 1))


def against_the_batch(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What :func:`pointwise` reads, where the negatives are the parts of all other inputs of the batch.

    Args:
        scores: Shape ``(n, n, positions)``, of one batch.

    Returns:
        ``own``, ``others`` and ``count``.
    """
    n, positions = tf.shape(scores)[0], tf.shape(scores)[2]
    same = tf.eye(n, dtype=tf.bool)[:, :, None]
    own = tf.transpose(tf.linalg.diag_part(tf.transpose(scores, (2, 0, 1))))
    apart = tf.where(same, tf.constant(-np.inf, scores.dtype), scores)
    others = tf.math.reduce_logsumexp(tf.reshape(apart, (n, -1)), axis=1)  # less its largest score inside
    return own, others, (n - 1) * positions
