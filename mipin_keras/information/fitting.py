"""The fit of the information analyzers: the mask module, then the critic, then the negatives of an analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..analysis.batching import tensors_of
from ..checks import check_finite
from ..data.batches import Batches
from ..data.progress import Progress, keras_verbose
from .critic import Critic
from .estimate import ArrayBatches, best_epoch, replicas, split
from .mask import MaskModule
from .parts import Cut
from .results import Fitted, InformationReport
from .store import Store
from .training import CriticTraining, MaskTraining, local_parts, right

#: How many local parts of the fit an analysis takes for negatives.
NEGATIVES = 1024


def gathered(
    batches: Batches, parts_of: Callable, store: Store, verbose: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a fit reads of each input, by one pass over the data.

    Args:
        batches: The inputs.
        parts_of: From a batch's tensors to a :class:`~.parts.Parts`.
        store: Where it is kept.
        verbose: 0 silent, 1 a bar, 2 a line.

    Returns:
        By name ``feature``, ``representation``, and the tensors ``beside_000``
        and so on that the network behind the feature map reads; and the
        logits, ``(n, neurons)``.

    Raises:
        ValueError: For features that are not finite.
    """
    progress, done = Progress(batches.steps, verbose), 0
    for i, x in enumerate(batches, 1):
        feature, representation, logits, beside = (
            keras.tree.map_structure(lambda tensor: tensor.numpy(), part) for part in parts_of(*tensors_of(x))
        )
        for name, array in (("feature maps", feature), ("representations", representation)):
            check_finite(name, array, "inputs", "look at the model's weights, or the inputs", offset=done)
        done += len(feature)
        store.add((feature, representation, logits, *beside))
        progress.update(i)
    progress.finish()
    feature, representation, logits, *others = store.arrays()
    named = {f"beside_{i:03}": array for i, array in enumerate(others)}
    return {"feature": feature, "representation": representation} | named, logits


def train(
    cut: Cut,
    data: dict[str, np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    options: dict[str, Any],
    *,
    name: str,
    by_sign: bool,
    given: bool,
    batch_size: int,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
) -> Fitted:
    """Train both networks on the feature maps of a fit.

    Args:
        cut: Where the model is cut.
        data: What :func:`gathered` gave.
        labels: As :func:`~.training.cross_entropy` takes them.
        logits: The network's own, ``(n, neurons)``.
        options: The analyzer's.
        name: The analyzer's, for what is said.
        by_sign: Whether each logit is a decision by itself.
        given: Whether the labels are the data's.
        batch_size: Inputs a batch.
        callbacks: Keras', for each training.
        verbose: As Keras' own.

    Raises:
        ValueError: For fewer inputs than a batch, beside those held out.
    """
    seed = options["seed"]
    held, rows = split(len(labels), options["validation_split"], batch_size, seed, "inputs")
    mask, critic = new_networks(cut, options)
    critic.adapt(data["representation"][rows], data["feature"][rows])
    mask.adapt(*critic.standard("x"))
    # The batches shuffle themselves, by the seed: Keras would do it by its own.
    how = {"epochs": options["epochs"], "verbose": keras_verbose(verbose), "shuffle": False}
    most = min(batch_size, len(held))

    def compiled(model: keras.Model) -> keras.Model:
        # Without XLA, which compiles for each batch size, and on CPUs is slow at convolutions.
        model.compile(optimizer=keras.optimizers.Adam(options["learning_rate"]), jit_compile=False)
        return model

    if verbose:
        print(f"{name}: the mask module, on {len(rows)} inputs, {len(held)} held out", flush=True)
    masking = compiled(MaskTraining(mask, cut.logits, by_sign, options["mask_weight"], name="mask"))
    of_mask = masking.fit(
        ArrayBatches(data, rows, batch_size, seed, labels),
        validation_data=ArrayBatches(data, held, most, None, labels),
        callbacks=callbacks,
        **how,
    ).history
    if verbose:
        print(f"{name}: the critic", flush=True)
    learning = compiled(CriticTraining(critic, mask, name="critic"))
    best = best_epoch(options["epochs"])
    pairs = {key: data[key] for key in ("feature", "representation")}
    of_critic = learning.fit(
        ArrayBatches(pairs, rows, batch_size, seed),
        validation_data=ArrayBatches(pairs, held, most),
        callbacks=[best, *callbacks],
        **how,
    ).history
    own = right(tf.constant(logits[held]), tf.constant(labels[held]), by_sign)
    report = InformationReport(
        total=float(of_critic["val_total"][best.best_epoch]),
        decision=float(of_critic["val_decision"][best.best_epoch]),
        limit=math.log((most // replicas() - 1) * math.prod(cut.shape[:-1])),
        coverage=float(of_mask["val_coverage"][-1]),
        accuracy=float(tf.reduce_mean(own)),
        masked_accuracy=float(of_mask["val_accuracy"][-1]),
        labels="given" if given else "decisions",
        samples=(len(rows), len(held)),
        history={
            training: {log: [float(value) for value in values] for log, values in history.items()}
            for training, history in (("mask", of_mask), ("critic", of_critic))
        },
    )
    return Fitted(mask, critic, _bank(data["feature"], rows, mask, seed), report)


def new_networks(cut: Cut, options: dict[str, Any]) -> tuple[MaskModule, Critic]:
    """The mask module and the critic before their training."""
    mask = MaskModule(seed=options["seed"], name="mask_module")
    mask.build((None, *cut.shape))
    critic = Critic(options["critic"], seed=options["seed"], name="critic")
    critic.build((None, cut.size), (None, None, cut.shape[-1]))
    return mask, critic


def _bank(feature: np.ndarray, rows: np.ndarray, mask: MaskModule, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Local parts of the fit drawn at random, as they are and as the mask leaves them."""
    places = math.prod(feature.shape[1:-1])
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(rows) * places, min(NEGATIVES, len(rows) * places), replace=False))
    found: list[list[np.ndarray]] = [[], []]
    for row in np.unique(chosen // places):
        array = tf.constant(feature[rows[row] : rows[row] + 1])
        here = chosen[chosen // places == row] % places
        for kept, part in zip(found, local_parts(array, mask(array)), strict=True):
            kept.append(part.numpy()[0, here])
    return tf.constant(np.concatenate(found[0])), tf.constant(np.concatenate(found[1]))
