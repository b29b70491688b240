"""Learned optimiser of the inner loop."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, part, prefixed
from ehrmeta.algorithms.maml import GradientLearner, raw_signed, signed_rate, support_error
from ehrmeta.nn.backbone import clipping
from ehrmeta.nn.batch import TaskSet


@dataclass(eq=False, repr=False)
class LearnedOptimizer(GradientLearner):
    r"""Learned optimiser: a small LSTM computes every inner update from the gradient.

    .. math:: h_s, c_s = \mathrm{LSTM}(z(g_s), h_{s-1}, c_{s-1}), \quad
              m_s = \sigma(u^\top h_s)\, m_{s-1} + g_s, \quad
              \theta_{s+1} = \theta_s - \bar\alpha \tanh(v^\top h_s)\, m_s

    Every weight is updated separately: one cell, shared by all weights, reads the sequence of a
    weight's gradients :math:`g_s` and sets its rate and momentum. A step is at most
    :math:`\bar\alpha` times the running sum of clipped gradients, and 0 without support. The input
    of the cell is
    :math:`z(g) = (\mathrm{asinh}(10^3 g) / 8, \tanh g)`, a version of the paper's (log magnitude,
    sign) that is smooth at 0.

    Parameters
    ----------
    width : int
        Size of the cell. Time and memory grow with this size times the number of weights.

    References
    ----------
    Andrychowicz et al. (2016), arXiv:1606.04474. Ravi, Larochelle (2017), ICLR.

    Examples
    --------
    >>> from ehrmeta import MLP, LearnedOptimizer, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(LearnedOptimizer(), MLP((16,)), max_steps=20, random_state=0)
    >>> model = model.fit(X, y, groups=groups)
    >>> model.adapt(X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """

    width: int = 4

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, cell and pseudo-count."""
        params = super().init(spec, generator)
        scale = 1.0 / math.sqrt(self.width)
        params["cell.weight"] = scale * torch.randn(
            4 * self.width, 2 + self.width, generator=generator
        )
        params["cell.bias"] = torch.zeros(4 * self.width)
        params["cell.readout"] = 0.01 * torch.randn(2, self.width, generator=generator)
        rate = raw_signed(torch.tensor(self.inner_lr), self.max_inner_lr)
        params["cell.start"] = torch.stack([rate, torch.tensor(-3.0)])
        return params | self.start_count()

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The state after the last update."""
        network, cell = part(params, "network"), part(params, "cell")
        error = support_error(spec, params, support)
        fast: State = {}
        momentum = memory = None
        for _ in range(self.inner_steps):
            gradient = spec.network.gradient(network, fast, support.x, error)
            g = torch.cat([value.flatten() for value in gradient.values()])  # (weight,)
            g = clipping(g.square().sum(), self.max_inner_norm) * g
            memory = _lstm(cell, g, memory)
            rate, keep = (memory[0] @ cell["readout"].mT + cell["start"]).unbind(1)
            momentum = g if momentum is None else torch.sigmoid(keep) * momentum + g
            update = signed_rate(rate, self.max_inner_lr) * momentum
            pieces = torch.split(update, [value.numel() for value in gradient.values()])
            fast = {
                name: fast.get(name, 0.0) - piece.view_as(gradient[name])
                for name, piece in zip(gradient, pieces, strict=True)
            }
        return {"n": support.n, **prefixed("fast", fast)}


def _lstm(cell: Params, g: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Output and state, (weight, width) each, after reading the gradient g (weight,)."""
    z = torch.stack([torch.asinh(1e3 * g) / 8.0, torch.tanh(g)], 1)
    w, n_inputs = cell["weight"], z.shape[1]
    gates = z @ w[:, :n_inputs].mT + cell["bias"]
    if memory is not None:
        gates = gates + memory[0] @ w[:, n_inputs:].mT
    input_gate, forget, candidate, output_gate = gates.chunk(4, 1)
    state = torch.sigmoid(input_gate) * torch.tanh(candidate)
    if memory is not None:
        state = state + torch.sigmoid(forget + 1.0) * memory[1]
    return torch.sigmoid(output_gate) * torch.tanh(state), state
