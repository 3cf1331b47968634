"""Grad-CAM against a tape over the whole model and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from mipin_keras.channels import interpolation
from tests.networks import close, cnn, mlp, residual, samples, with_weights

L = keras.layers


def cam(model, feature, x, shares=None):
    """The map in the feature map's shape, and NumPy's; ``feature`` is the layer's output in the model."""
    both = keras.Model(model.inputs, [feature, model.output])
    with tf.GradientTape() as tape:
        tape.watch(x := tf.constant(x))
        found, logits = both(x, training=False)
    if shares is None:
        shares = np.eye(logits.shape[1])[np.asarray(logits).argmax(axis=1)]
    gradient = tape.gradient(logits, found, output_gradients=tf.cast(shares, logits.dtype)).numpy().astype(np.float64)
    weights = gradient.mean(axis=tuple(range(1, gradient.ndim - 1)))
    return np.maximum(np.einsum("n...c,nc->n...", found.numpy().astype(np.float64), weights), 0)


def resized(maps, sizes):
    """Linear interpolation between the centres of elements, an axis at a time."""
    for axis, new in enumerate(sizes, 1):
        old = maps.shape[axis]
        at = (np.arange(new) + 0.5) * old / new - 0.5
        maps = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, maps)
    return maps


def vgg(x):
    y = L.MaxPooling2D(2)(L.Conv2D(4, 3, padding="same", activation="relu")(x))
    y = L.Conv2D(5, 3, padding="same", activation="relu", name="feature")(y)
    y = L.Flatten()(L.MaxPooling2D(2)(y))
    return L.Dropout(0.5)(L.Dense(6, activation="relu")(y))


def resnet(x):
    y = L.Conv2D(4, 3, strides=2, padding="same")(x)
    y = L.ReLU()(L.BatchNormalization()(y))
    z = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(y))
    return L.GlobalAveragePooling2D()(L.ReLU(name="feature")(L.Add()([y, z])))


def projected(x):
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    z = L.BatchNormalization()(L.Conv2D(5, 3, strides=2, padding="same")(y))
    y = L.BatchNormalization()(L.Conv2D(5, 1, strides=2)(y))
    return L.GlobalAveragePooling2D()(L.Activation("relu", name="feature")(L.Add()([z, y])))


def concatenated(x):
    y = L.Conv2D(3, 3, padding="same", activation="relu")(x)
    y = [L.Conv2D(3, k, padding="same", activation="tanh")(y) for k in (1, 3)]
    return L.GlobalMaxPooling2D()(L.Concatenate(name="feature")(y))


def excited(x):
    """Two readers: the last convolution itself."""
    y = L.Conv2D(4, 3, activation="relu", name="feature")(x)
    weights = L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    return L.GlobalAveragePooling2D()(L.ReLU()(L.Multiply()([y, weights])))


def convolved(x):
    """Behind the global pooling two convolutions of one position, as in MobileNet."""
    y = L.Conv2D(4, 3, activation="relu", name="feature")(L.Conv2D(3, 3, activation="relu")(x))
    y = L.Conv2D(6, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(y))
    return L.Flatten()(L.Conv2D(5, 1)(y))


def squeezed(x):
    """The convolutions of the gate are the last."""
    y = L.ReLU(name="feature")(L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    weights = L.Conv2D(2, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(y))
    return L.GlobalAveragePooling2D()(L.Multiply()([y, L.Conv2D(4, 1, activation="sigmoid")(weights)]))


def attended(x):
    """The last convolution has all positions, and is a gate only."""
    y = L.Conv2D(4, 3, activation="relu", name="feature")(x)
    return L.GlobalAveragePooling2D()(L.Multiply()([y, L.Conv2D(1, 3, padding="same", activation=tf.sigmoid)(y)]))


def gated_line(x):
    y, gate = L.Conv1D(4, 3, name="feature")(x), L.Conv1D(4, 3, activation="sigmoid")(x)
    return L.GlobalMaxPooling1D()(L.Multiply()([y, gate]))


def separable(x):
    return L.Flatten()(L.SpatialDropout2D(0.3, name="feature")(L.SeparableConv2D(4, 3, activation="relu")(x)))


def enlarged(x):
    return L.GlobalAveragePooling2D()(L.Conv2DTranspose(4, 3, strides=3, activation="relu", name="feature")(x))


def line(x):
    y = L.Conv1D(4, 3, activation="relu")(L.Conv1D(4, 3, padding="causal", activation="relu")(x))
    return L.Flatten()(L.MaxPooling1D(2)(L.BatchNormalization(name="feature")(y)))


def volume(x):
    y = L.Conv3D(3, 2, activation="relu")(x)
    y = L.ReLU(name="feature")(L.BatchNormalization()(L.Conv3D(4, 2, strides=(1, 2, 1))(y)))
    return L.GlobalAveragePooling3D()(y)


BODIES = {
    vgg: (9, 8, 3), resnet: (9, 8, 3), projected: (9, 8, 3), concatenated: (7, 6, 2), excited: (7, 6, 1),
    convolved: (7, 6, 2), squeezed: (7, 6, 2), attended: (7, 6, 2), gated_line: (9, 3),
    separable: (7, 6, 3), enlarged: (4, 5, 2), line: (11, 3), volume: (5, 7, 6, 2),
}  # fmt: skip


def model_of(body):
    x = keras.Input(BODIES[body])
    return with_weights(keras.Model(x, L.Dense(3, name="head")(body(x))), 6)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.few(4)
def test_it_weighs_what_the_last_convolution_leads_to(body):
    model = model_of(body)
    shape = BODIES[body]
    x = samples(shape, 6)
    feature = model.get_layer("feature").output
    small = create_analyzer("grad_cam", model, resize=False).analyze(x, batch_size=4)
    wanted = cam(model, feature, x)
    assert small.dtype == np.float32 and small.shape == (6, *feature.shape[1:-1]) and wanted.any()
    assert close(small, wanted, 1e-5)
    found = create_analyzer("grad_cam", model).analyze(x)
    assert found.shape == x.shape
    assert close(found[..., 0], resized(wanted, shape[:-1]), 1e-5)
    for channel in range(1, shape[-1]):
        np.testing.assert_array_equal(found[..., channel], found[..., 0])
    # the layer by its name is the same
    np.testing.assert_array_equal(create_analyzer("grad_cam", model, layer="feature").analyze(x), found)


@pytest.mark.parametrize("body", [vgg, enlarged, resnet, excited])
def test_the_resizing_of_images_is_tensorflows(body):
    model = model_of(body)
    x = samples(BODIES[body], 4)
    small = create_analyzer("grad_cam", model, resize=False).analyze(x)
    wanted = tf.image.resize(small[..., None], BODIES[body][:2], "bilinear", antialias=False)
    assert close(create_analyzer("grad_cam", model).analyze(x)[..., :1], wanted, 1e-5)
    assert small.shape[1] > x.shape[1] if body is enlarged else small.shape[1] < x.shape[1]


@pytest.mark.parametrize("layer", ["conv", "bn", "relu", "conv2", "add", "pool"])
def test_any_layer_with_spatial_axes_does_what_the_tape_says(layer):
    model = residual()
    x = samples((7, 6, 2), 5)
    wanted = cam(model, model.get_layer(layer).output, x)
    found = create_analyzer("grad_cam", model, layer=layer, resize=False).analyze(x)
    assert wanted.any() and close(found, wanted, 1e-5)


@pytest.mark.parametrize("mode", ["index", "all", "callable"])
def test_the_explained_neurons(mode):
    model = model_of(vgg)
    x = samples(BODIES[vgg], 6)
    chosen = [0, 2, 1, 1, 0, 2]
    options = {"neuron_selection_mode": (lambda logits: chosen) if mode == "callable" else mode}
    found = create_analyzer("grad_cam", model, resize=False, **options).analyze(x, chosen if mode == "index" else None)
    shares = np.ones((6, 3)) if mode == "all" else np.eye(3)[chosen]
    assert close(found, cam(model, model.get_layer("feature").output, x, shares), 1e-5)


@pytest.mark.parametrize("layer", [None, "inner", "inner/last", "last", "inner/first", "outer/inner/last"])
def test_a_layer_inside_nested_models(layer):
    shape = (8, 7, 2)
    flat_in = keras.Input(shape)
    first = L.Conv2D(3, 3, activation="relu", name="first")
    last = L.Conv2D(4, 2, activation="relu", name="last")
    head = L.Dense(3, name="head")
    flat = with_weights(keras.Model(flat_in, head(L.Flatten()(L.MaxPooling2D(2)(last(first(flat_in)))))))
    inner = keras.Sequential([keras.Input(shape), first, last], name="inner")
    x = keras.Input(shape)
    if layer == "outer/inner/last":
        y = keras.Input(shape)
        inner = keras.Model(y, inner(y), name="outer")
    model = keras.Model(x, head(L.Flatten()(L.MaxPooling2D(2)(inner(x)))))
    data = samples(shape, 4)
    feature = flat.get_layer("first" if layer == "inner/first" else "last").output
    found = create_analyzer("grad_cam", model, layer=layer, resize=False).analyze(data)
    assert close(found, cam(flat, feature, data), 1e-5)


def test_another_output_layer():
    model = residual()
    data = samples((7, 6, 2), 4)
    part = keras.Model(model.inputs, model.get_layer("flatten").output)
    found = create_analyzer("grad_cam", model, output_layer="flatten", resize=False).analyze(data)
    assert close(found, cam(part, model.get_layer("add").output, data), 1e-5)


@pytest.mark.parametrize("old", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("new", [1, 2, 5, 7, 14, 21])
def test_interpolation(old, new, rng):
    matrix = interpolation(old, new)
    assert matrix.shape == (new, old) and (matrix >= 0).all() and ((matrix > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)
    values = rng.normal(size=(1, old))
    np.testing.assert_allclose(values @ matrix.T, resized(values, (new,)), rtol=1e-9, atol=1e-12)
    if old == new:
        np.testing.assert_array_equal(matrix, np.eye(old))
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)  # the same from the other end


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MobileNet", "conv_pw_13_relu"), ("MobileNetV2", "out_relu"), ("MobileNetV3Small", None),
        ("EfficientNetB0", "top_activation"),
    ],
)  # fmt: skip
def test_the_feature_map_of_networks_with_convolutions_behind_the_pooling(name, layer):
    keras.utils.set_random_seed(1)
    build = getattr(keras.applications, name)
    model = build(weights=None, classes=5, input_shape=(96, 96, 3), classifier_activation=None)
    if layer is None:  # it has the number of the activations that were made before: the last before the pooling
        pooling = [i for i, each in enumerate(model.layers) if isinstance(each, L.GlobalAveragePooling2D)][-1]
        layer = model.layers[pooling - 1].name
    x = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    analyzer = create_analyzer("grad_cam", model, resize=False)
    assert analyzer.start == analyzer.graph.tensor_after(layer)
    wanted, found = cam(model, model.get_layer(layer).output, x), analyzer.analyze(x)
    assert found.shape == (2, 3, 3) and close(found, wanted, 1e-3)
    assert (np.ptp(found, axis=(1, 2)) > 0.05 * found.max(axis=(1, 2))).all() and (found.max(axis=(1, 2)) > 0).all()


# Refused


def one_position(x):
    return L.Flatten()(L.Conv2D(5, 1, name="preds")(L.GlobalAveragePooling2D(keepdims=True)(x)))


def only_a_gate(x):
    return L.GlobalAveragePooling2D()(L.Multiply()([x, L.Conv2D(1, 3, padding="same", activation="sigmoid")(x)]))


@pytest.mark.parametrize("body", [one_position, only_a_gate])
def test_a_model_without_a_feature_map_is_refused(body):
    x = keras.Input((6, 5, 2))
    with pytest.raises(ValueError, match=r"more than one position and is more than a gate.*Conv2D.*as layer="):
        create_analyzer("grad_cam", keras.Model(x, L.Dense(3)(body(x))))


def test_a_model_without_a_convolution_is_refused():
    with pytest.raises(ValueError, match="no convolution; name a layer whose output has spatial axes"):
        create_analyzer("grad_cam", mlp())


@pytest.mark.parametrize(("layer", "shape"), [("flatten", 12), ("head", 3)])
def test_a_layer_without_spatial_axes_is_refused(layer, shape):
    with pytest.raises(
        ValueError, match=rf"spatial axes and channels, received '{layer}', whose output is \(batch, {shape}"
    ):
        create_analyzer("grad_cam", cnn(), layer=layer)


@pytest.mark.parametrize("layer", ["nowhere", "", "conv/none", 3])
def test_an_unknown_layer_is_refused_with_those_there_are(layer):
    with pytest.raises(
        (ValueError, TypeError), match=f"unknown layer name {layer!r}; expected one of .*'conv'.*'pool'"
    ):
        create_analyzer("grad_cam", cnn(), layer=layer)


@pytest.mark.parametrize("bad", [1, 0, None, "yes", (7, 6)])
def test_resize_is_true_or_false(bad):
    with pytest.raises(ValueError, match="resize to be one of"):
        create_analyzer("grad_cam", cnn(), resize=bad)


def reshaped():
    """The input has other axes than the convolution's output."""
    x = keras.Input((24,))
    y = L.Conv2D(3, 2, activation="relu", name="conv")(L.Reshape((4, 3, 2))(x))
    return with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(y))))


def test_other_axes_are_refused_unless_the_map_keeps_the_layers():
    model = reshaped()
    with pytest.raises(
        ValueError, match=r"axes of the feature map, received \(24,\) and \(3, 2, 3\); give resize=False"
    ):
        create_analyzer("grad_cam", model)
    x = samples((24,), 5)
    found = create_analyzer("grad_cam", model, resize=False).analyze(x)
    assert found.shape == (5, 3, 2) and close(found, cam(model, model.get_layer("conv").output, x), 1e-5)


def test_open_axes_are_refused_unless_the_map_keeps_the_layers():
    x = keras.Input((None, None, 2))
    y = L.Conv2D(3, 3, activation="relu", name="conv")(x)
    model = with_weights(keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y))))
    with pytest.raises(ValueError, match="expected fixed shapes to resize.*give resize=False"):
        create_analyzer("grad_cam", model)
    analyzer = create_analyzer("grad_cam", model, resize=False)
    for shape in ((6, 7, 2), (9, 5, 2)):
        data = samples(shape, 3)
        assert close(analyzer.analyze(data), cam(model, model.get_layer("conv").output, data), 1e-5)


def test_a_layer_beside_the_way_to_the_output_is_refused():
    x = keras.Input((6, 6, 2))
    y = L.Conv2D(3, 3, activation="relu", name="conv")(x)
    z = L.Conv2D(3, 3, activation="relu", name="aside")(y)
    y = L.Dense(3, name="logits")(L.GlobalAveragePooling2D()(y))
    z = L.Dense(3)(L.Concatenate()([y, L.Flatten()(z)]))
    with pytest.raises(ValueError, match="before the explained output"):
        create_analyzer("grad_cam", keras.Model(x, z), output_layer="logits", layer="aside")
