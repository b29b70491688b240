"""The population model never adapts."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import MLP, FineTune, PerTask, Population
from ehrmeta.algorithms import Spec, part
from ehrmeta.nn import TaskSet
from ehrmeta.nn.batch import empty_set
from ehrmeta.nn.likelihoods import Categorical
from tests.algorithms.one_task import points, predicted, started

ALGORITHM, QUERY = Population(), points(4, seed=1)
SUPPORT, QUERY = points(12), points(4, seed=1)


def test_no_support_changes_anything():
    spec, params = started(ALGORITHM)
    found = [
        ALGORITHM.predict(spec, params, ALGORITHM.adapt(spec, params, support), QUERY)
        for support in (points(0), points(9))
    ]
    torch.testing.assert_close(*found, rtol=0.0, atol=0.0)


def test_support_and_query_train_alike():
    spec, params = started(ALGORITHM)
    support = points(4)
    losses = [
        ALGORITHM.loss(spec, params, *sets, 0.5) for sets in ((support, QUERY), (QUERY, support))
    ]
    torch.testing.assert_close(*losses)


def test_a_linear_network_from_scratch_is_least_squares():
    algorithm = PerTask(inner_lr=0.3, inner_steps=600, max_inner_norm=None)
    found = predicted(algorithm, *started(algorithm, MLP(())), SUPPORT, QUERY)
    ones = torch.ones(12, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([SUPPORT.x, ones], 1), SUPPORT.y[:, None]).solution
    expected = (torch.cat([QUERY.x, ones[:4]], 1) @ solution)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_training_over_tasks_leaves_its_start_alone():
    algorithm = PerTask(inner_steps=3)
    spec, params = started(algorithm)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    algorithm.loss(spec, leaves, SUPPORT, QUERY, 0.5).backward()
    assert all(p.grad is None for p in part(params, "network").values())
    assert all(p.grad is not None for p in part(params, "likelihood").values())


def test_without_rows_all_classes_are_equally_likely():
    algorithm, likelihood = PerTask(inner_steps=3), Categorical(3)
    spec = Spec(MLP((6,)).network(3, 3), likelihood, 3)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    none = empty_set(1, 3, torch.zeros(()))
    nothing = TaskSet(*(tensor[0] for tensor in none))
    query = TaskSet(*(tensor.float() for tensor in QUERY))
    state = algorithm.adapt(spec, params, nothing)
    logits = algorithm.predict(spec, params, state, query)["logits"]
    torch.testing.assert_close(logits.softmax(1), torch.full((4, 3), 1 / 3))


def test_a_fine_tuned_linear_network_is_least_squares():
    algorithm = FineTune(inner_lr=0.3, inner_steps=600, max_inner_norm=None)
    found = predicted(algorithm, *started(algorithm, MLP(())), SUPPORT, QUERY)
    ones = torch.ones(12, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([SUPPORT.x, ones], 1), SUPPORT.y[:, None]).solution
    expected = (torch.cat([QUERY.x, ones[:4]], 1) @ solution)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_is_trained_as_the_population_is():
    gradients = []
    for algorithm in (FineTune(inner_steps=3), Population()):
        spec, params = started(algorithm)
        leaves = {name: p.requires_grad_() for name, p in params.items()}
        algorithm.loss(spec, leaves, SUPPORT, QUERY, 0.5).backward()
        gradients.append({name: p.grad for name, p in part(params, "network").items()})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("learned", [True, False])
def test_the_rate_follows_the_query_where_it_is_learned(learned):
    algorithm = FineTune(inner_steps=1, max_inner_norm=None, learn_inner_lr=learned)
    spec, params = started(algorithm)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    algorithm.loss(spec, leaves, SUPPORT, QUERY, 0.5).backward()
    slope = leaves["rate"].grad

    def query_loss_at(change: float) -> float:
        changed = {name: p.detach() for name, p in params.items()}
        changed["rate"] = changed["rate"] + change
        return float(algorithm.loss(spec, changed, SUPPORT, QUERY, 0.5))

    difference = (query_loss_at(1e-5) - query_loss_at(-1e-5)) / 2e-5
    assert abs(difference) > 1e-4
    assert (slope is not None) == learned
    if learned:
        assert float(slope) == pytest.approx(difference, rel=1e-5)


def test_the_value_of_the_loss_is_that_of_the_query_after_fine_tuning():
    for algorithm in (FineTune(inner_steps=3), PerTask(inner_steps=3)):
        spec, params = started(algorithm)
        state = algorithm.adapt(spec, params, SUPPORT)
        predictive = algorithm.predict(spec, params, state, QUERY)
        expected = -spec.likelihood.log_prob(predictive, QUERY.y).mean()
        found = algorithm.loss(spec, params, SUPPORT, QUERY, torch.tensor(0.5))
        torch.testing.assert_close(found, expected)
