"""Fine-tuning starts at the pooled fit and ends at the task's own."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import MLP, FineTune, Population
from ehrmeta.algorithms import part
from tests.algorithms.one_task import points, predicted, started

SUPPORT, QUERY = points(12), points(4, seed=1)


def test_to_convergence_on_a_linear_network_it_is_least_squares():
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
        moved = {name: p.detach() for name, p in params.items()}
        moved["rate"] = moved["rate"] + change
        return float(algorithm.loss(spec, moved, SUPPORT, QUERY, 0.5))

    difference = (query_loss_at(1e-5) - query_loss_at(-1e-5)) / 2e-5
    assert abs(difference) > 1e-4
    assert (slope is not None) == learned
    if learned:
        assert float(slope) == pytest.approx(difference, rel=1e-5)
