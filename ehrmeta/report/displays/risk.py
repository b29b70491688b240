"""Displays of predicted risks: calibration curves and decision curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.evaluation import (
    DecisionCurve,
    bootstrap_counts,
    decision_curve,
    risk_intervals,
    smooth_calibration_curve,
)
from ehrmeta.evaluation.discrimination import read_binary
from ehrmeta.evaluation.metrics import Array
from ehrmeta.report.disclosure import count_text, rounded
from ehrmeta.report.displays._base import INK, LINES, MUTED, PALETTE, Axes, Display
from ehrmeta.report.forecast_scores import event_risk, name_of
from ehrmeta.report.wording import row_range

_POINTS, _BINS, _WIDE_BINS = 60, 50, 10
_GAP, _BELOW = 0.07, 0.2  # heights of gap and histogram below the curve, as shares of its height
_SHOWN = {
    "calibration_slope": "calibration slope",
    "calibration_in_the_large": "calibration in the large",
    "e_o_ratio": "E:O",
}


@dataclass(eq=False)
class CalibrationDisplay(Display):
    """Smoothed calibration curve with its band, a histogram of the risks, and calibration scores.

    Attributes
    ----------
    at, observed, low, high : (point,)
        Risks, the smoothed share of events at these risks, and its band.
    y_true, y_prob : (row,)
    scores : DataFrame
        From `risk_intervals`.
    confidence_level : float
    name : str
        Name of the model.
    min_cell : int
        Bars of fewer rows are not drawn; above 1, bars are wide and counts are rounded.
    """

    at: Array
    observed: Array
    low: Array
    high: Array
    y_true: Array
    y_prob: Array
    scores: pd.DataFrame
    confidence_level: float
    name: str
    min_cell: int = 1

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        n_bootstrap: int = 200,
        random_state: int = 0,
        **predict: Any,
    ) -> Self:
        """Draw for a fitted or adapted classifier, whose second class is the event.

        X and y are patients not used to fit it. Other keyword arguments, such as groups and time,
        are passed to ``predict_proba``. The other parameters are as in `from_predictions`.
        """
        options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "random_state": random_state}
        options |= {"name": name_of(estimator) if name is None else name, "ax": ax}
        return cls.from_predictions(*event_risk(estimator, X, y, predict), **options)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        name: str = "model",
        ax: Axes | None = None,
        confidence_level: float = 0.9,
        n_bootstrap: int = 200,
        random_state: int = 0,
        min_cell: int = 1,
    ) -> Self:
        """Draw for predicted risks.

        Parameters
        ----------
        y_true, y_prob : (row,)
            Outcome, 0 or 1, and predicted risk, one row per patient.
        confidence_level : float, default 0.9
            Level of the pointwise band and of the intervals in the legend.
        n_bootstrap : int
            Resamples of the patients; at least 2.
        min_cell : int
            For publication: bars of fewer rows are not drawn.

        Raises
        ------
        DataError
            Only one class, the same risk for all patients, or impossible values.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> p = rng.uniform(size=200)
        >>> display = CalibrationDisplay.from_predictions(rng.random(200) < p, p, n_bootstrap=20)
        >>> display.ax_.get_xlabel()
        'predicted risk'
        """
        data = read_binary(y_true, y_prob)
        if not data.has_both_classes or np.ptp(data.p) == 0:
            raise DataError(
                "a calibration curve needs events, non-events and at least two distinct risks; got "
                f"{int(data.y.sum())} events in {len(data.y)} rows. Pass patients with and without "
                "the event."
            )
        if n_bootstrap < 2:
            raise DataError(f"n_bootstrap is {n_bootstrap}; a band needs at least 2 resamples.")
        # Beyond these quantiles there are too few patients for a curve.
        first, last = np.quantile(data.p, [0.01, 0.99])
        at = np.linspace(first, last, _POINTS)
        observed = smooth_calibration_curve(data.y, data.p, at=at)
        counts = bootstrap_counts(len(data.y), n_bootstrap, random_state)
        curves = [smooth_calibration_curve(data.y, data.p, at=at, sample_weight=c) for c in counts]
        tail = (1 - confidence_level) / 2
        low, high = np.clip(np.quantile(curves, [tail, 1 - tail], axis=0), 0, 1)
        options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "random_state": random_state}
        options |= {"metrics": tuple(_SHOWN), "confidence_level": confidence_level}
        scores = risk_intervals(data.y, data.p, **options)
        observed = np.clip(observed, 0, 1)
        drawn = at, observed, low, high, data.y, data.p, scores, confidence_level, name, min_cell
        return cls(*drawn).plot(ax=ax)

    _size = (6.0, 7.2)

    def _draw(self, ax: Axes) -> None:
        end = min(1.0, np.ceil(10.5 * max(self.at[-1], self.high.max())) / 10)
        ax.plot([0, end], [0, end], color=MUTED, linewidth=1, linestyle="--", label="ideal")
        ax.fill_between(self.at, self.low, self.high, color=PALETTE[0], alpha=0.18, linewidth=0)
        label = f"{self.name}, smoothed (lowess), {100 * self.confidence_level:g} % band"
        ax.plot(self.at, self.observed, color=PALETTE[0], linewidth=2.4, label=label)
        scores = self.scores.set_index("metric")
        for metric, label in _SHOWN.items():
            ax.plot([], [], " ", label=f"{label} {row_range(scores.loc[metric])}")
        self._draw_risks(ax, end)
        ax.set(xlim=(0, end), xlabel="predicted risk", ylabel="observed share of events")
        below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.12)}
        ax.legend(**below, frameon=False, alignment="left", handlelength=1.6, fontsize="small")

    def _draw_risks(self, ax: Axes, end: float) -> None:
        """Draw a histogram below the curve: events upward, non-events downward."""
        edges = np.linspace(0, end, (_WIDE_BINS if self.min_cell > 1 else _BINS) + 1)
        bins = (np.histogram(self.y_prob[self.y_true == v], edges)[0] for v in (1, 0))
        n_events, n = int(self.y_true.sum()), len(self.y_true)
        counts = [f"{n_events:,}", f"{n - n_events:,}"]
        if self.min_cell > 1:
            bins = (np.where(of < self.min_cell, 0, rounded(of)) for of in bins)
            counts = [count_text(n_events), count_text(n - n_events)]
        events, others = bins
        unit = _BELOW * end / max(events.max() + others.max(), 1)
        base, bottom = -_GAP * end - unit * events.max(), -(_GAP + _BELOW) * end
        bars: dict[str, Any] = {"width": 0.8 * (edges[1] - edges[0]), "bottom": base}
        centers = 0.5 * (edges[1:] + edges[:-1])
        ax.bar(centers, unit * events, color=PALETTE[1], **bars)
        ax.bar(centers, -unit * others, color=MUTED, **bars)
        style: dict[str, Any] = {"fontsize": "small", "ha": "right"}
        top, label = -0.015 * end, f"{counts[0]} with event"
        ax.text(end, top, label, va="top", color=PALETTE[1], **style)
        ax.text(end, bottom, f"{counts[1]} without event", color=INK, **style)
        ticks = [tick for tick in ax.get_yticks() if 0 <= tick <= end * 1.001]
        ax.set_ylim(bottom - 0.02 * end, end)
        ax.set_yticks(ticks)
        ax.axhline(0, color=MUTED, linewidth=0.8)


@dataclass(eq=False)
class DecisionCurveDisplay(Display):
    """Net benefit by threshold for one or more models, beside treat-all and treat-none.

    Attributes
    ----------
    curves : dict of str to DecisionCurve
        By model.
    prevalence : float
        The net benefit of perfect predictions.
    """

    curves: dict[str, DecisionCurve]
    prevalence: float

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        name: str | None = None,
        threshold: ArrayLike | None = None,
        ax: Axes | None = None,
        **predict: Any,
    ) -> Self:
        """Draw for a fitted or adapted classifier; arguments as in `CalibrationDisplay`."""
        y_true, y_prob = event_risk(estimator, X, y, predict)
        name = name_of(estimator) if name is None else name
        return cls.from_predictions(y_true, {name: y_prob}, threshold=threshold, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike | Mapping[str, ArrayLike],
        *,
        threshold: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw for predicted risks.

        Parameters
        ----------
        y_true : (row,)
            Outcomes, 0 or 1.
        y_prob : (row,) or mapping of str to (row,)
            Risks of one model, or of several by name.
        threshold : (threshold,), optional
            Increasing thresholds; by default whole percents up to the 99th percentile of the risks.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> p = rng.uniform(size=200)
        >>> display = DecisionCurveDisplay.from_predictions(rng.random(200) < p, p)
        >>> [line.get_label() for line in display.ax_.lines]
        ['treat all', 'treat none', 'model']
        """
        models = dict(y_prob) if isinstance(y_prob, Mapping) else {"model": y_prob}
        if not models:
            raise DataError("y_prob is empty: pass the risks of at least one model.")
        if threshold is None:
            reached = max(float(np.quantile(np.asarray(p), 0.99)) for p in models.values())
            threshold = np.arange(1, min(100, max(3, round(100 * reached) + 1))) / 100
        curves = {
            name: decision_curve(y_true, p, threshold=threshold) for name, p in models.items()
        }
        return cls(curves, float(np.mean(np.asarray(y_true, np.float64)))).plot(ax=ax)

    _size = (7.2, 5.0)

    def _draw(self, ax: Axes) -> None:
        first = next(iter(self.curves.values()))
        at = 100 * first.threshold
        ax.plot(at, 100 * first.treat_all, color=INK, linewidth=1.2, ls=":", label="treat all")
        ax.plot(at, 100 * first.treat_none, color=MUTED, linewidth=1.2, label="treat none")
        for i, (name, curve) in enumerate(self.curves.items()):
            style: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)]}
            style["linestyle"] = LINES[i % len(LINES)]
            ax.plot(100 * curve.threshold, 100 * curve.model, linewidth=2.4, label=name, **style)
        best = 100 * max(self.prevalence, *(float(c.model.max()) for c in self.curves.values()))
        ax.set(xlim=(0, at[-1]), ylim=(-0.12 * best, 1.08 * best))
        ax.set_xlabel("risk threshold for treatment [%]")
        ax.set_ylabel("net benefit [true positives per 100 patients]")
        ax.legend(loc="upper right", frameon=False, handlelength=3.2)
