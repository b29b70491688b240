"""The perceptron against torch's own layers and gradients."""

import pytest
import torch
from torch.func import grad

from ehrmeta import MLP
from ehrmeta.nn.backbone import StepOptions
from ehrmeta.nn.mlp import ACTIVATIONS

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def made(hidden=(4, 6), activation="tanh"):
    network = MLP(hidden, activation).network(3, 2)
    params = network.init(torch.Generator().manual_seed(0))
    return network, {name: value.double() for name, value in params.items()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_that_of_torchs_layers(activation):
    network, params = made(activation=activation)
    h = X
    for layer in range(3):
        h = torch.nn.functional.linear(h, params[f"{layer}.weight"], params[f"{layer}.bias"])
        if layer < 2:
            h = getattr(torch.nn.functional, activation)(h)
    torch.testing.assert_close(network.forward(params, {}, X), h)


def test_without_hidden_layers_it_is_linear():
    network, params = made(hidden=())
    expected = X @ params["0.weight"].mT + params["0.bias"]
    torch.testing.assert_close(network.forward(params, {}, X), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_hand_written_gradient_is_autograds(activation):
    network, params = made(activation=activation)
    y = torch.ones(5, 2, dtype=torch.float64)
    gradient = network.gradient(params, {}, X, lambda output: output - y)
    expected = grad(lambda p: 0.5 * (network.forward(p, {}, X) - y).square().sum())(params)
    for layer in range(3):
        torch.testing.assert_close(gradient[f"{layer}.first"], expected[f"{layer}.weight"])
        torch.testing.assert_close(gradient[f"{layer}.second"], expected[f"{layer}.bias"])


@pytest.mark.parametrize("low_rank", [True, False])
def test_the_change_of_a_step_is_minus_the_rate_times_the_gradient(low_rank):
    network, params = made()
    rates = dict.fromkeys(params, torch.tensor(0.1, dtype=torch.float64))
    fast = network.step(params, {}, X, torch.ones_like, rates, StepOptions(low_rank=low_rank))
    adapted = {name: params[name] + value for name, value in network.change(fast).items()}
    torch.testing.assert_close(network.forward(adapted, {}, X), network.forward(params, fast, X))
    gradient = network.gradient(params, {}, X, torch.ones_like)
    torch.testing.assert_close(network.change(fast)["0.weight"], -0.1 * gradient["0.first"])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_are_those_of_the_functions(activation):
    function, derivative = ACTIVATIONS[activation]
    z = torch.linspace(-2, 2, 8, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(function(z).sum(), z)
    torch.testing.assert_close(derivative(z, function(z)).detach(), expected)
