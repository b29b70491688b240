r"""Adapted linear layers, in low-rank or materialised form.

One gradient step on a linear layer with inputs ``h`` (n x i) and back-propagated errors ``d``
(n x o) gives :math:`W' = W - \alpha d^T h,\; b' = b - \alpha \sum d`. So for any input

.. math:: W'x + b' = Wx + b + V^T (Kx + 1), \qquad K = h,\; V = -\alpha d,

and S steps stack S blocks. The first layer has the same inputs at every step, so its values are
summed on one block of keys. The low-rank form stores keys and values per task; the product with the
shared ``W`` is computed for all tasks at once. The materialised form stores the change of ``W`` per
task. It is needed where every weight has its own rate. Both forms are exact.
"""

from typing import NamedTuple

import torch
from torch import Tensor


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


def clipping(squared: Tensor, max_norm: float | None) -> Tensor | float:
    """Factor that clips a gradient with this squared norm to `max_norm`; 1 without a bound."""
    if max_norm is None:
        return 1.0
    return max_norm * torch.rsqrt(squared.clamp(min=max_norm**2))


def squared_norm(h: Tensor, d: Tensor) -> Tensor:
    """Squared Frobenius norm of the layer's gradient (weight and bias), from its factors.

    ``|d^T h|^2 + |sum d|^2 = sum_ab (d d^T)_ab (h h^T + 1)_ab``.
    """
    return ((d @ d.mT) * (h @ h.mT + 1.0)).sum()
