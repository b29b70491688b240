"""Displays of what a model learned: training history, shrinkage of effects, error by k."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.estimators import Adapted
from ehrmeta.estimators.inputs import schema_of
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.displays._base import INK, LINES, MARKERS, PALETTE, Axes, Display, legend_below
from ehrmeta.report.wording import outcome_label, with_unit

_LABELS = {"loss": "training tasks", "held_out_loss": "held-out tasks"}
_WORDS = {
    "rmse_macro": "RMSE, equal weight per patient",
    "rmse_task": "mean of the patients' RMSE",
    "rmse_pooled": "RMSE over all values",
    "mae_macro": "absolute error, equal weight per patient",
}


@dataclass(eq=False)
class ShrinkageDisplay(Display):
    """Histogram of the random effects of adapted tasks, beside their prior distribution.

    If the bars are much narrower than the curve, shrinkage is high: each task has too few rows to
    estimate its effect, and plots of individual effects mislead (Savic and Karlsson 2009,
    doi:10.1208/s12248-009-9133-0).

    Attributes
    ----------
    effects : (task,)
        Mean shift of a task's rows from the population, in the unit of the outcome.
    prior_sd : float
        Standard deviation of these shifts over tasks, under the model's prior.
    outcome : str
        Outcome with its unit.
    """

    effects: NDArray[np.float64]
    prior_sd: float
    outcome: str

    @classmethod
    def from_estimator(cls, estimator: Adapted, *, ax: Axes | None = None) -> Self:
        """Draw for adapted tasks, from ``model.adapt``.

        Examples
        --------
        >>> from ehrmeta import MetaRegressor, make_sinusoid
        >>> X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
        >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
        >>> patients = model.adapt(X[100:300], y[100:300], groups=groups[100:300])
        >>> ShrinkageDisplay.from_estimator(patients).ax_.get_ylabel()
        'density'
        """
        model = estimator.model
        effects, prior_sd = estimator.effects_
        effects = effects[estimator.n_shots_ > 0]
        if len(effects) < 2 or not np.isfinite(prior_sd):
            raise DataError(
                "a histogram of effects needs at least two tasks with rows, adapted by a "
                f"MetaRegressor or a mixed model. Got {len(effects)} adapted by a {model.name}. "
                "Adapt more tasks with one of these models."
            )
        scale, outcome = model.table.outcome, outcome_label(model.schema)
        if scale.transform is not None:
            outcome = f"{scale.transform} of {outcome}"
        return cls(scale.scale * effects, scale.scale * prior_sd, outcome).plot(ax=ax)

    _size = (6.4, 3.8)

    def _draw(self, ax: Axes) -> None:
        label = f"{len(self.effects):,} adapted tasks"
        bins = min(40, max(8, int(np.sqrt(len(self.effects)))))
        ax.hist(self.effects, bins=bins, density=True, color=PALETTE[0], alpha=0.6, label=label)
        end = max(3.5 * self.prior_sd, 1.05 * float(np.abs(self.effects).max()))
        at = np.linspace(-end, end, 300)
        expected = stats.norm.pdf(at, scale=self.prior_sd)
        ax.plot(at, expected, color=PALETTE[1], linewidth=2, label="prior of the model")
        shrinkage = 1.0 - float(np.std(self.effects)) / self.prior_sd
        ax.set_title(f"shrinkage {100 * shrinkage:.0f} %", fontsize="medium", loc="left")
        ax.set_xlabel(f"shift from the population, {self.outcome}")
        ax.set_ylabel("density")
        legend_below(ax, 0.17)


@dataclass(eq=False)
class HistoryDisplay(Display):
    """Loss on training and held-out tasks over the training steps.

    Attributes
    ----------
    history : DataFrame
        A row per evaluation: step, loss, held_out_loss.
    """

    history: pd.DataFrame

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> Self:
        """Draw the training of a fitted `MetaRegressor` or `MetaClassifier`.

        Examples
        --------
        >>> from ehrmeta import MetaRegressor, make_sinusoid
        >>> X, y, groups = make_sinusoid(n_tasks=100, n_points=10, random_state=0)
        >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
        >>> HistoryDisplay.from_estimator(model).ax_.get_xlabel()
        'training step'
        """
        history = getattr(estimator, "history_", None)
        if not history:
            raise DataError(
                f"this {type(estimator).__name__} has no training history. Either it is not "
                "fitted, or it was fitted without training steps, which is the default for fewer "
                "than 100 tasks."
            )
        return cls(pd.DataFrame(history)).plot(ax=ax)

    _size = (6.4, 3.8)

    def _draw(self, ax: Axes) -> None:
        for i, (column, label) in enumerate(_LABELS.items()):
            loss = self.history[column]
            if loss.notna().any():
                style: dict[str, Any] = {"color": PALETTE[i], "linestyle": LINES[i], "lw": 2}
                marker = "o" if loss.notna().sum() == 1 else None
                ax.plot(self.history["step"], loss, label=label, marker=marker, **style)
        held_out = self.history["held_out_loss"]
        if held_out.notna().any():
            best = self.history["step"][held_out.idxmin()]
            ax.axvline(best, color=INK, linewidth=1, linestyle=":", label="best step")
        ax.set_xlabel("training step")
        ax.set_ylabel("loss (negative log-likelihood)")
        legend_below(ax, 0.17, ncols=3)


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
