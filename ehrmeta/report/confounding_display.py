"""Sensitivity: which unmeasured confounders would explain an effect away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrmeta.report.style import INK, LINES, PALETTE, axes_of, clear_frame
from ehrmeta.treatment import AdaptedResponse, Diagnostics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ConfoundingDisplay"]


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
