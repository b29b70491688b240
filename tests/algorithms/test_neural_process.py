"""`NeuralProcess` reads a support as a set."""

from __future__ import annotations

import pytest
import torch

from ehrmeta import NeuralProcess
from ehrmeta.errors import DataError
from tests.algorithms.one_task import points, predicted, started


@pytest.mark.parametrize("attentive", [True, False])
def test_order_of_the_support_is_not_read(attentive):
    algorithm = NeuralProcess(8, attentive=attentive)
    spec, params = started(algorithm)
    support, query = points(6), points(4, seed=1)
    turned = type(support)(*(tensor.flip(0) for tensor in support))
    torch.testing.assert_close(
        predicted(algorithm, spec, params, turned, query),
        predicted(algorithm, spec, params, support, query),
    )


def test_the_conditional_one_reads_the_mean_encoding_and_the_number_of_rows_only():
    algorithm = NeuralProcess(8, attentive=False)
    spec, params = started(algorithm)
    state = algorithm.adapt(spec, params, points(6))
    assert {name: value.shape for name, value in state.items()} == {"n": (), "mean": (8,)}


def test_with_many_rows_the_prior_encoding_is_forgotten():
    algorithm = NeuralProcess(8)
    spec, params = started(algorithm)
    other = params | {"prior": params["prior"] + 5.0}
    query, gaps = points(4, seed=1), []
    for n in (0, 10, 1000):
        support = points(n)
        moved = predicted(algorithm, spec, other, support, query)
        gaps.append(float((moved - predicted(algorithm, spec, params, support, query)).abs().max()))
    assert gaps[0] > gaps[1] > gaps[2]


def test_attention_is_the_attentive_ones_alone():
    attentive, conditional = NeuralProcess(8), NeuralProcess(8, attentive=False)
    spec, params = started(attentive)
    support, query = points(5), points(3, seed=1)
    state = attentive.adapt(spec, params, support)
    attention = attentive.attention(spec, params, state, query)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3).double())
    with pytest.raises(DataError, match="NeuralProcess does not predict by weighing"):
        conditional.attention(spec, params, state, query)
