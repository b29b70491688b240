"""Matching networks."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.errors import DataError
from ehrmeta.nn import Distribution, Likelihood, TaskSet
from ehrmeta.ranges import Choice, Range

_SIMILARITIES = ("rbf", "dot", "cosine")


@dataclass(eq=False, repr=False)
class MatchingNet(Algorithm):
    r"""Predicts by the outcomes of similar support rows, and says which ones they were.

    .. math:: \hat y(x) = \sum_i a(x, x_i)\, y_i + a_0(x)\, f_0(x), \qquad
              a(x, x_i) \propto e^{s(f(x), f(x_i))}, \quad a_0 \propto e^{b}

    Attention over the support and a prior row, whose outcome :math:`f_0` the network predicts: the
    population model. Classes are averaged as indicators. ``adapted.support_weights`` gives the
    attention. The paper's full-context embeddings, which depend on the order of the support, are
    left out.

    Parameters
    ----------
    n_embedding : int
        Width of the embedding f.
    similarity : {"rbf", "dot", "cosine"}
        s: ``-|u - v|^2 / 2``, ``u'v`` or its cosine, times a learned scale. With "rbf" or "dot"
        this is the Nadaraya-Watson estimator on the embedding.

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

    n_embedding: Annotated[int, Range(8, 64, log=True)] = 32
    similarity: Annotated[str, Choice(("rbf", "dot", "cosine"))] = "rbf"

    def check(self, likelihood: Likelihood) -> None:
        """Refuse unknown similarities; every kind of outcome is served."""
        if self.similarity not in _SIMILARITIES:
            raise DataError(f"similarity must be one of {_SIMILARITIES}, got {self.similarity!r}.")

    def n_outputs(self, likelihood: Likelihood) -> int:
        """The embedding, and the prior row's prediction."""
        return self.n_embedding + likelihood.n_outputs

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Network, likelihood, the scale of the similarity and the prior row's score."""
        start = {
            "rbf": -math.log(self.n_embedding),
            "dot": -0.5 * math.log(self.n_embedding),
            "cosine": math.log(5.0),
        }
        return {
            **super().init(spec, generator),
            "log_scale": torch.tensor(start[self.similarity]),
            "prior_score": torch.zeros(()),
        }

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """The embedded support and its outcomes."""
        output = spec.output(params, support.x)
        return {
            "n": support.n,
            "embedding": output[:, : self.n_embedding],
            "y": support.y - support.offset,
            "weight": support.weight,
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Attention-weighted outcomes."""
        output = spec.output(params, query.x)
        attention = self._attention(params, state, output)
        prior = output[:, self.n_embedding :]
        return attended_outcome(spec, params, state, attention, prior, query)

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """How much every support row, and last the prior row, weighs: (point, support + 1)."""
        output = spec.output(params, query.x)
        return self._attention(params, state, output)

    def _attention(self, params: Params, state: State, output: Tensor) -> Tensor:
        query, support = output[:, : self.n_embedding], state["embedding"]
        if self.similarity == "cosine":
            query, support = (torch.nn.functional.normalize(z, dim=-1) for z in (query, support))
        scores = query @ support.mT
        if self.similarity == "rbf":
            squares = query.square().sum(-1)[:, None] + support.square().sum(-1)
            scores = scores - 0.5 * squares
        return attend(params["log_scale"].exp() * scores, params["prior_score"], state["weight"])


def attend(scores: Tensor, prior_score: Tensor, weight: Tensor) -> Tensor:
    """Softmax over support rows and the prior row, which is the last: (point, support + 1).

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


def attended_outcome(
    spec: Spec, params: Params, state: State, attention: Tensor, prior: Tensor, query: TaskSet
) -> Distribution:
    """The outcomes of the attended rows, averaged, and the prior row's own prediction.

    Parameters
    ----------
    state
        With ``y`` (support,), less its offset, and ``n``.
    attention : (point, support + 1)
    prior : (point, output)
        Predicted at an empty support.
    """
    learned = part(params, "likelihood")
    outcome = spec.likelihood.mixture(learned, attention, state["y"], prior, state["n"])
    return spec.likelihood.shift(outcome, query.offset)
