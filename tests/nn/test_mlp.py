"""The perceptron against torch's own layers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, vmap

from ehrmeta.nn import MLP, TorchModule
from ehrmeta.nn.backbone import StepOptions
from ehrmeta.nn.mlp import ACTIVATIONS, prefers_low_rank

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


STEPS, RATE = 3, 0.07


def _task(generator: torch.Generator, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, generator=generator, dtype=torch.float64)


def _adapted_output(network, params, x, y, query, *, low_rank, max_norm=None, full_rates=False):
    rates = {
        name: torch.full_like(p, RATE) if full_rates else torch.tensor(RATE, dtype=p.dtype)
        for name, p in params.items()
    }
    fast = {}
    for _ in range(STEPS):
        fast = network.step(
            params,
            fast,
            x,
            lambda output: (output - y[:, None]) / len(y),
            rates,
            StepOptions(low_rank=low_rank, max_norm=max_norm),
        )
    return network.forward(params, fast, query)


def _textbook_output(network, params, x, y, query):
    """Full-weight SGD through ``torch.func.grad``."""

    def loss(weights):
        return 0.5 * (network.forward(weights, {}, x)[:, 0] - y).square().mean()

    for _ in range(STEPS):
        gradient = grad(loss)(params)
        params = {name: p - RATE * gradient[name] for name, p in params.items()}
    return network.forward(params, {}, query)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
@pytest.mark.parametrize("form", ["low_rank", "scalar rates", "full rates"])
def test_fast_weights_equal_full_weight_sgd(generator, activation, form):
    network = MLP((8, 5), activation).network(3, 1)
    params = {name: p.double() for name, p in network.init(generator).items()}
    (x, y), (query, _) = _task(generator), _task(generator, 4)
    adapted = _adapted_output(
        network, params, x, y, query, low_rank=form == "low_rank", full_rates=form == "full rates"
    )
    torch.testing.assert_close(adapted, _textbook_output(network, params, x, y, query))


@pytest.mark.parametrize("low_rank", [True, False])
def test_meta_gradients_equal_torch_func_over_a_batch(generator, low_rank):
    network = MLP((16, 16), "relu").network(3, 1)
    params = network.init(generator)
    x, y = torch.randn(7, 6, 3, generator=generator), torch.randn(7, 6, generator=generator)
    query = torch.randn(7, 5, 3, generator=generator)

    def meta_loss(params, output_of):
        outputs = vmap(lambda x, y, q: output_of(network, params, x, y, q))(x, y, query)
        return outputs.square().mean()

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    meta_loss(leaves, lambda *a: _adapted_output(*a, low_rank=low_rank)).backward()
    expected = grad(lambda p: meta_loss(p, _textbook_output))(params)
    for name, p in leaves.items():
        error = (p.grad - expected[name]).norm() / expected[name].norm()
        assert error < 1e-5, name


@pytest.mark.parametrize("low_rank", [True, False])
def test_meta_gradients_equal_finite_differences(generator, low_rank):
    network = MLP((4,), "tanh").network(3, 1)
    params = {name: p.double() for name, p in network.init(generator).items()}
    (x, y), (query, _) = _task(generator, 3), _task(generator, 2)

    def output(*leaves):
        return _adapted_output(
            network, dict(zip(params, leaves, strict=True)), x, y, query, low_rank=low_rank
        )

    leaves = [p.clone().requires_grad_() for p in params.values()]
    assert torch.autograd.gradcheck(output, leaves)


def test_clipping_bounds_the_inner_gradient_alike_in_both_forms(generator):
    network = MLP((8,), "relu").network(3, 1)
    params = {name: p.double() for name, p in network.init(generator).items()}
    x, y = _task(generator)
    y = 1000.0 * y
    clipped = [
        _adapted_output(network, params, x, y, x, low_rank=low_rank, max_norm=1.0)
        for low_rank in (True, False)
    ]
    torch.testing.assert_close(clipped[0], clipped[1])
    rates = {name: torch.tensor(1.0, dtype=p.dtype) for name, p in params.items()}
    step = network.step(
        params, {}, x, lambda output: output - y[:, None], rates, StepOptions(max_norm=1.0)
    )
    norm = torch.stack([change.square().sum() for change in step.values()]).sum().sqrt()
    assert abs(float(norm) - 1.0) < 1e-9


def test_torch_module_equals_the_same_perceptron(generator):
    network = MLP((8,), "tanh").network(3, 1)
    module = TorchModule(
        lambda i, o: torch.nn.Sequential(
            torch.nn.Linear(i, 8, dtype=torch.float64),
            torch.nn.Tanh(),
            torch.nn.Linear(8, o, dtype=torch.float64),
        )
    ).network(3, 1)
    params = {name: p.double() for name, p in network.init(generator).items()}
    renamed = {f"{2 * int(name[0])}{name[1:]}": value for name, value in params.items()}
    (x, y), (query, _) = _task(generator), _task(generator, 4)
    torch.testing.assert_close(
        _adapted_output(module, renamed, x, y, query, low_rank=False),
        _adapted_output(network, params, x, y, query, low_rank=True),
    )


def test_first_order_drops_the_second_derivative(generator):
    network = MLP((8,), "tanh").network(3, 1)
    params = network.init(generator)
    x, y = torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)

    def meta_gradient(first_order):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        rates = {name: torch.tensor(RATE) for name in params}
        fast = network.step(
            leaves,
            {},
            x,
            lambda o: (o - y[:, None]) / 6,
            rates,
            StepOptions(first_order=first_order),
        )
        network.forward(leaves, fast, x).square().mean().backward()
        return leaves, fast

    leaves, fast = meta_gradient(True)
    # FOMAML: the outer gradient taken at the adapted weights
    adapted = {
        "0.weight": params["0.weight"] + fast["0.first"].detach(),
        "0.bias": params["0.bias"] + fast["0.second"].detach(),
        "1.weight": params["1.weight"] + fast["1.first"].detach(),
        "1.bias": params["1.bias"] + fast["1.second"].detach(),
    }
    expected = grad(lambda p: network.forward(p, {}, x).square().mean())(adapted)
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, expected[name])
    second, _ = meta_gradient(False)
    assert not torch.allclose(second["0.weight"].grad, leaves["0.weight"].grad)


def test_keys_are_preferred_up_to_twice_the_cost_of_matrices():
    """``n (2 + 2) + n S (2 + 2)`` operations against twice ``2 * 2 + 2 * 2``."""
    shapes = [(2, 2), (2, 2)]
    assert prefers_low_rank(1, 3, shapes)
    assert not prefers_low_rank(1, 4, shapes)
    assert prefers_low_rank(2, 1, shapes)
    assert prefers_low_rank(2, 9, [(3, 2)])  # 10 against 12: steps do not count in the first layer
    assert not prefers_low_rank(3, 1, [(2, 2)])
    network = MLP((64,)).network(3, 1)
    params = network.init(torch.Generator().manual_seed(0))
    assert network.low_rank(params, 1, 1)
    assert not network.low_rank(params, 100, 5)


def test_initial_weights_have_the_sd_that_keeps_the_variance_of_relu_and_biases_are_0():
    params = MLP((400,)).network(50, 1).init(torch.Generator().manual_seed(0))
    assert float(params["0.weight"].std()) == pytest.approx((2.0 / 50) ** 0.5, rel=0.02)
    assert float(params["1.weight"].std()) == pytest.approx((2.0 / 400) ** 0.5, rel=0.1)
    assert not params["0.bias"].any()
    single = MLP((4000,)).network(1, 1).init(torch.Generator().manual_seed(0))
    assert float(single["0.weight"].std()) == pytest.approx(2.0**0.5, rel=0.05)
    empty = MLP((4,)).network(0, 1).init(torch.Generator().manual_seed(0))
    assert empty["0.weight"].shape == (4, 0)


def test_perceptrons_are_hashable_and_shown_with_what_differs_from_the_default():
    assert len({MLP((8,)), MLP((8,))}) == 2
    assert repr(MLP((8,))) == "MLP(hidden=(8,))"
    assert (MLP().hidden, MLP().activation) == ((64, 64), "tanh")
