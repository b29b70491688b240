"""A small task in double precision, for the laws of single algorithms."""

from __future__ import annotations

import torch
from torch import Tensor

from ehrmeta import MLP
from ehrmeta.algorithms import Algorithm, Spec
from ehrmeta.nn import Normal, TaskSet

N_FEATURES = 3


def points(n: int, seed: int = 0) -> TaskSet:
    """Random points of one task."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, N_FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randn(n, generator=generator, dtype=torch.float64)
    zeros, ones = torch.zeros_like(y), torch.ones_like(y)
    return TaskSet(x=x, y=y, time=zeros, mask=ones.bool(), weight=ones, offset=zeros)


def started(algorithm: Algorithm, backbone: MLP | None = None) -> tuple[Spec, dict[str, Tensor]]:
    """The spec and start values of an algorithm, Normal likelihood."""
    spec = algorithm.spec(backbone or MLP((6, 6), "tanh"), Normal(), N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    return spec, {name: value.double() for name, value in params.items()}


def predicted(algorithm, spec, params, support, query) -> Tensor:
    """Locations at the query after adapting."""
    return algorithm.predict(spec, params, algorithm.adapt(spec, params, support), query)["loc"]
