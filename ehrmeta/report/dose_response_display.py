"""How one patient responds to doses, by what the own values say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.report.style import MUTED, PALETTE, axes_of, clear_frame, outcome_label
from ehrmeta.treatment import AdaptedCompartment, AdaptedDoses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DoseResponseDisplay"]


@dataclass(eq=False)
class DoseResponseDisplay:
    """A dose-response curve with its band; dashed beyond the doses of training.

    Attributes
    ----------
    curve : DataFrame
        Of one row of ``adapted.dose_response``.
    outcome : str
        The response, with its unit.
    confidence_level : float
        Of the band.
    target : (low, high), optional
        Range that the response should lie in.
    ax_, figure_
        What was drawn last.
    """

    curve: pd.DataFrame
    outcome: str
    confidence_level: float
    target: tuple[float, float] | None = None
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

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
    ) -> DoseResponseDisplay:
        """Draw the curve of one row.

        Parameters
        ----------
        adapted : from ``model.adapt``
        X, grid, confidence_level
            As in ``adapted.dose_response``; `given` is what else it takes.
        row : int
            Which row of X.
        target : (low, high), optional
            Drawn as a stripe.
        ax : matplotlib axes, optional

        Examples
        --------
        >>> import numpy as np
        >>> from ehrmeta.treatment import DoseResponse
        >>> rng = np.random.default_rng(0)
        >>> patient, dose = np.repeat(np.arange(30), 4), np.tile([1.0, 2.0, 3.0, 4.0], 30)
        >>> X, y = np.zeros((120, 1)), 2 * dose + rng.normal(size=30)[patient]
        >>> day, y = np.tile(np.arange(4.0), 30), y + rng.normal(0, 0.1, 120)
        >>> model = DoseResponse(trend=False)
        >>> model = model.fit(X, y, dose=dose, groups=patient, time=day)
        >>> one = model.adapt([[0.0]] * 2, [3.0, 5.0], dose=[1.0, 2.0], time=[0.0, 1.0])
        >>> DoseResponseDisplay.from_adapted(one, [[0.0]], target=(4, 6)).ax_.get_xlabel()
        'dose'
        """
        found = adapted.dose_response(X, grid, confidence_level=confidence_level, **given)
        curve = found[found["row"] == row]
        if curve.empty:
            raise DataError(f"row={row}, but X has {found['row'].nunique()} rows.")
        outcome = outcome_label(getattr(adapted.model, "schema_", None))
        return cls(curve, outcome, confidence_level, target).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> DoseResponseDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (6.4, 4.0))
        curve, seen = self.curve, ~self.curve["extrapolated"]
        if self.target is not None:
            ax.axhspan(*self.target, color=PALETTE[2], alpha=0.15, linewidth=0, label="target")
        words = f"{100 * self.confidence_level:g} % band"
        band: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.18, "linewidth": 0, "label": words}
        ax.fill_between(curve["dose"], curve["low"], curve["high"], **band)
        line: dict[str, Any] = {"color": PALETTE[0], "linewidth": 2.2}
        if not seen.all():
            words = "beyond the doses of training"
            line_beyond = {**line, "color": MUTED, "linestyle": "--", "label": words}
            ax.plot(curve["dose"], curve["response"], **line_beyond)
        within = curve["response"].where(seen)
        ax.plot(curve["dose"], within, label="this patient's response", **line)
        ax.set_xlabel("dose")
        ax.set_ylabel(self.outcome)
        ax.margins(x=0.02)
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self
