"""Carry forward: a mixed process whose outcome may also stay exactly at its last value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Episodes, Params, Spec, State
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects
from ehrmeta.nn import Distribution, TaskRows, TaskSet

_N_TERMS = 8
_PENALTY = 20.0  # of both ridge regressions, in tasks; chosen on data of no benchmark
_LEAST_SHARE = 0.1  # of query rows at the last value: below it nothing is carried forward
_NEVER = -30.0  # log-odds
_FAR = 1e9  # ends that no value reaches


@dataclass(eq=False, repr=False)
class CarryForward(DeepMixedEffects):
    r"""`DeepMixedEffects` for scores that often repeat exactly: coma scales, ventilator settings.

    .. math:: p(y) = \pi\, 1[y = y_{last}] + (1 - \pi)\, p_{changed}(y)

    With probability :math:`\pi` the last value is carried forward; else the outcome is the
    process's prediction, moved and rescaled. Both depend on the age of the last value, how long it
    has held, whether it is an end of the scale, and where the process and the support's highest,
    lowest and first value lie from it. The median is then often the last value itself, while the
    mean leans to where the task is heading.

    It needs time and a real-valued outcome; without, on an empty support and at rows not later than
    the support, it is `DeepMixedEffects`. Where fewer than a tenth of the training queries are at
    the last value, :math:`\pi` is 0 and what is left is the correction of mean and scale.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import CarryForward, MetaRegressor
    >>> rng = np.random.default_rng(0)
    >>> change = rng.binomial(1, 0.2, (60, 12)) * rng.choice([-1, 1], (60, 12))
    >>> y = (rng.normal(10, 2, (60, 1)).round() + change).ravel()
    >>> patients, hours = np.repeat(np.arange(60), 12), np.tile(np.arange(12.0), 60)
    >>> X = np.zeros((720, 1))
    >>> model = MetaRegressor(CarryForward(), max_steps=1, random_state=0)
    >>> adapted = model.fit(X, y, groups=patients, time=hours).adapt(X[:4], y[:4], time=hours[:4])
    >>> median = adapted.predict_quantiles(X[:1], (0.5,), time=[4.0])[0, 0]
    >>> bool(abs(median - y[3]) < 1e-5)  # the last value
    True
    """

    consistent: ClassVar[bool] = False

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """The process's parameters; nothing is carried forward yet."""
        return {
            **super().init(spec, generator),
            "unchanged_center": torch.zeros(_N_TERMS),
            "unchanged_spread": torch.ones(_N_TERMS),
            "unchanged_ends": torch.tensor([-_FAR, _FAR]),
            "unchanged_log_step": torch.zeros(()),
            "unchanged_log_odds": torch.tensor([_NEVER] + [0.0] * _N_TERMS),
            "unchanged_shift": torch.zeros(1 + _N_TERMS),
            "unchanged_log_factor": torch.zeros(()),
        }

    def warm_start(
        self, spec: Spec, params: dict[str, Tensor], tasks: TaskRows, episodes: Episodes
    ) -> dict[str, Tensor]:
        """The process's start, then both regressions on its predictions."""
        episodes = list(episodes)
        params = super().warm_start(spec, params, tasks, episodes)
        if not tasks.timed or spec.likelihood.n_classes:
            return params
        ends = {"unchanged_ends": torch.stack([tasks.y.min(), tasks.y.max()])}

        def parts(support: TaskSet, query: TaskSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            state = self.adapt(spec, params, support)
            process = super(CarryForward, self).predict(spec, params, state, query)
            loc, scale = process["loc"].double(), process["scale"].double()
            terms = _terms(params | ends, state, query, loc)
            return terms, loc, scale, state["support_last"].expand(len(loc))

        return params | _fit_unchanged(parts, episodes, tasks.y)

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The process's state, and the support's last value and extremes."""
        return {**super().adapt(spec, params, support), **_values(support)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The distribution if it changes, the probability that it does not, and the last value."""
        process = super().predict(spec, params, state, query)
        if spec.likelihood.n_classes:
            return process
        loc, ahead = process["loc"].double(), (state["n"] > 0) & (query.time > 0.0)
        log_odds, shift, factor = _change(params, state, query, loc)
        loc = loc + torch.where(ahead, shift, 0.0)
        changed = {
            "loc": loc,
            "scale": process["scale"].double() * torch.where(ahead, factor, 1.0),
            "unchanged": torch.where(ahead, torch.sigmoid(log_odds), 0.0),
            "last": state["support_last"].expand(len(loc)),
        }
        return process | {name: value.to(query.y.dtype) for name, value in changed.items()}

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Negative log-likelihood, the last value's share spread over one step of the outcome."""
        predictive = self.predict(spec, params, self.adapt(spec, params, support), query)
        log_prob = spec.likelihood.log_prob(predictive, query.y)
        if "unchanged" in predictive:
            p = predictive["unchanged"].clamp(max=1.0 - 1e-6)
            spike = torch.log(p.clamp(min=1e-30)) - params["unchanged_log_step"].detach()
            spike = torch.where(query.y == predictive["last"], spike, -1e4)
            log_prob = torch.logaddexp(log_prob + torch.log1p(-p), spike)
        return -(query.weight * log_prob).sum() / query.n.clamp(min=1.0)


def _values(support: TaskSet) -> dict[str, Tensor]:
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
    level = mean_at(latest, residual)
    return {
        "support_last": last,
        "support_level": level,
        "support_held": torch.log1p((weight * (mask & (time > since))).sum()),
        **{name: torch.where(some, value - level, 0.0) for name, value in from_last.items()},
    }


def _terms(params: Params, state: dict[str, Tensor], query: TaskSet, loc: Tensor) -> Tensor:
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


def _change(
    params: Params, state: dict[str, Tensor], query: TaskSet, loc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-odds of no change, and shift and factor of the process's prediction, (point,) each."""
    terms = _terms(params, state, query, loc) - params["unchanged_center"].detach()
    terms = torch.cat(
        [torch.ones_like(loc)[:, None], terms / params["unchanged_spread"].detach()], -1
    )
    log_odds = terms @ params["unchanged_log_odds"].double()
    shift = terms @ params["unchanged_shift"].double()
    return log_odds, shift, torch.exp(params["unchanged_log_factor"].double()).expand(len(loc))


def _fit_unchanged(
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
    rows: list[list[Any]] = []
    with torch.no_grad():
        for tasks, support, query in episodes:
            chosen = query.mask & support.mask.any(-1, keepdim=True)
            codes = tasks[:, None].expand(chosen.shape)
            columns = (*vmap(parts)(support, query), query.y.double(), codes)
            rows.append([column[chosen].numpy() for column in columns])
    x, loc, scale, last, outcome, task = (np.concatenate(c) for c in zip(*rows, strict=True))
    weight = 1.0 / np.bincount(task)[task]
    center = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weight))
    spread = np.where(spread > 1e-6, spread, 1.0)
    x = (x - center) / spread
    same = outcome == last
    carried = _LEAST_SHARE <= np.average(same, weights=weight) < 1.0
    log_odds = np.array([_NEVER] + [0.0] * _N_TERMS)
    if carried:
        odds = LogisticRegression(C=1.0 / _PENALTY).fit(x, same, sample_weight=weight)
        log_odds = np.concatenate([odds.intercept_, odds.coef_[0]])
        weight = weight * ~same
    line = Ridge(_PENALTY).fit(x, outcome - loc, sample_weight=weight)
    residual = (outcome - loc - line.predict(x)) / scale
    distinct = np.unique(y.double().numpy())
    estimates = {
        "center": center,
        "spread": spread,
        "ends": distinct[[0, -1]],
        "log_step": np.log(np.diff(distinct).min()),
        "log_odds": log_odds,
        "shift": np.concatenate([[line.intercept_], line.coef_]),
        "log_factor": 0.5 * np.log(np.average(residual**2, weights=weight)),
    }
    return {
        f"unchanged_{name}": torch.as_tensor(value, dtype=y.dtype)
        for name, value in estimates.items()
    }
