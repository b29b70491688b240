"""Waterfall charts of one patient's prediction: contributions of earlier values or of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from ehrmeta.data import Feature
from ehrmeta.estimators import Adapted
from ehrmeta.report.displays._base import INK, MUTED, PALETTE, Axes, Display, select_row
from ehrmeta.report.wording import decimals, number, outcome_label

_WORDS = {
    "population": "population",
    "base": "with other patients' features",
    "visits": "visit times, other values",
    "rest": "interaction of several values",
}
_MAX_BARS = 10  # the smallest contributions are summed in the last bar


@dataclass(eq=False)
class ExplanationDisplay(Display):
    """Waterfall chart of the contributions to one prediction.

    It starts from the population prediction and adds the contributions of the patient's values; or
    it starts from the prediction with other patients' features and adds those of the features.

    Attributes
    ----------
    parts : DataFrame
        One row's part of `Adapted.explain` or `Adapted.explain_features`.
    outcome, time_unit : str
        Predicted quantity with its unit, and the unit of time.
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
            Rows of other patients. If given, contributions of features are drawn
            (`Adapted.explain_features`).
        row : int
            Number of the row of X.

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
        unit = clock.unit if clock is not None else ""
        return cls(select_row(parts, row), outcome, unit).plot(ax=ax)

    @property
    def _size(self) -> tuple[float, float]:
        return 7.6, 1.5 + 0.42 * (len(_largest(self.parts.iloc[1:])) + 2)

    def _draw(self, ax: Axes) -> None:
        first, steps = self.parts.iloc[0], _largest(self.parts.iloc[1:])
        start = at = first["contribution"]
        labels, digits = [_WORDS[first["part"]]], decimals(steps["contribution"].abs().max())
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        connector: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "zorder": 1}
        n_values = 0  # drawn so far
        ax.use_sticky_edges = False  # otherwise bars would end at the frame
        for place, (_, part) in enumerate(steps.iterrows(), start=1):
            change = part["contribution"]
            colour = PALETTE[0] if change >= 0 else PALETTE[1]
            ax.barh(place, change, left=at, color=colour, height=0.6, zorder=2)
            ax.plot([at, at], [place - 1, place], **connector)
            at += change
            end = max(at, at - change)
            style = {"xytext": (4, 0), "fontsize": "small", "color": INK, **beside}
            ax.annotate(f"{change:+.{digits}f}", (end, place), **style)
            n_values += part["part"] == "value"
            labels.append(self._label(part, n_values))
        ax.plot([at, at], [len(steps), len(steps) + 1], **connector)
        for place, value in ((0, start), (len(steps) + 1, at)):
            ax.plot(value, place, marker="D", color=INK, markersize=7)
            text = f"{value:,.{digits}f}"
            ax.annotate(text, (value, place), xytext=(8, 0), weight="bold", **beside)
        labels.append("this patient")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.margins(x=0.14)
        ax.set_xlabel(self.outcome)
        weight = first.get("own_weight")
        if pd.notna(weight):
            title = f"weight of the patient's own values: {100 * weight:.0f} %"
            ax.set_title(title, fontsize="small")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)

    def _label(self, part: pd.Series, n_values: int) -> str:
        """Label of a bar."""
        if part["part"] == "feature":
            return str(part["feature"])
        if part["part"] != "value":
            return _WORDS[part["part"]]
        label = f"value {n_values}"
        if pd.notna(part["before"]):
            label = f"value {_plain(part['before'])} {self.time_unit}".rstrip() + " before"
        if pd.isna(part["surprise"]):
            return label
        surprise = f"{part['surprise']:+.{decimals(self.parts['surprise'].abs().max())}f}"
        return f"{label}: {surprise} from expected, weight {part['weight']:.2f}"


def _largest(steps: pd.DataFrame) -> pd.DataFrame:
    """Bars of a chart: all values, or the largest features in order and the sum of the others."""
    if steps.empty or steps["part"].iloc[0] != "feature":
        return steps
    steps = steps.sort_values("contribution", key=abs, ascending=False, kind="stable")
    if len(steps) <= _MAX_BARS:
        return steps
    others = steps.iloc[_MAX_BARS - 1 :]
    label = f"{len(others)} other features"
    summed = others.head(1).assign(feature=label, contribution=others["contribution"].sum())
    return pd.concat([steps.iloc[: _MAX_BARS - 1], summed])


def _with_value(feature: Feature | None, value: Any) -> str:
    """A feature with its value in the row."""
    if feature is None:  # the first line of the table is the base
        return ""
    if value is None:
        return f"{feature.name}, last measured"
    if pd.isna(value):
        return f"{feature.name} missing"
    if feature.kind == "binary":
        return f"{feature.name}: {'yes' if value else 'no'}"
    return f"{feature.name} = {value if feature.kind == 'categorical' else _plain(value)}"


def _plain(value: float) -> str:
    """Format without decimals if whole or at least 100, otherwise to 3 significant digits."""
    whole = float(value).is_integer() or abs(value) >= 100
    return f"{value:,.0f}" if whole else number(value)
