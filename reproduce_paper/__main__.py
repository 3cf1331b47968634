"""``python -m reproduce_paper EXPERIMENT``: rebuild the paper's tables and figures."""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import sys
import traceback

import keras

from . import arguments, report, reproduction

NAMES = (
    "table1", "figure3", "figure4", "figure5", "figures6_7", "sweep", "table2", "figure8", "figure9", "appendix_b",
    "figure10", "grid", "sanity", "deletion", "information", "prototype",
)  # fmt: skip
EXPERIMENTS = {
    name: importlib.import_module(f"{__package__}.{name}")
    for name in NAMES
    if importlib.util.find_spec(f"{__package__}.{name}")
}


def parser() -> argparse.ArgumentParser:
    """The parser of the commands: one for each experiment, one for all of them, one for the page."""
    made = argparse.ArgumentParser(prog="python -m reproduce_paper", description=__doc__)
    commands = made.add_subparsers(dest="experiment", required=True)
    for name, module in EXPERIMENTS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        _add_shared(command)
        module.add_arguments(command)
    command = commands.add_parser("all", help="Every experiment, one after the other, and the page.")
    _add_shared(command)
    command.add_argument("--resume", action="store_true", help="leave out what has a result of this seed in --out")
    command = commands.add_parser("page", help=(reproduction.__doc__ or "").splitlines()[0])
    arguments.add_out(command, report.RESULTS, "where the results are")
    arguments.add_quick(command, "of the quick runs' results")
    return made


def _add_shared(command: argparse.ArgumentParser) -> None:
    """Add the options of every experiment."""
    arguments.add_data(command)
    arguments.add_out(command, report.RESULTS, "where the results go")
    arguments.add_seed(command)
    arguments.add_quick(command, "about 2 minutes; its numbers mean nothing")
    command.add_argument("--verbose", type=int, choices=(0, 1, 2), default=2)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 when it is done, 1 if one of all experiments failed, 2 if data are missing."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    if args.experiment == "page":
        print(reproduction.write(EXPERIMENTS, args.out, args.quick))
        return 0
    if args.experiment == "all":
        return run_all(args, [word for word in argv[1:] if word != "--resume"])
    args.cache_dir = arguments.cache_dir(args)
    args.command_line = report.command_line("python -m reproduce_paper", argv)
    try:
        EXPERIMENTS[args.experiment].run(args)
    except (OSError, ValueError) as problem:
        print(f"reproduce_paper: error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    return 0


def run_all(args: argparse.Namespace, options: list[str]) -> int:
    """Run every experiment with ``options``, then make the page of the results in ``--out``.

    An experiment that fails does not stop the others: their names are printed
    at the end, and 1 is returned.
    """
    failed = []
    for name in EXPERIMENTS:
        before = reproduction.read(name, args.out, args.quick)
        if args.resume and before is not None and before["seed"] == args.seed:
            print(f"{name}: done before", flush=True)
            continue
        try:
            again = ["--resume"] if args.resume and getattr(EXPERIMENTS[name], "RESUMES", False) else []
            status = main([name, *options, *again])
        except Exception:
            traceback.print_exc()
            status = 1
        if status:
            failed.append(name)
        keras.backend.clear_session()
        gc.collect()
    print(reproduction.write(EXPERIMENTS, args.out, args.quick))
    if failed:
        print(f"reproduce_paper: error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
