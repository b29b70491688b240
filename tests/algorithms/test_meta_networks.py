"""Meta networks read fast weights by attention."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from ehrmeta import MetaNetworks
from ehrmeta.algorithms import part
from tests.algorithms.one_task import points, predicted, started

ALGORITHM = MetaNetworks(width=4, base_width=5, meta_width=3)
QUERY = points(4, seed=1)


def test_without_memory_it_is_the_base_learner_on_slow_weights():
    spec, params = started(ALGORITHM)
    base = part(params, "base")
    k = torch.tanh(spec.network.forward(part(params, "network"), {}, QUERY.x))
    hidden = torch.tanh(linear(k, base["0.weight"], base["0.bias"]))
    slow = linear(hidden, base["1.weight"], base["1.bias"])[:, 0]
    torch.testing.assert_close(predicted(ALGORITHM, spec, params, points(0), QUERY), slow)
    forgetting = params | {"memory.nothing": torch.tensor(1e6, dtype=torch.float64)}
    torch.testing.assert_close(predicted(ALGORITHM, spec, forgetting, points(6), QUERY), slow)


def test_a_sharp_memory_reads_the_row_that_equals_the_query():
    spec, params = started(ALGORITHM)
    sharp = params | {"memory.log_sharpness": torch.tensor(12.0, dtype=torch.float64)}
    support = points(6)
    for i in range(6):
        row, at = (type(support)(*(tensor[s] for tensor in support)) for s in ([i], [i]))
        alone = predicted(ALGORITHM, spec, sharp, row, at)
        torch.testing.assert_close(predicted(ALGORITHM, spec, sharp, support, at), alone)


def test_base_and_meta_layers_are_named_parts():
    _, params = started(ALGORITHM)
    assert {name.split(".")[0] for name in params} == {
        "network",
        "likelihood",
        "base",
        "meta",
        "memory",
    }
