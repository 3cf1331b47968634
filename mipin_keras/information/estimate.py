"""The mutual information of two plain arrays, by the estimator that the analyzers use."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..checks import check_finite, integer, number, one_of, real_array
from ..data.progress import keras_verbose
from .critic import CRITICS, Critic, against_the_batch, bounded, pointwise

# Pairs whose held-out estimate is made of at most so many: it is quadratic in them.
_HELD_OUT = 1024


class MutualInformation(NamedTuple):
    """An estimate of the information that two variables share.

    Attributes:
        nats: The estimate on held-out pairs; 0 where no epoch's critic was
            better on them than one that scores all pairs alike.
        held_out: The estimate on held-out pairs after each epoch, in nats,
            ``(epochs,)``; ``nats`` is of the epoch whose critic was best.
        training: The bounded estimate on the pairs trained on, in nats, with
            the negatives of a batch.
        limit: In nats, log(number of negatives) of the held-out estimate: what
            is near it or above says only that the information is about as
            large or larger.
        negatives: How many negatives each held-out pair has.
        held_out_pairs: How many pairs were held out.
    """

    nats: float
    held_out: np.ndarray
    training: np.ndarray
    limit: float
    negatives: int
    held_out_pairs: int

    @property
    def bits(self) -> float:
        """The estimate in bits."""
        return self.nats / math.log(2)


class Pairs(keras.Model):
    """The critic and its training on pairs (z, x), one local part each."""

    def __init__(self, critic: Critic, **options: Any):
        super().__init__(**options)
        self.critic = critic
        self._nats = keras.metrics.Mean(name="nats")

    def build(self, shapes: Any) -> None:
        self.built = True  # its critic is

    def call(self, pairs: Any) -> Any:
        z, x = pairs
        return self.critic(z, x[:, None, :])

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Minus the bounded estimate, in nats."""
        parts = against_the_batch(y_pred)
        self._nats.update_state(tf.reduce_mean(pointwise(*parts)))
        return shared(-tf.reduce_mean(bounded(*parts)))


def replicas() -> int:
    """How many replicas the scope of a ``tf.distribute`` strategy has; 1 outside of one."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def shared(loss: tf.Tensor) -> tf.Tensor:
    """A replica's part of a mean over all replicas' samples: their gradients add up, as Keras scales its own losses.

    Before Keras 3.6 the loss that is shown among several replicas is this
    part, and not its sum; Adam's steps are the same.
    """
    return loss / replicas()


def mutual_information(
    z: Any,
    x: Any,
    *,
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 128,
    validation_split: float = 0.2,
    critic: str = "separable",
    width: int = 256,
    learning_rate: float = 1e-3,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> MutualInformation:
    """Estimate the information that two variables share, from samples of both (the Infomax estimator of Gu 2021).

    A critic learns to tell the pairs from pairs of other samples. Its estimate
    is made on pairs that it has not seen: on those that it was trained on it
    is too large, the more so the fewer there are.

    Args:
        z: Samples of one variable, ``(n, d)``; real and finite.
        x: Of the other, ``(n, e)``, in the same order.
        seed: Of the split, the initial weights and the order of the batches.
        epochs: How many passes to train for; the critic of the best one, by
            the bounded estimate on held-out pairs, is taken.
        batch_size: Pairs a batch; each has the others as negatives.
        validation_split: The share of the pairs that is held out.
        critic: See :class:`~.critic.Critic`: ``"separable"``, or the author's
            ``"concatenated"``.
        width: Neurons in its hidden layers.
        learning_rate: Of Adam.
        callbacks: Keras', for the training: its logs are ``loss``, ``nats``,
            ``val_loss`` and ``val_nats``.
        verbose: 0 silent, 1 Keras' bar, 2 a line an epoch.

    Returns:
        The estimate, with the held-out curve and the limit.

    Raises:
        ValueError: For arrays of other shapes, of different lengths, with NaN
            or infinity; for fewer pairs than a batch, or two held out.
        TypeError: For what holds no numbers.
    """
    z, x = _vectors("z", z), _vectors("x", x)
    if len(z) != len(x):
        raise ValueError(f"expected as many samples of z as of x, received {len(z)} and {len(x)}; give them in pairs")
    critic = one_of("critic", critic, CRITICS)
    seed, epochs = integer("seed", seed, 0), integer("epochs", epochs, 1)
    batch_size, width = integer("batch_size", batch_size, 2), integer("width", width, 1)
    learning_rate = number("learning_rate", learning_rate, 0, above=True)
    verbose = one_of("verbose", verbose, (0, 1, 2))
    held, train = split(len(z), validation_split, batch_size, seed, "pairs")

    scorer = Critic(critic, width, seed)
    model = Pairs(scorer, name="mutual_information")
    scorer.build(z.shape, (None, 1, x.shape[1]))
    scorer.adapt(z[train], x[train][:, None, :])
    # Without XLA, which takes longer to compile than this takes to run.
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), jit_compile=False)
    most = len(held) // -(-len(held) // _HELD_OUT)
    each = most // replicas()  # the negatives of a pair are those on its own device
    best = best_epoch(epochs)
    history = model.fit(
        ArrayBatches((z, x), train, batch_size, seed),
        # As many in each batch, so that all have as many negatives.
        validation_data=ArrayBatches((z, x), held, most),
        epochs=epochs,
        shuffle=False,  # the batches do it, by the seed
        verbose=keras_verbose(verbose),
        callbacks=[best, *callbacks],
    ).history
    curve = np.asarray(history["val_nats"])
    # A critic that scores all pairs alike says 0, and no data make it worse: the least that is ever known.
    nats = float(curve[best.best_epoch]) if min(history["val_loss"]) < 0 else 0.0
    limit = math.log(each - 1)
    if nats > limit - 1:
        warnings.warn(
            f"expected information below the limit of the estimate, log({each - 1}) = {limit:.2f} nats, received an "
            f"estimate of {nats:.2f}; it may be larger than this: give more pairs, or variables of fewer dimensions",
            UserWarning,
            stacklevel=2,
        )
    return MutualInformation(nats, curve, -np.asarray(history["loss"]), limit, each - 1, len(held))


def _vectors(name: str, given: Any) -> np.ndarray:
    array = real_array(name, given)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"expected {name} to be of shape (n, d), received {array.shape}; give one row a sample")
    check_finite(name, array, "samples", "leave them out")
    return array.astype(np.float32)


def split(n: int, share: Any, batch_size: int, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the samples that are held out, and of the others.

    Args:
        n: How many samples there are.
        share: Of those to hold out.
        batch_size: Samples a batch of the training.
        seed: Of the draw.
        what: What the samples are, for messages.

    Raises:
        ValueError: Unless there are two to hold out, and a batch of others;
            two for each replica, and a batch of as many.
    """
    share = number("validation_split", share, 0, above=True)
    if share >= 1:
        raise ValueError(f"expected validation_split to be below 1, received {share}; give a share such as 0.2")
    held, least = round(share * n), 2 * replicas()
    if batch_size < least:
        raise ValueError(
            f"expected a batch_size of {least} at least, as each of {replicas()} replicas takes its share of a batch, "
            f"whose others are the negatives, received {batch_size}; give a larger one"
        )
    if held < least or n - held < batch_size:
        raise ValueError(
            f"expected {least} {what} or more to hold out and a batch of {batch_size} to train on, as the others of a "
            f"batch are the negatives, received {n}, of which validation_split={share:g} holds out {held}; "
            f"give more, or a smaller batch_size of at least {least}"
        )
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[:held]), np.sort(order[held:])


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays, all of one size; what is left over is in another batch in the next epoch.

    Args:
        arrays: Of one length, in any structure.
        rows: Which of them.
        batch_size: Samples a batch; fewer where replicas could not have equal
            shares of it, as one with a single sample has no negatives.
        seed: Of the order, another in each epoch; None for as they are.
        labels: Of all samples; None for none.
    """

    def __init__(self, arrays: Any, rows: np.ndarray, batch_size: int, seed: int | None = None, labels: Any = None):
        super().__init__()
        self._given = (arrays,) if labels is None else (arrays, labels)
        self._rows, self._size = rows, batch_size - batch_size % replicas()
        self._rng = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._rows) // self._size

    def __getitem__(self, index: int) -> Any:
        rows = np.sort(self._rows[index * self._size : (index + 1) * self._size])
        return keras.tree.map_structure(lambda array: array[rows], self._given)

    def on_epoch_end(self) -> None:
        if self._rng is not None:
            self._rows = self._rng.permutation(self._rows)


def best_epoch(epochs: int) -> keras.callbacks.EarlyStopping:
    """Keras' own callback, which stops nothing here: behind a training the weights are those of its best epoch."""
    return keras.callbacks.EarlyStopping("val_loss", mode="min", patience=epochs, restore_best_weights=True)
