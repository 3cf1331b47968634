"""The information of Gaussian pairs, by each critic, beside the exact value; and what each takes."""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from mipin_keras.information import mutual_information
from mipin_keras.information.critic import CRITICS
from reproduce_paper import report

SIZES, CORRELATIONS = [1, 8, 32], [0.0, 0.5, 0.9]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers in each of the two variables")
    parser.add_argument("--correlations", nargs="+", type=float, default=CORRELATIONS)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128, help="pairs a batch")


def gaussian(size: int, correlation: float, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two variables of so many numbers, each pair of which is correlated; and their exact information in nats."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(samples, size))
    x = correlation * z + np.sqrt(1 - correlation**2) * rng.normal(size=(samples, size))
    return z, x, 0.5 * size * float(np.log(1 / (1 - correlation**2)))


def run(args: argparse.Namespace) -> None:
    """Estimate each, one after the other; print a table."""
    rows = []
    for size in args.sizes:
        for correlation in args.correlations:
            z, x, exact = gaussian(size, correlation, args.samples, args.seed + 1)
            row = [str(size), f"{correlation:g}", f"{exact:.3f}"]
            for critic in args.critics:
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # of what is near the limit, which the table shows
                    found = mutual_information(
                        z, x, seed=args.seed, epochs=args.epochs, batch_size=args.batch, critic=critic
                    )
                seconds = time.perf_counter() - start
                row += [f"{found.nats:.3f}", f"{seconds:.0f} s"]
                print(f"{size} numbers, correlation {correlation:g}, {critic}: {found.nats:.3f}", flush=True)
            rows.append([*row, f"{found.limit:.2f}"])
    header = ["numbers in each", "correlation", "exact"]
    for critic in args.critics:
        header += [critic, "time"]
    print("\n" + report.table([*header, "limit"], rows))
