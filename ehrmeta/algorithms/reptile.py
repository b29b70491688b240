"""Reptile."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, all_rows, calibration_loss, part
from ehrmeta.algorithms.maml import InnerLoop, descend_support
from ehrmeta.nn.batch import TaskSet
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class Reptile(InnerLoop):
    r"""Reptile: moves the initial weights towards the adapted weights of each task.

    .. math:: \theta \leftarrow \theta + \epsilon\, (\tilde\theta_T - \theta), \qquad
              \tilde\theta_T = \mathrm{SGD}_{s}(\theta, T)

    The gradient of the loss is that of :math:`\langle \theta, \theta - \tilde\theta_T\rangle` with
    the difference held constant, so AdamW applies Reptile's update. In training, the inner loop
    uses both support and query. The value of the loss is the query loss after adapting. It decides
    early stopping, and the noise is learned from it.

    Parameters
    ----------
    inner_steps : int
        Gradient steps on the support; with one step Reptile is joint training.
    max_inner_norm : float or None
        Clip the norm of each task's inner gradient.
    mixed_start : bool
        As in `MAML`.

    References
    ----------
    Nichol, Achiam, Schulman (2018), arXiv:1803.02999.
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.05
    inner_steps: Annotated[int, Range(1, 20, log=True)] = 10
    max_inner_norm: float | None = 10.0
    mixed_start: bool = True

    surrogate_loss: ClassVar[bool] = True

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Plain gradient descent."""
        return descend_support(
            spec, params, support, self.inner_lr, self.inner_steps, self.max_inner_norm
        )

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """The value is the query loss; the gradient is the initial minus the adapted weights."""
        frozen = {name: value.detach() for name, value in params.items()}
        state = self.adapt(spec, frozen, all_rows(support, query))
        change = spec.network.change(part(state, "fast"))
        network = part(params, "network")
        surrogate = -torch.stack([(network[k] * change[k]).sum() for k in change]).sum()
        value = calibration_loss(self, spec, params, support, query)
        return value + surrogate - surrogate.detach()
