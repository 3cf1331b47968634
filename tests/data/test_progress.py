"""Progress: a bar on a terminal, plain lines elsewhere; and no warnings of retracing from our own calls."""

import logging
import sys

import keras
import numpy as np
import pytest

from mipin_keras import create_analyzer
from mipin_keras.data import progress
from mipin_keras.data.progress import Progress
from tests.networks import cnn, mlp, samples


class Terminal:
    """Standard output, as if it were a terminal."""

    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


def passed(steps, verbose, known=True):
    shown = Progress(steps if known else None, verbose)
    for i in range(steps):
        shown.update(i + 1)
    shown.finish()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_a_log_gets_a_line_and_no_codes(verbose, known, capsys):
    passed(5, verbose, known)
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\b" not in said and "\r" not in said
    assert said.count("\n") == said.count("5/5 batches, 0.0 s") == (verbose > 0)


@pytest.mark.parametrize("known", [True, False])
def test_a_terminal_gets_a_bar_that_ends(known, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal(sys.stdout))
    passed(5, 1, known)
    said = capsys.readouterr().out
    assert "5/5" in said and said.endswith("\n") and said.count("\n") == 1
    assert "batches" not in said


def test_a_long_pass_says_how_far_it_is(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    passed(20, 1)
    said = capsys.readouterr().out.splitlines()
    assert 3 < len(said) < 12 and all("/20 batches, " in line for line in said) and "20/20" in said[-1]


@pytest.mark.parametrize("verbose", [1, 2])
def test_fits_write_no_codes_to_a_log(verbose, capsys):
    x = samples((7, 6, 2), 20)
    for name in ("mipin", "pattern.net"):
        analyzer = create_analyzer(name, cnn(), verbose=verbose).fit(x, batch_size=4)
        analyzer.analyze_class(x, 0, batch_size=4, verbose=verbose)
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\b" not in said and "5/5 batches" in said


def test_a_fit_says_what_it_will_cost(capsys):
    x = samples((12,), 60)
    create_analyzer("mipin", mlp(), verbose=1).fit(x, batch_size=20)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "mipin: 4 classes x 3 layers to learn, passing over the data once"
    assert said.count("mipin: 4 classes x 3 layers, less than a minute") == 1
    create_analyzer("mipin", mlp(), verbose=1, classes=[0]).fit(lambda: iter([x]), memory=0)
    said = capsys.readouterr().out.splitlines()
    # How many samples a function gives is not known before.
    assert said[0] == "mipin: counting the samples"
    assert "mipin: 1 class x 3 layers to learn, passing over the data about 3 times" in said


@pytest.mark.medium
def test_our_calls_warn_of_no_retracing():
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "retracing" in record.getMessage():
                found.append(record.getMessage())

    handler = Handler()
    logging.getLogger("tensorflow").addHandler(handler)
    try:
        x = samples((7, 6, 2), 12)
        for seed in range(7):
            model = cnn(seed=seed)
            for name in ("gradient", "smoothgrad", "lrp.epsilon", "grad_cam", "pattern.net", "mipin"):
                quiet = {"verbose": 0} if name in ("pattern.net", "mipin") else {}
                analyzer = create_analyzer(name, model, **quiet).fit(x, batch_size=5)
                for n in (1, 3, 12):
                    analyzer.analyze(x[:n])
                    analyzer.logits(x[:n])
        create_analyzer("mipin.trained", cnn(filters=7, units=7), verbose=0, epochs=1).fit(x)
    finally:
        logging.getLogger("tensorflow").removeHandler(handler)
    assert not found, found[0]
    assert np.isfinite(keras.ops.convert_to_numpy(model(x))).all()
