"""``python -m benchmarks fit``, ``analyze``, ``large``, ``memory`` and ``information``."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # before TensorFlow: the real iNNvestigate needs it

from reproduce_paper import arguments, report  # noqa: E402

from . import analyze, fit, information, large, memory  # noqa: E402

BENCHMARKS = {"fit": fit, "analyze": analyze, "large": large, "memory": memory, "information": information}


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark; prints a table, the command and the versions."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        arguments.add_seed(command)
        module.add_arguments(command)
    args = parser.parse_args(argv)
    if getattr(args, "memory_of", None) is None:
        shown = ["DIR" if i and argv[i - 1] == "--against" else word for i, word in enumerate(argv)]
        versions = ", ".join(f"{key} {value}" for key, value in report.environment().items())
        print(f"`{report.command_line('python -m benchmarks', shown)}` ({versions})\n", flush=True)
    BENCHMARKS[args.benchmark].run(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
