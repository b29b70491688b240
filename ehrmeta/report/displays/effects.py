"""Displays of treatment effects and of the assumptions behind them.

Average effects by predicted rank, dose-response curves, overlap, balance, confounding, refutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ehrmeta.report.displays._base import (
    INK,
    LINES,
    MARKERS,
    MUTED,
    PALETTE,
    Axes,
    Display,
    legend_below,
    select_row,
)
from ehrmeta.report.wording import outcome_label
from ehrmeta.treatment import (
    AdaptedCompartment,
    AdaptedDoses,
    AdaptedResponse,
    Diagnostics,
    PooledEffect,
    TreatmentResponse,
    refute,
)

_MAX_FEATURES = 30  # in a balance plot
_TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50)  # of risk ratios


@dataclass(eq=False)
class EffectRankDisplay(Display):
    """Average effects in groups of rows ranked by predicted effect.

    Shows whether the rows with the largest predicted effects have the largest effects.

    Attributes
    ----------
    groups : DataFrame
        From `AdaptedResponse.effects_by_rank`.
    outcome : str
        Outcome with its unit.
    arms : tuple of str
        Control, and the arm compared with it.
    """

    groups: pd.DataFrame
    outcome: str
    arms: tuple[str, str]

    @classmethod
    def from_adapted(
        cls,
        adapted: AdaptedResponse,
        *,
        T0: Any = None,
        T1: Any = None,
        n_groups: int = 5,
        ax: Axes | None = None,
    ) -> Self:
        """Draw for the support rows of adapted tasks, not used to fit the model.

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta import TreatmentResponse
        >>> rng = np.random.default_rng(0)
        >>> X, t, site = rng.normal(size=(400, 1)), rng.integers(0, 2, 400), np.arange(400) % 8
        >>> y, new = t * X[:, 0] + rng.normal(size=400), site >= 4
        >>> model = TreatmentResponse(propensity=0.5, final="linear", random_state=0)
        >>> model = model.fit(X[~new], y[~new], treatment=t[~new], groups=site[~new])
        >>> tasks = model.adapt(X[new], y[new], treatment=t[new], groups=site[new])
        >>> EffectRankDisplay.from_adapted(tasks).ax_.get_ylabel().splitlines()
        ['average effect on y,', '1 over 0']
        """
        groups = adapted.effects_by_rank(T0=T0, T1=T1, n_groups=n_groups)
        arms = adapted.model.arms
        zero, one = (str(arms.labels[code]) for code in arms.codes_of(T0, T1))
        outcome = outcome_label(adapted.model.encoder.schema)
        return cls(groups, outcome, (zero, one)).plot(ax=ax)

    def _draw(self, ax: Axes) -> None:
        groups, (zero, one) = self.groups, self.arms
        at, effect = groups.index.to_numpy(), groups["effect"]
        mean = (groups["n"] * effect).sum() / groups["n"].sum()
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.axhline(mean, color=MUTED, linewidth=1, linestyle="--", label="all rows together")
        dots: dict[str, Any] = {"color": PALETTE[1], "markerfacecolor": "white", "markersize": 7}
        ax.plot(at, groups["predicted"], linestyle="none", marker="D", label="predicted", **dots)
        bars: dict[str, Any] = {"fmt": "o", "color": PALETTE[0], "capsize": 3}
        bars["yerr"] = [effect - groups["low"], groups["high"] - effect]
        ax.errorbar(at, effect, label="estimated from the rows, 95 % interval", **bars)
        sizes = [f"{place}\n({n:,} rows)" for place, n in zip(at, groups["n"], strict=True)]
        ax.set_xticks(at, sizes)
        ax.set_xlabel("group of rows, from the smallest to the largest predicted effect")
        ax.set_ylabel(f"average effect on {self.outcome},\n{one} over {zero}")
        ax.margins(x=0.08, y=0.1)
        legend_below(ax, 0.24)


@dataclass(eq=False)
class DoseResponseDisplay(Display):
    """A dose-response curve with its band, dashed outside the range of the training doses.

    Attributes
    ----------
    curve : DataFrame
        One row's part of ``adapted.dose_response``.
    outcome : str
        The response with its unit.
    confidence_level : float
        Level of the band.
    target : (low, high), optional
        Range in which the response should lie, shaded.
    """

    curve: pd.DataFrame
    outcome: str
    confidence_level: float
    target: tuple[float, float] | None = None

    @classmethod
    def from_adapted(
        cls,
        adapted: AdaptedDoses | AdaptedCompartment,
        X: Any,
        grid: Any = None,
        *,
        row: int = 0,
        confidence_level: float = 0.9,
        target: tuple[float, float] | None = None,
        ax: Axes | None = None,
        **given: Any,
    ) -> Self:
        """Draw the curve of one row of X and its band, 90 % by default.

        Other arguments are those of ``adapted.dose_response``.

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta.treatment import DoseResponse
        >>> rng = np.random.default_rng(0)
        >>> patient, dose = np.repeat(np.arange(30), 4), np.tile([1.0, 2.0, 3.0, 4.0], 30)
        >>> X, y = np.zeros((120, 1)), 2 * dose + rng.normal(size=30)[patient]
        >>> day, y = np.tile(np.arange(4.0), 30), y + rng.normal(0, 0.1, 120)
        >>> model = DoseResponse(trend=False)
        >>> model = model.fit(X, y, treatment=dose, groups=patient, time=day)
        >>> one = model.adapt([[0.0]] * 2, [3.0, 5.0], treatment=[1.0, 2.0], time=[0.0, 1.0])
        >>> DoseResponseDisplay.from_adapted(one, [[0.0]], target=(4, 6)).ax_.get_xlabel()
        'dose'
        """
        curves = adapted.dose_response(X, grid, confidence_level=confidence_level, **given)
        outcome = outcome_label(adapted.schema)
        return cls(select_row(curves, row), outcome, confidence_level, target).plot(ax=ax)

    def _draw(self, ax: Axes) -> None:
        curve, is_seen = self.curve, ~self.curve["extrapolated"]
        if self.target is not None:
            ax.axhspan(*self.target, color=PALETTE[2], alpha=0.15, linewidth=0, label="target")
        band: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.18, "linewidth": 0}
        band["label"] = f"{100 * self.confidence_level:g} % band"
        ax.fill_between(curve["dose"], curve["low"], curve["high"], **band)
        if not is_seen.all():
            beyond: dict[str, Any] = {"color": MUTED, "linestyle": "--", "linewidth": 2.2}
            beyond["label"] = "outside the training doses"
            ax.plot(curve["dose"], curve["response"], **beyond)
        line: dict[str, Any] = {"color": PALETTE[0], "linewidth": 2.2}
        within = curve["response"].where(is_seen)
        ax.plot(curve["dose"], within, label="this patient's response", **line)
        ax.set_xlabel("dose")
        ax.set_ylabel(self.outcome)
        ax.margins(x=0.02)
        legend_below(ax, 0.16)


@dataclass(eq=False)
class _DiagnosticsDisplay(Display):
    """A display of the diagnostics of a contrast of two arms.

    Attributes
    ----------
    diagnostics : Diagnostics
    """

    diagnostics: Diagnostics

    @classmethod
    def from_adapted(
        cls, adapted: AdaptedResponse, *, T0: Any = None, T1: Any = None, ax: Axes | None = None
    ) -> Self:
        """Draw for the support rows of adapted tasks, or for the training tasks ``model.tasks_``.

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta import TreatmentResponse
        >>> rng = np.random.default_rng(0)
        >>> X, t = rng.normal(size=(200, 1)), rng.integers(0, 2, 200)
        >>> model = TreatmentResponse(propensity=0.5, final="constant", random_state=0)
        >>> model = model.fit(X, t + rng.normal(size=200), treatment=t)
        >>> OverlapDisplay.from_adapted(model.tasks_).ax_.get_xlabel()
        'propensity of 1'
        """
        return cls(adapted.diagnostics(T0=T0, T1=T1)).plot(ax=ax)


class OverlapDisplay(_DiagnosticsDisplay):
    """Histogram of the propensity in two arms: one arm upward, the other downward.

    Where one side is empty, the effect is extrapolated by the outcome models.
    """

    _size = (6.4, 3.4)

    def _draw(self, ax: Axes) -> None:
        overlap, (zero, one) = self.diagnostics.overlap, self.diagnostics.arms
        bins = overlap.index
        look: dict[str, Any] = {"width": np.asarray(bins.length), "align": "edge", "alpha": 0.85}
        arms = ((1, "one", one, PALETTE[0]), (-1, "zero", zero, PALETTE[1]))
        for sign, name, arm, colour in arms:
            counts = sign * overlap[name].to_numpy()
            ax.bar(np.asarray(bins.left), counts, color=colour, label=f"given {arm}", **look)
        ax.margins(y=0.3)  # room for the legend
        ax.axhline(0, color=INK, linewidth=0.8)
        for edge in (0.05, 0.95):
            ax.axvline(edge, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        ax.set_xlim(0, 1)
        ax.set_xlabel(f"propensity of {one}")
        ax.set_ylabel("rows")
        ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        shares = 100 * self.diagnostics.outside, 100 * self.diagnostics.clipped
        title = f"{shares[0]:.1f} % of rows below 0.05 in an arm, {shares[1]:.1f} % clipped"
        ax.set_title(title, fontsize="small", color=INK)
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0.06, 1))


class BalanceDisplay(_DiagnosticsDisplay):
    """Love plot: standardised mean difference of each feature, largest on top."""

    @property
    def _size(self) -> tuple[float, float]:
        return 6.4, 1.3 + 0.24 * min(len(self.diagnostics.balance), _MAX_FEATURES)

    def _draw(self, ax: Axes) -> None:
        balance, (zero, one) = self.diagnostics.balance, self.diagnostics.arms
        order = balance.before.abs().sort_values(ascending=False).index[:_MAX_FEATURES]
        shown, places = balance.loc[order], np.arange(len(order))
        for i, name, label in ((1, "before", "before weighting"), (0, "after", "after")):
            style: dict[str, Any] = {"marker": MARKERS[i], "color": PALETTE[i]}
            ax.scatter(shown[name], places, label=label, s=26, zorder=3, **style)
        ax.hlines(places, shown.min(axis=1), shown.max(axis=1), color=MUTED, linewidth=0.8)
        ax.axvline(0, color=INK, linewidth=0.8)
        for edge in (-0.1, 0.1):
            ax.axvline(edge, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        ax.set_yticks(places, list(shown.index), fontsize="small")
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_xlabel(f"standardised mean difference, {one} less {zero}")
        if len(balance) > _MAX_FEATURES:
            title = f"the {_MAX_FEATURES} largest of {len(balance)}"
            ax.set_title(title, fontsize="small", color=INK, loc="right")
        ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


class ConfoundingDisplay(_DiagnosticsDisplay):
    r"""Strength of an unmeasured confounder that would explain the effect away.

    Axes are the confounder's risk ratios with treatment and outcome. Confounders on or above the
    line could explain the effect away; confounders below it could not, because a confounder shifts
    a risk ratio by a factor of at most :math:`R_{t} R_{y} / (R_{t} + R_{y} - 1)`. At the E-value
    both ratios are equal.

    References
    ----------
    Ding and VanderWeele (2016), doi:10.1097/EDE.0000000000000457.
    """

    _size = (5.0, 4.0)

    def _draw(self, ax: Axes) -> None:
        from matplotlib.ticker import FixedLocator

        e_value, limit = self.diagnostics.e_value, self.diagnostics.e_value_limit
        most = 3.0 * max(e_value, 1.5)
        for value, words, colour, line in (
            (e_value, "the effect", PALETTE[0], LINES[0]),
            (limit, "its 95 % limit", PALETTE[1], LINES[1]),
        ):
            if not 1.0 < value < np.inf:
                continue
            ratio = value**2 / (2 * value - 1)  # the risk ratio with this E-value
            treatment = np.geomspace(1.001 * ratio, most, 200)
            outcome = ratio * (treatment - 1) / (treatment - ratio)
            ax.plot(treatment, outcome, color=colour, linestyle=line, label=words)
            ax.plot(value, value, "o", color=colour)
            place: dict[str, Any] = {"ha": "left", "xytext": (6, 6)}
            if value != e_value:
                place = {"ha": "right", "xytext": (-7, -12)}
            label = f"E-value {value:.2f}"
            ax.annotate(label, (value, value), textcoords="offset points", **place)
        ax.set(xscale="log", yscale="log", xlim=(1, most), ylim=(1, most))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick <= most]))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        ax.set_xlabel("risk ratio of confounder and treatment")
        ax.set_ylabel("of confounder and outcome")
        title = f"robustness value {100 * self.diagnostics.robustness_value:.1f} %"
        if not limit > 1.0:
            title += "; the 95 % interval contains 0 without any confounder"
        ax.set_title(title, fontsize="small", color=INK)
        if ax.get_lines():
            ax.legend(frameon=False, fontsize="small", title="explains away", loc="lower left")


@dataclass(eq=False)
class RefuterDisplay(Display):
    """Estimated effect, beside estimates from refits to data in which the true effect is 0.

    Attributes
    ----------
    refuted : DataFrame
        From `refute`.
    effect : PooledEffect
        Effect estimated by the original fit.
    """

    refuted: pd.DataFrame
    effect: PooledEffect

    @classmethod
    def from_estimator(
        cls,
        model: TreatmentResponse,
        *,
        n_repeats: int = 5,
        random_state: int = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Refit a fitted model by `refute`, and draw; each repeat needs two fits."""
        refuted = refute(model, n_repeats=n_repeats, random_state=random_state)
        labels = getattr(model.treatment_, "labels", [0, 1])
        return cls(refuted, model.tasks_.pooled_effect(T1=labels[1])).plot(ax=ax)

    @property
    def _size(self) -> tuple[float, float]:
        return 6.4, 1.4 + 0.22 * (len(self.refuted) + 2)

    def _draw(self, ax: Axes) -> None:
        ordered = self.refuted.sort_values(["refuter", "repeat"], ascending=[False, True])
        rows = [("estimated effect", self.effect.effect, *self.effect.interval, PALETTE[0])]
        rows += [
            (row.refuter if row.repeat == 0 else "", row.effect, row.low, row.high, PALETTE[1])
            for row in ordered.itertuples()
        ]
        for place, (_, value, low, high, colour) in enumerate(rows):
            ax.plot([low, high], [place, place], color=colour, linewidth=1.4)
            ax.scatter(value, place, s=24, color=colour, zorder=3)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.axhline(0.5, color=MUTED, linewidth=0.8)
        ax.set_yticks(np.arange(len(rows)), [row[0] for row in rows], fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("average effect (95 % interval)")
        n_holding = int(self.refuted.holds_0.sum())
        title = f"the interval contains 0 in {n_holding} of {len(self.refuted)} fits without effect"
        ax.set_title(title, fontsize="small", color=INK)
