"""Activations with their derivatives, written as functions of the pre-activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation"]


class Activation(NamedTuple):
    """``h = function(z)`` and ``dh/dz = derivative(z, h)``; both differentiable once more."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


def _silu_derivative(z: Tensor, h: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate + h * (1.0 - gate)


ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda z, h: (z > 0).to(z.dtype)),
    "silu": Activation(lambda z: z * torch.sigmoid(z), _silu_derivative),
    "tanh": Activation(torch.tanh, lambda z, h: 1.0 - h * h),
}
