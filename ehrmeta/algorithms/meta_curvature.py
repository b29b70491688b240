"""Meta-curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.algorithms.maml import inner_steps, positive_rate, predict_adapted, raw_positive
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Distribution
from ehrmeta.ranges import Range

__all__ = ["MetaCurvature"]


@dataclass(eq=False, repr=False)
class MetaCurvature(Algorithm):
    r"""Meta-curvature: learns the start and the metric in which the inner gradient descends.

    .. math:: W' = W - \alpha_s\, M_{out}\, (\nabla_W L_T^{support})\, M_{in}

    with two learned matrices per layer, which start at the identity (MAML). A gradient
    :math:`d^\top h` becomes :math:`(d M_{out}^\top)^\top (h M_{in})`: keys and values stay keys and
    values, so this costs little more than MAML and mixes weights where Meta-SGD only scales them.

    Parameters
    ----------
    inner_lr : float
        Start value of the rate of every step, on the outcome's standardised scale.
    inner_steps : int
        Gradient steps on the support.
    max_inner_lr : float
        Upper bound of a rate.
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient, as seen through the metric.
    pseudo_count : float
        Rows that the population counts for against a task's own; learned from this start. 0 is
        the textbook mean over the support, not learned.

    References
    ----------
    Park, Oliva (2019), arXiv:1902.03356.

    Examples
    --------
    >>> from ehrmeta import MetaCurvature, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(MetaCurvature(), max_steps=20, random_state=0)
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
        """Network, likelihood, identities, a rate per step, and the pseudo-count."""
        params = super().init(spec, generator)
        for name, weight in part(params, "network").items():
            if weight.ndim > 1:
                params[f"curvature.left.{name}"] = torch.eye(len(weight))
                params[f"curvature.right.{name}"] = torch.eye(weight[0].numel())
        start = torch.full((self.inner_steps,), self.inner_lr)
        params["rate"] = raw_positive(start, self.max_inner_lr)
        if self.pseudo_count > 0:
            params["log_pseudo_count"] = torch.tensor(float(self.pseudo_count)).log()
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        network = part(params, "network")
        *_, state = inner_steps(
            spec,
            params,
            support,
            [
                dict.fromkeys(network, rate)
                for rate in positive_rate(params["rate"], self.max_inner_lr)
            ],
            low_rank=spec.network.low_rank(network, len(support.y), self.inner_steps),
            max_norm=self.max_inner_norm,
            first_order=False,
            curvature=part(params, "curvature"),
        )
        return state

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network at the adapted weights."""
        return predict_adapted(spec, params, state, query)
