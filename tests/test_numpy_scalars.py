"""NumPy's integers, floats and booleans are taken wherever Python's are, and mean the same."""

import numpy as np
import pytest

from mipin_keras import create_analyzer, load_analyzer, options_of
from mipin_keras.baselines.lrp import Epsilon, Gamma
from tests.networks import NEEDED, close, cnn, samples

CASES = [
    ("mipin", {"classes": np.array([0, 1, 2]), "rows": np.int64(300), "seed": np.uint8(3), "ridge": np.float32(0.5)}),
    ("mipin", {"classes": np.int32(1), "forward_relu": np.bool_(False), "neuron_selection_mode": "index"}),
    ("mipin.trained", {"epochs": np.int16(1), "verbose": np.int64(0)}),
    ("integrated_gradients", {"steps": np.int64(3), "reference_inputs": np.float32(0.5)}),
    ("smoothgrad", {"augment_by_n": np.int64(3), "noise": np.float64(0.5), "seed": np.int64(1)}),
    ("lrp", {"rule": Epsilon(np.float32(0.5), np.bool_(True)), "rules": {"conv": Gamma(np.float64(0.5))}}),
    ("lrp.epsilon", {"epsilon": np.float32(0.5), "bias": np.bool_(False)}),
    ("lrp.gamma", {"gamma": np.int64(1), "bias": np.bool_(False)}),
    ("lrp.alpha_beta", {"alpha": np.float32(2.0), "bias": np.bool_(False)}),
    ("lrp.sequential_preset_b_flat_until_idx", {"until_layer_idx": np.int64(3)}),
    ("lrp.epsilon_gamma_box", {"low": np.float32(-10), "high": np.float64(10), "gamma": np.float32(0.5)}),
    ("pattern.net", {"verbose": np.int64(0)}),
    ("grad_cam", {"resize": np.bool_(False)}),
]


def plain(value):
    """The same as Python has it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.few(4)
def test_options_and_arguments(name, options, tmp_path):
    model, x = cnn(), samples((7, 6, 2), 24)
    quiet = {"verbose": 0, "classes": [0, 1, 2], "epochs": 1, "neuron_selection_mode": "index"} | NEEDED.get(name, {})
    quiet = {key: value for key, value in quiet.items() if key in options_of(name)}
    found = create_analyzer(name, model, **(quiet | options)).fit(x, np.int64(8))
    wanted = create_analyzer(name, model, **(quiet | {key: plain(value) for key, value in options.items()})).fit(x, 8)
    assert found.options == wanted.options
    maps = wanted.analyze(x[:4], 1, batch_size=4)
    np.testing.assert_array_equal(found.analyze(x[:4], np.int32(1), batch_size=np.int64(4)), maps)
    assert close(found.analyze(x[:4], np.full(4, 1, np.uint8), memory=np.float32(1)), maps, 1e-6)  # in other batches
    np.testing.assert_array_equal(found.analyze_class(x, np.int64(1)), wanted.analyze_class(x, 1))
    loaded = load_analyzer(found.save(tmp_path / "fit.npz"), model)
    assert close(loaded.analyze(x[:4], 1), maps, 1e-6)


@pytest.mark.parametrize("wrong", [np.bool_(True), np.float32(1.0), np.int64(-1), np.int64(3)])
def test_what_is_no_neuron_is_refused_as_pythons_is(wrong):
    analyzer = create_analyzer("gradient", cnn(), neuron_selection_mode="index")
    with pytest.raises(ValueError, match="expected (neurons from 0 to 2|integers as neuron_selection)"):
        analyzer.analyze(samples((7, 6, 2), 2), wrong)
    with pytest.raises(ValueError, match="expected neuron to be an int from 0 to 2, received"):
        analyzer.analyze_class(samples((7, 6, 2), 2), wrong)
