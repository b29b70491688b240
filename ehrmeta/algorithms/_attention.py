"""Attention over a support's rows and a learned prior row, for a task without rows too."""

from __future__ import annotations

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params, Spec, State, part
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.class_likelihoods import ClassLikelihood
from ehrmeta.nn.likelihoods import Distribution

__all__ = ["attend", "attended_outcome"]

_LEAST = 1e-6  # probability of a class that no attended row holds


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
    own, left = attention[:, :-1], attention[:, -1:]
    if isinstance(spec.likelihood, ClassLikelihood):
        population = torch.softmax(spec.likelihood.logits(prior, torch.zeros_like(prior)), -1)
        p = own @ spec.likelihood.one_hot(state["y"]) + left * population
        logits = p.clamp(min=_LEAST).log()
        return {"logits": spec.likelihood.shift(logits, query.offset)}
    loc = (own @ state["y"])[:, None] + left * prior + query.offset[:, None]
    return spec.likelihood.distribution(part(params, "likelihood"), loc, state["n"])
