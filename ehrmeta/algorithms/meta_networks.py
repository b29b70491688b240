"""Meta networks: fast weights that are read from a memory of the support."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, softmax

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.ranges import Range


@dataclass(eq=False, repr=False)
class MetaNetworks(Algorithm):
    r"""Meta networks: fast weights, computed from support gradients and read by attention.

    The backbone embeds a point, :math:`r = u(x)`. A base learner of two layers with slow weights
    W reads :math:`\tanh r`. The loss gradient of support row i on a layer is
    :math:`d_i k_i^\top`, with layer input k; the coordinate-wise meta learner m maps it to fast
    weights :math:`W^*_i = m(d_i)\, k_i^\top`. A query averages the fast weights by attention and
    adds their output to the output of the slow weights:

    .. math:: a_i = \mathrm{softmax}_i(\kappa \cos(r, r_i)), \qquad W^* = \sum_i a_i W^*_i, \qquad
              h = \tanh(W k) + \tanh(W^* k)

    One memory row is empty and has a learned score, so that a small support changes predictions
    less than a large one.

    Parameters
    ----------
    width : int
        Size of the embedding, which is the output of the backbone.
    base_width : int
        Hidden units of the base learner.
    meta_width : int
        Hidden units of the meta learner.

    References
    ----------
    Munkhdalai, Yu (2017), arXiv:1703.00837.
    """

    width: Annotated[int, Range(16, 128, log=True)] = 64
    base_width: Annotated[int, Range(16, 128, log=True)] = 64
    meta_width: int = 16

    def n_outputs(self, likelihood: Likelihood) -> int:
        """The width of the embedding."""
        return self.width

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Embedding and likelihood, base learner, meta learner and memory."""
        params = super().init(spec, generator)
        widths = (self.width, self.base_width, spec.likelihood.n_outputs)
        for layer in (0, 1):
            n_in, n_out = widths[layer : layer + 2]
            weight = torch.randn(n_out, n_in, generator=generator)
            params[f"base.{layer}.weight"] = weight / math.sqrt(n_in)
            params[f"base.{layer}.bias"] = torch.zeros(n_out)
            hidden = torch.randn(self.meta_width, 2, generator=generator)
            params[f"meta.{layer}.slope"], params[f"meta.{layer}.shift"] = hidden.unbind(1)
            params[f"meta.{layer}.out"] = torch.zeros(self.meta_width)
            params[f"meta.{layer}.direct"] = torch.tensor(-1.0)
        params["memory.log_sharpness"] = torch.tensor(5.0).log()
        params["memory.nothing"] = torch.tensor(0.0)
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Memory: embedding, layer inputs and fast weights of every support row."""
        base, meta = part(params, "base"), part(params, "meta")
        r = spec.output(params, support.x)
        k0 = torch.tanh(r)
        k1 = torch.tanh(linear(k0, base["0.weight"], base["0.bias"]))
        output = linear(k1, base["1.weight"], base["1.bias"]) + support.offset[:, None]
        d1 = spec.likelihood.error(part(params, "likelihood"), output, support.y)
        d0 = (d1 @ base["1.weight"]) * (1.0 - k1.square())
        return {
            "n": support.n,
            "embedding": r,
            "log_weight": support.weight.log(),
            "key": k1,
            "value.0": _fast_values(part(meta, "0"), d0),
            "value.1": _fast_values(part(meta, "1"), d1),
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Slow weights plus attended fast weights in every layer."""
        base = part(params, "base")
        r = spec.output(params, query.x)
        attention = _attention(part(params, "memory"), r, state)  # (query, support)
        k0 = torch.tanh(r)
        slow = torch.tanh(linear(k0, base["0.weight"], base["0.bias"]))
        fast = _read(attention, k0, torch.tanh(state["embedding"]), state["value.0"])
        k1 = slow + torch.tanh(fast)
        output = linear(k1, base["1.weight"], base["1.bias"])
        output = output + _read(attention, k1, state["key"], state["value.1"])
        return spec.predictive(params, output, query, state["n"])


def _fast_values(meta: Params, d: Tensor) -> Tensor:
    """Apply the meta learner to every coordinate of the errors d (point, unit)."""
    hidden = torch.tanh(d[..., None] * meta["slope"] + meta["shift"])
    return meta["direct"] * d + hidden @ meta["out"]


def _attention(memory: Params, r: Tensor, state: State) -> Tensor:
    """Attention weights of the support rows for each query; they and the empty row sum to 1."""
    cosine = normalize(r, dim=1) @ normalize(state["embedding"], dim=1).mT
    logits = memory["log_sharpness"].exp() * cosine + state["log_weight"]
    nothing = memory["nothing"].expand(len(r), 1)
    return softmax(torch.cat([logits, nothing], 1), 1)[:, :-1]


def _read(attention: Tensor, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``sum_i a_i (k_i x / width + 1) v_i``: the attended fast layer at x (query, input)."""
    return (attention * (x @ keys.mT / x.shape[1] + 1.0)) @ values
