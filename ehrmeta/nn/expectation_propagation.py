r"""Two classes met by normal pseudo-observations that match moments, not curvature at the mode.

A row's likelihood :math:`\sigma(\pm\eta)` is replaced by a site
:math:`s\, e^{\nu \eta - \tau \eta^2 / 2}`, so that the normal posterior has the mean and variance
that the row itself would give in its place: expectation propagation. A row of weight w counts as w
copies, one of less than 1 by that power of its likelihood. Where supports are small and
tasks differ much, mean and mode lie far apart, and the curvature at the mode overstates what is
known.

References
----------
Minka (2001), arXiv:1301.2294. Nickisch, Rasmussen (2008), JMLR 9:2035-2078.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Sites", "matched_sites"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_LEAST_VARIANCE = 1e-8  # of a cavity: where nothing varies, the site is the curvature
_LEAST_PRECISION = 1e-10
_LARGEST_CURVATURE = 0.25
_LEAST_SHARE = 1e-6  # of what is known of a row, without the row


class Sites(NamedTuple):
    """Normal pseudo-observations of the linear predictor, (row,) each."""

    precision: Tensor
    pull: Tensor  # precision times the observed value
    log_scale: Tensor


def matched_sites(y: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, sites: Sites) -> Sites:
    """Sites whose moments match, every row's in the context of all the others.

    Parameters
    ----------
    y, weight : (row,)
        0 or 1, and how often the row counts.
    mean, variance : (row,)
        Of the linear predictor, given the present sites.
    sites : Sites
        The present ones.
    """
    copies, power = weight.clamp(min=1.0), weight.clamp(max=1.0)
    without = (1.0 - sites.precision / copies * variance).clamp(min=_LEAST_SHARE)
    center = (mean - variance * sites.pull / copies) / without
    spread = (variance / without).clamp(min=_LEAST_VARIANCE)
    nodes, log_weights = (
        torch.as_tensor(a, dtype=mean.dtype, device=mean.device)
        for a in (_NODES, np.log(_WEIGHTS / _WEIGHTS.sum()))
    )
    eta = center[..., None] + spread.sqrt()[..., None] * nodes  # (row, node)
    sign = 2.0 * y[..., None] - 1.0
    log_terms = power[..., None] * torch.nn.functional.logsigmoid(sign * eta) + log_weights
    log_total = torch.logsumexp(log_terms, -1)
    share = torch.exp(log_terms - log_total[..., None])
    moved = (share * nodes).sum(-1)  # in standard deviations
    left = (share * (nodes - moved[..., None]).square()).sum(-1)  # share of the variance
    # the true one is no larger than the largest curvature; few nodes of a wide cavity may say so
    most = (_LARGEST_CURVATURE * power).clamp(min=_LEAST_PRECISION)
    precision = torch.minimum(((1.0 / left - 1.0) / spread).clamp(min=_LEAST_PRECISION), most)
    pull = (center + spread.sqrt() * moved) * (precision + 1.0 / spread) - center / spread
    known = 1.0 + precision * spread
    exponent = 0.5 * ((center / spread + pull).square() * spread / known - center.square() / spread)
    log_scale = log_total + 0.5 * torch.log(known) - exponent
    return Sites(copies * precision, copies * pull, copies * log_scale)
