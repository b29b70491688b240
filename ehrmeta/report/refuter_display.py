"""Refuters: what a model finds where there is no effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ehrmeta.report.style import INK, MUTED, PALETTE, axes_of, clear_frame
from ehrmeta.treatment import PooledEffect, TreatmentResponse, refute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RefuterDisplay"]


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
