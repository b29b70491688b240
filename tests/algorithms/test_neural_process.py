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


def test_the_conditional_one_reads_the_mean_encoding_and_the_share_of_its_rows_only():
    algorithm = NeuralProcess(8, attentive=False)
    spec, params = started(algorithm)
    state = algorithm.adapt(spec, params, points(6))
    shapes = {name: value.shape for name, value in state.items()}
    assert shapes == {"n": (), "share": (), "mean": (8,)}


@pytest.mark.parametrize("attentive", [True, False])
def test_repeated_rows_add_less_and_less_information(attentive):
    """So a support far larger than those of training leads nowhere new."""
    algorithm = NeuralProcess(8, attentive=attentive)
    spec, params = started(algorithm)
    support, query = points(6), points(4, seed=1)
    found = [
        predicted(algorithm, spec, params, support._replace(weight=n * support.weight), query)
        for n in (1, 10, 1_000, 100_000)
    ]
    gaps = [float((n - found[-1]).abs().max()) for n in found[:-1]]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


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
    with pytest.raises(DataError, match="NeuralProcess has no support weights"):
        conditional.attention(spec, params, state, query)
