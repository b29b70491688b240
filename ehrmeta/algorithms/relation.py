"""Relation networks."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part
from ehrmeta.algorithms.matching import attend, attended_outcome
from ehrmeta.algorithms.prototypical import class_counts, frequencies, prototypes, start_prototypes
from ehrmeta.nn import MLP, Distribution, Likelihood, Network, TaskSet
from ehrmeta.ranges import Choice, Range


@dataclass(eq=False, repr=False)
class RelationNet(Algorithm):
    r"""Learns what it means to be alike: a network scores pairs of embeddings.

    .. math:: r(x, c) = g\bigl([f(x),\, c,\, (f(x) - c)^2]\bigr)

    Classes: c is the class prototype, and the relation scores are its log-odds (a softmax over
    classes in place of the paper's squared error on sigmoids). Real-valued outcomes: c is the
    embedding of a support row, and scores are attention over rows and a learned prior row.

    Parameters
    ----------
    n_embedding : int
        Width of the embedding f.
    hidden : int
        Width of g's hidden layer.
    prior_count : float
        Rows that a prior prototype of a class counts for; learned from this start.
    additive : bool
        Relate the coordinates one by one, with one small g for all, which corrects a distance:
        :math:`s \sum_j g(f_j, c_j, (f_j - c_j)^2) - (f_j - c_j)^2 / 2`. It cannot learn the
        training classes by heart; for where those are few and the embedding is wide.

    References
    ----------
    Sung et al. (2018), arXiv:1711.06025.
    """

    n_embedding: Annotated[int, Range(8, 64, log=True)] = 32
    hidden: Annotated[int, Range(8, 64, log=True)] = 32
    prior_count: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
    additive: Annotated[bool, Choice((False, True))] = False

    def n_outputs(self, likelihood: Likelihood) -> int:
        """The embedding, and for real-valued outcomes the prior row's prediction."""
        return self.n_embedding + (0 if likelihood.n_classes else likelihood.n_outputs)

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Embedding and relation networks, prior prototypes or the prior row's score."""
        params = super().init(spec, generator)
        relation = self._relation().init(generator)
        params |= {f"relation.{name}": value for name, value in relation.items()}
        if self.additive:
            params["relation.1.weight"] = torch.zeros(1, self.hidden)
            params["log_scale"] = torch.tensor(math.log(8.0 / self.n_embedding))
        n_classes = spec.likelihood.n_classes
        if not n_classes:
            return params | {"prior_score": torch.zeros(())}
        return params | start_prototypes(n_classes, self.n_embedding, self.prior_count, generator)

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """What a query will be compared with: prototypes of classes, or rows."""
        output = spec.output(params, support.x)
        if spec.likelihood.n_classes:
            counts = class_counts(spec.likelihood, support)
            return {
                "reference": prototypes(params, output, counts),
                "log_frequency": frequencies(params, counts),
            }
        return {
            "n": support.n,
            "reference": output[:, : self.n_embedding],
            "y": support.y - support.offset,
            "weight": support.weight,
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Softmax of the relation scores, over classes or over rows."""
        output = spec.output(params, query.x)
        scores = self._scores(params, state, output)
        if spec.likelihood.n_classes:
            logits = scores + state["log_frequency"]
            return spec.likelihood.shift({"logits": logits}, query.offset)
        attention = attend(scores, params["prior_score"], state["weight"])
        prior = output[:, self.n_embedding :]
        return attended_outcome(spec, params, state, attention, prior, query)

    def attention(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """How much every support row, and last the prior row, weighs: (point, support + 1)."""
        if spec.likelihood.n_classes:
            return super().attention(spec, params, state, query)
        output = spec.output(params, query.x)
        scores = self._scores(params, state, output)
        return attend(scores, params["prior_score"], state["weight"])

    def _scores(self, params: Params, state: State, output: Tensor) -> Tensor:
        """Relation of every query with every reference, (point, reference)."""
        query, reference = output[:, : self.n_embedding], state["reference"]
        shape = (len(query), len(reference), self.n_embedding)
        query, reference = query[:, None].expand(shape), reference.expand(shape)
        squared = (query - reference).square()
        pairs = torch.stack([query, reference, squared], 2)  # (point, reference, 3, embedding)
        read = pairs.mT.flatten(0, 2) if self.additive else pairs.flatten(2).flatten(0, 1)
        scores = self._relation().forward(part(params, "relation"), {}, read)
        if not self.additive:
            return scores.reshape(shape[:2])
        return params["log_scale"].exp() * (scores.reshape(shape) - 0.5 * squared).sum(-1)

    def _relation(self) -> Network:
        return MLP((self.hidden,)).network(3 if self.additive else 3 * self.n_embedding, 1)
