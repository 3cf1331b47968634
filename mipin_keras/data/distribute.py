"""Replicas: one fit shared among the devices and hosts of a ``tf.distribute`` strategy.

The fit of a step needs only sums over samples from the data. So each replica
passes over its own share of the samples, and the sums are added up:

    with tf.distribute.MirroredStrategy().scope():             # the devices of one process
        analyzer.fit(x)

    strategy = tf.distribute.MultiWorkerMirroredStrategy()     # several processes, each with its TF_CONFIG
    with strategy.scope():
        analyzer = mipin_keras.create_analyzer("mipin", model_of_the_same_weights())
        analyzer.fit(x)                                        # the same data, classes and options on each

Within a process, :meth:`Replicas.run` splits a batch among the devices; among
processes, whole batches are dealt out (:meth:`Replicas.mine`) and float64 sums
are all-reduced by the strategy (:meth:`Replicas.total`). Without a strategy all
of this is a plain call.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import itertools
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from .inputs import count, take

#: Float64 numbers that go over the network in one piece: 64 MiB.
CHUNK = 1 << 23
# Bytes of the message that each host sends to the others before they add up.
_MESSAGE_BYTES = 512
_SUPPORTED = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)

_DEVICE: ContextVar[str] = ContextVar("device", default="")
_TRACING = threading.RLock()


def device_key() -> str:
    """The device of the replica that runs here; "" outside of :meth:`Replicas.run` and without a strategy."""
    return _DEVICE.get()


def per_device(cache: dict, key: Hashable, make: Callable[[], Any]) -> Any:
    """The entry of ``cache`` for ``key`` on this replica's device, made where it is missing.

    A traced function holds on to the variables that it read while it was
    traced. Called on another device it still gives the right numbers, but
    fetches each weight from the first device every time. Traced once for each
    device, it reads that device's own copy, where the model was made under the
    strategy's scope. Replicas are threads, and trace one after the other:
    neither Keras nor this cache expects two at once.

    Args:
        cache: The entries, by ``(key, device)``; added to.
        key: What the entry is of.
        make: A function that makes the entry.

    Returns:
        The entry.
    """
    full = (key, device_key())
    with _TRACING:
        if full not in cache:
            cache[full] = make()
        return cache[full]


class Replicas:
    """The devices and hosts that take part in a fit, and the work that they share.

    Make one object for each fit. Every host must make the same calls of
    :meth:`total`, :meth:`shared` and :meth:`agree` in the same order; a host
    that does not is named in an error.

    Args:
        strategy: A ``MirroredStrategy``, ``MultiWorkerMirroredStrategy``,
            ``OneDeviceStrategy``, or the default one: no strategy at all.
            None for the one in scope.

    Attributes:
        count: The number of replicas in this process.
        hosts: The number of processes.
        host: The index of this process among them, from 0.

    Raises:
        TypeError: For another strategy.
        RuntimeError: Inside of ``strategy.run``, where there is one replica
            only.
        ValueError: In a process that is no worker of its cluster.
    """

    def __init__(self, strategy: Any = None):
        strategy = tf.distribute.get_strategy() if strategy is None else strategy
        self.hosts, self.host = 1, 0
        self._strategy: Any = None if type(strategy).__name__ == "_DefaultDistributionStrategy" else strategy
        self._lost = False
        if self._strategy is None:
            self._devices: tuple[str, ...] = ("",)
        elif not isinstance(strategy, _SUPPORTED):
            raise TypeError(
                "expected a MirroredStrategy, a MultiWorkerMirroredStrategy or a OneDeviceStrategy in scope, received "
                f"{type(strategy).__name__}; fit outside of its scope, or under one of these"
            )
        elif tf.distribute.get_replica_context() is not None and tf.distribute.has_strategy():
            raise RuntimeError(
                "expected to be called once for all replicas, received a call inside of strategy.run; "
                "call fit under `with strategy.scope():`"
            )
        else:
            self._devices = strategy.extended.worker_devices
            if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
                self.hosts, self.host = _position(strategy.cluster_resolver)
        self.count = len(self._devices)
        self._pool = concurrent.futures.ThreadPoolExecutor(self.count) if self.count > 1 else None

    @property
    def chief(self) -> bool:
        """Whether this host is the one that prints and writes files."""
        return self.host == 0

    # Within a process

    def mine(self, index: int) -> bool:
        """Whether the batch at ``index`` of a pass is this host's.

        The other hosts skip it, but draw its random numbers too, so that the
        same samples are chosen however many hosts there are.
        """
        return index % self.hosts == self.host

    def run(self, function: Callable, *arrays: Any) -> list:
        """Call ``function`` once for each replica, on the replica's device with its share of the rows.

        The replicas are threads of this process, because in eager mode
        ``strategy.run`` would call them one after the other.

        Args:
            function: Gets as many arguments as there are ``arrays``.
            arrays: Of the same number of rows, or None, which stays None; a
                tuple of arrays is a batch of several inputs.
                Without a strategy they are handed on as they are.

        Returns:
            The results, in the order of the rows; fewer than there are
            replicas where there are fewer rows.

        Raises:
            Exception: What ``function`` raised on the first rows that failed,
                after all replicas have ended.
        """
        if self._strategy is None:
            return [function(*arrays)]
        rows = next((count(array) for array in arrays if array is not None), 0)
        parts = max(1, min(self.count, rows))
        edges = itertools.pairwise(rows * i // parts for i in range(parts + 1))
        shares = [[None if a is None else take(a, slice(start, stop)) for a in arrays] for start, stop in edges]
        return self.each(function, shares)

    def each(self, function: Callable, items: Sequence[Sequence[Any]]) -> list:
        """Call ``function(*item)`` for each of ``items``, the first on the first device and so on.

        So the results of :meth:`run` are used on the device that they lie on:
        one forward pass for a batch, then one backward pass for each class.

        Args:
            function: Gets as many arguments as an item has.
            items: At most as many as there are replicas.

        Returns, Raises:
            As :meth:`run`.
        """
        if self._strategy is None:
            return [function(*item) for item in items]
        jobs = [(d, function, i) for d, i in zip(self._devices[: len(items)], items, strict=True)]
        if self._pool is None or len(jobs) == 1:
            return [self._on(*job) for job in jobs]
        futures = [self._pool.submit(self._on, *job) for job in jobs]
        concurrent.futures.wait(futures)
        return [future.result() for future in futures]

    def _on(self, device: str, function: Callable, item: Sequence[Any]) -> Any:
        token = _DEVICE.set(device)
        try:
            # In the scope, a variable of the strategy is read from its copy on the device named last.
            with self._strategy.scope(), tf.device(device):
                return function(*item)
        finally:
            _DEVICE.reset(token)

    # Among processes

    def total(self, arrays: Sequence[Any], what: str = "sums") -> list[np.ndarray]:
        """The sums of every host's ``arrays``, the same on all of them.

        Args:
            arrays: Numbers or arrays of any shapes, the same shapes on every
                host.
            what: The name of the sums in errors, such as "the sums of layer
                conv1".

        Returns:
            float64 arrays.

        Raises:
            RuntimeError: If a host is gone, or has reported that it failed.
            ValueError: If the hosts are not adding up the same sums.
        """
        arrays = [np.asarray(array, np.float64) for array in arrays]
        if self.hosts == 1:
            return arrays
        self.agree(what, f"arrays of shapes {[array.shape for array in arrays]}")
        totals = [np.empty(array.shape) for array in arrays]
        for array, summed in zip(arrays, totals, strict=True):
            flat, into = array.reshape(-1), summed.reshape(-1)
            for i in range(0, len(flat), CHUNK):
                into[i : i + CHUNK] = self._reduce(flat[i : i + CHUNK], what)
        return totals

    def shared(self, arrays: Sequence[Any], what: str = "arrays") -> list[np.ndarray]:
        """The first host's ``arrays``, on every host: as :meth:`total`, with zeros from the others."""
        return self.total([array if self.chief else np.zeros(np.shape(array)) for array in arrays], what)

    def agree(self, what: str, value: str) -> None:
        """Raise on every host unless all of them made this call with the same ``value``.

        Raises:
            ValueError: If they did not, naming the value of each host.
            RuntimeError: As :meth:`total` does.
        """
        if self.hosts == 1:
            return
        digest = hashlib.sha256(value.encode()).hexdigest()[:16]
        texts = self._gather(f"{digest} {what}: {value}", what)
        failed = [f"host {i} stopped with {text[1:]}" for i, text in enumerate(texts) if text.startswith("!")]
        if failed:
            self._lost = True
            raise RuntimeError(
                f"expected all {self.hosts} hosts to reach {what}, received {', '.join(failed)}; the fit ends on "
                "all hosts: remove the cause and start it again"
            )
        if len(set(texts)) > 1:
            self._lost = True
            received = ", ".join(f"{text[17:]!r} on host {i}" for i, text in enumerate(texts))
            raise ValueError(
                f"expected the same on all {self.hosts} hosts, received {received}; give each the same model, weights, "
                "data, classes and options"
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for a fit, from its first sum to its last: where it fails on one host, it ends on all.

        A host that raises waits for the others to come to their next sum, and
        sends them the reason. A host that is killed cannot; there TensorFlow
        notices the closed connection at once, and a host that no longer
        answers within seconds.
        """
        try:
            yield
            self.agree("the end of the fit", "")
        except Exception as problem:
            if self.hosts > 1 and not self._lost:
                with contextlib.suppress(RuntimeError):
                    self._gather(f"!{type(problem).__name__}: {problem}", "its end")
            raise

    def _gather(self, text: str, what: str) -> list[str]:
        """The text that each host sends, in the order of the hosts."""
        rows, sent = np.zeros((self.hosts, _MESSAGE_BYTES)), text.encode()[:_MESSAGE_BYTES]
        rows[self.host, : len(sent)] = np.frombuffer(sent, np.uint8)
        rows = self._reduce(rows, what).astype(np.uint8)
        return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]

    def _reduce(self, array: np.ndarray, what: str) -> np.ndarray:
        try:
            with self._strategy.scope(), tf.device("CPU:0"):
                return self._strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(array), axis=None).numpy()
        except tf.errors.OpError as problem:
            self._lost = True
            message = re.sub(r"^(\{\{.*?\}\})?\s*", "", problem.message)
            reason, _, _ = message.partition("\n")
            peer = re.search(r"remote target (\S+)", message)
            raise RuntimeError(
                f"expected {self.hosts} hosts to add up {what}, received an error: host {self.host} of {self.hosts} "
                f"lost {peer[1] if peer else 'another'} ({type(problem).__name__}: {reason}); start all hosts again, "
                "as TensorFlow needs it; with checkpoint= the fit then goes on from the last layer it finished"
            ) from problem


def _position(resolver: Any) -> tuple[int, int]:
    """The number of processes in a cluster, and the index of this one among them."""
    spec = resolver.cluster_spec()
    tasks = [(job, i) for job in ("chief", "worker") if job in spec.jobs for i in range(spec.num_tasks(job))]
    if not tasks:  # no TF_CONFIG: one process
        return 1, 0
    here = (resolver.task_type, resolver.task_id)
    if here not in tasks:
        raise ValueError(
            f"expected this process to be a chief or worker of its TF_CONFIG, received {here}; set the task of "
            f"TF_CONFIG to one of {tasks}"
        )
    return len(tasks), tasks.index(here)
