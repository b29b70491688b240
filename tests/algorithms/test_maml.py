"""Derivative-order annealing: first order for a share of the training, exact after it."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import MAML
from tests.algorithms.one_task import points, started

SUPPORT, QUERY = points(5), points(4, seed=1)


def _gradient(algorithm, progress):
    spec, params = started(algorithm)
    weight = params["network.0.weight"].requires_grad_()
    loss = algorithm.at(progress).loss(spec, params, SUPPORT, QUERY, torch.tensor(progress))
    return torch.autograd.grad(loss, weight)[0]


@pytest.mark.parametrize(("progress", "first_order"), [(0.2, True), (0.3, False), (1.0, False)])
def test_the_order_changes_at_the_share_given(progress, first_order):
    annealed = _gradient(MAML(first_order_share=0.3), progress)
    expected = _gradient(MAML(first_order=first_order), progress)
    other = _gradient(MAML(first_order=not first_order), progress)
    torch.testing.assert_close(annealed, expected, rtol=0.0, atol=0.0)
    assert not torch.allclose(annealed, other)
