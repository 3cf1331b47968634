"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

import keras

#: The seconds between two lines where there is no terminal.
EVERY = 30.0


def on_terminal() -> bool:
    """Whether a bar can be drawn: on a terminal and in a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def keras_verbose(verbose: int) -> int:
    """The ``verbose`` of Keras' own ``fit``: a bar only on a terminal, elsewhere a line an epoch."""
    return 2 if verbose == 1 and not on_terminal() else verbose


class Progress:
    """Prints how far a pass over data has come.

    On a terminal and in a notebook this is Keras' bar. A log gets a line every
    half minute and one at the end, without the escape codes of a bar.

    Args:
        steps: The number of batches; None if unknown.
        verbose: 0 silent, 1 a bar, 2 a line at the end.
    """

    def __init__(self, steps: int | None, verbose: int = 1):
        self._steps, self._verbose, self._done = steps, verbose, 0
        self._start = self._last_line = time.monotonic()
        self._bar = keras.utils.Progbar(steps, unit_name="batch") if verbose == 1 and on_terminal() else None

    def update(self, done: int) -> None:
        """Print that ``done`` batches are done, where it is time to."""
        self._done = done
        if self._bar is not None:
            self._bar.update(done)
        elif self._verbose == 1 and time.monotonic() > self._last_line + EVERY:
            self._last_line = time.monotonic()
            self._line(f"{done}/{self._steps or '?'} batches")

    def finish(self) -> None:
        """Print that the pass has ended. A bar over an unknown number of batches ends too, at the number done."""
        if self._bar is not None:
            if self._bar.target is None:
                self._bar.target = self._done  # Keras 3.5 cannot end a bar without a target
                self._bar.update(self._done, finalize=True)
        elif self._verbose:
            self._line(f"{self._done}/{self._done} batches")

    def _line(self, text: str) -> None:
        print(f"  {text}, {time.monotonic() - self._start:.1f} s", flush=True)
