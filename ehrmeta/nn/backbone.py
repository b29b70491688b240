"""The contract of a backbone: a network whose weights an algorithm adapts to one task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

Params = Mapping[str, Tensor]
Fast = dict[str, Tensor]
Error = Callable[[Tensor], Tensor]
"""Outputs (point, output) -> derivative of the inner loss with respect to them."""


class Network(ABC):
    """A network as pure functions of flat parameters, for ONE task.

    `params` holds the shared weights, `fast` what adaptation added to them: an empty dict before
    the first step. Both are flat dicts of tensors, so that they pass through ``torch.func.vmap``.
    """

    @abstractmethod
    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh shared weights."""

    @abstractmethod
    def forward(self, params: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs (point, output) at features x (point, feature)."""

    @abstractmethod
    def step(
        self,
        params: Params,
        fast: Fast,
        x: Tensor,
        error: Error,
        rates: Params,
        *,
        low_rank: bool = False,
        max_norm: float | None = None,
        first_order: bool = False,
        curvature: Params | None = None,
    ) -> Fast:
        """One gradient step of the inner loss on the support x.

        Parameters
        ----------
        rates : mapping
            A rate for every parameter name: a scalar, or a tensor of the parameter's shape.
        low_rank : bool
            Hold the change as keys and values; rates must be scalars, equal within a layer.
        max_norm : float, optional
            Clip the norm of the whole inner gradient.
        first_order : bool
            Treat the inner gradient as a constant of the outer one (FOMAML).
        curvature : mapping, optional
            Matrices that multiply each weight's gradient G, as ``left @ G @ right``, under
            ``"left.<weight>"`` and ``"right.<weight>"``; a bias shares its weight's `left`.
        """

    def gradient(self, params: Params, fast: Fast, x: Tensor, error: Error) -> Fast:
        """The inner gradient at ``params + fast``, in the form of a materialised `fast`."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient(): no LearnedOptimizer.")

    def change(self, fast: Fast) -> dict[str, Tensor]:
        """What `fast` adds to the shared weights, by parameter name."""
        raise NotImplementedError(f"{type(self).__name__} has no change(): no Reptile.")

    def low_rank(self, params: Params, n_points: int, n_steps: int) -> bool:
        """Whether the low-rank form is the cheaper one; False where there is none."""
        return False


class Backbone(BaseEstimator, ABC):
    """The hyper-parameters of a network; `network` builds it for a table's shape."""

    @abstractmethod
    def network(self, n_features: int, n_outputs: int) -> Network:
        """The network for `n_features` inputs and `n_outputs` outputs."""
