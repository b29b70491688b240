"""What a network without the optional methods can and cannot do."""

from __future__ import annotations

import joblib
import pytest
import torch

from ehrmeta.errors import DataError
from ehrmeta.nn import TorchModule
from ehrmeta.nn.backbone import PLAIN_STEP, Network, StepOptions, _curved, clipping


class Plain(Network):
    """Only what the contract requires."""

    def init(self, generator):
        return {}

    def forward(self, params, fast, x):
        return x

    def step(self, params, fast, x, error, rates, options=None):
        return {}


def test_optional_methods_name_the_algorithm_that_needs_them():
    with pytest.raises(
        NotImplementedError, match=r"Plain has no gradient\(\), which LearnedOptimizer needs"
    ):
        Plain().gradient({}, {}, None, None)
    with pytest.raises(NotImplementedError, match=r"Plain has no change\(\), which Reptile needs"):
        Plain().change({})
    assert Plain().low_rank({}, 3, 3) is False


def test_the_contract_cannot_be_made_by_itself():
    with pytest.raises(TypeError, match="abstract"):
        Network()


class RandomFeatures(torch.nn.Module):
    """A linear map of random, constant features."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(n_features, 8))
        self.linear = torch.nn.Linear(8, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cos(x @ self.frequencies))


def _outputs(network, generator_seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    params = network.init(torch.Generator().manual_seed(generator_seed))
    x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3).to(dtype)
    return network.forward({name: p.to(dtype) for name, p in params.items()}, {}, x)


def test_random_buffers_do_not_depend_on_the_global_generator():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(_outputs(TorchModule(RandomFeatures).network(3, 2)))
    assert torch.equal(*found)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _outputs(TorchModule(RandomFeatures).network(3, 2))
    assert torch.equal(torch.rand(2), expected)


def test_buffers_follow_the_data_to_double_precision():
    network = TorchModule(RandomFeatures).network(3, 2)
    double = _outputs(network, dtype=torch.float64)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), _outputs(network))


def test_a_network_survives_pickling(tmp_path):
    network = TorchModule(RandomFeatures).network(3, 2)
    joblib.dump(network, tmp_path / "network.joblib")
    again = joblib.load(tmp_path / "network.joblib")
    assert torch.equal(_outputs(again, 5), _outputs(network, 5))


@pytest.mark.parametrize(
    ("layer", "instead"),
    [
        (torch.nn.BatchNorm1d(3, track_running_stats=False), "use LayerNorm or GroupNorm"),
        (torch.nn.Dropout(), "remove it"),
        (torch.nn.GRU(3, 3), "write the cell as tensor algebra"),
    ],
)
def test_layers_that_mix_rows_or_draw_numbers_are_refused(layer, instead):
    with pytest.raises(DataError, match=rf"layer '1' is a {type(layer).__name__}.*{instead}"):
        TorchModule(lambda i, o: torch.nn.Sequential(torch.nn.Linear(i, 3), layer)).network(3, 1)


def test_a_plain_step_is_of_full_rank_and_of_second_order_without_a_bound():
    assert StepOptions(False, None, False, None) == PLAIN_STEP


def test_a_gradient_is_clipped_to_a_norm():
    squared = torch.tensor([100.0, 4.0, 1.0])
    torch.testing.assert_close(clipping(squared, 2.0), torch.tensor([0.2, 1.0, 1.0]))
    assert clipping(squared, None) == 1.0


def test_curvature_multiplies_weights_from_both_sides_and_biases_from_the_left():
    generator = torch.Generator().manual_seed(0)
    left, right, gradient = (torch.randn(3, 3, generator=generator) for _ in range(3))
    curvature = {"left.0.weight": left, "right.0.weight": right}
    torch.testing.assert_close(_curved("0.weight", gradient, curvature), left @ gradient @ right)
    torch.testing.assert_close(_curved("0.bias", gradient[0], curvature), left @ gradient[0])
    assert _curved("1.weight", gradient, curvature) is gradient
    vector = gradient[0]
    assert _curved("1.bias", vector, curvature) is vector
    kernel = torch.randn(3, 3, 2, generator=generator)
    wide = {"left.0.weight": left, "right.0.weight": torch.eye(6)}
    torch.testing.assert_close(
        _curved("0.weight", kernel, wide), torch.einsum("oi,ijk->ojk", left, kernel)
    )


def test_a_step_of_a_module_is_one_of_gradient_descent_with_its_options():
    network = TorchModule(torch.nn.Linear).network(3, 1)
    params = network.init(torch.Generator().manual_seed(0))
    x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
    rates = {"weight": torch.tensor(0.5), "bias": torch.tensor(0.25)}
    gradient = network.gradient(params, {}, x, torch.ones_like)
    torch.testing.assert_close(gradient["weight"], x.sum(0, keepdim=True))
    torch.testing.assert_close(gradient["bias"], torch.tensor([2.0]))
    once = network.step(params, {}, x, torch.ones_like, rates)
    for name, value in gradient.items():
        torch.testing.assert_close(once[name], -rates[name] * value)
    twice = network.step(params, once, x, torch.ones_like, rates)
    torch.testing.assert_close(twice["bias"], 2.0 * once["bias"])
    norm = torch.cat([value.flatten() for value in gradient.values()]).norm()
    clipped = network.step(params, {}, x, torch.ones_like, rates, StepOptions(max_norm=1.0))
    torch.testing.assert_close(clipped["weight"], once["weight"] / norm)
    assert network.change(once) == once
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    for first_order in (True, False):
        options = StepOptions(first_order=first_order)
        moved = network.step(leaves, {}, x, torch.square, rates, options)
        assert moved["weight"].requires_grad != first_order


def test_seeds_decide_initial_weights():
    network = TorchModule(torch.nn.Linear).network(3, 1)
    one, other, again = (
        network.init(torch.Generator().manual_seed(seed))["weight"] for seed in (0, 1, 0)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert hash(TorchModule(torch.nn.Linear))
    assert repr(TorchModule(torch.nn.Linear)).startswith("TorchModule(factory=")
