"""Fits of the cases, by this package and by the one before in turns: CPU seconds, memory, errors, and the limits."""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
from typing import Any

import mipin_keras
from reproduce_paper import arguments, report

from . import against, fit_cases
from .processes import MIB, in_own_process, with_threads
from .timing import ratio

NOW, BEFORE = "now", "before"
HEADER = [
    "case", "memory=", "CPU s", "before", "ratio", "at most", "wall s", "before", "MiB above", "before", "ratio",
    "largest error", "before", "largest rise, at",
]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the cases."""
    names = ", ".join(fit_cases.CASES)
    parser.add_argument(
        "--cases", nargs="*", choices=fit_cases.CASES, metavar="NAME",
        help=f"instead: time and peak memory of fits of these networks ({names}); without a name all",
    )  # fmt: skip
    parser.add_argument(
        "--against", type=pathlib.Path, metavar="DIR",
        help="with --cases: the folder of another mipin_keras, such as the version before, to fit with too",
    )  # fmt: skip
    parser.add_argument(
        "--sides", nargs="+", choices=[NOW, BEFORE], help="with --cases: only this package, or only the other"
    )
    parser.add_argument(
        "--fit-memory", nargs="+", type=_memory_setting, metavar="GIB",
        help="with --cases: only with these settings of memory=, of which 'default' is one",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="with --cases: fits of each side")
    parser.add_argument("--case-of", choices=fit_cases.CASES, help=argparse.SUPPRESS)


def _memory_setting(text: str) -> float | None:
    return None if text == "default" else float(text)


def measure(args: argparse.Namespace) -> None:
    """Fit the one case that ``args.case_of`` names; print what it took as JSON."""
    package = mipin_keras if args.against is None else against.package_at(args.against)
    memory = None if args.fit_memory is None else args.fit_memory[0]
    print(json.dumps(fit_cases.measure(package, args.case_of, memory, args)))


def compare(args: argparse.Namespace) -> None:
    """Time the cases that ``args.cases`` names, each fit in a process of its own; print a row as soon as it is there.

    Raises:
        FileNotFoundError: If a case's data or model, or the other package, is
            not there; before anything is measured.
        ValueError: If the other package is to be timed, and none is given.
    """
    arguments.check_positive(args, "rounds")
    names = args.cases or list(fit_cases.CASES)
    if BEFORE in (args.sides or ()) and args.against is None:
        raise ValueError("expected --against DIR for --sides before, received none; give the other package's folder")
    if args.against is not None:
        against.check(args.against)
    fit_cases.prepare(names, args)
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    print("A thread a fit unless said; " + (f"TF_ENABLE_ONEDNN_OPTS={onednn}" if onednn else "oneDNN as it is"))
    rows = []
    for name in names:
        case = fit_cases.CASES[name]
        sides = args.sides or ([NOW, BEFORE] if args.against is not None and case.before else [NOW])
        for memory in case.at_most:
            if args.fit_memory is not None and memory not in args.fit_memory:
                continue
            found = _measured(name, memory, sides, args)
            one = next(iter(found.values()))[0]
            print(f"\n{name}: {_words(name, one)}", flush=True)
            for side, fits in found.items():
                if fits[0]["predict"] is not None:
                    seconds = statistics.median(fit["predict"] for fit in fits)
                    print(f"{name}: predict alone, in the process of {side!r}: {seconds:.1f} CPU seconds")
            rows.append(row(name, memory, found))
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if not rows:
        asked = " ".join(map(_memory, args.fit_memory))
        raise ValueError(
            f"expected a case that is fitted with --fit-memory {asked}, received {', '.join(names)}; name another, or "
            "leave the option out"
        )
    print("\n" + report.table(HEADER, rows))


def _measured(
    name: str, memory: float | None, sides: list[str], args: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """What :func:`fit_cases.measure` gives of each side, a round each in turns."""
    options: dict[str, Any] = {"case_of": name, "seed": args.seed, "fit_memory": _memory(memory)}
    options |= {key: getattr(args, key) for key in ("data_dir", "cache_dir") if getattr(args, key) is not None}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, fits in found.items():
            other = {"against": args.against} if side == BEFORE else {}
            environment = with_threads(fit_cases.CASES[name].threads)
            fits.append(in_own_process("fit", environment, **options, **other))
    return found


def _words(name: str, one: dict[str, Any]) -> str:
    case = fit_cases.CASES[name]
    words = f"{one['about']}, {one['samples']:,} samples in batches of {case.batch}, "
    words += f"classes {one['classes']:,}, down to {case.input_layer or 'the pixels'}"
    return words if case.threads else words + f", threads as many as cores ({os.cpu_count()})"


def row(name: str, memory: float | None, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One row of the table.

    Args:
        name: Of the case.
        memory: As it was fitted with.
        found: What each side took, in each round; one side may be missing.
    """
    case, limit = fit_cases.CASES[name], fit_cases.CASES[name].at_most[memory]
    sides = [found.get(side) for side in (NOW, BEFORE)]
    seconds, walls, above = ([_median(fits, key) for fits in sides] for key in ("cpu", "wall", "above"))
    errors = [_errors(fits[0]["errors"]) if fits else {} for fits in sides]
    at_most = f"{case.seconds:.0f} s of wall time on two cores" if case.seconds else "" if limit is None else f"{limit}"
    return [
        name,
        _memory(memory),
        *(_shown(value, ".1f") for value in seconds),
        _ratio(sides, "cpu"),
        at_most,
        *(_shown(value, ".1f") for value in walls),
        *(_shown(None if value is None else value / MIB, ".0f") for value in above),
        _ratio(sides, "above"),
        *(_shown(max(one.values(), default=None), ".6f") for one in errors),
        _rise(*errors),
    ]


def _median(fits: list[dict[str, Any]] | None, key: str) -> float | None:
    return statistics.median(fit[key] for fit in fits) if fits else None


def _ratio(sides: list[list[dict[str, Any]] | None], key: str) -> str:
    """The median of the ratios round by round, and their range where there are several; empty without both sides."""
    now, before = sides
    if not now or not before or not all(fit[key] for fit in before):
        return ""
    middle, least, most = ratio([fit[key] for fit in now], [fit[key] for fit in before])
    return f"{middle:.3f}" + (f" ({least:.3f} to {most:.3f})" if len(now) > 1 else "")


def _errors(entries: list[list[Any]]) -> dict[tuple[str, int], float]:
    """The relative error of each layer and class; where a layer's input is constant there is none."""
    return {(layer, unit): error for layer, unit, error in entries if math.isfinite(error)}


def _rise(now: dict[tuple[str, int], float], before: dict[tuple[str, int], float]) -> str:
    """By how much the relative error of a layer and class is above the other side's at most, and where."""
    if not now or not before:
        return ""
    shared = [key for key in now if key in before]
    if not shared:
        return "no layer in both"
    worst = max(shared, key=lambda key: now[key] - before[key])
    return f"{now[worst] - before[worst]:+.1e}, {worst[0]}, class {worst[1]}"


def _memory(memory: float | None) -> str:
    return "default" if memory is None else f"{memory:g}"


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
