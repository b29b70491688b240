"""The learned optimiser contains gradient descent, and is bounded."""

from __future__ import annotations

import math

import torch

from ehrmeta import MAML, LearnedOptimizer
from ehrmeta.algorithms import part
from tests.algorithms.one_task import points, predicted, started

SUPPORT, QUERY = points(5), points(4, seed=1)


def test_a_frozen_cell_of_minus_rate_times_gradient_is_maml():
    learned, maml = LearnedOptimizer(inner_lr=0.1, inner_steps=3), MAML(inner_lr=0.1, inner_steps=3)
    spec, params = started(learned)
    frozen = params | {
        "cell.readout": torch.zeros_like(params["cell.readout"]),
        "cell.start": torch.tensor([math.atanh(0.1), -math.inf], dtype=torch.float64),
    }
    expected = predicted(maml, *started(maml), SUPPORT, QUERY)
    found = predicted(learned, spec, frozen, SUPPORT, QUERY)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_step_is_bounded_for_any_output_of_the_cell():
    algorithm = LearnedOptimizer(inner_steps=1, max_inner_lr=0.5, max_inner_norm=2.0)
    spec, params = started(algorithm)
    wild = {k: 1e3 * v if k.startswith("cell") else v for k, v in params.items()}
    state = algorithm.adapt(spec, wild, SUPPORT._replace(y=1e4 * SUPPORT.y))
    squared = sum(float(change.square().sum()) for change in part(state, "fast").values())
    assert 0.0 < math.sqrt(squared) <= 0.5 * 2.0 + 1e-9


def test_the_cell_remembers_past_gradients():
    algorithm = LearnedOptimizer(inner_steps=2)
    spec, params = started(algorithm)
    forgetful = params | {"cell.start": torch.stack([params["cell.start"][0], torch.tensor(-1e9)])}
    found, memoryless = (predicted(algorithm, spec, p, SUPPORT, QUERY) for p in (params, forgetful))
    assert not torch.allclose(found, memoryless)
