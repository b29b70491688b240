"""How much wider or narrower than the process says: a regression of squared errors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LARGEST_LOG_FACTOR", "fit_spread"]

LARGEST_LOG_FACTOR = 1.0  # of the scale
_LARGEST_RATIO = 25.0  # squared standardised errors beyond this count as this
_PENALTIES = (0.01, 0.1, 1.0)  # of the mean diagonal
_N_FOLDS, _N_ROUNDS = 5, 8


def fit_spread(terms: Tensor, ratio: Tensor, weight: Tensor, task: Tensor) -> Tensor:
    r"""Coefficients w of the log factor of the scale, :math:`\log f = t'w`.

    Gamma regression of squared standardised errors :math:`r^2` with a log link and a ridge
    penalty: w minimises :math:`\sum \log f + r^2 / (2 f^2)`, the normal likelihood, by Fisher
    scoring, whose curvature does not change. The penalty is the best over folds of tasks; without
    a gain of more than one standard error over the folds w is 0.

    Parameters
    ----------
    terms : (row, term)
    ratio : (row,)
        Squared errors over their predicted variances.
    weight : (row,)
    task : (row,)
        Task numbers.

    References
    ----------
    Aitkin (1987), doi:10.2307/2347792.
    """
    ratio = ratio.clamp(max=_LARGEST_RATIO)
    parts = [task % _N_FOLDS == fold for fold in range(_N_FOLDS)]
    gains = torch.stack(
        [
            torch.stack(
                [
                    _gain(
                        terms[part] @ _fit(terms[~part], ratio[~part], weight[~part], penalty),
                        ratio[part],
                        weight[part],
                    )
                    for part in parts
                ]
            )
            for penalty in _PENALTIES
        ]
    )
    best = int(gains.sum(1).argmax())
    if float(gains[best].mean()) <= float(gains[best].std()) / _N_FOLDS**0.5:
        return torch.zeros_like(terms[0])
    return _fit(terms, ratio, weight, _PENALTIES[best])


def _fit(terms: Tensor, ratio: Tensor, weight: Tensor, penalty: float) -> Tensor:
    gram = 2.0 * terms.mT @ (weight[:, None] * terms)
    ridge = penalty * torch.diagonal(gram).mean()
    root = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    found = torch.zeros_like(terms[0])
    for _ in range(_N_ROUNDS):
        pull = terms.mT @ (weight * (ratio / _squared_factor(terms @ found) - 1.0)) - ridge * found
        found = found + torch.cholesky_solve(pull[:, None], root)[:, 0]
    return found


def _gain(log_factor: Tensor, ratio: Tensor, weight: Tensor) -> Tensor:
    """Mean log likelihood above that of the factor 1."""
    squared = _squared_factor(log_factor)
    gained = 0.5 * (ratio - ratio / squared - torch.log(squared))
    return (weight * gained).sum() / weight.sum()


def _squared_factor(log_factor: Tensor) -> Tensor:
    return torch.exp(2.0 * log_factor.clamp(-LARGEST_LOG_FACTOR, LARGEST_LOG_FACTOR))
