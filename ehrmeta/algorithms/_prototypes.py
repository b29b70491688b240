"""Class prototypes of a support; a learned prior row stands in where a class is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.class_likelihoods import ClassLikelihood

__all__ = ["class_counts", "frequencies", "prototypes", "start_prototypes"]

_FEWEST = 1e-6  # rows that the prior counts for at least, so that a missing class has a prototype


def start_prototypes(
    n_classes: int, n_embedding: int, prior_count: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Prior prototypes near 0, equal class frequencies, and what both count for, in rows."""
    return {
        "prior": 0.1 * torch.randn(n_classes, n_embedding, generator=generator),
        "log_prior_count": torch.tensor(max(prior_count, _FEWEST)).log(),
        "class_logit": torch.zeros(n_classes),
        "log_class_count": torch.tensor(2.0 * n_classes).log(),
    }


def class_counts(likelihood: ClassLikelihood, support: TaskSet) -> Tensor:
    """Weight of every row in its class, (point, class)."""
    return likelihood.one_hot(support.y) * support.weight[:, None]


def prototypes(params: Params, embedding: Tensor, counts: Tensor) -> Tensor:
    r"""Mean embedding of every class, (class, embedding).

    :math:`c_k = (\sum_{i: y_i = k} w_i z_i + \kappa m_k) / (n_k + \kappa)`
    """
    count = params["log_prior_count"].exp()
    return (counts.mT @ embedding + count * params["prior"]) / (counts.sum(0) + count)[:, None]


def frequencies(params: Params, counts: Tensor) -> Tensor:
    """Log frequency of every class in the task, shrunk to the population's, (class,)."""
    count = params["log_class_count"].exp()
    n = counts.sum(0)
    return torch.log((n + count * torch.softmax(params["class_logit"], -1)) / (n.sum() + count))
