"""Each example runs, on little, and shows what it says it shows."""

import keras
import numpy as np
import pytest
from matplotlib.image import imread

pytest.importorskip("sklearn", reason="the examples take their digits from scikit-learn")

from sklearn.datasets import load_digits  # noqa: E402

import mipin_keras  # noqa: E402
from examples import demo, explain_a_model, own_layer, residual_network  # noqa: E402
from mipin_keras.metrics import completeness  # noqa: E402


@pytest.mark.medium
def test_explain_a_model(tmp_path, capsys, monkeypatch):
    models = []
    fit = keras.Sequential.fit
    monkeypatch.setattr(
        keras.Sequential, "fit", lambda self, *args, **kw: models.append(self) or fit(self, *args, **kw)
    )
    attribution = explain_a_model.main(tmp_path, epochs=1, samples=100, verbose=0)
    # The file that it saves explains the first six test digits as it does, and is as complete as it prints.
    analyzer = mipin_keras.load_analyzer(tmp_path / "fit.npz", models[0])
    chosen = (load_digits().images[1500:1506, ..., None] / 16).astype("float32")
    np.testing.assert_allclose(analyzer.analyze(chosen), attribution, rtol=1e-5, atol=1e-7)
    printed = capsys.readouterr().out
    x = (load_digits().images[1500:, ..., None] / 16).astype("float32")
    assert str(completeness(analyzer, x)) in printed
    picture = imread(tmp_path / "explain_a_model.png")
    assert picture[..., :3].min() < 0.1 and picture.shape[1] > 1.5 * picture.shape[0] > 300  # six columns, three rows


def test_own_layer(monkeypatch):
    explained = []
    monkeypatch.setattr(
        own_layer, "completeness", lambda analyzer, x: explained.append((analyzer, x)) or completeness(analyzer, x)
    )
    found = own_layer.main(epochs=1, verbose=0)
    assert found.samples == 297 and 0 < found.apc < 50
    # The inverse is exact: all is as for the network behind the layer, explained on standardized digits, but for units.
    (analyzer, x) = explained[0]
    x, (standardize, *rest) = x[:20], analyzer.model.layers
    train = load_digits().images[:1500].astype("float32")
    behind = mipin_keras.create_analyzer("mipin", keras.Sequential([keras.Input((8, 8)), *rest]), verbose=0)
    behind.fit(np.asarray(standardize(train)), batch_size=128)
    signal, attribution = (f(np.asarray(standardize(x))) for f in (behind.source_signal, behind.analyze))
    deviation, mean = standardize.deviation, standardize.mean
    np.testing.assert_allclose(analyzer.source_signal(x), signal * deviation + mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(analyzer.analyze(x), attribution * deviation, rtol=1e-3, atol=1e-3)


@pytest.mark.medium
def test_residual_network(tmp_path, capsys):
    maps = residual_network.main(tmp_path, epochs=1, samples=60, verbose=1)
    assert all(found.shape == (10, 8, 8) and found.any() for found in maps.values()) and len(maps) == 2
    assert imread(tmp_path / "residual_network.png").ndim == 3 and "going on" not in capsys.readouterr().out
    again = residual_network.main(tmp_path, epochs=1, samples=60, verbose=1)  # all is learned already
    assert "going on from" in capsys.readouterr().out
    assert all(np.array_equal(again[name], found) for name, found in maps.items())


def small_mlp():
    """The demo's network with 24 instead of 512 units a layer."""
    layers = keras.layers
    hidden = [layers.Dense(24, activation="relu"), layers.Dense(24, activation="relu")]
    return keras.Sequential([keras.Input((28, 28)), layers.Flatten(), *hidden, layers.Dense(10, activation="softmax")])


@pytest.mark.medium
def test_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "mlp_m", small_mlp)
    results = demo.run(tmp_path, epochs=5, samples=1000, verbose=0)
    out = capsys.readouterr().out
    assert list(results) == list(demo.VARIANTS)
    assert all(found.samples == 360 and found.undefined == 0 for found in results.values())
    for name, found in results.items():
        (line,) = (line for line in out.splitlines() if line.startswith(name + "  "))
        assert f"{found.apc:.1f} %" in line and f"{found.positive_apc:.1f} %" in line
    assert "accuracy on 360 test images" in out
    others = imread(tmp_path / "methods.png")
    assert others.shape[0] > 0.9 * others.shape[1] > 500
    picture = imread(tmp_path / "demo.png")
    # Ten columns and five rows, and colours in it: red and blue.
    assert picture.shape[1] > 1.5 * picture.shape[0] > 500
    red, green, blue = np.moveaxis(picture[..., :3], -1, 0)
    assert ((red > 0.9) & (green < 0.1) & (blue < 0.1)).any() and ((blue > 0.9) & (green < 0.1) & (red < 0.1)).any()


def test_the_demo_takes_the_digits_that_come_with_scikit_learn():
    data = demo.digits()
    assert data.x_train.shape == (1437, 28, 28) and data.x_test.shape == (360, 28, 28)
    assert data.x_train.dtype == np.float32
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    again = demo.digits()
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))
