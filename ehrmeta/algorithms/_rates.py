"""Inner learning rates as unconstrained parameters, kept inside bounds."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["positive_rate", "raw_positive", "raw_signed", "signed_rate"]


def positive_rate(raw: Tensor, bound: float) -> Tensor:
    """A rate in ``(0, bound)``."""
    return bound * torch.sigmoid(raw)


def raw_positive(rate: Tensor, bound: float) -> Tensor:
    """The inverse of `positive_rate`."""
    return torch.logit(rate / bound, eps=1e-6)


def signed_rate(raw: Tensor, bound: float) -> Tensor:
    """A rate in ``(-bound, bound)``."""
    return bound * torch.tanh(raw)


def raw_signed(rate: Tensor, bound: float) -> Tensor:
    """The inverse of `signed_rate`."""
    return torch.atanh((rate / bound).clamp(-1.0 + 1e-6, 1.0 - 1e-6))
