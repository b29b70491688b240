"""Laws of the spread: it finds a scale that varies, and leaves what does not, and the mean."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import DeepMixedEffects
from ehrmeta.algorithms.deep_mixed_effects.correction import MAX_LOG_FACTOR, fit_spread
from tests.algorithms.one_task import points, started


def _rows(n_tasks: int = 400, per_task: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = n_tasks * per_task
    terms = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    terms[:, 0] = 1.0
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return terms, noise, torch.arange(n_tasks).repeat_interleave(per_task)


def test_a_scale_that_varies_is_detected():
    terms, noise, task = _rows()
    truth = torch.tensor([0.1, 0.3, 0.0], dtype=torch.float64)
    ratio = (noise * torch.exp(terms @ truth)).square()
    found = fit_spread(terms, ratio, torch.ones_like(noise), task)
    torch.testing.assert_close(found, truth, atol=0.06, rtol=0)


def test_a_scale_that_does_not_vary_is_unchanged():
    terms, noise, task = _rows()
    assert not fit_spread(terms, noise.square(), torch.ones_like(noise), task).any()


def test_gross_errors_and_rows_of_no_weight_move_it_little():
    terms, noise, task = _rows()
    ratio, weight = noise.square(), torch.ones_like(noise)
    ratio[:2], weight[1] = 1e12, 0.0
    found = terms @ fit_spread(terms, ratio, weight, task)
    assert float(found.abs().max()) < 0.5 < MAX_LOG_FACTOR


@pytest.mark.parametrize("log_factor", [-0.7, 0.7])
def test_the_mean_learns_the_same_whatever_the_factor_of_the_scale(log_factor):
    algorithm = DeepMixedEffects()
    spec, params = started(algorithm)
    support, query = points(3, 0), points(5, 1)
    gradients = []
    for value in (0.0, log_factor):
        spread = torch.zeros_like(params["correction_spread"])
        spread[0] = value
        leaf = params["beta"].clone().requires_grad_()
        one = params | {"beta": leaf, "correction_spread": spread}
        algorithm.loss(spec, one, support, query, torch.tensor(0.5)).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()
