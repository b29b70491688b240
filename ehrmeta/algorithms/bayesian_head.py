"""A Bayesian last layer over learned features."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.ranges import Range

_NOISE_FLOOR = 1e-6  # of the mean prior variance
_LARGEST_MOVE = 4.0  # of a log-odds in one Newton step: keeps the first steps from overshooting


@dataclass(eq=False, repr=False)
class BayesianHead(Algorithm):
    r"""Bayesian linear regression (or classification) per task, on features learned over tasks.

    .. math:: \eta(x) = \phi(x)'w, \qquad w \sim N(m, L L'), \qquad y \sim p(y | \eta)

    Features :math:`\phi` (with a constant), prior mean m and root L are learned; a task's posterior
    of w is exact for a normal outcome, and Laplace's approximation, by a few Newton steps, for
    classes and Student's t. Since every row adds to the precision, the prior fades as rows come in
    and ``own_weight`` goes from 0 to 1. One Cholesky factorisation of the features' size, whatever
    the number of rows.

    Parameters
    ----------
    n_features : int
        Learned features.
    newton_steps : int
        Where the posterior is not normal.

    References
    ----------
    Harrison, Sharma, Pavone (2018), ALPaCA, arXiv:1807.08912. Laplace: Rasmussen, Williams (2006),
    chapter 3.

    Examples
    --------
    >>> from ehrmeta import BayesianHead, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(BayesianHead(), max_steps=20, random_state=0)
    >>> adapted = model.fit(X, y, groups=groups).adapt(X[10:15], y[10:15])
    >>> bool((adapted.own_weight(X[10:15]) > 0).all())
    True
    """

    n_features: Annotated[int, Range(8, 64, log=True)] = 32
    newton_steps: int = 8

    has_posterior: ClassVar[bool] = True
    consistent: ClassVar[bool] = True

    def n_outputs(self, likelihood: Likelihood) -> int:
        """The features."""
        return self.n_features

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, and a prior of unit variance of the outcome."""
        size = self.n_features + 1
        return {
            **super().init(spec, generator),
            "mean": torch.zeros(size, spec.likelihood.n_outputs),
            "root": torch.eye(size) / math.sqrt(size),
        }

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        r"""Posterior of u in :math:`w = m + L u`: its mean, and the root of its precision.

        The precision :math:`I + A' H A` (A the features times L, H the curvatures) is at least I,
        so that its factorisation cannot fail.
        """
        prior, design = self._design(spec, params, support)
        prior = prior + support.offset.double()[:, None]
        weight, y = support.weight.double()[:, None], support.y.double()
        floor = _NOISE_FLOOR * (weight * design.square()).sum() / weight.sum().clamp(min=1.0)
        likelihood, n = part(params, "likelihood"), spec.likelihood.n_outputs
        u = design.new_zeros(design.shape[1], n)
        exact = spec.likelihood.n_rounds == 1
        for _ in range(1 if exact else self.newton_steps):
            slope, bend = spec.likelihood.curvature(likelihood, prior + design @ u, y, floor)
            # Several classes are stepped one output at a time: C / (C - 1) times the curvature
            # makes steps exact at equally likely classes and keeps them convergent elsewhere.
            bend = bend * n / (n - 1) if n > 1 else bend
            gradient = design.mT @ (weight * slope) - u
            step = torch.cholesky_solve(gradient.mT[..., None], _factor(design, weight * bend))
            step = step[..., 0].mT
            if n > 1:  # at the mode the outputs' sum is the prior's
                step = step - step.mean(1, keepdim=True)
            if not exact:
                change = (support.mask[:, None] * (design @ step)).abs().flatten()
                largest = torch.cat([change, change.new_ones(1)]).amax()
                step = step * (_LARGEST_MOVE / largest).clamp(max=1.0)
            u = u + step
        _, bend = spec.likelihood.curvature(likelihood, prior + design @ u, y, floor)
        return {"n": support.n, "u": u, "factor": _factor(design, weight * bend)}

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Average over the posterior of the latent outcome."""
        mean, variance, _ = self._latent(spec, params, state, query)
        # the likelihood's own variance for the unknown task gives way to the posterior's
        predictive = spec.likelihood.averaged(part(params, "likelihood"), mean, variance)
        return {name: value.to(query.y.dtype) for name, value in predictive.items()}

    def own_weight(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """``1 - posterior / prior variance`` of the latent outcome, averaged over classes."""
        _, variance, prior = self._latent(spec, params, state, query)
        weight = 1.0 - (variance / prior.clamp(min=1e-12)[:, None]).mean(-1)
        return weight.to(query.y.dtype)

    def _design(self, spec: Spec, params: Params, rows: TaskSet) -> tuple[Tensor, Tensor]:
        """Prior mean (point, output) and features times L (point, feature), in float64."""
        features = spec.output(params, rows.x).double()
        features = torch.cat([features, torch.ones_like(features[:, :1])], -1)
        return features @ params["mean"].double(), features @ params["root"].tril().double()

    def _latent(
        self, spec: Spec, params: Params, state: State, query: TaskSet
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior mean and variance (point, output) and prior variance (point,)."""
        prior, design = self._design(spec, params, query)
        mean = prior + design @ state["u"] + query.offset.double()[:, None]
        factor = state["factor"]  # (output, feature, feature)
        design_t = design.mT.expand(len(factor), *design.mT.shape)
        root = torch.linalg.solve_triangular(factor, design_t, upper=False)
        return mean, root.square().sum(1).mT, design.square().sum(-1)


def _factor(design: Tensor, bend: Tensor) -> Tensor:
    """Cholesky factor of ``I + A' diag(bend) A`` for every output, (output, feature, feature)."""
    identity = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    precision = identity + (design * bend.mT[..., None]).mT @ design
    factor: Tensor = torch.linalg.cholesky_ex(precision).L
    return factor
