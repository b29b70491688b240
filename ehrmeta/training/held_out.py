"""Held-out tasks: the judge of when to stop, and of whether training was worth it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params
from ehrmeta.training.episodes import EpisodeSampler
from ehrmeta.training.gradient import EpisodeLoss

__all__ = ["HeldOut", "gained"]

_N_DRAWS = 4  # episodes of every held-out task
_TASKS_AT_ONCE = 1024


class HeldOut:
    """A fixed set of episodes of tasks that training does not see.

    Parameters
    ----------
    sampler : EpisodeSampler
        Of the held-out tasks.
    loss : EpisodeLoss
    seed : int
        Of the episodes.
    """

    def __init__(self, sampler: EpisodeSampler, loss: EpisodeLoss, seed: int) -> None:
        self.loss = loss
        self.n_tasks = sampler.rows.n_tasks
        generator = torch.Generator().manual_seed(seed)
        tasks = torch.arange(self.n_tasks, device=sampler.rows.device)
        self.episodes = [
            sampler.draw(batch, generator)
            for _ in range(_N_DRAWS)
            for batch in torch.split(tasks, _TASKS_AT_ONCE)
        ]

    def losses(self, params: Params) -> Tensor:
        """Mean loss (task,) of each held-out task at the end of the schedule."""
        losses = [self.loss.losses(params, *episode) for episode in self.episodes]
        asked = torch.cat([query.mask.any(1) for _, query in self.episodes])
        total = torch.cat(losses).view(_N_DRAWS, self.n_tasks).sum(0)
        return total / asked.view(_N_DRAWS, self.n_tasks).sum(0).clamp(min=1)


def gained(before: Tensor, after: Tensor) -> bool:
    """Whether losses (task,) fell by more than two paired standard errors.

    One would not do: `after` is the best of all checks on the same tasks.
    """
    gain = before - after
    return float(gain.mean()) > 2.0 * float(gain.std()) / math.sqrt(len(gain))
