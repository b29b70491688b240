"""k-shot learning curves: error over the number of observations of a new patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.estimators.inputs import schema_of
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.displays._base import LINES, MARKERS, PALETTE, Axes, Display
from ehrmeta.report.wording import with_unit

_WORDS = {
    "rmse_macro": "RMSE, equal weight per patient",
    "rmse_task": "mean of the patients' RMSE",
    "rmse_pooled": "RMSE over all values",
    "mae_macro": "absolute error, equal weight per patient",
}


@dataclass(eq=False)
class KShotDisplay(Display):
    """Error of several methods over the number k of support rows, with bands.

    Attributes
    ----------
    curve : DataFrame
        Rows of one metric of `k_shot_curve`.
    unit : str
        Unit of the outcome.
    """

    curve: pd.DataFrame
    unit: str = ""

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any,
        time: Any = None,
        shots: Sequence[int] = (0, 1, 2, 3, 5),
        metric: str = "rmse_macro",
        ax: Axes | None = None,
        **options: Any,
    ) -> Self:
        """Compute the `k_shot_curve` of fitted models, and draw.

        Parameters
        ----------
        estimator : fitted estimator, or mapping of str to fitted estimators
        X, y, groups, time, shots, **options
            As in `k_shot_curve`, but with ``query="fixed"`` by default: all points are scored on
            the rows after the largest k. If X has a schema, the axis shows the outcome's unit.

        Other parameters are those of `from_curve`.
        """
        models = (
            estimator if isinstance(estimator, Mapping) else {type(estimator).__name__: estimator}
        )
        options = {"query": "fixed", **options}
        curve = k_shot_curve(models, X, y, groups=groups, time=time, shots=shots, **options)
        schema = schema_of(None, X)
        unit = schema.outcome.unit if schema is not None and schema.outcome is not None else ""
        return cls.from_curve(curve, metric=metric, unit=unit, ax=ax)

    @classmethod
    def from_curve(
        cls,
        curve: pd.DataFrame,
        *,
        metric: str = "rmse_macro",
        unit: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Draw one metric of a table from `k_shot_curve`.

        Examples
        --------
        >>> curve = pd.DataFrame({"method": "ours", "k": [0, 1], "metric": "rmse_macro"})
        >>> curve = curve.assign(horizon="all", value=[2.0, 1.0], low=0.9, high=2.1, n_tasks=50)
        >>> KShotDisplay.from_curve(curve, unit="mg/dL").ax_.get_ylabel()
        'RMSE, equal weight per patient [mg/dL]'
        """
        return cls(_rows_of(curve, metric), unit).plot(ax=ax)

    _size = (7.2, 5.0)

    def _draw(self, ax: Axes) -> None:
        for i, (name, rows) in enumerate(self.curve.groupby("method", sort=False)):
            color = PALETTE[i % len(PALETTE)]
            ax.fill_between(rows["k"], rows["low"], rows["high"], color=color, alpha=0.13, lw=0)
            style: dict[str, Any] = {"color": color, "marker": MARKERS[i % len(MARKERS)]}
            style["linestyle"] = LINES[i % len(LINES)]
            ax.plot(rows["k"], rows["value"], linewidth=2, markersize=6, label=name, **style)
        ax.set_xticks(sorted(set(self.curve["k"])))
        patients = sorted(set(self.curve["n_tasks"]))
        counts = " to ".join(dict.fromkeys(f"{n:,}" for n in (patients[0], patients[-1])))
        ax.set_xlabel(f"observations shown of each new patient, k ({counts} patients)")
        metric = str(self.curve["metric"].iloc[0])
        ax.set_ylabel(with_unit(_WORDS.get(metric, metric), self.unit))
        ax.legend(loc="best", frameon=False, handlelength=3.6)


def k_shot_table(
    curve: pd.DataFrame, *, reference: str, metric: str = "rmse_macro", unit: str = ""
) -> str:
    """Format one metric of a k-shot curve: a row per method, the reference last; a column per k.

    Parameters
    ----------
    curve : DataFrame
        From `k_shot_curve`, with this `reference`.
    reference : str
        The method with which the others are compared.
    metric, unit : str
        One of the curve's metrics, and its unit for the heading.

    Returns
    -------
    str
        Aligned columns. A star marks a difference whose interval excludes 0.

    Examples
    --------
    >>> curve = pd.DataFrame({"method": ["last value", "ours"], "value": [11.2, 10.4]})
    >>> curve = curve.assign(k=1, horizon="all", metric="rmse_macro", n_tasks=90, n_excluded=10)
    >>> curve = curve.assign(difference_low=[0.6, 0.0], difference_high=[1.0, 0.0])
    >>> print(k_shot_table(curve, reference="ours", unit="mg/dL"))
    rmse_macro [mg/dL]       k = 1
    ------------------------------------------------
    last value               11.20  +0.60 to +1.00 *
    ours                     10.40
    ------------------------------------------------
    patients scored          90
    too few rows, left out   10
    """
    rows = _rows_of(curve, metric)
    others = [name for name in dict.fromkeys(rows["method"]) if name != reference]
    shots = list(dict.fromkeys(rows["k"]))
    cells = rows.set_index(["method", "k"])
    largest = rows["value"].max()
    digits = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 2  # four significant
    width = len(f"{largest:.{digits}f}")

    def cell(method: str, k: int) -> str:
        row = cells.loc[(method, k)]
        value = f"{row['value']:.{digits}f}".rjust(width)
        low, high = row["difference_low"], row["difference_high"]
        if method == reference or math.isnan(low):
            return value
        star = " *" if low > 0 or high < 0 else ""
        return f"{value}  {low:+.{digits}f} to {high:+.{digits}f}{star}"

    per_k = {k: cells.xs(k, level="k").iloc[0] for k in shots}
    lines = [
        [with_unit(metric, unit), *(f"k = {k}" for k in shots)],
        *([name, *(cell(name, k) for k in shots)] for name in (*others, reference)),
        ["patients scored", *(f"{int(per_k[k]['n_tasks']):,}" for k in shots)],
    ]
    if any(per_k[k]["n_excluded"] for k in shots):
        too_few = (f"{int(per_k[k]['n_excluded']):,}" for k in shots)
        lines.append(["too few rows, left out", *too_few])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "   ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    rule = "-" * max(len(line) for line in text)
    return "\n".join([text[0], rule, *text[1 : len(others) + 2], rule, *text[len(others) + 2 :]])


def _rows_of(curve: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric that score all horizons together."""
    rows = curve[(curve["metric"] == metric) & (curve["horizon"] == "all")]
    if len(rows) == 0:
        known = list(dict.fromkeys(curve["metric"]))
        raise DataError(f"the curve has no metric {metric!r}. {did_you_mean(metric, known)}")
    return rows
