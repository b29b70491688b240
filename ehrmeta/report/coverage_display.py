"""Whether intervals hold as often as they say, after every k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.report.forecast_scores import coverage_by_k, forecasts, read_test_rows
from ehrmeta.report.style import INK, MUTED, PALETTE, axes_of, clear_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CoverageDisplay"]


@dataclass(eq=False)
class CoverageDisplay:
    """Share of later values held, by k, beside the level of the intervals.

    Make one with `from_estimator` or `from_coverage`; `plot` draws it again.

    Attributes
    ----------
    coverage : DataFrame
        Columns k, value, low, high, n: shares, their 95 % intervals, and patients.
    confidence_level : float
    ax_, figure_
        What was drawn last.
    """

    coverage: pd.DataFrame
    confidence_level: float
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
        time: Any,
        shots: Sequence[int] = (0, 1, 2, 3, 5),
        confidence_level: float = 0.9,
        ax: Axes | None = None,
    ) -> CoverageDisplay:
        """Adapt to test patients after every k, and draw how often their intervals hold.

        Parameters
        ----------
        estimator : fitted regressor over tasks, or calibrated ConformalRegressor
        X, y, groups, time
            Test patients, none of whom it was fitted or calibrated on.
        shots : sequence of int
        confidence_level : float
        ax : matplotlib axes, optional

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
    ) -> CoverageDisplay:
        """Draw shares that are known."""
        return cls(coverage, confidence_level).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> CoverageDisplay:
        """Draw on `ax`, or on a new figure."""
        ax, coverage, level = axes_of(ax, (7.2, 4.0)), self.coverage, 100 * self.confidence_level
        value, low, high = (100 * coverage[name] for name in ("value", "low", "high"))
        words = f"level of the intervals, {level:g} %"
        ax.axhline(level, color=MUTED, linestyle="--", linewidth=1, label=words)
        look: dict[str, Any] = {"fmt": "o", "color": PALETTE[0], "ecolor": INK}
        look |= {"elinewidth": 1.4, "capsize": 4, "label": "share held, 95 % interval"}
        ax.errorbar(coverage["k"], value, yerr=[value - low, high - value], **look)
        ax.set_xticks(sorted(set(coverage["k"])))
        margin = 3.0
        ends = (*low, *high, level)
        ax.set_ylim(max(0.0, min(ends) - margin), min(100.5, max(ends) + margin))
        patients = int(coverage["n"].max())
        ax.set_xlabel(f"observations shown of each new patient, k ({patients:,} patients)")
        ax.set_ylabel("later values inside the interval [%]")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self
