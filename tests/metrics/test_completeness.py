"""APC against closed forms and a brute-force loop; and what is refused."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mipin_keras.metrics import Completeness, average_percentage_change, completeness


def brute_force(logits, source, classes):
    """Eq. 10 and 11, word for word."""
    apc, positive = [], []
    for c in sorted(set(classes)):
        changes, drops = [], []
        for x, s, k in zip(logits, source, classes, strict=True):
            if k == c and x != 0:
                changes.append(abs(x - s) / abs(x))
                drops.append(max(x - s, 0) / abs(x))
        if changes:
            apc.append(sum(changes) / len(changes))
            positive.append(sum(drops) / len(drops))
    return 100 * sum(apc) / len(apc), 100 * sum(positive) / len(positive)


def test_equal_logits_score_zero():
    found = average_percentage_change([3.0, -2.0], [3.0, -2.0], [0, 1])
    assert (found.apc, found.positive_apc, found.samples, found.undefined) == (0.0, 0.0, 2, 0)


def test_a_source_signal_that_is_scaled_scores_its_scale():
    logits = np.array([1.0, 4.0, 0.5, 9.0])
    smaller = average_percentage_change(logits, 0.75 * logits, [0, 0, 1, 2])
    larger = average_percentage_change(logits, 1.25 * logits, [0, 0, 1, 2])
    assert smaller.apc == smaller.positive_apc == larger.apc == 25.0
    assert larger.positive_apc == 0.0


def test_the_mean_is_over_classes_not_over_samples():
    # 10 % three times in class 0, 50 % once in class 7: 30 % over classes, 20 % over samples.
    found = average_percentage_change([10, 10, 10, 10], [9, 9, 11, 5], [0, 0, 0, 7])
    assert found.apc == pytest.approx(30.0)
    assert found.positive_apc == pytest.approx((100 * (0.1 + 0.1 + 0.0) / 3 + 50.0) / 2)
    assert found.per_class[7] == (50.0, 50.0, 1)
    assert found.per_class[0].samples == 3
    assert list(found.per_class) == [0, 7]


def test_a_negative_logit_counts_by_its_size():
    # relu(x - s) with x = -2: a source signal of -3 is a drop, one of -1 is none.
    assert average_percentage_change([-2.0], [-3.0], [0]).positive_apc == 50.0
    rise = average_percentage_change([-2.0], [-1.0], [0])
    assert (rise.apc, rise.positive_apc) == (50.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(3, 4, 200)
    logits[rng.choice(200, 9, replace=False)] = 0.0
    source = logits * rng.normal(1, 0.4, 200)
    classes = rng.integers(0, 6, 200)
    found = average_percentage_change(logits, source, classes)
    assert (found.apc, found.positive_apc) == pytest.approx(brute_force(logits, source, classes), rel=1e-12)
    assert (found.samples, found.undefined) == (191, 9)
    assert found.positive_apc <= found.apc
    order = rng.permutation(200)
    again = average_percentage_change(logits[order], source[order], classes[order])
    assert again.apc == pytest.approx(found.apc, rel=1e-12)


def test_float32_and_integer_logits_are_computed_in_float64():
    found = average_percentage_change(np.float32([0.1]), np.float32([0.2]), np.uint8([3]))
    assert found.apc == pytest.approx(100.0, abs=1e-5)
    # In uint8 arithmetic 1 - 2 would be 255.
    assert average_percentage_change(np.uint8([1]), np.uint8([2]), [0]).positive_apc == 0.0


def test_samples_with_a_logit_of_zero_are_counted_and_left_out():
    found = average_percentage_change([0.0, 10.0, 0.0], [5.0, 9.0, 1.0], [0, 0, 1])
    assert (found.apc, found.samples, found.undefined) == (10.0, 1, 2)
    assert math.isnan(found.per_class[1].apc) and math.isnan(found.per_class[1].positive_apc)
    assert found.per_class[1].samples == 0
    assert str(found) == "APC 10.0 %, positive APC 10.0 % (1 samples, 1 classes, 2 undefined)"


def test_all_undefined_is_nan():
    found = average_percentage_change([0.0, -0.0], [1.0, 0.0], [0, 1])
    assert math.isnan(found.apc) and math.isnan(found.positive_apc)
    assert (found.samples, found.undefined) == (0, 2)


def test_the_result_is_frozen():
    found = average_percentage_change([1.0], [1.0], [0])
    with pytest.raises(FrozenInstanceError):
        found.apc = 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]], [1.0], [0]), r"logits of shape \(n,\).*received shape \(1, 1\)"),
        (([1.0], 1.0, [0]), r"source_logits of shape \(n,\).*received shape \(\)"),
        (([1.0], [1.0], [[0]]), r"classes of shape \(n,\)"),
        (([], [], []), r"logits of shape \(n,\).*at least one sample, received shape \(0,\)"),
        (([1.0, 2.0], [1.0], [0, 1]), "2 logits, 1 source_logits and 2 classes"),
        (
            ([1.0, np.nan], [1.0, 1.0], [0, 0]),
            "logits to be finite, received NaN .* 1 of 2 samples, the first at index 1",
        ),
        (([1.0], [-np.inf], [0]), "source_logits to be finite, received NaN or infinity in 1 of 1 samples"),
        ((["1"], [1.0], [0]), "logits to be real numbers, received dtype <U1"),
        (([1j], [1.0], [0]), "logits to be real numbers, received dtype complex128"),
        (([1.0], [1.0], [0.0]), "classes to be integers.*float64"),
        (([1.0], [1.0], [True]), "classes to be integers.*bool"),
        (([1.0], [1.0], [-1]), "numbered from 0, received -1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        average_percentage_change(*arguments)


class Scaled:
    """An analyzer of a linear network, whose source signal is the input times a factor for the explained class."""

    def __init__(self, weights, factors):
        self.weights, self.factors = np.float32(weights), np.float32(factors)
        self.batch_sizes = []

    def logits(self, x, *, batch_size=32):
        self.batch_sizes.append(batch_size)
        return x @ self.weights

    def select(self, logits, neuron_selection=None):
        if neuron_selection is None:
            tied = logits == logits.max(axis=1, keepdims=True)
            return np.float32(tied / tied.sum(axis=1, keepdims=True))
        return np.float32(neuron_selection)

    def source_signal(self, x, neuron_selection=None, *, batch_size=32):
        self.batch_sizes.append(batch_size)
        return x * (self.select(self.logits(x), neuron_selection) @ self.factors)[:, None]


def test_completeness_of_an_analyzer():
    analyzer = Scaled(np.eye(3), [0.5, 1.0, 1.25])
    found = completeness(analyzer, np.float32([[4, 1, 0], [8, 1, 0], [0, 1, 0], [0, 1, 2]]), batch_size=2)
    assert isinstance(found, Completeness)
    assert found.per_class == {0: (50.0, 50.0, 2), 1: (0.0, 0.0, 1), 2: (25.0, 0.0, 1)}
    assert found.apc == pytest.approx(25.0) and found.positive_apc == pytest.approx(50.0 / 3)
    assert 2 in analyzer.batch_sizes


def test_completeness_of_a_chosen_neuron_and_of_ties():
    analyzer = Scaled(np.eye(3), [0.5, 1.0, 1.0])
    chosen = completeness(analyzer, np.float32([[4, 1, 2], [4, 1, 2]]), np.eye(3)[[0, 2]])
    assert {label: one.apc for label, one in chosen.per_class.items()} == {0: 50.0, 2: 0.0}
    tied = completeness(analyzer, np.float32([[4, 0, 4]]))
    assert list(tied.per_class) == [0] and tied.apc == pytest.approx(25.0)


@pytest.mark.parametrize("weights", [[[0, 0, 0]], [[1, -1, 0]], [[0.7, 0.3, 0]], [[-1, 0, 0]]])
def test_a_selection_of_no_single_neuron_is_refused(weights):
    with pytest.raises(ValueError, match="one neuron for each sample, .* received for sample 0 the weights"):
        completeness(Scaled(np.eye(3), [1, 1, 1]), np.ones((1, 3), np.float32), weights)


def test_an_analyzer_without_source_signals_is_refused():
    class Gradient:
        def analyze(self, x):
            return x

    with pytest.raises(TypeError, match="received a Gradient, which has no logits, select, source_signal"):
        completeness(Gradient(), np.ones((1, 3)))


def test_an_explanation_that_stops_at_a_layer_is_refused():
    analyzer = Scaled(np.eye(3), [1, 1, 1])
    analyzer.options = {"input_layer": "conv2"}
    with pytest.raises(ValueError, match="down to the input, .* received one that stops at layer 'conv2'"):
        completeness(analyzer, np.ones((1, 3), np.float32))


def test_logits_that_are_not_finite_are_refused():
    analyzer = Scaled(np.eye(3), [np.nan, 1, 1])
    with pytest.raises(ValueError, match="source signal's logits to be finite, .*2 of 2 rows"):
        completeness(analyzer, np.float32([[2, 1, 0], [1, 2, 0]]))
