"""Model-agnostic meta-learning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, query_loss
from ehrmeta.algorithms._inner_loop import inner_steps, predict_adapted
from ehrmeta.algorithms._rates import positive_rate, raw_positive
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Distribution
from ehrmeta.ranges import Range

__all__ = ["MAML"]


@dataclass(eq=False, repr=False)
class MAML(Algorithm):
    r"""Model-agnostic meta-learning: a start from which a few gradient steps fit a task.

    .. math:: \min_\theta \sum_{T} L_T^{query}\bigl(\theta - \alpha \nabla_\theta
              L_T^{support}(\theta)\bigr)

    Second order: the outer gradient runs through the inner one, exactly. Rates are learned per
    layer and step (MAML++).

    Parameters
    ----------
    inner_lr : float
        Start value of every inner rate, on the outcome's standardised scale.
    inner_steps : int
        Gradient steps on the support.
    first_order : bool
        Treat the inner gradient as a constant of the outer one (FOMAML): cheaper, less exact.
    first_order_share : float
        Share of the training, at its start, that is first order: derivative-order annealing, of
        use where the second order is costly or shaky at random start weights.
    learn_inner_lr : bool
        Learn the rates, kept in ``(0, max_inner_lr)``.
    max_inner_lr : float
        Upper bound of a rate.
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient.
    pseudo_count : float
        Rows that the population counts for against a task's own; learned from this start. 0 is
        the textbook mean over the support, not learned.
    multi_step_loss : bool
        Train on the query loss after every inner step, annealed to the last one alone.

    References
    ----------
    Finn, Abbeel, Levine (2017), arXiv:1703.03400. Antoniou, Edwards, Storkey (2019),
    arXiv:1810.09502.

    Examples
    --------
    >>> from ehrmeta import MAML, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(MAML(inner_steps=1), max_steps=20, random_state=0)
    >>> model = model.fit(X, y, groups=groups)
    >>> model.adapt(X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.1
    inner_steps: Annotated[int, Range(1, 8)] = 3
    first_order: bool = False
    learn_inner_lr: bool = True
    max_inner_lr: float = 1.0
    max_inner_norm: float | None = 10.0
    pseudo_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
    multi_step_loss: bool = False
    first_order_share: float = 0.0

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, a rate per layer and step, and the pseudo-count."""
        params = super().init(spec, generator)
        start = raw_positive(torch.full((self.inner_steps,), self.inner_lr), self.max_inner_lr)
        for layer in sorted({_layer(name) for name in part(params, "network")}):
            params[f"rate.{layer}"] = start.clone()
        if self.pseudo_count > 0:
            params["log_pseudo_count"] = torch.tensor(float(self.pseudo_count)).log()
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        *_, state = self._states(spec, params, support)
        return state

    def at(self, progress: float) -> MAML:
        """First order for the share of training that asks for it."""
        return replace(self, first_order=self.first_order or progress < self.first_order_share)

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network at the adapted weights."""
        return predict_adapted(spec, params, state, query)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Query loss of the last step, or of every step with weights annealed to the last."""
        states = list(self._states(spec, params, support))
        judged = states[1:] if self.multi_step_loss else states[-1:]
        losses = [
            query_loss(spec, self.predict(spec, params, state, query), query) for state in judged
        ]
        early = (1.0 - progress) / len(losses)
        return early * torch.stack(losses).sum() + progress * losses[-1]

    def _states(self, spec: Spec, params: Params, support: TaskSet) -> Iterator[State]:
        network = part(params, "network")
        rates = {
            layer: positive_rate(raw if self.learn_inner_lr else raw.detach(), self.max_inner_lr)
            for layer, raw in part(params, "rate").items()
        }
        return inner_steps(
            spec,
            params,
            support,
            [
                {name: rates[_layer(name)][step] for name in network}
                for step in range(self.inner_steps)
            ],
            low_rank=spec.network.low_rank(network, len(support.y), self.inner_steps),
            max_norm=self.max_inner_norm,
            first_order=self.first_order,
        )


def _layer(parameter: str) -> str:
    """``"0.weight" -> "0"``: weight and bias of a layer share their rate."""
    return parameter.rpartition(".")[0] or parameter
