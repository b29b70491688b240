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


def _relu_derivative(z: Tensor, h: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


def _silu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(z)


def _silu_derivative(z: Tensor, h: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate + h * (1.0 - gate)


def _tanh_derivative(z: Tensor, h: Tensor) -> Tensor:
    return 1.0 - h * h


ACTIVATIONS = {
    "relu": Activation(torch.relu, _relu_derivative),
    "silu": Activation(_silu, _silu_derivative),
    "tanh": Activation(torch.tanh, _tanh_derivative),
}
