"""Meta-SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.algorithms._inner_loop import inner_steps, predict_adapted
from ehrmeta.algorithms._rates import raw_signed, signed_rate
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Distribution
from ehrmeta.ranges import Range

__all__ = ["MetaSGD"]


@dataclass(eq=False, repr=False)
class MetaSGD(Algorithm):
    r"""Meta-SGD: learns the start *and* a rate for every weight: direction and size of each step.

    .. math:: \theta' = \theta - \alpha \circ \nabla_\theta L_T^{support}(\theta)

    One set of rates serves every inner step. Rates may turn negative, as in the paper, and are
    kept in ``(-max_inner_lr, max_inner_lr)``.

    Parameters
    ----------
    inner_lr : float
        Start value of every rate, on the outcome's standardised scale.
    inner_steps : int
        Gradient steps on the support.
    max_inner_lr : float
        Bound of a rate's size.
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient.
    pseudo_count : float
        Rows that the population counts for against a task's own; learned from this start. 0 is
        the textbook mean over the support, not learned.

    References
    ----------
    Li, Zhou, Chen, Li (2017), arXiv:1707.09835.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, MetaSGD, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(MetaSGD(inner_steps=1), max_steps=20, random_state=0)
    >>> model = model.fit(X, y, groups=groups)
    >>> model.adapt(X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.1
    inner_steps: Annotated[int, Range(1, 5)] = 3
    max_inner_lr: float = 1.0
    max_inner_norm: float | None = 10.0
    pseudo_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, a rate per weight, and the pseudo-count."""
        params = super().init(spec, generator)
        for name, weight in part(params, "network").items():
            start = torch.full_like(weight, self.inner_lr)
            params[f"rate.{name}"] = raw_signed(start, self.max_inner_lr)
        if self.pseudo_count > 0:
            params["log_pseudo_count"] = torch.tensor(float(self.pseudo_count)).log()
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        rates = {
            name: signed_rate(raw, self.max_inner_lr) for name, raw in part(params, "rate").items()
        }
        *_, state = inner_steps(
            spec,
            params,
            support,
            [rates] * self.inner_steps,
            low_rank=False,
            max_norm=self.max_inner_norm,
            first_order=False,
        )
        return state

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network at the adapted weights."""
        return predict_adapted(spec, params, state, query)
