"""ANIL is the inner loop of MAML on the head alone."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from ehrmeta import ANIL
from ehrmeta.algorithms import part
from tests.algorithms.one_task import points, predicted, started

SUPPORT, QUERY = points(5), points(4, seed=1)
ALGORITHM = ANIL(inner_lr=0.1, inner_steps=4, pseudo_count=0.0, max_inner_norm=None, width=7)


def _features(spec, params, x):
    return torch.tanh(spec.network.forward(part(params, "network"), {}, x))


def test_adapting_leaves_the_body_as_it_is():
    spec, params = started(ALGORITHM)
    before = {name: value.clone() for name, value in params.items()}
    state = ALGORITHM.adapt(spec, params, SUPPORT)
    assert set(state) == {"n", "head.weight", "head.bias"}
    torch.testing.assert_close(params, before, rtol=0.0, atol=0.0)
    head = {name: params[name] + state[name] for name in ("head.weight", "head.bias")}
    expected = linear(_features(spec, params, QUERY.x), head["head.weight"], head["head.bias"])
    found = ALGORITHM.predict(spec, params, state, QUERY)["loc"]
    torch.testing.assert_close(found, expected[:, 0])


def test_the_dual_form_is_gradient_descent_on_the_head():
    spec, params = started(ALGORITHM)
    h = _features(spec, params, SUPPORT.x)
    weight, bias = params["head.weight"], params["head.bias"]
    for _ in range(ALGORITHM.inner_steps):
        error = (linear(h, weight, bias) - SUPPORT.y[:, None]) / len(h)
        weight, bias = weight - 0.1 * error.mT @ h, bias - 0.1 * error.sum(0)
    expected = linear(_features(spec, params, QUERY.x), weight, bias)[:, 0]
    torch.testing.assert_close(predicted(ALGORITHM, spec, params, SUPPORT, QUERY), expected)
