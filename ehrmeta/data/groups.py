"""Checks of task ids: single-row tasks, wide tables, and names that differ in spelling only."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.tasks import TaskIndex
from ehrmeta.errors import DataWarning, GroupError, Remedy, warn

_NUMBERED = re.compile(r"(?P<stub>.*?[^\d\W_])(?P<sep>[_. -]?)(?P<number>\d+)$")
_ARRAY = re.compile(r"x\d+")  # names of the columns of an array
TOO_FEW = "too few to tell how tasks differ."
MORE_TASKS = "Check the ids, or pass more tasks."
_FEW_TASKS, _SMALL_SHARE = 10, 0.5  # with two rows


def check_repeated_rows(
    tasks: TaskIndex, columns: Iterable[str], task_name: str | None = None
) -> None:
    """Raise if no task has two rows, with the likely cause; warn if few tasks have.

    Parameters
    ----------
    tasks : TaskIndex
    columns : iterable of str
        Names of all columns, of which numbered ones (hdl_1, hdl_2) may be visits.
    task_name : str, optional
        Column of the task.

    Raises
    ------
    GroupError
        No task has two rows.
    """
    n_tasks = tasks.n_tasks
    if n_tasks > 1 and (tasks.sizes < 2).all():
        message = f"none of {n_tasks:,} tasks has two rows, so there is nothing to learn of a task."
        remedy = wide_remedy(columns, task_name)
        if remedy is not None:
            named = remedy.values["columns"]
            message += f" The columns {named} look like visits side by side."
            raise GroupError(message, remedy)
        message += " The ids may be of visits or rows, not of patients."
        raise GroupError(
            message,
            Remedy(
                "patient-not-visit",
                "Pass groups= with the patient of every row; pd.wide_to_long turns a table with "
                "one column per visit into one with one row per visit.",
            ),
        )
    if few := few_repeated(tasks):
        warn(
            f"{few:,} of {n_tasks:,} tasks have two rows or more: {TOO_FEW} {MORE_TASKS}",
            DataWarning,
        )


def few_repeated(tasks: TaskIndex) -> int:
    """Number of tasks with two rows if they are too few to learn from, else 0.

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> few_repeated(index_tasks([1, 1, 2, 2])), few_repeated(index_tasks([1, 1, 2, 2, 3, 3]))
    (2, 0)
    """
    repeated = int((tasks.sizes > 1).sum())
    is_few = repeated <= 2 or repeated < min(_FEW_TASKS, _SMALL_SHARE * tasks.n_tasks)
    return repeated if is_few else 0


def wide_remedy(columns: Iterable[str], task_name: str | None = None) -> Remedy | None:
    """Remedy that turns the visits of a wide table into rows; None if no columns look like it."""
    wide = wide_columns(columns)
    if not wide:
        return None
    named = ", ".join(name for names in wide.values() for name in names)
    return Remedy("wide-table", _to_long(wide, task_name or "patient"), {"columns": named})


def wide_columns(columns: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Columns that look like visits side by side, by stem and separator.

    Examples
    --------
    >>> wide_columns(["age", "hdl_1", "hdl_2", "il6", "b12"])
    {('hdl', '_'): ['hdl_1', 'hdl_2']}
    """
    by_stem: dict[tuple[str, str], dict[int, str]] = {}
    for name in columns:
        match = _NUMBERED.match(name)
        if match and not _ARRAY.fullmatch(name):
            by_stem.setdefault((match["stub"], match["sep"]), {})[int(match["number"])] = name
    return {
        key: [name for _, name in sorted(names.items())]
        for key, names in by_stem.items()
        if len(names) > 2 or (len(names) == 2 and max(names) - min(names) == 1)
    }


def _to_long(wide: dict[tuple[str, str], list[str]], task_name: str) -> str:
    """The call that turns the visits of a wide table into rows."""
    separators = [separator for _, separator in wide]
    separator = max(separators, key=separators.count)
    stubs = [stub for stub, other in wide if other == separator]
    return (
        f"Turn them into rows: pd.wide_to_long(frame, {stubs}, i={task_name!r}, j='visit', "
        f"sep={separator!r}).reset_index()."
    )


def respelled(new: NDArray[np.object_], known: NDArray[np.object_] | None = None) -> int:
    """Count ids or levels that equal another but for leading zeros, capitals or spaces.

    Parameters
    ----------
    new : ndarray
        Ids or levels; numbers are never counted.
    known : ndarray, optional
        Others; by default the new ones are compared with each other.

    Examples
    --------
    >>> respelled(np.array(["p1", "P1 ", "p2"], object))
    1
    >>> respelled(np.array(["7", "8"], object), np.array(["007", "8"], object))
    1
    """
    new = pd.unique(new)
    if (
        new.dtype != object
        or len(new) < (2 if known is None else 1)
        or (known is not None and known.dtype != object)
    ):
        return 0
    if known is None:
        return int(_plain(new).duplicated().sum())
    unknown = new[~np.isin(new.astype(str), known.astype(str))]
    return int(_plain(unknown).isin(_plain(known)).sum())


def spelling_hint(count: int) -> str:
    """Sentence on unknown ids that match a known id except for spelling; empty without any."""
    if not count:
        return ""
    return (
        f" {count:,} of their ids differ from known ids by leading zeros, capitals or spaces only: "
        "use one spelling."
    )


def warn_of_respelled(count: int) -> None:
    """Warn of ids that differ from another in their spelling only, if any."""
    if count:
        warn(
            f"{count:,} id(s) differ from another by leading zeros, capitals or spaces only, but "
            "count as separate tasks. Use one spelling for every task.",
            DataWarning,
        )


def _plain(ids: NDArray[np.object_]) -> pd.Series[str]:
    return pd.Series(ids).astype(str).map(plain)


def plain(name: str) -> str:
    """An id or a level without leading zeros, capitals and spaces, to find other spellings.

    Examples
    --------
    >>> plain(" Ward  B"), plain("007"), plain("0")
    ('wardb', '7', '0')
    """
    name = "".join(name.split()).casefold()
    return name.lstrip("0") or name[-1:]
