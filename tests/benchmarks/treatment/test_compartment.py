from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.treatment import dosing
from benchmarks.treatment.compartment import fit_population, modes, only, rows_of, steady
from ehrmeta.data import make_pk


def test_own_least_squares_find_a_patient_measured_without_error() -> None:
    patients = make_pk(20, 8, random_state=1)
    exact = replace(patients, y=patients.mean)
    rows = rows_of(exact, torch.arange(20), 8)
    fitted, _ = modes(only(dosing._true(True), 3), rows)
    dose = np.ones(20)
    np.testing.assert_allclose(steady(fitted, True), patients.concentration(dose), rtol=0.1)


@pytest.mark.slow
def test_population_parameters_are_recovered() -> None:
    patients = make_pk(150, random_state=2)
    fitted = fit_population(rows_of(patients, torch.arange(150), 5), True)
    true = dosing._true(True)
    np.testing.assert_allclose(fitted.beta[[0, 2, 3]], true.beta[[0, 2, 3]], atol=0.2)
    sd, true_sd = (torch.diagonal(p.precision) ** -0.5 for p in (fitted, true))
    np.testing.assert_allclose(sd[:2], true_sd[:2], atol=0.1)
    assert float(fitted.proportional) == pytest.approx(0.15, abs=0.04)
