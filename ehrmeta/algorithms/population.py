"""No adaptation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, all_rows, query_loss
from ehrmeta.algorithms.maml import predict_adapted
from ehrmeta.nn import Distribution, TaskSet


@dataclass(eq=False, repr=False)
class Population(Algorithm):
    r"""One network for all tasks, never adapted: the baseline that adapting must beat.

    .. math:: \min_\theta \sum_T \sum_i \ell(f_\theta(x_{Ti}), y_{Ti})

    Its noise does not shrink as a task's own rows come in, since it does not read them.

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
        """Nothing: zero rows were used."""
        return {"n": torch.zeros_like(support.n)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The network as it is."""
        return predict_adapted(spec, params, state, query)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Mean loss of all rows, support and query alike."""
        rows = all_rows(support, query)
        state = self.adapt(spec, params, support)
        return query_loss(spec, self.predict(spec, params, state, rows), rows)
