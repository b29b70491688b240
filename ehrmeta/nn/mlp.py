r"""Multi-layer perceptron with closed-form inner gradients and low-rank fast weights.

One gradient step on a linear layer with inputs ``h`` (n x i) and back-propagated errors ``d``
(n x o) gives :math:`W' = W - \alpha d^T h,\; b' = b - \alpha \sum d`. So for any input

.. math:: W'x + b' = Wx + b + V^T (Kx + 1), \qquad K = h,\; V = -\alpha d,

and S steps stack S blocks. The first layer has the same inputs at every step, so its values are
summed on one block of keys. The low-rank form stores keys and values per task; the product with the
shared ``W`` is computed for all tasks at once. The materialised form stores the change of ``W`` per
task. It is needed where every weight has its own rate. Both forms are exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ehrmeta.nn.backbone import (
    PLAIN_STEP,
    Backbone,
    Error,
    Fast,
    Network,
    Params,
    StepOptions,
    clipping,
)
from ehrmeta.ranges import Choice


class FastLayer(NamedTuple):
    """Change of one linear layer by adaptation.

    Low rank: `first` are the keys K (m, i), `second` the values V (m, o). Materialised: `first` is
    the change of the weight (o, i), `second` of the bias (o,).
    """

    first: Tensor
    second: Tensor

    @property
    def low_rank(self) -> bool:
        """Whether the change is stored as keys and values."""
        return self.second.ndim == 2


def prefers_low_rank(n_points: int, n_steps: int, shapes: list[tuple[int, int]]) -> bool:
    """Whether keys and values cost fewer operations per query point than full matrices.

    A layer (o, i) costs ``2 m (i + o)`` operations per point in low-rank form with ``m = n_points *
    n_steps`` keys (the first layer with ``m = n_points``), and ``2 o i`` with a matrix per task.
    The latter is doubled here, because every task has to read its matrix.
    """
    low_rank = sum(
        n_points * (n_steps if layer else 1) * (i + o) for layer, (o, i) in enumerate(shapes)
    )
    return low_rank <= 2 * sum(o * i for o, i in shapes)


def affine(weight: Tensor, bias: Tensor, x: Tensor, fast: FastLayer | None) -> Tensor:
    """``x W'^T + b'`` for points x (point, i): shared product plus the adapted change."""
    shared = torch.nn.functional.linear(x, weight, bias)
    if fast is None:
        return shared
    if fast.low_rank:
        return shared + (x @ fast.first.mT + 1.0) @ fast.second
    return shared + (x @ fast.first.mT + fast.second)


def back_affine(weight: Tensor, d: Tensor, fast: FastLayer | None) -> Tensor:
    """``d W'``: back-propagate errors (point, o) to the inputs (point, i)."""
    shared = d @ weight
    if fast is None:
        return shared
    if fast.low_rank:
        return shared + (d @ fast.second.mT) @ fast.first
    return shared + d @ fast.first


def descend(
    fast: FastLayer | None,
    h: Tensor,
    d: Tensor,
    weight_rate: Tensor,
    bias_rate: Tensor,
    low_rank: bool,
    same_keys: bool,
) -> FastLayer:
    """One gradient step from inputs h (n, i) and errors d (n, o).

    The low-rank form needs one rate per layer or per output unit, shared by weight and bias.
    `same_keys` says that h is the same as in earlier steps.
    """
    if low_rank:
        values = -weight_rate * d
        if fast is None:
            return FastLayer(h, values)
        if same_keys:
            return FastLayer(fast.first, fast.second + values)
        return FastLayer(torch.cat([fast.first, h]), torch.cat([fast.second, values]))
    weight_gradient, bias_gradient = d.mT @ h, d.sum(0)
    if fast is None:
        return FastLayer(-weight_rate * weight_gradient, -bias_rate * bias_gradient)
    return FastLayer(
        torch.addcmul(fast.first, weight_rate, weight_gradient, value=-1.0),
        torch.addcmul(fast.second, bias_rate, bias_gradient, value=-1.0),
    )


def squared_norm(h: Tensor, d: Tensor) -> Tensor:
    """Squared Frobenius norm of the layer's gradient (weight and bias), from its factors.

    ``|d^T h|^2 + |sum d|^2 = sum_ab (d d^T)_ab (h h^T + 1)_ab``.
    """
    return ((d @ d.mT) * (h @ h.mT + 1.0)).sum()


@dataclass(eq=False, repr=False)
class MLP(Backbone):
    """Multi-layer perceptron.

    Parameters
    ----------
    hidden : tuple of int
        Width of each hidden layer.
    activation : {"tanh", "silu", "relu"}
        Activation of the hidden layers; smooth ones adapt better on small supports.

    Examples
    --------
    >>> import torch
    >>> network = MLP((8,)).network(n_inputs=3, n_outputs=1)
    >>> params = network.init(torch.Generator().manual_seed(0))
    >>> network.forward(params, {}, torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """

    hidden: Annotated[
        tuple[int, ...], Choice(((16,), (32,), (64,), (32, 32), (64, 64), (128, 128)))
    ] = (64, 64)
    activation: Annotated[str, Choice(("tanh", "silu", "relu"))] = "tanh"

    def network(self, n_inputs: int, n_outputs: int) -> Network:
        """Build the perceptron."""
        return _Perceptron((n_inputs, *self.hidden, n_outputs), self.activation)


class _Perceptron(Network):
    def __init__(self, widths: tuple[int, ...], activation: str) -> None:
        self.widths = widths
        self.activation = ACTIVATIONS[activation]

    @property
    def n_layers(self) -> int:
        return len(self.widths) - 1

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """He-normal weights and zero biases."""
        params = {}
        for layer, (i, o) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            weight = torch.randn(o, i, generator=generator)
            params[f"{layer}.weight"] = weight * math.sqrt(2.0 / max(i, 1))
            params[f"{layer}.bias"] = torch.zeros(o)
        return params

    def low_rank(self, params: Params, n_points: int, n_steps: int) -> bool:
        """Whether the low-rank form needs fewer operations; see `prefers_low_rank`."""
        shapes = list(zip(self.widths[1:], self.widths[:-1], strict=True))
        return prefers_low_rank(n_points, n_steps, shapes)

    def forward(self, params: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs (point, output)."""
        return self._forward(params, fast, x)[-1]

    def step(
        self,
        params: Params,
        fast: Fast,
        x: Tensor,
        error: Error,
        rates: Params,
        options: StepOptions = PLAIN_STEP,
    ) -> Fast:
        """One gradient step in closed form, so that the meta-gradient is one backward pass."""
        factors = self._factors(params, fast, x, error)
        if options.first_order:
            factors = [(h.detach(), d.detach()) for h, d in factors]
        if (curvature := options.curvature) is not None:
            factors = [
                (h @ curvature[f"right.{layer}.weight"], d @ curvature[f"left.{layer}.weight"].mT)
                for layer, (h, d) in enumerate(factors)
            ]
        squared = torch.stack([squared_norm(h, d) for h, d in factors]).sum()
        shrink = clipping(squared, options.max_norm)
        factors = [(h, shrink * d) for h, d in factors]
        adapted: Fast = {}
        for layer, (h, d) in enumerate(factors):
            layer_rates = rates[f"{layer}.weight"], rates[f"{layer}.bias"]
            after = descend(
                _fast_layer(fast, layer), h, d, *layer_rates, options.low_rank, same_keys=layer == 0
            )
            adapted[f"{layer}.first"], adapted[f"{layer}.second"] = after
        return adapted

    def gradient(self, params: Params, fast: Fast, x: Tensor, error: Error) -> Fast:
        """Inner gradient: ``d^T h`` and ``sum d`` of every layer."""
        gradients: Fast = {}
        for layer, (h, d) in enumerate(self._factors(params, fast, x, error)):
            gradients[f"{layer}.first"], gradients[f"{layer}.second"] = d.mT @ h, d.sum(0)
        return gradients

    def change(self, fast: Fast) -> dict[str, Tensor]:
        """Changes of weights and biases; keys and values are multiplied out."""
        changes = {}
        for layer in range(self.n_layers if fast else 0):
            weight, bias = pair = FastLayer(fast[f"{layer}.first"], fast[f"{layer}.second"])
            if pair.low_rank:
                weight, bias = pair.second.mT @ pair.first, pair.second.sum(0)
            changes[f"{layer}.weight"], changes[f"{layer}.bias"] = weight, bias
        return changes

    def _factors(
        self, params: Params, fast: Fast, x: Tensor, error: Error
    ) -> list[tuple[Tensor, Tensor]]:
        """Back-propagated gradient of every layer as factors (h, d), first layer first."""
        inputs, pre, output = self._forward(params, fast, x)
        d = error(output)
        factors = [(inputs[-1], d)]
        for layer in range(self.n_layers - 1, 0, -1):
            d = back_affine(params[f"{layer}.weight"], d, _fast_layer(fast, layer))
            d = d * self.activation.derivative(pre[layer - 1], inputs[layer])
            factors.append((inputs[layer - 1], d))
        return factors[::-1]

    def _forward(
        self, params: Params, fast: Fast, x: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Inputs and pre-activations of every layer, and the output."""
        inputs, pre = [x], []
        for layer in range(self.n_layers - 1):
            pre.append(self._affine(params, fast, layer, inputs[-1]))
            inputs.append(self.activation.function(pre[-1]))
        return inputs, pre, self._affine(params, fast, self.n_layers - 1, inputs[-1])

    def _affine(self, params: Params, fast: Fast, layer: int, x: Tensor) -> Tensor:
        weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
        return affine(weight, bias, x, _fast_layer(fast, layer))


def _fast_layer(fast: Fast, layer: int) -> FastLayer | None:
    return FastLayer(fast[f"{layer}.first"], fast[f"{layer}.second"]) if fast else None


class Activation(NamedTuple):
    """``h = function(z)`` and ``dh/dz = derivative(z, h)``, both differentiable."""

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
