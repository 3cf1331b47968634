"""``python -m reproduce_paper EXPERIMENT``: rebuild the paper's tables and figures."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pathlib
import sys

from . import report

NAMES = (
    "table1", "figure3", "figure4", "figure5", "figures6_7", "table2", "figure8", "figure9", "appendix_b", "figure10",
    "grid", "sanity", "deletion", "sweep",
)  # fmt: skip
EXPERIMENTS = {
    name: importlib.import_module(f"{__package__}.{name}")
    for name in NAMES
    if importlib.util.find_spec(f"{__package__}.{name}")
}


def main(argv: list[str] | None = None) -> int:
    """Run one experiment; 0 when it is done, 2 when what it needs is not there."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m reproduce_paper", description=__doc__)
    commands = parser.add_subparsers(dest="experiment", required=True)
    for name, module in EXPERIMENTS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        command.add_argument("--data-dir", type=pathlib.Path, help="folder with the data sets")
        command.add_argument("--cache-dir", type=pathlib.Path, help="trained models (default: DATA_DIR/models)")
        command.add_argument("--out", type=pathlib.Path, default=report.RESULTS, help="where the results go")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--quick", action="store_true", help="minutes; its numbers mean nothing")
        command.add_argument("--verbose", type=int, choices=(0, 1, 2), default=2)
        module.add_arguments(command)
    args = parser.parse_args(argv)
    if args.cache_dir is None:
        args.cache_dir = (args.data_dir or pathlib.Path.home() / ".keras" / "mipin_keras") / "models"
    args.command_line = report.command_line("python -m reproduce_paper", argv)
    try:
        EXPERIMENTS[args.experiment].run(args)
    except (FileNotFoundError, ValueError) as problem:
        print(f"reproduce_paper: error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
