"""A task by itself, from scratch."""

from __future__ import annotations

import torch

from ehrmeta import MLP, PerTask
from ehrmeta.algorithms import Spec, part
from ehrmeta.nn import TaskSet
from ehrmeta.nn.batch import empty_set
from ehrmeta.nn.likelihoods import Categorical
from tests.algorithms.one_task import points, predicted, started

SUPPORT, QUERY = points(12), points(4, seed=1)


def test_to_convergence_on_a_linear_network_it_is_least_squares():
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
