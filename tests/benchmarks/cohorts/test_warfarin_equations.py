from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.cohorts.data import load_cohorts
from benchmarks.cohorts.warfarin_equations import (
    DosingEquation,
    WithEquation,
    clinical_dose,
    genetic_dose,
    with_linked_genotypes,
)
from ehrmeta.baselines import UpdatedRegressor


def patient(**changes):
    columns = {
        "age_decade": 60.0,
        "height": 170.0,
        "weight": 80.0,
        "sex": "male",
        "race": "White",
        "enzyme_inducer": 0.0,
        "amiodarone": 1.0,
        "cyp2c9": "*1/*3",
        "vkorc1_1639": "A/G",
        "vkorc1_2255": None,
        "vkorc1_1173": None,
        "vkorc1_1542": None,
    }
    return pd.DataFrame([columns | changes])


def test_the_equations_are_the_consortiums():
    """Worked by hand from the published coefficients."""
    genetic = 5.6044 - 0.2614 * 6 + 0.0087 * 170 + 0.0128 * 80 - 0.8677 - 0.9357 - 0.5503
    clinical = 4.0376 - 0.2546 * 6 + 0.0118 * 170 + 0.0134 * 80 - 0.5695
    np.testing.assert_allclose(genetic_dose(patient()), genetic)
    np.testing.assert_allclose(clinical_dose(patient()), clinical)
    asian = patient(race="Asian", cyp2c9=None)
    expected = genetic - 0.1092 + 0.9357 - 0.2188
    np.testing.assert_allclose(genetic_dose(asian), expected)


@pytest.mark.parametrize(
    ("linked", "race", "same"),
    [
        ({"vkorc1_1173": "C/T"}, "Black or African American", True),
        ({"vkorc1_2255": "C/T"}, "White", True),
        ({"vkorc1_2255": "C/T"}, "Black or African American", False),
        ({"vkorc1_1542": "C/G"}, "Asian", True),
        ({}, "White", False),
    ],
)
def test_a_missing_genotype_is_read_from_linked_ones(linked, race, same):
    filled = genetic_dose(with_linked_genotypes(patient(vkorc1_1639=None, race=race, **linked)))
    known = genetic_dose(patient(race=race))
    assert np.isclose(filled[0], known[0]) == same


def test_a_site_intercept_moves_an_equation_part_of_the_way():
    data = load_cohorts("warfarin")
    model = DosingEquation("genetic").fit(data.X, data.y, groups=data.groups)
    site = data.X[data.groups == 0][:10]
    y = np.square(genetic_dose(site) + model.model_.beta[0] + 1.0)
    adapted = model.adapt(site, y, groups=np.zeros(10, int))
    shifted = np.sqrt(adapted.predict_quantiles(site, [0.5], groups=np.zeros(10, int))[:, 0])
    step = shifted - genetic_dose(site) - model.model_.beta[0]
    assert 0.2 < step[0] < 1.0
    np.testing.assert_allclose(step, step[0])


@pytest.mark.filterwarnings("ignore:levels of")
def test_a_learner_given_an_equation_may_reproduce_it():
    """Where the dose is the equation's, a linear learner that is told it needs nothing else."""
    data = load_cohorts("warfarin")
    some = np.flatnonzero(data.groups < 3)
    X, groups = data.X.iloc[some], data.groups[some]
    y = np.square(genetic_dose(X))
    learner = WithEquation(UpdatedRegressor(outcome_transform="sqrt")).fit(X, y, groups=groups)
    seen = {"groups": np.zeros(20, int)}
    adapted = learner.adapt(X[:20], y[:20], **seen)
    doses = adapted.predict_quantiles(X[:20], [0.5], **seen)[:, 0]
    np.testing.assert_allclose(doses, y[:20], rtol=0.05)
    assert learner.unadapted().predict_quantiles(X[:20], [0.5]).shape == (20, 1)
