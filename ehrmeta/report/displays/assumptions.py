"""Overlap: how alike the propensities of two arms are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrmeta.report.displays._base import INK, LINES, MARKERS, MUTED, PALETTE, axes_of, clear_frame
from ehrmeta.treatment import AdaptedResponse, Diagnostics, PooledEffect, TreatmentResponse, refute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BalanceDisplay",
    "ConfoundingDisplay",
    "OverlapDisplay",
    "RefuterDisplay",
]

_MOST = 30  # features that a picture can name


@dataclass(eq=False)
class OverlapDisplay:
    """Rows of two arms by propensity: one arm upward, the other downward.

    Where one side is empty, the effect rests on the models alone.

    Attributes
    ----------
    diagnostics : Diagnostics
    ax_, figure_
        What was drawn last.
    """

    diagnostics: Diagnostics
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_adapted(
        cls, adapted: AdaptedResponse, *, T0: Any = None, T1: Any = None, ax: Axes | None = None
    ) -> OverlapDisplay:
        """Draw for the support rows of adapted tasks, or of ``model.tasks_``.

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

    def plot(self, *, ax: Axes | None = None) -> OverlapDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (6.4, 3.4))
        found = self.diagnostics
        bins = found.overlap.index
        left, width = np.asarray(bins.left), np.asarray(bins.length)
        zero, one = found.arms
        for sign, name, arm, colour in (
            (1, "one", one, PALETTE[0]),
            (-1, "zero", zero, PALETTE[1]),
        ):
            counts = sign * found.overlap[name].to_numpy()
            ax.bar(
                left,
                counts,
                width=width,
                align="edge",
                color=colour,
                alpha=0.85,
                label=f"given {arm}",
            )
        ax.margins(y=0.3)  # room for the legend
        ax.axhline(0, color=INK, linewidth=0.8)
        for edge in (0.05, 0.95):
            ax.axvline(edge, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        ax.set_xlim(0, 1)
        ax.set_xlabel(f"propensity of {one}")
        ax.set_ylabel("rows")
        ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        ax.set_title(
            f"{100 * found.outside:.1f} % of rows below 0.05 in an arm, "
            f"{100 * found.clipped:.1f} % clipped",
            fontsize="small",
            color=INK,
        )
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0.06, 1))
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self


@dataclass(eq=False)
class BalanceDisplay:
    """Standardised mean differences by feature, those that differ most on top (a Love plot).

    Attributes
    ----------
    diagnostics : Diagnostics
    ax_, figure_
        What was drawn last.
    """

    diagnostics: Diagnostics
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_adapted(
        cls, adapted: AdaptedResponse, *, T0: Any = None, T1: Any = None, ax: Axes | None = None
    ) -> BalanceDisplay:
        """Draw for the support rows of adapted tasks, or of ``model.tasks_``."""
        return cls(adapted.diagnostics(T0=T0, T1=T1)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> BalanceDisplay:
        """Draw on `ax`, or on a new figure."""
        balance = self.diagnostics.balance
        order = balance.before.abs().sort_values(ascending=False).index[:_MOST]
        shown = balance.loc[order]
        ax = axes_of(ax, (6.4, 1.3 + 0.24 * len(shown)))
        places = np.arange(len(shown))
        for name, words, marker, colour in (
            ("before", "before weighting", MARKERS[1], PALETTE[1]),
            ("after", "after", MARKERS[0], PALETTE[0]),
        ):
            ax.scatter(
                shown[name], places, marker=marker, color=colour, s=26, label=words, zorder=3
            )
        ax.hlines(places, shown.min(axis=1), shown.max(axis=1), color=MUTED, linewidth=0.8)
        ax.axvline(0, color=INK, linewidth=0.8)
        for edge in (-0.1, 0.1):
            ax.axvline(edge, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        ax.set_yticks(places, list(shown.index), fontsize="small")
        ax.set_ylim(len(shown) - 0.5, -0.5)
        zero, one = self.diagnostics.arms
        ax.set_xlabel(f"standardised mean difference, {one} less {zero}")
        if len(balance) > _MOST:
            words = f"the {_MOST} largest of {len(balance)}"
            ax.set_title(words, fontsize="small", color=INK, loc="right")
        ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self


@dataclass(eq=False)
class ConfoundingDisplay:
    r"""Risk ratios of a confounder with treatment and outcome that explain the effect away.

    Confounders above the line do, those below cannot:
    :math:`R_{t} R_{y} / (R_{t} + R_{y} - 1)` is the most that one can shift a risk ratio. The
    E-value is where both are alike.

    Attributes
    ----------
    diagnostics : Diagnostics
    ax_, figure_
        What was drawn last.

    References
    ----------
    Ding and VanderWeele (2016), doi:10.1097/EDE.0000000000000457.
    """

    diagnostics: Diagnostics
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_adapted(
        cls, adapted: AdaptedResponse, *, T0: Any = None, T1: Any = None, ax: Axes | None = None
    ) -> ConfoundingDisplay:
        """Draw for the support rows of adapted tasks, or of ``model.tasks_``."""
        return cls(adapted.diagnostics(T0=T0, T1=T1)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ConfoundingDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (5.0, 4.0))
        found = self.diagnostics
        most = 3.0 * max(found.e_value, 1.5)
        for value, words, colour, line in (
            (found.e_value, "the effect", PALETTE[0], LINES[0]),
            (found.e_value_limit, "its 95 % limit", PALETTE[1], LINES[1]),
        ):
            if not 1.0 < value < np.inf:
                continue
            ratio = value**2 / (2 * value - 1)  # of which this is the E-value
            treatment = np.geomspace(1.001 * ratio, most, 200)
            outcome = ratio * (treatment - 1) / (treatment - ratio)
            ax.plot(treatment, outcome, color=colour, linestyle=line, label=words)
            ax.plot(value, value, "o", color=colour)
            beside = (
                {"ha": "left", "xytext": (6, 6)}
                if value == found.e_value
                else {"ha": "right", "xytext": (-7, -12)}
            )
            ax.annotate(
                f"E-value {value:.2f}", (value, value), textcoords="offset points", **beside
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(1, most)
        ax.set_ylim(1, most)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(_ticks(most))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        ax.set_xlabel("risk ratio of confounder and treatment")
        ax.set_ylabel("of confounder and outcome")
        words = f"robustness value {100 * found.robustness_value:.1f} %"
        if not found.e_value_limit > 1.0:
            words += "; the 95 % interval holds 0 with no confounder at all"
        ax.set_title(words, fontsize="small", color=INK)
        if ax.get_lines():
            ax.legend(frameon=False, fontsize="small", title="explains away", loc="lower left")
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self


def _ticks(most: float) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator([tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50) if tick <= most])


@dataclass(eq=False)
class RefuterDisplay:
    """The effect found, and those of fits whose effect is 0 by construction, with intervals.

    Attributes
    ----------
    refuted : DataFrame
        Of `refute`.
    found : PooledEffect
    ax_, figure_
        What was drawn last.
    """

    refuted: pd.DataFrame
    found: PooledEffect
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_estimator(
        cls,
        model: TreatmentResponse,
        *,
        n_repeats: int = 5,
        random_state: int = 0,
        ax: Axes | None = None,
    ) -> RefuterDisplay:
        """Refute a fitted model and draw; each repeat takes two fits."""
        refuted = refute(model, n_repeats=n_repeats, random_state=random_state)
        labels = getattr(model.treatment_, "labels", [0, 1])
        return cls(refuted, model.tasks_.pooled_effect(T1=labels[1])).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> RefuterDisplay:
        """Draw on `ax`, or on a new figure."""
        ordered = self.refuted.sort_values(["refuter", "repeat"], ascending=[False, True])
        ax = axes_of(ax, (6.4, 1.4 + 0.22 * (len(ordered) + 2)))
        low, high = self.found.interval
        rows = [("effect found", self.found.effect, low, high, PALETTE[0])]
        rows += [
            (row.refuter if row.repeat == 0 else "", row.effect, row.low, row.high, PALETTE[1])
            for row in ordered.itertuples()
        ]
        for place, (_, value, left, right, colour) in enumerate(rows):
            ax.plot([left, right], [place, place], color=colour, linewidth=1.4)
            ax.scatter(value, place, s=24, color=colour, zorder=3)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.axhline(0.5, color=MUTED, linewidth=0.8)
        ax.set_yticks(np.arange(len(rows)), [row[0] for row in rows], fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("average effect (95 % interval)")
        held = int(self.refuted.holds_0.sum())
        ax.set_title(
            f"{held} of {len(self.refuted)} fits without effect hold 0", fontsize="small", color=INK
        )
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self
