"""Analyzers by name: unknown ones, their options, files, and iNNvestigate's registry."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import mipin_keras
from mipin_keras import Analyzer, analyzers, create_analyzer, load_analyzer, options_of, registry
from tests.networks import NEEDED, cnn, residual, samples

X = samples((7, 6, 2), 40)


def smooth():
    """cnn with another activation than ReLU."""
    model = cnn()
    model.get_layer("conv").activation = keras.activations.elu
    return model


def two_heads():
    """cnn with a second output, whose weights are those of the first, moved by one class."""
    model = cnn()
    head = model.layers[-1]
    other = keras.layers.Dense(head.units, name="other")
    second = keras.Model(model.inputs, [model.outputs[0], other(head.input)])
    other.set_weights([np.roll(w, 1, axis=-1) for w in head.get_weights()])
    return second


def two_decisions():
    """cnn with a second output that decides otherwise: its head reads other features."""
    model = two_heads()
    model.get_layer("other").set_weights([np.roll(w, 7, axis=0) for w in model.get_layer("other").get_weights()])
    return model


# For each option another value than the default, and the options beside which it has something to say.
BASIC = {
    "neuron_selection_mode": ("all", {"classes": None}),
    "output_layer": ("flatten", {}),
    "output": (1, {"output": 0}, two_heads),
    "target": (2, {"classes": None, "neuron_selection_mode": "max_activation"}),
}
MIPIN = BASIC | {
    "input_layer": ("conv", {}),
    "classes": ([0], {}),
    "samples": ("class", {}),
    "ridge": (10.0, {}),
    "forward_relu": (False, {}),
    "mask_input": (True, {}),
    "conv_solver": ("trained", {"epochs": 1}),
    "epochs": (2, {"conv_solver": "trained"}),
    "finetune_epochs": (20, {"conv_solver": "closed_form"}),
    "rows": (200, {"conv_solver": "closed_form"}),
    "seed": (1, {"conv_solver": "closed_form", "rows": 200}),
    "merge": ("full", {}, residual),
    "verbose": (2, {}),
}
WALK = BASIC | {"input_layer": ("conv", {})}
# Their default refuses other activations than ReLU, so there is nothing to compare the other value with.
ANY = {"activations": ("any", {}, smooth)}
GRADIENT = WALK | {"postprocess": ("abs", {})}
HEAD = WALK | {"head": ("one", {})} | ANY
UNTIL = {"until_layer_rule": "Flat", "until_layer_idx": 0}
LRP = WALK | {
    "input_layer_rule": ((-10.0, 10.0), {}),
    "bn_layer_rule": ("Flat", {}, residual),
    "until_layer_idx": (3, UNTIL),
    "until_layer_rule": ("WSquare", UNTIL | {"until_layer_idx": 3}),
    "rules": ({"conv": "Flat", keras.layers.Dense: "Z"}, {"rules": {"conv": "WSquare"}}),
}
PRESET = LRP | {"epsilon": (1.0, {})}
FLAT = {key: value for key, value in PRESET.items() if key != "input_layer_rule"}
PATTERN = WALK | {"pattern_type": ("linear", {}), "verbose": (2, {})} | ANY
DEEP_TAYLOR = WALK | {"merge": ("share", {}, residual), "relu": ("drop", {"relu": "keep"}, residual)} | ANY

INFORMATION = {
    "output_layer": ("flatten", {}),
    "output": (1, {"output": 0}, two_decisions),
    "layer": ("conv", {}),
    "representation": ("conv", {"layer": "conv"}),
    "critic": ("concatenated", {}),
    "epochs": (3, {}),
    "learning_rate": (1e-2, {}),
    "mask_weight": (50.0, {"learning_rate": 1e-1, "epochs": 4}),
    "validation_split": (0.1, {}),
    "unit": ("bits", {}),
    "resize": (False, {}),
    "seed": (1, {}),
    "verbose": (2, {}),
}

OTHERS = {
    "mipin": MIPIN,
    "mipin.trained": MIPIN | {"conv_solver": ("closed_form", {"epochs": 1})},
    "gradient": GRADIENT,
    "input_t_gradient": GRADIENT,
    "integrated_gradients": WALK
    | {"postprocess": ("abs", {}), "steps": (3, {}), "reference_inputs": (1.0, {}), "riemann": ("right", {"steps": 8})},
    "smoothgrad": GRADIENT | {"augment_by_n": (3, {}), "noise": (0.5, {}), "seed": (1, {})},
    "deconvnet": HEAD,
    "guided_backprop": HEAD,
    "lrp": LRP | {"rule": ("Flat", {})},
    "lrp.z": LRP,
    "lrp.epsilon": LRP | {"epsilon": (1.0, {}), "bias": (False, {})},
    "lrp.w_square": LRP | {"bn_layer_rule": ("Epsilon", {}, residual)},
    "lrp.gamma": LRP | {"gamma": (1.0, {}), "bias": (False, {})},
    "lrp.epsilon_plus": PRESET,
    "lrp.epsilon_gamma_box": {key: value for key, value in FLAT.items() if key != "input_layer"}
    | {"low": (-20.0, {}), "high": (20.0, {}), "gamma": (1.0, {}, residual)},
    "lrp.flat": LRP
    | {"bn_layer_rule": ("Epsilon", {}, residual), "until_layer_idx": (3, UNTIL | {"until_layer_rule": "Z"})},
    "lrp.alpha_beta": LRP | {"alpha": (3.0, {}), "beta": (3.0, {"alpha": None, "beta": 1.0}), "bias": (False, {})},
    **{
        f"lrp.{name}": LRP
        for name in (
            "alpha_1_beta_0", "alpha_1_beta_0_IB", "alpha_2_beta_1", "alpha_2_beta_1_IB", "z_plus", "z_plus_fast",
        )
    },
    "lrp.sequential_preset_a": PRESET,
    "lrp.sequential_preset_b": PRESET,
    "lrp.sequential_preset_a_flat": FLAT,
    "lrp.sequential_preset_b_flat": FLAT,
    "lrp.sequential_preset_b_flat_until_idx": {
        key: value for key, value in FLAT.items() if key != "until_layer_rule"
    } | {"until_layer_idx": (3, {})},
    "deep_taylor": DEEP_TAYLOR,
    "deep_taylor.bounded": {key: value for key, value in DEEP_TAYLOR.items() if key != "input_layer"}
    | {"low": (-20.0, {}), "high": (20.0, {})},
    "pattern.net": PATTERN,
    "pattern.attribution": PATTERN,
    "grad_cam": BASIC | {"layer": ("pool", {}), "resize": (False, {})},
    "mi.total": INFORMATION,
    "mi.decision": INFORMATION,
    "mi.redundant": INFORMATION,
}  # fmt: skip
OURS = [name for name in analyzers() if not name.startswith("innvestigate:")]


KNOWN = {}


def maps(name, options, model=cnn):
    """The numbers that an analyzer gives with these options; made once."""
    key = repr((name, sorted(options.items()), model))
    if key not in KNOWN:
        KNOWN[key] = made(name, options, model)
    return KNOWN[key]


def second(logits):
    """A neuron selection: always the second, so that one class is enough to fit."""
    return 1


def made(name, options, model=cnn):
    defaults = {"verbose": 0, "epochs": 1, "classes": [1], "neuron_selection_mode": second}
    options = defaults | NEEDED.get(name, {}) | options
    analyzer = create_analyzer(name, model(), **{k: v for k, v in options.items() if k in options_of(name)}).fit(X)
    found = [analyzer.analyze(X)]
    return [*found, analyzer.source_signal(X)] if hasattr(analyzer, "source_signal") else found


def test_the_names():
    assert analyzers() == sorted(analyzers()) and {"mipin", "mipin.trained"} <= set(analyzers())
    assert all(issubclass(kind, Analyzer) and kind.name == name for name, kind in registry.ANALYZERS.items())
    assert type(create_analyzer("mipin", cnn())) is registry.ANALYZERS["mipin"]


@pytest.mark.parametrize(
    ("name", "hint"), [("mip-in", "mipin"), ("mipin.train", "mipin.trained"), ("nonsense", None), ("", None), (3, None)]
)
def test_an_unknown_name_is_refused_with_those_there_are(name, hint):
    for call in (lambda: create_analyzer(name, cnn()), lambda: options_of(name)):
        with pytest.raises(ValueError, match=r"name of an analyzer, one of \[.*'mipin'.*\], received") as refused:
            call()
        assert (f"did you mean {hint!r}?" in str(refused.value)) is (hint is not None)


@pytest.mark.parametrize("name", OURS)
def test_an_unknown_option_is_refused_with_those_there_are(name):
    problem = rf"options of '{name}', \[.*'output_layer'.*received 'lamda', 'zeta', which"
    with pytest.raises(TypeError, match=problem):
        create_analyzer(name, cnn(), zeta=1, lamda=3)


@pytest.mark.parametrize("name", OURS)
def test_the_options_are_those_of_all_bases_and_have_a_test(name):
    assert options_of(name) == sorted(OTHERS[name])


# What all of LRP's methods take is one class's: these try it, the others the options that are their own.
ALL_OPTIONS = ("lrp", "lrp.alpha_beta", "lrp.sequential_preset_a", "lrp.sequential_preset_b_flat_until_idx")


def tried(name, option):
    if name.startswith("mi."):  # one fit serves all three; the total does not depend on the mask
        of_mask = option in ("mask_weight", "output_layer", "output")
        return option != "verbose" and name == ("mi.decision" if of_mask else "mi.total")
    shared = name.startswith("lrp") and name not in ALL_OPTIONS and OTHERS[name][option] is LRP.get(option)
    return not shared and option != "verbose"


# Those of "mipin.trained" are "mipin"'s but for one default, and it takes longest.
CASES = [
    pytest.param(name, option, marks=pytest.mark.medium if name == "mipin.trained" and option != "epochs" else ())
    for name in OURS
    for option in OTHERS.get(name, {})
    if tried(name, option)
]


@pytest.mark.parametrize(("name", "option"), CASES)
@pytest.mark.few(32)
def test_every_option_changes_the_numbers_or_refuses(name, option):
    value, beside, *model = OTHERS[name][option]
    if option == "activations":
        with pytest.raises(ValueError, match="give activations='any' to"):
            maps(name, beside, *model)
        assert np.abs(maps(name, beside | {option: value}, *model)[0]).max() > 0
        return
    if option == "classes":
        with pytest.raises(mipin_keras.NotFittedError, match=r"classes \[1\]"):
            maps(name, beside | {option: value}, *model)
        return
    before, after = maps(name, beside, *model), maps(name, beside | {option: value}, *model)
    changed = [
        a.shape != b.shape or np.abs(a - b).max() > 1e-3 * np.abs(b).max() for a, b in zip(before, after, strict=True)
    ]
    assert any(changed)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.few(9)
def test_nothing_but_options_changes_the_numbers(name, capsys):
    """Made a second time, it gives the same numbers; what it says is verbose's."""
    wanted = maps(name, {})
    capsys.readouterr()
    for found, again in zip(wanted, made(name, {"verbose": 0}), strict=True):
        np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6 * np.abs(found).max())
    assert capsys.readouterr().out == ""
    if "verbose" in options_of(name):
        made(name, {"verbose": 2})
        assert name.split(".")[0] in capsys.readouterr().out


def test_positional_options_are_refused():
    with pytest.raises(TypeError, match="positional argument"):
        create_analyzer("mipin", cnn(), "index")


def test_the_model_is_checked():
    with pytest.raises(TypeError, match="Keras 3 model"):
        create_analyzer("mipin", "model.keras")


def test_load_analyzer_makes_the_analyzer_of_the_file(tmp_path):
    model = cnn()
    options = {"epochs": 1, "classes": [0, 1, 2], "seed": 5, "verbose": 0}
    one = create_analyzer("mipin.trained", model, **options).fit(X)
    other = load_analyzer(one.save(tmp_path / "fit.npz"), model)
    assert other.name == "mipin.trained" and {key: other.options[key] for key in options} == options
    np.testing.assert_array_equal(other.analyze(X), one.analyze(X))


# iNNvestigate


def test_without_innvestigate_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "innvestigate", None)
    monkeypatch.setitem(sys.modules, "innvestigate.analyzer", None)
    with pytest.raises(ImportError) as refused:
        mipin_keras.register_with_innvestigate()
    for part in (
        "pip install 'mipin-keras[innvestigate]'",
        "--no-deps --ignore-requires-python innvestigate==2.1.2",
        "TF_USE_LEGACY_KERAS=1",
    ):
        assert part in str(refused.value)


def test_an_innvestigate_that_cannot_be_imported_says_why(monkeypatch, tmp_path):
    (tmp_path / "innvestigate").mkdir()
    (tmp_path / "innvestigate" / "__init__.py").write_text("raise AttributeError('no LocallyConnected1D')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "innvestigate"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="AttributeError: no LocallyConnected1D"):
        mipin_keras.register_with_innvestigate()


def test_names_of_innvestigate_stay_its_own(monkeypatch):
    theirs = {"gradient": int, "mipin": str}
    package, module = type(sys)("innvestigate"), type(sys)("innvestigate.analyzer")
    module.analyzers = theirs
    monkeypatch.setitem(sys.modules, "innvestigate", package)
    monkeypatch.setitem(sys.modules, "innvestigate.analyzer", module)
    added = mipin_keras.register_with_innvestigate()
    assert added == [name for name in OURS if name not in ("gradient", "mipin")]
    assert theirs["mipin"] is str and theirs["gradient"] is int
    assert theirs["mipin.trained"] is registry.ANALYZERS["mipin.trained"]
    assert mipin_keras.register_with_innvestigate() == []


THROUGH_INNVESTIGATE = """
import json
import keras
import numpy as np
import mipin_keras
added = mipin_keras.register_with_innvestigate()
import innvestigate
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")])
x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
one = innvestigate.create_analyzer("mipin", model, verbose=0)
one.fit(x)
other = mipin_keras.create_analyzer("mipin", model, verbose=0).fit(x)
print(json.dumps({
    "added": added,
    "again": mipin_keras.register_with_innvestigate(),
    "same": bool((one.analyze(x) == other.analyze(x)).all()),
    "some": bool(one.analyze(x).any()),
    "keras": keras.__version__,
}))
"""


@pytest.mark.medium
def test_the_real_innvestigate_makes_our_analyzers():
    if importlib.util.find_spec("innvestigate") is None or importlib.util.find_spec("tf_keras") is None:
        pytest.skip("innvestigate and tf_keras are not installed")
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_INNVESTIGATE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"mipin", "mipin.trained"} <= set(found["added"]) and found["again"] == []
    assert found["same"] and found["some"] and found["keras"].startswith("3.")
