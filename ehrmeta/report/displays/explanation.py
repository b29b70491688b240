"""Waterfalls from the population's prediction to a patient's, by values or by features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from ehrmeta.data import Feature
from ehrmeta.estimators import Adapted
from ehrmeta.report.displays._base import (
    INK,
    MUTED,
    PALETTE,
    Axes,
    Display,
    decimals,
    number,
    of_row,
    outcome_label,
)

_WORDS = {
    "population": "population",
    "base": "with others' features",
    "visits": "when visits were, other values",
    "rest": "several values together",
}
_MOST_FEATURES = 10  # bars; the smallest share one


@dataclass(eq=False)
class ExplanationDisplay(Display):
    """A waterfall: what each value of a patient added to the population's prediction.

    Or what each feature added to the prediction with other patients' features.

    Attributes
    ----------
    parts : DataFrame
        Of one row of `Adapted.explain`, or of `Adapted.explain_features`.
    outcome, time_unit : str
        What is predicted, with its unit; and the unit of time.
    """

    parts: pd.DataFrame
    outcome: str
    time_unit: str = ""

    @classmethod
    def from_estimator(
        cls,
        estimator: Adapted,
        X: Any,
        *,
        groups: Any = None,
        time: Any = None,
        target: Any = None,
        background: Any = None,
        row: int = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Explain one row's prediction, and draw.

        Parameters
        ----------
        X, groups, time, target
            As in `Adapted.explain`.
        background : frame or array, optional
            Rows of other patients, to draw what features add, as in `Adapted.explain_features`.
        row : int
            Which row of X.

        Examples
        --------
        >>> from ehrmeta import MetaRegressor, make_sinusoid
        >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
        >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
        >>> adapted = model.adapt(X[10:13], y[10:13])
        >>> ExplanationDisplay.from_estimator(adapted, X[15:16]).ax_.get_xlabel()
        'y'
        """
        given = {"groups": groups, "time": time, "target": target}
        if background is None:
            parts = estimator.explain(X, **given)
        else:
            parts = estimator.explain_features(X, background=background, **given)
            features = {feature.name: feature for feature in estimator.model.table.features}
            parts["feature"] = [
                _with_value(features.get(name), value)
                for name, value in zip(parts["feature"], parts["value"], strict=True)
            ]
        model: Any = estimator.model
        outcome = outcome_label(model.schema)
        if hasattr(model.table.outcome, "labels"):
            outcome = f"probability of {estimator.classes_[1] if target is None else target}"
        elif model.table.outcome.transform is not None:
            outcome = f"{model.table.outcome.transform} of {outcome}"
        clock = model.schema.time if model.schema is not None else None
        return cls(of_row(parts, row), outcome, clock.unit if clock is not None else "").plot(ax=ax)

    @property
    def _size(self) -> tuple[float, float]:
        return 7.6, 1.5 + 0.42 * (len(_largest(self.parts.iloc[1:])) + 2)

    def _draw(self, ax: Axes) -> None:
        first, moves = self.parts.iloc[0], _largest(self.parts.iloc[1:])
        start = at = first["contribution"]
        labels, digits = [_WORDS[first["part"]]], decimals(moves["contribution"].abs().max())
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        step: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "zorder": 1}
        n_values = 0  # so far
        ax.use_sticky_edges = False  # bars would end at the frame
        for place, (_, part) in enumerate(moves.iterrows(), start=1):
            change = part["contribution"]
            colour = PALETTE[0] if change >= 0 else PALETTE[1]
            ax.barh(place, change, left=at, color=colour, height=0.6, zorder=2)
            ax.plot([at, at], [place - 1, place], **step)
            at += change
            words, end = f"{change:+.{digits}f}", max(at, at - change)
            look = {"xytext": (4, 0), "fontsize": "small", "color": INK, **beside}
            ax.annotate(words, (end, place), **look)
            n_values += part["part"] == "value"
            labels.append(self._label(part, n_values))
        ax.plot([at, at], [len(moves), len(moves) + 1], **step)
        for place, value in ((0, start), (len(moves) + 1, at)):
            ax.plot(value, place, marker="D", color=INK, markersize=7)
            words = f"{value:,.{digits}f}"
            ax.annotate(words, (value, place), xytext=(8, 0), weight="bold", **beside)
        labels.append("this patient")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.margins(x=0.14)
        ax.set_xlabel(self.outcome)
        weight = first.get("own_weight")
        if pd.notna(weight):
            words = f"rests to {100 * weight:.0f} % on the patient's own values"
            ax.set_title(words, fontsize="small")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)

    def _label(self, part: pd.Series, n_values: int) -> str:
        """Name of a bar."""
        if part["part"] == "feature":
            return str(part["feature"])
        if part["part"] != "value":
            return _WORDS[part["part"]]
        when = f"{_plain(part['before'])} {self.time_unit}".rstrip() + " before"
        words = f"value {n_values}" if pd.isna(part["before"]) else f"value {when}"
        if pd.isna(part["surprise"]):
            return words
        surprise = f"{part['surprise']:+.{decimals(self.parts['surprise'].abs().max())}f}"
        return f"{words}: {surprise} to the expected, weight {part['weight']:.2f}"


def _largest(moves: pd.DataFrame) -> pd.DataFrame:
    """All contributions; of many features the largest in order, and the sum of the others."""
    if moves.empty or moves["part"].iloc[0] != "feature":
        return moves
    moves = moves.sort_values("contribution", key=abs, ascending=False, kind="stable")
    if len(moves) <= _MOST_FEATURES:
        return moves
    others = moves.iloc[_MOST_FEATURES - 1 :]
    words = f"{len(others)} other features"
    summed = others.head(1).assign(feature=words, contribution=others["contribution"].sum())
    return pd.concat([moves.iloc[: _MOST_FEATURES - 1], summed])


def _with_value(feature: Feature | None, value: Any) -> str:
    """A feature with its value in the row; of a measured one the last value counts."""
    if feature is None:  # the base has none
        return ""
    if value is None:
        return f"{feature.name}, last measured"
    if pd.isna(value):
        return f"{feature.name} missing"
    if feature.kind == "binary":
        return f"{feature.name}: {'yes' if value else 'no'}"
    return f"{feature.name} = {value if feature.kind == 'categorical' else _plain(value)}"


def _plain(value: float) -> str:
    """Whole numbers and large ones without decimals, others with three digits."""
    whole = float(value).is_integer() or abs(value) >= 100
    return f"{value:,.0f}" if whole else number(value)
