"""Matching networks, and the attention over support rows that they share with relation networks."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.errors import DataError, renamed_parameter
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.ranges import Choice, Range

_SIMILARITIES = ("rbf", "dot", "cosine")


@dataclass(eq=False, repr=False)
class RowAttention(Algorithm):
    """Predicts by attention over embedded support rows and a learned prior row.

    Parameters
    ----------
    width : int
        Width of the embedding f.
    """

    width: Annotated[int, Range(8, 64, log=True)] = 32

    uses_support_offset: ClassVar[bool] = False

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Width of the embedding plus the outputs that predict the prior row."""
        return self.width + likelihood.n_outputs

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Embedding, outcome and weight of every support row."""
        return {
            "n": support.n,
            "embedding": spec.output(params, support.x)[:, : self.width],
            "y": support.y - support.offset,
            "weight": support.weight,
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Attention-weighted outcomes of the support and of the prior row."""
        output, likelihood = spec.output(params, query.x), part(params, "likelihood")
        attention, prior = self._attention(params, state, output), output[:, self.width :]
        mixed = spec.likelihood.mixture(likelihood, attention, state["y"], prior, state["n"])
        return spec.likelihood.shift(mixed, query.offset)

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """Attention weights of the support rows and, last, the prior row: (point, support + 1)."""
        return self._attention(params, state, spec.output(params, query.x))

    def _attention(self, params: Params, state: State, output: Tensor) -> Tensor:
        scores = self._scores(params, state, output[:, : self.width])
        return attend(scores, params["prior_score"], state["weight"])

    @abstractmethod
    def _scores(self, params: Params, state: State, query: Tensor) -> Tensor:
        """Score (point, support) of every support row for embedded queries (point, embedding)."""


@renamed_parameter("n_embedding", "width")
@dataclass(eq=False, repr=False)
class MatchingNet(RowAttention):
    r"""Matching network: predicts an average of the outcomes of similar support rows.

    .. math:: \hat y(x) = \sum_i a(x, x_i)\, y_i + a_0(x)\, f_0(x), \qquad
              a(x, x_i) \propto e^{s(f(x), f(x_i))}, \quad a_0 \propto e^{b}

    The weights a are attention over the support rows and a prior row. The network predicts the
    outcome :math:`f_0` of the prior row, which is the prediction without support. Classes are
    averaged as indicators. ``adapted.support_weights`` returns the weights. The paper's
    full-context embeddings are omitted, because they depend on the order of the support.

    Parameters
    ----------
    similarity : {"rbf", "dot", "cosine"}
        The similarity s: ``-|u - v|^2 / 2``, ``u'v``, or the cosine of u and v, times a learned
        scale. With "rbf" or "dot" this is the Nadaraya-Watson estimator on the embedding.

    References
    ----------
    Vinyals et al. (2016), arXiv:1606.04080.

    Examples
    --------
    >>> from ehrmeta import MatchingNet, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(MatchingNet(), max_steps=20, random_state=0)
    >>> adapted = model.fit(X, y, groups=groups).adapt(X[10:15], y[10:15])
    >>> list(adapted.support_weights(X[15:20]).columns)
    ['row', 'support_row', 'weight']
    """

    similarity: Annotated[str, Choice(_SIMILARITIES)] = "rbf"

    def check(self, likelihood: Likelihood) -> None:
        """Raise an error for an unknown similarity; every kind of outcome is supported."""
        if self.similarity not in _SIMILARITIES:
            raise DataError(f"similarity must be one of {_SIMILARITIES}, got {self.similarity!r}.")

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, scale of the similarity and score of the prior row."""
        start = {
            "rbf": -math.log(self.width),
            "dot": -0.5 * math.log(self.width),
            "cosine": math.log(5.0),
        }
        learned = {
            "log_scale": torch.tensor(start[self.similarity]),
            "prior_score": torch.zeros(()),
        }
        return super().init(spec, generator) | learned

    def _scores(self, params: Params, state: State, query: Tensor) -> Tensor:
        support = state["embedding"]
        if self.similarity == "cosine":
            query, support = (torch.nn.functional.normalize(z, dim=-1) for z in (query, support))
        scores = query @ support.mT
        if self.similarity == "rbf":
            squares = query.square().sum(-1)[:, None] + support.square().sum(-1)
            scores = scores - 0.5 * squares
        return params["log_scale"].exp() * scores


def attend(scores: Tensor, prior_score: Tensor, weight: Tensor) -> Tensor:
    """Softmax over support rows and, last, the prior row: (point, support + 1).

    Parameters
    ----------
    scores : (point, support)
    prior_score : ()
    weight : (support,)
        A row of weight 2 counts as two rows; 0 where padded.
    """
    counted = torch.where(weight > 0, weight, 1.0).log()
    scores = torch.where(weight > 0, scores + counted, -torch.inf)
    return torch.softmax(torch.cat([scores, prior_score.expand(len(scores), 1)], -1), -1)
