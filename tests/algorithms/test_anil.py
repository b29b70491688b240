"""ANIL is the inner loop of MAML on the head alone."""

from __future__ import annotations

import pytest
import torch
from sklearn.base import clone
from torch.nn.functional import linear

from ehrmeta import ANIL
from ehrmeta.algorithms import part
from ehrmeta.algorithms.maml import positive_rate
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


@pytest.mark.parametrize("pseudo_count", [0.0, 2.5])
def test_the_dual_form_is_gradient_descent_on_the_head(pseudo_count):
    """Rows of the population, as many as the pseudo-count, pull against each of the support."""
    algorithm = clone(ALGORITHM).set_params(pseudo_count=pseudo_count)
    spec, params = started(algorithm)
    assert ("log_pseudo_count" in params) == (pseudo_count > 0)
    h = _features(spec, params, SUPPORT.x)
    weight, bias = params["head.weight"], params["head.bias"]
    for _ in range(algorithm.inner_steps):
        error = (linear(h, weight, bias) - SUPPORT.y[:, None]) / (len(h) + pseudo_count)
        weight, bias = weight - 0.1 * error.mT @ h, bias - 0.1 * error.sum(0)
    expected = linear(_features(spec, params, QUERY.x), weight, bias)[:, 0]
    found = predicted(algorithm, spec, params, SUPPORT, QUERY)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_head_starts_small_without_a_bias_and_every_step_has_its_rate():
    spec, params = started(clone(ALGORITHM).set_params(width=900, max_inner_lr=0.4))
    assert float(params["head.weight"].std()) == pytest.approx(1 / 30, rel=0.1)
    assert not params["head.bias"].any()
    rates = positive_rate(params["rate"], 0.4)
    torch.testing.assert_close(rates, torch.full((4,), 0.1, dtype=rates.dtype))


def test_a_large_gradient_of_the_head_is_clipped():
    bounded = clone(ALGORITHM).set_params(inner_steps=1, max_inner_norm=1e-3)
    spec, params = started(bounded)
    state = bounded.adapt(spec, params, SUPPORT)
    moved = torch.cat([state["head.weight"].flatten(), state["head.bias"]])
    assert float(moved.norm()) == pytest.approx(0.1 * 1e-3, rel=1e-4)
