"""Scores in subgroups of test patients, and their section of a report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.evaluation.metrics import TaskMean, bootstrap_counts, percentile_limits
from ehrmeta.report.disclosure import MIN_CELL, OTHER, count_text, protect_levels
from ehrmeta.report.document import Section, TextTable
from ehrmeta.report.wording import decimals, ranged

_MAX_LEVELS = 8  # categorical columns with more levels make no subgroups


class Score(NamedTuple):
    """A score that is averaged over rows, then over patients.

    Parameters
    ----------
    column : str
        Its values of every row.
    heading : str
        Of its column in a table.
    root : bool
        Whether the score is the square root of the mean.
    scale : float
        By which the table's figures are multiplied, such as 100 for percent.
    """

    column: str
    heading: str
    root: bool = False
    scale: float = 1.0


def subgroup_levels(
    table: TableEncoder, inputs: Inputs, given: Mapping[str, ArrayLike]
) -> dict[str, NDArray[Any]]:
    """Levels of every subgroup column: binary and categorical features, and given columns.

    Raises
    ------
    DataError
        A given column has another number of rows.
    """
    levels = {}
    for feature in table.features:
        values = inputs.columns[feature.name]
        if feature.kind == "binary":
            levels[feature.name] = pd.Series(values).map({0: "no", 1: "yes"}).to_numpy()
        elif feature.kind == "categorical" and len(pd.unique(values)) <= _MAX_LEVELS:
            levels[feature.name] = values
    levels |= {name: np.asarray(values) for name, values in given.items()}
    for name, values in levels.items():
        if values.shape != (inputs.n_rows,):
            raise DataError(
                f"subgroup {name!r} must have a value for each of {inputs.n_rows:,} rows."
            )
    return levels


def protected(rows: pd.DataFrame, groups: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Levels of the scored rows after `protect_levels`; columns that cannot be shown are missing.

    Parameters
    ----------
    rows : DataFrame
        Scored rows, with columns task and row, the position in the test table.
    groups : mapping of str to (row,)
        A level for every row of the test table.
    """
    named = {
        name: pd.Series(values[rows["row"]], dtype=object).fillna("missing").astype(str).to_numpy()
        for name, values in groups.items()
    }
    return protect_levels(rows["task"].to_numpy(), named)


def group_scores(
    rows: pd.DataFrame,
    groups: Mapping[str, NDArray[Any]],
    scores: Sequence[Score],
    *,
    n_bootstrap: int = 500,
) -> pd.DataFrame:
    """Scores in each level of each column.

    Parameters
    ----------
    rows : DataFrame
        Scored rows at one k: task, and the columns of the scores.
    groups : mapping of str to (row,)
        A level for every scored row, from `protected`.

    Returns
    -------
    DataFrame
        Columns group, level, n, and for each score its column, with 95 % limits ``_low``,
        ``_high``.
    """
    records = []
    for name, levels in groups.items():
        for level, part in rows.groupby(levels):
            patients = part.groupby("task")[[score.column for score in scores]].mean()
            record: dict[str, Any] = {"group": name, "level": level, "n": len(patients)}
            for score in scores:
                ends = mean_range(patients[score.column], n_bootstrap, root=score.root)
                names = (score.column, f"{score.column}_low", f"{score.column}_high")
                record |= dict(zip(names, ends, strict=True))
            records.append(record)
    return pd.DataFrame(records)


def groups_section(
    found: pd.DataFrame, given: Sequence[str], scores: Sequence[Score], k: int
) -> Section:
    """Section with the scores of subgroups.

    Parameters
    ----------
    found : DataFrame
        From `group_scores`.
    given : sequence of str
        Columns of `subgroup_levels`; those not in `found` are named as not shown.
    k : int
        Number of values that the model was adapted to.
    """
    title, columns = "Groups of patients", [] if found.empty else list(found["group"])
    omitted = [name for name in given if name not in columns]
    words = [] if given else ["No subgroup was scored: pass subgroups=."]
    if omitted:
        words.append(
            f"Not shown, as fewer than {MIN_CELL} patients could be distinguished: "
            f"{', '.join(omitted)}."
        )
    if found.empty:
        return Section(title, tuple(words))
    rows = [
        (
            f"{row['group']}: {row['level']}",
            count_text(row["n"]),
            *(_range(row, score, found) for score in scores),
        )
        for _, row in found.iterrows()
    ]
    descriptive = (
        "This table is descriptive: intervals of two groups may overlap although the groups "
        "differ, and among many groups some look different by chance. Levels of few patients are "
        f"merged into {OTHER!r}, so that neither a group nor a difference of groups has fewer than "
        f"{MIN_CELL} patients."
    )
    headings = ("group", "patients", *(score.heading for score in scores))
    caption = f"After {k} values, with 95 % intervals"
    table = TextTable(caption, headings, tuple(rows), sortable=True)
    return Section(title, (descriptive, *words), (table,))


def _range(row: pd.Series, score: Score, found: pd.DataFrame) -> str:
    """A score and its interval, with the same number of decimals in all groups."""
    names = (score.column, f"{score.column}_low", f"{score.column}_high")
    digits = 1 if score.scale == 100.0 else decimals(found[names[2]].max())
    return ranged(*(score.scale * row[name] for name in names), digits=digits)


def mean_range(values: pd.Series, n_bootstrap: int, *, root: bool) -> tuple[float, float, float]:
    """Mean over patients, or its square root, with 95 % limits."""
    loss = values.to_numpy(np.float64)
    mean = TaskMean(loss, np.ones_like(loss), root)
    samples = mean.resampled(bootstrap_counts(len(loss), n_bootstrap, 0))
    return mean.value(), *percentile_limits(samples, 0.95)
