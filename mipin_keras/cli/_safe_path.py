"""Imported first: ``python -m mipin_keras`` imports nothing from the working directory, as ``mipin`` does not.

Python puts the working directory before all others there, so that a file
named ``matplotlib.py`` beside somebody's photographs would be run.
"""

import os
import re
import sys


def leave_out_working_directory() -> None:
    """Take it from the front of ``sys.path``, where ``-m mipin_keras`` put it; nothing in any other process."""
    # While Python looks for the module that -m names, argv[0] is "-m".
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return
    given = sys.orig_argv
    named = any(
        re.fullmatch("-[A-Za-z]*mmipin_keras", word) or (re.fullmatch("-[A-Za-z]*m", word) and after == "mipin_keras")
        for word, after in zip(given, [*given[1:], ""], strict=True)
    )
    if named and sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]


leave_out_working_directory()
