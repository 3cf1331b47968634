"""Images, of kinds that people ask about in public: transfer learning, preprocessing, Grad-CAM, formats."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import balanced, samples, with_weights
from tests.wild.common import (
    BOUNDED,
    FAMILIES,
    GRADIENTS,
    OURS,
    agree,
    by_tape,
    conserved,
    each,
    fitted,
    largest,
    made,
    maps,
    without_biases,
)

L = keras.layers
X = samples((8, 6, 3), 12)


def base(training=True):
    """A small pretrained network without its top: convolution, batch normalisation, ReLU, convolution."""
    x = keras.Input((8, 6, 3))
    y = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, use_bias=False, name="conv1")(x))
    y = L.Conv2D(4, 3, activation="relu", name="conv2")(L.ReLU(name="relu")(y))
    return keras.Model(x, y, name="base")


def new_head(inner, head="softmax", **call):
    """A nested base and a new head, as the guide on transfer learning writes it."""
    x = keras.Input((8, 6, 3))
    y = L.Dropout(0.4)(L.GlobalAveragePooling2D(name="pool")(inner(x, **call)))
    return with_weights(keras.Model(x, L.Dense(3, activation=head, name="top")(y)), 9)


def in_one_piece(model):
    """The same without the nesting, the softmax and the dropout; its layers are copies."""
    x = keras.Input((8, 6, 3))
    y = x
    for layer in [*model.get_layer("base").layers[1:], model.get_layer("pool")]:
        y = layer(y)
    return copied(keras.Model(x, L.Dense(3, name="top")(y)), model.get_layer("top"))


def copied(plain, head):
    """A copy of ``plain``, with ``head``'s weights in its last layer: no layer of it is called twice."""
    plain.layers[-1].set_weights(head.get_weights())
    clone = keras.models.clone_model(plain)
    clone.set_weights(plain.get_weights())
    return clone


def cam(model, layer, x):
    """Grad-CAM for the largest output of a model without nested models, in the feature map's shape, by a tape."""
    both = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as recorded:
        feature, logits = both(x, training=False)
        top = tf.reduce_max(logits, axis=1)
    weights = tf.reduce_mean(recorded.gradient(top, feature), (1, 2), keepdims=True)
    return np.asarray(tf.nn.relu(tf.reduce_sum(weights * feature, -1)))


# 1. A nested pretrained model and a new head: "graph disconnected" where Grad-CAM is written by hand.


@pytest.mark.parametrize("layer", [None, "conv2", "base/conv2", "base"])
def test_grad_cam_inside_a_nested_base(layer):
    model = new_head(base())
    found = create_analyzer("grad_cam", model, layer=layer, resize=False).analyze(X)
    agree(found, cam(in_one_piece(model), "conv2", X))


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_a_nested_base_is_read_as_in_one_piece(name):
    model = new_head(base())
    agree(maps(name, model, X), maps(name, in_one_piece(model), X), 1e-4)


def test_a_sequential_of_a_base_and_layers():
    inner = base()
    model = with_weights(keras.Sequential([keras.Input((8, 6, 3)), inner, L.Flatten(), L.Dense(2, "softmax")]))
    found = create_analyzer("grad_cam", model, layer="conv2", resize=False).analyze(X)
    plain = copied(keras.Model(inner.inputs, L.Dense(2)(L.Flatten()(inner.output))), model.layers[-1])
    agree(found, cam(plain, "conv2", X))


# 2. A frozen base, or one that is called with training=False: maps do not ask what may be trained.


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_a_frozen_base_changes_no_map(name):
    free, frozen, called = base(), base(), base()
    frozen.trainable = False
    wanted = maps(name, new_head(free), X)
    agree(maps(name, new_head(frozen), X), wanted, 1e-6)
    agree(maps(name, new_head(called, training=False), X), wanted, 1e-6)


# 3. Batch normalisation: the moving statistics are used, whatever else is in the batch, and they stay as they are.


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_normalisation_is_that_of_inference(name):
    model = new_head(base(), training=True)  # built so that it would use the batch's statistics
    plain = in_one_piece(model)
    before = model.get_weights()
    analyzer = fitted(name, model, X)
    found = analyzer.analyze(X)
    agree(np.concatenate([analyzer.analyze(X[:1]), analyzer.analyze(X[1:] + 0)]), found, 1e-4)
    if name in GRADIENTS:
        agree(found, by_tape(name, largest(lambda x: plain(x, training=False), X), X))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# 4. Preprocessing and augmentation inside the model: the first is part of it, the second does nothing when it predicts.


def deployed(augmented):
    x = keras.Input((8, 6, 3))
    y = x
    if augmented:
        y = L.RandomContrast(0.5)(L.RandomRotation(0.3)(L.RandomFlip("horizontal")(y)))
    y = L.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(L.Rescaling(1 / 255)(y))
    y = L.Conv2D(4, 3, activation="relu", name="conv")(y)
    return with_weights(keras.Model(x, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(y))), 3)


@pytest.mark.parametrize("name", each(OURS))
@pytest.mark.few(2)
def test_preprocessing_and_augmentation_inside_the_model(name):
    photos = 255 * np.random.default_rng(0).random((12, 8, 6, 3), np.float32)
    plain = deployed(False)
    bounds = {"low": 0.0, "high": 255.0} if name in BOUNDED else {}
    wanted = maps(name, plain, photos, **bounds)
    agree(maps(name, deployed(True), photos, **bounds), wanted, 1e-4)
    if name in GRADIENTS:
        agree(wanted, by_tape(name, largest(lambda x: plain(x, training=False), photos), photos))


def test_a_wrong_scale_of_the_input_is_another_map():
    # Pixels of 0 to 1 given to a model that divides by 255 itself: nothing can know; the logits show it.
    photos = 255 * np.random.default_rng(0).random((4, 8, 6, 3), np.float32)
    model = deployed(False)
    analyzer = made("gradient", model)
    np.testing.assert_allclose(analyzer.logits(photos / 255), model(photos / 255), rtol=1e-4, atol=1e-5)
    assert np.abs(analyzer.logits(photos / 255) - analyzer.logits(photos)).max() > 0.1
    bounded = create_analyzer("deep_taylor.bounded", model, low=0.0, high=1.0)
    with pytest.raises(ValueError, match="between the bounds"):
        bounded.analyze(photos)


# 5. A model saved to a file, as .h5 or .keras, is explained as before, by the names of its layers.


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_a_model_from_a_file(suffix, tmp_path):
    x = keras.Input((8, 6, 3))
    y = L.Conv2D(4, 3, activation="relu", name="block1_conv")(x)
    model = with_weights(keras.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(L.MaxPooling2D()(y)))), 4)
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path / f"model.{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model.{suffix}")
    for name in (*FAMILIES, "grad_cam"):
        agree(maps(name, loaded, X), maps(name, model, X), 1e-6)
    found, wanted = (create_analyzer("lrp.z", m, input_layer="block1_conv").analyze(X) for m in (loaded, model))
    agree(found, wanted, 1e-6)


# 6. A new name for a layer changes no number; a wrong name is refused with those that there are.


def named(conv, head):
    x = keras.Input((8, 6, 3))
    y = L.Flatten()(L.Conv2D(3, 3, activation="relu", name=conv)(x))
    return with_weights(keras.Model(x, L.Dense(2, name=head)(y)), 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_are_names(name):
    agree(maps(name, named("conv", "head"), X), maps(name, named("vision", "logits"), X), 1e-6)
    with pytest.raises(ValueError, match="'conv5_block3_out'.*'vision'"):
        create_analyzer(name, named("vision", "logits"), output_layer="conv5_block3_out")


# 7. Images without a batch axis, in the other order of axes, in grey, or in float64 from a library that reads files.


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "grad_cam"])
def test_formats_of_images(name):
    model = named("conv", "head")
    analyzer = made(name, model)
    wanted = analyzer.analyze(X)
    agree(analyzer.analyze(X.astype("float64")), wanted)
    agree(analyzer.analyze(np.asfortranarray(X)), wanted)
    agree(analyzer.analyze(X[::2][:, ::-1]), analyzer.analyze(np.ascontiguousarray(X[::2][:, ::-1])), 1e-6)
    for given, words in (
        (X[0], r"x\[None\]"),
        (X.transpose(0, 3, 1, 2), r"\(batch, 8, 6, 3\), received \(12, 3, 8, 6\)"),
        (X[..., :1], r"received \(12, 8, 6, 1\)"),
        (X[..., 0], r"received \(12, 8, 6\)"),
    ):
        with pytest.raises(ValueError, match=words):
            analyzer.analyze(given)


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "deep_taylor", "mipin"])
def test_channels_first_layers_are_refused_by_name(name):
    x = keras.Input((3, 8, 6))
    y = L.Flatten()(L.Conv2D(2, 3, data_format="channels_first", name="c")(x))
    with pytest.raises(ValueError, match="'c'.*channels_first.*channels_last"):
        made(name, keras.Model(x, L.Dense(2)(y)))


# 8. The class to explain: an index that is one too high, a one-hot label, a name.


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_that_are_no_index(name):
    analyzer = fitted(name, named("conv", "head"), X, neuron_selection_mode="index")
    for label, words in (
        (2, "from 0 to 1"),  # classes numbered from 1
        (np.eye(2)[[0] * 12], "integers|12 of them"),
        ("cat", "integers"),
        (["cat"] * 12, "integers"),
        ([0, 1, 0], "12"),
    ):
        with pytest.raises(ValueError, match=words):
            analyzer.analyze(X, label)
    agree(analyzer.analyze(X, np.zeros((12, 1), "int64")), analyzer.analyze(X, 0), 1e-6)


# 9. The relevance of a sample does not depend on how many are explained with it, for every rule of LRP.


@pytest.mark.parametrize("name", each([name for name in OURS if name.startswith("lrp")]))
def test_relevance_of_one_class_does_not_depend_on_the_batch(name):
    analyzer = made(name, new_head(base()), neuron_selection_mode="index")
    together = analyzer.analyze(X, 1)
    agree(np.concatenate([analyzer.analyze(X[i : i + 1], 1) for i in range(4)]), together[:4], 1e-4)
    agree(analyzer.analyze(np.repeat(X[:1], 30, axis=0), 1)[-1:], together[:1], 1e-4)


# 10. Conservation with batch normalisation and a residual connection: without biases the sum is the logit.


def test_lrp_z_through_batch_normalisation_and_a_shortcut():
    x = keras.Input((8, 6, 3))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(3, 3, padding="same")(x)))
    y = L.Add()([x, L.Conv2D(3, 3, padding="same", activation="relu")(y)])
    y = L.Dense(3)(L.GlobalAveragePooling2D()(L.MaxPooling2D(2)(y)))
    model = without_biases(with_weights(keras.Model(x, y), 4))
    analyzer = made("lrp.z", model)
    found = analyzer.analyze(X)
    conserved(found, np.asarray(model(X)).max(1))
    agree(found, by_tape("input_t_gradient", largest(lambda points: model(points, training=False), X), X), 1e-4)


# 11. Volumes and videos: Grad-CAM of a Conv3D, and frames that are read one by one.


def test_grad_cam_of_a_volume():
    x = keras.Input((4, 5, 6, 1))
    y = L.Conv3D(3, 2, activation="relu", name="conv")(x)
    model = with_weights(keras.Model(x, L.Dense(2)(L.GlobalAveragePooling3D()(y))), 4)
    volume = samples((4, 5, 6, 1), 3)
    found = made("grad_cam", model, resize=False).analyze(volume)
    # The mean over a volume is linear: the weights are the head's, divided by the number of voxels.
    feature = np.asarray(keras.Model(x, y)(volume))
    kernel = np.asarray(model.layers[-1].kernel)
    chosen = np.asarray(model(volume)).argmax(1)
    weights = kernel.T[chosen] / np.prod(feature.shape[1:4])
    agree(found, np.maximum((feature * weights[:, None, None, None]).sum(-1), 0))


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_a_video_read_frame_by_frame(name):
    x = keras.Input((3, 8, 6, 3))
    frame = keras.Sequential([keras.Input((8, 6, 3)), L.Conv2D(2, 3, activation="relu"), L.GlobalMaxPooling2D()])
    y = L.GRU(3)(L.TimeDistributed(frame)(x))
    model = with_weights(keras.Model(x, L.Dense(2, activation="softmax", name="head")(y)), 4)
    film = samples((3, 8, 6, 3), 3)
    kernel, bias = model.get_layer("head").get_weights()
    body = keras.Model(x, y)
    agree(maps(name, model, film), by_tape(name, largest(lambda x: body(x) @ kernel + bias, film), film))


# 12. A loss of logits, with the softmax only in the loss; the loss, the optimizer and class weights play no part.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.few(2)
def test_logits_probabilities_and_how_it_was_compiled(name):
    logits, probabilities = new_head(base(), head=None), new_head(base(), head="softmax")
    wanted = maps(name, logits, X)
    logits.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    agree(maps(name, logits, X), wanted, 1e-6)
    agree(maps(name, probabilities, X), wanted, 1e-6)
    probabilities.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    agree(maps(name, probabilities, X), wanted, 1e-6)
    predicted = probabilities.predict(X, verbose=0)
    found = tf.nn.softmax(made("gradient", probabilities).logits(X))
    np.testing.assert_allclose(found, predicted, rtol=1e-4, atol=1e-6)


# 13. A temperature before the softmax, as in calibration: the logits are those after it.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.few(2)
def test_a_temperature(name):
    x = keras.Input((8, 6, 3))
    y = L.Dense(3, name="logits")(L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(x)))
    plain = balanced(with_weights(keras.Model(x, y), 3))
    calibrated = keras.Model(plain.inputs, L.Softmax()(L.Rescaling(1 / 2.5)(plain.output)))
    np.testing.assert_allclose(made("gradient", calibrated).logits(X), plain(X) / 2.5, rtol=1e-4, atol=1e-5)
    found, wanted = maps(name, calibrated, X), maps(name, plain, X)
    # MIP-IN's inverse of a smaller logit undoes the scale; guided backpropagation starts with the logit, and then takes
    # the gradient: the scale counts twice.
    scale = {"mipin": 1.0, "guided_backprop": 1 / 2.5**2}.get(name, 1 / 2.5)
    agree(found, scale * wanted, 1e-3)
