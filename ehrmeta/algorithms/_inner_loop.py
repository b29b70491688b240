r"""The inner loop that MAML and its relatives share.

:math:`\theta_{s+1} = \theta_s - \alpha_s \odot \nabla_\theta
\frac{1}{n + c} \sum_{i=1}^{n} w_i\, \ell(f_{\theta_s}(x_i), y_i)`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, part
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Distribution

__all__ = ["descend_support", "inner_steps", "predict_adapted", "support_error"]


def inner_steps(
    spec: Spec,
    params: Params,
    support: TaskSet,
    rates: list[dict[str, Tensor]],
    *,
    low_rank: bool,
    max_norm: float | None,
    first_order: bool,
    curvature: Params | None = None,
) -> Iterator[State]:
    """The state after 0, 1, ... gradient steps on the support; `rates` holds one dict a step."""
    network, n = part(params, "network"), support.n
    error = support_error(spec, params, support)
    fast: State = {}
    yield {"n": n}
    for step_rates in rates:
        fast = spec.network.step(
            network,
            fast,
            support.x,
            error,
            step_rates,
            low_rank=low_rank,
            max_norm=max_norm,
            first_order=first_order,
            curvature=curvature,
        )
        yield {"n": n, **{f"fast.{name}": value for name, value in fast.items()}}


def support_error(spec: Spec, params: Params, support: TaskSet) -> Callable[[Tensor], Tensor]:
    """Outputs (point, output) -> derivative of the inner loss with respect to them.

    The inner loss divides by ``n + c``: the c pseudo-observations, learned, sit at the population's
    own prediction, so that one row moves a task less than ten rows do. Without that parameter the
    loss is the textbook mean.
    """
    likelihood = part(params, "likelihood")
    c = params["log_pseudo_count"].exp() if "log_pseudo_count" in params else 0.0
    share = (support.weight / (support.n + c).clamp(min=1e-6))[:, None]

    def error(output: Tensor) -> Tensor:
        linear = output + _per_output(support.offset)
        return share * spec.likelihood.error(likelihood, linear, support.y)

    return error


def descend_support(
    spec: Spec,
    params: Params,
    support: TaskSet,
    rate: float | Tensor,
    n_steps: int,
    max_norm: float | None,
) -> State:
    """Plain gradient descent: one constant rate, no gradient differentiated through."""
    network = part(params, "network")
    like = next(iter(network.values()))
    scalar = rate if isinstance(rate, Tensor) else like.new_tensor(rate)
    *_, state = inner_steps(
        spec,
        params,
        support,
        [dict.fromkeys(network, scalar)] * n_steps,
        low_rank=spec.network.low_rank(network, len(support.y), n_steps),
        max_norm=max_norm,
        first_order=True,
    )
    return state


def predict_adapted(spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
    """Predictive distribution of the query at the adapted weights."""
    output = spec.network.forward(part(params, "network"), part(state, "fast"), query.x)
    linear = output + _per_output(query.offset)
    return spec.likelihood.distribution(part(params, "likelihood"), linear, state["n"])


def _per_output(offset: Tensor) -> Tensor:
    """An offset (point,) for all outputs alike, or (point, output)."""
    return offset if offset.ndim > 1 else offset[:, None]
