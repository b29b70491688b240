"""Backbones: networks whose weights are adapted to a task; any torch module can be one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.func import functional_call, vjp

from ehrmeta.errors import DataError

Params = Mapping[str, Tensor]
Fast = dict[str, Tensor]
Error = Callable[[Tensor], Tensor]
"""Outputs (point, output) -> derivative of the inner loss with respect to them."""
# Layers that cannot run over many tasks at once, with the reason and an alternative.
_INSTEAD: dict[type[torch.nn.Module], str] = {
    torch.nn.modules.batchnorm._BatchNorm: "mixes the rows of a task: use LayerNorm or GroupNorm",
    torch.nn.modules.dropout._DropoutNd: "draws random numbers: remove it",
    torch.nn.RNNBase: "cannot run over many tasks at once: write the cell as tensor algebra",
}


class StepOptions(NamedTuple):
    """Options of a gradient step.

    Attributes
    ----------
    low_rank : bool
        Store the change as keys and values. Rates must then be scalars, equal within a layer.
    max_norm : float, optional
        Clip the norm of the whole inner gradient.
    first_order : bool
        Treat the inner gradient as a constant in the outer one (FOMAML).
    curvature : mapping, optional
        Matrices ``"left.<weight>"`` and ``"right.<weight>"``, with which the weight's gradient G
        becomes ``left @ G @ right``. A bias uses the `left` of its weight.
    """

    low_rank: bool = False
    max_norm: float | None = None
    first_order: bool = False
    curvature: Params | None = None


PLAIN_STEP = StepOptions()


class Network(ABC):
    """Network as pure functions of flat parameters, for one task.

    `params` are the shared weights, `fast` their change by adaptation: an empty dict before the
    first step. Both are flat dicts of tensors, for ``torch.func.vmap``.
    """

    @abstractmethod
    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial shared weights."""

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
        options: StepOptions = PLAIN_STEP,
    ) -> Fast:
        """One gradient step of the inner loss on the support x.

        `rates` holds a scalar, or a tensor of the parameter's shape, for every parameter name.
        """

    def gradient(self, params: Params, fast: Fast, x: Tensor, error: Error) -> Fast:
        """Inner gradient at ``params + fast``, in the form of a `fast` that is not low-rank."""
        raise NotImplementedError(
            f"{type(self).__name__} has no gradient(), which LearnedOptimizer needs."
        )

    def change(self, fast: Fast) -> dict[str, Tensor]:
        """Change of the shared weights by `fast`, by parameter name."""
        raise NotImplementedError(f"{type(self).__name__} has no change(), which Reptile needs.")

    def low_rank(self, params: Params, n_points: int, n_steps: int) -> bool:
        """Whether the low-rank form exists and is cheaper."""
        return False


class Backbone(BaseEstimator, ABC):
    """Base class of backbones: hyper-parameters from which `network` builds a network."""

    @abstractmethod
    def network(self, n_inputs: int, n_outputs: int) -> Network:
        """Build the network.

        The inputs are the encoded features, followed by those that an algorithm appends.
        """


@dataclass(eq=False, repr=False)
class TorchModule(Backbone):
    """Any ``torch.nn.Module`` as a backbone, adapted through ``functional_call``.

    Parameters
    ----------
    factory : callable
        ``factory(n_inputs, n_outputs)`` returns a module that maps (point, input) to (point,
        output). BatchNorm, dropout and recurrent torch modules raise an error: they cannot run over
        many tasks at once. Buffers are constants, the same in every fit. Models can be pickled if
        the factory is a class or a function defined in a module, not a lambda.

    Examples
    --------
    >>> import torch
    >>> network = TorchModule(torch.nn.Linear).network(n_inputs=3, n_outputs=1)
    >>> params = network.init(torch.Generator().manual_seed(0))
    >>> network.forward(params, {}, torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """

    factory: Callable[[int, int], torch.nn.Module]

    def network(self, n_inputs: int, n_outputs: int) -> Network:
        """Build the network of the module."""
        return _ModuleNetwork(partial(self.factory, n_inputs, n_outputs))


class _ModuleNetwork(Network):
    def __init__(self, build: Callable[[], torch.nn.Module]) -> None:
        self.build = build
        self.module = self._built(seed=0)
        for name, layer in self.module.named_modules():
            for kind, instead in _INSTEAD.items():
                if isinstance(layer, kind):
                    raise DataError(
                        f"TorchModule: layer '{name}' is a {type(layer).__name__}, which {instead}."
                    )

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The module's own initialisation, under a seed drawn from the generator."""
        module = self._built(int(torch.randint(2**31, (), generator=generator)))
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    def forward(self, params: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs (point, output) at the weights `params` + `fast`."""
        weights = {name: value + fast[name] for name, value in params.items()} if fast else params
        constants = {
            name: value.to(x.device, x.dtype if value.is_floating_point() else None)
            for name, value in self.module.named_buffers()
        }
        outputs: Tensor = functional_call(self.module, {**constants, **weights}, (x,))
        return outputs

    def _built(self, seed: int) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def step(
        self,
        params: Params,
        fast: Fast,
        x: Tensor,
        error: Error,
        rates: Params,
        options: StepOptions = PLAIN_STEP,
    ) -> Fast:
        """One gradient step by reverse-mode differentiation; there is no low-rank form."""
        fast = fast or {name: torch.zeros_like(value) for name, value in params.items()}
        gradient = self.gradient(params, fast, x, error)
        if options.first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        if options.curvature is not None:
            gradient = {name: _curved(name, g, options.curvature) for name, g in gradient.items()}
        squared = torch.stack([value.square().sum() for value in gradient.values()]).sum()
        shrink = clipping(squared, options.max_norm)
        return {name: fast[name] - rates[name] * (shrink * gradient[name]) for name in fast}

    def gradient(self, params: Params, fast: Fast, x: Tensor, error: Error) -> Fast:
        """Inner gradient by reverse-mode differentiation."""
        fast = fast or {name: torch.zeros_like(value) for name, value in params.items()}
        outputs, pull_back = vjp(lambda change: self.forward(params, change, x), fast)[:2]
        gradients: Fast = pull_back(error(outputs))[0]
        return gradients

    def change(self, fast: Fast) -> dict[str, Tensor]:
        """The fast weights themselves, which are the changes."""
        return dict(fast)


def clipping(squared: Tensor, max_norm: float | None) -> Tensor | float:
    """Factor that clips a gradient with this squared norm to `max_norm`; 1 without a bound."""
    if max_norm is None:
        return 1.0
    return max_norm * torch.rsqrt(squared.clamp(min=max_norm**2))


def _curved(name: str, gradient: Tensor, curvature: Params) -> Tensor:
    """``left @ G @ right`` of a weight, seen as (output, rest); ``left @ g`` of a vector."""
    weight = name if f"left.{name}" in curvature else name.removesuffix("bias") + "weight"
    if f"left.{weight}" not in curvature:
        return gradient
    left, right = curvature[f"left.{weight}"], curvature.get(f"right.{name}")
    flat = left @ gradient.flatten(1) if right is not None else left @ gradient
    return (flat @ right).reshape(gradient.shape) if right is not None else flat
