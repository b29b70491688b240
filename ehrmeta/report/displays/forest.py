"""Forest plots of a score over sites, with the pooled mean and an interval for a new site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.estimators import Adapted
from ehrmeta.evaluation import pool_sites, score_sites
from ehrmeta.report.displays._base import MUTED, PALETTE, Axes, Display
from ehrmeta.report.forecast_scores import event_risk
from ehrmeta.report.wording import row_range

_WORDS = {
    "auroc": "AUROC",
    "auprc": "area under the precision-recall curve",
    "log_loss": "log loss",
    "brier": "Brier score",
    "scaled_brier": "scaled Brier score",
    "calibration_slope": "calibration slope",
    "calibration_in_the_large": "calibration in the large [logit]",
    "e_o_ratio": "expected / observed events",
    "ici": "integrated calibration index",
}
_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10)
_IDEAL = {"calibration_slope": 1.0, "calibration_in_the_large": 0.0, "e_o_ratio": 1.0}


@dataclass(eq=False)
class ForestDisplay(Display):
    """Each site's score with its interval, the pooled mean, and the interval for a new site.

    Attributes
    ----------
    sites : DataFrame
        Rows of one metric of `score_sites`.
    pooled : Series
        The metric's row of `pool_sites`; values are NaN with fewer than five sites.
    confidence_level : float
    """

    sites: pd.DataFrame
    pooled: pd.Series
    confidence_level: float

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any,
        metric: str = "auroc",
        ax: Axes | None = None,
        **predict: Any,
    ) -> Self:
        """Draw for a fitted or adapted classifier, whose second class is the event.

        `groups` is the site of each row; it is also passed to an adapted classifier. Other keyword
        arguments, such as time, are passed to ``predict_proba``.
        """
        if isinstance(estimator, Adapted):
            predict = {"groups": groups, **predict}
        y_true, y_prob = event_risk(estimator, X, y, predict)
        return cls.from_predictions(y_true, y_prob, groups=groups, metric=metric, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        groups: Any,
        metric: str = "auroc",
        confidence_level: float = 0.9,
        n_bootstrap: int = 500,
        random_state: int = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Draw for predicted risks, with 90 % intervals by default; parameters as in `score_sites`.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> p, site = rng.uniform(size=500), np.repeat(list("abcde"), 100)
        >>> display = ForestDisplay.from_predictions(rng.random(500) < p, p, groups=site)
        >>> display.ax_.get_xlabel()
        'AUROC'
        """
        bootstrap: dict[str, Any] = {"n_bootstrap": n_bootstrap, "random_state": random_state}
        bootstrap["confidence_level"] = confidence_level
        scores = score_sites(y_true, y_prob, groups=groups, metrics=(metric,), **bootstrap)
        return cls.from_scores(scores, metric=metric, confidence_level=confidence_level, ax=ax)

    @classmethod
    def from_scores(
        cls,
        scores: pd.DataFrame,
        *,
        metric: str = "auroc",
        confidence_level: float = 0.9,
        ax: Axes | None = None,
    ) -> Self:
        """Draw a table of `score_sites`.

        `confidence_level` (90 % by default) must be the one passed to `score_sites`.
        """
        sites = scores[scores["metric"] == metric].reset_index(drop=True)
        if len(sites) == 0:
            raise DataError(
                f"the scores do not include the metric {metric!r}. Add it to metrics= of "
                "score_sites."
            )
        pooled = pool_sites(sites, confidence_level=confidence_level).iloc[0]
        return cls(sites, pooled, confidence_level).plot(ax=ax)

    @property
    def _size(self) -> tuple[float, float]:
        return 7.6, 1.6 + 0.27 * (len(self.sites) + 2)

    def _draw(self, ax: Axes) -> None:
        pooled, metric = self.pooled, str(self.pooled["metric"])
        if metric in _IDEAL:
            ax.axvline(_IDEAL[metric], color=MUTED, linewidth=1, linestyle="--", zorder=0)
        self._draw_sites(ax)
        names = [f"{s.site}  ({s.n_events:,} / {s.n:,})" for s in self.sites.itertuples()]
        values = [row_range(row) for _, row in self.sites.iterrows()]
        if np.isfinite(pooled["value"]):
            self._draw_pooled(ax)
            names += [f"pooled, {pooled['n_sites']} sites", "a new site (prediction)"]
            ends = f"{pooled['prediction_low']:.2f} to {pooled['prediction_high']:.2f}"
            values += [row_range(pooled), ends]
        else:
            names, values = [*names, "fewer than 5 sites: not pooled"], [*values, ""]
        if metric == "e_o_ratio":
            _ratio_axis(ax)
        _column(ax, ["site  (events / patients)", *names])
        other = ax.twinx()
        _column(other, [f"value ({100 * self.confidence_level:g} % interval)", *values])
        ax.set_xlabel(_WORDS.get(metric, metric))
        ax.spines["left"].set_visible(False)
        other.set_frame_on(False)

    def _draw_sites(self, ax: Axes) -> None:
        """Draw intervals as lines and values as squares, larger if they are more precise."""
        precision = 1 / self.sites["se"].to_numpy(np.float64)
        share = precision / np.nanmax(precision) if np.isfinite(precision).any() else precision
        for place, row in self.sites.iterrows():
            if not np.isfinite(row["value"]):
                continue
            ax.plot([row["low"], row["high"]], [place, place], color=PALETTE[0], linewidth=1.4)
            size = 14 + 60 * np.nan_to_num(share[place])
            ax.scatter(row["value"], place, s=size, marker="s", color=PALETTE[0], zorder=3)

    def _draw_pooled(self, ax: Axes) -> None:
        n, row = len(self.sites), self.pooled
        ends = [row["low"], row["value"], row["high"], row["value"]]
        ax.fill(ends, [n, n - 0.3, n, n + 0.3], color=PALETTE[1], zorder=3)
        interval = [row["prediction_low"], row["prediction_high"]]
        ax.plot(interval, [n + 1, n + 1], color=PALETTE[1], linewidth=5, solid_capstyle="butt")
        ax.axhline(n - 0.55, color=MUTED, linewidth=0.8)


def _column(ax: Axes, words: list[str]) -> None:
    """Label the rows on one side; the first label is the heading."""
    ax.set_yticks(range(-1, len(words) - 1), words, fontsize="small")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(words) - 1.3, -1.6)


def _ratio_axis(ax: Axes) -> None:
    """Make the axis logarithmic, with plain ratios as ticks."""
    low, high = ax.get_xlim()
    ax.set_xscale("log")
    ax.set_xticks([tick for tick in _RATIOS if low <= tick <= high])
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter("{x:g}")
