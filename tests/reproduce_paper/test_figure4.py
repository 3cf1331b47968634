"""Figure 4: the logits of samples and source signals, on a small model and on numbers made by hand."""

import numpy as np
import pytest

from reproduce_paper import digits, figure4
from tests import small_digits

from .pages import mentions


class Halved:
    """An "analyzer" of images of one pixel a class: the source signal is half of the image."""

    def logits(self, x):
        return x.reshape(len(x), -1)

    def source_signal(self, x, classes):
        return x / 2


def test_compare():
    x = np.array([[2.0, 1.0], [-4.0, 6.0], [8.0, 9.0]])
    signals, found = figure4.compare(Halved(), x, np.array([0, 1, 0]))
    np.testing.assert_array_equal(signals, x / 2)
    assert found["sample logits"] == [2, 6, 8] and found["source signal logits"] == [1, 3, 4]
    assert found["difference"] == pytest.approx(8 / 3) and found["kept"] == pytest.approx(2 / 3)
    assert found["apc"] == found["positive_apc"] == pytest.approx(50)


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "load", lambda name, args: small_digits.trained(name, 3 if name == "CNN-C" else 0))
    monkeypatch.setattr(figure4, "SHOWN", dict.fromkeys(figure4.FIT, (0, 3, 5)))
    figure4.run(small_digits.arguments(tmp_path, models=["MLP-M", "CNN-C"]))
    result, page = small_digits.result(tmp_path, "figure4")
    assert list(result["models"]) == ["MLP-M", "CNN-C"]
    for found in result["models"].values():
        assert found["shown"]["images"] == 3 and found["measured"]["images"] == 100
        assert found["measured"]["apc"] < 30 and "sample logits" not in found["measured"]
    assert "CNN-M" not in page and mentions(page, "MLP-M", "of the 3 shown")


def test_the_words_follow_the_numbers():
    many = {"images": 10, "apc": 40.0, "positive_apc": 10.0, "kept": 0.9}
    shown = {"images": 2, "sample logits": [10.0, 10.0], "source signal logits": [8.0, 7.0]}
    line = figure4.verdict("MLP-M", {"shown": shown, "measured": many})
    assert mentions(line, "2 shown, 1 source", "40.0 %", "(25 % of it lost", "90 %")
