"""Rows are sorted and checked, parameters of fit are refused, and titration is detected."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from ehrmeta.data import make_nof1, make_pk
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.treatment import DoseResponse
from ehrmeta.treatment.dosing.dosed_rows import DosedReader, read_rows, titration_p_value
from tests.treatment.dosing.patients import fitted, lines, nof1_fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose_time": [0.0, 1.0, 5.0]}, "the dose was given after its response in 1 of 3"),
        ({"treatment": [1, 2]}, "dose has 2 rows, X has 3"),
        ({"treatment": [1, np.nan, 2]}, "dose is missing in 1 of 3"),
        ({"time": None}, "time is missing"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(change: dict, message: str) -> None:
    given = {"treatment": [1, 2, 3], "time": [0, 1, 2]} | change
    with pytest.raises(DataError, match=message):
        fitted().adapt([[0.0]] * 3, [12.0, 16.0, 14.0], **given)


def test_rows_come_by_patient_and_time_with_their_doses() -> None:
    reader = DosedReader(None, None)
    inputs = reader.read([[1.0], [2.0], [3.0]], [np.e, 1.0, np.e**2], ["b", "a", "b"], [5, 1, 2])
    rows = read_rows(inputs, np.array([10.0, 20.0, 30.0]), None, None, (False, True))
    assert rows.labels.tolist() == ["a", "b"]
    assert rows.starts.tolist() == [0, 1, 3]
    assert rows.dose.tolist() == [20.0, 30.0, 10.0]
    np.testing.assert_allclose(rows.y, [0.0, 2.0, 1.0])


DAYS = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(np.tile(np.arange(5), 12), unit="D"))
DOSES = np.random.default_rng(0).uniform(1, 5, 60)
RESPONSES = DOSES + np.random.default_rng(1).normal(size=60)


def dosed(**odd):
    """A fit to 60 rows of twelve patients with odd parts."""
    rows = {"X": np.zeros((60, 1)), "y": RESPONSES, "treatment": DOSES, "time": DAYS}
    return DoseResponse().fit(**({**rows, "groups": np.repeat(np.arange(12), 5)} | odd))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"groups": np.arange(60)}, "none of 60 tasks has two rows.*of visits"),
        ({"X": RESPONSES[:, None]}, r"\['x0'\] are copies of the outcome"),
        ({"y": ["<5", *map(str, RESPONSES[1:])]}, "such as '<5', in 1 of 60 rows.*censored='half'"),
        ({"time": np.r_[1e12, np.arange(59)]}, "implausibly far from the others in 1 of 60 rows"),
        ({"dose_time": DAYS.dt.tz_localize("UTC")}, "have a time zone, but those of time= have"),
    ],
)
def test_rows_that_teach_nothing_are_refused_as_by_the_meta_learners(odd, message) -> None:
    with pytest.raises(DataError, match=message):
        dosed(**odd)


def test_odd_doses_are_told() -> None:
    rows = {"groups": np.repeat(np.arange(12), 5), "time": np.tile(np.arange(5.0), 12)}
    rng = np.random.default_rng(0)
    dose, y = rng.uniform(1, 9, 60), rng.normal(size=60)
    with pytest.raises(DataError, match=r"feature\(s\) \['mg'\] are copies of the dose"):
        DoseResponse().fit(pd.DataFrame({"mg": 1000 * dose}), y, treatment=dose, **rows)
    age = pd.DataFrame({"age": rng.normal(size=12)[rows["groups"]]})
    with pytest.warns(DataWarning, match="1 of 60 doses are far from all others"):
        DoseResponse().fit(age, y, treatment=np.append(dose[:-1], 20_000), **rows)
    with pytest.warns(DataWarning, match="of 60 doses are below 0"):
        model = DoseResponse().fit(age, y, treatment=dose - 2.0, **rows)
    with pytest.warns(DataWarning, match="1 of 2 doses lie outside the training doses"):
        model.unadapted().effect(age[:1], T0=0, T1=100, time=[9.0])


def test_a_repeated_visit_is_told_and_zones_do_not_mix() -> None:
    with pytest.warns(DataWarning, match="1 rows repeat the time of another row of their task"):
        model = dosed(time=DAYS.where(np.arange(60) != 1, DAYS[0]))
    with pytest.raises(DataError, match="those that the model was fitted on have none"):
        rows = {"treatment": DOSES[:5], "time": DAYS[:5].dt.tz_localize("UTC")}
        model.adapt(np.zeros((5, 1)), RESPONSES[:5], **rows)


def test_without_rows_it_is_the_population_bit_for_bit() -> None:
    model = fitted()
    none = model.adapt(np.zeros((0, 1)), [], treatment=[], time=[])
    pd.testing.assert_frame_equal(
        none.dose_response([[0.0]], [1, 2]), model.unadapted().dose_response([[0.0]], [1, 2])
    )


def test_patients_must_be_known() -> None:
    X, y, dose, patient, day = lines()
    with pytest.raises(NotFittedError):
        clone(fitted()).adapt(X, y, treatment=dose, groups=patient, time=day)
    with pytest.raises(GroupError, match="groups is missing"):
        DoseResponse().fit(X, y, treatment=dose, time=day)
    two = fitted().adapt(X[:12], y[:12], treatment=dose[:12], groups=patient[:12], time=day[:12])
    with pytest.raises(GroupError, match="not adapted"):
        two.dose_response(X[:1], groups=[7])
    with pytest.raises(GroupError, match="2 named tasks"):
        two.dose_response(X[:1])
    with pytest.raises(SchemaError, match="differ from those passed to fit"):
        two.dose_response(np.zeros((1, 2)), groups=[0])


def test_the_dose_of_every_row_is_needed() -> None:
    with pytest.raises(DataError, match="treatment is missing"):
        fitted().adapt([[0.0]] * 2, [12.0, 16.0], time=[0, 1])


def test_titration_is_detected_and_random_order_is_not() -> None:
    titrated = make_nof1(60, titration=True, random_state=3)
    with pytest.warns(DataWarning, match="later doses depend on earlier outcomes"):
        simple = nof1_fit(titrated, carry_over=0.0, ornstein_uhlenbeck=False)
    assert simple.titration_p_value_ < 1e-6
    pk = make_pk(100, random_state=0)
    p = [
        titration_p_value(pk.X[:, 2], np.log(pk.y), np.arange(0, 501, 5)),
        nof1_fit(make_nof1(60, random_state=4), carry_over=0.0).titration_p_value_,
    ]
    assert not np.any(np.array(p) < 0.001)


def test_the_titration_test_ignores_units_and_needs_many_dose_changes() -> None:
    p, starts = make_nof1(30, titration=True, random_state=0), np.arange(0, 30 * 56 + 1, 56)
    p_value = titration_p_value(p.treatment, p.y, starts)
    assert titration_p_value(50 * p.treatment, 3 - 7 * p.y, starts) == pytest.approx(p_value)
    assert np.isnan(titration_p_value(p.treatment[:280], p.y[:280], starts[:6]))
