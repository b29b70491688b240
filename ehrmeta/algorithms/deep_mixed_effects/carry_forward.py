"""`DeepMixedEffects` with a point mass at the last value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from ehrmeta.algorithms._base import Episodes, Params, Spec, State
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects
from ehrmeta.algorithms.deep_mixed_effects.start import query_columns
from ehrmeta.nn import Distribution, TaskRows, TaskSet

_N_TERMS = 8
_PENALTY = 20.0  # of both ridge regressions, in tasks; not tuned on benchmark data
_MIN_SHARE = 0.1  # smallest share of query rows at the last value for a point mass
_NEVER = -30.0  # log-odds
_FAR = 1e9  # end of an unbounded scale


@dataclass(eq=False, repr=False)
class CarryForward(DeepMixedEffects):
    r"""`DeepMixedEffects` for scores that often repeat exactly: coma scales, ventilator settings.

    .. math:: p(y) = \pi\, 1[y = y_{last}] + (1 - \pi)\, p_{changed}(y)

    With probability :math:`\pi` the outcome equals the last value. Otherwise it has the process's
    predictive distribution, shifted and rescaled. Probability and shift depend on the last value
    (its age, the number of rows since it changed, and whether it is an end of the scale), and on
    how far the process's prediction and the support's highest, lowest and first values are from
    it. The median is then often the last value, while the mean follows the trend.

    This needs time and a real-valued outcome. Without them, for an empty support and for rows that
    are not later than the support, predictions are those of `DeepMixedEffects`. If fewer than a
    tenth of the training queries equal the last value, :math:`\pi` is 0 and only mean and scale
    are corrected.

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
        """Parameters of the process, and of a point mass with probability 0."""
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
        """Start values of the process, then of both regressions on its predictions."""
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
        """State of the process, and last value and extremes of the support."""
        return {**super().adapt(spec, params, support), **_values(support)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Distribution given a change, probability of no change, and the last value."""
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
        """Negative log-likelihood, with the point mass spread over one step of the outcome."""
        predictive = self.predict(spec, params, self.adapt(spec, params, support), query)
        log_prob = spec.likelihood.log_prob(predictive, query.y)
        if "unchanged" in predictive:
            p = predictive["unchanged"].clamp(max=1.0 - 1e-6)
            spike = torch.log(p.clamp(min=1e-30)) - params["unchanged_log_step"].detach()
            spike = torch.where(query.y == predictive["last"], spike, -1e4)
            log_prob = torch.logaddexp(log_prob + torch.log1p(-p), spike)
        return -(query.weight * log_prob).sum() / query.n.clamp(min=1.0)


def _values(support: TaskSet) -> dict[str, Tensor]:
    """Last value of a support, number of rows since it changed, and extremes, () each."""
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
    since = highest(time, mask & (y != last))  # later rows have the last value
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
    """Regression terms (point, term), not standardised; `loc` (point,) is the process's mean."""
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
    """Log-odds of no change, shift of the process's mean and factor of its scale, (point,) each."""
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
    """Logistic regression of no change, and ridge regression of the outcome after a change.

    All tasks have the same weight. If fewer than a tenth of the query rows, or all of them, equal
    the last value, the point mass has probability 0 and every row counts as a change.

    Parameters
    ----------
    parts : callable
        Function of support and query of one task. It returns regression terms, mean and scale of
        the process, and the last value.
    episodes : iterable
        Episodes of the training tasks.
    y : (row,)
        All training outcomes.
    """

    def one_task(support: TaskSet, query: TaskSet) -> tuple[Tensor, ...]:
        has_support = support.mask.any(-1) if len(support.y) else query.mask.new_zeros(())
        return has_support.expand(query.mask.shape), *parts(support, query), query.y.double()

    has_support, *columns = query_columns(one_task, episodes)
    x, loc, scale, last, outcome, task = (column[has_support].numpy() for column in columns)
    weight = 1.0 / np.bincount(task)[task]
    center = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weight))
    spread = np.where(spread > 1e-6, spread, 1.0)
    x = (x - center) / spread
    is_unchanged = outcome == last
    has_mass = _MIN_SHARE <= np.average(is_unchanged, weights=weight) < 1.0
    log_odds = np.array([_NEVER] + [0.0] * _N_TERMS)
    if has_mass:
        odds = LogisticRegression(C=1.0 / _PENALTY).fit(x, is_unchanged, sample_weight=weight)
        log_odds = np.concatenate([odds.intercept_, odds.coef_[0]])
        weight = weight * ~is_unchanged
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
