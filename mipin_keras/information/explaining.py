"""What an analysis computes, of one batch."""

from __future__ import annotations

import tensorflow as tf

from .critic import pointwise
from .mask import MaskModule
from .parts import Cut
from .results import Fitted
from .training import local_parts


def information(cut: Cut, found: Fitted, x: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The total and the decision-related information at each location.

    The negatives are those kept from the fit, so an input's values do not
    depend on the others of its batch.

    Args:
        cut: Where the model is cut.
        found: A fit.
        x: The model's inputs.

    Returns:
        Nats ``(n, *spatial)``, twice; the mask, likewise; and whether the
        feature map is finite.
    """
    parts = cut.parts(x)
    z, shape = parts.representation, (tf.shape(parts.representation)[0], *cut.shape[:-1])
    mask = found.mask(parts.feature)
    both = []
    for own, negatives in zip(local_parts(parts.feature, mask), found.bank, strict=True):
        others = tf.math.reduce_logsumexp(found.critic(z, negatives[None])[:, 0], axis=1)
        # Each z with its own parts alone: of all pairs of a batch only these are wanted.
        nats = pointwise(found.critic.of_pairs(z, own), others, negatives.shape[0])
        both.append(tf.reshape(nats, shape))
    return both[0], both[1], tf.reshape(mask, shape), tf.reduce_all(tf.math.is_finite(parts.feature))


def masked_logits(cut: Cut, mask: MaskModule, x: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """The network's logits behind the mask, float32 ``(n, neurons)``."""
    parts = cut.parts(x)
    feature = tf.cast(parts.feature, tf.float32)
    return cut.logits(feature * mask(parts.feature), parts.beside)
