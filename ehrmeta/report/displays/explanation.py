"""From the population's prediction to a patient's own, value by value or feature by feature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrmeta.data import Feature
from ehrmeta.errors import DataError
from ehrmeta.estimators import Adapted
from ehrmeta.report.displays._base import (
    INK,
    MUTED,
    PALETTE,
    axes_of,
    clear_frame,
    decimals,
    number,
    outcome_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ExplanationDisplay"]

_WORDS = {
    "population": "population",
    "base": "with others' features",
    "visits": "when visits were, other values",
    "rest": "several values together",
}
_MOST_FEATURES = 10  # bars; the smallest are one


@dataclass(eq=False)
class ExplanationDisplay:
    """A waterfall: what each value of a patient added to the population's prediction.

    Or what each feature added to the prediction with other patients' features. Make one with
    `from_estimator`; `plot` draws it again.

    Attributes
    ----------
    parts : DataFrame
        Of one row of `Adapted.explain`, or of `Adapted.explain_features`.
    outcome, time_unit : str
        What is predicted, with its unit; and the unit of time.
    ax_, figure_
        What was drawn last.
    """

    parts: pd.DataFrame
    outcome: str
    time_unit: str = ""
    ax_: Axes = field(init=False)
    figure_: Figure = field(init=False)

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
    ) -> ExplanationDisplay:
        """Explain one row's prediction, and draw.

        Parameters
        ----------
        estimator : Adapted
            From ``model.adapt``.
        X, groups, time, target
            As in `Adapted.explain`.
        background : frame or array, optional
            Rows of other patients, to draw what features add, as in `Adapted.explain_features`.
        row : int
            Which row of X.
        ax : matplotlib axes, optional

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
            found = estimator.explain(X, **given)
        else:
            found = estimator.explain_features(X, background=background, **given)
            features = {feature.name: feature for feature in estimator.model.table_.features}
            found["feature"] = [
                _with_value(features.get(name), value)
                for name, value in zip(found["feature"], found["value"], strict=True)
            ]
        parts = found[found["row"] == row]
        if parts.empty:
            raise DataError(f"row={row}, but X has {found['row'].nunique()} rows.")
        model: Any = estimator.model
        outcome = outcome_label(model.schema_)
        if hasattr(model.table_.outcome, "labels"):
            outcome = f"probability of {model.classes_[1] if target is None else target}"
        elif model.table_.outcome.transform is not None:
            outcome = f"{model.table_.outcome.transform} of {outcome}"
        clock = model.schema_.time if model.schema_ is not None else None
        return cls(parts, outcome, clock.unit if clock is not None else "").plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ExplanationDisplay:
        """Draw on `ax`, or on a new figure."""
        first = self.parts.iloc[0]["contribution"]
        moves = _largest(self.parts.iloc[1:])
        ax = axes_of(ax, (7.6, 1.5 + 0.42 * (len(moves) + 2)))
        at, labels, digits = (
            first,
            [_WORDS[self.parts.iloc[0]["part"]]],
            decimals(moves["contribution"].abs().max()),
        )
        nth = 0  # of the values so far
        ax.use_sticky_edges = False  # bars would end at the frame
        ax.plot(first, 0, marker="D", color=INK, markersize=7)
        for place, (_, part) in enumerate(moves.iterrows(), start=1):
            change = part["contribution"]
            colour = PALETTE[0] if change >= 0 else PALETTE[1]
            ax.barh(place, change, left=at, color=colour, height=0.6, zorder=2)
            ax.plot([at, at], [place - 1, place], color=MUTED, linewidth=0.8, zorder=1)
            at += change
            words: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
            words |= {"fontsize": "small", "color": INK}
            end = max(at, at - change)
            ax.annotate(f"{change:+.{digits}f}", (end, place), xytext=(4, 0), **words)
            nth += part["part"] == "value"
            labels.append(self._label(part, nth))
        ax.plot([at, at], [len(moves), len(moves) + 1], color=MUTED, linewidth=0.8, zorder=1)
        ax.plot(at, len(moves) + 1, marker="D", color=INK, markersize=7)
        for place, value in ((0, first), (len(moves) + 1, at)):
            own: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
            text = f"{value:,.{digits}f}"
            ax.annotate(text, (value, place), xytext=(8, 0), weight="bold", **own)
        labels.append("this patient")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.margins(x=0.14)
        ax.set_xlabel(self.outcome)
        weight = self.parts.iloc[0].get("own_weight")
        if pd.notna(weight):
            ax.set_title(
                f"rests to {100 * weight:.0f} % on the patient's own values", fontsize="small"
            )
        clear_frame(ax)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)  # type: ignore[assignment]
        return self

    def _label(self, part: pd.Series, nth: int) -> str:
        """What a bar stands for."""
        if part["part"] == "feature":
            return str(part["feature"])
        if part["part"] != "value":
            return _WORDS[part["part"]]
        when = f"{_plain(part['before'])} {self.time_unit}".rstrip() + " before"
        words = f"value {nth}" if pd.isna(part["before"]) else f"value {when}"
        if pd.isna(part["surprise"]):
            return words
        surprise = f"{part['surprise']:+.{decimals(self.parts['surprise'].abs().max())}f}"
        return f"{words}: {surprise} to the expected, weight {part['weight']:.2f}"


def _largest(moves: pd.DataFrame) -> pd.DataFrame:
    """All moves; of many features the largest, from the largest on, and the sum of the others."""
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
    """A feature and what the row holds of it; that of a measured one is not what counts."""
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
