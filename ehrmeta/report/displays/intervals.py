"""Displays of forecast intervals: one patient's trajectory, and coverage over patients."""

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
from ehrmeta.report.displays._base import INK, MUTED, PALETTE, Axes, Display, legend_below
from ehrmeta.report.forecast_scores import coverage_by_k, forecasts, read_test_rows
from ehrmeta.report.wording import outcome_label

_POINTS = 300
_TIME_WORDS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "wk": "weeks"}
_TIME_WORDS |= {"mo": "months", "a": "years"}


@dataclass(eq=False)
class TrajectoryDisplay(Display):
    """One patient's first values, the forecast adapted to them with its band, and later values.

    Attributes
    ----------
    at, y : (visit,)
        Time since the first visit, in `unit`, and the outcome.
    shots : int
        Number of visits that the model was adapted to.
    lines : DataFrame
        Columns at, population, adapted, low, high; the last three are NaN before the forecast.
    confidence_level : float
        Level of the band.
    unit, outcome : str
        Labels of the axes.
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
        """Adapt to the first `shots` visits of one patient, and draw a band, 90 % by default.

        Parameters
        ----------
        estimator : regressor over tasks, or ConformalRegressor
            Fitted with time on other patients.
        X, y, time : (row, feature), (row,), (row,)
            Every row of one patient.

        Raises
        ------
        DataError
            `shots` is 0 or leaves no row to predict, or the model was fitted without time.

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
                f"shots={shots}, but the patient has {len(y)} rows. Pass at least 1 and leave at "
                "least one row to predict."
            )
        with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
            first = {name: values[:shots] for name, values in columns.items()}
            adapted = estimator.adapt(_table(first, fitted), y[:shots], time=t[:shots])
        grid = np.unique(np.append(np.linspace(t[0], t[-1], _POINTS), t[shots - 1]))
        rows = _table(_between(columns, t, grid), fitted)
        lines = pd.DataFrame({"at": grid, "population": fitted.predict(rows, time=grid)})
        ahead = grid > t[shots - 1]
        query = {"X": _table(_between(columns, t, grid[ahead]), fitted), "time": grid[ahead]}
        lines.loc[ahead, "adapted"] = adapted.predict(**query)
        band = adapted.predict_interval(**query, confidence_level=confidence_level)
        lines.loc[ahead, ["low", "high"]] = band
        scale, unit_name = _readable(unit, t[-1] - t[0])
        lines["at"] = scale * (lines["at"] - t[0])
        at, outcome = scale * (t - t[0]), outcome_label(fitted.schema_)
        return cls(at, y, shots, lines, confidence_level, unit_name, outcome).plot(ax=ax)

    _size = (9.0, 5.4)

    def _draw(self, ax: Axes) -> None:
        at, y, k, lines = self.at, self.y, self.shots, self.lines
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 7}
        first = "first value" if k == 1 else f"first {k} values"
        ax.plot(at[:k], y[:k], label=f"the {first}, shown to the model", zorder=4, **dots)
        later = f"the {len(y) - k} later values, not shown"
        ax.plot(at[k:], y[k:], markerfacecolor="white", label=later, zorder=4, **dots)
        label = "population prediction, without any value"
        style: dict[str, Any] = {"color": PALETTE[1], "linestyle": "--", "linewidth": 2}
        ax.plot(lines["at"], lines["population"], label=label, **style)
        label = f"prediction adapted to the {first}"
        ax.plot(lines["at"], lines["adapted"], color=PALETTE[0], linewidth=2.4, label=label)
        label = f"{100 * self.confidence_level:g} % interval of a new value, adapted"
        style = {"color": PALETTE[0], "alpha": 0.18, "linewidth": 0}
        ax.fill_between(lines["at"], lines["low"], lines["high"], label=label, **style)
        ax.axvline(at[k - 1], color=INK, linewidth=1.0, linestyle=":")
        style = {"xycoords": ("data", "axes fraction"), "va": "top", "color": INK}
        style |= {"xytext": (5, -4), "textcoords": "offset points"}
        ax.annotate("forecast from here", (at[k - 1], 1.0), **style)
        ax.set_xlabel(f"{self.unit} since the patient's first value")
        ax.set_ylabel(self.outcome)
        ax.margins(x=0.02, y=0.12)
        legend_below(ax, 0.13)


@dataclass(eq=False)
class CoverageDisplay(Display):
    """Coverage of intervals for later values by k, beside the nominal level.

    Attributes
    ----------
    coverage : DataFrame
        Columns k, value, low, high, n: coverage, its 95 % interval, and number of patients.
    confidence_level : float
        Level of the model's intervals.
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
        """Draw the coverage of 90 % intervals (by default) after adapting to the first k values.

        Parameters
        ----------
        estimator : fitted regressor over tasks, or calibrated ConformalRegressor
        X, y, groups, time
            Test patients, not used to fit or calibrate the model.

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
        label = f"level of the intervals, {level:g} %"
        ax.axhline(level, color=MUTED, linestyle="--", linewidth=1, label=label)
        bars: dict[str, Any] = {"fmt": "o", "color": PALETTE[0], "ecolor": INK}
        bars |= {"elinewidth": 1.4, "capsize": 4, "label": "coverage, 95 % interval"}
        ax.errorbar(coverage["k"], value, yerr=[value - low, high - value], **bars)
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
    """The columns in the form passed to fit: a frame, or an array without names."""
    if hasattr(model, "feature_names_in_"):
        return pd.DataFrame(columns)
    return np.column_stack(list(columns.values()))


def _readable(unit: str, duration: float) -> tuple[float, str]:
    """Factor and name of a readable unit for a duration: years if it is two years or more."""
    seconds = duration * SECONDS[unit]
    if SECONDS["h"] <= SECONDS[unit] < SECONDS["a"] and seconds >= 2 * SECONDS["a"]:
        return SECONDS[unit] / SECONDS["a"], "years"
    return 1.0, _TIME_WORDS[unit]
