"""Scores of risks in parts of a cohort: by sex, by age group, by treatment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.evaluation.binary import BinaryRisk, read_binary
from ehrmeta.evaluation.risk_bootstrap import interval_rows

__all__ = ["score_subgroups"]


def score_subgroups(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    subgroups: pd.DataFrame | Mapping[str, ArrayLike],
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    min_cell: int = 11,
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Score each level of each column by itself, with intervals, small cells suppressed.

    Intervals of two levels may overlap although the levels differ, and with many levels some will
    look different by chance: this table raises questions, it does not test.

    Parameters
    ----------
    subgroups : DataFrame or mapping of str to (row,)
        Each column splits the patients once; cut numbers such as age into classes first. Rows
        without a value make a level of their own, "missing".
    min_cell : int
        Where patients, events or non-events are fewer than this but not 0, counts and scores are
        withheld, so that nobody is recognised. (Whoever publishes totals too may have to withhold
        a second level, or the difference tells.)

    Other parameters are those of `risk_intervals`.

    Returns
    -------
    DataFrame
        A row per subgroup, level and metric: subgroup, level, n, n_events (<NA> where withheld),
        and the columns of `risk_intervals`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=400)
    >>> sex = np.where(np.arange(400) < 395, "f", "m")
    >>> found = score_subgroups(rng.random(400) < p, p, subgroups={"sex": sex}, metrics=["auroc"])
    >>> print(found[["level", "n", "n_events"]].to_string(index=False))
    level    n  n_events
        f  395       209
        m <NA>      <NA>
    >>> found["note"].iloc[-1]
    'withheld: fewer than 11 patients, events or non-events'
    """
    data = read_binary(y_true, y_prob, sample_weight)
    rng = np.random.default_rng(random_state)
    if not len(subgroups):
        raise DataError("there is no subgroup: pass at least one column.")
    parts = []
    for name in subgroups:
        column = pd.Series(np.asarray(subgroups[name]))
        if len(column) != len(data.y):
            raise DataError(f"subgroup {name!r} has {len(column)} rows, y_true has {len(data.y)}.")
        codes, levels = pd.factorize(column, sort=True, use_na_sentinel=True)
        shown: list[Any] = list(levels) + (["missing"] if np.any(codes < 0) else [])
        for code, level in enumerate(shown):
            rows = codes == (code if code < len(levels) else -1)
            here = BinaryRisk(*(values[rows] for values in data))
            found = pd.DataFrame(interval_rows(here, metrics, confidence_level, n_bootstrap, rng))
            cells = [int(np.count_nonzero(here.y[here.weight > 0] == v)) for v in (0, 1)]
            n, n_events = pd.NA, pd.NA
            if any(0 < cell < min_cell for cell in (*cells, sum(cells))):
                found[["value", "low", "high", "se"]] = np.nan
                found["n_undefined"] = pd.NA
                found["note"] = f"withheld: fewer than {min_cell} patients, events or non-events"
            else:
                n, n_events = sum(cells), cells[1]
            found.insert(0, "subgroup", name)
            found.insert(1, "level", level)
            found.insert(2, "n", pd.array([n] * len(found), dtype="Int64"))
            found.insert(3, "n_events", pd.array([n_events] * len(found), dtype="Int64"))
            found["n_undefined"] = found["n_undefined"].astype("Int64")
            parts.append(found)
    return pd.concat(parts, ignore_index=True)
