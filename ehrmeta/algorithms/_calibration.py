"""How a learner whose network is not trained by its query loss learns its noise all the same."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Algorithm, Params, Spec, query_loss
from ehrmeta.nn.batch import TaskSet

__all__ = ["all_rows", "calibration_loss"]


def calibration_loss(
    algorithm: Algorithm,
    spec: Spec,
    params: Params,
    support: TaskSet,
    query: TaskSet,
    also: Collection[str] = (),
) -> Tensor:
    """Query loss after adapting, as a function of the likelihood's parameters alone.

    Parameters
    ----------
    also : collection of str
        Parameters of the adapting that are to learn from it too.
    """
    frozen = {name: p if name in also else p.detach() for name, p in params.items()}
    state = algorithm.adapt(spec, frozen, support)
    likelihood = {name: v for name, v in params.items() if name.startswith("likelihood.")}
    return query_loss(spec, algorithm.predict(spec, frozen | likelihood, state, query), query)


def all_rows(support: TaskSet, query: TaskSet) -> TaskSet:
    """Support and query as one set."""
    return TaskSet(*(torch.cat(pair) for pair in zip(support, query, strict=True)))
