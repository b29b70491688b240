"""Balance: how far apart the features of two arms are, before and after weighting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrmeta.report.style import INK, MARKERS, MUTED, PALETTE, axes_of, clear_frame
from ehrmeta.treatment import AdaptedResponse, Diagnostics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BalanceDisplay"]

_MOST = 30  # features that a picture can name


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
