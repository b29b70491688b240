"""The look that all pictures share: colours, axes, words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ehrmeta.data.schema import Schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK",
    "LINES",
    "MARKERS",
    "MUTED",
    "PALETTE",
    "axes_of",
    "clear_frame",
    "decimals",
    "number",
    "outcome_label",
    "ranged",
    "span",
]

# Okabe and Ito's palette: told apart under every common colour blindness, and in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
INK, MUTED = "#222222", "#777777"


def axes_of(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given axes, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, dpi=120, layout="constrained")[1]


def clear_frame(ax: Axes) -> None:
    """Leave only the axes that are read."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(color=MUTED)


def span(row: Any, digits: int = 2) -> str:
    """A value with its interval, from a row with `value`, `low` and `high`."""
    if row["value"] != row["value"]:  # NaN
        return "not defined"
    text = f"{row['value']:.{digits}f}"
    if row["low"] != row["low"]:
        return text
    return f"{text} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"


def outcome_label(schema: Schema | None) -> str:
    """The outcome in words, with its unit."""
    if schema is None or schema.outcome is None:
        return "y"
    outcome = schema.outcome
    unit = outcome.unit.strip("{}")  # UCUM writes what is no unit in braces
    return (outcome.label or outcome.name) + (f" [{unit}]" if unit else "")


def number(value: float) -> str:
    """Three digits, also where the last is a nought; large numbers whole.

    Examples
    --------
    >>> number(9.6), number(0.01234), number(12345.6)
    ('9.60', '0.0123', '12,346')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def ranged(value: float, low: float, high: float, *, digits: int | None = None) -> str:
    """A value with its interval, all with the same decimals.

    Examples
    --------
    >>> ranged(9.648, 9.31, 10.02)
    '9.6 (9.3 to 10.0)'
    """
    if digits is None:
        digits = decimals(max(abs(value), abs(low), abs(high)))
    return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def decimals(largest: float) -> int:
    """So many that the largest of some values has three digits.

    Examples
    --------
    >>> decimals(16.2), decimals(0.4), decimals(12345.0)
    (1, 3, 0)
    """
    if not 0.0 < largest < math.inf:
        return 2
    return max(0, 2 - math.floor(math.log10(largest)))
