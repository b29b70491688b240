"""Laws of one-compartment dosing: the posterior, and what is refused."""

import numpy as np
import pytest

from ehrmeta.data import make_pk
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.treatment import OneCompartment
from ehrmeta.treatment.dosing.kinetics import Kinetics
from tests.treatment.dosing.levels import features, fitted, keywords

TRUE = Kinetics(
    beta=np.array([[np.log(4), 0.75, 0.6], [np.log(40), 1.0, 0.0], [0.0, 0.0, 0.0]]),
    sd=np.array([0.35, 0.2, 0.3]),
    proportional=0.15,
    additive=0.2,
)


class Plain:
    """Features as they are."""

    def transform(self, columns, *, shrink):
        return [np.column_stack([columns["x0"], columns["x1"]])]


@pytest.mark.parametrize("k", [0, 1, 3])
def test_under_the_true_population_chances_are_those_of_the_true_posterior(k):
    model, _ = fitted()
    p = make_pk(6, 3, random_state=2)
    grid, seen = np.geomspace(110, 1100, 12), np.tile(np.arange(3) < k, 6)
    known = OneCompartment("x2", interval=12.0)
    known.__dict__.update({**vars(model), "kinetics_": TRUE})
    known.encoder_ = Plain()
    query = features(p)[::3]
    query[:, 2] = 12.0
    adapted, groups = known.unadapted(), None
    if k:
        adapted = known.adapt(features(p)[seen], p.y[seen], **keywords(p, seen))
        groups = np.arange(6)
    chance = adapted.chance(query, grid, target=p.target, groups=groups)
    np.testing.assert_allclose(chance, p.chance(seen, grid, 0), atol=0.06)


def test_rows_narrow_the_band_and_raise_the_chance():
    model, _ = fitted()
    p = make_pk(30, 3, random_state=3)
    query = features(p)[::3]
    query[:, 2] = 12.0
    widths, chances = [], []
    for k in (1, 3):
        seen = np.tile(np.arange(3) < k, 30)
        adapted = model.adapt(features(p)[seen], p.y[seen], **keywords(p, seen))
        band = adapted.dose_response(query, [400.0], groups=np.arange(30))
        widths.append((band.high - band.low).mean())
        best = adapted.recommend(query, target=p.target, groups=np.arange(30))
        chances.append(best.probability.mean())
    assert widths[1] < widths[0]
    assert chances[1] > chances[0]
    assert (band.low < band.response).all()
    assert (band.response < band.high).all()


def test_what_no_model_can_use_is_refused():
    model, p = fitted()
    X, rows = features(p), p.groups < 3
    given = keywords(p, rows)
    with pytest.raises(NotFittedError):
        OneCompartment("x2", interval=12.0).adapt(X[rows], p.y[rows], **given)
    with pytest.raises(SchemaError, match="since_dose 'hours' is not in X"):
        OneCompartment("hours", interval=12.0).fit(X[rows], p.y[rows], **given)
    with pytest.raises(DataError, match="interval must be above 0"):
        OneCompartment("x2", interval=0).fit(X[rows], p.y[rows], **given)
    with pytest.raises(DataError, match="dose is negative in"):
        OneCompartment("x2", interval=12.0).fit(
            X[rows], p.y[rows], **given | {"treatment": -p.X[rows, 2]}
        )
    with pytest.raises(DataError, match="X has no rows"):
        none = {name: values[:0] for name, values in given.items()}
        OneCompartment("x2", interval=12.0).fit(X[:0], p.y[:0], **none)
    with pytest.raises(DataError, match="patient 0 of 3: times do not agree"):
        model.adapt(X[rows], p.y[rows], **given | {"time": p.time[rows] - 100})
    one = model.adapt(X[rows], p.y[rows], **given)
    with pytest.raises(GroupError, match="not adapted"):
        one.recommend(X[:1], target=(5, 10), groups=[99])
    with pytest.raises(DataError, match="contradicts the model"):
        one.recommend(X[:1], target=(5, 10), groups=[0], monotone="decreasing")
    with pytest.warns(DataWarning, match="outside the training doses"):
        band = one.dose_response(X[:1], [5000.0], groups=[0])
    assert band.extrapolated.all()
