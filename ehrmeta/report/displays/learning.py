"""Displays of a fitted model: training history, and shrinkage of the individual effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ehrmeta.errors import DataError
from ehrmeta.estimators import Adapted
from ehrmeta.report.displays._base import INK, LINES, PALETTE, Axes, Display, legend_below
from ehrmeta.report.wording import outcome_label

_LABELS = {"loss": "training tasks", "held_out_loss": "held-out tasks"}


@dataclass(eq=False)
class ShrinkageDisplay(Display):
    """Histogram of the random effects of adapted tasks, beside their prior distribution.

    If the bars are much narrower than the curve, shrinkage is high: each task has too few rows to
    estimate its effect, and plots of individual effects mislead (Savic and Karlsson 2009,
    doi:10.1208/s12248-009-9133-0).

    Attributes
    ----------
    effects : (task,)
        Mean shift of a task's rows from the population, in the unit of the outcome.
    prior_sd : float
        Standard deviation of these shifts over tasks, under the model's prior.
    outcome : str
        Outcome with its unit.
    """

    effects: NDArray[np.float64]
    prior_sd: float
    outcome: str

    @classmethod
    def from_estimator(cls, estimator: Adapted, *, ax: Axes | None = None) -> Self:
        """Draw for adapted tasks, from ``model.adapt``.

        Examples
        --------
        >>> from ehrmeta import MetaRegressor, make_sinusoid
        >>> X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
        >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
        >>> patients = model.adapt(X[100:300], y[100:300], groups=groups[100:300])
        >>> ShrinkageDisplay.from_estimator(patients).ax_.get_ylabel()
        'density'
        """
        model = estimator.model
        effects, prior_sd = estimator.effects_
        effects = effects[estimator.n_shots_ > 0]
        if len(effects) < 2 or not np.isfinite(prior_sd):
            raise DataError(
                "a histogram of effects needs at least two tasks with rows, adapted by a "
                f"MetaRegressor or a mixed model. Got {len(effects)} adapted by a {model.name}. "
                "Adapt more tasks with one of these models."
            )
        scale, outcome = model.table.outcome, outcome_label(model.schema)
        if scale.transform is not None:
            outcome = f"{scale.transform} of {outcome}"
        return cls(scale.scale * effects, scale.scale * prior_sd, outcome).plot(ax=ax)

    _size = (6.4, 3.8)

    def _draw(self, ax: Axes) -> None:
        label = f"{len(self.effects):,} adapted tasks"
        bins = min(40, max(8, int(np.sqrt(len(self.effects)))))
        ax.hist(self.effects, bins=bins, density=True, color=PALETTE[0], alpha=0.6, label=label)
        end = max(3.5 * self.prior_sd, 1.05 * float(np.abs(self.effects).max()))
        at = np.linspace(-end, end, 300)
        expected = stats.norm.pdf(at, scale=self.prior_sd)
        ax.plot(at, expected, color=PALETTE[1], linewidth=2, label="prior of the model")
        shrinkage = 1.0 - float(np.std(self.effects)) / self.prior_sd
        ax.set_title(f"shrinkage {100 * shrinkage:.0f} %", fontsize="medium", loc="left")
        ax.set_xlabel(f"shift from the population, {self.outcome}")
        ax.set_ylabel("density")
        legend_below(ax, 0.17)


@dataclass(eq=False)
class HistoryDisplay(Display):
    """Loss on training and held-out tasks over the training steps.

    Attributes
    ----------
    history : DataFrame
        A row per evaluation: step, loss, held_out_loss.
    """

    history: pd.DataFrame

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> Self:
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
                f"this {type(estimator).__name__} has no training history. Either it is not "
                "fitted, or it was fitted without training steps, which is the default for fewer "
                "than 100 tasks."
            )
        return cls(pd.DataFrame(history)).plot(ax=ax)

    _size = (6.4, 3.8)

    def _draw(self, ax: Axes) -> None:
        for i, (column, label) in enumerate(_LABELS.items()):
            loss = self.history[column]
            if loss.notna().any():
                style: dict[str, Any] = {"color": PALETTE[i], "linestyle": LINES[i], "lw": 2}
                marker = "o" if loss.notna().sum() == 1 else None
                ax.plot(self.history["step"], loss, label=label, marker=marker, **style)
        held_out = self.history["held_out_loss"]
        if held_out.notna().any():
            best = self.history["step"][held_out.idxmin()]
            ax.axvline(best, color=INK, linewidth=1, linestyle=":", label="best step")
        ax.set_xlabel("training step")
        ax.set_ylabel("loss (negative log-likelihood)")
        legend_below(ax, 0.17, ncols=3)
