"""Supports that were drawn by their outcome: cases and controls."""

from __future__ import annotations

from dataclasses import replace

import torch

from ehrmeta.errors import DataError
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["drawn_by_outcome"]


def drawn_by_outcome(support: TaskRows, prevalence: float) -> TaskRows:
    r"""The rows with what drawing cases and controls added to their log-odds as an offset.

    .. math:: \mathrm{logit}\, \bar y_i - \mathrm{logit}\, \pi

    with the share of events in the support of task i, and among its patients.

    Raises
    ------
    DataError
        The prevalence is no share, there are several classes, or a support holds one only.
    """
    if not 0.0 < prevalence < 1.0:
        raise DataError(f"prevalence must lie strictly between 0 and 1, got {prevalence}.")
    if bool((support.y > 1).any()):
        raise DataError("prevalence= is for two classes.")
    events = torch.bincount(support.codes, support.y.double(), minlength=support.n_tasks)
    share = events / support.sizes.clamp(min=1)
    alone = (support.sizes > 0) & ((share == 0) | (share == 1))
    if bool(alone.any()):
        raise DataError(
            f"{int(alone.sum()):,} of {support.n_tasks:,} supports (first: task "
            f"{int(alone.nonzero()[0])}) hold one class only, so they were not drawn by their "
            "outcome. Leave prevalence out for rows as they come."
        )
    added = torch.logit(share) - torch.logit(torch.tensor(prevalence, dtype=torch.float64))
    offset = support.offset + added[support.codes].to(support.offset.dtype)
    return replace(support, offset=offset)
