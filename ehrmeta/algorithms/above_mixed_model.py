"""A meta-learner of what a mixed model with a process in time leaves unexplained."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from sklearn.base import RegressorMixin
from torch import Tensor

from ehrmeta.algorithms._base import (
    Algorithm,
    Episodes,
    Params,
    Spec,
    State,
    part,
    prefixed,
    query_loss,
)
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects
from ehrmeta.algorithms.maml import MetaSGD
from ehrmeta.nn import MLP, Backbone, Distribution, Likelihood, Outcome, TaskRows, TaskSet


@dataclass(eq=False, repr=False)
class AboveMixedModel(Algorithm):
    r"""A gradient-based learner that starts at the prediction of a mixed model.

    .. math:: \hat y(x) = \mu(x \mid S) + g\, f_{\theta'_S}(x), \qquad \theta'_S \text{ fitted to }
              y_i - \mu(x_i \mid S),\ i \in S

    where :math:`\mu` is the adapted prediction of the mixed model, and f is the network that the
    learner adapts to the support S. The factor g starts at 0, so the first
    prediction is that of the mixed model. Training leaves this start only if held-out tasks
    improve by more than two standard errors, and never with fewer than 100 tasks, too few to judge.

    `MetaRegressor` and `MetaClassifier` use it for tasks in time and for cohorts, around MAML,
    Meta-SGD and the other learners with an inner loop, unless these have ``mixed_start=False``.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The learner; `MetaSGD` by default.
    mixed : DeepMixedEffects, optional
        The mixed model; by default `DeepMixedEffects` without its networks.

    Examples
    --------
    >>> from ehrmeta import MAML, AboveMixedModel, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(AboveMixedModel(MAML()), max_steps=20, random_state=0)
    >>> model = model.fit(X, y, groups=groups)
    >>> model.adapt(X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """

    algorithm: Algorithm | None = None
    mixed: DeepMixedEffects | None = None

    serves: ClassVar[tuple[Outcome, ...]] = ("real", "binary")
    refusal: ClassVar[str] = (
        "AboveMixedModel supports real-valued outcomes and two classes. Use its algorithm alone "
        "for several classes."
    )
    has_posterior: ClassVar[bool] = True
    consistent: ClassVar[bool] = True
    keeps_start: ClassVar[bool] = True
    surrogate_loss: ClassVar[bool] = True
    later_params: ClassVar[frozenset[str]] = frozenset(
        f"start.{p}" for p in DeepMixedEffects.later_params
    )

    @property
    def learner(self) -> Algorithm:
        """The algorithm."""
        return MetaSGD() if self.algorithm is None else self.algorithm

    @property
    def start(self) -> DeepMixedEffects:
        """The mixed model."""
        return DeepMixedEffects(n_deep=0, deep_mean=False) if self.mixed is None else self.mixed

    def at(self, progress: float) -> Algorithm:
        """With the algorithm of this stage of training."""
        return replace(self, algorithm=self.learner.at(progress))

    def spec(self, backbone: Backbone, likelihood: Likelihood, n_features: int) -> Spec:
        """The specification of the algorithm."""
        self.check(likelihood)
        return self.learner.spec(backbone, likelihood, n_features)

    def population(self, likelihood: Likelihood) -> RegressorMixin | None:
        """Boosted trees, for real-valued outcomes."""
        return self.start.population(likelihood)

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of the algorithm and, with the prefix ``start``, of the mixed model."""
        start = self.start.init(self._mixed_spec(spec), generator)
        own = self.learner.init(spec, generator)
        return {**own, **prefixed("start", start), "gain": torch.zeros(())}

    def warm_start(
        self, spec: Spec, params: dict[str, Tensor], tasks: TaskRows, episodes: Episodes
    ) -> dict[str, Tensor]:
        """Fit the mixed model."""
        start = self.start.warm_start(
            self._mixed_spec(spec), part(params, "start"), tasks, episodes
        )
        noise = {name: value for name, value in start.items() if name.startswith("likelihood.")}
        return {**params, **prefixed("start", start), **noise}

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Posterior of the mixed model, and the algorithm's state after fitting what it leaves."""
        return self._adapted(spec, params, support)[0]

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """The mixed model's distribution, shifted by g times the network."""
        return self._both(spec, params, state, query)[0]

    def own_weight(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """That of the mixed model."""
        start = part(state, "start")
        return self.start.own_weight(self._mixed_spec(spec), part(params, "start"), start, query)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Query loss. Its gradient also has that of the algorithm's own loss, as if g were 1."""
        state, at_support = self._adapted(spec, params, support)
        mixed, start = self._both(spec, params, state, query)
        value = query_loss(spec, mixed, query)
        support = support._replace(offset=at_support.detach())
        query = query._replace(offset=_linear(start).detach())
        own = self.learner.loss(spec, params, support, query, progress)
        return value + own - own.detach()

    def _adapted(self, spec: Spec, params: Params, support: TaskSet) -> tuple[State, Tensor]:
        """The adapted state, and the mixed model's prediction of the support (point,)."""
        start = self.start.adapt(self._mixed_spec(spec), part(params, "start"), support)
        at_support = _linear(self._start(spec, params, start, support))
        own = self.learner.adapt(spec, params, support._replace(offset=at_support))
        also = {name: start[name] for name in ("n", "distance")}
        return {**prefixed("start", start), **prefixed("own", own), **also}, at_support

    def _both(
        self, spec: Spec, params: Params, state: State, query: TaskSet
    ) -> tuple[Distribution, Distribution]:
        """Distributions of this algorithm and of the mixed model."""
        start = self._start(spec, params, part(state, "start"), query)
        offset = _linear(start)
        own = self.learner.predict(spec, params, part(state, "own"), query._replace(offset=offset))
        shift = params["gain"] * (_linear(own) - offset)
        return spec.likelihood.shift(start, shift), start

    def _start(self, spec: Spec, params: Params, state: State, rows: TaskSet) -> Distribution:
        return self.start.predict(self._mixed_spec(spec), part(params, "start"), state, rows)

    def _mixed_spec(self, spec: Spec) -> Spec:
        return self.start.spec(MLP((1,)), spec.likelihood, spec.n_features)


def _linear(distribution: Distribution) -> Tensor:
    """Mean, or log-odds of the second of two classes, (point,)."""
    if "loc" in distribution:
        return distribution["loc"]
    return distribution["logits"][:, 1] - distribution["logits"][:, 0]
