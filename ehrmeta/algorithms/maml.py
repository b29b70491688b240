"""MAML, Meta-SGD and meta-curvature, and the inner loop of the other gradient-based learners."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ehrmeta.algorithms._base import (
    Algorithm,
    Params,
    Spec,
    State,
    part,
    prefixed,
    query_loss,
    support_share,
    with_offset,
)
from ehrmeta.nn import Distribution, TaskSet
from ehrmeta.nn.backbone import Error, StepOptions
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class InnerLoop(Algorithm):
    r"""Base of algorithms that adapt by gradient steps on the support.

    The steps change all weights or, with other `adapt` and `predict`, a head or a context.

    .. math:: \theta_{s+1} = \theta_s - \alpha_s \odot \nabla_\theta
              \frac{1}{n + c} \sum_{i=1}^{n} w_i\, \ell(f_{\theta_s}(x_i), y_i)

    Parameters
    ----------
    inner_lr : float
        Start value of the inner rates, on the outcome's standardised scale.
    inner_steps : int
        Gradient steps on the support.
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.1
    inner_steps: Annotated[int, Range(1, 5)] = 3

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network at the adapted weights."""
        return predict_adapted(spec, params, state, query)


@dataclass(eq=False, repr=False)
class GradientLearner(InnerLoop):
    """Base of algorithms that learn initial weights and rates by differentiating the inner loop.

    Parameters
    ----------
    max_inner_lr : float
        Upper bound of the rates' absolute values. A rate that starts at the bound does not learn.
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient.
    pseudo_count : float
        Initial pseudo-count c: the weight of the population's prediction, in rows. It is learned.
        With 0 it stays 0, and the inner loss is the mean over the support.
    mixed_start : bool
        Where tasks have time or are cohorts: start at a mixed model and learn what it leaves, as
        `AboveMixedModel` does. With fewer than 100 tasks, training cannot be judged, so the model
        stays at this start. False learns everything by the inner loop.
    """

    max_inner_lr: float = 1.0
    max_inner_norm: float | None = 10.0
    pseudo_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
    mixed_start: bool = True

    def start_count(self) -> dict[str, Tensor]:
        """Parameter of the learned pseudo-count c; none if it is 0."""
        if self.pseudo_count <= 0:
            return {}
        return {"log_pseudo_count": torch.tensor(float(self.pseudo_count)).log()}


@dataclass(eq=False, repr=False)
class _Orders(InnerLoop):
    """Parameters of MAML that precede those of `GradientLearner` in its signature.

    Parameters
    ----------
    first_order : bool
        Treat the inner gradient as a constant in the outer one (FOMAML): cheaper, less exact.
    learn_inner_lr : bool
        Learn the rates, kept in ``(0, max_inner_lr)``.
    """

    first_order: bool = False
    learn_inner_lr: bool = True


@dataclass(eq=False, repr=False)
class MAML(GradientLearner, _Orders):
    r"""Model-agnostic meta-learning: initial weights from which a few gradient steps fit a task.

    .. math:: \min_\theta \sum_{T} L_T^{query}\bigl(\theta - \alpha \nabla_\theta
              L_T^{support}(\theta)\bigr)

    The outer gradient is exact (second order). Rates are learned per layer and step (MAML++).

    Parameters
    ----------
    multi_step_loss : bool
        Train on the query losses after every inner step, with weights that move to the last step
        during training.
    first_order_share : float
        Initial share of training that uses first-order gradients (derivative-order annealing).
        Useful where second-order gradients are costly, or unstable at random weights.

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

    inner_steps: Annotated[int, Range(1, 8)] = 3
    multi_step_loss: bool = False
    first_order_share: float = 0.0

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, a rate per layer and step, and the pseudo-count."""
        params = super().init(spec, generator)
        start = raw_positive(torch.full((self.inner_steps,), self.inner_lr), self.max_inner_lr)
        for layer in sorted({_layer(name) for name in part(params, "network")}):
            params[f"rate.{layer}"] = start.clone()
        return params | self.start_count()

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        return self._states(spec, params, support)[-1]

    def at(self, progress: float) -> MAML:
        """Use first-order gradients during the initial share of training."""
        return replace(self, first_order=self.first_order or progress < self.first_order_share)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Query loss after the last step, or after all steps with annealed weights."""
        states = self._states(spec, params, support)
        scored = states[1:] if self.multi_step_loss else states[-1:]
        losses = [
            query_loss(spec, self.predict(spec, params, state, query), query) for state in scored
        ]
        early = (1.0 - progress) / len(losses)
        return early * torch.stack(losses).sum() + progress * losses[-1]

    def _states(self, spec: Spec, params: Params, support: TaskSet) -> list[State]:
        network = part(params, "network")
        rates = {
            layer: positive_rate(raw if self.learn_inner_lr else raw.detach(), self.max_inner_lr)
            for layer, raw in part(params, "rate").items()
        }
        steps = range(self.inner_steps)
        by_step = [{name: rates[_layer(name)][step] for name in network} for step in steps]
        options = {"max_norm": self.max_inner_norm, "first_order": self.first_order}
        return inner_steps(spec, params, support, by_step, **options)


def _layer(parameter: str) -> str:
    """``"0.weight" -> "0"``: weight and bias of a layer share their rate."""
    return parameter.rpartition(".")[0] or parameter


@dataclass(eq=False, repr=False)
class MetaSGD(GradientLearner):
    r"""Meta-SGD: learns initial weights and a rate for every weight.

    .. math:: \theta' = \theta - \alpha \circ \nabla_\theta L_T^{support}(\theta)

    All inner steps have the same rates. Rates may become negative, as in the paper, and are bounded
    to ``(-max_inner_lr, max_inner_lr)``.

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

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, a rate per weight, and the pseudo-count."""
        params = super().init(spec, generator)
        for name, weight in part(params, "network").items():
            start = torch.full_like(weight, self.inner_lr)
            params[f"rate.{name}"] = raw_signed(start, self.max_inner_lr)
        return params | self.start_count()

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        rates = {
            name: signed_rate(raw, self.max_inner_lr) for name, raw in part(params, "rate").items()
        }
        steps = [rates] * self.inner_steps
        return inner_steps(spec, params, support, steps, max_norm=self.max_inner_norm)[-1]


@dataclass(eq=False, repr=False)
class MetaCurvature(GradientLearner):
    r"""Meta-curvature: learns initial weights and a matrix preconditioner of the inner gradient.

    .. math:: W' = W - \alpha_s\, M_{out}\, (\nabla_W L_T^{support})\, M_{in}

    with two learned matrices per layer, which start at the identity (MAML). A gradient
    :math:`d^\top h` becomes :math:`(d M_{out}^\top)^\top (h M_{in})`, still of low rank, so the
    cost is close to MAML's.

    Parameters
    ----------
    max_inner_norm : float or None
        Clip the norm of each task's preconditioned inner gradient.

    References
    ----------
    Park, Oliva (2019), arXiv:1902.03356.
    """

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, identities, a rate per step, and the pseudo-count."""
        params = super().init(spec, generator)
        for name, weight in part(params, "network").items():
            if weight.ndim > 1:
                params[f"curvature.left.{name}"] = torch.eye(len(weight))
                params[f"curvature.right.{name}"] = torch.eye(weight[0].numel())
        start = torch.full((self.inner_steps,), self.inner_lr)
        params["rate"] = raw_positive(start, self.max_inner_lr)
        return params | self.start_count()

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last inner step."""
        network, rates = part(params, "network"), positive_rate(params["rate"], self.max_inner_lr)
        by_step = [dict.fromkeys(network, rate) for rate in rates]
        options = {"max_norm": self.max_inner_norm, "curvature": part(params, "curvature")}
        return inner_steps(spec, params, support, by_step, **options)[-1]


def inner_steps(
    spec: Spec, params: Params, support: TaskSet, rates: list[dict[str, Tensor]], **options: Any
) -> list[State]:
    """The states after 0, 1, ... gradient steps on the support.

    `rates` holds one dict per step. With scalar rates, the change of the weights is stored in
    low-rank form where that is cheaper. `options` are the other fields of `StepOptions`.
    """
    network, n = part(params, "network"), support.n
    has_scalars = all(rate.ndim == 0 for step_rates in rates for rate in step_rates.values())
    low_rank = has_scalars and spec.network.low_rank(network, len(support.y), len(rates))
    step_options = StepOptions(low_rank, **options)
    error = support_error(spec, params, support)
    fast: State = {}
    states = [{"n": n}]
    for step_rates in rates:
        fast = spec.network.step(network, fast, support.x, error, step_rates, step_options)
        states.append({"n": n, **prefixed("fast", fast)})
    return states


def support_error(spec: Spec, params: Params, support: TaskSet) -> Error:
    """Derivative of `support_loss` with respect to the network's outputs, in closed form."""
    likelihood, share = part(params, "likelihood"), support_share(params, support)[:, None]

    def error(output: Tensor) -> Tensor:
        return share * spec.likelihood.error(likelihood, with_offset(output, support), support.y)

    return error


def descend_support(
    spec: Spec,
    params: Params,
    support: TaskSet,
    rate: float | Tensor,
    n_steps: int,
    max_norm: float | None,
) -> State:
    """State after gradient descent at one rate, with first-order meta-gradients."""
    network = part(params, "network")
    like = next(iter(network.values()))
    scalar = rate if isinstance(rate, Tensor) else like.new_tensor(rate)
    steps = [dict.fromkeys(network, scalar)] * n_steps
    return inner_steps(spec, params, support, steps, max_norm=max_norm, first_order=True)[-1]


def predict_adapted(spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
    """Predictive distribution of the query at the adapted weights."""
    output = spec.output(params, query.x, part(state, "fast"))
    return spec.predictive(params, output, query, state["n"])


def positive_rate(raw: Tensor, bound: float) -> Tensor:
    """A rate in ``(0, bound)``."""
    return bound * torch.sigmoid(raw)


def raw_positive(rate: Tensor, bound: float) -> Tensor:
    """The inverse of `positive_rate`."""
    return torch.logit(rate / bound, eps=1e-6)


def signed_rate(raw: Tensor, bound: float) -> Tensor:
    """A rate in ``(-bound, bound)``."""
    return bound * torch.tanh(raw)


def raw_signed(rate: Tensor, bound: float) -> Tensor:
    """The inverse of `signed_rate`."""
    return torch.atanh((rate / bound).clamp(-1.0 + 1e-6, 1.0 - 1e-6))
