"""Charts that experiments share, and the arguments of their commands."""

import argparse
import pathlib

import numpy as np
import pytest

from reproduce_paper import __main__ as command
from reproduce_paper import arguments, charts


def test_method_bars():
    _, axes = charts.panels((4, 3), 1, 2, sharey=True)
    assert axes.shape == (1, 2)
    for ax in axes[0]:
        charts.method_bars(ax, {"Gradient": 0.5, "MIP-IN": 0.75}, [(0.25, 1.0), (0.75, 0.875)], "0.5", height=0.5)
        gradient, mipin = ax.patches
        assert (gradient.get_width(), mipin.get_width()) == (0.5, 0.75)
        assert gradient.get_facecolor()[:3] == (0.5, 0.5, 0.5) != mipin.get_facecolor()[:3]
        whiskers = np.array([line[:, 0] for line in ax.collections[0].get_segments()])
        np.testing.assert_allclose(whiskers, [[0.25, 1.0], [0.75, 0.875]])
        assert ax.yaxis_inverted()  # the first is on top, though both panels share the axis
        assert not ax.spines["top"].get_visible() and ax.spines["bottom"].get_visible()
    assert [label.get_text() for label in axes[0, 0].get_yticklabels()] == ["Gradient", "MIP-IN"]


def test_an_interval_that_leaves_out_its_value_by_rounding_has_no_negative_whisker():
    np.testing.assert_allclose(charts.whiskers([1.0, 2.0], [(1.1, 1.2), (1.5, 2.0)]), [[0, 0.5], [0.2, 0]])


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ([], pathlib.Path.home() / ".keras" / "mipin_keras" / "models"),
        (["--data-dir", "data"], pathlib.Path("data/models")),
        (["--data-dir", "data", "--cache-dir", "cache"], pathlib.Path("cache")),
    ],
)
def test_where_trained_models_are(given, folder):
    parser = argparse.ArgumentParser()
    arguments.add_data(parser)
    assert arguments.cache_dir(parser.parse_args(given)) == folder


def test_models_are_some_of_the_known_ones(capsys):
    parser = argparse.ArgumentParser()
    arguments.add_models(parser, ["a", "b", "c"], ["b"])
    assert parser.parse_args([]).models == ["b"] and parser.parse_args(["--models", "c", "a"]).models == ["c", "a"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--models", "d"])
    assert "invalid choice: 'd'" in capsys.readouterr().err


def test_options_below_one_are_refused():
    arguments.check_positive(argparse.Namespace(limit=None, fit_images=1), "limit", "fit_images")
    with pytest.raises(ValueError, match="expected --fit-images to be at least 1, received 0; give"):
        arguments.check_positive(argparse.Namespace(limit=3, fit_images=0), "limit", "fit_images")


def test_every_experiment_has_the_shared_options():
    for name in command.EXPERIMENTS:
        given = command.parser().parse_args([name, "--quick", "--seed", "3", "--out", "o", "--verbose", "0"])
        assert (given.quick, given.seed, given.out, given.verbose) == (True, 3, pathlib.Path("o"), 0), name
        assert given.data_dir is None and given.cache_dir is None
