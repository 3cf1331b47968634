"""Run a test's function in processes of their own: several devices in one, or several workers on loopback.

TensorFlow takes its devices and its cluster once, when it starts, so these
cannot be had in the process of the tests.
"""

import contextlib
import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


class Result(NamedTuple):
    """How a process ended: its exit status (negative: the signal), what it printed, and the arrays it returned."""

    status: int
    output: str
    arrays: dict


def on_devices(job, *arguments, devices=2):
    """Call a function under a MirroredStrategy over logical CPU devices, in a fresh process.

    Args:
        job: "package.module:function"; it is called with the strategy and the
            arguments, and returns a dict of arrays.
        arguments: Strings.
        devices: How many.
    """
    return _finished([_start(job, arguments, {"devices": devices})])[0]


def on_hosts(job, *arguments, hosts=2):
    """As :func:`on_devices`, under a MultiWorkerMirroredStrategy in ``hosts`` processes; a list of results."""
    with contextlib.ExitStack() as stack:  # all open at once, so that no port comes twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(hosts)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return _finished([_start(job, arguments, {"workers": workers, "index": i}) for i in range(hosts)])


def _start(job, arguments, place):
    folder = tempfile.TemporaryDirectory()
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if "workers" in place:
        task = {"type": "worker", "index": place["index"]}
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": place["workers"]}, "task": task})
    command = [sys.executable, "-m", "tests.data.worker", job, folder.name, str(place.get("devices", 0)), *arguments]
    with open(os.path.join(folder.name, "output"), "w") as output:  # a file: a full pipe would stop the process
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT), folder


def _finished(started, patience=150):
    """Wait for processes; after ``patience`` seconds in all, none is left."""
    results, until = [], time.monotonic() + patience
    try:
        for process, folder in started:
            status = process.wait(max(0.0, until - time.monotonic()))
            path = pathlib.Path(folder.name)
            arrays = {}
            if (path / "result.npz").exists():
                with np.load(path / "result.npz") as saved:
                    arrays = dict(saved)
            results.append(Result(status, (path / "output").read_text(errors="replace"), arrays))
    except subprocess.TimeoutExpired:
        said = "\n".join(pathlib.Path(folder.name, "output").read_text(errors="replace") for _, folder in started)
        raise TimeoutError(f"a process of this test hangs:\n{said}") from None
    finally:
        for process, folder in started:
            process.kill()
            process.wait()
            folder.cleanup()
    return results


def main(job, folder, devices, *arguments):
    """The process itself."""
    import tensorflow as tf

    if int(devices):
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(devices))])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    module, name = job.split(":")
    arrays = getattr(importlib.import_module(module), name)(strategy, *arguments)
    np.savez(os.path.join(folder, "result.npz"), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
