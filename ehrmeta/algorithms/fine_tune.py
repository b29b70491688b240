"""Fine-tuning of a pooled network."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, calibration_loss
from ehrmeta.algorithms.maml import InnerLoop, descend_support, positive_rate, raw_positive
from ehrmeta.algorithms.population import Population
from ehrmeta.nn.batch import TaskSet
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class FineTune(InnerLoop):
    r"""A network trained on the pooled rows of all tasks, then fine-tuned on the support.

    .. math:: \theta_0 = \arg\min_\theta \sum_{T, i} \ell(f_\theta(x_{Ti}), y_{Ti}), \qquad
              \theta_{s+1} = \theta_s - \alpha \nabla_\theta L_T^{support}(\theta_s)

    Transfer learning as usually done: the start knows nothing of the fine-tuning to come. Only its
    rate and the noise are learned from the query after fine-tuning, so that where tuning on few
    rows harms it is a gentle one.

    Parameters
    ----------
    inner_steps : int
        Gradient steps on the support; the more, the closer to the task's own fit.
    learn_inner_lr : bool
        Learn the rate, kept in ``(0, max_inner_lr)``.
    max_inner_lr : float
        Upper bound of the rate.
    max_inner_norm : float or None
        Clip the norm of each task's gradient.

    References
    ----------
    Yosinski, Clune, Bengio, Lipson (2014), arXiv:1411.1792.
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.01
    inner_steps: Annotated[int, Range(1, 50, log=True)] = 20
    learn_inner_lr: bool = True
    max_inner_lr: Annotated[float, Range(0.5, 2.0, when={"learn_inner_lr": True})] = 1.0
    max_inner_norm: float | None = 10.0

    surrogate_loss: ClassVar[bool] = True

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood and the rate."""
        rate = raw_positive(torch.tensor(self.inner_lr), self.max_inner_lr)
        return {**super().init(spec, generator), "rate": rate}

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Gradient descent on the support from the pooled fit."""
        raw = params["rate"] if self.learn_inner_lr else params["rate"].detach()
        rate = positive_rate(raw, self.max_inner_lr)
        return descend_support(spec, params, support, rate, self.inner_steps, self.max_inner_norm)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Pooled loss for the network, query loss for the rest; in value the latter."""
        frozen = {
            name: p.detach() if name.startswith("likelihood.") else p for name, p in params.items()
        }
        pooled = Population().loss(spec, frozen, support, query, progress)
        tuned = calibration_loss(self, spec, params, support, query, also=("rate",))
        return tuned + pooled - pooled.detach()
