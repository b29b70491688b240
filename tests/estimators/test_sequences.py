"""Image and sequence networks plug in as `TorchModule`; a GRU is written as tensor algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ehrmeta import MAML, BayesianHead, MetaRegressor, TorchModule

N_STEPS, N_CHANNELS = 6, 2


class TinyGRU(torch.nn.Module):
    """A gated recurrent unit over (point, step * channel), without torch's own cell."""

    def __init__(self, n_features: int, n_outputs: int, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.read = torch.nn.Linear(n_features // N_STEPS, 3 * width)
        self.keep = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.width)
        for step in x.reshape(len(x), N_STEPS, self.read.in_features).unbind(1):
            read, keep = self.read(step).chunk(3, -1), self.keep(h).chunk(3, -1)
            reset = torch.sigmoid(read[0] + keep[0])
            update = torch.sigmoid(read[1] + keep[1])
            h = update * h + (1.0 - update) * torch.tanh(read[2] + reset * keep[2])
        return self.out(h)


@pytest.fixture(scope="module")
def sequences():
    """The outcome follows the last value seen, whose weight differs between tasks."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 12)
    walks = rng.normal(size=(len(groups), N_STEPS, N_CHANNELS)).cumsum(1) / 2.0
    slope = rng.normal(1.0, 0.7, 80)[groups]
    y = slope * walks[:, -1, 0] + 0.1 * rng.normal(size=len(groups))
    return walks.reshape(len(groups), -1), y, groups


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
@pytest.mark.parametrize("algorithm", [MAML(inner_steps=2), BayesianHead(8)], ids=["MAML", "head"])
def test_a_recurrent_cell_adapts_to_a_task(sequences, algorithm):
    X, y, groups = sequences
    training = groups < 60
    model = MetaRegressor(
        algorithm,
        TorchModule(TinyGRU),
        max_steps=150,
        batch_size=30,
        learning_rate=0.02,
        random_state=0,
        verbose=False,
    ).fit(X[training], y[training], groups=groups[training])
    first = np.arange(len(y)) % 12 < 6
    support, query = ~training & first, ~training & ~first
    adapted = model.adapt(X[support], y[support], groups=groups[support])
    error = adapted.predict(X[query], groups=groups[query]) - y[query]
    population = model.predict(X[query]) - y[query]
    assert np.mean(error**2) < 0.6 * np.mean(population**2)
