"""A network from scratch for every task."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, calibration_loss, part
from ehrmeta.algorithms.maml import InnerLoop, descend_support
from ehrmeta.nn import Distribution, TaskSet
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class PerTask(InnerLoop):
    r"""A network trained from scratch on each support: what a task can learn by itself.

    .. math:: f(x) = f_{\theta_S}(x) - f_{\theta_0}(x), \qquad
              \theta_{s+1} = \theta_s - \alpha \nabla_\theta L_T^{support}(\theta_s)

    with random :math:`\theta_0`, never trained; taking its output off makes an empty support
    predict the mean of the training rows. Only the noise is learned over tasks.

    Parameters
    ----------
    max_inner_norm : float or None
        Clip the norm of each task's gradient.
    """

    inner_lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.05
    inner_steps: Annotated[int, Range(5, 100, log=True)] = 50
    max_inner_norm: float | None = 10.0

    pools: ClassVar[bool] = False
    surrogate_loss: ClassVar[bool] = True

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Gradient descent on the support from the random start."""
        support = _centred(spec, params, support)
        return descend_support(
            spec, params, support, self.inner_lr, self.inner_steps, self.max_inner_norm
        )

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """What the descent changed in the network's output."""
        return super().predict(spec, params, state, _centred(spec, params, query))

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Query loss, of which only the noise is learned."""
        return calibration_loss(self, spec, params, support, query)


def _centred(spec: Spec, params: Params, points: TaskSet) -> TaskSet:
    """The points with the start's own output taken off."""
    start = spec.network.forward(part(params, "network"), {}, points.x)
    return points._replace(offset=points.offset[:, None] - start)
