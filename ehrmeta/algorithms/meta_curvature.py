"""Meta-curvature."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, part
from ehrmeta.algorithms.maml import GradientLearner, inner_steps, positive_rate, raw_positive
from ehrmeta.nn.batch import TaskSet


@dataclass(eq=False, repr=False)
class MetaCurvature(GradientLearner):
    r"""Meta-curvature: learns the start and the metric in which the inner gradient descends.

    .. math:: W' = W - \alpha_s\, M_{out}\, (\nabla_W L_T^{support})\, M_{in}

    with two learned matrices per layer, which start at the identity (MAML). A gradient
    :math:`d^\top h` becomes :math:`(d M_{out}^\top)^\top (h M_{in})`: keys and values stay keys and
    values, so this costs little more than MAML and mixes weights where Meta-SGD only scales them.

    Parameters
    ----------
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient, as seen through the metric.

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
        *_, state = inner_steps(
            spec,
            params,
            support,
            [dict.fromkeys(network, rate) for rate in rates],
            low_rank=spec.network.low_rank(network, len(support.y), self.inner_steps),
            max_norm=self.max_inner_norm,
            curvature=part(params, "curvature"),
        )
        return state
