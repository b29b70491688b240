"""How a training went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.report.style import INK, LINES, PALETTE, axes_of, clear_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HistoryDisplay"]

_LINES = {"loss": "training tasks", "held_out_loss": "tasks held out"}


@dataclass(eq=False)
class HistoryDisplay:
    """Loss on training tasks and on tasks held out, over the steps of a training.

    Make one with `from_estimator`; `plot` draws it again.

    Attributes
    ----------
    history : DataFrame
        A row per check: step, loss, held_out_loss.
    ax_, figure_
        What was drawn last.
    """

    history: pd.DataFrame
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> HistoryDisplay:
        """Draw the training of a fitted `MetaRegressor` or `MetaClassifier`.

        Examples
        --------
        >>> from ehrmeta import MetaRegressor, make_sinusoid
        >>> X, y, groups = make_sinusoid(n_tasks=100, n_points=10, random_state=0)
        >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
        >>> HistoryDisplay.from_estimator(model).ax_.get_xlabel()
        'training step'
        """
        history = getattr(estimator, "history_", None)
        if not history:
            raise DataError(
                f"this {type(estimator).__name__} has no training to draw: it is not fitted, or "
                "was not trained by steps (the default is not with fewer than 100 tasks)."
            )
        return cls(pd.DataFrame(history)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> HistoryDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (6.4, 3.8))
        for place, (column, words) in enumerate(_LINES.items()):
            loss = self.history[column]
            if loss.notna().any():
                look: dict[str, Any] = {"color": PALETTE[place], "linestyle": LINES[place]}
                marker = "o" if loss.notna().sum() == 1 else None
                ax.plot(self.history["step"], loss, label=words, lw=2, marker=marker, **look)
        held_out = self.history["held_out_loss"]
        if held_out.notna().any():
            best = self.history["step"][held_out.idxmin()]
            ax.axvline(best, color=INK, linewidth=1, linestyle=":", label="best on those")
        ax.set_xlabel("training step")
        ax.set_ylabel("loss (negative log-likelihood)")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, frameon=False)
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self
