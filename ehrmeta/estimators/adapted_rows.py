"""Further rows of tasks that were adapted: which is whose, and more of them to adapt to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ehrmeta.data import index_tasks
from ehrmeta.errors import GroupError
from ehrmeta.estimators.adapted_checks import refuse_other_ids, refuse_repeats
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.nn.batch import TaskRows

if TYPE_CHECKING:
    from ehrmeta.estimators._base import TaskEstimator

__all__ = ["task_numbers", "with_more_rows"]

Labels = npt.NDArray[Any] | None


def with_more_rows(
    model: TaskEstimator, labels: Labels, support: TaskRows, inputs: Inputs
) -> tuple[Labels, TaskRows]:
    """Labels and supports with the rows of a further call; new groups join as new tasks."""
    if (inputs.groups is None) != (labels is None):
        given, made = ("without", "with") if inputs.groups is None else ("with", "without")
        raise GroupError(f"update was called {given} groups, adapt {made}: use them in both.")
    if inputs.groups is None:
        old, new = np.zeros(1, np.int64), np.zeros(inputs.n_rows, np.int64)
    else:
        index_tasks(inputs.groups)  # refuses missing ids
        refuse_other_ids(inputs.groups, labels)
        union = pd.Index(labels).union(pd.Index(inputs.groups).unique())
        old, new = union.get_indexer(labels), union.get_indexer(inputs.groups)
        labels = union.to_numpy()
    n_tasks = 1 if labels is None else len(labels)
    added = model.table_.rows(inputs, new, n_tasks)
    added = replace(added, origin=added.origin + support.n_rows)
    codes = torch.from_numpy(old)[support.codes]
    support = support.merge(codes, n_tasks, added, added.codes)
    if support.timed and model.schema_ is not None and model.schema_.task_kind == "patient":
        refuse_repeats(support)
    return labels, support


def task_numbers(
    groups: npt.NDArray[Any] | None, labels: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Each row's place among the labels, (row,); -1 where its task was not adapted."""
    if groups is None:
        raise GroupError(
            f"groups is missing: the model was adapted to {len(labels):,} named tasks, so pass "
            "groups= with the task of every row."
        )
    refuse_other_ids(groups, labels)
    return np.asarray(pd.Index(labels).get_indexer(groups), np.int64)
