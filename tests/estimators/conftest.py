"""One model, fitted once, and patients it has never seen."""

from __future__ import annotations

import pytest

from ehrmeta import MetaRegressor
from tests.estimators.patients import Patients, make_patients, small_model


@pytest.fixture(scope="package")
def patients() -> Patients:
    """Training patients."""
    return make_patients()


@pytest.fixture(scope="package")
def new_patients() -> Patients:
    """Patients the model has never seen, numbered from 1000."""
    fresh = make_patients(n_patients=20, seed=1)
    return fresh._replace(groups=fresh.groups + 1000)


@pytest.fixture(scope="package")
def model(patients) -> MetaRegressor:
    """A fitted model; tests must not refit it."""
    X, y, groups, time = patients
    return small_model().fit(X, y, groups=groups, time=time)


@pytest.fixture(scope="package")
def halves(new_patients):
    """Support (first 3 visits) and query (later visits) of the new patients."""
    early = new_patients.time < 90
    support = Patients(*(part[early] for part in new_patients))
    query = Patients(*(part[~early] for part in new_patients))
    return support, query
