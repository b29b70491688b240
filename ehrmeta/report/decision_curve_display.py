"""Decision curves: what acting on a risk is worth, against acting on all or on none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.evaluation import DecisionCurve, decision_curve
from ehrmeta.report.event_risk import event_risk, name_of
from ehrmeta.report.style import INK, LINES, MUTED, PALETTE, axes_of, clear_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DecisionCurveDisplay"]


@dataclass(eq=False)
class DecisionCurveDisplay:
    """Net benefit over thresholds, for one model or several, beside treat-all and treat-none.

    Make one with `from_predictions` or `from_estimator`; `plot` draws it again.

    Attributes
    ----------
    curves : dict of str to DecisionCurve
        By model.
    prevalence : float
        The net benefit of knowing everything.
    ax_, figure_
        What was drawn last.
    """

    curves: dict[str, DecisionCurve]
    prevalence: float
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        name: str | None = None,
        threshold: ArrayLike | None = None,
        ax: Axes | None = None,
        **predict: Any,
    ) -> DecisionCurveDisplay:
        """Draw for a fitted or adapted classifier, whose second class is the event.

        Further keywords go to ``predict_proba`` (groups, time); the others are those of
        `from_predictions`.
        """
        y_true, y_prob = event_risk(estimator, X, y, predict)
        name = name_of(estimator) if name is None else name
        return cls.from_predictions(y_true, {name: y_prob}, threshold=threshold, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike | Mapping[str, ArrayLike],
        *,
        threshold: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> DecisionCurveDisplay:
        """Draw for predicted risks.

        Parameters
        ----------
        y_true : (row,)
            Outcomes, 0 or 1.
        y_prob : (row,) or mapping of str to (row,)
            Risks of one model, or of several by name.
        threshold : (threshold,), optional
            Rising; by default whole percents up to the risk that one patient in 100 exceeds.
        ax : matplotlib axes, optional

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> p = rng.uniform(size=200)
        >>> display = DecisionCurveDisplay.from_predictions(rng.random(200) < p, p)
        >>> [line.get_label() for line in display.ax_.lines]
        ['treat all', 'treat none', 'model']
        """
        models = dict(y_prob) if isinstance(y_prob, Mapping) else {"model": y_prob}
        if not models:
            raise DataError("there is no model to draw: pass the risks of at least one.")
        if threshold is None:
            reached = max(float(np.quantile(np.asarray(p), 0.99)) for p in models.values())
            threshold = np.arange(1, min(100, max(3, round(100 * reached) + 1))) / 100
        curves = {
            name: decision_curve(y_true, p, threshold=threshold) for name, p in models.items()
        }
        return cls(curves, float(np.mean(np.asarray(y_true, np.float64)))).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> DecisionCurveDisplay:
        """Draw on `ax`, or on a new figure."""
        ax = axes_of(ax, (7.2, 5.0))
        first = next(iter(self.curves.values()))
        at = 100 * first.threshold
        ax.plot(at, 100 * first.treat_all, color=INK, linewidth=1.2, ls=":", label="treat all")
        ax.plot(at, 100 * first.treat_none, color=MUTED, linewidth=1.2, label="treat none")
        for number, (name, curve) in enumerate(self.curves.items()):
            look: dict[str, Any] = {
                "color": PALETTE[number % len(PALETTE)],
                "linestyle": LINES[number % len(LINES)],
            }
            ax.plot(100 * curve.threshold, 100 * curve.model, linewidth=2.4, label=name, **look)
        best = 100 * max(self.prevalence, *(float(c.model.max()) for c in self.curves.values()))
        ax.set(xlim=(0, at[-1]), ylim=(-0.12 * best, 1.08 * best))
        ax.set_xlabel("threshold: treat from this risk on [%]")
        ax.set_ylabel("net benefit [true positives per 100 patients]")
        ax.legend(loc="upper right", frameon=False, handlelength=3.2)
        clear_frame(ax)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self
