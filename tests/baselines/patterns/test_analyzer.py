"""PatternNet and PatternAttribution against iNNvestigate 1.0.9's numbers, and NumPy's covariances and walks."""

import itertools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras import NotFittedError, create_analyzer, load_analyzer
from tests.networks import close, cnn, mlp, residual, samples, with_weights
from tests.reference import axis_windows, pool, transposed_design, unpool_max

L = keras.layers
METHODS = ["pattern.net", "pattern.attribution"]
TYPES = ["relu", "linear", "relu.negative"]


def made(name, model, **options):
    return create_analyzer(name, model, **({"verbose": 0} | options))


# iNNvestigate 1.0.9

NUMBERS = pathlib.Path(__file__).resolve().parents[4] / "shared" / "references" / "pattern-innvestigate-1.0.9.npz"
NETWORKS = {
    "mlp": ((20,), lambda: [L.Dense(16, activation="relu"), L.Dense(12, activation="relu"), L.Dense(4)]),
    "cnn": ((10, 10, 2), lambda: [
        L.Conv2D(6, 3, activation="relu"), L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(2), L.Flatten(),
        L.Dense(12, activation="relu"), L.Dense(4)]),
    "strided": ((12, 12, 3), lambda: [
        L.Conv2D(6, 4, strides=2, padding="same", activation="relu"),
        L.Conv2D(8, 3, padding="same", activation="relu"), L.MaxPooling2D(3, 2), L.Flatten(), L.Dense(5)]),
}  # fmt: skip


@pytest.mark.skipif(not NUMBERS.exists(), reason=f"iNNvestigate 1.0.9's numbers are not there: {NUMBERS}")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["relu", "linear"])
@pytest.mark.few(2)
def test_patterns_and_maps_are_innvestigates(network, kind):
    shape, layers = NETWORKS[network]
    model = keras.Sequential([keras.Input(shape), *layers()])
    with np.load(NUMBERS) as file:
        known = {key.removeprefix(f"{network}__"): file[key] for key in file.files if key.startswith(f"{network}__")}
    model.set_weights([known[f"weight{i}"] for i in range(len(model.weights))])
    x = known["x"]
    assert close(model(x[:8]), known["logits"], 1e-5)
    patterns = made("pattern.net", model, pattern_type=kind).fit(x).patterns
    assert len(patterns) == len(model.weights) // 2
    for method in METHODS:
        for i, pattern in enumerate(patterns.values()):
            assert close(pattern, known[f"{method}__{kind}__pattern{i}"], 1e-4)
        analyzer = made(method, model, pattern_type=kind)
        analyzer.patterns = patterns  # that both find the same is a test below
        assert close(analyzer.analyze(x[:8]), known[f"{method}__{kind}"], 1e-4)


# NumPy's covariances


def windows(layer, x):
    """What each output position of a layer reads: (n, *positions, *kernel size, channels), float64."""
    x = np.asarray(x, np.float64)
    if isinstance(layer, L.Dense):
        return x
    rank = len(layer.kernel_size)
    starts, pads = [], [(0, 0)]
    for n, k, s, d in zip(x.shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True):
        span = d * (k - 1) + 1
        out = -(-n // s) if layer.padding in ("same", "causal") else (n - span) // s + 1
        need = max((out - 1) * s + span - n, 0)
        low = {"valid": 0, "causal": span - 1, "same": need // 2}[layer.padding]
        pads.append((low, max(need - low, 0)))
        starts.append(range(0, out * s, s))
    padded = np.pad(x, [*pads, (0, 0)])
    found = np.empty((len(x), *map(len, starts), *layer.kernel_size, x.shape[-1]))
    for at in itertools.product(*(range(len(axis)) for axis in starts)):
        corner = [axis[i] for axis, i in zip(starts, at, strict=True)]
        for element in itertools.product(*map(range, layer.kernel_size)):
            where = tuple(corner[i] + element[i] * layer.dilation_rate[i] for i in range(rank))
            found[(slice(None), *at, *element)] = padded[(slice(None), *where)]
    return found


def neurons(layer, x):
    """For each neuron: its output channel, what it reads, as rows (samples and positions), and its kernel's entries."""
    kernel = np.asarray(layer.kernel, np.float64)
    every = np.arange(kernel.size).reshape(kernel.shape)
    if isinstance(layer, L.Conv1DTranspose | L.Conv2DTranspose | L.Conv3DTranspose):
        sizes = [int(n) for n in layer.compute_output_shape(x.shape)[1:-1]]
        geometry = (sizes, layer.strides, layer.dilation_rate, layer.padding)
        design = transposed_design(x.reshape(len(x), -1), kernel.shape, *geometry)
        design = design.reshape(len(x), *sizes, kernel.shape[-2], kernel.size)
        axes = [axis_windows(n, k, s, d, layer.padding) for n, k, s, d in zip(
            sizes, layer.kernel_size, *geometry[1:3], strict=True)]  # fmt: skip
        # along each axis, which phase of the stride an output is in: that of the entries that it reads
        phases = [{at: k % s for window in axis for k, at in enumerate(window) if at is not None}
                  for axis, s in zip(axes, layer.strides, strict=True)]  # fmt: skip
        for phase in itertools.product(*map(range, layer.strides)):
            at = [[o for o in axis if axis[o] == p] for axis, p in zip(phases, phase, strict=True)]
            for unit in range(kernel.shape[-2]):
                where = every[tuple(slice(p, None, s) for p, s in zip(phase, layer.strides, strict=True))][..., unit, :]
                rows = design[np.ix_(range(len(x)), *at, [unit], where.ravel())]
                if where.size and rows.size:
                    yield unit, rows.reshape(-1, where.size), where.ravel()
        return
    found = windows(layer, x)
    if isinstance(layer, L.DepthwiseConv1D | L.DepthwiseConv2D):
        for channel, multiple in itertools.product(*map(range, kernel.shape[-2:])):
            where = every[..., channel, multiple].ravel()
            yield channel * kernel.shape[-1] + multiple, found[..., channel].reshape(-1, where.size), where
        return
    depth, units = kernel.shape[-2:]
    groups = found.shape[-1] // depth
    for unit in range(units):
        group = unit // (units // groups)
        part = found[..., group * depth : (group + 1) * depth]
        where = every[..., unit].ravel()
        yield unit, part.reshape(-1, where.size), where


def pattern_of(rows, w, bias, kind):
    """``a = cov / (wᵀ cov)`` with ``cov = E₊[x y] - E₊[x] E[y]``, two-pass in float64; 0 where there is none."""
    y = rows @ w
    mask = {"relu": y + bias > 0, "relu.negative": y + bias <= 0, "linear": np.ones(len(y), bool)}[kind]
    if not mask.any():
        return np.zeros_like(w)
    covariance = (rows[mask] * (y[mask] - y.mean())[:, None]).mean(axis=0)
    along = w @ covariance
    return covariance / along if along else np.zeros_like(w)


def numpys(layer, x, kind):
    """The patterns of a layer's neurons, of its kernel's shape."""
    kernel = np.asarray(layer.kernel, np.float64)
    pattern = np.zeros(kernel.size)
    for unit, rows, where in neurons(layer, x):
        bias = np.float64(layer.bias[unit]) if layer.use_bias else 0.0
        pattern[where] = pattern_of(rows, kernel.ravel()[where], bias, kind)
    return pattern.reshape(kernel.shape)


LAYERS = {
    "dense": ((9,), lambda: L.Dense(7, activation="relu")),
    "dense without bias": ((9,), lambda: L.Dense(7, use_bias=False)),
    "dense over time": ((4, 5), lambda: L.Dense(6, activation="relu")),
    "valid": ((6, 5, 3), lambda: L.Conv2D(5, (3, 2), activation="relu")),
    "same": ((6, 5, 3), lambda: L.Conv2D(5, 3, padding="same", activation="relu")),
    "same strides": ((7, 6, 2), lambda: L.Conv2D(4, (4, 3), strides=(2, 3), padding="same", activation="relu")),
    "valid strides": ((7, 6, 2), lambda: L.Conv2D(4, 2, strides=(3, 2), activation="relu")),
    "groups": ((5, 5, 4), lambda: L.Conv2D(6, 2, groups=2, activation="relu")),
    "dilation": ((7, 6, 2), lambda: L.Conv2D(4, 2, dilation_rate=(3, 2), padding="same", activation="relu")),
    "causal": ((8, 3), lambda: L.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="relu")),
    "depthwise": ((6, 5, 3), lambda: L.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same", activation="relu")),
    "depthwise strides": ((8, 3), lambda: L.DepthwiseConv1D(3, 2, padding="valid", depth_multiplier=2)),
    "transposed": ((4, 3, 3), lambda: L.Conv2DTranspose(4, (3, 2), activation="relu")),
    "transposed same": ((5, 3), lambda: L.Conv1DTranspose(4, 3, padding="same", dilation_rate=2, activation="relu")),
    "transposed strides": ((4, 3, 2), lambda: L.Conv2DTranspose(3, (3, 4), (2, 3), padding="same", activation="relu")),
    "transposed by itself": ((5, 2), lambda: L.Conv1DTranspose(3, 2, strides=2, activation="relu")),
    "volume": ((4, 3, 4, 2), lambda: L.Conv3D(3, 2, strides=(1, 1, 2), activation="relu")),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "relu") for name in LAYERS),
        *itertools.product(
            ["dense", "same strides", "groups", "causal", "depthwise", "transposed strides"],
            ["linear", "relu.negative"],
        ),
    ],
)
@pytest.mark.few(8)
def test_patterns_are_numpys_covariances(name, kind, rng):
    shape, make = LAYERS[name]
    layer = make()
    model = with_weights(keras.Sequential([keras.Input(shape), layer, L.Flatten(), L.Dense(3)]))
    x = rng.normal(size=(90, *shape)).astype("float32")
    found = made("pattern.net", model, pattern_type=kind).fit(x, batch_size=37).patterns[0]
    wanted = numpys(layer, x, kind)
    assert found.dtype == np.float32 and found.shape == tuple(layer.kernel.shape) and wanted.any()
    assert close(found, wanted, 1e-4)
    # along its weights each live neuron's pattern is 1
    for _, _, where in neurons(layer, x[:1]):
        if wanted.ravel()[where].any():
            assert abs(np.asarray(layer.kernel, np.float64).ravel()[where] @ found.ravel()[where] - 1) < 1e-4


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(9,), (5, 4, 3)])
def test_data_far_from_0_keeps_its_digits(kind, shape):
    layer = L.Dense(6) if len(shape) == 1 else L.Conv2D(4, 2)
    model = with_weights(keras.Sequential([keras.Input(shape), layer, L.Flatten(), L.Dense(2)]))
    rng = np.random.default_rng(4)
    x = (100 + rng.normal(size=(400, *shape))).astype("float32")
    kernel = np.asarray(layer.kernel)
    # every unit is active in about half of the samples
    layer.bias.assign(-100 * kernel.reshape(-1, kernel.shape[-1]).sum(axis=0) + 0.01)
    wanted = numpys(layer, x, kind)
    for batch_size in (400, 64):
        found = made("pattern.net", model, pattern_type=kind).fit(x, batch_size=batch_size).patterns[0]
        assert close(found, wanted, 2e-3)


def deep():
    return with_weights(keras.Sequential([
        keras.Input((7, 6, 2)), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2),
        L.Conv2D(5, 2, padding="same", activation="relu"), L.Flatten(), L.Dense(6, activation="relu"), L.Dense(3),
    ]))  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_every_layer_of_a_deep_model_has_the_pattern_of_what_it_reads(kind):
    model = deep()
    x = samples((7, 6, 2), 120)
    analyzer = made("pattern.attribution", model, pattern_type=kind).fit(x)
    learned = [layer for layer in model.layers if isinstance(layer, L.Dense | L.Conv2D)]
    assert len(analyzer.patterns) == len(learned) == 4
    other = made("pattern.net", model, pattern_type=kind).fit(x)
    assert all((other.patterns[index] == pattern).all() for index, pattern in analyzer.patterns.items())
    for layer, pattern in zip(learned, analyzer.patterns.values(), strict=True):
        trace = np.asarray(keras.Model(model.inputs, layer.input)([x]))
        assert close(pattern, numpys(layer, trace, kind), 5e-4)


def test_a_shared_layer_has_one_pattern_for_each_call():
    x = keras.Input((6,))
    layer = L.Dense(6, activation="relu")
    first = layer(x)
    model = with_weights(keras.Model(x, L.Dense(2)(layer(first))))
    data = samples((6,), 80)
    patterns = list(made("pattern.net", model).fit(data).patterns.values())
    assert close(patterns[0], numpys(layer, data, "relu"), 1e-4)
    assert close(patterns[1], numpys(layer, np.asarray(layer(data)), "relu"), 1e-4)


@pytest.mark.parametrize("source", ["batch 1", "batch 17", "memmap", "dataset", "generator", "function"])
def test_the_source_and_its_batches_make_no_difference(source, tmp_path):
    model = cnn()
    x = samples((7, 6, 2), 70)
    wanted = made("pattern.net", model).fit(x).patterns
    analyzer = made("pattern.net", model)
    if source.startswith("batch"):
        analyzer.fit(x, batch_size=int(source.split()[1]))
    elif source == "memmap":
        mapped = np.memmap(tmp_path / "x.dat", np.float32, "w+", shape=x.shape)
        mapped[:] = x
        analyzer.fit(mapped, batch_size=16)
    elif source == "dataset":
        analyzer.fit(tf.data.Dataset.from_tensor_slices((x, np.zeros(70))).batch(9))
    else:

        def batches():
            yield from itertools.chain((x[i : i + 10] for i in range(0, 70, 10)), itertools.repeat(x[:10]))

        if source == "generator":
            assert analyzer.fit(batches(), steps=7) is analyzer
        else:
            analyzer.fit_generator(batches, steps=7)
    assert analyzer.patterns.keys() == wanted.keys()
    for index, pattern in wanted.items():
        assert close(analyzer.patterns[index], pattern, 1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "bias"), [("relu", -1e3), ("relu.negative", 1e3)])
def test_a_unit_without_samples_has_a_pattern_of_zeros(method, kind, bias):
    model = mlp()
    kernel, biases = model.layers[0].get_weights()
    biases[:4] = bias
    kernel[:, 5] = 0
    model.layers[0].set_weights([kernel, biases])
    x = samples((12,), 60)
    analyzer = made(method, model, pattern_type=kind).fit(x)
    pattern = analyzer.patterns[0]
    assert not pattern[:, :4].any() and not pattern[:, 5].any() and pattern[:, 6:].any()
    assert np.isfinite(analyzer.analyze(x)).all()
    if kind == "relu.negative":  # the same from NumPy, whose other units count
        assert close(pattern, numpys(model.layers[0], x, kind), 1e-4)


# The walk


def scattered(layer, signal, kernel, x):
    """The transpose of the layer's linear part with ``kernel``, by a loop over all windows."""
    if isinstance(layer, L.Dense):
        return signal @ kernel.T
    # which input element each window's entry is: the window of the elements' numbers, padding 0
    numbers = np.arange(1.0, 1 + x[0].size).reshape(1, *x.shape[1:])
    at = windows(layer, numbers)[0].astype(int).reshape(*signal.shape[1:-1], -1)
    back = np.zeros((len(x), 1 + x[0].size))
    flat = kernel.reshape(-1, kernel.shape[-1])
    for position in itertools.product(*map(range, signal.shape[1:-1])):
        np.add.at(back.T, at[position], (signal[(slice(None), *position)] @ flat.T).T)
    return back[:, 1:].reshape(x.shape)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "kind"), [(mlp, "relu"), (mlp, "linear"), (deep, "relu"), (deep, "relu.negative")])
@pytest.mark.few(2)
def test_the_walk_is_numpys(method, kind, make):
    model = make()
    x = samples(model.input_shape[1:], 60)
    analyzer = made(method, model, pattern_type=kind).fit(x)
    assert close(analyzer.analyze(x[:6]), walked(model, analyzer.patterns, x[:6], method), 1e-4)


def walked(model, patterns, x, method):
    """The map by NumPy: patterns, or patterns times weights, in place of the weights; max pooling to the largest."""
    patterns = [np.float64(pattern) for pattern in patterns.values()]
    a, kept = np.float64(x), []
    for layer in model.layers:
        before = a
        if isinstance(layer, L.MaxPooling2D):
            a = pool(a, (2, 2), (2, 2), "valid")
        elif isinstance(layer, L.Flatten):
            a = a.reshape(len(a), -1)
        else:
            kernel, bias = (np.float64(w) for w in layer.get_weights())
            read = windows(layer, a)
            a = np.tensordot(read, kernel, kernel.ndim - 1) + bias
            z, a = a, np.maximum(a, 0) if layer.activation is keras.activations.relu else a
        kept.append((layer, before, None if isinstance(layer, L.MaxPooling2D | L.Flatten) else z))
    assert close(a, model(x), 1e-4)
    signal = a * np.eye(a.shape[1])[a.argmax(axis=1)]
    for layer, before, z in reversed(kept):
        if isinstance(layer, L.MaxPooling2D):
            signal = unpool_max(before, signal, (2, 2), (2, 2), "valid")
        elif isinstance(layer, L.Flatten):
            signal = signal.reshape(before.shape)
        else:
            if layer.activation is keras.activations.relu:
                signal = signal * (z > 0)
            kernel, pattern = np.float64(layer.get_weights()[0]), patterns.pop()
            signal = scattered(layer, signal, pattern * kernel if method == "pattern.attribution" else pattern, before)
    return signal


def test_on_a_linear_model_patternnet_shows_the_signal_and_not_the_distractor(rng):
    """The example of the paper's section 2: x = a s + d e, y = s."""
    signal, noise = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    s, e = rng.normal(size=(2, 5000, 1))
    x = (s * signal + e * noise).astype("float32")
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[1], [-1]])])
    analyzer = made("pattern.net", model, pattern_type="linear").fit(x)
    np.testing.assert_allclose(analyzer.patterns[0].ravel(), [1, 0], atol=0.05)
    np.testing.assert_allclose(analyzer.analyze(x), s * signal, atol=0.25)


# Sums


def broadcast(x):
    return [L.Dense(3)(x), L.Reshape((1, 3))(L.Dense(3)(L.GlobalAveragePooling1D()(x)))]


MERGES = {
    "add": (lambda x: [L.Dense(3)(x), L.Dense(3)(x)], L.Add, [1, 1]),
    "add of three": (lambda x: [L.Dense(3)(x), L.Dense(3)(x), x], L.Add, [1, 1, 1]),
    "average": (lambda x: [L.Dense(3)(x), x], L.Average, [0.5, 0.5]),
    "subtract": (lambda x: [L.Dense(3)(x), x], L.Subtract, [1, -1]),
    "twice": (lambda x: [L.Dense(3)(x), x, x], L.Add, [1, 2]),
    "average of twice": (lambda x: [x, L.Dense(3)(x), x], L.Average, [2 / 3, 1 / 3]),
    "broadcast": (broadcast, L.Add, [1, 1]),
    "operation": (lambda x: [L.Dense(3)(x), x], lambda name: lambda two: two[0] - two[1], [1, -1]),
}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "relu") for name in MERGES), ("subtract", "linear"), ("twice", "relu.negative")]
)
@pytest.mark.few(3)
def test_a_sum_is_a_neuron_a_channel(name, kind):
    parts, merge, weights = MERGES[name]
    x = keras.Input((5, 3))
    tensors = parts(x)
    y = merge(name="merge")(tensors)
    model = with_weights(keras.Model(x, L.Dense(2)(L.Flatten()(L.ReLU()(y)))))
    data = samples((5, 3), 60) - 0.5
    analyzer = made("pattern.net", model, pattern_type=kind).fit(data, batch_size=17)
    (step,) = [s for s in analyzer.learned if not s.linear]
    found, different = analyzer.patterns[step.index], list({id(t): t for t in tensors}.values())
    trace = [np.asarray(t, np.float64) for t in keras.Model(x, different)(data)]
    rows = np.stack([np.broadcast_to(one, (60, 5, 3)) for one in trace], axis=-1)
    wanted = np.stack([pattern_of(rows[:, :, c].reshape(300, -1), np.float64(weights), 0.0, kind) for c in range(3)], 1)
    assert found.shape == wanted.shape and close(found, wanted, 1e-4)
    np.testing.assert_allclose(np.asarray(weights) @ found, 1, rtol=1e-4)
    if name in ("add", "average of twice"):
        return
    # the walk through it: the pattern, or the pattern times the weight, summed over what was broadcast
    for method, factor in (("pattern.net", found), ("pattern.attribution", found * np.float64(weights)[:, None])):
        end = made(method, model, pattern_type=kind, input_layer=step.name).fit(data).analyze(data)
        for k, tensor in enumerate(different):
            layer = tensor._keras_history.operation.name
            if tensor is not x:  # which others read too
                back = end * factor[k]
                back = back.sum(axis=1, keepdims=True) if tensor.shape[1] == 1 else back
                below = made(method, model, pattern_type=kind, input_layer=layer).fit(data).analyze(data)
                assert close(below, back, 1e-4)


def test_tensors_of_other_axes_have_no_pattern():
    x = keras.Input((3, 4))
    y = L.Add(name="odd")([x, L.Dense(4)(L.GlobalAveragePooling1D()(x))])
    with pytest.raises(ValueError, match="defined for, received layer 'odd' .Add."):
        made("pattern.net", keras.Model(x, L.Dense(2)(L.Flatten()(y))))


# Neurons that read one number


def scaled(layer):
    x = keras.Input((4, 5, 3))
    y = L.Conv2D(3, 2, activation="relu", name="below")(x)
    return with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(layer(y)))))


FACTORS = {
    "batch normalisation": (L.BatchNormalization, lambda layer, x: np.divide(
        layer.gamma, np.sqrt(np.float64(layer.moving_variance) + layer.epsilon))),
    "rescaling": (lambda name: L.Rescaling([0.5, -2, 3.0], 1.0, name=name), lambda layer, x: np.array([0.5, -2, 3.0])),
    "normalization": (lambda name: L.Normalization(mean=[1.0, 2, 3], variance=[4.0, 9, 16], name=name),
                      lambda layer, x: 1 / np.array([2.0, 3, 4])),
    "layer normalisation": (L.LayerNormalization, lambda layer, x: np.float64(layer.gamma) / np.sqrt(
        x.var(axis=-1, keepdims=True) + layer.epsilon)),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORS)
def test_a_neuron_that_reads_one_number_has_its_reciprocal(name):
    make, factor = FACTORS[name]
    model = scaled(make(name="scale"))
    layer = model.get_layer("scale")
    if hasattr(layer, "gamma"):
        gamma = np.asarray(layer.gamma).copy()
        gamma[1] = 0
        layer.gamma.assign(gamma)
    data = samples((4, 5, 3), 50)
    below = np.asarray(keras.Model(model.inputs, model.get_layer("below").output)([data]), np.float64)
    w = np.broadcast_to(factor(layer, below), below.shape)
    for method in METHODS:
        above, found = (
            made(method, model, input_layer=end).fit(data).analyze(data) for end in ("scale", "below")
        )
        wanted = above * (np.divide(1, w, out=np.zeros(w.shape), where=w != 0) if method == "pattern.net" else w != 0)
        assert above.any() and close(found, wanted, 1e-4)


def test_a_sum_over_axes_behind_a_scaling_is_the_mean():
    x = keras.Input((4, 3))
    y = L.Dense(5, activation="relu")(x)
    head, found = L.Dense(2), []
    for z in (L.GlobalAveragePooling1D()(y), L.Rescaling(0.25)(keras.ops.sum(y, axis=1))):
        model = keras.Model(x, head(z))
        analyzer = made("pattern.attribution", with_weights(model)).fit(samples((4, 3), 40))
        found.append(analyzer.analyze(samples((4, 3), 9)))
    assert found[0].any() and close(found[1], found[0], 1e-5)


# Gates


def gated():
    """Squeeze and excitation: "gate" says how much of each channel of "body" passes."""
    x = keras.Input((5, 4, 3))
    y = L.Conv2D(4, 2, activation="relu", name="body")(x)
    z = L.Dense(2, activation="swish", name="squeeze")(L.GlobalAveragePooling2D(keepdims=True)(y))
    z = L.Dense(4, activation="sigmoid", name="gate")(z)
    y = L.Multiply(name="gated")([y, z])
    return with_weights(keras.Model(x, L.Dense(3, name="head")(L.Flatten()(y))))


@pytest.mark.parametrize("method", METHODS)
def test_a_gate_is_like_the_mask_of_a_relu_and_gets_no_signal(method):
    model = gated()  # whose swish no signal reaches, so that nobody asks for its rule
    data = samples((5, 4, 3), 50)
    analyzer = made(method, model).fit(data)
    assert [s.name for s in analyzer.learned] == ["body", "head"]
    found = analyzer.analyze_layers(data)
    gate = np.asarray(keras.Model(model.inputs, model.get_layer("gate").output)([data]))
    assert found["gated"].attribution.any()
    assert close(found["body"].attribution, found["gated"].attribution * gate, 1e-5)
    assert not found["gate"].attribution.any() and not found["squeeze"].attribution.any()
    for layer in ("gate", "squeeze"):
        with pytest.raises(ValueError, match="another way than through gates"):
            made(method, model, input_layer=layer)


def test_a_product_without_a_gate_is_refused():
    x = keras.Input((6,))
    y = L.Multiply(name="odd")([L.Dense(4)(x), L.Dense(4)(x)])
    with pytest.raises(ValueError, match="defined for, received layer 'odd' .Multiply."):
        made("pattern.net", keras.Model(x, L.Dense(2)(y)))


# Other activations


@pytest.mark.parametrize("method", METHODS)
def test_any_activation_takes_its_gradient(method):
    model = mlp(hidden=(10,), activation="tanh")
    x = samples((12,), 60)
    with pytest.raises(ValueError, match="'dense1/tanh' .*; give activations='any' to take the gradient .*; for this"):
        made(method, model)
    analyzer = made(method, model, activations="any", neuron_selection_mode="all").fit(x)
    first, second = analyzer.patterns.values()
    if method == "pattern.attribution":
        first, second = (a * np.asarray(layer.kernel) for a, layer in zip((first, second), model.layers, strict=True))
    hidden, logits = (np.float64(t) for t in keras.Model(model.inputs, [model.layers[0].output, *model.outputs])([x]))
    assert close(analyzer.analyze(x), (logits @ second.T * (1 - hidden**2)) @ first.T, 1e-4)
    named = made(method, mlp(), activations="any").fit(x)  # and a ReLU is what it was
    np.testing.assert_array_equal(named.analyze(x), made(method, mlp()).fit(x).analyze(x))


# Dropout, Concatenate and other layers of structure


@pytest.mark.parametrize("method", METHODS)
def test_layers_without_weights_let_the_signal_through(method):
    """The same network with a padding, a Dropout and a mean over a window, and without."""

    def network(padded):
        x = keras.Input((6, 6, 2))
        y = L.ZeroPadding2D(1)(L.Dropout(0.4)(x)) if padded else x
        y = L.Conv2D(3, 3, activation="relu", padding="valid" if padded else "same")(y)
        y = L.Concatenate()([y, L.Conv2D(2, 1)(y), y] if padded else [y, L.Conv2D(2, 1)(y), L.Identity()(y)])
        y = L.AveragePooling2D(6)(y) if padded else L.GlobalAveragePooling2D()(y)
        return with_weights(keras.Model(x, L.Dense(3)(L.Flatten()(y) if padded else y)))

    data = samples((6, 6, 2), 50)
    found, wanted = (made(method, network(padded)).fit(data).analyze(data[:5]) for padded in (True, False))
    assert wanted.any() and close(found, wanted, 1e-4)


# Fits


class Stopped(Exception):
    pass


@pytest.mark.parametrize("problem", [KeyboardInterrupt, Stopped, "nan", "early"])
def test_an_interrupted_fit_leaves_the_one_before(problem):
    model = mlp()
    x = samples((12,), 60)
    analyzer = made("pattern.net", model)

    def broken():
        yield x[:20]
        yield x[20:40] * 3
        if problem == "nan":
            yield np.full_like(x[:20], np.nan)
        if problem != "early":
            raise problem

    expected = problem if isinstance(problem, type) else ValueError
    said = {"nan": "received NaN or infinity", "early": "expected 3 batches a pass, received 2"}.get(problem)
    with pytest.raises(expected, match=said):
        analyzer.fit(broken(), steps=3)
    assert not analyzer.fitted and not analyzer.patterns
    analyzer.fit(x)
    before, maps = {k: v.copy() for k, v in analyzer.patterns.items()}, analyzer.analyze(x)
    with pytest.raises(expected, match=said):
        analyzer.fit(broken(), steps=3)
    assert analyzer.fitted and analyzer.patterns.keys() == before.keys()
    assert all((analyzer.patterns[k] == before[k]).all() for k in before)
    np.testing.assert_array_equal(analyzer.analyze(x), maps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["max_activation", "index"])
def test_another_fit_takes_the_place_of_the_first(method, mode, rng):
    model = mlp()
    x, other = samples((12,), 60), rng.normal(2, 1, (60, 12)).astype("float32")
    chosen = 1 if mode == "index" else None
    analyzer = made(method, model, neuron_selection_mode=mode).fit(x)
    first = analyzer.analyze(x, chosen)
    second = analyzer.fit(other).analyze(x, chosen)
    assert not close(second, first, 0.05)
    fresh = made(method, model, neuron_selection_mode=mode).fit(other)
    np.testing.assert_array_equal(second, fresh.analyze(x, chosen))
    np.testing.assert_array_equal(analyzer.fit(x).analyze(x, chosen), first)  # nothing adds up


@pytest.mark.parametrize("method", METHODS)
def test_other_weights_need_other_patterns(method):
    model = mlp()
    x = samples((12,), 60)
    analyzer = made(method, model).fit(x)
    before = analyzer.analyze(x)
    with_weights(model, 11)
    with pytest.raises(NotFittedError, match="weights have changed since the fit"):
        analyzer.analyze(x)
    assert not close(analyzer.fit(x).analyze(x), before, 0.05)
    assert close(analyzer.analyze(x), walked(model, analyzer.patterns, x, method), 1e-4)
    assert close(analyzer.fit(x).analyze(x), made(method, model).fit(x).analyze(x), 1e-6)
    assert close(analyzer.patterns[0], numpys(model.layers[0], x, "relu"), 1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_unfitted_it_neither_analyzes_nor_saves(method, tmp_path):
    analyzer = made(method, mlp())
    assert not analyzer.fitted
    for call in (lambda: analyzer.analyze(samples((12,), 3)), lambda: analyzer.save(tmp_path / "fit.npz")):
        with pytest.raises(NotFittedError, match=f"'{method}' analyzer, which is not fitted; call fit"):
            call()
    assert not list(tmp_path.iterdir())


def test_activations_that_are_not_finite_are_refused():
    model = mlp()
    weights = model.get_weights()
    weights[2][0] = np.nan
    model.set_weights(weights)
    with pytest.raises(ValueError, match="'dense2'.*finite activations.*received NaN or infinite"):
        made("pattern.net", model).fit(samples((12,), 40))


# Files


@pytest.mark.parametrize(("method", "kind"), list(zip(METHODS, ["relu", "linear"], strict=True)))
def test_a_file_gives_the_same_bits(method, kind, tmp_path):
    model = cnn()
    x = samples((7, 6, 2), 50)
    analyzer = made(method, model, pattern_type=kind).fit(x)
    loaded = load_analyzer(analyzer.save(tmp_path / "fit.npz"), model)
    assert loaded.pattern_type == kind and loaded.patterns.keys() == analyzer.patterns.keys()
    for index, pattern in analyzer.patterns.items():
        assert loaded.patterns[index].dtype == np.float32
        np.testing.assert_array_equal(loaded.patterns[index], pattern)
    np.testing.assert_array_equal(loaded.analyze(x), analyzer.analyze(x))
    refitted = made(method, model, pattern_type=kind).fit(x * 2 - 1)
    refitted.analyze(x)
    np.testing.assert_array_equal(refitted.load(tmp_path / "fit.npz").analyze(x), analyzer.analyze(x))


def test_a_file_of_another_model_method_or_type_is_refused(tmp_path):
    model = mlp()
    path = made("pattern.net", model).fit(samples((12,), 50)).save(tmp_path / "fit.npz")
    for other, message in (
        (made("pattern.net", mlp(hidden=(10, 7))), "another model"),
        (made("pattern.net", mlp(seed=4)), "another model, or to other weights"),
        (made("pattern.attribution", model), "expected a file of 'pattern.attribution'"),
        (made("pattern.net", model, pattern_type="linear"), "other options: pattern_type='relu' in the file, 'linear'"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load(path)
        assert not other.fitted


# Refused


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([L.Activation("tanh", name="odd")], "'odd' .Activation., tanh"),
        ([L.Dense(3, activation="tanh", name="odd")], "'odd/tanh'"),
        (
            [L.SpectralNormalization(L.Conv2D(2, 2), name="odd"), L.LeakyReLU(name="even")],
            "'odd' .SpectralNormalization., 'even' .LeakyReLU.",
        ),
    ],
)
def test_layers_without_a_pattern_are_refused_by_name(method, layers, named):
    model = keras.Sequential([keras.Input((5, 5, 2)), *layers, L.Flatten(), L.Dense(2, name="head")])
    with pytest.raises(ValueError, match=f"'{method}' expected layers that it is defined for, received layer {named}"):
        made(method, model)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"pattern_type": "Relu"}, "'Relu'"), ({"pattern_type": None}, "None"), ({"pattern_type": ["relu"]}, "'relu'"),
        ({"activations": "tanh"}, "'tanh'"), ({"activations": None}, "None"),
        ({"verbose": 3}, "3"), ({"verbose": True}, "True"), ({"verbose": None}, "None"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, shown):
    with pytest.raises(ValueError, match=f"expected {next(iter(options))} to be one of .*received .*{shown}"):
        made("pattern.net", mlp(), **options)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_verbose(verbose, capsys):
    x = samples((12,), 60)
    made("pattern.net", mlp(), verbose=verbose).fit(x)
    made_quiet = capsys.readouterr().out
    made("pattern.net", mlp(), verbose=0).fit(x, verbose=verbose)  # the fit's own comes first
    for printed in (made_quiet, capsys.readouterr().out):
        assert ("pattern.net: the patterns of 3 layers" in printed) == bool(verbose)
        assert ("2/2" in printed) == bool(verbose)
        assert verbose != 2 or printed.count("2/2") == 1
        assert bool(printed) == bool(verbose)
    analyzer = made("pattern.net", mlp(), verbose=verbose).fit(lambda: iter([x[:32], x[32:]]))  # of unknown length
    if verbose == 2:
        assert capsys.readouterr().out.count("2/2") == 1
        analyzer.analyze_class(lambda: iter([x[:32], x[32:]]), 0, verbose=2)
        assert capsys.readouterr().out.count("2/2") == 1
    with pytest.raises(ValueError, match="verbose to be one of"):
        made("pattern.net", mlp()).fit(x, verbose=5)


# Dtypes


def build(dtype, input_dtype=None):
    x = keras.Input((6, 6, 2), dtype=input_dtype)
    y = L.Flatten(dtype=dtype)(L.Conv2D(4, 3, activation="relu", dtype=dtype)(x))
    return with_weights(keras.Model(x, L.Dense(3, dtype=dtype)(y)))


@pytest.mark.parametrize("method", METHODS)
def test_a_float64_model(method):
    x = samples((6, 6, 2), 40)
    found = made(method, build("float64", "float64")).fit(x).analyze(x)
    assert found.dtype == np.float32 and close(found, made(method, build("float32")).fit(x).analyze(x), 1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_mixed_float16_model(method):
    x = samples((6, 6, 2), 40)
    found = made(method, build("mixed_float16")).fit(x).analyze(x)
    assert found.dtype == np.float32 and close(found, made(method, build("float32")).fit(x).analyze(x), 0.05)


def test_half_precision_models_sum_in_single_precision():
    layers = [L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3, dtype="float32")]
    found = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            copies = [type(layer).from_config(layer.get_config() | {"dtype": policy}) for layer in layers[:-1]]
        finally:
            keras.config.set_dtype_policy("float32")
        model = with_weights(keras.Sequential([keras.Input((28, 28, 1)), *copies, L.Dense(3)]))
        x = 4 * np.random.default_rng(0).random((128, 28, 28, 1), np.float32)
        found[policy] = create_analyzer("pattern.net", model, verbose=0).fit(x, batch_size=128).patterns
    one, other = found["float32"], found["mixed_float16"]
    assert all(np.isfinite(pattern).all() for pattern in other.values())
    first, first_half = next(iter(one.values())), next(iter(other.values()))
    assert np.abs(first - first_half).max() < 0.01 * np.abs(first).max()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_weights_is_refused(method):
    model = keras.Sequential([keras.Input((4, 4, 2)), L.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="with Dense layers or convolutions, received one without"):
        create_analyzer(method, model)


def alike(width, layers=18):
    """Dense layers whose neurons all read much the same, so that their patterns add up to ``width`` a layer."""
    rng = np.random.default_rng(0)
    dense = [keras.layers.Dense(width, "relu", name=f"dense{i}") for i in range(layers)]
    model = keras.Sequential([keras.Input((6,)), *dense, keras.layers.Dense(2, name="head")])
    weights = [rng.random(w.shape) for w in model.get_weights()]
    model.set_weights([w / w.sum(axis=0) if w.ndim == 2 else 0.01 * w for w in weights])
    return model


def test_a_signal_beyond_float32_is_damped(tmp_path):
    model, x = alike(256), samples((6,), 30)
    analyzer = create_analyzer("pattern.net", model, verbose=0).fit(x)
    assert analyzer.exponents[analyzer.graph.input] > 128
    activations = [x.astype(np.float64)]
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        z = activations[-1] @ kernel + bias
        activations.append(np.maximum(z, 0) if layer.name != "head" else z)
    signal = activations[-1] * np.eye(2)[activations[-1].argmax(axis=1)]
    for step, y in zip(reversed([s for s in analyzer.graph.steps if s.linear]), activations[::-1], strict=False):
        signal = (signal * (y != 0)) @ analyzer.patterns[step.index].T.astype(np.float64)
    assert np.abs(signal).max() > np.finfo(np.float32).max
    found = analyzer.analyze(x)
    assert close(found, signal * 2.0 ** -analyzer.exponents[analyzer.graph.input], 1e-4)
    np.testing.assert_array_equal(load_analyzer(analyzer.save(tmp_path / "fit.npz"), model).analyze(x), found)
    assert create_analyzer("pattern.net", alike(8), verbose=0).fit(x).exponents == {}


@pytest.mark.parametrize("name", METHODS)
def test_what_meets_is_damped_alike(name, monkeypatch):
    model, x = residual(), samples((7, 6, 2), 30)
    plain = create_analyzer(name, model, verbose=0).fit(x)
    monkeypatch.setattr("mipin_keras.baselines.patterns.damping.LARGEST_EXPONENT", -1)
    damped = create_analyzer(name, model, verbose=0).fit(x)
    assert len(set(damped.exponents.values())) > 2
    for layer, entry in plain.analyze_layers(x, layers=["conv", "relu", "pool"]).items():
        exponents = damped.exponents[damped.graph.tensor_after(layer)]
        found = damped.analyze_layers(x, layers=[layer])[layer].attribution
        assert close(found, entry.attribution * 2.0**-exponents, 1e-5)
    assert close(damped.analyze(x), plain.analyze(x) * 2.0 ** -damped.exponents[damped.graph.input], 1e-5)


def test_samples_beyond_float32_are_refused():
    model, x = alike(40), samples((6,), 30)
    analyzer = create_analyzer("pattern.net", model, verbose=0).fit(x)
    assert analyzer.exponents == {}
    with pytest.raises(ValueError, match="samples whose signal the patterns carry beyond the range"):
        analyzer.analyze(x * 1e15)
