"""k-shot learning curves: how the error falls with every observation of a new patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.data.schema import Schema
from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.displays._base import LINES, MARKERS, PALETTE, axes_of, clear_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "KShotDisplay",
    "k_shot_table",
]

_WORDS = {
    "rmse_macro": "RMSE, patients weighing the same",
    "rmse_task": "mean of the patients' RMSE",
    "rmse_pooled": "RMSE over all values",
    "mae_macro": "absolute error, patients weighing the same",
}


@dataclass(eq=False)
class KShotDisplay:
    """Error of several methods over the number k of observations they were shown, with bands.

    Make one with `from_estimator` or `from_curve`; `plot` draws it again.

    Attributes
    ----------
    curve : DataFrame
        Rows of one metric of `k_shot_curve`.
    unit : str
        Of the outcome.
    ax_, figure_
        What was drawn last.
    """

    curve: pd.DataFrame
    unit: str = ""
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

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
    ) -> KShotDisplay:
        """Adapt fitted models to test tasks after every k, and draw.

        Parameters
        ----------
        estimator : fitted estimator, or mapping of str to fitted estimators
        X, y, groups, time
            Test tasks, none of which a model was fitted on. Where X brings a schema, the axis
            names the outcome's unit.
        shots : sequence of int
            Sizes k of the support. All points are scored on the rows after the largest k
            (``query="growing"`` changes that).
        **options
            Of `k_shot_curve`.

        Other parameters are those of `from_curve`.
        """
        models = (
            estimator if isinstance(estimator, Mapping) else {type(estimator).__name__: estimator}
        )
        options = {"query": "fixed", **options}
        curve = k_shot_curve(models, X, y, groups=groups, time=time, shots=shots, **options)
        found = getattr(X, "attrs", {}).get("ehrmeta_schema")
        outcome = None if found is None else Schema.from_dict(found).outcome
        unit = "" if outcome is None else outcome.unit or ""
        return cls.from_curve(curve, metric=metric, unit=unit, ax=ax)

    @classmethod
    def from_curve(
        cls,
        curve: pd.DataFrame,
        *,
        metric: str = "rmse_macro",
        unit: str = "",
        ax: Axes | None = None,
    ) -> KShotDisplay:
        """Draw the table of `k_shot_curve`.

        Parameters
        ----------
        curve : DataFrame
        metric : str
            One of the curve's.
        unit : str
            Of the outcome.
        ax : matplotlib axes, optional

        Examples
        --------
        >>> curve = pd.DataFrame({"method": "ours", "k": [0, 1], "metric": "rmse_macro"})
        >>> curve = curve.assign(horizon="all", value=[2.0, 1.0], low=0.9, high=2.1, n_tasks=50)
        >>> KShotDisplay.from_curve(curve, unit="mg/dL").ax_.get_ylabel()
        'RMSE, patients weighing the same [mg/dL]'
        """
        rows = curve[(curve["metric"] == metric) & (curve["horizon"] == "all")]
        if len(rows) == 0:
            known = list(dict.fromkeys(curve["metric"]))
            raise DataError(f"the curve holds no {metric!r}. {did_you_mean(metric, known)}")
        return cls(rows, unit).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> KShotDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (7.2, 5.0))
        for number, (name, rows) in enumerate(self.curve.groupby("method", sort=False)):
            color = PALETTE[number % len(PALETTE)]
            ax.fill_between(rows["k"], rows["low"], rows["high"], color=color, alpha=0.13, lw=0)
            look: dict[str, Any] = {"color": color, "marker": MARKERS[number % len(MARKERS)]}
            look["linestyle"] = LINES[number % len(LINES)]
            ax.plot(rows["k"], rows["value"], linewidth=2, markersize=6, label=name, **look)
        ax.set_xticks(sorted(set(self.curve["k"])))
        patients = sorted(set(self.curve["n_tasks"]))
        counted = (
            f"{patients[0]:,}" if len(patients) == 1 else f"{patients[0]:,} to {patients[-1]:,}"
        )
        ax.set_xlabel(f"observations shown of each new patient, k ({counted} patients)")
        words = _WORDS.get(str(self.curve["metric"].iloc[0]), str(self.curve["metric"].iloc[0]))
        ax.set_ylabel(f"{words} [{self.unit}]" if self.unit else words)
        ax.legend(loc="best", frameon=False, handlelength=3.6)
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self


def k_shot_table(
    curve: pd.DataFrame, *, reference: str, metric: str = "rmse_macro", unit: str = ""
) -> str:
    """Lay out one metric of a curve: a row per method, a column per k, the reference last.

    Parameters
    ----------
    curve : DataFrame
        From `k_shot_curve`, with this `reference`.
    reference : str
        The method that the others are compared with.
    metric : str
        One of the curve's metrics.
    unit : str
        Of the metric, for the heading.

    Returns
    -------
    str
        Lines of equal columns. A star marks a difference whose interval excludes 0.

    Examples
    --------
    >>> curve = pd.DataFrame(
    ...     {
    ...         "method": ["last value", "ours"],
    ...         "k": 1,
    ...         "horizon": "all",
    ...         "metric": "rmse_macro",
    ...         "value": [11.2, 10.4],
    ...         "difference": [0.8, 0.0],
    ...         "difference_low": [0.6, 0.0],
    ...         "difference_high": [1.0, 0.0],
    ...         "n_tasks": 90,
    ...         "n_excluded": 10,
    ...     }
    ... )
    >>> print(k_shot_table(curve, reference="ours", unit="mg/dL"))
    rmse_macro [mg/dL]       k = 1
    ------------------------------------------------
    last value               11.20  +0.60 to +1.00 *
    ours                     10.40
    ------------------------------------------------
    patients scored          90
    too few rows, left out   10
    """
    rows = curve[(curve["metric"] == metric) & (curve["horizon"] == "all")]
    others = [name for name in dict.fromkeys(rows["method"]) if name != reference]
    shots = list(dict.fromkeys(rows["k"]))
    cells = rows.set_index(["method", "k"])
    digits = _digits(rows["value"].max())
    width = len(f"{rows['value'].max():.{digits}f}")

    def cell(method: str, k: int) -> str:
        row = cells.loc[(method, k)]
        value = f"{row['value']:.{digits}f}".rjust(width)
        low, high = row["difference_low"], row["difference_high"]
        if method == reference or math.isnan(low):
            return value
        star = " *" if low > 0 or high < 0 else ""
        return f"{value}  {low:+.{digits}f} to {high:+.{digits}f}{star}"

    heading = f"{metric} [{unit}]" if unit else metric
    per_k = {k: cells.xs(k, level="k").iloc[0] for k in shots}
    lines = [
        [heading, *(f"k = {k}" for k in shots)],
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


def _digits(largest: float) -> int:
    """Decimals that show four significant digits of the largest value."""
    return max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 2
