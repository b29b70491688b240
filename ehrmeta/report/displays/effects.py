"""Displays of treatment effects: average effects by predicted rank, and dose-response curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from ehrmeta.report.displays._base import (
    INK,
    MUTED,
    PALETTE,
    Axes,
    Display,
    legend_below,
    select_row,
)
from ehrmeta.report.wording import outcome_label
from ehrmeta.treatment import AdaptedCompartment, AdaptedDoses, AdaptedResponse


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
