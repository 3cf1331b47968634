"""What every analyzer in the catalogue keeps to. That each option changes the numbers is in test_catalogue.py."""

import inspect

import keras
import numpy as np
import pytest

from mipin_keras import NotFittedError, analyzers, create_analyzer, load_analyzer, registry
from tests.networks import NEEDED, close, cnn, mlp, residual, samples

# Options that keep a fit short, where an analyzer has them.
QUICK = {"epochs": 1, "verbose": 0}
MODELS = {"mlp": lambda: mlp(head="softmax"), "cnn": cnn, "residual": residual}
# What a method is not made for, which is a test of its own.
NOT_FOR = {
    "grad_cam": ["mlp"],
}
OURS = [name for name in analyzers() if not name.startswith("innvestigate:")]
CASES = [(name, kind) for name in OURS for kind in MODELS if kind not in NOT_FOR.get(name, ())]


def made(name, model, **options):
    quick = {key: value for key, value in QUICK.items() if key in registry.options_of(name)}
    return create_analyzer(name, model, **(quick | NEEDED.get(name, {}) | options))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    """A fitted analyzer, inputs, and its maps of them."""
    name, kind = request.param
    model = MODELS[kind]()
    x = samples(model.input_shape[1:], 40)
    weights, layers = model.get_weights(), model.to_json()
    analyzer = made(name, model).fit(x)
    found = analyzer.analyze(x)
    return analyzer, x, found, weights, layers


def test_maps_are_float32_finite_and_like_the_input(case):
    analyzer, x, found, _, _ = case
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == x.shape
    assert np.isfinite(found).all() and found.std() > 0
    assert analyzer.fitted


def test_one_sample_alone_in_a_batch_and_in_another_order(case):
    analyzer, x, found, _, _ = case
    assert close(np.concatenate([analyzer.analyze(x[[i]]) for i in range(10)]), found[:10], 1e-5)
    assert close(analyzer.analyze(x[::-1]), found[::-1], 1e-5)
    assert close(analyzer.analyze(x, batch_size=7), found, 1e-5)


def test_the_model_and_the_input_stay_as_they_are(case):
    analyzer, x, _, weights, layers = case
    assert all((a == b).all() for a, b in zip(weights, analyzer.model.get_weights(), strict=True))
    assert analyzer.model.to_json() == layers
    before = x.copy()
    x.flags.writeable = False
    try:
        analyzer.analyze(x)
    finally:
        x.flags.writeable = True
    np.testing.assert_array_equal(x, before)


def test_saved_and_loaded_it_gives_the_same_bits(case, tmp_path):
    analyzer, x, found, _, _ = case
    loaded = load_analyzer(analyzer.save(tmp_path / "fit.npz"), analyzer.model)
    assert type(loaded) is type(analyzer) and loaded.options == analyzer.options
    np.testing.assert_array_equal(loaded.analyze(x), found)


def test_index_gives_what_max_activation_picks_and_neurons_differ(case, tmp_path):
    analyzer, x, found, _, _ = case
    path = analyzer.save(tmp_path / "fit.npz")
    by_index = load_analyzer(path, analyzer.model, neuron_selection_mode="index")
    assert close(by_index.analyze(x, analyzer.logits(x).argmax(axis=1)), found, 1e-5)
    assert not close(by_index.analyze(x, 0), by_index.analyze(x, 1), 1e-3)
    every = load_analyzer(path, analyzer.model, neuron_selection_mode="all").analyze(x)
    assert every.shape == x.shape and np.isfinite(every).all()


def test_another_fit_gives_the_same(case):
    analyzer, x, found, _, _ = case
    assert close(made(analyzer.name, analyzer.model).fit(x).analyze(x), found, 1e-5)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in NOT_FOR.items() for kind in kinds])
def test_a_model_that_a_method_is_not_made_for_is_refused_at_once(name, kind):
    with pytest.raises(ValueError, match="input_layer=|for this model take|take 'gradient'"):
        made(name, MODELS[kind]())


@pytest.mark.parametrize("mode", ["index", "all"])
def test_several_neurons_at_once_sum_up(case, tmp_path, mode):
    """Every neuron by itself and all of them: linear methods add up; each gives one map a neuron."""
    analyzer, x, _, _, _ = case
    few = x[:6]
    made_so = load_analyzer(analyzer.save(tmp_path / "fit.npz"), analyzer.model, neuron_selection_mode=mode)
    if mode == "all":
        assert made_so.analyze(few).shape == few.shape
        return
    units = analyzer.graph.neurons
    single = [made_so.analyze(few, unit) for unit in range(units)]
    assert close(made_so.analyze(few, [i % units for i in range(6)]), [single[i % units][i] for i in range(6)], 1e-5)
    for wrong in (-1, units, [0, 1], "0", 1.0, None):
        with pytest.raises(ValueError, match="expected|needs neuron_selection"):
            made_so.analyze(few, wrong)


# What keeps nothing of the layers on its way, and says so.
NO_LAYERS = {"grad_cam", "integrated_gradients", "smoothgrad"}


@pytest.fixture(scope="module", params=OURS)
def once(request):
    """A fitted analyzer of one model, and inputs: enough for what all share."""
    model = cnn()
    x = samples((7, 6, 2), 40)
    return made(request.param, model).fit(x), x[:9]


def test_a_map_is_reduced_to_pixels(once):
    analyzer, x = once
    found = analyzer.analyze(x, reduce="relu_mean", batch_size=4)
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == x.shape[:-1]
    assert close(found, np.maximum(analyzer.analyze(x), 0).mean(axis=-1), 1e-5)
    with pytest.raises(ValueError, match="expected reduce to be one of"):
        analyzer.analyze(x, reduce="best")


def test_layers_on_the_way(once):
    analyzer, x = once
    if analyzer.name in NO_LAYERS:
        with pytest.raises(NotImplementedError, match=f"'{analyzer.name}' .*take"):
            analyzer.analyze_layers(x)
        return
    found = analyzer.analyze_layers(x, batch_size=4)
    first, *others = found
    assert others == ["conv", "pool", "flatten"]
    for name, entry in found.items():
        shape = analyzer.graph.shapes[analyzer.graph.tensor_after(name)]
        for part in entry:
            if part is not None:
                assert type(part) is np.ndarray and part.dtype == np.float32 and part.shape == (9, *shape)
                assert np.isfinite(part).all() and part.std() > 0
    assert close(found[first].attribution, analyzer.analyze(x), 1e-5)
    if "input_layer" in registry.options_of(analyzer.name):
        alone = made(analyzer.name, analyzer.model, input_layer="pool").fit(samples((7, 6, 2), 40)).analyze(x)
        assert close(found["pool"].attribution, alone, 1e-5)


def test_a_class_over_a_data_set(once, tmp_path):
    analyzer, x = once
    found = analyzer.analyze_class(x, 1, batch_size=4)
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == x.shape[1:]
    by_index = load_analyzer(analyzer.save(tmp_path / "fit.npz"), analyzer.model, neuron_selection_mode="index")
    assert found.std() > 0 and close(found, by_index.analyze(x, 1).mean(axis=0, dtype=np.float64), 1e-5)
    with pytest.raises(ValueError, match="expected neuron"):
        analyzer.analyze_class(x, 3)


@pytest.mark.parametrize("name", OURS)
def test_bad_input_is_refused(name):
    model = cnn()
    x = samples((7, 6, 2), 10)
    for make in (
        lambda: made(name, "model"),
        lambda: made(name, keras.Sequential([keras.layers.Dense(2)])),
        lambda: made(name, model, output_layer="nowhere"),
        lambda: made(name, model, neuron_selection_mode="best"),
    ):
        with pytest.raises((TypeError, ValueError), match="expected|not built"):
            make()
    analyzer = made(name, model)
    if not analyzer.fitted:
        for call in (analyzer.analyze, lambda x: analyzer.analyze_class(x, 0)):
            with pytest.raises(NotFittedError, match="not fitted"):
                call(x)
        with pytest.raises(ValueError, match="expected"):
            analyzer.fit(x[:, 1:])
        assert not analyzer.fitted and analyzer.fit(x) is analyzer
    for bad in (x[0], x[:0], x[..., :1], x.astype(str), np.full_like(x, np.nan)):
        with pytest.raises((TypeError, ValueError), match="expected"):
            analyzer.analyze(bad)
    with pytest.raises(ValueError, match="neuron_selection is only for"):
        analyzer.analyze(x, 0)


@pytest.mark.parametrize("name", OURS)
def test_what_is_public_is_documented(name):
    kind = registry.ANALYZERS[name]
    assert inspect.getdoc(kind)
    for method in ("fit", "fit_generator", "analyze", "analyze_layers", "analyze_class", "save", "load", "logits"):
        assert inspect.getdoc(getattr(kind, method)), method
