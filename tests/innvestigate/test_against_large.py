"""Our maps of VGG19 and ResNet50 are the real iNNvestigate's: see test_against_innvestigate.py."""

import numpy as np
import pytest

from tests import against
from tests.innvestigate import differences

pytestmark = differences.NEEDS_INNVESTIGATE
KINDS = ("VGG19", "ResNet50")


def check(table, methods):
    assert [method for _, method in table] == methods
    for (model, method), row in table.items():
        kind = against.LARGE[model][0]
        assert row.get("difference", np.inf) <= 1e-3 or differences.differs_on_large(kind, method), row


@pytest.mark.medium
@pytest.mark.parametrize("kind", KINDS)
def test_the_large_ones(kind, tmp_path):
    check(differences.run(tmp_path, [f"{kind} 64"]), against.QUICK_METHODS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_large_ones_on_whole_images(kind, tmp_path):
    check(differences.run(tmp_path, [f"{kind} 224"], "--all"), against.LARGE_METHODS)
