"""Forecasts with their intervals: those of one patient, and how often they hold over patients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ehrmeta.data import index_tasks, read_columns, to_time
from ehrmeta.data.clock import SECONDS
from ehrmeta.errors import AtypicalWarning, DataError
from ehrmeta.estimators import ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.evaluation.metrics import Array
from ehrmeta.report.displays._base import (
    INK,
    MUTED,
    PALETTE,
    Axes,
    Display,
    legend_below,
    outcome_label,
)
from ehrmeta.report.forecast_scores import coverage_by_k, forecasts, read_test_rows

_POINTS = 300
_TIME_WORDS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "wk": "weeks"}
_TIME_WORDS |= {"mo": "months", "a": "years"}


@dataclass(eq=False)
class TrajectoryDisplay(Display):
    """One patient: first observations, adapted forecast with its band, and what came later.

    Attributes
    ----------
    at, y : (visit,)
        Time since the first visit, in `unit`, and the outcome.
    shots : int
        Visits shown to the model.
    lines : DataFrame
        Columns at, population, own, low, high; the last three are NaN up to the last visit shown.
    confidence_level : float
        Of the band.
    unit, outcome : str
        Words of the axes.
    """

    at: Array
    y: Array
    shots: int
    lines: pd.DataFrame
    confidence_level: float
    unit: str
    outcome: str

    @classmethod
    def from_estimator(
        cls,
        estimator: TaskRegressor | ConformalRegressor,
        X: Any,
        y: Any,
        *,
        time: Any,
        shots: int = 3,
        confidence_level: float = 0.9,
        ax: Axes | None = None,
    ) -> Self:
        """Adapt to the first `shots` visits of one patient, and draw.

        Parameters
        ----------
        estimator : regressor over tasks, or ConformalRegressor
            Fitted with time on other patients.
        X, y, time : (row, feature), (row,), (row,)
            Every row of one patient.

        Raises
        ------
        DataError
            The patient has no row after the first `shots`, or the model knows no time.

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta import MetaRegressor
        >>> days, X = np.tile(np.arange(8.0), 30), np.zeros((240, 1))
        >>> y = np.sin(days) + np.repeat(np.arange(30), 8)
        >>> model = MetaRegressor(max_steps=5, random_state=0)
        >>> model = model.fit(X, y, groups=np.repeat(np.arange(30), 8), time=days)
        >>> display = TrajectoryDisplay.from_estimator(model, X[:8], y[:8], time=days[:8])
        >>> display.ax_.get_ylabel()
        'y'
        """
        fitted = estimator.model if isinstance(estimator, ConformalRegressor) else estimator
        clock = fitted.schema_.time if fitted.schema_ is not None else None
        unit = clock.unit if clock is not None else "d"
        t = to_time(time, unit=unit, origin=clock.origin if clock is not None else None)
        order = index_tasks(np.zeros(len(t)), t).order
        t, y = t[order], np.asarray(y, np.float64)[order]
        columns = {name: values[order] for name, values in read_columns(X).items()}
        if not 0 < shots < len(y):
            raise DataError(
                f"shots={shots} of {len(y)} rows: leave at least one row on either side."
            )
        with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
            first = {name: values[:shots] for name, values in columns.items()}
            adapted = estimator.adapt(_table(first, fitted), y[:shots], time=t[:shots])
        everywhere = np.unique(np.append(np.linspace(t[0], t[-1], _POINTS), t[shots - 1]))
        rows = _table(_between(columns, t, everywhere), fitted)
        lines = pd.DataFrame(
            {"at": everywhere, "population": fitted.predict(rows, time=everywhere)}
        )
        ahead = everywhere > t[shots - 1]
        future = _table(_between(columns, t, everywhere[ahead]), fitted)
        query = {"X": future, "time": everywhere[ahead]}
        lines.loc[ahead, "own"] = adapted.predict(**query)
        band = adapted.predict_interval(**query, confidence_level=confidence_level)
        lines.loc[ahead, ["low", "high"]] = band
        scale, words = _readable(unit, t[-1] - t[0])
        lines["at"] = scale * (lines["at"] - t[0])
        at, outcome = scale * (t - t[0]), outcome_label(fitted.schema_)
        return cls(at, y, shots, lines, confidence_level, words, outcome).plot(ax=ax)

    _size = (9.0, 5.4)

    def _draw(self, ax: Axes) -> None:
        at, y, k, lines = self.at, self.y, self.shots, self.lines
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 7}
        first = "first value" if k == 1 else f"first {k} values"
        ax.plot(at[:k], y[:k], label=f"the {first}, shown to the model", zorder=4, **dots)
        later = f"the {len(y) - k} later values, not shown"
        ax.plot(at[k:], y[k:], markerfacecolor="white", label=later, zorder=4, **dots)
        before: dict[str, Any] = {"color": PALETTE[1], "linestyle": "--", "linewidth": 2}
        label = "population prediction, without any value"
        ax.plot(lines["at"], lines["population"], label=label, **before)
        label = f"prediction adapted to the {first}"
        ax.plot(lines["at"], lines["own"], color=PALETTE[0], linewidth=2.4, label=label)
        label = f"{100 * self.confidence_level:g} % interval of a new value, adapted"
        look: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.18, "linewidth": 0, "label": label}
        ax.fill_between(lines["at"], lines["low"], lines["high"], **look)
        ax.axvline(at[k - 1], color=INK, linewidth=1.0, linestyle=":")
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "va": "top", "color": INK}
        above |= {"xytext": (5, -4), "textcoords": "offset points"}
        ax.annotate("forecast from here", (at[k - 1], 1.0), **above)
        ax.set_xlabel(f"{self.unit} since the patient's first value")
        ax.set_ylabel(self.outcome)
        ax.margins(x=0.02, y=0.12)
        legend_below(ax, 0.13)


@dataclass(eq=False)
class CoverageDisplay(Display):
    """Share of later values held, by k, beside the level of the intervals.

    Attributes
    ----------
    coverage : DataFrame
        Columns k, value, low, high, n: shares, their 95 % intervals, and patients.
    confidence_level : float
    """

    coverage: pd.DataFrame
    confidence_level: float

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any,
        time: Any,
        shots: Sequence[int] = (0, 1, 2, 3, 5),
        confidence_level: float = 0.9,
        ax: Axes | None = None,
    ) -> Self:
        """Adapt to test patients after every k, and draw how often their intervals hold.

        Parameters
        ----------
        estimator : fitted regressor over tasks, or calibrated ConformalRegressor
        X, y, groups, time
            Test patients, none of whom it was fitted or calibrated on.

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta.baselines import MixedEffects
        >>> rng = np.random.default_rng(0)
        >>> groups, time = np.repeat(np.arange(60), 6), np.tile(np.arange(6.0), 60)
        >>> X, y = np.zeros((360, 1)), rng.normal(size=60)[groups] + rng.normal(size=360)
        >>> model = MixedEffects().fit(X, y, groups=groups, time=time)
        >>> given = {"groups": groups, "time": time, "shots": (0, 1)}
        >>> CoverageDisplay.from_estimator(model, X, y, **given).ax_.get_ylabel()
        'later values inside the interval [%]'
        """
        _, inputs = read_test_rows(estimator, X, y, groups, time)
        rows = forecasts(estimator, X, inputs, shots=shots, confidence_level=confidence_level)
        return cls.from_coverage(coverage_by_k(rows), confidence_level=confidence_level, ax=ax)

    @classmethod
    def from_coverage(
        cls, coverage: pd.DataFrame, *, confidence_level: float, ax: Axes | None = None
    ) -> Self:
        """Draw a table with the columns of `coverage`."""
        return cls(coverage, confidence_level).plot(ax=ax)

    _size = (7.2, 4.0)

    def _draw(self, ax: Axes) -> None:
        coverage, level = self.coverage, 100 * self.confidence_level
        value, low, high = (100 * coverage[name] for name in ("value", "low", "high"))
        words = f"level of the intervals, {level:g} %"
        ax.axhline(level, color=MUTED, linestyle="--", linewidth=1, label=words)
        look: dict[str, Any] = {"fmt": "o", "color": PALETTE[0], "ecolor": INK}
        look |= {"elinewidth": 1.4, "capsize": 4, "label": "share held, 95 % interval"}
        ax.errorbar(coverage["k"], value, yerr=[value - low, high - value], **look)
        ax.set_xticks(sorted(set(coverage["k"])))
        ends = (*low, *high, level)
        ax.set_ylim(max(0.0, min(ends) - 3.0), min(100.5, max(ends) + 3.0))
        patients = int(coverage["n"].max())
        ax.set_xlabel(f"observations shown of each new patient, k ({patients:,} patients)")
        ax.set_ylabel("later values inside the interval [%]")
        legend_below(ax, 0.17)


def _between(columns: dict[str, Any], t: Array, grid: Array) -> dict[str, Any]:
    """Features between visits: numbers interpolated, everything else carried forward."""
    last = np.clip(np.searchsorted(t, grid, side="right") - 1, 0, len(t) - 1)
    return {
        name: np.interp(grid, t, values) if values.dtype.kind == "f" else values[last]
        for name, values in columns.items()
    }


def _table(columns: dict[str, Any], model: TaskRegressor) -> Any:
    """The columns as the model saw them in fit: a frame, or an array without names."""
    if hasattr(model, "feature_names_in_"):
        return pd.DataFrame(columns)
    return np.column_stack(list(columns.values()))


def _readable(unit: str, duration: float) -> tuple[float, str]:
    """Factor and name of a unit in which a duration is a handy number."""
    seconds = duration * SECONDS[unit]
    if SECONDS["h"] <= SECONDS[unit] < SECONDS["a"] and seconds >= 2 * SECONDS["a"]:
        return SECONDS[unit] / SECONDS["a"], "years"
    return 1.0, _TIME_WORDS[unit]
