"""The command line: ``mipin``, or ``python -m mipin_keras``.

mipin explain MODEL.keras --fit FIT.npz --explain X.npz --out DIR
mipin analyzers
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import NotFittedError, __version__, analyzers, options_of, registry
from ..channels import REDUCTIONS
from ..checks import integer
from ..innvestigate import PREFIX
from ..plotting.colormaps import COLORMAPS
from .explain import explain

#: The exceptions that a user's input can cause: reported in one line, without a traceback.
EXPECTED = (OSError, ValueError, TypeError, ImportError, NotFittedError)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors come out as :func:`main` reports all errors."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        0; 2 after an error, which is one line on stderr; 130 when
        interrupted.

    Raises:
        SystemExit: For ``--help`` and ``--version``.
    """
    try:
        args = _parser().parse_args(argv)
        args.run(args)
    except EXPECTED as problem:
        if os.environ.get("MIPIN_TRACEBACK"):
            raise
        print(f"mipin: error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mipin: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mipin",
        description="Explain the decisions of a Keras model.",
        epilog="MIPIN_TRACEBACK=1 in the environment shows where an error came from.",
    )
    parser.add_argument("--version", action="version", version=f"mipin_keras {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_explain(commands)
    listing = commands.add_parser("analyzers", help="list the methods and their options")
    listing.set_defaults(run=_list_analyzers)
    return parser


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="explain a saved model on arrays of inputs",
        description="Explain a saved model: writes attributions.npz and a picture a sample, prints completeness.",
    )
    parser.set_defaults(run=_explain)
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL.keras", help="a model saved by Keras 3")
    parser.add_argument(
        "--trust-model", action="store_true",
        help="load a model that may run code of its own (Lambda layers; .h5 files with a Keras before 3.11.3)",
    )  # fmt: skip

    data = parser.add_argument_group("data (.npz or .npy, prepared as the model takes it)")
    data.add_argument("--explain", type=pathlib.Path, required=True, metavar="X.npz", help="the inputs to explain")
    data.add_argument("--fit", type=pathlib.Path, metavar="FIT.npz", help="inputs to fit from, for methods that learn")
    data.add_argument("--load-fit", type=pathlib.Path, metavar="FILE", help="a fit saved before, instead of --fit")
    data.add_argument("--save-fit", type=pathlib.Path, metavar="FILE", help="save the fit for --load-fit")
    data.add_argument(
        "--checkpoint", type=pathlib.Path, metavar="DIR",
        help="write what is learned there layer by layer; the same command again goes on from it",
    )  # fmt: skip
    data.add_argument(
        "--memory", type=float, metavar="GIB", help="memory of fit and analysis, beside the model (default: 2)"
    )
    names = "default: the only array, or the one named x, X, x_train or X_train"
    data.add_argument("--fit-key", metavar="NAME", help=f"which array of FIT.npz ({names})")
    names = "default: the only array, or the one named x, X, x_test or X_test"
    data.add_argument("--explain-key", metavar="NAME", help=f"which array of X.npz ({names})")
    data.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE",
        help="a Python module to import first, that defines layers of your own and registers their inverses; "
        "may be given several times",
    )  # fmt: skip

    method = parser.add_argument_group("method (an option that is not given has the method's default)")
    method.add_argument("--method", help="a name that `mipin analyzers` lists (default: mipin)")
    method.add_argument(
        "--classes", type=_classes, metavar="0,3", help="output neurons to fit, or all (default: those to be explained)"
    )
    method.add_argument("--samples", choices=("all", "class"), help="fit a class from all samples, or from its own")
    method.add_argument("--input-layer", metavar="NAME", help="explain down to this layer's output, not to the pixels")
    method.add_argument("--reduce", choices=REDUCTIONS, help="one value a pixel from the channels, in the input's size")
    method.add_argument("--output-layer", metavar="NAME", help="explain this layer's output instead of the model's")
    method.add_argument("--ridge", type=float, metavar="LAMBDA", help="strength of the ridge penalty")
    method.add_argument(
        "--global", dest="forward_relu", action="store_const", const=False,
        help="the global explanation: no masks that adapt it to the sample",
    )  # fmt: skip
    method.add_argument(
        "--mask-input",
        action="store_const",
        const=True,
        help="mask where the explanation ends too: 0 where the input is",
    )
    method.add_argument("--neuron", type=int, metavar="N", help="explain this output neuron (default: the largest)")
    method.add_argument(
        "--option", type=_option, action="append", default=[], metavar="KEY=VALUE",
        help="any other option of the method, such as rows=None; may be given several times",
    )  # fmt: skip
    method.add_argument(
        "--batch-size", type=int, metavar="N", help="samples at once (default: as --memory has room for; in a fit 128)"
    )

    output = parser.add_argument_group("output")
    output.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder, made if needed")
    output.add_argument(
        "--bands", type=_bands, metavar="3,2,1",
        help="the channels to draw as red, green and blue, counted from 0, or one to draw in grey: for images with "
        "others than 1 or 3 channels",
    )  # fmt: skip
    output.add_argument("--cmap", default="seismic", choices=COLORMAPS, help="colours (default: seismic)")
    output.add_argument(
        "--max-pictures", type=int, default=100, metavar="N", help="draw the first N samples only (default: 100)"
    )
    output.add_argument("--verbose", type=int, default=1, choices=(0, 1, 2), help="how much the fit says (default: 1)")


def _classes(text: str) -> list[int] | str:
    """``"0,3"`` as a list, ``"all"`` as it is."""
    if text == "all":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected ints with commas between them, or all, received {text!r}; write 0,3 or all"
        ) from None


def _bands(text: str) -> tuple[int, ...]:
    """``"3,2,1"`` as a tuple."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected three channels with commas between them, or one, received {text!r}; write 3,2,1"
        )
    return tuple(map(int, parts))


def _option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, the value read as a Python literal where it is one."""
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text!r}; write it as in rows=None")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _explain(args: argparse.Namespace) -> None:
    if args.batch_size is not None:
        integer("--batch-size", args.batch_size, 1)
    integer("--max-pictures", args.max_pictures, 0)
    named = ("samples", "input_layer", "output_layer", "ridge", "forward_relu", "mask_input")
    options = {name: getattr(args, name) for name in named if getattr(args, name) is not None}
    for key, value in args.option:
        if key in options or key in ("classes", "verbose", "neuron_selection_mode"):
            raise ValueError(
                f"--option: expected an option without a flag, received {key}=, which has a flag of its own; see mipin "
                "explain --help"
            )
        options[key] = value
    sys.path.insert(0, os.getcwd())  # as `python -m` has it, for --import
    try:
        for module in args.modules:
            importlib.import_module(module)
    finally:
        sys.path.remove(os.getcwd())
    explain(args, options)


def _list_analyzers(args: argparse.Namespace) -> None:
    own = [name for name in analyzers() if not name.startswith(PREFIX)]
    for name in own:
        summary = (inspect.getdoc(registry.ANALYZERS[name]) or "").splitlines()[0].replace("``", "")
        print(f"{name}: {summary}\n    options: {', '.join(options_of(name))}")
    theirs = [name for name in analyzers() if name not in own]
    print(f"iNNvestigate's own, with its options, where it is installed:\n    {' '.join(theirs)}")
