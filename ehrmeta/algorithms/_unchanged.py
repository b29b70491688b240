"""Whether a task's outcome stays at its last value, and where it goes else: two ridge regressions.

Both read the same few terms: how old the last value is and how long it has held, whether it is an
end of the scale, and where the process and the support's highest, lowest and first value lie from
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Params
from ehrmeta.nn.batch import TaskSet

__all__ = ["N_TERMS", "fit_unchanged", "moved", "terms", "unchanged_params", "values"]

N_TERMS = 8
_PENALTY = 20.0  # tasks that a coefficient must convince; chosen on stays of no benchmark
_LEAST_SHARE = 0.1  # of query rows at the last value: below it nothing is carried forward
_NEVER = -30.0  # log-odds
_FAR = 1e9  # ends that no value reaches


def unchanged_params() -> dict[str, Tensor]:
    """Nothing stays unchanged, and the process is believed."""
    return {
        "unchanged_center": torch.zeros(N_TERMS),
        "unchanged_spread": torch.ones(N_TERMS),
        "unchanged_ends": torch.tensor([-_FAR, _FAR]),
        "unchanged_log_step": torch.zeros(()),
        "unchanged_log_odds": torch.tensor([_NEVER] + [0.0] * N_TERMS),
        "unchanged_shift": torch.zeros(1 + N_TERMS),
        "unchanged_log_factor": torch.zeros(()),
    }


def values(support: TaskSet) -> dict[str, Tensor]:
    """What is kept of a support, () each: its last value, how long it held, and the extremes."""
    mask, time = support.mask, support.time
    y = support.y.double()
    residual, weight = y - support.offset.double(), support.weight.double()

    def mean_at(chosen: Tensor, of: Tensor) -> Tensor:
        share = weight * chosen
        return (share * of).sum() / share.sum().clamp(min=1e-12)

    def highest(of: Tensor, chosen: Tensor = mask) -> Tensor:
        if not len(of):
            return of.new_full((), -torch.inf)
        return torch.where(chosen, of, -torch.inf).amax(-1)

    latest = mask & (time == highest(time))
    earliest = mask & (time == -highest(-time))
    last = mean_at(latest, y)
    since = highest(time, mask & (y != last))  # rows after it hold the last value
    some = mask.any() if len(y) else mask.new_zeros(())
    from_last = {
        "support_highest": highest(residual),
        "support_lowest": -highest(-residual),
        "support_first": mean_at(earliest, residual),
    }
    own = mean_at(latest, residual)
    return {
        "support_last": last,
        "support_level": own,
        "support_held": torch.log1p((weight * (mask & (time > since))).sum()),
        **{name: torch.where(some, value - own, 0.0) for name, value in from_last.items()},
    }


def terms(params: Params, state: dict[str, Tensor], query: TaskSet, loc: Tensor) -> Tensor:
    """(point, term), as they come; `loc` (point,) is the process's prediction."""
    age = torch.log1p(query.time.clamp(min=0.0) / params["time_scale"].detach())
    low, high = params["unchanged_ends"].detach()
    columns = [
        age,
        state["support_held"],
        (state["support_last"] <= low).double(),
        (state["support_last"] >= high).double(),
        loc - query.offset - state["support_level"],
        state["support_highest"],
        state["support_lowest"],
        state["support_first"],
    ]
    return torch.stack([column.expand(len(age)) for column in columns], -1)


def moved(
    params: Params, state: dict[str, Tensor], query: TaskSet, loc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-odds of no change, and shift and factor of the process's prediction, (point,) each."""
    found = terms(params, state, query, loc) - params["unchanged_center"].detach()
    found = torch.cat(
        [torch.ones_like(loc)[:, None], found / params["unchanged_spread"].detach()], -1
    )
    log_odds = found @ params["unchanged_log_odds"].double()
    shift = found @ params["unchanged_shift"].double()
    return log_odds, shift, torch.exp(params["unchanged_log_factor"].double()).expand(len(loc))


def fit_unchanged(
    parts: Callable[[TaskSet, TaskSet], tuple[Tensor, Tensor, Tensor, Tensor]],
    episodes: Iterable[tuple[Tensor, TaskSet, TaskSet]],
    y: Tensor,
) -> dict[str, Tensor]:
    """Logistic regression of the unchanged, ridge regression of the changed, by task.

    Every task counts the same. Where hardly any query row is at the last value, or all are, none
    counts as unchanged.

    Parameters
    ----------
    parts : callable
        Terms, the process's prediction and its scale, and the last value, of one task's query.
    episodes : iterable
        Of the training tasks, with a support each.
    y : (row,)
        All training outcomes.
    """
    found: list[list[Any]] = []
    with torch.no_grad():
        for tasks, support, query in episodes:
            asked = query.mask & support.mask.any(-1, keepdim=True)
            codes = tasks[:, None].expand(asked.shape)
            columns = (*vmap(parts)(support, query), query.y.double(), codes)
            found.append([column[asked].numpy() for column in columns])
    x, loc, scale, last, outcome, task = (np.concatenate(c) for c in zip(*found, strict=True))
    weight = 1.0 / np.bincount(task)[task]
    center = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weight))
    spread = np.where(spread > 1e-6, spread, 1.0)
    x = (x - center) / spread
    same = outcome == last
    carried = _LEAST_SHARE <= np.average(same, weights=weight) < 1.0
    log_odds = np.array([_NEVER] + [0.0] * N_TERMS)
    if carried:
        odds = LogisticRegression(C=1.0 / _PENALTY).fit(x, same, sample_weight=weight)
        log_odds = np.concatenate([odds.intercept_, odds.coef_[0]])
        weight = weight * ~same
    line = Ridge(_PENALTY).fit(x, outcome - loc, sample_weight=weight)
    left = (outcome - loc - line.predict(x)) / scale
    distinct = np.unique(y.double().numpy())
    estimates = {
        "center": center,
        "spread": spread,
        "ends": distinct[[0, -1]],
        "log_step": np.log(np.diff(distinct).min()),
        "log_odds": log_odds,
        "shift": np.concatenate([[line.intercept_], line.coef_]),
        "log_factor": 0.5 * np.log(np.average(left**2, weights=weight)),
    }
    return {
        f"unchanged_{name}": torch.as_tensor(value, dtype=y.dtype)
        for name, value in estimates.items()
    }
