"""The gradient family against tf.GradientTape over the whole model, and NumPy's own sums of such gradients."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import close, cnn, mlp, samples, with_weights

L = keras.layers
IMAGE = (7, 6, 4)


plain = functools.cache(mlp)


def tape(model, x, shares):
    """The gradient of the outputs, weighted by ``shares``, over the whole Keras model."""
    x = tf.constant(x, model.inputs[0].dtype)
    with tf.GradientTape() as recorded:
        recorded.watch(x)
        y = model(x, training=False)
    return recorded.gradient(y, x, output_gradients=tf.cast(shares, y.dtype)).numpy()


def largest(model, x):
    logits = np.asarray(model(x, training=False))
    return np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(axis=1)]


def model_of(shape, body):
    x = keras.Input(shape)
    y = body(x)
    return with_weights(keras.Model(x, L.Dense(3)(y if len(y.shape) == 2 else L.Flatten()(y))))


def nested(x):
    inner = keras.Sequential([keras.Input((4,)), L.Dense(5, activation="gelu"), L.BatchNormalization()])
    outer = keras.Sequential([keras.Input((4,)), inner, L.Dense(4, activation="softmax")])
    return L.Add()([outer(x), outer(inner(x)[:, :4])])


def shared(x):
    conv = L.Conv2D(4, 3, padding="same", activation="relu")
    return L.Concatenate()([conv(x), conv(conv(x)), x])


def attention(x):
    return L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 3)(x, x)]))


def operations(x):
    y = keras.ops.tanh(x) * keras.ops.sigmoid(x) + keras.ops.sqrt(keras.ops.square(x) + 1.0)
    return keras.ops.reshape(keras.ops.maximum(y, 1.1), (-1, 4))


MODELS = {
    "dense": ((6,), lambda x: L.Dense(5, activation="elu")(L.Dense(6, activation="relu", use_bias=False)(x))),
    "softmax": ((6,), lambda x: L.Dense(5, activation="softmax")(x)),
    "dense over time": ((3, 4), lambda x: L.Dense(5, activation="tanh")(x)),
    "conv valid": (IMAGE, lambda x: L.Conv2D(3, (3, 2), activation="relu")(x)),
    "conv same strides": (IMAGE, lambda x: L.Conv2D(3, 3, strides=(2, 3), padding="same", activation="tanh")(x)),
    "conv groups dilation": (IMAGE, lambda x: L.Conv2D(6, 2, groups=2, dilation_rate=2, activation="relu")(x)),
    "conv causal": ((9, 3), lambda x: L.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="elu")(x)),
    "conv 3D": ((4, 5, 4, 2), lambda x: L.Conv3D(3, 2, strides=2, padding="same", activation="relu")(x)),
    "other convs": (IMAGE, lambda x: L.Conv2DTranspose(2, 3, strides=2)(
        L.SeparableConv2D(3, 2, activation="relu")(L.DepthwiseConv2D(3, activation="relu")(x)))),
    "max": (IMAGE, lambda x: L.MaxPooling2D(2)(L.MaxPooling2D(3, 1, padding="same")(x))),
    "average": (IMAGE, lambda x: L.AveragePooling2D(3, 2, padding="same")(x)),
    "global max": (IMAGE, lambda x: L.GlobalMaxPooling2D()(x)),
    "global average": (IMAGE, lambda x: L.GlobalAveragePooling2D(keepdims=True)(x)),
    "bn": (IMAGE, lambda x: L.Activation("gelu")(L.BatchNormalization()(L.Dropout(0.5)(x)))),
    "bn axis": (IMAGE, lambda x: L.PReLU()(L.BatchNormalization(axis=1, scale=False)(x))),
    "layernorm": ((6,), lambda x: L.LeakyReLU()(L.LayerNormalization()(x))),
    "concatenate": ((6,), lambda x: L.Concatenate()([L.Dense(3, activation="tanh")(x), x])),
    "add": ((6,), lambda x: L.Add()([L.Dense(6, activation="selu")(x), x])),
    "multiply": ((6,), lambda x: L.Multiply()([L.Dense(6, activation="sigmoid")(x), x, x])),
    "nested": ((4,), nested),
    "shared": (IMAGE, shared),
    "attention": ((4, 6), attention),
    "gru": ((4, 3), lambda x: L.GRU(3, unroll=True)(x)),
    "operations": ((2, 4), operations),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.few(6)
def test_the_gradient_is_the_tapes(kind, rng):
    shape, body = MODELS[kind]
    model = model_of(shape, body)
    x = rng.normal(size=(5, *shape)).astype("float32")
    wanted = tape(model, x, largest(model, x))
    assert np.abs(wanted).max() > 1e-3
    assert close(create_analyzer("gradient", model).analyze(x), wanted, 1e-6)


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize(("postprocess", "function"), [(None, lambda g: g), ("abs", np.abs), ("square", np.square)])
def test_postprocess_and_the_product_with_the_input(make, postprocess, function):
    model = make()
    x = samples(model.input_shape[1:], 6)
    gradient = tape(model, x, largest(model, x))
    assert (gradient < 0).any()
    found = create_analyzer("gradient", model, postprocess=postprocess).analyze(x)
    assert close(found, function(gradient), 1e-6)
    # on the gradient, before the product: a negative input keeps its sign
    x = x - 0.5
    gradient = tape(model, x, largest(model, x))
    found = create_analyzer("input_t_gradient", model, postprocess=postprocess).analyze(x)
    assert close(found, x * function(gradient), 1e-6)


@pytest.mark.parametrize("name", ["gradient", "input_t_gradient", "integrated_gradients", "smoothgrad"])
@pytest.mark.parametrize("bad", ["ABS", "", True, 0, "sqrt"])
def test_an_unknown_postprocess_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"postprocess.*'abs', 'square'.*received {bad!r}"):
        create_analyzer(name, plain(), postprocess=bad)


# Integrated gradients


def riemann(model, x, shares, steps, offset, reference=0.0, function=lambda g: g):
    """The Riemann sum, float64 but for the gradients."""
    reference = np.broadcast_to(np.asarray(reference, np.float64), x.shape)
    total = np.zeros(x.shape)
    for k in range(steps):
        point = reference + (k + offset) / steps * (x.astype(np.float64) - reference)
        total += function(tape(model, point, shares).astype(np.float64))
    return total / steps * (x - reference)


def smooth(hidden=(10, 8)):
    return mlp(hidden=hidden, activation="tanh")


@pytest.mark.parametrize("make", [smooth, cnn])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(("rule", "offset"), [("left", 0.0), ("middle", 0.5), ("right", 1.0)])
@pytest.mark.few(3)
def test_integrated_gradients_are_the_riemann_sum(make, steps, rule, offset):
    model = make()
    x = samples(model.input_shape[1:], 5)
    found = create_analyzer("integrated_gradients", model, steps=steps, riemann=rule).analyze(x, batch_size=7)
    assert close(found, riemann(model, x, largest(model, x), steps, offset), 1e-5)


@pytest.mark.parametrize("kind", ["number", "row", "sample"])
def test_the_path_starts_at_the_reference(kind, rng):
    model = smooth()
    x = samples((12,), 5)
    reference = {"number": 0.7, "row": [0.3], "sample": rng.normal(size=12)}[kind]
    analyzer = create_analyzer("integrated_gradients", model, steps=6, reference_inputs=reference, postprocess="abs")
    wanted = riemann(model, x, largest(model, x), 6, 0.0, reference, np.abs)
    assert close(analyzer.analyze(x), wanted, 1e-5)
    start = np.broadcast_to(np.float32(reference), (1, 12))
    assert not analyzer.analyze(start).round(6).any()  # no difference, no map


def test_a_reference_of_one_number_a_channel():
    model = cnn()
    x = samples((7, 6, 2), 4)
    analyzer = create_analyzer("integrated_gradients", model, steps=4, reference_inputs=[0.5, -1.0])
    assert close(analyzer.analyze(x), riemann(model, x, largest(model, x), 4, 0.0, [0.5, -1.0]), 1e-5)


@pytest.mark.parametrize("steps", [1, 64])
@pytest.mark.parametrize("rule", ["left", "middle", "right"])
def test_integrated_gradients_of_a_linear_model_are_exact(steps, rule, rng):
    model = with_weights(keras.Sequential([keras.Input((6,)), L.Dense(4), L.Dense(3)]))
    first, _, last, _ = (np.float64(w) for w in model.get_weights())
    x, reference = rng.normal(size=(5, 6)), rng.normal(size=6)
    analyzer = create_analyzer(
        "integrated_gradients", model, steps=steps, riemann=rule, reference_inputs=reference,
        neuron_selection_mode="index",
    )  # fmt: skip
    for unit in range(3):
        assert close(analyzer.analyze(x, unit), (first @ last[:, unit]) * (x - reference), 1e-5)


@pytest.mark.parametrize("make", [mlp, smooth, cnn])
def test_integrated_gradients_are_complete(make):
    model = make()
    x = samples(model.input_shape[1:], 6)
    reference = 0.25
    analyzer = create_analyzer(
        "integrated_gradients", model, steps=256, riemann="middle", reference_inputs=reference,
        neuron_selection_mode="index",
    )  # fmt: skip
    for unit in range(model.output_shape[1]):
        logits, start = np.asarray(model(x))[:, unit], np.asarray(model(np.full_like(x, reference)))[:, unit]
        np.testing.assert_allclose(
            analyzer.analyze(x, unit).reshape(len(x), -1).sum(axis=1), logits - start, rtol=0.02, atol=0.01
        )


@pytest.mark.parametrize(("name", "options"), [
    ("integrated_gradients", {"steps": 8, "riemann": "middle"}), ("smoothgrad", {"augment_by_n": 8, "noise": 1.0})
])  # fmt: skip
def test_the_explained_neuron_is_that_of_the_clean_input(name, options):
    """Two neurons whose gradients tell them apart, the first the largest at x only."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(2)])
    model.set_weights([np.float32([[1, 0], [0, 1]]), np.float32([0, 0.9])])
    x = np.float32([[1.0, 0.0]])
    assert np.asarray(model(0.5 * x)).argmax() == 1 and np.asarray(model(x)).argmax() == 0
    found = create_analyzer(name, model, **options).analyze(x)
    np.testing.assert_allclose(found, [[1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"steps": 0}, "0"), ({"steps": -1}, "-1"), ({"steps": True}, "True"), ({"steps": 2.5}, "2.5"),
        ({"steps": "8"}, "'8'"), ({"steps": None}, "None"),
        ({"riemann": "center"}, "'center'"), ({"riemann": 0.5}, "0.5"), ({"riemann": None}, "None"),
        ({"reference_inputs": np.zeros(11)}, r"\(11,\)"), ({"reference_inputs": np.zeros((1, 12))}, r"\(1, 12\)"),
        ({"reference_inputs": np.zeros((12, 12))}, r"\(12, 12\)"), ({"reference_inputs": "zero"}, "'zero'"),
        ({"reference_inputs": float("nan")}, "nan"), ({"reference_inputs": np.inf}, "inf"),
        ({"reference_inputs": [0.0] * 11 + [np.nan]}, "nan"),
    ],
)  # fmt: skip
def test_bad_options_of_integrated_gradients_are_refused(options, shown):
    with pytest.raises(ValueError, match=rf"expected {next(iter(options))} to be .*received .*{shown}"):
        create_analyzer("integrated_gradients", plain(), **options)


def test_integrated_gradients_take_a_model_with_open_axes():
    x = keras.Input((None, None, 2))
    y = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(x))
    model = with_weights(keras.Model(x, L.Dense(3)(y)))
    data = samples((7, 6, 2), 3)
    assert close(create_analyzer("gradient", model).analyze(data), tape(model, data, largest(model, data)), 1e-6)
    found = create_analyzer("integrated_gradients", model, steps=4).analyze(data)
    assert close(found, riemann(model, data, largest(model, data), 4, 0.0), 1e-5)


# SmoothGrad


def smoothed(model, x, shares, n, noise, seed, function=lambda g: g):
    rng = np.random.default_rng(seed)
    flat = x.reshape(len(x), -1)
    spread = (noise * (flat.max(axis=1) - flat.min(axis=1))).reshape(-1, *[1] * (x.ndim - 1))
    total = np.zeros(x.shape)
    for _ in range(n):
        total += function(tape(model, x + spread * rng.standard_normal(x.shape[1:], dtype=np.float32), shares))
    return total / n


@pytest.mark.parametrize("make", [smooth, cnn])
@pytest.mark.parametrize(("n", "noise", "seed"), [(1, 0.15, 0), (5, 0.6, 3)])
def test_smoothgrad_is_the_mean_over_numpys_noise(make, n, noise, seed):
    model = make()
    x = samples(model.input_shape[1:], 5) * np.arange(1, 6).reshape(5, *[1] * len(model.input_shape[1:]))
    x = x.astype("float32")  # each sample has a range of its own
    options = {"augment_by_n": n, "noise": noise, "seed": seed}
    found = create_analyzer("smoothgrad", model, **options).analyze(x)
    assert close(found, smoothed(model, x, largest(model, x), n, noise, seed), 1e-5)
    found = create_analyzer("smoothgrad", model, postprocess="square", **options).analyze(x)
    assert close(found, smoothed(model, x, largest(model, x), n, noise, seed, np.square), 1e-5)


def test_the_defaults_are_innvestigates():
    x = samples((12,), 2)
    model = smooth()
    shares = largest(model, x)
    assert close(create_analyzer("smoothgrad", model).analyze(x), smoothed(model, x, shares, 64, 0.15, 0), 1e-5)
    found = create_analyzer("integrated_gradients", model).analyze(x)
    assert close(found, riemann(model, x, shares, 64, 0.0), 1e-5)


def test_without_noise_it_is_the_gradient():
    model = cnn()
    x = samples((7, 6, 2), 4)
    found = create_analyzer("smoothgrad", model, noise=0, augment_by_n=3).analyze(x)
    assert close(found, tape(model, x, largest(model, x)), 1e-6)


def test_a_sample_has_the_same_map_whenever_and_beside_whatever():
    model = smooth()
    x = samples((12,), 9)
    analyzer = create_analyzer("smoothgrad", model, augment_by_n=5)
    found = analyzer.analyze(x)
    np.testing.assert_array_equal(analyzer.analyze(x), found)
    for batch_size in (1, 2, 5, 9, 1000):
        assert close(analyzer.analyze(x, batch_size=batch_size), found, 1e-5)
    assert close(analyzer.analyze(x[[4]]), found[[4]], 1e-5)
    assert close(analyzer.analyze(x[::-1])[::-1], found, 1e-5)
    same = np.repeat(x[:1], 3, axis=0)
    assert close(analyzer.analyze(same), found[[0, 0, 0]], 1e-5)


@pytest.mark.parametrize("options", [{"seed": 1}, {"noise": 0.3}, {"augment_by_n": 6}])
def test_each_option_of_smoothgrad_changes_the_map(options):
    model = smooth()
    x = samples((12,), 3)
    plain = {"augment_by_n": 5, "noise": 0.2, "seed": 0}
    before = create_analyzer("smoothgrad", model, **plain).analyze(x)
    assert not close(create_analyzer("smoothgrad", model, **(plain | options)).analyze(x), before, 1e-3)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"noise": -0.1}, "-0.1"), ({"noise": np.inf}, "inf"), ({"noise": np.nan}, "nan"), ({"noise": True}, "True"),
        ({"noise": "0.1"}, "'0.1'"), ({"noise": None}, "None"),
        ({"augment_by_n": 0}, "0"), ({"augment_by_n": -3}, "-3"), ({"augment_by_n": True}, "True"),
        ({"augment_by_n": 2.5}, "2.5"),
        ({"seed": -1}, "-1"), ({"seed": 0.5}, "0.5"), ({"seed": None}, "None"),
    ],
)  # fmt: skip
def test_bad_options_of_smoothgrad_are_refused(options, shown):
    with pytest.raises(ValueError, match=f"expected {next(iter(options))} to be .*received {shown}$"):
        create_analyzer("smoothgrad", plain(), **options)


# Both


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("batch_size", [1, 4, 128])
@pytest.mark.parametrize(("name", "option"), [("integrated_gradients", "steps"), ("smoothgrad", "augment_by_n")])
@pytest.mark.parametrize("mode", ["max_activation", "index"])
@pytest.mark.few(9)
def test_no_more_points_at_once_than_the_batch_size(name, option, n, batch_size, mode, monkeypatch):
    analyzer = create_analyzer(name, plain(), neuron_selection_mode=mode, **{option: 11})
    sizes, logits = [], []
    # in place of the traced functions, so that nothing else can carry points
    monkeypatch.setattr(
        analyzer,
        "_summed",
        lambda x, shares, group: sizes.append(len(x) * len(group)) or ([2.0 * x], tf.constant(True)),
    )
    monkeypatch.setattr(analyzer, "_traced", None)
    monkeypatch.setattr(analyzer, "_logits", lambda x: logits.append(len(x)) or tf.eye(len(x), 4))
    x = samples((12,), n)
    analyzer.analyze(x, 1 if mode == "index" else None, batch_size=batch_size)
    assert sum(sizes) == n * 11
    assert max([*sizes, *logits]) <= batch_size
    chunk = min(n, batch_size)
    assert max(sizes) == min(batch_size // chunk, 11) * chunk  # and as many as fit
