"""Carry forward: a mixed process whose outcome may also stay exactly where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Episodes, Params, Spec, State
from ehrmeta.algorithms._unchanged import (
    fit_unchanged,
    moved,
    terms,
    unchanged_params,
    values,
)
from ehrmeta.algorithms.deep_mixed_effects import DeepMixedEffects
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.class_likelihoods import ClassLikelihood
from ehrmeta.nn.likelihoods import Distribution
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["CarryForward"]


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

    Parameters
    ----------
    random_slope, ornstein_uhlenbeck, n_deep, deep_mean, correction, heteroscedastic
        As in `DeepMixedEffects`.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import CarryForward, MetaRegressor
    >>> rng = np.random.default_rng(0)
    >>> away = rng.binomial(1, 0.2, (60, 12)) * rng.choice([-1, 1], (60, 12))
    >>> y = (rng.normal(10, 2, (60, 1)).round() + away).ravel()
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
        return {**super().init(spec, generator), **unchanged_params()}

    def warm_start(
        self, spec: Spec, params: dict[str, Tensor], tasks: TaskRows, episodes: Episodes
    ) -> dict[str, Tensor]:
        """The process's start, then both regressions on its predictions."""
        episodes = list(episodes)
        params = super().warm_start(spec, params, tasks, episodes)
        if not tasks.timed or isinstance(spec.likelihood, ClassLikelihood):
            return params
        ends = {"unchanged_ends": torch.stack([tasks.y.min(), tasks.y.max()])}

        def parts(support: TaskSet, query: TaskSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            state = self.adapt(spec, params, support)
            found = super(CarryForward, self).predict(spec, params, state, query)
            loc, scale = found["loc"].double(), found["scale"].double()
            own = terms(params | ends, state, query, loc)
            return own, loc, scale, state["support_last"].expand(len(loc))

        return params | fit_unchanged(parts, episodes, tasks.y)

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The process's state, and the support's last value and extremes."""
        return {**super().adapt(spec, params, support), **values(support)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The distribution if it changes, the probability that it does not, and the last value."""
        found = super().predict(spec, params, state, query)
        if isinstance(spec.likelihood, ClassLikelihood):
            return found
        loc, ahead = found["loc"].double(), (state["n"] > 0) & (query.time > 0.0)
        log_odds, shift, factor = moved(params, state, query, loc)
        loc = loc + torch.where(ahead, shift, 0.0)
        changed = {
            "loc": loc,
            "scale": found["scale"].double() * torch.where(ahead, factor, 1.0),
            "unchanged": torch.where(ahead, torch.sigmoid(log_odds), 0.0),
            "last": state["support_last"].expand(len(loc)),
        }
        return found | {name: value.to(query.y.dtype) for name, value in changed.items()}

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Negative log-likelihood, the last value's share spread over one step of the outcome."""
        found = self.predict(spec, params, self.adapt(spec, params, support), query)
        log_prob = spec.likelihood.log_prob(found, query.y)
        if "unchanged" in found:
            p = found["unchanged"].clamp(max=1.0 - 1e-6)
            spike = torch.log(p.clamp(min=1e-30)) - params["unchanged_log_step"].detach()
            spike = torch.where(query.y == found["last"], spike, -1e4)
            log_prob = torch.logaddexp(log_prob + torch.log1p(-p), spike)
        return -(query.weight * log_prob).sum() / query.n.clamp(min=1.0)
