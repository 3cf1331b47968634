"""Outputs that are not (batch, units): segmentation, autoencoders, a number a step; explained by a target."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer, load_analyzer, targets
from tests.networks import samples, with_weights
from tests.wild.common import (
    GRADIENTS,
    OURS,
    RULED,
    agree,
    by_tape,
    conserved,
    each,
    fitted,
    made,
    maps,
    without_biases,
)

L = keras.layers
IMAGES = samples((8, 6, 2), 12)
SERIES = samples((5, 2), 30)


def u_net(head="softmax", units=3):
    """Two levels, a skip, and a class for each pixel."""
    x = keras.Input((8, 6, 2))
    top = L.Conv2D(3, 3, padding="same", activation="relu", name="down")(x)
    low = L.Conv2D(4, 3, padding="same", activation="relu", name="low")(L.MaxPooling2D(2)(top))
    up = L.Conv2D(3, 3, padding="same", activation="relu", name="up")(L.UpSampling2D(2)(low))
    y = L.Concatenate()([top, up])
    return with_weights(keras.Model(x, L.Conv2D(units, 1, activation=head, name="head")(y)), 8)


def flat_net(head=None):
    """A map of classes, and no skip."""
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    return with_weights(keras.Model(x, L.Conv2D(3, 3, padding="same", activation=head, name="head")(y)), 8)


def cropped(model, row, column):
    """The model of one pixel: its classes are units."""
    y = L.Cropping2D(((row, 7 - row), (column, 5 - column)))(model.get_layer("head").output)
    return keras.Model(model.inputs, L.Flatten()(y))


MASK = np.zeros((8, 6), bool)
MASK[2:5, 1:4] = True


def region(y):
    return keras.ops.mean(y[:, 2:5, 1:4, 1], axis=(1, 2))


def called(model):
    return lambda x: model(x, training=False)


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.parametrize("head", [None, "softmax", "sigmoid"])
@pytest.mark.few(2)
def test_the_mean_of_a_region_in_the_models_own_output(name, head):
    # A function of the user's gets what the model gives, its softmax included.
    model = u_net(head)
    agree(maps(name, model, IMAGES, target=region), by_tape(name, lambda x: region(model(x)), IMAGES))


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.parametrize("head", [None, "softmax", "sigmoid"])
@pytest.mark.few(2)
def test_segmentation_is_the_mean_logit_over_the_mask(name, head):
    model, plain = u_net(head), u_net(None)
    target = targets.segmentation(MASK, 1)
    agree(maps(name, model, IMAGES, target=target), by_tape(name, lambda x: region(plain(x)), IMAGES))
    found = made("gradient", model, target=target).logits(IMAGES)
    assert found.shape == (12, 1)
    np.testing.assert_allclose(found[:, 0], region(plain(IMAGES)), rtol=1e-4, atol=1e-5)


# A convolution that is trained starts from random numbers of its own for each fit of another class or target.
@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED], without=["mipin.trained"]))
@pytest.mark.few(2)
def test_an_index_is_the_unit_of_one_pixel(name):
    model = flat_net("softmax")
    wanted = maps(name, cropped(flat_net(), 3, 2), IMAGES, selection=1, neuron_selection_mode="index")
    agree(maps(name, model, IMAGES, target=(3, 2, 1)), wanted, 1e-3 if "mipin" in name else 1e-4)


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED]))
@pytest.mark.few(2)
def test_segmentation_of_one_pixel_is_its_index(name):
    mask = np.zeros((8, 6), bool)
    mask[3, 2] = True
    model = u_net()
    found = maps(name, model, IMAGES, target=targets.segmentation(mask, 1))
    agree(found, maps(name, model, IMAGES, target=(3, 2, 1)), 1e-4)


def test_lrp_of_a_region_sums_to_its_mean():
    model = without_biases(u_net("softmax"))
    plain = without_biases(u_net(None))
    value = np.asarray(region(plain(IMAGES)))
    found = maps("lrp.z", model, IMAGES, target=targets.segmentation(MASK, 1))
    conserved(found, value)
    agree(found, by_tape("input_t_gradient", lambda x: region(plain(x)), IMAGES), 1e-4)


def test_a_mask_of_each_sample_and_masks_that_are_none():
    model, plain = u_net(), u_net(None)
    for wrong, words in (
        (np.zeros((8, 6)), "mask.*True somewhere"),
        (np.ones((6, 8), bool), "6, 8,.*8, 6, 3.*mask"),
        (np.ones(3, bool), "mask"),
    ):
        with pytest.raises(ValueError, match=words):
            create_analyzer("gradient", model, target=targets.segmentation(wrong, 1)).analyze(IMAGES)
    with pytest.raises(ValueError, match="unit to be an int from 0 to 2, received 3"):
        create_analyzer("gradient", model, target=targets.segmentation(MASK, 3)).analyze(IMAGES)
    assert plain.count_params() == model.count_params()


@pytest.mark.parametrize("name", each(OURS))
def test_an_output_that_is_no_row_of_units_asks_for_a_target(name):
    with pytest.raises(ValueError, match=r"\(batch, 8, 6, 3\).*target="):
        made(name, u_net())


def test_grad_cam_of_a_region():
    model, plain = u_net(), u_net(None)
    found = made("grad_cam", model, layer="low", resize=False, target=targets.segmentation(MASK, 1)).analyze(IMAGES)
    both = keras.Model(plain.inputs, [plain.get_layer("low").output, plain.output])
    with tf.GradientTape() as recorded:
        feature, y = both(IMAGES)
        value = region(y)
    weights = tf.reduce_mean(recorded.gradient(value, feature), (1, 2), keepdims=True)
    agree(found, np.asarray(tf.nn.relu(tf.reduce_sum(weights * feature, -1))))


@pytest.mark.parametrize("name", ["mipin", "pattern.attribution"])
@pytest.mark.medium
def test_a_fit_to_a_region_is_saved_with_it(name, tmp_path):
    model = u_net()
    analyzer = fitted(name, model, IMAGES, target=targets.segmentation(MASK, 1))
    found = analyzer.analyze(IMAGES)
    assert found.shape == IMAGES.shape and found.std() > 0
    loaded = load_analyzer(analyzer.save(tmp_path / "fit.npz"), model)
    np.testing.assert_array_equal(loaded.analyze(IMAGES), found)


# Other outputs


def autoencoder():
    x = keras.Input((6,))
    y = L.Dense(3, activation="relu", name="code")(x)
    return with_weights(keras.Model(x, L.Dense(6, name="back")(y)), 2)


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_the_error_of_an_autoencoder(name):
    # Which of the inputs make the reconstruction bad: asked for anomalies. The samples to compare with are constants.
    model, x = autoencoder(), samples((6,), 1)
    error = lambda y: keras.ops.mean((y - x) ** 2, axis=1)  # noqa: E731
    agree(maps(name, model, x, target=error), by_tape(name, lambda points: error(model(points)), x))


def image_autoencoder():
    x = keras.Input((8, 6, 2))
    y = L.Conv2D(3, 3, strides=2, padding="same", activation="relu")(x)
    return with_weights(keras.Model(x, L.Conv2DTranspose(2, 3, strides=2, padding="same", name="head")(y)), 2)


@pytest.mark.parametrize("name", ["gradient", "lrp.z", "mipin"])
def test_a_reconstructed_pixel(name):
    model = without_biases(image_autoencoder())
    found = maps(name, model, IMAGES, target=(4, 3, 0))
    assert found.shape == IMAGES.shape and found.std() > 0
    function = lambda x: model(x)[:, 4, 3, 0]  # noqa: E731
    if name == "gradient":
        agree(found, by_tape(name, function, IMAGES))
    elif name == "lrp.z":
        agree(found, by_tape("input_t_gradient", function, IMAGES), 1e-4)


def tagger(head="softmax"):
    """A class for each step: words and their kinds."""
    x = keras.Input((5, 2))
    y = L.Conv1D(4, 3, padding="causal", activation="relu", name="conv")(x)
    return with_weights(keras.Model(x, L.TimeDistributed(L.Dense(3, activation=head), name="tags")(y)), 2)


def test_a_number_of_each_step():
    model = tagger(None)
    for step in (0, 3):
        found = maps("gradient", model, SERIES, target=(step, 1))
        agree(found, by_tape("gradient", lambda x, step=step: model(x)[:, step, 1], SERIES))
        assert not found[:, step + 1 :].any()  # a causal convolution has not read what comes later


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_the_class_of_a_step_behind_a_wrapped_softmax(name):
    # The softmax sits inside TimeDistributed: the index means the output without it, or the wrapper is named.
    function = lambda x: tagger(None)(x)[:, 3, 1]  # noqa: E731
    try:
        found = maps(name, tagger(), SERIES, target=(3, 1))
    except ValueError as problem:
        assert "'tags'" in str(problem)
        return
    agree(found, by_tape(name, function, SERIES))


@pytest.mark.parametrize("name", each(GRADIENTS))
@pytest.mark.medium
def test_a_forecast_of_several_steps(name):
    # A series of the next days: the sum over the horizon, or one day.
    x = keras.Input((5, 2))
    y = L.Reshape((3, 2))(L.Dense(6)(L.GRU(4)(x)))
    model = with_weights(keras.Model(x, y), 2)
    total = lambda y: keras.ops.sum(y[:, :, 0], axis=1)  # noqa: E731
    agree(maps(name, model, SERIES[:4], target=total), by_tape(name, lambda x: total(model(x)), SERIES[:4]))
    agree(maps(name, model, SERIES[:4], target=(2, 1)), by_tape(name, lambda x: model(x)[:, 2, 1], SERIES[:4]))


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "lrp.z", "input_t_gradient"])
@pytest.mark.few(2)
def test_a_channel_of_a_feature_map(name):
    # What a filter looks for: the mean of its feature map, or one position of it.
    body = flat_net("relu")
    target = lambda y: keras.ops.mean(y[..., 0], axis=(1, 2))  # noqa: E731
    found = maps(name, body, IMAGES, target=target)
    assert found.std() > 0
    x = body.inputs[0]
    plain = keras.Model(x, L.GlobalAveragePooling2D()(body.get_layer("head").output))
    wanted = maps(name, plain, IMAGES, selection=0, neuron_selection_mode="index")
    agree(found, wanted, 1e-4)
