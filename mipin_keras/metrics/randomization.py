"""Randomisation: whether an explanation changes when what the model has learned is taken from it.

Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3 (cascading and independent randomisation) and
section 4 (similarities).
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from ..checks import integer, is_integer
from ..graph.model_graph import ModelGraph
from ..saving.fingerprint import fingerprint
from .checks import pairs_of

WINDOW = 11  # pixels: the side of SSIM's window


class Similarity(NamedTuple):
    """How alike the maps of each pair are; from -1 to 1, 1 for equal maps, and about 0 for independent ones.

    Attributes:
        spearman: float64 (n,): the rank correlation of their values, tied ones sharing the mean of their ranks.
        spearman_absolute: float64 (n,): the same of absolute values.
        ssim: float64 (n,): the structural similarity, mean over windows and channels; None where the maps are no
            images (n, H, W[, C]) of at least 11x11 pixels.
        cosine: float64 (n,): of the angle between their values.
        cosine_absolute: float64 (n,): the same of absolute values.
        constant: bool (n,): whether a map of the pair is constant, or its absolute values are. It ranks nothing: its
            rank correlation with any map, even itself, is 0 here. So is the cosine with a map of zeros.
    """

    spearman: NDArray[np.float64]
    spearman_absolute: NDArray[np.float64]
    ssim: NDArray[np.float64] | None
    cosine: NDArray[np.float64]
    cosine_absolute: NDArray[np.float64]
    constant: NDArray[np.bool_]


def similarity(first: ArrayLike, second: ArrayLike) -> Similarity:
    """Compare maps pair by pair. The scale of a map does not matter to any of the measures.

    For SSIM each map is divided by its largest absolute value. If neither map of a pair has negative values that is
    the scale from 0 to 1; otherwise both are taken from [-1, 1] to [0, 1], their zeros to 1/2.

    Args:
        first, second: (n, ...) real numbers, of one shape: n pairs of maps.

    Returns:
        A :class:`Similarity`.

    Raises:
        ValueError: The shapes differ or hold no map, or a value is NaN, infinite or no real number.
    """
    a, b = (_scaled(maps.astype(np.float64)) for maps in pairs_of(first, second))
    rows = a.reshape(len(a), -1), b.reshape(len(b), -1)
    sizes = np.abs(rows[0]), np.abs(rows[1])
    flat = [(row.max(axis=1) == row.min(axis=1)) for row in (*rows, *sizes)]
    return Similarity(
        spearman=_cosines(_ranks(rows[0]), _ranks(rows[1])),
        spearman_absolute=_cosines(_ranks(sizes[0]), _ranks(sizes[1])),
        ssim=_ssim(a, b),
        cosine=_cosines(*rows),
        cosine_absolute=_cosines(*sizes),
        constant=np.any(flat, axis=0),
    )


def cascading(
    model: keras.Model, seed: int = 0, layers: Sequence[str] | None = None
) -> Iterator[tuple[str, keras.Model]]:
    """Randomise a copy of a model layer by layer, from the output down to the input (Adebayo et al., section 3.1).

    Each layer's weights are drawn anew by its own initialisers, biases and the statistics of a normalisation too. A
    layer that is called several times has its turn where it stands nearest to the output; one inside a nested model
    where it stands there. Layers without weights have none.

    Args:
        model: A built Sequential or functional Keras 3 model, with one input and one output. It is not changed.
        seed: Of the weights drawn. A layer's depend on it and on the layer's position in the model alone.
        layers: Names of layers to randomise, in any order, as a step of :class:`mipin_keras.graph.ModelGraph` has
            them: the path of nested models before the layer's name. None for all with weights.

    Returns:
        An iterator over the name of the layer just randomised and the copy, the same one each time, with one more
        layer randomised. An analyzer of the copy made once explains it as it has become.

    Raises:
        ValueError: The model has no graph or no weights, cannot be copied, or has no layer of a name, all in one
            message; or, when it is its turn, a layer cannot be built anew from its configuration.

    Warns:
        UserWarning: A layer is left out, as the weights drawn for it are those that it has.
    """
    copy, found = _prepared(model, seed, layers)

    def randomized() -> Iterator[tuple[str, keras.Model]]:
        for name, layer, own_seed in found:
            if _randomize(name, layer, own_seed):
                yield name, copy

    return randomized()


def independent(
    model: keras.Model, seed: int = 0, layers: Sequence[str] | None = None
) -> Iterator[tuple[str, keras.Model]]:
    """Randomise one layer of a copy of a model at a time, all others being as trained (Adebayo et al., section 3.2).

    Args, Raises, Warns: as :func:`cascading`; the weights drawn for a layer are the same.

    Returns:
        An iterator over the name of the layer randomised and the copy, the same one each time. When the iterator goes
        on, the layer gets its weights back.
    """
    copy, found = _prepared(model, seed, layers)

    def randomized() -> Iterator[tuple[str, keras.Model]]:
        for name, layer, own_seed in found:
            before = layer.get_weights()
            if _randomize(name, layer, own_seed):
                yield name, copy
                layer.set_weights(before)

    return randomized()


def _prepared(
    model: keras.Model, seed: int, layers: Sequence[str] | None
) -> tuple[keras.Model, list[tuple[str, Any, int]]]:
    """A copy of the model, and of its layers to randomise, from the output down, the name and the seed."""
    seed = integer("seed", seed, 0)
    graph = ModelGraph(model)
    with _drawing(seed):  # the copy's first weights, which are thrown away
        copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copied = ModelGraph(copy)
    if fingerprint(copied) != fingerprint(graph):
        raise ValueError(
            "expected a model that keras.models.clone_model copies exactly, received one whose copy has other layers "
            "or weights; give each layer of your own a get_config() that tells all its settings"
        )

    found: dict[int, tuple[str, Any, int]] = {}
    for step in reversed(copied.steps):
        layer = step.model_layer  # of a separable convolution's two steps
        if getattr(layer, "weights", None) and id(layer) not in found:
            own_seed = int(np.random.SeedSequence([seed, len(found)]).generate_state(1)[0])
            found[id(layer)] = _name(copied, layer), layer, own_seed
    known = [name for name, _, _ in found.values()]
    wanted = known if layers is None else list(layers)
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        raise ValueError(
            f"expected layers with weights, at least one of {known}, received {unknown or 'none'}; leave layers out to "
            "randomise all of them"
        )
    return copy, [entry for entry in found.values() if entry[0] in wanted]


def _name(graph: ModelGraph, layer: Any) -> str:
    """The name of a layer's first step, without what a separable convolution's part adds."""
    first = next(step for step in graph.steps if step.model_layer is layer)
    return first.name if first.layer is layer else first.name.rsplit("/", 1)[0]


def _randomize(name: str, layer: Any, seed: int) -> bool:
    """Draw a layer's weights anew; whether that changed any."""
    before = layer.get_weights()
    with _drawing(seed):
        # Made from its configuration: an initialiser that is asked again would draw the same weights.
        fresh = type(layer).from_config(_reseeded(layer.get_config()))
        fresh.build_from_config(layer.get_build_config())
    drawn = fresh.get_weights()
    if [w.shape for w in drawn] != [w.shape for w in before]:
        raise ValueError(
            f"expected a layer that its configuration builds anew, received {name!r} ({type(layer).__name__}), which "
            f"has weights of shapes {[w.shape for w in before]}, built anew {[w.shape for w in drawn]}; give it "
            "get_build_config()"
        )
    if all(np.array_equal(old, new) for old, new in zip(before, drawn, strict=True)):
        warnings.warn(
            f"expected a layer that changes when its weights are drawn anew, received {name!r}, whose weights are "
            "those that its initialisers draw; it is left out, train the model first",
            UserWarning,
            stacklevel=3,
        )
        return False
    layer.set_weights(drawn)
    return True


def _reseeded(config: Any) -> Any:
    """A layer's configuration, each seed in it replaced by another."""
    if isinstance(config, dict):
        return {
            key: random.randint(1, 10**9) if key == "seed" and is_integer(value) else _reseeded(value)
            for key, value in config.items()
        }
    return [_reseeded(entry) for entry in config] if isinstance(config, list) else config


@contextlib.contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Python's generator seeded, which seeds the initialisers that have no seed; then as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _scaled(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each map divided by its largest absolute value; a map of zeros stays one."""
    largest = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return maps / np.where(largest > 0, largest, 1.0)


def _ranks(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value in its row, less the mean rank; tied values share the mean of theirs."""
    ranks = np.empty(rows.shape)
    for row, values in zip(ranks, rows, strict=True):
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        row[:] = (np.cumsum(counts) - (counts - 1) / 2)[group.reshape(-1)]
    return ranks - (rows.shape[1] + 1) / 2


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of each pair of rows; 0 where one is zero."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product = np.einsum("nd,nd->n", a, b)
    return np.clip(np.divide(product, length, out=np.zeros(len(a)), where=length > 0), -1.0, 1.0)


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if a.ndim not in (3, 4) or min(a.shape[1:3]) < WINDOW:
        return None
    if a.ndim == 3:
        a, b = a[..., None], b[..., None]
    low = np.where(np.minimum(a, b).min(axis=(1, 2, 3), keepdims=True) < 0, -1.0, 0.0)
    images = [tf.constant((one - low) / (1 - low), tf.float32) for one in (a, b)]
    return np.asarray(tf.image.ssim(*images, max_val=1.0, filter_size=WINDOW), np.float64)
