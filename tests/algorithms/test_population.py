"""The population model never adapts."""

from __future__ import annotations

import torch

from ehrmeta import Population
from tests.algorithms.one_task import points, started

ALGORITHM, QUERY = Population(), points(4, seed=1)


def test_no_support_changes_anything():
    spec, params = started(ALGORITHM)
    found = [
        ALGORITHM.predict(spec, params, ALGORITHM.adapt(spec, params, support), QUERY)
        for support in (points(0), points(9))
    ]
    torch.testing.assert_close(*found, rtol=0.0, atol=0.0)


def test_support_and_query_train_alike():
    spec, params = started(ALGORITHM)
    support = points(4)
    losses = [
        ALGORITHM.loss(spec, params, *sets, 0.5) for sets in ((support, QUERY), (QUERY, support))
    ]
    torch.testing.assert_close(*losses)
