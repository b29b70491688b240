"""One patient's story: what was seen, what was predicted, what came."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.data import index_tasks, read_columns, to_time
from ehrmeta.data.clock import SECONDS
from ehrmeta.errors import AtypicalWarning, DataError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.report.style import INK, PALETTE, outcome_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_trajectory"]

Array = npt.NDArray[np.float64]

_OWN, _POPULATION = PALETTE[:2]
_TIME_WORDS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "wk": "weeks"}
_TIME_WORDS |= {"mo": "months", "a": "years"}


def plot_trajectory(
    model: MetaRegressor,
    X: Any,
    y: Any,
    *,
    time: Any,
    shots: int = 3,
    confidence_level: float = 0.9,
    title: str | None = None,
) -> Figure:
    """Draw one patient: first observations, adapted forecast with its band, and what came later.

    Parameters
    ----------
    model : MetaRegressor
        Fitted with time on other patients.
    X, y, time : (row, feature), (row,), (row,)
        Every row of one patient.
    shots : int
        The first so many rows are shown to the model.
    confidence_level : float
        Of the band.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("patient.png")``.

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
    >>> plot_trajectory(model, X[:8], y[:8], time=days[:8]).axes[0].get_ylabel()
    'y'
    """
    from matplotlib.figure import Figure

    clock = model.schema_.time if model.schema_ is not None else None
    unit = clock.unit if clock is not None else "d"
    t = to_time(time, unit=unit, origin=clock.origin if clock is not None else None)
    order = index_tasks(np.zeros(len(t)), t).order
    t, y = t[order], np.asarray(y, np.float64)[order]
    columns = {name: values[order] for name, values in read_columns(X).items()}
    if not 0 < shots < len(y):
        raise DataError(f"shots={shots} of {len(y)} rows: leave at least one row on either side.")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtypicalWarning)
        first = {name: values[:shots] for name, values in columns.items()}
        adapted = model.adapt(_table(first, model), y[:shots], time=t[:shots])
    everywhere = np.linspace(t[0], t[-1], 300)
    ahead = np.linspace(t[shots - 1], t[-1], 300)[1:]
    population = model.predict(_table(_between(columns, t, everywhere), model), time=everywhere)
    future = {"X": _table(_between(columns, t, ahead), model), "time": ahead}
    own = adapted.predict(**future)
    low, high = adapted.predict_interval(**future, confidence_level=confidence_level).T

    scale, words = _readable(unit, t[-1] - t[0])
    at, everywhere, ahead = (scale * (times - t[0]) for times in (t, everywhere, ahead))
    figure = Figure(figsize=(9.0, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 7}
    shown = f"the first {shots} values, shown to the model"
    axes.plot(at[:shots], y[:shots], label=shown, zorder=4, **dots)
    later = f"the {len(y) - shots} later values, not shown"
    axes.plot(at[shots:], y[shots:], markerfacecolor="white", label=later, zorder=4, **dots)
    before = "population prediction, without any value"
    axes.plot(everywhere, population, color=_POPULATION, linestyle="--", linewidth=2, label=before)
    after = f"prediction adapted to the first {shots} values"
    axes.plot(ahead, own, color=_OWN, linewidth=2.4, label=after)
    inside = f"{100 * confidence_level:g} % interval of a new value, adapted"
    axes.fill_between(ahead, low, high, color=_OWN, alpha=0.18, linewidth=0, label=inside)
    _mark(axes, at[shots - 1], "forecast from here")
    axes.set_xlabel(f"{words} since the patient's first value")
    axes.set_ylabel(outcome_label(model.schema_))
    axes.set_title(title or "", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02, y=0.12)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _mark(axes: Axes, at: float, words: str) -> None:
    """A dotted vertical line with words at its top."""
    axes.axvline(at, color=INK, linewidth=1.0, linestyle=":")
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(words, (at, 1.0), xytext=(5, -4), va="top", color=INK, **place)


def _between(columns: dict[str, Any], t: Array, grid: Array) -> dict[str, Any]:
    """Features at times between visits: numbers in between, everything else as last known."""
    last = np.clip(np.searchsorted(t, grid, side="right") - 1, 0, len(t) - 1)
    return {
        name: np.interp(grid, t, values) if values.dtype.kind == "f" else values[last]
        for name, values in columns.items()
    }


def _table(columns: dict[str, Any], model: MetaRegressor) -> Any:
    """The columns as the model saw them in fit: a frame, or an array without names."""
    if hasattr(model, "feature_names_in_"):
        return pd.DataFrame(columns)
    return np.column_stack(list(columns.values()))


def _readable(unit: str, span: float) -> tuple[float, str]:
    """Factor and words of a unit in which the span is a handy number."""
    seconds = span * SECONDS[unit]
    if SECONDS["h"] <= SECONDS[unit] < SECONDS["a"] and seconds >= 2 * SECONDS["a"]:
        return SECONDS[unit] / SECONDS["a"], "years"
    return 1.0, _TIME_WORDS[unit]
