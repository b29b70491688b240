"""A trained model says how tasks differ from the population, and how it was computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ehrmeta import MAML
from ehrmeta.errors import BundleError, DataWarning
from ehrmeta.estimators.meta_model import MetaModel
from tests.estimators.patients import small_model

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def _adapt(model, rows):
    return model.adapt(rows.X, rows.y, groups=rows.groups, time=rows.time)


def _predict(adapted, rows):
    return adapted.predict(rows.X, groups=rows.groups, time=rows.time)


def test_chunk_size_changes_predictions_by_rounding_only(model, halves):
    support, query = halves
    chunked = small_model(chunk_size=3)
    chunked.__dict__.update({k: v for k, v in vars(model).items() if k.endswith("_")})
    learner = replace(model.model_.learner, chunk_size=3)
    chunked.model_ = replace(model.model_, learner=learner)
    np.testing.assert_allclose(
        _predict(_adapt(chunked, support), query),
        _predict(_adapt(model, support), query),
        rtol=1e-5,
    )


def test_shrinkage_and_atypical_tasks(model, halves):
    support, _ = halves
    adapted = _adapt(model, support)
    assert adapted.eta_shrinkage_ < 0.5
    assert adapted.atypical_.shape == (20,)
    assert adapted.atypical_.min() > 1e-4
    odd = support._replace(y=np.where(support.groups == 1003, support.y + 60, support.y))
    with pytest.warns(DataWarning, match=r"1 of 20 adapted tasks \(first: task 3\)"):
        atypical = _adapt(model, odd)
    assert np.argmin(atypical.atypical_) == 3


def test_no_adaptation_is_full_shrinkage(patients, halves):
    X, y, groups, time = patients
    frozen = MAML(inner_lr=1e-6, learn_inner_lr=False, mixed_start=False)
    fitted = small_model(algorithm=frozen, max_steps=20).fit(X, y, groups=groups, time=time)
    assert _adapt(fitted, halves[0]).eta_shrinkage_ == pytest.approx(1.0, abs=0.2)


def test_own_weight_is_nan_without_a_posterior(model, halves):
    support, query = halves
    weight = _adapt(model, support).own_weight(query.X, groups=query.groups, time=query.time)
    assert weight.shape == (60,)
    assert np.isnan(weight).all()


def test_the_state_holds_no_training_row_and_gives_the_same_predictions(model, halves):
    tensors, metadata = model.model_.to_state()
    assert {name.partition(".")[0] for name in tensors} == {"params"}
    again = MetaModel.from_state(tensors, metadata)
    _, support = again.read_support(*halves[0][:2], groups=halves[0].groups, time=halves[0].time)
    points = [m.predict(support, m.adapt(support), support).point() for m in (again, model.model_)]
    np.testing.assert_array_equal(*points)


def test_a_state_with_a_tensor_too_many_is_refused(model):
    tensors, metadata = model.model_.to_state()
    with pytest.raises(BundleError, match="weight tensors; its settings imply"):
        MetaModel.from_state(tensors | {"params.more": torch.zeros(1)}, metadata)


def test_the_response_to_the_supports_outcomes_is_its_derivative(model, halves):
    """One task: the mean prediction as a function of the outcomes, at those that were seen."""
    one = [type(rows)(*(part[rows.groups == 1003] for part in rows)) for rows in halves]
    _, support = model.model_.read_support(*one[0][:2], time=one[0].time)
    response = model.model_.response(support, support)
    outcome = model.model_.table.outcome
    seen = outcome.inverse(response.predict(response.y).detach().numpy())
    point = model.model_.predict(support, model.model_.adapt(support), support).point()
    np.testing.assert_allclose(seen, point, rtol=1e-4)
    assert not torch.equal(response.predict(response.y + 1.0), response.predict(response.y))
