"""Relation networks."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, prefixed
from ehrmeta.algorithms.matching import RowAttention
from ehrmeta.algorithms.prototypical import class_counts, frequencies, prototypes, start_prototypes
from ehrmeta.errors import renamed_parameter
from ehrmeta.nn import MLP, Distribution, Likelihood, Network, TaskSet
from ehrmeta.ranges import Choice, Range


@renamed_parameter("n_embedding", "width")
@dataclass(eq=False, repr=False)
class RelationNet(RowAttention):
    r"""Relation network: a learned network scores pairs of embeddings for similarity.

    .. math:: r(x, c) = g\bigl([f(x),\, c,\, (f(x) - c)^2]\bigr)

    For classes, c is a class prototype, and a softmax of the scores gives the class probabilities
    (the paper uses a squared error on sigmoids). For real-valued outcomes, c is the embedding of a
    support row, and the scores give attention over the rows and a learned prior row.

    Parameters
    ----------
    hidden : int
        Width of g's hidden layer.
    prior_count : float
        Initial weight of a prior prototype, in rows. It is learned.
    additive : bool
        Score each coordinate separately with one small g, which corrects a squared distance:
        :math:`s \sum_j g(f_j, c_j, (f_j - c_j)^2) - (f_j - c_j)^2 / 2`. This g cannot memorise the
        training classes. Use it for few classes and a wide embedding.

    References
    ----------
    Sung et al. (2018), arXiv:1711.06025.
    """

    hidden: Annotated[int, Range(8, 64, log=True)] = 32
    prior_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
    additive: Annotated[bool, Choice((False, True))] = False

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Width of the embedding plus, for real-valued outcomes, the outputs of the prior row."""
        return self.width + (0 if likelihood.n_classes else likelihood.n_outputs)

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Embedding and relation networks; prior prototypes or the score of the prior row."""
        params = super().init(spec, generator)
        params |= prefixed("relation", self._relation().init(generator))
        if self.additive:
            params["relation.1.weight"] = torch.zeros(1, self.hidden)
            params["log_scale"] = torch.tensor(math.log(8.0 / self.width))
        if not (n_classes := spec.likelihood.n_classes):
            return params | {"prior_score": torch.zeros(())}
        return params | start_prototypes(n_classes, self.width, self.prior_count, generator)

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Class prototypes and frequencies, or embedded rows."""
        if not spec.likelihood.n_classes:
            return super().adapt(spec, params, support)
        counts = class_counts(spec.likelihood, support)
        return {
            "embedding": prototypes(params, spec.output(params, support.x), counts),
            "log_frequency": frequencies(params, counts),
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Softmax of the relation scores over classes, or attention over rows."""
        if not spec.likelihood.n_classes:
            return super().predict(spec, params, state, query)
        scores = self._scores(params, state, spec.output(params, query.x))
        return spec.likelihood.shift({"logits": scores + state["log_frequency"]}, query.offset)

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """Attention weights, for real-valued outcomes only; classes have none."""
        if spec.likelihood.n_classes:
            return Algorithm.attention(self, spec, params, state, query)
        return super().attention(spec, params, state, query)

    def _scores(self, params: Params, state: State, query: Tensor) -> Tensor:
        reference = state["embedding"]  # support rows, or prototypes
        shape = (len(query), len(reference), self.width)
        query, reference = query[:, None].expand(shape), reference.expand(shape)
        squared = (query - reference).square()
        pairs = torch.stack([query, reference, squared], 2)  # (point, reference, 3, embedding)
        rows = pairs.mT.flatten(0, 2) if self.additive else pairs.flatten(2).flatten(0, 1)
        scores = self._relation().forward(part(params, "relation"), {}, rows)
        if not self.additive:
            return scores.reshape(shape[:2])
        return params["log_scale"].exp() * (scores.reshape(shape) - 0.5 * squared).sum(-1)

    def _relation(self) -> Network:
        return MLP((self.hidden,)).network(3 if self.additive else 3 * self.width, 1)
