"""Held-out tasks: the share of the training tasks that is used for early stopping."""

import math

import torch
from torch import Tensor

from ehrmeta.algorithms import Params
from ehrmeta.nn import TaskRows
from ehrmeta.training.episodes import EpisodeLoss, EpisodeSampler

HELD_OUT_SHARE = 0.1  # of the training tasks, unless `validation_fraction` says otherwise
_MIN_TASKS = 20  # with fewer training tasks, none is held out
_MIN_TASKS_KEEPS_START = 100  # the same for algorithms with `keeps_start`
_MIN_HELD_OUT_KEEPS_START = 30  # needed to tell whether training improved on the warm start
_MOST_HELD_OUT = 1_500  # enough to tell a gain
_N_DRAWS, _ENOUGH = 4, 1_000  # episodes per held-out task; one of more than 1,000 tasks
_TASKS_AT_ONCE = 1024


def hold_out(
    rows: TaskRows, share: float, generator: torch.Generator, *, keeps_start: bool
) -> tuple[TaskRows, TaskRows | None]:
    """Randomly split tasks into training and held-out tasks.

    Parameters
    ----------
    rows : TaskRows
    share : float
        Share of the tasks to hold out. With fewer than 20 tasks, none is held out. With
        `keeps_start`, none is held out with fewer than 100 tasks; otherwise at least 30 are. More
        than 1,500 never are.
    generator : torch.Generator
    keeps_start : bool
        Whether the algorithm keeps its warm start unless the held-out tasks improve.
    """
    fewest, least = (
        (_MIN_TASKS_KEEPS_START, _MIN_HELD_OUT_KEEPS_START) if keeps_start else (_MIN_TASKS, 1)
    )
    n_held_out = int(share * rows.n_tasks)
    if rows.n_tasks < fewest or n_held_out == 0:
        return rows, None
    n_held_out = min(max(n_held_out, least), _MOST_HELD_OUT)
    order = torch.randperm(rows.n_tasks, generator=generator)
    return rows.select(order[n_held_out:]), rows.select(order[:n_held_out])


class HeldOut:
    """Fixed episodes of the held-out tasks, which `sampler` draws with `seed`."""

    def __init__(self, sampler: EpisodeSampler, loss: EpisodeLoss, seed: int) -> None:
        self.loss = loss
        self.n_tasks = sampler.rows.n_tasks
        generator = torch.Generator().manual_seed(seed)
        tasks = torch.arange(self.n_tasks, device=sampler.rows.device)
        self.n_draws = _N_DRAWS if self.n_tasks <= _ENOUGH else 1
        self.episodes = [
            sampler.draw(batch, generator)
            for _ in range(self.n_draws)
            for batch in torch.split(tasks, _TASKS_AT_ONCE)
        ]

    def losses(self, params: Params) -> Tensor:
        """Mean loss (task,) of each held-out task over its episodes, for ``progress`` 1."""
        losses = [self.loss.losses(params, *episode) for episode in self.episodes]
        has_query = torch.cat([query.mask.any(1) for _, query in self.episodes])
        total = torch.cat(losses).view(self.n_draws, self.n_tasks).sum(0)
        return total / has_query.view(self.n_draws, self.n_tasks).sum(0).clamp(min=1)


def gained(before: Tensor, after: Tensor) -> bool:
    """Whether losses (task,) fell by more than two paired standard errors.

    Two standard errors rather than one, because `after` is the best of all checks on these tasks.
    """
    gain = before - after
    return float(gain.mean()) > 2.0 * float(gain.std()) / math.sqrt(len(gain))
