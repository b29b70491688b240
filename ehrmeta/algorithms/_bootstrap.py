"""How much wider predictions must be where few tasks leave the parameters open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Episodes, Params
from ehrmeta.algorithms._mixed_start import MixedStart, fit_mixed_start
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Likelihood
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["inflation", "simulated_starts"]

_N_DRAWS = 20


def simulated_starts(
    tasks: TaskRows, likelihood: Likelihood, found: MixedStart, *, random_slope: bool
) -> Iterator[MixedStart]:
    """Estimates from outcomes drawn from the estimate: the parametric bootstrap."""
    rng = np.random.default_rng(0)
    starts, x = tasks.starts.numpy(), tasks.x.double().numpy()
    first = tasks.time[tasks.starts[tasks.codes]]
    s = ((tasks.time - first - found.mean_elapsed) / found.time_scale).numpy()
    effects = np.column_stack([np.ones_like(s), s]) @ found.root
    roots = []
    for a, b in pairwise(starts):
        memory = found.process_var * np.exp(-np.abs(s[a:b, None] - s[a:b]) / found.tau)
        noise = found.noise_var * np.eye(b - a)
        roots.append(np.linalg.cholesky(effects[a:b] @ effects[a:b].T + memory + noise))
    mean = found.intercept + x @ found.beta + found.beta_elapsed * s
    for _ in range(_N_DRAWS):
        drawn = [root @ rng.standard_normal(len(root)) for root in roots]
        y = torch.from_numpy(mean + np.concatenate(drawn)).to(tasks.y.dtype)
        again = replace(tasks, y=y, offset=torch.zeros_like(y))
        yield fit_mixed_start(
            again, likelihood, random_slope=random_slope, process=found.remembers, certain=True
        )


def inflation(
    parts: Callable[[Params, TaskSet, TaskSet], Sequence[Tensor]],
    params: Params,
    draws: Sequence[Params],
    episodes: Episodes,
) -> Tensor:
    """Factors of the scale, without and with support, for what few tasks leave unknown, (2,).

    By the law of total variance over bootstrap draws of the parameters, averaged over the
    training tasks.

    Parameters
    ----------
    parts : callable
        Of parameters, support and query of one task: mean and posterior mean second and third,
        predictive variance last.
    """

    def moments(params: Params, support: TaskSet, query: TaskSet) -> tuple[Tensor, Tensor]:
        _, mean, shift, *_, variance = parts(params, support, query)
        return mean + shift, variance

    plain, total, empty = [], [], []
    with torch.no_grad():
        for _, support, query in episodes:
            one_task = [partial(moments, drawn) for drawn in (params, *draws)]
            (_, own), *found = (vmap(function)(support, query) for function in one_task)
            locs, variances = (torch.stack(part) for part in zip(*found, strict=True))
            total.append((variances.mean(0) + locs.var(0))[query.mask])
            plain.append(own[query.mask])
            empty.append((support.n == 0)[:, None].expand(query.mask.shape)[query.mask])
    before, after, none = torch.cat(plain), torch.cat(total), torch.cat(empty)
    ratios = [
        after[chosen].sum() / before[chosen].sum().clamp(min=1e-300) for chosen in (none, ~none)
    ]
    return torch.sqrt(torch.stack(ratios)).clamp(min=1.0).to(params["inflation"].dtype)
