"""Data sets of the cohorts benchmark."""

import numpy as np
import pytest

from benchmarks.cohorts.data import COHORT_DATA, load_cohorts
from ehrmeta.data import Schema


@pytest.mark.parametrize("name", [n for n, source in COHORT_DATA.items() if not source.package])
def test_sites_are_numbered_without_gaps_and_outcomes_are_complete(name):
    data = load_cohorts(name)
    np.testing.assert_array_equal(np.unique(data.groups), np.arange(data.groups.max() + 1))
    assert len(data.X) == len(data.y) == len(data.groups)
    assert np.isfinite(data.y.astype(float)).all()
    assert data.binary == (name != "warfarin")
    assert (data.bayes_rule is not None) == name.startswith("make_cohorts")


def test_linked_genotypes_are_filled_in_and_left_out():
    genotypes = [name for name in load_cohorts("warfarin").X if name.startswith("vkorc1")]
    assert genotypes == ["vkorc1_1639"]


def test_schemas_of_hospitals_choose_the_default_learner():
    for name in ("heart", "make_cohorts .5"):
        schema = Schema.from_dict(load_cohorts(name).X.attrs["ehrmeta_schema"])
        assert schema.task_kind == "cohort"
