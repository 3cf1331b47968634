"""Our maps of LRP are the real iNNvestigate's: see test_against_innvestigate.py."""

import pytest

from tests import against
from tests.innvestigate import differences

pytestmark = [pytest.mark.medium, differences.NEEDS_INNVESTIGATE]

METHODS = sorted(differences.LRP)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """These methods on every kind of model, and their settings on some."""
    return differences.run(tmp_path_factory.mktemp("table"), differences.MODELS, "--methods", *METHODS)


def test_every_method_on_every_kind_of_model(table):
    wanted = {(model, method) for model in differences.MODELS for method in against.methods_for(model)}
    assert set(table) == {(model, method) for model, method in wanted if method in METHODS}
    assert not differences.wrong(table)


@pytest.mark.parametrize("method", METHODS)
def test_most_models_agree_on_each_method(table, method):
    rows = [table.get((model, method), {}) for model in differences.MODELS]
    agreeing = [row for row in rows if row.get("difference", 1) <= 1e-5]
    assert len(agreeing) >= (2 if method in differences.ALPHA_BETA | differences.PRESETS else 5)
