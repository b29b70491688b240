"""ANIL: MAML with an inner loop over the head only."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import linear

from ehrmeta.algorithms._base import Params, Spec, State
from ehrmeta.algorithms.maml import GradientLearner, positive_rate, raw_positive, support_error
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.nn.backbone import clipping
from ehrmeta.nn.mlp import ACTIVATIONS, squared_norm
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class ANIL(GradientLearner):
    r"""ANIL (almost no inner loop): MAML that adapts the head only, on a shared body.

    .. math:: w_{s+1} = w_s - \alpha_s \nabla_w L_T^{support}(w_s^\top \phi_\theta(x))

    The body's features are computed once. An inner step is then one product with the support's
    Gram matrix, :math:`\hat y_{s+1} = \hat y_s - \alpha_s (\phi \phi^\top + 1)\, d_s` with errors
    d, so many steps are cheap.

    Parameters
    ----------
    width : int
        Number of features, which are the outputs of the backbone (the body).
    activation : {"tanh", "silu", "relu"}
        Activation of the features.

    References
    ----------
    Raghu, Raghu, Bengio, Vinyals (2020), arXiv:1909.09157.
    """

    inner_steps: Annotated[int, Range(1, 10)] = 5
    width: Annotated[int, Range(16, 128, log=True)] = 64
    activation: str = "tanh"

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Number of features."""
        return self.width

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Body, likelihood, head, a rate per step, and the pseudo-count."""
        params = super().init(spec, generator)
        n_outputs = spec.likelihood.n_outputs
        weight = torch.randn(n_outputs, self.width, generator=generator)
        params["head.weight"] = weight / math.sqrt(self.width)
        params["head.bias"] = torch.zeros(n_outputs)
        start = torch.full((self.inner_steps,), self.inner_lr)
        params["rate"] = raw_positive(start, self.max_inner_lr)
        return params | self.start_count()

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Change of the head after the last step."""
        h = self._features(spec, params, support.x)  # (point, width)
        start = linear(h, params["head.weight"], params["head.bias"])
        error = support_error(spec, params, support)
        gram, values = h @ h.mT + 1.0, torch.zeros_like(start)
        for rate in positive_rate(params["rate"], self.max_inner_lr):
            d = error(start + gram @ values)
            values = values - rate * (clipping(squared_norm(h, d), self.max_inner_norm) * d)
        return {"n": support.n, "head.weight": values.mT @ h, "head.bias": values.sum(0)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Apply the adapted head to the features of the shared body."""
        weight, bias = (params[name] + state[name] for name in ("head.weight", "head.bias"))
        output = linear(self._features(spec, params, query.x), weight, bias)
        return spec.predictive(params, output, query, state["n"])

    def _features(self, spec: Spec, params: Params, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation].function(spec.output(params, x))
