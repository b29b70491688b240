"""Reptile moves the start toward each task's own fit."""

from __future__ import annotations

import torch

from ehrmeta import Reptile
from ehrmeta.algorithms import part
from ehrmeta.algorithms._base import all_rows
from tests.algorithms.one_task import points, started

SUPPORT, QUERY = points(4), points(3, seed=1)
ALGORITHM = Reptile(inner_lr=0.1, inner_steps=4, max_inner_norm=None)


def _textbook_fit(spec, params):
    """SGD on all rows of the task by autograd."""
    weights = part(params, "network")
    rows = all_rows(SUPPORT, QUERY)
    for _ in range(ALGORITHM.inner_steps):
        leaves = {name: p.detach().requires_grad_() for name, p in weights.items()}
        loss = 0.5 * (spec.network.forward(leaves, {}, rows.x)[:, 0] - rows.y).square().mean()
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        weights = {
            name: p - ALGORITHM.inner_lr * g
            for (name, p), g in zip(leaves.items(), gradient, strict=True)
        }
    return weights


def test_the_gradient_is_the_start_minus_the_tasks_own_fit():
    spec, params = started(ALGORITHM)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    ALGORITHM.loss(spec, leaves, SUPPORT, QUERY, 0.5).backward()
    fitted = _textbook_fit(spec, params)
    for name, weight in part(params, "network").items():
        direction = weight.detach() - fitted[name].detach()
        torch.testing.assert_close(params[f"network.{name}"].grad, direction)


def test_the_value_is_the_query_loss_and_trains_the_noise():
    spec, params = started(ALGORITHM)
    noise = params["likelihood.log_within"].requires_grad_()
    loss = ALGORITHM.loss(spec, params, SUPPORT, QUERY, 0.5)
    expected = super(Reptile, ALGORITHM).loss(spec, params, SUPPORT, QUERY, 0.5)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(value, noise)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted)
