"""What a network without the optional methods can and cannot do."""

from __future__ import annotations

import joblib
import pytest
import torch

from ehrmeta.errors import DataError
from ehrmeta.nn import TorchModule
from ehrmeta.nn.backbone import Network


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
