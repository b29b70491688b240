"""Prototypical networks."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State
from ehrmeta.errors import DataError, renamed_parameter
from ehrmeta.nn import Distribution, Likelihood, Outcome, TaskSet
from ehrmeta.ranges import Choice, Range

_MIN_COUNT = 1e-6  # smallest prior weight in rows, so that a missing class has a prototype


@renamed_parameter("n_embedding", "width")
@dataclass(eq=False, repr=False)
class PrototypicalNet(Algorithm):
    r"""Prototypical network: classifies by distance to the mean embedding of each class.

    .. math:: p(y = k | x) \propto \pi_k \exp\bigl(-\tfrac{s}{2}\, d^2(f(x), c_k)\bigr), \quad
              c_k = \frac{\sum_{i: y_i = k} f(x_i) + \kappa\, m_k}{n_k + \kappa}

    A class that is missing from the support has the prior prototype :math:`m_k`, so the support may
    even be empty. Use it for classification with few rows of each class.

    Parameters
    ----------
    width : int
        Width of the embedding f.
    distance : {"euclidean", "mahalanobis"}
        "mahalanobis" uses the task's pooled covariance within classes, shrunk towards a learned
        one. It helps where tasks differ in the directions of their noise.
    prior_count : float
        Initial weight of a prior prototype, in rows. It is learned. With 0 it stays 0, and a
        prototype is the mean of its class.
    class_frequencies : bool
        Whether :math:`\pi_k` are the class frequencies in the support, shrunk towards those of the
        population. If False, they are those of the population.

    References
    ----------
    Snell, Swersky, Zemel (2017), arXiv:1703.05175. Mahalanobis: Bateni et al. (2020),
    arXiv:1912.03432; Stanley et al. (2021), FS-Mol.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import MetaClassifier, PrototypicalNet, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> label = np.where(y > 0, "above", "below")
    >>> model = MetaClassifier(PrototypicalNet(), max_steps=20, random_state=0)
    >>> model = model.fit(X, label, groups=groups)
    >>> model.adapt(X[10:15], label[10:15]).predict(X[15:20]).shape
    (5,)
    """

    width: Annotated[int, Range(8, 64, log=True)] = 32
    distance: Annotated[str, Choice(("euclidean", "mahalanobis"))] = "euclidean"
    prior_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
    class_frequencies: bool = True

    uses_support_offset: ClassVar[bool] = False
    serves: ClassVar[tuple[Outcome, ...]] = ("binary", "multiclass")
    refusal: ClassVar[str] = (
        "PrototypicalNet needs classes, but the outcome is real-valued. Use MatchingNet, "
        "BayesianHead or NeuralProcess. For classes, use MetaClassifier."
    )

    def check(self, likelihood: Likelihood) -> None:
        """Raise an error for real-valued outcomes and unknown distances."""
        if self.distance not in ("euclidean", "mahalanobis"):
            raise DataError(
                f"distance must be 'euclidean' or 'mahalanobis', got {self.distance!r}."
            )
        super().check(likelihood)

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Width of the embedding."""
        return self.width

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, prior prototypes and, for Mahalanobis, a covariance."""
        n_classes = spec.likelihood.n_classes
        params = {
            **super().init(spec, generator),
            **start_prototypes(n_classes, self.width, self.prior_count, generator),
            "log_scale": torch.tensor(math.log(8.0 / self.width)),
        }
        if self.distance == "mahalanobis":
            params["root"] = torch.eye(self.width)
            params["log_cov_count"] = torch.tensor(float(self.width)).log()
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Prototypes, class frequencies and the root of the covariance."""
        if self.prior_count <= 0:
            params = {**params, "log_prior_count": params["log_prior_count"].detach()}
        embedding = spec.output(params, support.x)
        counts = class_counts(spec.likelihood, support)
        centers = prototypes(params, embedding, counts)
        observed = counts if self.class_frequencies else torch.zeros_like(counts)
        state = {"prototypes": centers, "log_frequency": frequencies(params, observed)}
        if self.distance == "mahalanobis":
            residual = (embedding - (counts > 0).to(counts.dtype) @ centers).double()
            state["factor"] = _covariance_root(params, residual, support.weight.double())
        return state

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Softmax of log frequencies minus scaled squared distances to the prototypes."""
        embedding = spec.output(params, query.x)
        gap = embedding[:, None, :] - state["prototypes"]  # (point, class, embedding)
        if self.distance == "mahalanobis":
            flat = gap.reshape(-1, self.width).double()
            white = torch.linalg.solve_triangular(state["factor"], flat.mT, upper=False)
            gap = white.mT.reshape(gap.shape).to(gap.dtype)
        squared = gap.square().sum(-1)
        scale = params["log_scale"].exp()
        logits = state["log_frequency"] - 0.5 * scale * squared
        return spec.likelihood.shift({"logits": logits}, query.offset)


def _covariance_root(params: Params, residual: Tensor, weight: Tensor) -> Tensor:
    """Cholesky factor (float64) of the covariance within classes, shrunk towards a learned one."""
    root, count = params["root"].tril().double(), params["log_cov_count"].exp().double()
    prior = root @ root.mT + 1e-4 * torch.eye(len(root), dtype=root.dtype, device=root.device)
    scatter = (residual * weight[:, None]).mT @ residual
    factor: Tensor = torch.linalg.cholesky_ex((scatter + count * prior) / (weight.sum() + count)).L
    return factor


def start_prototypes(
    n_classes: int, width: int, prior_count: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Prior prototypes near 0, equal class frequencies, and the weights of both in rows."""
    return {
        "prior": 0.1 * torch.randn(n_classes, width, generator=generator),
        "log_prior_count": torch.tensor(max(prior_count, _MIN_COUNT)).log(),
        "class_logit": torch.zeros(n_classes),
        "log_class_count": torch.tensor(2.0 * n_classes).log(),
    }


def class_counts(likelihood: Likelihood, support: TaskSet) -> Tensor:
    """Weight of every row in its class, (point, class)."""
    return likelihood.one_hot(support.y) * support.weight[:, None]


def prototypes(params: Params, embedding: Tensor, counts: Tensor) -> Tensor:
    r"""Mean embedding of every class, (class, embedding).

    :math:`c_k = (\sum_{i: y_i = k} w_i z_i + \kappa m_k) / (n_k + \kappa)`
    """
    count = params["log_prior_count"].exp()
    return (counts.mT @ embedding + count * params["prior"]) / (counts.sum(0) + count)[:, None]


def frequencies(params: Params, counts: Tensor) -> Tensor:
    """Log class frequencies of the task, shrunk towards the population's, (class,)."""
    count = params["log_class_count"].exp()
    n = counts.sum(0)
    return torch.log((n + count * torch.softmax(params["class_logit"], -1)) / (n.sum() + count))
