"""Comparators that do not meta-learn: population, per-task and fine-tuned networks."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms import maml
from ehrmeta.algorithms._base import (
    Algorithm,
    Params,
    Spec,
    State,
    all_rows,
    calibration_loss,
    query_loss,
)
from ehrmeta.nn import Distribution, TaskSet
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class Population(Algorithm):
    r"""One network for all tasks, without adaptation: the baseline for algorithms that adapt.

    .. math:: \min_\theta \sum_T \sum_i \ell(f_\theta(x_{Ti}), y_{Ti})

    Predictions and their scale do not depend on the support.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, Population, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(Population(), max_steps=20, random_state=0)
    >>> model = model.fit(X, y, groups=groups)
    >>> adapted = model.adapt(X[10:15], y[10:15])
    >>> bool((adapted.predict(X[15:20]) == model.predict(X[15:20])).all())
    True
    """

    adapts: ClassVar[bool] = False

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """No change: the number of rows used is 0."""
        return {"n": torch.zeros_like(support.n)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network without adaptation."""
        return maml.predict_adapted(spec, params, state, query)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Mean loss of all rows, support and query alike."""
        rows = all_rows(support, query)
        state = self.adapt(spec, params, support)
        return query_loss(spec, self.predict(spec, params, state, rows), rows)


@dataclass(eq=False, repr=False)
class PerTask(maml.InnerLoop):
    r"""A network trained from scratch on each support, without other tasks.

    .. math:: f(x) = f_{\theta_S}(x) - f_{\theta_0}(x), \qquad
              \theta_{s+1} = \theta_s - \alpha \nabla_\theta L_T^{support}(\theta_s)

    with random, untrained :math:`\theta_0`. The untrained network's output is subtracted, so that
    the prediction without support is the mean of the training rows. Only the noise is learned
    from all tasks.

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
        return maml.descend_support(
            spec, params, support, self.inner_lr, self.inner_steps, self.max_inner_norm
        )

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Change of the network's output by gradient descent."""
        return super().predict(spec, params, state, _centred(spec, params, query))

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Query loss, with gradients for the noise only."""
        return calibration_loss(self, spec, params, support, query)


def _centred(spec: Spec, params: Params, points: TaskSet) -> TaskSet:
    """The points with an offset that subtracts the output of the untrained network."""
    start = spec.output(params, points.x)
    return points._replace(offset=points.offset[:, None] - start)


@dataclass(eq=False, repr=False)
class FineTune(maml.InnerLoop):
    r"""Transfer learning: a network trained on the rows of all tasks, fine-tuned on the support.

    .. math:: \theta_0 = \arg\min_\theta \sum_{T, i} \ell(f_\theta(x_{Ti}), y_{Ti}), \qquad
              \theta_{s+1} = \theta_s - \alpha \nabla_\theta L_T^{support}(\theta_s)

    Pretraining does not anticipate the fine-tuning. Only the rate and the noise are learned from
    the query loss after fine-tuning, so the rate is small where fine-tuning on few rows would make
    predictions worse.

    Parameters
    ----------
    inner_steps : int
        Gradient steps on the support.
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
        """Initial network, likelihood and learning rate."""
        rate = maml.raw_positive(torch.tensor(self.inner_lr), self.max_inner_lr)
        return {**super().init(spec, generator), "rate": rate}

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Gradient descent on the support from the pooled fit."""
        raw = params["rate"] if self.learn_inner_lr else params["rate"].detach()
        rate = maml.positive_rate(raw, self.max_inner_lr)
        return maml.descend_support(
            spec, params, support, rate, self.inner_steps, self.max_inner_norm
        )

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """The value is the query loss; the network's gradient is that of the pooled loss."""
        frozen = {
            name: p.detach() if name.startswith("likelihood.") else p for name, p in params.items()
        }
        pooled = Population().loss(spec, frozen, support, query, progress)
        tuned = calibration_loss(self, spec, params, support, query, also=("rate",))
        return tuned + pooled - pooled.detach()
