"""Replicas: shares of the rows, sums over hosts, and hosts that fail."""

import os
import re
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.data import distribute
from mipin_keras.data.distribute import Replicas, device_key, per_device
from tests.data import worker

HERE = "tests.data.test_distribute"


def toy():
    """A float64 model, so that the size of a batch does not show in its rounding."""
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="float64"),
            keras.layers.Dense(4, activation="tanh", dtype="float64", name="hidden"),
            keras.layers.Dense(3, dtype="float64"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def batches():
    """Seven batches of 1 to 7 rows."""
    rng = np.random.default_rng(2)
    return [3.0 + rng.standard_normal((n, 5)) for n in (5, 4, 7, 1, 3, 2, 6)]


def expected():
    """The sums in NumPy: Gram, sums, rows."""
    hidden, bias, head, offset = toy().get_weights()
    features = np.tanh(np.concatenate(batches()) @ hidden + bias) @ head + offset
    return features.T @ features, features.sum(axis=0), len(features)


def streamed(together, model):
    """The same sums by a fit in small: a traced pass a device, NumPy sums, one total."""
    traces = {}

    def forward(x):
        def trace():
            def call(rows):
                return model(rows), tf.identity(model.get_layer("hidden").kernel)

            spec = tf.TensorSpec((None, 5), tf.float64)
            return tf.function(call, input_signature=[spec], autograph=False).get_concrete_function()

        y, _ = per_device(traces, "forward", trace)(tf.convert_to_tensor(x))
        return y.numpy(), y.device

    gram, sums, rows, devices = np.zeros((3, 3)), np.zeros(3), 0, set()
    for i, x in enumerate(batches()):
        if together.mine(i):
            for y, device in together.run(forward, x):
                gram, sums, rows = gram + y.T @ y, sums + y.sum(axis=0), rows + len(y)
                devices.add(device)
    return together.total([gram, sums, rows], "the sums of the toy"), devices, traces


def test_without_a_strategy_all_is_a_plain_call(rng):
    alone = Replicas()
    assert (alone.count, alone.hosts, alone.host, alone.chief) == (1, 1, 0, True)
    assert alone.mine(0) and alone.mine(3)
    x = rng.random((4, 2))
    ((given, none, key, thread),) = alone.run(lambda a, b: (a, b, device_key(), threading.current_thread()), x, None)
    assert given is x and none is None and key == "" and thread is threading.current_thread()
    assert alone.each(lambda a, b: a + b, [(1, 2), (3, 4)]) == [3, 7]
    (same,) = alone.total([x])
    assert same is x
    (number,) = alone.total([np.float32(2)])
    assert number.dtype == np.float64
    alone.agree("anything", "at all")
    with pytest.raises(KeyError), alone.together():
        raise KeyError("as it is")


def test_one_device_of_a_strategy_gets_all_rows(rng):
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.OneDeviceStrategy("CPU:0")):
        with strategy.scope():
            one = Replicas()
        assert (one.count, one.hosts, one.chief) == (1, 1, True)
        x = rng.random((3, 2))
        ((given, key),) = one.run(lambda a: (a, device_key()), x)
        np.testing.assert_array_equal(given, x)
        assert key.endswith("CPU:0") and device_key() == ""


def test_other_strategies_are_refused_by_name():
    central = tf.distribute.experimental.CentralStorageStrategy(compute_devices=["CPU:0"], parameter_device="CPU:0")
    others = {
        "CentralStorageStrategy": central,
        # Neither can be made without its cluster.
        "TPUStrategy": object.__new__(tf.distribute.TPUStrategy),
        "ParameterServerStrategy": object.__new__(tf.distribute.ParameterServerStrategy),
    }
    for name, strategy in others.items():
        with pytest.raises(TypeError, match=f"expected a MirroredStrategy.*received {name}"):
            Replicas(strategy)


def test_one_replica_alone_cannot_fit():
    with pytest.raises(RuntimeError, match="inside of strategy.run"):
        tf.distribute.MirroredStrategy(["CPU:0"]).run(Replicas)


@pytest.mark.parametrize(
    ("spec", "task", "position"),
    [
        ({}, (None, None), (1, 0)),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), (2, 1)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"], "evaluator": ["d:1"]}, ("chief", 0), (3, 0)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"], "evaluator": ["d:1"]}, ("worker", 1), (3, 2)),
        ({"worker": ["a:1"], "evaluator": ["d:1"]}, ("evaluator", 0), None),
    ],
)
@pytest.mark.few(2)
def test_the_position_of_a_process_in_its_cluster(spec, task, position):
    cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(spec), task_type=task[0], task_id=task[1]
    )
    if position:
        assert distribute._position(cluster) == position
    else:
        with pytest.raises(ValueError, match="to be a chief or worker of its TF_CONFIG, received"):
            distribute._position(cluster)


def on_two_devices(strategy):
    """A job: the toy's sums with a model of the strategy and with a plain one; how rows are split; errors."""
    found = {}
    plain = toy()
    with strategy.scope():
        together = Replicas()
        mirrored = toy()
    assert (together.count, together.hosts, together.chief) == (2, 1, True)
    for name, model in (("mirrored", mirrored), ("plain", plain)):
        sums, devices, traces = streamed(together, model)
        found.update(zip((f"{name} gram", f"{name} sums", f"{name} rows"), sums, strict=True))
        assert {device[-5:] for device in devices} == {"CPU:0", "CPU:1"}
        assert [key[-5:] for _, key in sorted(traces)] == ["CPU:0", "CPU:1"]
        read = {key[-5:]: {t.device[-5:] for t in traced.captured_inputs} for (_, key), traced in traces.items()}
        # A device reads its own copy of the strategy's variables; a plain variable has one place.
        assert read == {"CPU:0": {"CPU:0"}, "CPU:1": {"CPU:1"} if name == "mirrored" else {"CPU:0"}}

    both = threading.Barrier(2, timeout=30)

    def rows(x, y):
        if len(x) > 1:
            both.wait()  # passes only if both replicas run at once
        return x.tolist(), y, device_key()[-5:]

    x = np.arange(5)
    assert together.run(rows, x, None) == [([0, 1], None, "CPU:0"), ([2, 3, 4], None, "CPU:1")]
    looked = together.run(lambda x: (x, device_key()), x)
    assert together.each(lambda x, key: (x.sum(), key == device_key()), looked) == [(1, True), (9, True)]
    with pytest.raises(ValueError):
        together.each(rows, [(x, None)] * 3)
    assert together.run(rows, x[:1], None) == [([0], None, "CPU:0")]
    assert together.run(rows, x[:0], None) == [([], None, "CPU:0")]
    assert device_key() == ""

    def failing(x):
        raise ValueError(f"rows {x.tolist()}")

    with pytest.raises(ValueError, match=r"rows \[0, 1\]"):
        together.run(failing, x)
    return found


def on_two_hosts(strategy):
    """A job: the toy's sums, and all that hosts tell each other."""
    with strategy.scope():
        together = Replicas()
        model = toy()
    assert together.hosts == 2 and together.count == 1 and together.chief == (together.host == 0)
    assert [together.mine(i) for i in range(4)] == [i % 2 == together.host for i in range(4)]
    (gram, sums, rows), _, traces = streamed(together, model)
    assert len(traces) == 1
    found = {"gram": gram, "sums": sums, "rows": rows, "host": together.host}

    distribute.CHUNK = 7  # numbers: the last piece is shorter
    array = np.random.default_rng(together.host).standard_normal((4, 6))
    # Not contiguous, empty, a float32, and numbers that float32 cannot hold.
    views = [array[:, ::2], np.zeros((0, 3)), np.float32(0.5), np.float64(together.host * 2**40 + 1)]
    found["chunks"], nothing, half, large = together.total(views)
    assert nothing.shape == (0, 3) and half == 1.0 and large == 2**40 + 2
    assert {a.dtype for a in (found["chunks"], nothing, half, large)} == {np.dtype(np.float64)}
    (found["shared"],) = together.shared([array])

    messages = []
    together.agree("the options", "the same")
    with pytest.raises(ValueError) as caught:
        together.agree("the options", f"seed={together.host}")
    messages.append(str(caught.value))
    with pytest.raises(ValueError) as caught:
        together.total([np.zeros(2 + together.host)], "the sums of layer fc")
    messages.append(str(caught.value))
    # One host fails, far from any sum; the other learns it at its next one.
    fit = Replicas(strategy)
    with pytest.raises((KeyError, RuntimeError)) as caught, fit.together():
        if fit.host == 1:
            raise KeyError("no such file")
        fit.total([np.zeros(2)], "the sums of layer fc")
    messages.append(f"{caught.type.__name__} {caught.value}")
    with Replicas(strategy).together():  # and all is well again
        pass
    return {**found, "messages": np.array(messages)}


def killed(strategy):
    """A job: the last host is killed while the first waits for its sums."""
    together = Replicas(strategy)
    with together.together():
        together.total([np.ones(3)], "the sums of layer fc")
        if not together.chief:
            os.kill(os.getpid(), signal.SIGKILL)
        together.total([np.ones(3)], "the sums of layer conv")
    return {}


@pytest.mark.medium
def test_two_devices_give_the_sums_of_one():
    result = worker.on_devices(f"{HERE}:on_two_devices")
    assert result.status == 0, result.output
    for name in ("mirrored", "plain"):
        for part, reference in zip(("gram", "sums", "rows"), expected(), strict=True):
            np.testing.assert_allclose(result.arrays[f"{name} {part}"], reference, rtol=1e-12)


@pytest.mark.medium
def test_two_hosts_give_the_sums_of_one():
    results = worker.on_hosts(f"{HERE}:on_two_hosts")
    assert [result.status for result in results] == [0, 0], "\n".join(result.output for result in results)
    for i, result in enumerate(results):
        assert result.arrays["host"] == i
        for part, reference in zip(("gram", "sums", "rows"), expected(), strict=True):
            np.testing.assert_allclose(result.arrays[part], reference, rtol=1e-12)
        first, second = (np.random.default_rng(host).standard_normal((4, 6)) for host in (0, 1))
        np.testing.assert_array_equal(result.arrays["chunks"], (first + second)[:, ::2])
        np.testing.assert_array_equal(result.arrays["shared"], first)
    told, raised = (result.arrays["messages"] for result in results)
    for options, shapes, _ in (told, raised):
        assert "received 'the options: seed=0' on host 0, 'the options: seed=1' on host 1; give each" in options
        assert "'the sums of layer fc: arrays of shapes [(3,)]' on host 1" in shapes
    assert told[2] == (
        "RuntimeError expected all 2 hosts to reach the sums of layer fc, received host 1 stopped with "
        "KeyError: 'no such file'; the fit ends on all hosts: remove the cause and start it again"
    )
    assert raised[2] == "KeyError 'no such file'"


@pytest.mark.medium
def test_a_killed_host_ends_the_others_with_the_reason():
    survivor, dead = worker.on_hosts(f"{HERE}:killed")
    assert dead.status == -signal.SIGKILL
    assert survivor.status == 1, survivor.output
    reason = r"RuntimeError: expected 2 hosts to add up the sums of layer conv, .*host 0 of 2 lost \S+ \(Unavail.+start"
    assert re.search(reason, survivor.output), survivor.output
