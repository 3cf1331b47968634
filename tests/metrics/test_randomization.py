"""Randomised copies: which weights change and how they are drawn; similarities against closed forms and brute force."""

import random

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.metrics import cascading, independent, similarity
from mipin_keras.saving.fingerprint import fingerprint
from tests.networks import cnn, residual, samples, with_weights

L = keras.layers


def weights(model):
    return [w.copy() for w in model.get_weights()]


def changed(before, after):
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


# Similarities


def brute_ranks(values):
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("shape", [(3, 40), (3, 12, 13), (3, 12, 13, 2)])
def test_equal_maps_and_opposite_maps(rng, shape):
    a = rng.normal(size=shape)
    same, opposite = similarity(a, 7 * a), similarity(a, -a)
    for found in (same, opposite):
        assert found.constant.tolist() == [False] * 3
        np.testing.assert_allclose(found.spearman_absolute, 1)
        np.testing.assert_allclose(found.cosine_absolute, 1)
    np.testing.assert_allclose(same.spearman, 1)
    np.testing.assert_allclose(same.cosine, 1)
    np.testing.assert_allclose(opposite.spearman, -1)
    np.testing.assert_allclose(opposite.cosine, -1)
    if len(shape) == 2:
        assert same.ssim is None
    else:
        np.testing.assert_allclose(same.ssim, 1, atol=1e-6)
        assert (opposite.ssim < 0).all()


def test_independent_noise_scores_zero(rng):
    found = similarity(rng.normal(size=(20, 64, 64)), rng.normal(size=(20, 64, 64)))
    for values in (found.spearman, found.spearman_absolute, found.ssim, found.cosine):
        assert values.shape == (20,) and np.abs(values).max() < 0.08
    # the mean size of a normal number is not 0: (E|z|)² / E[z²]
    np.testing.assert_allclose(found.cosine_absolute, 2 / np.pi, atol=0.03)


def test_ranks_are_those_of_brute_force_ties_included(rng):
    a, b = rng.integers(-3, 4, (6, 30)), rng.integers(-3, 4, (6, 30))
    found = similarity(a, b)
    for i in range(6):
        assert found.spearman[i] == pytest.approx(np.corrcoef(brute_ranks(a[i]), brute_ranks(b[i]))[0, 1])
        wanted = np.corrcoef(brute_ranks(np.abs(a[i])), brute_ranks(np.abs(b[i])))[0, 1]
        assert found.spearman_absolute[i] == pytest.approx(wanted)


def test_any_rising_function_keeps_the_ranks(rng):
    a = rng.normal(size=(4, 50))
    found = similarity(a, np.exp(a))
    np.testing.assert_allclose(found.spearman, 1)
    assert (found.cosine < 0.9).all()


def test_a_pair_is_judged_by_itself(rng):
    a, b = rng.uniform(size=(5, 16, 16)), rng.uniform(size=(5, 16, 16))
    b[3] -= 0.5  # the only one with negative values: the others stay on the scale from 0
    together = similarity(a, b)
    for i in range(5):
        alone = similarity(a[i : i + 1], b[i : i + 1])
        for found, wanted in zip(together[:-1], alone[:-1], strict=True):
            assert found[i] == pytest.approx(wanted[0], abs=1e-6)


def test_the_scale_of_a_map_does_not_matter(rng):
    a, b = rng.normal(size=(2, 12, 12)), rng.normal(size=(2, 12, 12))
    for found, wanted in zip(similarity(1e-30 * a, b)[:-1], similarity(a, 1e30 * b)[:-1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_constant_maps_are_counted_and_correlate_with_nothing(rng):
    a = rng.normal(size=(4, 12, 12))
    b = np.stack([a[0], np.zeros((12, 12)), np.ones((12, 12)), np.sign(a[3])])
    found = similarity(a, b)
    assert found.constant.tolist() == [False, True, True, True]
    assert found.spearman[[1, 2]].tolist() == [0, 0] and found.spearman[3] > 0.5
    assert found.spearman_absolute[1:].tolist() == [0, 0, 0]
    assert found.cosine[1] == 0 and abs(found.cosine[2]) > 0
    assert all(np.isfinite(values).all() for values in found[:-1])
    both = similarity(np.zeros((1, 12, 12)), np.zeros((1, 12, 12)))
    assert (both.spearman[0], both.cosine[0], both.constant[0]) == (0, 0, True)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"one shape, received \(2, 3\) and \(2, 4\)"),
        (np.zeros(3), np.zeros(3), r"first of shape \(n, \.\.\.\), .* received shape \(3,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"at least one map, received shape \(0, 3\)"),
        ([[1.0, np.nan]], [[1.0, 2.0]], "first to be finite.*1 of 1 maps"),
        ([[1.0, 1.0]], [[1j, 2.0]], "second to be real"),
    ],
)
def test_what_similarity_refuses(first, second, message):
    with pytest.raises(ValueError, match=message):
        similarity(first, second)


# Randomised copies


def test_cascading_goes_down_and_leaves_the_model_alone():
    model = residual()
    before, stages = weights(model), []
    owner = [v.path.split("/")[0] for v in model.weights]
    for name, copy in cascading(model):
        stages.append(name)
        assert copy is not model
        moved = {own for own, is_new in zip(owner, changed(before, copy.get_weights()), strict=True) if is_new}
        assert moved == set(stages)
    assert stages == ["head", "conv2", "bn", "conv"]
    assert not any(changed(before, model.get_weights()))


def test_independent_takes_one_layer_at_a_time():
    model = residual()
    before, stages = weights(model), []
    owner = [v.path.split("/")[0] for v in model.weights]
    cascaded = {}
    for name, copy in cascading(model):
        cascaded[name] = copy.get_layer(name).get_weights()
    for name, copy in independent(model):
        stages.append(name)
        moved = {own for own, is_new in zip(owner, changed(before, copy.get_weights()), strict=True) if is_new}
        assert moved == {name}
        assert not any(changed(copy.get_layer(name).get_weights(), cascaded[name]))
    assert stages == ["head", "conv2", "bn", "conv"]
    assert not any(changed(before, copy.get_weights()))
    assert not any(changed(before, model.get_weights()))


def test_the_copy_keeps_the_weights_first():
    model = residual()
    graph = ModelGraph(model)
    _, copy = next(iter(cascading(model, layers=["head"])))
    copy.get_layer("head").set_weights(model.get_layer("head").get_weights())
    assert fingerprint(ModelGraph(copy)) == fingerprint(graph)


def test_a_normalisation_is_as_new():
    for name, copy in cascading(residual(), layers=["bn"]):
        assert name == "bn"
        gamma, beta, mean, variance = copy.get_layer("bn").get_weights()
        for values, start in ((gamma, 1), (beta, 0), (mean, 0), (variance, 1)):
            np.testing.assert_array_equal(values, np.full_like(values, start))


def test_weights_are_drawn_by_the_layers_own_initialisers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            L.Conv2D(64, 3, kernel_initializer="he_normal", bias_initializer="ones", name="he"),
            L.SeparableConv2D(32, 3, name="separable"),
            L.Flatten(),
            L.Dense(200, kernel_initializer=keras.initializers.RandomUniform(3.0, 5.0, seed=1), name="uniform"),
            L.Dense(4, kernel_initializer=keras.initializers.Orthogonal(seed=1), name="orthogonal"),
        ]
    )
    *_, (_, copy) = cascading(with_weights(model), seed=4)
    kernel, bias = copy.get_layer("he").get_weights()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.03) and (bias == 1).all()
    depthwise, pointwise, bias = copy.get_layer("separable").get_weights()
    for drawn in (depthwise, pointwise):  # Glorot's, uniform
        height, width, inputs, outputs = drawn.shape
        limit = np.sqrt(6 / (height * width * (inputs + outputs)))
        assert 0.9 * limit < np.abs(drawn).max() <= limit
    kernel, _ = copy.get_layer("uniform").get_weights()
    assert 3 <= kernel.min() < 3.01 and 4.99 < kernel.max() <= 5 and kernel.mean() == pytest.approx(4, abs=0.01)
    kernel, _ = copy.get_layer("orthogonal").get_weights()
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)


def test_an_initialisers_own_seed_does_not_bring_the_old_weights_back():
    model = keras.Sequential(
        [keras.Input((6,))]
        + [L.Dense(6, kernel_initializer=keras.initializers.GlorotNormal(seed=3), name=name) for name in "ab"]
    )
    assert np.array_equal(model.get_layer("a").get_weights()[0], model.get_layer("b").get_weights()[0])
    *_, (_, copy) = cascading(model)
    a, b = (copy.get_layer(name).get_weights()[0] for name in "ab")
    assert not np.array_equal(a, b)
    for layer, drawn in (("a", a), ("b", b)):
        assert not np.isclose(model.get_layer(layer).get_weights()[0], drawn).any()


def test_seeds():
    model = cnn()

    def drawn(seed):
        *_, (_, copy) = cascading(model, seed=seed)
        return copy.get_weights()

    keras.utils.set_random_seed(1)
    first, state = drawn(0), random.getstate()
    keras.utils.set_random_seed(2)
    assert not any(changed(first, drawn(0)))
    assert changed(first, drawn(1)) == [w.ndim > 1 for w in first]
    random.setstate(state)
    drawn(3)
    assert random.getstate() == state


def test_a_layers_weights_do_not_depend_on_which_others_are_randomised():
    model = cnn()
    *_, (_, whole) = cascading(model)
    ((name, alone),) = cascading(model, layers=["conv"])
    assert name == "conv"
    assert not any(changed(whole.get_layer("conv").get_weights(), alone.get_layer("conv").get_weights()))
    assert not any(changed(model.get_layer("head").get_weights(), alone.get_layer("head").get_weights()))


def test_shared_layers_and_nested_models():
    inner_input = keras.Input((6,))
    inner = keras.Model(inner_input, L.Dense(6, activation="relu", name="deep")(inner_input), name="inner")
    shared, x = L.Dense(6, activation="relu", name="shared"), keras.Input((6,))
    y = shared(inner(L.Dense(6, name="first")(x)))
    y = L.Dense(6, name="between")(y)
    model = with_weights(keras.Model(x, L.Dense(3, name="head")(inner(shared(y)))))
    before = weights(model)
    stages = []
    for name, copy in cascading(model):
        stages.append((name, sum(changed(before, copy.get_weights()))))
    # each with its kernel and its bias, once; where it stands nearest to the output
    assert stages == [("head", 2), ("inner/deep", 4), ("shared", 6), ("between", 8), ("first", 10)]
    assert not any(changed(before, model.get_weights()))


def test_what_would_not_change_is_left_out_and_said():
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, kernel_initializer="ones", name="same"), L.BatchNormalization(name="new"),
         L.Dense(2, name="head")]
    )  # fmt: skip
    with pytest.warns(UserWarning, match="received '(same|new)', whose weights are those .* left out") as told:
        stages = [name for name, _ in cascading(model)]
    assert stages == ["head"] and sum("left out" in str(one.message) for one in told) == 2
    with pytest.warns(UserWarning):
        assert [name for name, _ in independent(model)] == ["head"]


@pytest.mark.parametrize("walk", [cascading, independent])
def test_what_is_refused(walk):
    with pytest.raises(ValueError, match=r"at least one of \['head', 'conv'\], received \['pool'\]"):
        walk(cnn(), layers=["head", "pool"])
    with pytest.raises(ValueError, match="received none"):
        walk(cnn(), layers=[])
    with pytest.raises(ValueError, match="seed"):
        walk(cnn(), seed=-1)
    with pytest.raises(ValueError, match="not built"):
        walk(keras.Sequential([L.Dense(2)]))
    with pytest.raises(ValueError, match="received none"):
        walk(keras.Sequential([keras.Input((4, 4)), L.Flatten()]))


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "lrp.epsilon", "pattern.attribution", "mipin"])
@pytest.mark.few(2)
def test_an_analyzer_of_the_copy_explains_it_as_it_has_become(name):
    model = cnn()
    x = samples(model.input_shape[1:], 6)
    learned = name in ("pattern.attribution", "mipin")
    kept, maps = None, []
    for _, copy in cascading(model):
        options = {"neuron_selection_mode": "index"} | ({"verbose": 0} if learned else {})
        fresh = mipin_keras.create_analyzer(name, copy, **options)
        kept = kept or mipin_keras.create_analyzer(name, copy, **options)
        if learned:
            fresh.fit(x)
            kept.fit(x)
        maps.append(kept.analyze(x, 1))
        np.testing.assert_array_equal(maps[-1], fresh.analyze(x, 1))
    assert not np.allclose(*maps)
