"""Several inputs, integer inputs, and the many things that people give as input."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import create_analyzer
from tests.networks import cnn, mlp, samples, with_weights
from tests.wild.common import (
    BOUNDED,
    FIRST_LAYERS,
    GRADIENTS,
    RULED,
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
A, B = samples((4,), 30), samples((3,), 30, seed=1)
IMAGE, CLINIC = samples((6, 5, 2), 20), samples((3,), 20, seed=1)


def two_tables(dictionary=False):
    """Two inputs that are one table in two parts."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    y = L.Dense(3, name="head")(L.Dense(5, activation="relu")(L.Concatenate()([a, b])))
    return with_weights(keras.Model({"a": a, "b": b} if dictionary else [a, b], y), 6)


def one_table():
    x = keras.Input((7,))
    return with_weights(keras.Model(x, L.Dense(3, name="head")(L.Dense(5, activation="relu")(x))), 6)


def image_and_clinic():
    image, clinic = keras.Input((6, 5, 2), name="image"), keras.Input((3,), name="clinic")
    y = L.Flatten()(L.MaxPooling2D(2)(L.Conv2D(3, 3, activation="relu", name="conv")(image)))
    y = L.Concatenate()([y, L.Dense(4, activation="relu")(clinic)])
    model = keras.Model(
        [image, clinic], L.Dense(2, activation="softmax", name="head")(L.Dense(4, activation="relu")(y))
    )
    return with_weights(model, 1)


# Several inputs


FIRST = "the first layers with weights are looked for behind the first input of the model alone"


@pytest.mark.parametrize("name", each([*GRADIENTS, *RULED], without=BOUNDED))
def test_two_inputs_are_one_in_two_parts(name):
    wanted = maps(name, one_table(), np.hstack([A, B]))
    agree(maps(name, two_tables(), [A, B]), [wanted[:, :4], wanted[:, 4:]])


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_each_branch_has_its_first_layer(name):
    # The flat rule there shares what arrives equally: one value for all columns of a branch.
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    y = L.Concatenate()([L.Dense(4, activation="relu")(a), L.Dense(4, activation="relu")(b)])
    model = with_weights(keras.Model([a, b], L.Dense(3)(y)), 6)
    options = {"until_layer_idx": 2} if name.endswith("idx") else {}
    for part in maps(name, model, [A, B], **options):
        assert part.any()
        np.testing.assert_allclose(part, np.repeat(part[:, :1], part.shape[1], axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_are_those_of_one_input(name):
    with pytest.raises(ValueError, match="expected .*(one floating-point input|layers with weights at the input)"):
        made(name, two_tables())


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_an_image_and_clinical_data(name):
    model = image_and_clinic()
    plain = keras.Model(model.inputs, model.get_layer("head").input)
    kernel, bias = model.get_layer("head").get_weights()
    logits = largest(lambda parts: plain(parts, training=False) @ kernel + bias, [IMAGE, CLINIC])
    agree(maps(name, model, [IMAGE, CLINIC]), by_tape(name, logits, [IMAGE, CLINIC]))


def test_lrp_of_an_image_and_clinical_data_sums_to_the_logit():
    model = without_biases(image_and_clinic())
    analyzer = made("lrp.z", model)
    found = analyzer.analyze([IMAGE, CLINIC])
    conserved(found, analyzer.logits([IMAGE, CLINIC]).max(1))
    times = maps("input_t_gradient", model, [IMAGE, CLINIC])
    agree(found, times, 1e-4)


def test_integrated_gradients_of_two_inputs_sum_to_the_difference():
    model = image_and_clinic()
    analyzer = create_analyzer("integrated_gradients", model, steps=300, riemann="middle")
    found = analyzer.analyze([IMAGE, CLINIC])
    difference = analyzer.logits([IMAGE, CLINIC]) - analyzer.logits([0 * IMAGE, 0 * CLINIC])
    chosen = analyzer.logits([IMAGE, CLINIC]).argmax(1)
    conserved(found, difference[np.arange(20), chosen], 2e-2)


@pytest.mark.parametrize("name", ["gradient", "lrp.epsilon", "mipin", "pattern.net"])
def test_inputs_by_name_in_any_order(name):
    listed = maps(name, two_tables(), [A, B])
    for model in (two_tables(), two_tables(dictionary=True)):
        analyzer = fitted(name, model, {"b": B, "a": A})
        found = analyzer.analyze({"b": B, "a": A})
        assert set(found) == {"a", "b"}
        agree(found["a"], listed[0])
        agree(found["b"], listed[1])


@pytest.mark.parametrize("name", ["mipin", "pattern.attribution"])
@pytest.mark.parametrize("kind", ["list", "dict", "dataset of tuples", "dataset of dicts"])
@pytest.mark.few(2)
def test_a_fit_takes_several_inputs_from_any_source(name, kind):
    labels = np.zeros(30)
    by_name = {"a": A, "b": B}
    source = {
        "list": lambda: ([A, B], labels),
        "dict": lambda: (by_name, labels),
        "dataset of tuples": lambda: (tf.data.Dataset.from_tensor_slices(((A, B), labels)).batch(32),),
        "dataset of dicts": lambda: (tf.data.Dataset.from_tensor_slices((by_name, labels)).batch(32),),
    }[kind]()
    agree(made(name, two_tables()).fit(*source).analyze([A, B]), maps(name, two_tables(), [A, B]))


def test_grad_cam_of_the_branch_with_the_image():
    model = image_and_clinic()
    found = made("grad_cam", model, resize=False).analyze([IMAGE, CLINIC])
    feature = model.get_layer("conv").output
    head = model.get_layer("head")
    both = keras.Model(model.inputs, [feature, head.input])
    with tf.GradientTape() as recorded:
        values, hidden = both([IMAGE, CLINIC])
        logits = hidden @ head.kernel + head.bias
        top = tf.reduce_max(logits, axis=1)
    weights = tf.reduce_mean(recorded.gradient(top, values), (1, 2), keepdims=True)
    wanted = np.asarray(tf.nn.relu(tf.reduce_sum(weights * values, -1)))
    for part in keras.tree.flatten(found):
        agree(part, wanted) if part.shape == wanted.shape else None
    assert any(part.shape == wanted.shape for part in keras.tree.flatten(found))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([A], "2|a.*b"),
        ([A, B, B], "2|a.*b"),
        (A, "2|a.*b"),
        ({"a": A}, "'b'"),
        ({"a": A, "c": B}, "'b'|'c'"),
        ([B, A], r"\(batch, 4\).*\(30, 3\)"),
        ([A, B[:7]], "30.*7|7.*30"),
    ],
    ids=["one of two", "three", "no list", "a name missing", "another name", "swapped", "other lengths"],
)
@pytest.mark.parametrize("call", ["analyze", "fit"])
def test_inputs_that_do_not_fit_are_refused_by_name(given, words, call):
    with pytest.raises((ValueError, TypeError), match=words):
        getattr(made("mipin" if call == "fit" else "gradient", two_tables()), call)(given)


def siamese():
    """Two images, one encoder, and the distance of the codes."""
    encoder = keras.Sequential([keras.Input((6, 5, 2)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(4)])
    left, right = keras.Input((6, 5, 2), name="left"), keras.Input((6, 5, 2), name="right")
    distance = keras.ops.abs(encoder(left) - encoder(right))
    return with_weights(keras.Model([left, right], L.Dense(1, activation="sigmoid", name="same")(distance)), 2)


@pytest.mark.parametrize("name", each(GRADIENTS))
def test_two_images_and_one_encoder(name):
    # A kind of network that people compare signatures and faces with.
    model, pair = siamese(), [IMAGE[:8], IMAGE[8:16]]
    head = model.get_layer("same")
    body = keras.Model(model.inputs, head.input)
    found = maps(name, model, pair)
    agree(found, by_tape(name, lambda parts: (body(parts) @ head.kernel + head.bias)[:, 0], pair))
    swapped = maps(name, model, pair[::-1])
    agree(swapped, found[::-1])


# What is given as input


def test_a_list_or_dict_around_the_one_input_comes_back_around_the_map():
    model = mlp()
    x = samples((12,), 5)
    wanted = made("gradient", model).analyze(x)
    agree(made("gradient", model).analyze([x]), [wanted])
    name = model.inputs[0].name
    agree(made("gradient", model).analyze({name: x}), {name: wanted})


def test_a_data_frame_and_a_data_set():
    pandas = pytest.importorskip("pandas")
    model, x = mlp(), samples((12,), 9)
    wanted = made("lrp.epsilon", model).analyze(x)
    frame = pandas.DataFrame(x, columns=[f"feature {i}" for i in range(12)])
    agree(np.asarray(made("lrp.epsilon", model).analyze(frame)), wanted)
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(9))).batch(4)
    for source in (labelled, labelled.map(lambda x, _: x)):
        try:
            agree(made("lrp.epsilon", model).analyze(source), wanted)
        except TypeError as problem:  # taken, or refused by what it is
            assert "Dataset" in str(problem) and "object" not in str(problem)


@pytest.mark.parametrize("kind", ["ragged", "words in a frame", "a generator", "None", "a path"])
def test_what_is_no_array_is_refused_by_what_it_is(kind):
    pandas = pytest.importorskip("pandas")
    x = samples((12,), 3)
    given, words = {
        "ragged": (tf.ragged.constant([[1.0, 2.0], [3.0]]), "ragged"),
        "words in a frame": (pandas.DataFrame({"name": ["a", "b"], "age": [1, 2]}), "data frame of numbers|str|object"),
        "a generator": ((row for row in x), "generator"),
        "None": (None, "None"),
        "a path": ("photo.png", "str|path"),
    }[kind]
    with pytest.raises((TypeError, ValueError), match=f"(?i){words}") as raised:
        made("gradient", mlp()).analyze(given)
    assert "dtype object" not in str(raised.value)


def test_a_sparse_tensor():
    x = samples((12,), 3)
    try:
        found = made("gradient", mlp()).analyze(tf.sparse.from_dense(x))
    except (TypeError, ValueError) as problem:
        assert "sparse" in str(problem).lower()
    else:
        agree(found, maps("gradient", mlp(), x))


def test_a_sparse_matrix_of_another_package():
    sparse = pytest.importorskip("scipy.sparse")
    x = samples((12,), 3)
    try:
        found = made("gradient", mlp()).analyze(sparse.csr_matrix(x))
    except (TypeError, ValueError) as problem:
        assert re.search("(?i)sparse|csr|toarray", str(problem))
    else:  # taken: then as what it stands for
        agree(found, maps("gradient", mlp(), x))


def test_numbers_of_every_dtype_give_the_same_map():
    x = np.random.default_rng(0).integers(0, 255, (4, 7, 6, 2)).astype("uint8")
    model = cnn()
    wanted = made("gradient", model).analyze(x.astype("float32"))
    for dtype in ("uint8", "int64", "float64", "float16"):
        agree(made("gradient", model).analyze(x.astype(dtype)), wanted)
    agree(made("gradient", model).analyze(tf.constant(x, "float32")), wanted)
    agree(made("gradient", model).analyze(x.tolist()), wanted)
