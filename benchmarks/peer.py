"""Each method beside the real iNNvestigate, in one process: the first call, the steady state, and peak memory."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import keras
import numpy as np

import mipin_keras
from reproduce_paper import models, report

from .processes import MIB, in_own_process, peak_memory
from .timing import interleaved, ratio

METHODS = [name for name in mipin_keras.analyzers() if not name.startswith(("mipin", "innvestigate:"))]
# What VGG19 and ResNet50 are timed with: the real SmoothGrad takes 5 GB a sample there, and the other rules of
# LRP take what these do. Its patterns are gone, and it has no Grad-CAM.
LARGE_METHODS = [
    "gradient", "input_t_gradient", "deconvnet", "guided_backprop", "lrp.epsilon", "lrp.sequential_preset_a",
    "deep_taylor", "grad_cam",
]  # fmt: skip
#: Methods that take 64 gradients for a map.
SLOW = ("smoothgrad", "integrated_gradients")
OPTIONS: dict[str, dict[str, Any]] = {
    "lrp": {"rule": "Epsilon"},
    "lrp.alpha_beta": {"alpha": 2.0, "beta": 1.0},
    "lrp.sequential_preset_b_flat_until_idx": {"until_layer_idx": 2},
    "deep_taylor.bounded": {"low": 0.0, "high": 1.0},
    "lrp.epsilon_gamma_box": {"low": 0.0, "high": 1.0},
    "pattern.net": {"verbose": 0},
    "pattern.attribution": {"verbose": 0},
}
HEADER = [
    "model, batch", "method", "ms", "iNNvestigate, ms", "ratio", "range", "first call, s", "iNNvestigate, s", "ratio",
    "its twin, s",
]  # fmt: skip


def compare(method: str, model: keras.Model, x: np.ndarray, rounds: int) -> list[str]:
    """One row of the table, without its first two columns.

    The first call is ours with the making of the analyzer, and iNNvestigate's
    on a tf-keras twin that is ready: the seconds that the twin took stand by
    themselves. The steady state is timed turn by turn; iNNvestigate's without
    the look at the model's weights that ``innvestigate:`` takes before each
    analysis.
    """
    options = OPTIONS.get(method, {})
    rounds = min(rounds, 3) if method in SLOW else rounds
    start = time.perf_counter()
    ours = mipin_keras.create_analyzer(method, model, **options)
    if not ours.fitted:
        ours.fit(x)
    ours.analyze(x)
    first = time.perf_counter() - start
    calls = {"ours": lambda: ours.analyze(x)}
    if f"innvestigate:{method}" not in mipin_keras.analyzers():
        seconds = interleaved(calls, rounds, warmup=1)
        return [f"{1e3 * statistics.median(seconds['ours']):.1f}", "has none", "", "", f"{first:.2f}", "", "", ""]
    start = time.perf_counter()
    peer = mipin_keras.create_analyzer(f"innvestigate:{method}", model, **options)
    twin = time.perf_counter() - start
    start = time.perf_counter()
    peer._analyze(x, None)
    peer_first = time.perf_counter() - start
    seconds = interleaved(calls | {"peer": lambda: peer._analyze(x, None)}, rounds, warmup=1)
    middle, least, most = ratio(seconds["ours"], seconds["peer"])
    return [
        f"{1e3 * statistics.median(seconds['ours']):.1f}",
        f"{1e3 * statistics.median(seconds['peer']):.1f}",
        f"{middle:.2f}",
        f"{least:.2f} to {most:.2f}",
        f"{first:.2f}",
        f"{peer_first:.2f}",
        f"{first / peer_first:.2f}",
        f"{twin:.2f}",
    ]


def memory(batch: int, seed: int) -> None:
    """Peak resident memory of SmoothGrad with 64 samples on the CNN of Table 4, each side in a process of its own."""
    rows, above = [], []
    for name in ("smoothgrad", "innvestigate:smoothgrad"):
        found = in_own_process("analyze", memory_of=name, batch=batch, seed=seed)
        above.append(found["peak"] - found["before"])
        rows.append([name, f"{found['before'] / MIB:.0f}", f"{found['peak'] / MIB:.0f}", f"{above[-1] / MIB:.0f}"])
        rows[-1].append(f"{above[-1] / above[0]:.1f}")
    print(f"CNN of Table 4, random weights, batch of {batch}, 64 noisy copies of each sample")
    print(report.table(["analyzer", "MiB before", "peak MiB", "analyze takes, MiB", "times ours"], rows))


def peak(name: str, batch: int, seed: int) -> None:
    """Print as JSON the peak memory of this process in bytes, before and after it analyzes a batch.

    The process analyzes one sample first, so that what TensorFlow takes once does not count.
    """
    keras.utils.set_random_seed(seed)
    model = models.cnn_m()
    x = np.random.default_rng(seed).random((batch, *model.input_shape[1:]), np.float32)
    analyzer = mipin_keras.create_analyzer(name, model, augment_by_n=64)
    analyzer.analyze(x[:1])
    before = peak_memory()
    analyzer.analyze(x)
    print(json.dumps({"before": before, "peak": peak_memory()}))
