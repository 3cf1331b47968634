"""A model cut at a feature map: its parts against Keras' own tensors, and what the default cut is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.information.parts import Cut
from tests.information.networks import small, tokens
from tests.networks import samples, with_weights

L = keras.layers


def of_layers(model, x, *names):
    """Keras' own outputs of layers."""
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(x)
    return [np.asarray(output) for output in keras.tree.flatten(outputs)]


def test_the_default_is_the_last_feature_map_and_what_the_head_reads():
    model = with_weights(small(head=None), 1)
    x = samples((8, 6, 2), 4)
    cut = Cut(ModelGraph(model), None, None)
    parts = cut.parts((tf.constant(x),))
    feature, z, logits = of_layers(model, x, "add", "mean", "head")
    np.testing.assert_allclose(parts.feature, feature, atol=1e-6)
    np.testing.assert_allclose(parts.representation, z, atol=1e-6)
    np.testing.assert_allclose(parts.logits, logits, atol=1e-6)
    assert cut.shape == (4, 3, 4) and cut.size == 4 and parts.beside == ()


def test_a_feature_map_in_front_of_a_shortcut():
    model = with_weights(small(head=None), 1)
    x = samples((8, 6, 2), 4)
    cut = Cut(ModelGraph(model), "side", None)
    parts = cut.parts((tf.constant(x),))
    pool, side = of_layers(model, x, "pool", "side")
    (beside,) = parts.beside  # what is added to it
    np.testing.assert_allclose(beside, pool, atol=1e-6)
    kernel, bias = model.get_layer("head").get_weights()
    changed = 2 * side - 1
    wanted = (pool + changed).mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(cut.logits(tf.constant(changed), parts.beside), wanted, atol=1e-5)


def test_a_representation_with_positions_is_its_mean():
    model = with_weights(small(head=None), 1)
    x = samples((8, 6, 2), 4)
    parts = Cut(ModelGraph(model), "pool", "add").parts((tf.constant(x),))
    np.testing.assert_allclose(parts.representation, of_layers(model, x, "add")[0].mean(axis=(1, 2)), atol=1e-6)


def test_tokens_are_positions():
    model = with_weights(tokens(), 1)
    cut = Cut(ModelGraph(model), None, None)
    assert cut.shape == (6, 5) and cut.size == 5
    x = samples((6, 3), 4)
    np.testing.assert_allclose(cut.parts((tf.constant(x),)).feature, of_layers(model, x, "last")[0], atol=1e-5)


def test_a_feature_map_of_an_open_size():
    x = keras.Input((None, None, 2))
    y = L.GlobalAveragePooling2D()(L.Conv2D(3, 3, name="open")(x))
    with pytest.raises(ValueError, match=r"a feature map of a fixed size, received \(batch, None, None, 3\)"):
        Cut(ModelGraph(keras.Model(x, L.Dense(2)(y))), "open", None)
