"""Scores of risks by site or subgroup, and random-effects pooling over sites."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from ehrmeta.data import index_tasks
from ehrmeta.errors import DataError
from ehrmeta.evaluation.discrimination import BinaryRisk, read_binary
from ehrmeta.evaluation.metrics import Array, finite, refuse
from ehrmeta.evaluation.risk import POOLING_SCALES, interval_rows
from ehrmeta.ranges import check_level

_MIN_SITES = 3  # the prediction interval has S - 2 degrees of freedom


def score_sites(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    groups: Any,
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Score every site separately, with intervals over its patients, 90 % by default.

    Parameters
    ----------
    groups : (row,)
        Site of each row.

    Other parameters are those of `risk_intervals`.

    Returns
    -------
    DataFrame
        A row per site and metric: site, n, n_events, and the columns of `risk_intervals`. If a
        metric is not defined (for instance with only one class), its value is NaN and the note says
        why.

    Examples
    --------
    >>> y, p = [0, 1, 1, 0, 0, 0], [0.1, 0.8, 0.7, 0.2, 0.2, 0.3]
    >>> scores = score_sites(y, p, groups=["a", "a", "a", "a", "b", "b"], metrics=["auroc"])
    >>> scores[["site", "n", "n_events", "value", "note"]]
      site  n  n_events  value                                note
    0    a  4         2    1.0
    1    b  2         0    NaN  only one class, 0 events in 2 rows
    """
    data = read_binary(y_true, y_prob, sample_weight)
    sites = index_tasks(groups)
    if len(sites.codes) != len(data.y):
        raise DataError(f"groups has {len(sites.codes)} rows, y_true has {len(data.y)}.")
    rng = np.random.default_rng(random_state)
    rows = []
    for code, site in enumerate(sites.labels):
        here = BinaryRisk(*(values[sites.codes == code] for values in data))
        n_others, n_events = _counts(here)
        first = {"site": site, "n": n_others + n_events, "n_events": n_events}
        scores = interval_rows(here, metrics, confidence_level, n_bootstrap, rng)
        rows += [first | score for score in scores]
    return pd.DataFrame(rows)


def score_subgroups(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    subgroups: pd.DataFrame | Mapping[str, ArrayLike],
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    min_cell: int = 11,
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Score each level of each column separately; small cells are suppressed.

    Intervals are 90 % by default. The table is descriptive: intervals of two levels may overlap
    although the levels differ, and among many levels some differ by chance.

    Parameters
    ----------
    subgroups : DataFrame or mapping of str to (row,)
        Columns of categories. Cut numbers, such as age, into classes first. Rows without a value
        form the level "missing".
    min_cell : int
        Counts and scores of a level are withheld if its number of patients, events or non-events is
        below this, but not 0. More levels of the column, the smallest first, are withheld until all
        those withheld together reach it, as the total is known. Columns are not compared with each
        other; a report does this. Pass 1 to see every level.

    Other parameters are those of `risk_intervals`.

    Returns
    -------
    DataFrame
        A row per subgroup, level and metric: subgroup, level, n, n_events (<NA> if withheld), and
        the columns of `risk_intervals`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=400)
    >>> ward = np.repeat(["a", "b", "c"], [250, 145, 5])
    >>> scores = score_subgroups(
    ...     rng.random(400) < p, p, subgroups={"ward": ward}, metrics=["auroc"]
    ... )
    >>> print(scores[["level", "n", "n_events"]].to_string(index=False))
    level    n  n_events
        a  250       131
        b <NA>      <NA>
        c <NA>      <NA>
    >>> scores["note"].iloc[-1]
    'withheld: fewer than 11 patients, events or non-events'
    """
    data = read_binary(y_true, y_prob, sample_weight)
    rng = np.random.default_rng(random_state)
    if not len(subgroups):
        raise DataError("subgroups is empty. Pass at least one column.")
    parts = []
    for name in subgroups:
        column = pd.Series(np.asarray(subgroups[name]))
        if len(column) != len(data.y):
            raise DataError(f"subgroup {name!r} has {len(column)} rows, y_true has {len(data.y)}.")
        codes, levels = pd.factorize(column, sort=True, use_na_sentinel=True)
        named: list[tuple[int, Any]] = list(enumerate(levels))
        named += [(-1, "missing")] if np.any(codes < 0) else []
        of_levels = [BinaryRisk(*(values[codes == code] for values in data)) for code, _ in named]
        counts = np.array([_counts(here) for here in of_levels])  # (level, class)
        withheld = _withheld(np.column_stack([counts, counts.sum(1)]), min_cell)
        for (_, level), here, cells, is_withheld in zip(
            named, of_levels, counts, withheld, strict=True
        ):
            part = pd.DataFrame(interval_rows(here, metrics, confidence_level, n_bootstrap, rng))
            shown: tuple[Any, Any] = int(cells.sum()), int(cells[1])
            if is_withheld:
                shown = pd.NA, pd.NA
                part[["value", "low", "high", "se"]] = np.nan
                part["n_undefined"] = pd.NA
                part["note"] = f"withheld: fewer than {min_cell} patients, events or non-events"
            part.insert(0, "subgroup", name)
            part.insert(1, "level", level)
            for place, (column, n) in enumerate(zip(("n", "n_events"), shown, strict=True), 2):
                part.insert(place, column, pd.array([n] * len(part), dtype="Int64"))
            part["n_undefined"] = part["n_undefined"].astype("Int64")
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _withheld(counts: NDArray[np.int64], min_cell: int) -> NDArray[np.bool_]:
    """Levels to withhold so that neither they nor their sum have few of any kind.

    `counts` is (level, kind), and the last kind is the total.
    """

    def is_few(cells: NDArray[np.int64]) -> Any:
        return ((cells > 0) & (cells < min_cell)).any(axis=-1)

    withheld = np.asarray(is_few(counts))
    for level in np.argsort(counts[:, -1], kind="stable"):
        if not is_few(counts[withheld].sum(axis=0)):
            break
        withheld[level] = True
    return withheld


def _counts(data: BinaryRisk) -> tuple[int, int]:
    """Non-events and events among the rows of positive weight."""
    n_others, n_events = np.bincount(data.y[data.weight > 0].astype(int), minlength=2)
    return int(n_others), int(n_events)


def pool_sites(
    scores: pd.DataFrame, *, confidence_level: float = 0.9, min_sites: int = 5
) -> pd.DataFrame:
    """Pool each metric over sites by random effects.

    The AUROC is pooled on the logit scale, E:O on the log scale, and other metrics untransformed,
    by `pool_random_effects` (Paule-Mandel, Hartung-Knapp). The prediction interval is for a new
    site.

    Parameters
    ----------
    scores : DataFrame
        From `score_sites`. Sites without a standard error, or with an infinite value on the pooling
        scale (an AUROC of 1), are excluded and counted.
    confidence_level : float, default 0.9
    min_sites : int
        Smallest number of sites to pool, at least 3. With fewer sites, values are NaN.

    Returns
    -------
    DataFrame
        A row per metric: metric, value, low, high, prediction_low, prediction_high, tau2 (on the
        pooling scale), n_sites, n_left_out, note.

    Examples
    --------
    >>> scores = pd.DataFrame({"site": list("abcde"), "metric": "e_o_ratio", "se": 0.1})
    >>> scores["value"] = [0.8, 0.9, 1.0, 1.1, 1.3]
    >>> pool_sites(scores).round(2)[["value", "low", "high", "prediction_low", "prediction_high"]]
       value   low  high  prediction_low  prediction_high
    0   1.01  0.84   1.2            0.66             1.53
    """
    if min_sites < _MIN_SITES:
        raise DataError(
            f"min_sites is {min_sites}; a prediction interval needs at least {_MIN_SITES} sites."
        )
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
            value, se = value[enters], se[enters]
            pooled = pool_random_effects(value, se, confidence_level=confidence_level)
            row |= {name: float(back(getattr(pooled, name))) for name in names}
            row["tau2"] = pooled.tau2
        rows.append(row)
    return pd.DataFrame(rows)


class PooledEffect(NamedTuple):
    """A mean over sites with its interval, and the prediction interval for a new site."""

    value: float
    low: float
    high: float
    prediction_low: float
    prediction_high: float
    tau2: float  # variance between sites


def pool_random_effects(
    estimate: ArrayLike, se: ArrayLike, *, confidence_level: float = 0.9
) -> PooledEffect:
    r"""Random-effects mean over sites, with weights :math:`w_s = 1 / (se_s^2 + \tau^2)`.

    :math:`\tau^2` is the Paule-Mandel estimate, which solves
    :math:`\sum_s w_s (y_s - \mu)^2 = S - 1`; it is 0 if the sum is below S - 1 even at
    :math:`\tau^2 = 0`. The interval is that of Hartung and Knapp (also Sidik and Jonkman), without
    a correction:

    .. math:: \mu \pm t_{S-1} \sqrt v, \quad
              v = \frac{\sum_s w_s (y_s - \mu)^2}{(S - 1) \sum_s w_s}

    The prediction interval for a new site is :math:`\mu \pm t_{S-2} \sqrt{\tau^2 + v}` (Higgins).

    Parameters
    ----------
    estimate, se : (site,)
        Value and standard error of each site, on a scale on which values are nearly normal.
    confidence_level : float, default 0.9
        Level of both intervals.

    Raises
    ------
    DataError
        Fewer than 3 sites, NaN, or a standard error that is not positive.

    References
    ----------
    Paule, Mandel (1982), doi:10.6028/jres.087.022. Hartung, Knapp (2001), doi:10.1002/sim.791.
    Higgins et al. (2009), doi:10.1111/j.1467-985X.2008.00552.x.

    Examples
    --------
    >>> pooled = pool_random_effects([0.1, 0.3, 0.5, 0.9], [0.1, 0.1, 0.1, 0.1])
    >>> round(pooled.value, 3), round(pooled.tau2, 4)  # variance .1167 less .01
    (0.45, 0.1067)
    """
    y, s = finite("estimate", estimate), finite("se", se)
    if y.ndim != 1 or y.shape != s.shape or len(y) < _MIN_SITES:
        raise DataError(
            f"estimate {y.shape} and se {s.shape} must have one value for each of at least "
            f"{_MIN_SITES} sites. Report fewer sites one by one, without pooling."
        )
    refuse(s <= 0, "se is not positive", of="sites")
    check_level(confidence_level)
    tau2 = _paule_mandel(y, s**2)
    mean, q = _mean_and_q(y, s**2 + tau2)
    variance = q / (len(y) - 1) / np.sum(1 / (s**2 + tau2))
    level = 0.5 + confidence_level / 2
    half = float(stats.t.ppf(level, len(y) - 1) * np.sqrt(variance))
    new_half = float(stats.t.ppf(level, len(y) - 2) * np.sqrt(tau2 + variance))
    return PooledEffect(mean, mean - half, mean + half, mean - new_half, mean + new_half, tau2)


def _mean_and_q(y: Array, variance: Array) -> tuple[float, float]:
    """Weighted mean, and weighted sum of squares about the mean."""
    mean = float(np.average(y, weights=1 / variance))
    return mean, float(np.sum((y - mean) ** 2 / variance))


def _paule_mandel(y: Array, variance: Array) -> float:
    def excess(tau2: float) -> float:
        return _mean_and_q(y, variance + tau2)[1] - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    largest = float(np.sum((y - y.mean()) ** 2))  # an upper bound: there, weights are < 1 / largest
    return float(optimize.brentq(excess, 0.0, largest, xtol=1e-14))
