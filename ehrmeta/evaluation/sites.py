"""Scores of risks at each site, and what they say about the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.data import index_tasks
from ehrmeta.errors import DataError
from ehrmeta.evaluation.binary import BinaryRisk, read_binary
from ehrmeta.evaluation.random_effects import pool_random_effects
from ehrmeta.evaluation.risk_bootstrap import POOLING_SCALES, interval_rows

__all__ = ["pool_sites", "score_sites"]


def score_sites(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    groups: Any,
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Score every site by itself, with intervals over its patients.

    Parameters
    ----------
    groups : (row,)
        Site of each row.

    Other parameters are those of `risk_intervals`.

    Returns
    -------
    DataFrame
        A row per site and metric: site, n, n_events, and the columns of `risk_intervals`. A site
        that does not define a metric (one class, say) has NaN and a note that says why.

    Examples
    --------
    >>> y, p = [0, 1, 1, 0, 0, 0], [0.1, 0.8, 0.7, 0.2, 0.2, 0.3]
    >>> scores = score_sites(y, p, groups=["a", "a", "a", "a", "b", "b"], metrics=["auroc"])
    >>> scores[["site", "n", "n_events", "value", "note"]]
      site  n  n_events  value                                note
    0    a  4         2    1.0
    1    b  2         0    NaN  one class only, 0 events in 2 rows
    """
    data = read_binary(y_true, y_prob, sample_weight)
    sites = index_tasks(groups)
    if len(sites.codes) != len(data.y):
        raise DataError(f"groups has {len(sites.codes)} rows, y_true has {len(data.y)}.")
    rng = np.random.default_rng(random_state)
    parts = []
    for code, site in enumerate(sites.labels):
        here = BinaryRisk(*(values[sites.codes == code] for values in data))
        found = pd.DataFrame(interval_rows(here, metrics, confidence_level, n_bootstrap, rng))
        found.insert(0, "site", site)
        found.insert(1, "n", int(np.count_nonzero(here.weight > 0)))
        found.insert(2, "n_events", int(np.count_nonzero(here.y[here.weight > 0])))
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def pool_sites(
    scores: pd.DataFrame, *, confidence_level: float = 0.95, min_sites: int = 5
) -> pd.DataFrame:
    """Pool each metric over sites by random effects, on its own scale.

    The AUROC is pooled as its logit, E:O as its logarithm, the others as they are (see
    `pool_random_effects`: Paule-Mandel, Hartung-Knapp). The prediction interval, where a new site
    is expected, is what a user of a new site wants to know.

    Parameters
    ----------
    scores : DataFrame
        Of `score_sites`. A site enters if it has a standard error and its value is finite on the
        scale (no AUROC of 1); the others are counted.
    confidence_level : float
    min_sites : int
        With fewer, values are NaN: list the sites. At least 3.

    Returns
    -------
    DataFrame
        A row per metric: metric, value, low, high, prediction_low, prediction_high, tau2 (on the
        scale of pooling), n_sites, n_left_out, note.

    Examples
    --------
    >>> scores = pd.DataFrame({"site": list("abcde"), "metric": "e_o_ratio", "se": 0.1})
    >>> scores["value"] = [0.8, 0.9, 1.0, 1.1, 1.3]
    >>> pool_sites(scores).round(2)[["value", "low", "high", "prediction_low", "prediction_high"]]
       value  low  high  prediction_low  prediction_high
    0   1.01  0.8  1.27            0.57             1.77
    """
    if min_sites < 3:
        raise DataError(f"min_sites is {min_sites}; a prediction interval needs at least 3 sites.")
    rows = []
    for metric, per_site in scores.groupby("metric", sort=False):
        to_scale, back = POOLING_SCALES.get(str(metric), (np.asarray, np.asarray))
        with np.errstate(divide="ignore"):
            value = to_scale(per_site["value"].to_numpy(np.float64))
        se = per_site["se"].to_numpy(np.float64)
        enters = np.isfinite(value) & np.isfinite(se) & (se > 0)
        names = ("value", "low", "high", "prediction_low", "prediction_high")
        row: dict[str, Any] = {"metric": metric, **dict.fromkeys((*names, "tau2"), np.nan)}
        row |= {"n_sites": int(enters.sum()), "n_left_out": int((~enters).sum()), "note": ""}
        if row["n_sites"] < min_sites:
            row["note"] = f"{row['n_sites']} sites, fewer than {min_sites}: listed, not pooled"
        else:
            pooled = pool_random_effects(
                value[enters], se[enters], confidence_level=confidence_level
            )
            row |= {name: float(back(getattr(pooled, name))) for name in names}
            row["tau2"] = pooled.tau2
        rows.append(row)
    return pd.DataFrame(rows)
