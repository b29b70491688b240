"""Overlap: how alike the propensities of two arms are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrmeta.report.style import INK, MUTED, PALETTE, axes_of, clear_frame
from ehrmeta.treatment import AdaptedResponse, Diagnostics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["OverlapDisplay"]


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
