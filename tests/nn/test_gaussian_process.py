"""Conditioning: the joint normal distribution, and weight space equals function space."""

import torch

from ehrmeta.nn.gaussian_process import condition, condition_effects, posterior, posterior_effects

GENERATOR = torch.Generator().manual_seed(0)
EFFECTS = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
QUERY = torch.randn(4, 3, generator=GENERATOR, dtype=torch.float64)
RESIDUAL = torch.randn(6, generator=GENERATOR, dtype=torch.float64)
NOISE = torch.linspace(0.2, 1.2, 6, dtype=torch.float64)
ALL = torch.ones(6, dtype=torch.bool)
PRIOR = QUERY.square().sum(1)


def test_posterior_is_that_of_the_joint_normal() -> None:
    state = condition(EFFECTS @ EFFECTS.mT, RESIDUAL, NOISE, ALL)
    mean, variance = posterior(state, QUERY @ EFFECTS.mT, PRIOR)
    inverse = torch.linalg.inv(EFFECTS @ EFFECTS.mT + torch.diag(NOISE))
    cross = QUERY @ EFFECTS.mT
    torch.testing.assert_close(mean, cross @ inverse @ RESIDUAL)
    torch.testing.assert_close(variance, PRIOR - ((cross @ inverse) * cross).sum(1))


def test_weight_space_equals_function_space_also_under_a_mask() -> None:
    mask = torch.tensor([True, True, False, True, False, True])
    by_kernel = condition(EFFECTS @ EFFECTS.mT, RESIDUAL, NOISE, mask)
    by_weights = condition_effects(EFFECTS, RESIDUAL, NOISE, mask)
    expected = posterior(by_kernel, QUERY @ EFFECTS.mT, PRIOR)
    torch.testing.assert_close(posterior_effects(by_weights, QUERY), expected)
    short = condition_effects(EFFECTS[mask], RESIDUAL[mask], NOISE[mask], ALL[mask])
    torch.testing.assert_close(posterior_effects(short, QUERY), expected)


def test_without_a_row_the_posterior_is_the_prior() -> None:
    none = torch.zeros(6, dtype=torch.bool)
    mean, variance = posterior_effects(condition_effects(EFFECTS, RESIDUAL, NOISE, none), QUERY)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    torch.testing.assert_close(variance, PRIOR)
