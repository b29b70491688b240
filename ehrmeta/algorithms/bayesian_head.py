"""Bayesian last layer on learned features."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.errors import renamed_parameter
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.ranges import Range

_NOISE_FLOOR = 1e-6  # relative to the mean prior variance
_MAX_STEP = 4.0  # largest change of log-odds in a Newton step, against overshooting


@renamed_parameter("n_features", "width")
@dataclass(eq=False, repr=False)
class BayesianHead(Algorithm):
    r"""Bayesian linear regression (or classification) per task, on features learned over tasks.

    .. math:: \eta(x) = \phi(x)'w, \qquad w \sim N(m, L L'), \qquad y \sim p(y | \eta)

    The features :math:`\phi` (with a constant), the prior mean m and the root L are learned. A
    task's posterior of w is exact for a normal outcome. For classes and Student's t, it is a
    Laplace approximation by a few Newton steps. Every row adds to the precision, so the prior's
    influence fades with more rows and ``own_weight`` goes from 0 to 1. The cost is a Cholesky
    factorisation whose size is the number of features, for any number of rows.

    Parameters
    ----------
    width : int
        Number of learned features.
    newton_steps : int
        Newton steps for classes and Student's t.

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

    width: Annotated[int, Range(8, 64, log=True)] = 32
    newton_steps: int = 8

    has_posterior: ClassVar[bool] = True
    consistent: ClassVar[bool] = True

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Number of learned features."""
        return self.width

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, and a prior of mean 0 and about unit variance of the output."""
        size = self.width + 1
        return {
            **super().init(spec, generator),
            "mean": torch.zeros(size, spec.likelihood.n_outputs),
            "root": torch.eye(size) / math.sqrt(size),
        }

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        r"""Posterior mean and Cholesky factor of the precision of u, where :math:`w = m + L u`.

        The precision :math:`I + A' H A` (A the features times L, H the curvatures) is at least I,
        so its factorisation cannot fail.
        """
        prior, design = self._design(spec, params, support)
        prior = prior + support.offset.double()[:, None]
        weight, y = support.weight.double()[:, None], support.y.double()
        floor = _NOISE_FLOOR * (weight * design.square()).sum() / weight.sum().clamp(min=1.0)
        likelihood, n = part(params, "likelihood"), spec.likelihood.n_outputs
        u = design.new_zeros(design.shape[1], n)
        exact = spec.likelihood.n_rounds == 1
        for _ in range(1 if exact else self.newton_steps):
            slope, curvature = spec.likelihood.curvature(likelihood, prior + design @ u, y, floor)
            # With several classes, each output has its own Newton step. Multiplying the curvature
            # by C / (C - 1) makes steps exact for equally likely classes, and convergent elsewhere.
            curvature = curvature * n / (n - 1) if n > 1 else curvature
            gradient = design.mT @ (weight * slope) - u
            step = torch.cholesky_solve(gradient.mT[..., None], _factor(design, weight * curvature))
            step = step[..., 0].mT
            if n > 1:  # the mode and the prior have the same sum over outputs
                step = step - step.mean(1, keepdim=True)
            if not exact:
                change = (support.mask[:, None] * (design @ step)).abs().flatten()
                largest = torch.cat([change, change.new_ones(1)]).amax()
                step = step * (_MAX_STEP / largest).clamp(max=1.0)
            u = u + step
        _, curvature = spec.likelihood.curvature(likelihood, prior + design @ u, y, floor)
        state = {"n": support.n, "u": u, "factor": _factor(design, weight * curvature)}
        if exact:  # r' V^-1 r = r' N^-1 (r - A u) with the variances N of the noise
            residual = y[:, None] - prior
            shares = weight * curvature * residual * (residual - design @ u)
            state["distance"] = torch.where(support.mask[:, None], shares, 0.0).sum()
        return state

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Average over the posterior of the latent outcome."""
        mean, variance, _ = self._latent(spec, params, state, query)
        # the posterior variance replaces the likelihood's variance between tasks
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


def _factor(design: Tensor, curvature: Tensor) -> Tensor:
    """Cholesky factors of ``I + A' diag(curvature) A``, (output, feature, feature)."""
    identity = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    precision = identity + (design * curvature.mT[..., None]).mT @ design
    factor: Tensor = torch.linalg.cholesky_ex(precision).L
    return factor
