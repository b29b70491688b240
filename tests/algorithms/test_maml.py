"""Derivative-order annealing of MAML; meta-curvature is MAML with a matrix preconditioner."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import MAML, MLP, MetaCurvature, TorchModule
from ehrmeta.algorithms import part
from tests.algorithms.one_task import points, predicted, started

SUPPORT, QUERY = points(5), points(4, seed=1)
OPTIONS = {"inner_lr": 0.1, "inner_steps": 2, "max_inner_norm": None}


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


def _scrambled(params, seed=0):
    """Curvature matrices far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.5 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if name.startswith("curvature")
        else value
        for name, value in params.items()
    }


@pytest.mark.parametrize("width", [2, 40], ids=["materialised", "low rank"])
def test_at_the_identity_it_is_maml(width):
    backbone = MLP((width, width), "tanh")
    curved, plain = MetaCurvature(**OPTIONS), MAML(**OPTIONS)
    found = predicted(curved, *started(curved, backbone), SUPPORT, QUERY)
    torch.testing.assert_close(found, predicted(plain, *started(plain, backbone), SUPPORT, QUERY))


@pytest.mark.parametrize("width", [2, 40], ids=["materialised", "low rank"])
def test_a_step_is_the_gradient_between_the_matrices(width):
    algorithm = MetaCurvature(inner_lr=0.1, inner_steps=1, pseudo_count=0.0, max_inner_norm=None)
    spec, params = started(algorithm, MLP((width, width), "tanh"))
    params = _scrambled(params)
    network, curvature = part(params, "network"), part(params, "curvature")
    assert spec.network.low_rank(network, len(SUPPORT.y), 1) == (width == 40)
    leaves = {name: p.clone().requires_grad_() for name, p in network.items()}
    loss = 0.5 * (spec.network.forward(leaves, {}, SUPPORT.x)[:, 0] - SUPPORT.y).square().mean()
    gradient = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    adapted = {}
    for layer in range(3):
        left = curvature[f"left.{layer}.weight"]
        step = left @ gradient[f"{layer}.weight"] @ curvature[f"right.{layer}.weight"]
        adapted[f"{layer}.weight"] = network[f"{layer}.weight"] - 0.1 * step
        adapted[f"{layer}.bias"] = network[f"{layer}.bias"] - 0.1 * left @ gradient[f"{layer}.bias"]
    expected = spec.network.forward(adapted, {}, QUERY.x)[:, 0]
    torch.testing.assert_close(predicted(algorithm, spec, params, SUPPORT, QUERY), expected)


def test_a_torch_module_takes_the_same_metric():
    algorithm = MetaCurvature(**OPTIONS)
    module = TorchModule(
        lambda i, o: torch.nn.Sequential(
            torch.nn.Linear(i, 6, dtype=torch.float64),
            torch.nn.Tanh(),
            torch.nn.Linear(6, o, dtype=torch.float64),
        )
    )
    spec, params = started(algorithm, MLP((6,), "tanh"))
    params = _scrambled(params)
    twin, _ = started(algorithm, module)
    renamed = {name.replace(".1.", ".2."): value for name, value in params.items()}
    torch.testing.assert_close(
        predicted(algorithm, twin, renamed, SUPPORT, QUERY),
        predicted(algorithm, spec, params, SUPPORT, QUERY),
    )
