"""What a network without the optional methods can and cannot do."""

import pytest

from ehrmeta.nn.backbone import Network


class Plain(Network):
    """Only what the contract requires."""

    def init(self, generator):
        return {}

    def forward(self, params, fast, x):
        return x

    def step(self, params, fast, x, error, rates, **settings):
        return {}


def test_optional_methods_name_the_algorithm_that_needs_them():
    with pytest.raises(
        NotImplementedError, match=r"Plain has no gradient\(\): no LearnedOptimizer"
    ):
        Plain().gradient({}, {}, None, None)
    with pytest.raises(NotImplementedError, match=r"Plain has no change\(\): no Reptile"):
        Plain().change({})
    assert Plain().low_rank({}, 3, 3) is False


def test_the_contract_cannot_be_made_by_itself():
    with pytest.raises(TypeError, match="abstract"):
        Network()
