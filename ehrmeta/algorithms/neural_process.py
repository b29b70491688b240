"""Conditional and attentive neural processes."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, prefixed
from ehrmeta.algorithms.matching import attend
from ehrmeta.nn import MLP, Distribution, Likelihood, Network, TaskSet
from ehrmeta.ranges import Choice, Range

_LOWEST = -1e4  # score of the prior row, which gets weight only if the support is empty


@dataclass(eq=False, repr=False)
class NeuralProcess(Algorithm):
    r"""Neural process: an encoder summarises the support, a decoder predicts from the summary.

    .. math:: r = \frac{\sum_i e(f(x_i), y_i) + \kappa r_0}{n + \kappa}, \qquad
              \hat y(x) = d\bigl(f(x),\, r,\, r_\ast(x)\bigr)

    where :math:`r_\ast(x)`, if `attentive`, is an average of the same encodings with attention from
    x. Adapting is one forward pass without gradients. A neural process needs many training tasks,
    and does not improve with supports much larger than those in training.

    Parameters
    ----------
    width : int
        Width of the embedding f, the encodings and the hidden layers.
    attentive : bool
        Whether a query also attends to single support rows (attentive neural process).

    References
    ----------
    Garnelo et al. (2018), arXiv:1807.01613. Kim et al. (2019), arXiv:1901.05761.
    """

    width: Annotated[int, Range(16, 128, log=True)] = 64
    attentive: Annotated[bool, Choice((True, False))] = True

    uses_support_offset: ClassVar[bool] = False

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Width of the embedding."""
        return self.width

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Embedding, encoder, decoder, and the encoding of an empty support."""
        encoder, decoder = self._networks(spec)
        params = super().init(spec, generator)
        params |= prefixed("encoder", encoder.init(generator))
        params |= prefixed("decoder", decoder.init(generator))
        params |= {
            "prior": 0.1 * torch.randn(self.width, generator=generator),
            "log_prior_count": torch.zeros(()),
            "spread_gain": torch.zeros(()),
        }
        if self.attentive:
            for name in ("query", "key"):
                weight = torch.randn(self.width, self.width, generator=generator)
                params[name] = weight / math.sqrt(self.width)
        return params

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Encodings of the support rows and their mean."""
        embedding = spec.output(params, support.x)
        coded = spec.likelihood.coded(support.y, support.offset)
        encoder, _ = self._networks(spec)
        rows = encoder.forward(part(params, "encoder"), {}, torch.cat([embedding, coded], -1))
        count = params["log_prior_count"].exp()
        mean = (support.weight @ rows + count * params["prior"]) / (support.n + count)
        share = support.n / (
            support.n + count
        )  # bounded, also for larger supports than in training
        state = {"n": support.n, "share": share, "mean": mean}
        if self.attentive:
            keys = embedding @ params["key"] / math.sqrt(self.width)
            state |= {"rows": rows, "keys": keys, "weight": support.weight}
        return state

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Decode the query's embedding and the summary of the support."""
        embedding = spec.output(params, query.x)
        summary = torch.cat([state["mean"], state["share"][None]])
        inputs = [embedding, summary.expand(len(embedding), -1)]
        if self.attentive:
            rows = torch.cat([state["rows"], params["prior"][None]])
            inputs.append(self._attention(params, state, embedding) @ rows)
        _, decoder = self._networks(spec)
        output = decoder.forward(part(params, "decoder"), {}, torch.cat(inputs, -1))
        output, spread = output[:, :-1], output[:, -1]
        predictive = spec.predictive(params, output, query, state["n"])
        if "scale" in predictive:
            predictive["scale"] = predictive["scale"] * torch.exp(params["spread_gain"] * spread)
        return predictive

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """Attention weights of the support rows and, last, the prior row: (point, support + 1)."""
        if not self.attentive:
            return super().attention(spec, params, state, query)
        embedding = spec.output(params, query.x)
        return self._attention(params, state, embedding)

    def _attention(self, params: Params, state: State, embedding: Tensor) -> Tensor:
        """Attention over the support rows; the prior row has the same share as in the mean.

        In one softmax over all rows, the prior row's share would fall with the number of rows, at a
        rate that training on one support size does not determine.
        """
        scores = embedding @ params["query"] @ state["keys"].mT
        rows = attend(scores, scores.new_tensor(_LOWEST), state["weight"])[:, :-1]
        prior_row = (1.0 - state["share"]).expand(len(rows), 1)
        return torch.cat([state["share"] * rows, prior_row], -1)

    def _networks(self, spec: Spec) -> tuple[Network, Network]:
        """Encoder of a row and decoder of a query; the decoder's last output is a log factor."""
        likelihood, block = spec.likelihood, MLP((self.width,), "silu")
        n_inputs = (3 if self.attentive else 2) * self.width + 1
        encoder = block.network(self.width + (likelihood.n_classes or 1), self.width)
        return encoder, block.network(n_inputs, likelihood.n_outputs + 1)
